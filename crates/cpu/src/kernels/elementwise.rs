//! Elementwise operators over whole rows. Rows are padded to panels, so there is no remainder.

use std::ops::Range;

use super::Output;
use crate::simd::{self, Isa};

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unary {
    /// `x * sigmoid(x)`
    Silu,
    /// The tanh form of GELU.
    GeluTanh,
    /// The exact form of GELU.
    GeluErf,
    /// `e^x`
    Exp,
    /// `x * c`
    Scale(f32),
    /// `x + c`
    Offset(f32),
    /// `c * tanh(x / c)`
    Softcap(f32),
}

/// A function of two elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Binary {
    /// `a + b`
    Add,
    /// `a * b`
    Mul,
}

/// `out[i] = op(x[i])` for the elements of a range, whole panels.
pub(crate) struct MapCall {
    pub(crate) op: Unary,
    pub(crate) x: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) range: Range<usize>,
}

/// `out[i] = op(a[i], b[i])` for the elements of a range, whole panels.
pub(crate) struct ZipCall {
    pub(crate) op: Binary,
    pub(crate) a: *const f32,
    pub(crate) b: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) range: Range<usize>,
}

#[inline(always)]
pub(super) unsafe fn unary<S: Isa>(op: Unary, x: S::V) -> S::V {
    // SAFETY: the processor has `S`.
    unsafe {
        match op {
            Unary::Silu => S::mul(x, simd::sigmoid::<S>(x)),
            Unary::Exp => simd::exp::<S>(x),
            Unary::GeluTanh => simd::gelu_tanh::<S>(x),
            Unary::GeluErf => simd::gelu_erf::<S>(x),
            Unary::Scale(c) => S::mul(x, S::splat(c)),
            Unary::Offset(c) => S::add(x, S::splat(c)),
            Unary::Softcap(c) => S::mul(S::splat(c), simd::tanh::<S>(S::div(x, S::splat(c)))),
        }
    }
}

#[inline(always)]
pub(super) unsafe fn map<S: Isa>(call: &MapCall) {
    for i in call.range.clone().step_by(S::LANES) {
        // SAFETY: see `Entry`.
        unsafe { S::store(call.out.add(i), unary::<S>(call.op, S::load(call.x.add(i)))) };
    }
}

#[inline(always)]
pub(super) unsafe fn zip<S: Isa>(call: &ZipCall) {
    for i in call.range.clone().step_by(S::LANES) {
        // SAFETY: see `Entry`.
        unsafe {
            let (a, b) = (S::load(call.a.add(i)), S::load(call.b.add(i)));
            let y = match call.op {
                Binary::Add => S::add(a, b),
                Binary::Mul => S::mul(a, b),
            };
            S::store(call.out.add(i), y);
        }
    }
}

/// `out = a * b + c` for some rows; whole panels.
pub(crate) struct MulAddCall {
    pub(crate) a: Output,
    /// Of `b` and `c` one row may serve all: its stride is then 0.
    pub(crate) b: Output,
    pub(crate) c: Output,
    pub(crate) out: Output,
    pub(crate) rows: Range<usize>,
}

#[inline(always)]
pub(super) unsafe fn mul_add<S: Isa>(call: &MulAddCall) {
    for row in call.rows.clone() {
        for i in (0..call.out.stride).step_by(S::LANES) {
            // SAFETY: see `Entry`.
            unsafe {
                let at = |x: Output| S::load(x.base.add(row * x.stride + i));
                S::store(
                    call.out.base.add(row * call.out.stride + i),
                    S::fma(at(call.a), at(call.b), at(call.c)),
                );
            }
        }
    }
}
