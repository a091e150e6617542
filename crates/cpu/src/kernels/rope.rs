//! Rotary position embedding in place.

use std::ops::Range;

use wushi_graph::RopePairs;

use crate::simd::Isa;

/// Rotates some heads of one row in place.
pub(crate) struct RopeCall {
    /// The row.
    pub(crate) x: *mut f32,
    /// Which heads.
    pub(crate) heads: Range<usize>,
    /// Elements of a head, and how many of them turn.
    pub(crate) head: (usize, usize),
    pub(crate) pairs: RopePairs,
    /// Cosines of the row's position, then sines, `rotary_dim / 2` each.
    pub(crate) table: *const f32,
}

/// `(x cos - y sin, x sin + y cos)`, one rounding of a product each.
pub(crate) fn rotate(x: f32, y: f32, cosine: f32, sine: f32) -> (f32, f32) {
    (x.mul_add(cosine, -(y * sine)), x.mul_add(sine, y * cosine))
}

#[inline(always)]
pub(super) unsafe fn run<S: Isa>(call: &RopeCall) {
    let (head_dim, rotary_dim) = call.head;
    let half = rotary_dim / 2;
    for head in call.heads.clone() {
        // SAFETY: see `Entry`; the table has `rotary_dim` elements.
        unsafe {
            let x = call.x.add(head * head_dim);
            let (cosines, sines) = (call.table, call.table.add(half));
            for i in 0..half {
                let (a, b) = match call.pairs {
                    RopePairs::Adjacent => (2 * i, 2 * i + 1),
                    RopePairs::Halves => (i, i + half),
                };
                let (p, q) = rotate(*x.add(a), *x.add(b), *cosines.add(i), *sines.add(i));
                (*x.add(a), *x.add(b)) = (p, q);
            }
        }
    }
}
