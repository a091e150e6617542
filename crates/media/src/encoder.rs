//! The one door: frames in, a file or a folder out.

use crate::apng::Apng;
use crate::gif::Gif;
use crate::mp4::Mp4;
use crate::png_dir::PngDir;
use crate::{Format, MediaError, Settings};
use std::fmt;
use std::path::{Path, PathBuf};

/// What a format does with frames of the right length.
pub(crate) trait Sink: Send {
    /// Encodes a frame and puts it behind those before.
    fn push(&mut self, rgb: &[u8]) -> Result<(), MediaError>;
    /// Puts the whole in its place and gives its bytes. There is at least one frame.
    fn finish(self: Box<Self>) -> Result<u64, MediaError>;
}

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The file or folder.
    pub path: PathBuf,
    /// Its bytes; of a folder those of its files.
    pub bytes: u64,
    /// How many frames it has.
    pub frames: u64,
    /// How long they last together.
    pub seconds: f64,
}

/// A video that is being written: every frame is encoded when it comes, and memory does not grow with their number.
///
/// Dropped before [`Self::finish`], it leaves nothing behind, and what stood under its name stays.
pub struct Encoder {
    path: PathBuf,
    settings: Settings,
    frames: u64,
    /// None after an error.
    sink: Option<Box<dyn Sink>>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, settings, frames, sink: _ } = self;
        f.debug_struct("Encoder")
            .field("path", path)
            .field("settings", settings)
            .field("frames", frames)
            .finish()
    }
}

impl Encoder {
    /// Begins a video. Everything that can be known to fail does so here: the size, the place, the right to write there.
    ///
    /// # Errors
    /// [`MediaError`].
    pub fn create(path: &Path, format: Format, settings: Settings) -> Result<Self, MediaError> {
        settings.check(format)?;
        let sink: Box<dyn Sink> = match format {
            Format::Mp4 => Box::new(Mp4::create(path, settings)?),
            Format::Apng => Box::new(Apng::create(path, settings)?),
            Format::Gif => Box::new(Gif::create(path, settings)?),
            Format::PngDir => Box::new(PngDir::create(path, settings)?),
        };
        Ok(Self { path: path.to_path_buf(), settings, frames: 0, sink: Some(sink) })
    }

    /// Encodes the next frame: RGB, `height * width * 3` bytes, rows from top to bottom.
    ///
    /// # Errors
    /// [`MediaError::FrameLength`], after which the frame may come again; any other error is final.
    pub fn push(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        let Settings { width, height, .. } = self.settings;
        let expected = self.settings.frame_bytes();
        if rgb.len() != expected {
            return Err(MediaError::FrameLength { width, height, expected, given: rgb.len() });
        }
        let sink = self.sink.as_mut().ok_or_else(|| MediaError::GivenUp { path: self.path.clone() })?;
        let pushed = sink.push(rgb);
        match pushed {
            Ok(()) => self.frames += 1,
            // What was begun is removed now, not when the caller is done.
            Err(_) => self.sink = None,
        }
        pushed
    }

    /// How many frames were encoded.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Completes the video, which appears under its name in one rename.
    ///
    /// # Errors
    /// [`MediaError`]; nothing is left behind then.
    pub fn finish(self) -> Result<Summary, MediaError> {
        let Self { path, settings, frames, sink } = self;
        let Some(sink) = sink else { return Err(MediaError::GivenUp { path }) };
        if frames == 0 {
            return Err(MediaError::NoFrames { path });
        }
        let bytes = sink.finish()?;
        Ok(Summary { path, bytes, frames, seconds: settings.rate.seconds(frames) })
    }
}
