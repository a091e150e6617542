//! Feature maps, `[frames][height][width][channels]`.

use wushi_graph::{Conv, Unfold};

/// What a convolution reads.
#[derive(Clone, Copy)]
pub struct Frames<'a> {
    /// The feature map.
    pub values: &'a [f32],
    /// Frames, height, width, channels.
    pub shape: [usize; 4],
    /// As many frames as the kernel looks back, those just before the first.
    pub before: &'a [f32],
}

impl Frames<'_> {
    /// A row of channels that a convolution reads, `at` being its frame, row and column counted from the first that the
    /// first output reads; none in the padding.
    fn row(&self, conv: &Conv, [t, y, x]: [usize; 3]) -> Option<&[f32]> {
        let [_, height, width, channels] = self.shape;
        let inside = |at: usize, size: usize| {
            let at = at.checked_sub(conv.padding)?;
            Some(at / conv.upsample).filter(|&at| at < size)
        };
        let (y, x) = inside(y, height).zip(inside(x, width))?;
        // Frames before the first count from the end of `before`.
        let (from, t) = match t.checked_sub(conv.kernel[0] - 1) {
            Some(t) => (self.values, t),
            None => (self.before, t),
        };
        Some(&from[((t * height + y) * width + x) * channels..][..channels])
    }

    /// One channel of it; zero in the padding.
    pub(super) fn pixel(&self, conv: &Conv, at: [usize; 3], channel: usize) -> f32 {
        self.row(conv, at).map_or(0.0, |row| row[channel])
    }
}

/// The patch around an output position, `[frames][heights][widths][channels]` of the kernel: what the linear layer reads that
/// the convolution is. Outside of a frame there are zeros.
fn patch(frames: &Frames<'_>, conv: &Conv, [t, y, x]: [usize; 3]) -> Vec<f32> {
    let [kt, kh, kw] = conv.kernel;
    let mut out = Vec::with_capacity(kt * kh * kw * frames.shape[3]);
    for (dt, dy, dx) in (0..kt).flat_map(|t| (0..kh).flat_map(move |y| (0..kw).map(move |x| (t, y, x)))) {
        match frames.row(conv, [t + dt, y * conv.stride + dy, x * conv.stride + dx]) {
            Some(row) => out.extend_from_slice(row),
            None => out.extend(std::iter::repeat_n(0.0, frames.shape[3])),
        }
    }
    out
}

/// All patches of a convolution with outputs of `[frames, height, width]`, one after the other.
pub fn convolve(frames: &Frames<'_>, conv: &Conv, output: [usize; 3]) -> Vec<f32> {
    let [count, height, width] = output;
    let places = (0..count).flat_map(|t| (0..height).flat_map(move |y| (0..width).map(move |x| [t, y, x])));
    places.flat_map(|place| patch(frames, conv, place)).collect()
}

/// Channels to frames, rows and columns.
pub fn unfold(values: &[f32], [frames, height, width, channels]: [usize; 4], how: &Unfold) -> Vec<f32> {
    let mut out = Vec::new();
    for t in how.skip..frames * how.time {
        for y in 0..height * how.space {
            for x in 0..width * how.space {
                let from = ((t / how.time * height + y / how.space) * width + x / how.space) * channels;
                let [sc, st, sy, sx] = how.strides;
                let first = t % how.time * st + y % how.space * sy + x % how.space * sx;
                out.extend((0..how.channels).map(|c| values[from + (c * sc + first) / how.repeats]));
            }
        }
    }
    out
}
