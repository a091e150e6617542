//! Elementary functions with one definition, so that no platform's library decides a bit.
//!
//! Plain scalar forms; the `simd` module has the same operations over lanes. Stated errors are against exact
//! values, measured over the whole domain by the tests of this file.

use crate::isa::InstructionSet;
use crate::kernels::{MapCall, Unary};
use crate::simd::PANEL;

/// Below this, [`exp`] is exactly zero.
pub(crate) const EXP_MIN: f32 = -87.0;
/// Above this, [`exp`] stays at `exp(88)`.
pub(crate) const EXP_MAX: f32 = 88.0;
pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts: the first has few enough bits that `n * LN2_HI` is exact for the `n` that occur.
pub(crate) const LN2_HI: f32 = 0.693_359_4;
pub(crate) const LN2_LO: f32 = -2.121_944_4e-4;
/// Taylor coefficients `1/7!, 1/6!, …, 1/2!`: for |r| ≤ ln 2 / 2 the truncation is below 6e-9.
pub(crate) const EXP_TAYLOR: [f32; 6] = [
    (1.0 / 5040.0) as f32,
    (1.0 / 720.0) as f32,
    (1.0 / 120.0) as f32,
    (1.0 / 24.0) as f32,
    (1.0 / 6.0) as f32,
    0.5,
];

/// The larger value; the second operand if either is NaN, as x86's `maxps` has it.
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller value; the second operand if either is NaN, as x86's `minps` has it.
pub(crate) fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// `e^x`: relative error below 1.2e-7; exactly 0 below -87, constant above 88, NaN for NaN.
pub fn exp(x: f32) -> f32 {
    let clamped = min(EXP_MAX, max(EXP_MIN, x));
    let n = (clamped * LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2_HI, clamped);
    let r = n.mul_add(-LN2_LO, r);
    let mut p = EXP_TAYLOR[0];
    for c in &EXP_TAYLOR[1..] {
        p = p.mul_add(r, *c);
    }
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    let power = f32::from_bits(((n as i32 + 127) << 23) as u32);
    if x < EXP_MIN { 0.0 } else { p * power }
}

/// [`exp`] of every element, with the fastest instructions this processor has: the same bits.
pub fn exp_all(values: &mut [f32]) {
    exp_all_with(InstructionSet::best(), values);
}

fn exp_all_with(set: InstructionSet, values: &mut [f32]) {
    let whole = values.len() / PANEL * PANEL;
    let (x, out) = (values.as_ptr(), values.as_mut_ptr());
    let call = MapCall { op: Unary::Exp, x, out, range: 0..whole };
    // SAFETY: the instruction set is available, and the range lies in `values`.
    unsafe { (set.kernels().map)(&call) };
    for value in &mut values[whole..] {
        *value = exp(*value);
    }
}

/// Natural logarithm: relative error below 3e-7 (absolute near 1); `-inf` at 0, NaN for negative numbers and NaN.
pub fn ln(x: f32) -> f32 {
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x == 0.0 {
        return f32::NEG_INFINITY;
    }
    if x == f32::INFINITY {
        return x;
    }
    // Denormals are scaled into the normal range first.
    let (x, shift) = if x < f32::MIN_POSITIVE { (x * 16_777_216.0, -24) } else { (x, 0) };
    let bits = x.to_bits();
    // x = m * 2^n with m in [sqrt(1/2), sqrt(2)).
    let offset = bits.wrapping_sub(0x3f35_04f3);
    let n = ((offset as i32) >> 23) + shift;
    let m = f32::from_bits((offset & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    // ln m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 2.0 / 9.0f32;
    for c in [2.0 / 7.0f32, 2.0 / 5.0, 2.0 / 3.0] {
        p = p.mul_add(z, c);
    }
    let tail = (p * z).mul_add(s, 2.0 * s);
    let n = n as f32;
    n.mul_add(LN2_HI, n.mul_add(LN2_LO, tail))
}

/// `1 / (1 + e^-x)`.
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh x`: absolute error below 2e-7.
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(x + x) + 1.0)
}

/// `sqrt(2/π)` and the cubic term's weight in the tanh form of GELU (Hendrycks & Gimpel, 2016).
pub(crate) const GELU_SCALE: f32 = 0.797_884_6;
pub(crate) const GELU_CUBIC: f32 = 0.044_715;

/// The tanh form of GELU.
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    let inner = GELU_SCALE * (x * x * x).mul_add(GELU_CUBIC, x);
    let half = 0.5 * x;
    half.mul_add(tanh(inner), half)
}

/// Coefficients of `t, t², …, t⁵` and of `t` itself in Abramowitz & Stegun's form 7.1.26 of erf.
pub(crate) const ERF: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];
pub(crate) const ERF_T: f32 = 0.327_591_1;

/// Error function: absolute error below 6e-7.
pub(crate) fn erf(x: f32) -> f32 {
    let t = 1.0 / x.abs().mul_add(ERF_T, 1.0);
    let mut p = ERF[4];
    for c in ERF[..4].iter().rev() {
        p = p.mul_add(t, *c);
    }
    let tail = p * t;
    let magnitude = 1.0 - tail * exp(-(x * x));
    if x < 0.0 { -magnitude } else { magnitude }
}

/// The exact form of GELU.
pub(crate) fn gelu_erf(x: f32) -> f32 {
    let half = 0.5 * x;
    half.mul_add(erf(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// Adds 16 lanes in the contract's tree: 8 apart, 4, 2, 1.
pub fn sum_lanes(mut lanes: [f32; 16]) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 97th float of the domain.
    fn floats(low: f32, high: f32) -> impl Iterator<Item = f32> {
        (0..=u32::MAX).step_by(97).map(f32::from_bits).filter(move |x| *x >= low && *x <= high)
    }

    #[test]
    fn exp_is_as_close_as_stated() {
        let worst = floats(EXP_MIN, EXP_MAX)
            .map(|x| (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 1.2e-7, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-87.01), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), exp(88.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn exp_of_many_is_exp_of_each() {
        let values: Vec<f32> = (0..=u32::MAX).step_by(65_521).map(f32::from_bits).collect();
        for set in InstructionSet::available() {
            let mut many = values.clone();
            exp_all_with(set, &mut many);
            for (many, x) in many.into_iter().zip(&values) {
                assert!(many.to_bits() == exp(*x).to_bits() || many.is_nan() && x.is_nan(), "{set}: {x:e}");
            }
        }
    }

    #[test]
    fn ln_is_as_close_as_stated() {
        let worst = floats(1e-45, f32::MAX)
            .map(|x| (f64::from(ln(x)), f64::from(x).ln()))
            .map(|(got, want)| (got - want).abs() / want.abs().max(0.5))
            .fold(0.0, f64::max);
        assert!(worst < 3e-7, "{worst:e}");
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f32::NEG_INFINITY);
        assert!(ln(-1.0).is_nan());
    }

    #[test]
    fn tanh_is_as_close_as_stated() {
        let worst = floats(-100.0, 100.0)
            .map(|x| (f64::from(tanh(x)) - f64::from(x).tanh()).abs())
            .fold(0.0, f64::max);
        assert!(worst < 2e-7, "{worst:e}");
    }

    #[test]
    fn erf_is_as_close_as_stated() {
        let worst = floats(-10.0, 10.0)
            .map(|x| (f64::from(erf(x)) - libm::erf(f64::from(x))).abs())
            .fold(0.0, f64::max);
        assert!(worst < 6e-7, "{worst:e}");
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn lanes_add_in_a_tree() {
        let mut lanes = [0.0f32; 16];
        lanes[0] = 1e8;
        lanes[8] = -1e8;
        lanes[3] = 1.0;
        assert_eq!(sum_lanes(lanes), 1.0);
    }
}
