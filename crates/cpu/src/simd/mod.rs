//! Instruction sets behind one trait, so that a kernel is written once.
//!
//! A kernel is generic over [`Isa`] and entered through [`Isa::run`], which compiles it for that instruction set.
//! Every operation here has one exact meaning (IEEE single precision, round to nearest even; fused where it says
//! so), hence one kernel gives the same bits on each of them.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

use crate::math;

/// Rows of a panel: weights are interleaved so that these are SIMD lanes.
pub(crate) const PANEL: usize = 16;

/// An instruction set's vectors of `LANES` (8 or 16) single-precision lanes.
///
/// # Safety
/// Every function requires that the processor has the instruction set, and pointers must be valid for
/// `LANES` elements. Alignment is never required.
#[allow(clippy::missing_safety_doc, reason = "stated once, above")]
pub(crate) trait Isa: Send + Sync + 'static {
    const LANES: usize;
    /// Whether there is [`Isa::dot_bf16`].
    const PAIRS: bool = false;
    /// `f32` lanes.
    type V: Copy;
    /// `i32` lanes.
    type I: Copy;
    /// Four bytes per lane.
    type B: Copy;

    /// Runs `f` compiled for this instruction set. All of `f` must be `#[inline(always)]`.
    unsafe fn run<R>(f: impl FnOnce() -> R) -> R;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Widens binary16.
    unsafe fn load_f16(p: *const u16) -> Self::V;
    /// One binary16 number in every lane, widened.
    unsafe fn splat_f16(p: *const u16) -> Self::V;
    /// Rounds to binary16, to nearest even.
    unsafe fn store_f16(p: *mut u16, v: Self::V);
    /// Rounds to BF16 as [`flush_bf16`](crate::weights::flush_bf16) does.
    unsafe fn round_bf16(v: Self::V) -> Self::V;
    /// [`Isa::round_bf16`], without the lower half.
    unsafe fn store_bf16(p: *mut u16, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }`
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// Clears the sign.
    unsafe fn abs(a: Self::V) -> Self::V;
    /// `if a < b { x } else { y }` lane by lane.
    unsafe fn select_less(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    unsafe fn round(a: Self::V) -> Self::V;
    /// `2^n` for integral `n` in -126..=127.
    unsafe fn pow2(n: Self::V) -> Self::V;
    /// The largest lane as unsigned bits: for non-negative numbers the maximum, or a NaN if there is one.
    unsafe fn max_bits(a: Self::V, b: Self::V) -> Self::V;

    /// The largest lane as unsigned bits.
    unsafe fn max_lane_bits(a: Self::V) -> u32;
    /// The sum of 32 signed bytes.
    unsafe fn sum_i8(p: *const i8) -> i32;

    /// `LANES` signed 8-bit integers, each lane rounded to nearest even and saturated.
    unsafe fn store_i8(p: *mut i8, v: Self::V);
    unsafe fn to_f32(a: Self::I) -> Self::V;
    unsafe fn splat_i32(x: i32) -> Self::I;
    /// `LANES` unsigned bytes, widened.
    unsafe fn widen_u8(p: *const u8) -> Self::I;
    /// `LANES` signed bytes, widened.
    unsafe fn widen_i8(p: *const i8) -> Self::I;
    /// `acc + a * b`; the caller knows that nothing overflows.
    unsafe fn mul_add_i32(acc: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// The low 16 bits of `low` beside the low 16 bits of `high`.
    unsafe fn pair_i16(low: Self::I, high: Self::I) -> Self::I;
    /// `acc + low(a) * low(b) + high(a) * high(b)` over the signed 16-bit halves of each lane.
    unsafe fn dot_i16(acc: Self::I, a: Self::I, b: Self::I) -> Self::I;

    /// Asks for a line of memory that is needed soon. Any address will do.
    unsafe fn prefetch(p: *const u8);
    unsafe fn load_bytes(p: *const u8) -> Self::B;
    unsafe fn store_bytes(p: *mut u8, b: Self::B);
    /// Each byte moved down by `right` bits (up if negative), and of it the bits of `mask`, none of which may come
    /// from a neighbouring byte.
    unsafe fn pick(b: Self::B, right: i32, mask: u8) -> Self::B;
    unsafe fn or(a: Self::B, b: Self::B) -> Self::B;
    /// `b - x` in each byte, wrapping.
    unsafe fn sub_bytes(b: Self::B, x: u8) -> Self::B;
    /// Each byte, at most 15, becomes the table's.
    unsafe fn lookup(table: &[u8; 16], b: Self::B) -> Self::B;

    /// Exact dot products over 32 elements for `M` activation rows: `init[t] + Σ w * x[t]`, weights in 0..=MAX.
    /// `w[j]` holds elements `4j..4j+4` of each lane's row; `x[t]` points at 32 activations in -127..=127.
    unsafe fn dot_unsigned<const MAX: i32, const M: usize>(
        w: &[Self::B; 8],
        x: &[*const i8; M],
        init: &[i32; M],
    ) -> [Self::I; M];
    /// The same for signed weights stored with 128 added; `sums[t]` is the sum of the 32 activations.
    unsafe fn dot_i8<const M: usize>(w: &[Self::B; 8], x: &[*const i8; M], sums: &[i32; M]) -> [Self::I; M];
    /// `acc[t] += scale * Σ w * x[t]` over `4 N` elements, exact: weights in 0..=MAX, scales in -128..=127.
    unsafe fn dot_scaled<const MAX: i32, const N: usize, const M: usize>(
        acc: &mut [Self::I; M],
        w: &[Self::B; N],
        x: &[*const i8; M],
        scale: Self::I,
    );
    /// Pairs of BF16 numbers, one in each lane: the first of each (the low half), and the second.
    unsafe fn unpair_bf16(w: Self::B) -> [Self::V; 2];
    /// Pairs of BF16 numbers: `acc + w₁x₁`, then `+ w₀x₀`, each fused, in one instruction.
    unsafe fn dot_bf16(_acc: Self::V, _w: Self::B, _x: u32) -> Self::V {
        unreachable!("only where there are such instructions")
    }
}

/// [`math::exp`] over lanes.
#[inline(always)]
pub(crate) unsafe fn exp<S: Isa>(x: S::V) -> S::V {
    // SAFETY: the caller vouches for the instruction set, here and below in this file.
    unsafe {
        let low = S::splat(math::EXP_MIN);
        let clamped = S::min(S::splat(math::EXP_MAX), S::max(low, x));
        let n = S::round(S::mul(clamped, S::splat(math::LOG2_E)));
        let r = S::fma(n, S::splat(-math::LN2_HI), clamped);
        let r = S::fma(n, S::splat(-math::LN2_LO), r);
        let mut p = S::splat(math::EXP_TAYLOR[0]);
        for i in 1..math::EXP_TAYLOR.len() {
            p = S::fma(p, r, S::splat(math::EXP_TAYLOR[i]));
        }
        p = S::fma(p, r, S::splat(1.0));
        p = S::fma(p, r, S::splat(1.0));
        S::select_less(x, low, S::splat(0.0), S::mul(p, S::pow2(n)))
    }
}

/// `math::sigmoid` over lanes.
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Isa>(x: S::V) -> S::V {
    // SAFETY: as above.
    unsafe {
        let one = S::splat(1.0);
        let e = exp::<S>(S::mul(x, S::splat(-1.0)));
        S::div(one, S::add(one, e))
    }
}

/// `math::tanh` over lanes.
#[inline(always)]
pub(crate) unsafe fn tanh<S: Isa>(x: S::V) -> S::V {
    // SAFETY: as above.
    unsafe {
        let e = exp::<S>(S::add(x, x));
        S::sub(S::splat(1.0), S::div(S::splat(2.0), S::add(e, S::splat(1.0))))
    }
}

/// `math::gelu_tanh` over lanes.
#[inline(always)]
pub(crate) unsafe fn gelu_tanh<S: Isa>(x: S::V) -> S::V {
    // SAFETY: as above.
    unsafe {
        let cube = S::mul(S::mul(x, x), x);
        let inner = S::mul(S::splat(math::GELU_SCALE), S::fma(cube, S::splat(math::GELU_CUBIC), x));
        let half = S::mul(S::splat(0.5), x);
        S::fma(half, tanh::<S>(inner), half)
    }
}

/// `math::gelu_erf` over lanes.
#[inline(always)]
pub(crate) unsafe fn gelu_erf<S: Isa>(x: S::V) -> S::V {
    // SAFETY: as above.
    unsafe {
        let half = S::mul(S::splat(0.5), x);
        S::fma(half, erf::<S>(S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2))), half)
    }
}

/// `math::erf` over lanes.
#[inline(always)]
unsafe fn erf<S: Isa>(x: S::V) -> S::V {
    // SAFETY: as above.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        let t = S::div(one, S::fma(S::abs(x), S::splat(math::ERF_T), one));
        let mut p = S::splat(math::ERF[4]);
        for i in (0..4).rev() {
            p = S::fma(p, t, S::splat(math::ERF[i]));
        }
        let e = exp::<S>(S::mul(S::mul(x, x), S::splat(-1.0)));
        let magnitude = S::sub(one, S::mul(S::mul(p, t), e));
        S::select_less(x, zero, S::mul(magnitude, S::splat(-1.0)), magnitude)
    }
}

/// The largest magnitude of `n` elements, a multiple of 16; NaN if one of them is.
#[inline(always)]
pub(crate) unsafe fn max_magnitude<S: Isa>(x: *const f32, n: usize) -> f32 {
    // SAFETY: as above, and `x` is valid for `n` elements.
    unsafe {
        let mut largest = S::splat(0.0);
        for i in (0..n).step_by(S::LANES) {
            largest = S::max_bits(largest, S::abs(S::load(x.add(i))));
        }
        f32::from_bits(S::max_lane_bits(largest))
    }
}

/// Adds 16 partial sums in the contract's order: element `i` goes to partial sum `i % 16`, then the tree. The
/// lanes come as two halves, the second unused where a vector has all 16.
#[inline(always)]
pub(crate) unsafe fn sum_lanes<S: Isa>(halves: [S::V; 2]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for (part, half) in halves.into_iter().enumerate().take(16 / S::LANES) {
        // SAFETY: as above; 16 lanes in all.
        unsafe { S::store(lanes.as_mut_ptr().add(part * S::LANES), half) };
    }
    math::sum_lanes(lanes)
}
