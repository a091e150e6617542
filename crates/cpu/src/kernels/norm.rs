//! Norms over groups of a row: RMS norm, and layer norm over the whole width.

use std::ops::Range;

use crate::simd::{self, Isa, PANEL};

/// Which norm.
#[derive(Clone, Copy)]
pub(crate) enum Norm {
    /// RMS norm.
    Rms,
    /// Layer norm with this bias, padded to whole panels.
    Layer { bias: *const f32 },
}

/// Norms some rows.
pub(crate) struct NormCall {
    pub(crate) norm: Norm,
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
                let group = Group::<S>::new(x.add(group), out.add(group), call);
                match call.norm {
                    Norm::Rms => group.rms(call),
                    Norm::Layer { bias } => group.layer(call, bias),
                }
            }
        }
    }
}

/// One group of elements. What does not fill a panel is kept apart, so that its padding can be chosen.
struct Group<S: Isa> {
    x: *const f32,
    out: *mut f32,
    n: usize,
    /// Elements in whole panels.
    whole: usize,
    rest: [f32; PANEL],
    isa: std::marker::PhantomData<S>,
}

impl<S: Isa> Group<S> {
    #[inline(always)]
    unsafe fn new(x: *const f32, out: *mut f32, call: &NormCall) -> Self {
        let (n, whole) = (call.group, call.group / PANEL * PANEL);
        let mut rest = [0.0; PANEL];
        for i in whole..n {
            // SAFETY: see `Entry`.
            rest[i - whole] = unsafe { *x.add(i) };
        }
        Group { x, out, n, whole, rest, isa: std::marker::PhantomData }
    }

    /// The elements from `i` on, whole panels.
    #[inline(always)]
    fn at(&self, i: usize) -> *const f32 {
        // SAFETY: below `whole` they are in the row.
        if i < self.whole { unsafe { self.x.add(i) } } else { self.rest.as_ptr() }
    }

    /// Sum in the contract's order; the padding must be 0.
    #[inline(always)]
    unsafe fn sum(&self) -> f32 {
        // SAFETY: see `Entry`, here and below.
        unsafe {
            let mut sums = [S::splat(0.0); 2];
            for i in (0..self.n).step_by(PANEL) {
                for part in 0..PANEL / S::LANES {
                    sums[part] = S::add(sums[part], S::load(self.at(i).add(part * S::LANES)));
                }
            }
            simd::sum_lanes::<S>(sums)
        }
    }

    /// Sum of squared distances from `center`, which the padding must be at.
    #[inline(always)]
    unsafe fn squares(&self, center: f32) -> f32 {
        // SAFETY: as above.
        unsafe {
            let mut sums = [S::splat(0.0); 2];
            for i in (0..self.n).step_by(PANEL) {
                for part in 0..PANEL / S::LANES {
                    let d = S::sub(S::load(self.at(i).add(part * S::LANES)), S::splat(center));
                    sums[part] = S::fma(d, d, sums[part]);
                }
            }
            simd::sum_lanes::<S>(sums)
        }
    }

    /// `(x - center) * scale * weight`, plus the bias if there is one.
    #[inline(always)]
    unsafe fn write(self, center: f32, scale: f32, weight: *const f32, bias: Option<*const f32>) {
        // SAFETY: as above.
        unsafe {
            let mut last = [0.0f32; PANEL];
            for i in (0..self.n).step_by(PANEL) {
                let whole = i < self.whole;
                let out = if whole { self.out.add(i) } else { last.as_mut_ptr() };
                for part in (0..PANEL).step_by(S::LANES) {
                    let x = S::sub(S::load(self.at(i).add(part)), S::splat(center));
                    let (y, w) = (S::mul(x, S::splat(scale)), S::load(weight.add(i + part)));
                    let y = match bias {
                        None => S::mul(y, w),
                        Some(bias) => S::fma(y, w, S::load(bias.add(i + part))),
                    };
                    S::store(out.add(part), y);
                }
            }
            for i in self.whole..self.n {
                *self.out.add(i) = last[i - self.whole];
            }
        }
    }

    #[inline(always)]
    unsafe fn rms(self, call: &NormCall) {
        // SAFETY: as above.
        unsafe {
            let mean = self.squares(0.0) / self.n as f32;
            self.write(0.0, 1.0 / (mean + call.eps).sqrt(), call.weight, None);
        }
    }

    #[inline(always)]
    unsafe fn layer(mut self, call: &NormCall, bias: *const f32) {
        // SAFETY: as above.
        unsafe {
            let mean = self.sum() / self.n as f32;
            // So that the padding deviates by nothing.
            self.rest[self.n - self.whole..].fill(mean);
            let variance = self.squares(mean) / self.n as f32;
            self.write(mean, 1.0 / (variance + call.eps).sqrt(), call.weight, Some(bias));
        }
    }
}
