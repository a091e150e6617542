//! What can go wrong with a video.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use wushi_formats::FormatError;

/// Why a video could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VideoError {
    /// A setting out of its range, or NaN.
    #[error("{name} is {value}, expected {expected}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        expected: String,
    },

    /// A sampler's name that is none.
    #[error("sampler `{0}` is unknown: choose unipc or euler")]
    UnknownSampler(String),

    /// A model's description contradicts itself.
    #[error("the model's description is impossible: {0}")]
    BadModel(String),

    /// The operating system refused something about a file.
    #[error("could not {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A file is not what it must be.
    #[error(transparent)]
    Format(#[from] FormatError),

    /// A file does not hold the tensor that is wanted of it.
    #[error("{path}: {problem}", path = path.display())]
    BadTensor {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        problem: String,
    },
}

impl VideoError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VideoError {
        let path = path.to_owned();
        move |source| VideoError::Io { action, path, source }
    }
}

/// An error of a part (an executor, a reader of weights, whoever takes frames).
pub type PartError = Box<dyn Error + Send + Sync>;
