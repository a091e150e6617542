//! Animated PNG (PNG, third edition, 4.9 and 11.3.6): exactly the frames, repeated for ever.
//!
//! Its head has the number of frames, which is known in the end: that chunk is then written a second time.

use crate::encoder::Sink;
use crate::output::OutputFile;
use crate::{Format, MediaError, Settings};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Where the chunk with the number of frames begins: behind the signature and the header's chunk.
const CONTROL: u64 = 8 + 25;
/// What is written first. A frame takes up to two numbers in a sequence of 31 bits.
const MOST_FRAMES: u32 = 1 << 30;

pub(crate) struct Apng {
    output: OutputFile,
    writer: png::Writer<BufWriter<File>>,
    frames: u32,
}

/// What the encoder of PNG said, without wrapping the operating system's words twice.
pub(crate) fn png_error(path: &Path, format: Format, error: png::EncodingError) -> MediaError {
    match error {
        png::EncodingError::IoError(error) => MediaError::write(path, error),
        other => {
            MediaError::Encode { path: path.to_path_buf(), format: format.name(), why: other.to_string() }
        }
    }
}

impl Apng {
    pub(crate) fn create(path: &Path, settings: Settings) -> Result<Self, MediaError> {
        let output = OutputFile::create(path, Format::Apng)?;
        let handle = output.handle()?;
        let begin = || {
            let mut encoder = png::Encoder::new(handle, settings.width, settings.height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_animated(MOST_FRAMES, 0)?;
            // Seconds for a frame, which is the rate turned over.
            encoder.set_frame_delay(settings.rate.denominator(), settings.rate.numerator())?;
            encoder.write_header()
        };
        let writer = begin().map_err(|error| png_error(path, Format::Apng, error))?;
        Ok(Self { output, writer, frames: 0 })
    }
}

impl Sink for Apng {
    fn push(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        if self.frames == MOST_FRAMES {
            let path = self.output.path().to_path_buf();
            return Err(MediaError::TooLong { path, what: "APNG has no numbers for more frames" });
        }
        let written = self.writer.write_image_data(rgb);
        written.map_err(|error| png_error(self.output.path(), Format::Apng, error))?;
        self.frames += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<u64, MediaError> {
        let Self { mut output, writer, frames } = *self;
        writer.finish().map_err(|error| png_error(output.path(), Format::Apng, error))?;
        let mut file = output.handle()?;
        count(file.get_mut(), frames).map_err(|error| output.error(error))?;
        drop(file);
        output.flush().map_err(|error| output.error(error))?;
        output.finish()
    }
}

/// Writes the chunk again that says how many frames there are.
fn count(file: &mut File, frames: u32) -> io::Result<()> {
    let mut control = [0; 20];
    file.seek(SeekFrom::Start(CONTROL))?;
    file.read_exact(&mut control)?;
    if control[..8] != *b"\0\0\0\x08acTL" {
        return Err(io::Error::other("the number of frames is not where PNG has it"));
    }
    control[8..12].copy_from_slice(&frames.to_be_bytes());
    // Of the chunk's name and its data.
    let sum = crc32fast::hash(&control[4..16]);
    control[16..].copy_from_slice(&sum.to_be_bytes());
    file.seek(SeekFrom::Start(CONTROL))?;
    file.write_all(&control)
}
