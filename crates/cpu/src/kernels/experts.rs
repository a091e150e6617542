//! Mixtures of experts: choosing them, and summing what they give.

use std::ops::Range;

use wushi_graph::Routing;

use crate::reference;
use crate::simd::Isa;

/// Chooses experts for some rows.
pub(crate) struct RouteCall {
    pub(crate) routing: Routing,
    pub(crate) scores: *const f32,
    /// Elements from row to row of `scores`.
    pub(crate) stride: usize,
    /// Weights by rank, then experts.
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    /// Which rows.
    pub(crate) rows: Range<usize>,
}

#[inline(always)]
pub(super) unsafe fn route<S: Isa>(call: &RouteCall) {
    let Routing { experts, used, .. } = call.routing;
    for row in call.rows.clone() {
        // SAFETY: see `Entry`. Choosing is scalar on every instruction set; only fused products are the set's own.
        unsafe {
            let scores = std::slice::from_raw_parts(call.scores.add(row * call.stride), experts);
            let out = std::slice::from_raw_parts_mut(call.out.add(row * call.out_stride), 2 * used);
            reference::route(scores, &call.routing, out);
        }
    }
}

/// Sums the chosen experts' results for some rows.
pub(crate) struct CombineCall {
    pub(crate) used: usize,
    /// `[row][used]`, `stride` elements each, whole panels.
    pub(crate) y: *const f32,
    pub(crate) stride: usize,
    /// As [`RouteCall::out`].
    pub(crate) routes: *const f32,
    pub(crate) routes_stride: usize,
    /// Rows of `stride` elements.
    pub(crate) out: *mut f32,
    /// Which rows.
    pub(crate) rows: Range<usize>,
}

#[inline(always)]
pub(super) unsafe fn combine<S: Isa>(call: &CombineCall) {
    for row in call.rows.clone() {
        // SAFETY: see `Entry`.
        unsafe {
            let weights = call.routes.add(row * call.routes_stride);
            let y = call.y.add(row * call.used * call.stride);
            for i in (0..call.stride).step_by(S::LANES) {
                let mut sum = S::splat(0.0);
                for rank in 0..call.used {
                    let y = S::load(y.add(rank * call.stride + i));
                    sum = S::fma(S::splat(*weights.add(rank)), y, sum);
                }
                S::store(call.out.add(row * call.stride + i), sum);
            }
        }
    }
}
