//! RMS norm over groups of a row.

use std::ops::Range;

use crate::simd::{self, Isa, PANEL};

/// Norms some rows.
pub(crate) struct NormCall {
    pub(crate) x: *const f32,
    /// Elements from row to row, of `x` and `out`.
    pub(crate) stride: usize,
    pub(crate) out: *mut f32,
    /// Elements of a row.
    pub(crate) width: usize,
    /// Elements of a group; divides the width.
    pub(crate) group: usize,
    /// One per element of a group, padded to whole panels.
    pub(crate) weight: *const f32,
    pub(crate) eps: f32,
    /// Which rows.
    pub(crate) rows: Range<usize>,
}

#[inline(always)]
pub(super) unsafe fn run<S: Isa>(call: &NormCall) {
    for row in call.rows.clone() {
        // SAFETY: see `Entry`.
        unsafe {
            let (x, out) = (call.x.add(row * call.stride), call.out.add(row * call.stride));
            for group in (0..call.width).step_by(call.group) {
                rms_norm::<S>(x.add(group), out.add(group), call);
            }
        }
    }
}

#[inline(always)]
unsafe fn rms_norm<S: Isa>(x: *const f32, out: *mut f32, call: &NormCall) {
    // SAFETY: see `Entry`.
    unsafe {
        let (n, whole) = (call.group, call.group / PANEL * PANEL);
        // What does not fill a panel is padded with zeros, which add nothing to a sum of squares.
        let mut rest = [0.0f32; PANEL];
        for i in whole..n {
            rest[i - whole] = *x.add(i);
        }
        let mut squares = [S::splat(0.0); 2];
        for i in (0..n).step_by(PANEL) {
            let p = if i < whole { x.add(i) } else { rest.as_ptr() };
            for part in 0..PANEL / S::LANES {
                let v = S::load(p.add(part * S::LANES));
                squares[part] = S::fma(v, v, squares[part]);
            }
        }
        let mean = simd::sum_lanes::<S>(squares) / n as f32;
        let scale = S::splat(1.0 / (mean + call.eps).sqrt());
        for i in (0..whole).step_by(S::LANES) {
            let y = S::mul(S::mul(S::load(x.add(i)), scale), S::load(call.weight.add(i)));
            S::store(out.add(i), y);
        }
        if whole < n {
            for part in (0..PANEL).step_by(S::LANES) {
                let w = S::load(call.weight.add(whole + part));
                let y = S::mul(S::mul(S::load(rest.as_ptr().add(part)), scale), w);
                S::store(rest.as_mut_ptr().add(part), y);
            }
            for i in whole..n {
                *out.add(i) = rest[i - whole];
            }
        }
    }
}
