//! Latents: their extents, how they lie in memory and in files.

use std::fmt;
use std::path::Path;

use super::tensor_file::{self, TensorFile};
use super::{VideoError, VideoModel};

/// Extents of a video's latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentShape {
    /// C.
    pub channels: usize,
    /// T: latent frames.
    pub frames: usize,
    /// H.
    pub height: usize,
    /// W.
    pub width: usize,
}

impl fmt::Display for LatentShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[1, {}, {}, {}, {}]", self.channels, self.frames, self.height, self.width)
    }
}

impl LatentShape {
    /// Elements of all latents.
    pub fn elements(&self) -> usize {
        self.frames * self.frame_elements()
    }

    /// Elements of one latent frame.
    pub fn frame_elements(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// As in a file, outermost first.
    pub fn in_file(&self) -> [usize; 5] {
        [1, self.channels, self.frames, self.height, self.width]
    }

    /// `[C, T, H, W]` as `[T, H, W, C]`.
    pub fn channels_last(&self, values: &[f32]) -> Vec<f32> {
        transpose(values, self.channels, self.elements() / self.channels)
    }

    /// `[T, H, W, C]` as `[C, T, H, W]`.
    pub fn channels_first(&self, values: &[f32]) -> Vec<f32> {
        transpose(values, self.elements() / self.channels, self.channels)
    }
}

/// A matrix with rows and columns exchanged.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    assert_eq!(values.len(), rows * columns, "as many elements as the shape has");
    let mut made = Vec::with_capacity(values.len());
    for column in 0..columns {
        made.extend((0..rows).map(|row| values[row * columns + column]));
    }
    made
}

/// The tensor `latents`, `[1, C, T, H, W]`, of a safetensors file: its elements as `[C, T, H, W]`.
pub fn read_latents(path: &Path, shape: &LatentShape) -> Result<Vec<f32>, VideoError> {
    let read = tensor_file::read(path, "latents")?;
    if read.shape != shape.in_file() {
        let problem = format!(
            "tensor `latents` has the shape {:?}, but this model, size and number of frames take {shape}",
            read.shape
        );
        return Err(VideoError::BadTensor { path: path.to_owned(), problem });
    }
    Ok(read.values)
}

/// Writes latents that lie as `[T, H, W, C]` as the tensor `latents`, `[1, C, T, H, W]`.
pub(super) fn write_latents(
    path: &Path,
    shape: &LatentShape,
    values: &[f32],
    metadata: &[(&str, &str)],
) -> Result<(), VideoError> {
    let mut file = TensorFile::create(path, "latents", &shape.in_file(), metadata)?;
    file.write(&shape.channels_first(values))?;
    file.finish()
}

/// What the decoder reads: `[T, H, W, C]` times the model's deviation plus its mean, by channel, as one F32 product
/// and one sum.
pub(super) fn denormalise(model: &VideoModel, values: &mut [f32]) {
    for element in values.chunks_exact_mut(model.channels) {
        for ((x, std), mean) in element.iter_mut().zip(&model.latent_std).zip(&model.latent_mean) {
            *x = *x * std + mean;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: LatentShape = LatentShape { channels: 2, frames: 3, height: 1, width: 2 };

    #[test]
    fn layouts() {
        let file: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let inside = SHAPE.channels_last(&file);
        assert_eq!(inside, [0.0, 6.0, 1.0, 7.0, 2.0, 8.0, 3.0, 9.0, 4.0, 10.0, 5.0, 11.0]);
        assert_eq!(SHAPE.channels_first(&inside), file);
        assert_eq!((SHAPE.elements(), SHAPE.frame_elements()), (12, 4));
    }

    #[test]
    fn files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latents.safetensors");
        let file: Vec<f32> = (0..12).map(|i| i as f32).collect();
        write_latents(&path, &SHAPE, &SHAPE.channels_last(&file), &[]).unwrap();
        assert_eq!(read_latents(&path, &SHAPE).unwrap(), file);
        let other = LatentShape { width: 3, ..SHAPE };
        let error = read_latents(&path, &other).unwrap_err().to_string();
        assert!(error.contains("shape [1, 2, 3, 1, 2], but this model"), "{error}");
        assert!(error.ends_with("take [1, 2, 3, 1, 3]"), "{error}");
    }
}
