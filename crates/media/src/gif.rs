//! GIF: 256 colours for each frame, repeated for ever.

use crate::encoder::Sink;
use crate::output::OutputFile;
use crate::{Format, FrameRate, MediaError, Settings};
use gif::{Encoder, EncodingError, Frame, Repeat};
use std::path::Path;

/// Pixels that the search for a palette looks at, about; a tenth of them where there are more than ten times as many.
const SAMPLES: usize = 1 << 16;

pub(crate) struct Gif {
    encoder: Encoder<OutputFile>,
    settings: Settings,
    frames: u64,
}

impl Gif {
    pub(crate) fn create(path: &Path, settings: Settings) -> Result<Self, MediaError> {
        let output = OutputFile::create(path, Format::Gif)?;
        // At most 65535, as `Settings::check` has it.
        let (width, height) = (settings.width as u16, settings.height as u16);
        let begin = || {
            let mut encoder = Encoder::new(output, width, height, &[])?;
            encoder.set_repeat(Repeat::Infinite)?;
            Ok(encoder)
        };
        let encoder = begin().map_err(|error| gif_error(path, error))?;
        Ok(Self { encoder, settings, frames: 0 })
    }
}

fn gif_error(path: &Path, error: EncodingError) -> MediaError {
    match error {
        EncodingError::Io(error) => MediaError::write(path, error),
        other => MediaError::Encode {
            path: path.to_path_buf(),
            format: Format::Gif.name(),
            why: other.to_string(),
        },
    }
}

/// Hundredths of a second from the beginning to a frame. Rounding each of these, and not each delay, keeps the length of
/// the whole.
fn begins(rate: FrameRate, frame: u64) -> u64 {
    let (numerator, denominator) = (u64::from(rate.numerator()), u64::from(rate.denominator()));
    (frame * 100 * denominator + numerator / 2) / numerator
}

impl Sink for Gif {
    fn push(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        let Settings { width, height, rate } = self.settings;
        let every = (rgb.len() / 3 / SAMPLES).clamp(1, 10) as i32;
        let mut frame = Frame::from_rgb_speed(width as u16, height as u16, rgb, every);
        // At most ten seconds.
        frame.delay = (begins(rate, self.frames + 1) - begins(rate, self.frames)) as u16;
        self.frames += 1;
        let written = self.encoder.write_frame(&frame);
        written.map_err(|error| gif_error(self.encoder.get_ref().path(), error))
    }

    fn finish(self: Box<Self>) -> Result<u64, MediaError> {
        let path = self.encoder.get_ref().path().to_path_buf();
        self.encoder.into_inner().map_err(|error| gif_error(&path, error))?.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_add_up() {
        for (rate, delays) in
            [("16", [6, 7, 6, 6]), ("24", [4, 4, 5, 4]), ("50", [2; 4]), ("23.976", [4, 4, 5, 4])]
        {
            let rate: FrameRate = rate.parse().expect("a rate");
            let ours: Vec<u64> = (0..4).map(|frame| begins(rate, frame + 1) - begins(rate, frame)).collect();
            assert_eq!(ours, delays, "{rate}");
            assert!((begins(rate, 1000) as f64 / 100.0 - rate.seconds(1000)).abs() <= 0.005);
        }
    }
}
