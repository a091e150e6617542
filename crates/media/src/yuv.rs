//! RGB to the colours of H.264: one brightness a pixel, two differences of colour for four of them.
//!
//! BT.709 in limited range. With R, G and B in 0..1, and Kr = 0.2126, Kb = 0.0722 (ITU-R BT.709, 3.2):
//!
//! ```text
//! Y  = 0.2126 R + 0.7152 G + 0.0722 B     16 + 219 Y
//! Cb = (B - Y) / 1.8556                  128 + 224 Cb
//! Cr = (R - Y) / 1.5748                  128 + 224 Cr
//! ```
//!
//! in integers, so that a frame gives the same bytes everywhere. Coefficients are in 65536ths; those of a difference add up
//! to nothing and those of brightness to 219/255, so a grey has exactly no colour, and white is exactly 235.

/// Bits behind the point of a coefficient.
const POINT: u32 = 16;
const Y: [i32; 3] = [11_966, 40_254, 4_064];
const CB: [i32; 3] = [-6_596, -22_189, 28_785];
const CR: [i32; 3] = [28_784, -26_145, -2_639];

/// A frame in three planes, the two of colour with half the columns and half the rows.
pub(crate) struct Planes {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) y: Vec<u8>,
    pub(crate) cb: Vec<u8>,
    pub(crate) cr: Vec<u8>,
}

impl Planes {
    /// Planes for frames of an even size.
    pub(crate) fn new(width: usize, height: usize) -> Self {
        let quarter = vec![0; width * height / 4];
        Self { width, height, y: vec![0; width * height], cb: quarter.clone(), cr: quarter }
    }

    /// Takes over a frame.
    ///
    /// A difference of colour is that of the mean of its four pixels. It thus stands in their middle, where browsers show
    /// it, and not at their left edge, as the bare standard has it.
    pub(crate) fn fill(&mut self, rgb: &[u8]) {
        let (width, half) = (self.width, self.width / 2);
        let chroma = self.cb.chunks_exact_mut(half).zip(self.cr.chunks_exact_mut(half));
        let rows = rgb.chunks_exact(6 * width).zip(self.y.chunks_exact_mut(2 * width));
        for ((pair, y), (cb, cr)) in rows.zip(chroma) {
            for (y, pixel) in y.iter_mut().zip(pair.chunks_exact(3)) {
                *y = weighted(Y, [pixel[0].into(), pixel[1].into(), pixel[2].into()], 16, 0);
            }
            let (upper, lower) = pair.split_at(3 * width);
            let squares = upper.chunks_exact(6).zip(lower.chunks_exact(6));
            for ((upper, lower), (cb, cr)) in squares.zip(cb.iter_mut().zip(cr)) {
                let sum: [i32; 3] = std::array::from_fn(|channel| {
                    let at = |pixels: &[u8]| i32::from(pixels[channel]) + i32::from(pixels[channel + 3]);
                    at(upper) + at(lower)
                });
                *cb = weighted(CB, sum, 128, 2);
                *cr = weighted(CR, sum, 128, 2);
            }
        }
    }
}

/// A weighted sum of channels, each the sum of `2^pixels` bytes, on top of `base`; to nearest, halves upwards.
fn weighted(by: [i32; 3], channels: [i32; 3], base: i32, pixels: u32) -> u8 {
    let sum: i32 = by.iter().zip(channels).map(|(weight, channel)| weight * channel).sum();
    let point = POINT + pixels;
    // Within 16 to 240 for every colour, so nothing is cut off.
    ((sum + (base << point) + (1 << (point - 1))) >> point) as u8
}

impl openh264::formats::YUVSource for Planes {
    fn dimensions(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    fn strides(&self) -> (usize, usize, usize) {
        (self.width, self.width / 2, self.width / 2)
    }

    fn y(&self) -> &[u8] {
        &self.y
    }

    fn u(&self) -> &[u8] {
        &self.cb
    }

    fn v(&self) -> &[u8] {
        &self.cr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(colour: [u8; 3]) -> (u8, u8, u8) {
        let mut planes = Planes::new(2, 2);
        planes.fill(&colour.repeat(4));
        assert!(planes.y.iter().all(|&y| y == planes.y[0]));
        (planes.y[0], planes.cb[0], planes.cr[0])
    }

    /// By the definition, in floating point.
    fn defined([r, g, b]: [u8; 3]) -> [f64; 3] {
        let [r, g, b] = [r, g, b].map(|channel| f64::from(channel) / 255.0);
        let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        [16.0 + 219.0 * y, 128.0 + 224.0 * (b - y) / 1.8556, 128.0 + 224.0 * (r - y) / 1.5748]
    }

    #[test]
    fn known_colours() {
        assert_eq!(flat([0, 0, 0]), (16, 128, 128));
        assert_eq!(flat([255, 255, 255]), (235, 128, 128));
        // SMPTE RP 177's bars at full saturation.
        assert_eq!(flat([255, 0, 0]), (63, 102, 240));
        assert_eq!(flat([0, 255, 0]), (173, 42, 26));
        assert_eq!(flat([0, 0, 255]), (32, 240, 118));
        assert_eq!(flat([255, 255, 0]), (219, 16, 138));
    }

    #[test]
    fn every_colour_is_the_nearest() {
        for r in (0..=255).step_by(5) {
            for g in (0..=255).step_by(5) {
                for b in (0..=255).step_by(5) {
                    let (y, cb, cr) = flat([r, g, b]);
                    for (ours, defined) in [y, cb, cr].into_iter().zip(defined([r, g, b])) {
                        assert!(
                            (f64::from(ours) - defined).abs() < 0.51,
                            "{r} {g} {b}: {ours} for {defined}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn greys_have_no_colour() {
        for grey in 0..=255 {
            let (_, cb, cr) = flat([grey; 3]);
            assert_eq!((cb, cr), (128, 128), "{grey}");
        }
    }

    #[test]
    fn colour_is_that_of_four_pixels() {
        let mut planes = Planes::new(4, 2);
        let (red, blue) = ([255, 0, 0], [0, 0, 255]);
        planes.fill(&[red, blue, red, red, red, blue, red, red].concat());
        assert_eq!(planes.y, [63, 32, 63, 63, 63, 32, 63, 63]);
        // Half way between 102 and 240, and between 240 and 118.
        assert_eq!((planes.cb[0], planes.cr[0]), (171, 179));
        assert_eq!((planes.cb[1], planes.cr[1]), (102, 240));
    }
}
