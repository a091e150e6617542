//! What can go wrong, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error of this crate. Its text is meant for the person who asked for the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a name of the catalogue, nor anything that looks like a path or an address.
    #[error(
        "`{given}` is no model that this catalogue knows ({}), and no file; \
         give a path, hf:org/repo, hf:org/repo/file or an https:// address",
        known.join(", ")
    )]
    UnknownModel {
        /// What was asked for.
        given: String,
        /// The names of the catalogue.
        known: Vec<String>,
    },

    /// A repository without a model that can be read.
    #[error("hf:{repo} holds no model that can be used: {why}")]
    NoModel {
        /// `org/repo`.
        repo: String,
        /// What is missing.
        why: String,
    },

    /// A repository with several models, as those in GGUF often are.
    #[error("hf:{repo} holds several models; say which one:{}", Choices(files))]
    SeveralModels {
        /// `org/repo`.
        repo: String,
        /// Each as it can be typed.
        files: Vec<String>,
    },

    /// A reference that cannot be read.
    #[error("`{given}` is no model reference: {why}")]
    BadReference {
        /// What was asked for.
        given: String,
        /// What is wrong with it.
        why: String,
    },

    /// `http://` to another machine.
    #[error("{url} is refused: without TLS anyone on the way could change the model; use https://")]
    Insecure {
        /// The address.
        url: String,
    },

    /// The reference is a path and there is no file.
    #[error("there is no file {}", path.display())]
    NoSuchFile {
        /// The path.
        path: PathBuf,
    },

    /// The reference is a path to something that is not a file.
    #[error("{} is not a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },

    /// None of the sources gave the right file.
    #[error(
        "could not fetch {name}; tried:{}\n  without a network, give the path of a file or folder on this disk, or name a mirror in HF_ENDPOINT",
        Lines(tried)
    )]
    AllSourcesFailed {
        /// The model.
        name: String,
        /// Every source with its reason, in order.
        tried: Vec<Attempt>,
    },

    /// The disk is full, or has less room than the download needs.
    #[error("not enough room in {}: {}", path.display(), Room(*needed, *available))]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Bytes that are needed, if that is known.
        needed: Option<u64>,
        /// Bytes that are free, if that is known.
        available: Option<u64>,
    },

    /// The store has no model of this name.
    #[error("{name} is not in the store, which holds {}", Names(present))]
    NotStored {
        /// What was asked for.
        name: String,
        /// The names of what is there.
        present: Vec<String>,
    },

    /// Another process is fetching this very model.
    #[error("{name} is being fetched by another process")]
    Busy {
        /// The model.
        name: String,
    },

    /// Nothing says where the store should be.
    #[error("no place for the models: set WUSHI_HOME to a folder")]
    NoHome,

    /// An operation of the file system failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done, e.g. "create".
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl HubError {
    /// Wraps an error of the file system; a full disk becomes [`HubError::NoSpace`].
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> HubError {
        if is_full(&source) {
            return HubError::NoSpace { path: path.to_path_buf(), needed: None, available: None };
        }
        HubError::Io { doing, path: path.to_path_buf(), source }
    }
}

/// Whether the file system refused a write for want of room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// One source that was tried and failed.
#[derive(Debug)]
pub struct Attempt {
    /// The source as a person would name it.
    pub source: String,
    /// Why it failed.
    pub failure: SourceFailure,
}

/// Why one source failed. The text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceFailure {
    /// No connection, or no answer on it.
    #[error("cannot reach {host}: {why}")]
    Unreachable {
        /// The host of the address.
        host: String,
        /// The reason.
        why: String,
    },

    /// The address itself is of no use, for want of a host or of TLS.
    #[error("{0}")]
    Address(String),

    /// The server refused.
    #[error("the server answered {status}{}", hint(*status))]
    Status {
        /// The HTTP status.
        status: u16,
    },

    /// A redirection that is not followed.
    #[error("the server sends us on to {to:?}, which is not followed: {why}")]
    Redirect {
        /// Where to.
        to: String,
        /// Why not.
        why: &'static str,
    },

    /// An answer that breaks the protocol.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(String),

    /// The server does not say how long the file is, so that a broken transfer could not be told from a whole one.
    #[error("the server does not say how long the file is")]
    NoLength,

    /// The connection stays open and nothing comes.
    #[error("nothing came for {} s, after {got} bytes", after.as_secs_f32())]
    Stalled {
        /// How long was waited.
        after: Duration,
        /// Bytes that are here.
        got: u64,
    },

    /// The connection ended before the file did.
    #[error("the connection ended after {got}{} bytes: {why}", Of(*expected))]
    Truncated {
        /// Bytes that are here.
        got: u64,
        /// Bytes that should be.
        expected: Option<u64>,
        /// The reason.
        why: String,
    },

    /// Another file than the one wanted: its length differs.
    #[error("the file has {actual} bytes where {expected} were expected")]
    WrongSize {
        /// Bytes of the file that is wanted.
        expected: u64,
        /// Bytes of what the source has.
        actual: u64,
    },

    /// Another file than the one wanted: its digest differs.
    #[error("the file's SHA-256 is {actual} where {expected} was expected")]
    WrongDigest {
        /// Digest of the file that is wanted, lower-case hexadecimal.
        expected: String,
        /// Digest of what the source gave.
        actual: String,
    },

    /// The package client could not be started.
    #[error("cannot run `{program} -m pip`: {why}; Python 3 with pip is needed for this source")]
    NoPackageClient {
        /// The program.
        program: String,
        /// The reason.
        why: String,
    },

    /// The package client failed.
    #[error("pip: {0}")]
    PackageClient(String),

    /// The package is here and not what it should be.
    #[error("the package is damaged or not the right one: {0}")]
    BadPackage(String),
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => {
            " (no access: a private or gated model needs a token in HF_TOKEN, a mirror may need another)"
        }
        404 | 410 => " (no such file there)",
        407 => " (the proxy wants a password)",
        429 => " (too many requests; try again later)",
        500.. => " (trouble on the server's side; try again later)",
        _ => "",
    }
}

struct Lines<'a>(&'a [Attempt]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for attempt in self.0 {
            write!(f, "\n  {}: {}", attempt.source, attempt.failure)?;
        }
        Ok(())
    }
}

struct Choices<'a>(&'a [String]);

impl fmt::Display for Choices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|choice| write!(f, "\n  {choice}"))
    }
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("nothing yet"),
            names => f.write_str(&names.join(", ")),
        }
    }
}

struct Of(Option<u64>);

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |total| write!(f, " of {total}"))
    }
}

struct Room(Option<u64>, Option<u64>);

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        match (self.0, self.1) {
            (Some(needed), Some(free)) => {
                write!(f, "{:.1} MB are needed and {:.1} MB are free", mb(needed), mb(free))?;
            }
            _ => f.write_str("the disk is full")?,
        }
        f.write_str("; free some, or set WUSHI_HOME to a folder on another disk")
    }
}
