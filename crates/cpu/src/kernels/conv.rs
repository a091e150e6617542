//! Convolutions as linear layers: the patch around each output position becomes a row of activations, a few rows at a time,
//! so that patches never exist as a whole.

use std::ops::Range;

use wushi_graph::Conv;

use super::Output;
use crate::activations::{Activations, Packing};
use crate::simd::Isa;

/// Frames of a feature map that a convolution reads, and where those before them are.
#[derive(Clone, Copy)]
pub(crate) struct Frames {
    /// `[frames * height * width]` rows of channels.
    pub(crate) x: Output,
    /// Frames, height, width, channels.
    pub(crate) shape: [usize; 4],
    /// Frames before the first, without padding, as many as the kernel looks back; zeros if there are none.
    pub(crate) before: Option<*const f32>,
}

/// Gathers some elements of the patches of some output positions, in the form a weight format takes.
pub(crate) struct PatchCall {
    pub(crate) frames: Frames,
    pub(crate) conv: Conv,
    /// Height and width of an output frame.
    pub(crate) output: [usize; 2],
    /// Which output positions, counted over all frames.
    pub(crate) positions: Range<usize>,
    /// Which elements of a patch.
    pub(crate) elements: Range<usize>,
    /// Where to, from row 0 on.
    pub(crate) out: Activations,
    /// Room for one row, if they are packed; else for all, where `out` is, `stride` apart.
    pub(crate) row: *mut f32,
    pub(crate) stride: usize,
}

#[inline(always)]
pub(super) unsafe fn patches<S: Isa>(call: &PatchCall) {
    let packed = call.out.packing() != Packing::F32;
    for (row, position) in call.positions.clone().enumerate() {
        // SAFETY: see `Entry`.
        unsafe {
            let to = if packed { call.row } else { call.row.add(row * call.stride) };
            gather(call, position, to);
            if packed {
                call.out.pack::<S>(to, row);
            }
        }
    }
}

/// Some elements of the patch of one position, which is `[frames][heights][widths][channels]` of the kernel.
#[inline(always)]
unsafe fn gather(call: &PatchCall, position: usize, mut to: *mut f32) {
    let Conv { kernel: [kt, kh, kw], stride, padding, upsample, .. } = call.conv;
    let Frames { x, shape: [_, height, width, channels], before } = call.frames;
    let [out_height, out_width] = call.output;
    let (frame, row, column) =
        (position / (out_height * out_width), position / out_width % out_height, position % out_width);
    // Where a row or column of the kernel falls, if not into the padding.
    let source = |out: usize, tap: usize, size: usize| {
        (out * stride + tap).checked_sub(padding).map(|at| at / upsample).filter(|&at| at < size)
    };
    let mut element = call.elements.start;
    while element < call.elements.end {
        let (tap, channel) = (element / channels, element % channels);
        let count = (channels - channel).min(call.elements.end - element);
        let (dt, dy, dx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
        // SAFETY: see `Entry`; there is room for all elements.
        unsafe {
            let from = source(row, dy, height).zip(source(column, dx, width)).and_then(|(y, at)| {
                let pixel = y * width + at;
                match ((frame + dt).checked_sub(kt - 1), before) {
                    (Some(t), _) => Some(x.base.add((t * height * width + pixel) * x.stride).cast_const()),
                    // Frames before the first come first in `before`.
                    (None, Some(before)) => {
                        Some(before.add(((frame + dt) * height * width + pixel) * channels))
                    }
                    (None, None) => None,
                }
            });
            match from {
                Some(from) => std::ptr::copy_nonoverlapping(from.add(channel), to, count),
                None => std::ptr::write_bytes(to, 0, count),
            }
            to = to.add(count);
        }
        element += count;
    }
}
