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

    /// Sums a function of every element in the contract's order; it must be 0 of the padding.
    #[inline(always)]
    unsafe fn sum(&self, add: impl Fn(S::V, S::V) -> S::V) -> f32 {
        // SAFETY: see `Entry`, here and below.
        unsafe {
            let mut sums = [S::splat(0.0); 2];
            for i in (0..self.n).step_by(PANEL) {
                let p = if i < self.whole { self.x.add(i) } else { self.rest.as_ptr() };
                for part in 0..PANEL / S::LANES {
                    sums[part] = add(sums[part], S::load(p.add(part * S::LANES)));
                }
            }
            simd::sum_lanes::<S>(sums)
        }
    }

    /// Writes a function of every element and its place.
    #[inline(always)]
    unsafe fn write(mut self, y: impl Fn(S::V, usize) -> S::V) {
        // SAFETY: as above.
        unsafe {
            for i in (0..self.whole).step_by(S::LANES) {
                S::store(self.out.add(i), y(S::load(self.x.add(i)), i));
            }
            if self.whole < self.n {
                for part in (0..PANEL).step_by(S::LANES) {
                    let p = self.rest.as_mut_ptr().add(part);
                    S::store(p, y(S::load(p), self.whole + part));
                }
                for i in self.whole..self.n {
                    *self.out.add(i) = self.rest[i - self.whole];
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn rms(self, call: &NormCall) {
        // SAFETY: as above.
        unsafe {
            let mean = self.sum(|sum, x| S::fma(x, x, sum)) / self.n as f32;
            let scale = S::splat(1.0 / (mean + call.eps).sqrt());
            self.write(|x, i| S::mul(S::mul(x, scale), S::load(call.weight.add(i))));
        }
    }

    #[inline(always)]
    unsafe fn layer(mut self, call: &NormCall, bias: *const f32) {
        // SAFETY: as above.
        unsafe {
            let mean = self.sum(|sum, x| S::add(sum, x)) / self.n as f32;
            // So that the padding deviates by nothing.
            self.rest[self.n - self.whole..].fill(mean);
            let center = S::splat(mean);
            let variance = self.sum(|sum, x| {
                let d = S::sub(x, center);
                S::fma(d, d, sum)
            }) / self.n as f32;
            let scale = S::splat(1.0 / (variance + call.eps).sqrt());
            self.write(|x, i| {
                let y = S::mul(S::sub(x, center), scale);
                S::fma(y, S::load(call.weight.add(i)), S::load(bias.add(i)))
            });
        }
    }
}
