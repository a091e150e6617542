//! Decoded frames: from what a decoder gives to what is shown, saved and hashed.

/// BLAKE3 over the F32 elements, little-endian, of all frames in `[F, 3, H, W]` order.
#[derive(Clone, Debug, Default)]
pub struct FramesDigest(blake3::Hasher);

impl FramesDigest {
    /// Of no frame yet.
    pub fn new() -> FramesDigest {
        FramesDigest::default()
    }

    /// Takes in the next elements.
    pub fn update(&mut self, values: &[f32]) {
        let mut bytes = [0u8; 4096];
        for values in values.chunks(bytes.len() / 4) {
            for (place, value) in bytes.chunks_exact_mut(4).zip(values) {
                place.copy_from_slice(&value.to_le_bytes());
            }
            self.0.update(&bytes[..4 * values.len()]);
        }
    }

    /// The digest of all that was taken in, in lower-case hexadecimal.
    pub fn hex(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// A frame `[H, W, 3]` of a decoder, in -1 to 1 and beyond, as `[3, H, W]` in 0 to 1.
pub(super) fn from_decoder(decoded: &[f32], frame: &mut [f32]) {
    assert_eq!(decoded.len(), frame.len(), "as many elements as a frame has");
    let pixels = frame.len() / 3;
    for (place, pixel) in decoded.chunks_exact(3).enumerate() {
        for (channel, value) in pixel.iter().enumerate() {
            frame[channel * pixels + place] = value.clamp(-1.0, 1.0) * 0.5 + 0.5;
        }
    }
}

/// A frame `[3, H, W]` in 0 to 1 as bytes `[H, W, 3]`: 255 times, rounded to the nearest, halves to even.
pub fn to_rgb8(frame: &[f32], bytes: &mut [u8]) {
    assert_eq!(frame.len(), bytes.len(), "as many elements as a frame has");
    let pixels = frame.len() / 3;
    for (place, pixel) in bytes.chunks_exact_mut(3).enumerate() {
        for (channel, byte) in pixel.iter_mut().enumerate() {
            *byte = (255.0 * frame[channel * pixels + place]).round_ties_even() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_the_bytes() {
        let values: Vec<f32> = (0..3000).map(|i| i as f32 * 0.37).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut digest = FramesDigest::new();
        digest.update(&values[..1500]);
        digest.update(&values[1500..]);
        assert_eq!(digest.hex(), blake3::hash(&bytes).to_hex().as_str());
    }

    #[test]
    fn values_become_bytes() {
        // Two pixels: [H, W, 3] from the decoder, [3, H, W] as a frame.
        let decoded = [-1.5, -1.0, 0.0, 0.5, 1.0, 7.0];
        let mut frame = [0.0; 6];
        from_decoder(&decoded, &mut frame);
        assert_eq!(frame, [0.0, 0.75, 0.0, 1.0, 0.5, 1.0]);
        let mut bytes = [0; 6];
        to_rgb8(&frame, &mut bytes);
        // 127.5 and 191.25.
        assert_eq!(bytes, [0, 0, 128, 191, 255, 255]);
        to_rgb8(&[0.5 / 255.0, 0.0, 0.0], &mut bytes[..3]);
        assert_eq!(bytes[0], 0);
    }
}
