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

/// Gathers the patches of some output positions, in the form a weight format takes.
pub(crate) struct PatchCall {
    pub(crate) frames: Frames,
    pub(crate) conv: Conv,
    /// Height and width of an output frame.
    pub(crate) output: [usize; 2],
    /// Which output positions, counted over all frames.
    pub(crate) positions: Range<usize>,
    /// Where to, from row 0 on.
    pub(crate) out: Activations,
    /// Room for one patch, if they are packed; else for all, where `out` is.
    pub(crate) patch: *mut f32,
    /// Elements of a patch.
    pub(crate) width: usize,
}

#[inline(always)]
pub(super) unsafe fn patches<S: Isa>(call: &PatchCall) {
    let packed = call.out.packing() != Packing::F32;
    for (row, position) in call.positions.clone().enumerate() {
        // SAFETY: see `Entry`.
        unsafe {
            let patch = if packed { call.patch } else { call.patch.add(row * call.width) };
            gather(call, position, patch);
            if packed {
                call.out.pack::<S>(patch, row);
            }
        }
    }
}

/// The patch of one position: `[frames][heights][widths][channels]` of the kernel.
#[inline(always)]
unsafe fn gather(call: &PatchCall, position: usize, patch: *mut f32) {
    let Conv { kernel: [kt, kh, kw], stride, padding, upsample, .. } = call.conv;
    let Frames { x, shape: [_, height, width, channels], before } = call.frames;
    let [out_height, out_width] = call.output;
    let (frame, y, x0) =
        (position / (out_height * out_width), position / out_width % out_height, position % out_width);
    // Where a row or column of the kernel falls, if not into the padding.
    let source = |out: usize, tap: usize, size: usize| {
        (out * stride + tap).checked_sub(padding).map(|at| at / upsample).filter(|&at| at < size)
    };
    let mut to = patch;
    for dt in 0..kt {
        for dy in 0..kh {
            for dx in 0..kw {
                // SAFETY: see `Entry`; the patch has room for the whole kernel.
                unsafe {
                    match (source(y, dy, height), source(x0, dx, width)) {
                        (Some(y), Some(at)) => {
                            let within = y * width + at;
                            // Frames before the first come first in `before`.
                            match ((frame + dt).checked_sub(kt - 1), before) {
                                (Some(t), _) => {
                                    let from = x.base.add((t * height * width + within) * x.stride);
                                    std::ptr::copy_nonoverlapping(from, to, channels);
                                }
                                (None, Some(before)) => {
                                    let from =
                                        before.add(((frame + dt) * height * width + within) * channels);
                                    std::ptr::copy_nonoverlapping(from, to, channels);
                                }
                                (None, None) => std::ptr::write_bytes(to, 0, channels),
                            }
                        }
                        _ => std::ptr::write_bytes(to, 0, channels),
                    }
                    to = to.add(channels);
                }
            }
        }
    }
}
