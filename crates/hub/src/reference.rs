//! What a person may call a model.

use crate::http::check_address;
use crate::{CATALOGUE, Entry, HubError};
use std::fmt;
use std::path::{Path, PathBuf};

/// A model as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelRef {
    /// A file or folder on this disk, used where it is.
    Path(PathBuf),
    /// A short name.
    Catalogue(&'static Entry),
    /// `hf:org/repo`: the files of it that make a model.
    Repository {
        /// `org/repo`.
        repo: String,
    },
    /// `hf:org/repo/file`; if that is one of several files of a model, all of them.
    HuggingFace {
        /// `org/repo`.
        repo: String,
        /// Path of the file in the repository.
        file: String,
    },
    /// `https://…`, or `http://` to this very machine.
    Url(String),
}

impl ModelRef {
    /// Reads what a person typed.
    ///
    /// In this order: `hf:…`, an address, a short name of the catalogue, and a path, which is what contains a separator,
    /// ends in `.gguf` or exists. A short name thus means the same in every folder; a file that happens to be called
    /// like one is had with `./`.
    ///
    /// # Errors
    /// [`HubError::UnknownModel`], [`HubError::BadReference`], [`HubError::Insecure`].
    pub fn parse(given: &str) -> Result<ModelRef, HubError> {
        let bad = |why: &str| HubError::BadReference { given: given.to_owned(), why: why.to_owned() };
        if given.trim().is_empty() {
            return Err(bad("it is empty"));
        }
        if given.chars().any(char::is_control) {
            return Err(bad("it contains control characters"));
        }
        if let Some(rest) = given.strip_prefix("hf:") {
            return hugging_face(given, rest);
        }
        if let Some((scheme, _)) = given.split_once("://") {
            return match scheme {
                "https" | "http" => url(given),
                _ => Err(bad("an address starts with https://, a repository with hf:")),
            };
        }
        if let Some(entry) = CATALOGUE.iter().find(|entry| entry.name == given) {
            return Ok(ModelRef::Catalogue(entry));
        }
        let path = Path::new(given);
        let looks_like_a_path = given.contains(std::path::is_separator)
            || path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
        if looks_like_a_path || path.exists() {
            return Ok(ModelRef::Path(path.to_path_buf()));
        }
        let known = CATALOGUE.iter().map(|entry| entry.name.to_owned()).collect();
        Err(HubError::UnknownModel { given: given.to_owned(), known })
    }

    /// What the file is called, without folders: for a remote file the last part of its address.
    pub(crate) fn file_name(&self) -> String {
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        match self {
            ModelRef::Path(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            ModelRef::Catalogue(entry) => entry.file_name.to_owned(),
            ModelRef::Repository { repo } => last(repo),
            ModelRef::HuggingFace { file, .. } => last(file),
            ModelRef::Url(url) => last(url.split(['?', '#']).next().unwrap_or_default()),
        }
    }
}

impl fmt::Display for ModelRef {
    /// The reference as it can be typed again; the name under which the store lists the model.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelRef::Path(path) => write!(f, "{}", path.display()),
            ModelRef::Catalogue(entry) => f.write_str(entry.name),
            ModelRef::Repository { repo } => write!(f, "hf:{repo}"),
            ModelRef::HuggingFace { repo, file } => write!(f, "hf:{repo}/{file}"),
            ModelRef::Url(url) => f.write_str(url),
        }
    }
}

fn hugging_face(given: &str, rest: &str) -> Result<ModelRef, HubError> {
    let bad = |why: &str| HubError::BadReference { given: given.to_owned(), why: why.to_owned() };
    let parts: Vec<&str> = rest.split('/').collect();
    // A trailing slash after the repository is still a repository without a file.
    let parts = match parts.as_slice() {
        [org, repo, ""] => vec![*org, *repo],
        _ => parts,
    };
    let (repo, file) = match parts.as_slice() {
        [org, repo, file @ ..] => (format!("{org}/{repo}"), file.join("/")),
        _ => return Err(bad("the form is hf:org/repo or hf:org/repo/file")),
    };
    if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
        return Err(bad("a part between two slashes is empty, `.` or `..`"));
    }
    if repo.contains(|c: char| !c.is_ascii_alphanumeric() && !"/-_.".contains(c)) {
        return Err(bad("organisation and repository have letters, digits, `-`, `_` and `.` only"));
    }
    if file.contains('\\') {
        return Err(bad("folders are separated with `/`"));
    }
    match file.is_empty() {
        true => Ok(ModelRef::Repository { repo }),
        false => Ok(ModelRef::HuggingFace { repo, file }),
    }
}

fn url(given: &str) -> Result<ModelRef, HubError> {
    check_address(given)?;
    let reference = ModelRef::Url(given.to_owned());
    if reference.file_name().is_empty() {
        return Err(HubError::BadReference { given: given.to_owned(), why: "it names no file".to_owned() });
    }
    Ok(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hf(repo: &str, file: &str) -> Option<ModelRef> {
        Some(ModelRef::HuggingFace { repo: repo.to_owned(), file: file.to_owned() })
    }

    #[test]
    fn every_form_is_read() {
        let read = |given: &str| ModelRef::parse(given).ok();
        assert_eq!(read("smollm2"), Some(ModelRef::Catalogue(&CATALOGUE[0])));
        assert_eq!(read("hf:a/b/c.gguf"), hf("a/b", "c.gguf"));
        assert_eq!(read("hf:a/b/sub/c 1.gguf"), hf("a/b", "sub/c 1.gguf"));
        let repository = Some(ModelRef::Repository { repo: "a/b".to_owned() });
        assert_eq!((read("hf:a/b"), read("hf:a/b/")), (repository.clone(), repository));
        assert_eq!(read("model.GGUF"), Some(ModelRef::Path("model.GGUF".into())));
        assert_eq!(read("./smollm2"), Some(ModelRef::Path("./smollm2".into())));
        assert_eq!(read("Cargo.toml"), Some(ModelRef::Path("Cargo.toml".into())));
        for url in
            ["https://a.example/m.gguf", "http://127.0.0.1:80/m", "http://localhost/m", "http://[::1]:8/m"]
        {
            assert_eq!(read(url), Some(ModelRef::Url(url.to_owned())));
        }
    }

    #[test]
    fn a_reference_prints_as_it_is_typed() {
        for given in
            ["smollm2", "hf:a/b", "hf:a/b/sub/c.gguf", "https://a.example/x/m.gguf?rev=1", "x/y.gguf"]
        {
            assert_eq!(ModelRef::parse(given).map(|model| model.to_string()).ok().as_deref(), Some(given));
        }
        assert_eq!(
            ModelRef::parse("https://a.example/x/m.gguf?a=/b").map(|m| m.file_name()).ok().as_deref(),
            Some("m.gguf")
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let text = |given: &str| match ModelRef::parse(given) {
            Ok(read) => panic!("{given} was read as {read:?}"),
            Err(error) => error.to_string(),
        };
        assert!(text("smollm3").contains("smollm2"), "the catalogue's names are listed");
        for given in
            ["hf:", "hf:org", "hf:/a/b", "hf:a//b", "hf:a/b/../c", "hf:a/b/c/", "hf:a b/c/d", "hf:a/b/c\\d"]
        {
            assert!(text(given).contains(given), "{given}");
        }
        assert!(text("http://example.org/m.gguf").contains("https://"));
        assert!(text("http://localhost.example.org/m.gguf").contains("https://"));
        assert!(text("https://user:secret@a.example/m.gguf").contains("password"));
        assert!(text("https:///m.gguf").contains("host"));
        assert!(text("https://a.example/").contains("no file"));
        assert!(text("ftp://a.example/m").contains("https://"));
        assert!(text("  ").contains("empty") && text("a\nb").contains("control"));
    }
}
