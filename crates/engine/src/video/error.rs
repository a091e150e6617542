//! What can go wrong with a video.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use wushi_cpu::CpuError;
use wushi_formats::FormatError;
use wushi_models::ModelError;

use super::pipeline::{Kept, Part};
use super::plan::{Advice, Fit, Limit, Memory};
use crate::load::Size;

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

    /// A stage takes more memory than there is.
    #[error(
        "not enough memory: {width}x{height} with {frames} frames needs {} for {stage} ({} of weights, {} of buffers, \
         {} of carried frames, {} of latents and context), but {} are {}; {}",
        Size(memory.total()), Size(memory.weights), Size(memory.arena), Size(memory.carried), Size(memory.kept),
        Size(limit.bytes), if limit.budget { "allowed" } else { "available" }, Advice(fits)
    )]
    TooLittleMemory {
        /// Pixels.
        width: usize,
        /// Pixels.
        height: usize,
        /// Frames.
        frames: usize,
        /// The stage that needs most.
        stage: &'static str,
        /// What it needs.
        memory: Memory,
        /// What there is.
        limit: Limit,
        /// What would fit.
        fits: Vec<Fit>,
    },

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

    /// Saved latents belong to another video.
    #[error(
        "{path}: these latents are of another video: {what} was {found}, now it is {expected}; use the same settings, or \
         begin anew",
        path = path.display()
    )]
    OtherVideo {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the file says.
        found: String,
        /// What is wanted.
        expected: String,
    },

    /// A model's files do not describe one.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// Its networks cannot be computed here.
    #[error(transparent)]
    Cpu(#[from] CpuError),

    /// A part of the model failed.
    #[error("{part}: {source}")]
    Part {
        /// Which.
        part: Part,
        /// Why. Part of this error's own text.
        source: PartError,
    },

    /// A part of the model gave something else than was asked for.
    #[error("{part} gave {found}, expected {expected}")]
    WrongResult {
        /// Which.
        part: Part,
        /// What it gave.
        found: String,
        /// What was asked for.
        expected: String,
    },

    /// A part of the model gave NaN or an infinity: the weights are damaged or overflow.
    #[error("{part} gave {value} {place}: the weights are damaged or overflow")]
    NotFinite {
        /// Which.
        part: Part,
        /// What it gave.
        value: f32,
        /// Where.
        place: String,
    },

    /// Whoever takes the frames failed.
    #[error("frame {index} could not be passed on: {source}")]
    Sink {
        /// Which frame, from 0.
        index: usize,
        /// Why. Part of this error's own text.
        source: PartError,
    },

    /// It was stopped.
    #[error("stopped{}", saved.map_or(String::new(), |saved| format!("; {saved}, so that it can be resumed")))]
    Stopped {
        /// What lies on disk.
        saved: Option<Kept>,
    },

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
