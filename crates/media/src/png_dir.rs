//! A folder with a picture for each frame.

use crate::apng::png_error;
use crate::encoder::Sink;
use crate::output::OutputFolder;
use crate::{Format, MediaError, Settings};
use std::io::Write;
use std::path::Path;

pub(crate) struct PngDir {
    output: OutputFolder,
    settings: Settings,
    frames: u64,
    bytes: u64,
}

impl PngDir {
    pub(crate) fn create(path: &Path, settings: Settings) -> Result<Self, MediaError> {
        let output = OutputFolder::create(path, Format::PngDir)?;
        Ok(Self { output, settings, frames: 0, bytes: 0 })
    }

    fn write(&self, rgb: &[u8]) -> Result<u64, png::EncodingError> {
        let mut file = self.output.file(&format!("{:06}.png", self.frames + 1))?;
        let mut encoder = png::Encoder::new(&mut file, self.settings.width, self.settings.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(rgb)?;
        writer.finish()?;
        file.flush()?;
        Ok(file.get_ref().metadata()?.len())
    }
}

impl Sink for PngDir {
    fn push(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        let written = self.write(rgb);
        self.bytes += written.map_err(|error| png_error(self.output.path(), Format::PngDir, error))?;
        self.frames += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<u64, MediaError> {
        self.output.finish(Format::PngDir)?;
        Ok(self.bytes)
    }
}
