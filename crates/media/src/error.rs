//! What can go wrong, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate. Its text is one line, meant for the person who asked for the video.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// A file name whose ending says nothing.
    #[error(
        "{} does not say which format it should have; name it .mp4, .apng, .png or .gif, or ask for a format by name",
        path.display()
    )]
    UnknownEnding {
        /// The file's name.
        path: PathBuf,
    },

    /// A name that is no format's.
    #[error("`{given}` is no format; there are mp4, apng, gif and png-dir")]
    UnknownFormat {
        /// What was asked for.
        given: String,
    },

    /// A rate at which nothing can be shown.
    #[error(
        "{given} frames a second cannot be written; give a number from 0.1 to 240, such as 16, 23.976 or 24000/1001"
    )]
    FrameRate {
        /// What was asked for.
        given: String,
    },

    /// A rate that this format's clock cannot tell from another.
    #[error("a GIF holds at most 50 frames a second, not {rate}; choose a lower rate or another format")]
    TooFast {
        /// What was asked for.
        rate: f64,
    },

    /// A size that the format cannot have.
    #[error("{width}x{height} cannot be written as {format}: {why}")]
    Size {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// The format's name.
        format: &'static str,
        /// What it demands.
        why: &'static str,
    },

    /// A frame of another size than was announced.
    #[error("a frame of {width}x{height} has {expected} bytes, not {given}")]
    FrameLength {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes that such a frame has.
        expected: usize,
        /// Bytes that came.
        given: usize,
    },

    /// Nothing to write.
    #[error("{} would hold no frame, so it was not written", path.display())]
    NoFrames {
        /// The file or folder.
        path: PathBuf,
    },

    /// More than the format can count.
    #[error("{} cannot grow further: {what}", path.display())]
    TooLong {
        /// The file or folder.
        path: PathBuf,
        /// Which limit was met.
        what: &'static str,
    },

    /// A folder with something else in it.
    #[error("{} holds other files than the frames of a video ({found}); choose another folder or empty it", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// One of the others.
        found: String,
    },

    /// A file where a folder is to be, or the other way round.
    #[error("{} is a {is}, and {format} makes a {makes}; choose another name", path.display())]
    WrongKind {
        /// The file or folder.
        path: PathBuf,
        /// What is there.
        is: &'static str,
        /// The format's name.
        format: &'static str,
        /// What it would be.
        makes: &'static str,
    },

    /// The disk said no.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// An encoder said no.
    #[error("cannot write {} as {format}: {why}", path.display())]
    Encode {
        /// The file or folder.
        path: PathBuf,
        /// The format's name.
        format: &'static str,
        /// What the encoder said.
        why: String,
    },

    /// Frames after an error.
    #[error("{} was given up after an error; begin it anew", path.display())]
    GivenUp {
        /// The file or folder.
        path: PathBuf,
    },
}

impl MediaError {
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_path_buf(), source }
    }
}
