//! What can go wrong with a video.

use std::error::Error;

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
}

/// An error of a part (an executor, a reader of weights, whoever takes frames).
pub type PartError = Box<dyn Error + Send + Sync>;
