//! Types in blocks of 32: one scale, or a scale and a minimum.

use half::f16;

use super::grid::{Grid, MXFP4, Whole};
use super::pack;
use super::search::{self, sums};
use super::weights;
use crate::{MXFP4_EXPONENT_MAX, mxfp4_scale};

/// The nearest F16, the greatest finite one for all beyond.
pub(crate) fn half(x: f32) -> f16 {
    f16::from_f32(x.clamp(-f16::MAX.to_f32(), f16::MAX.to_f32()))
}

/// One over `x`, zero if there is none.
pub(crate) fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.recip() }
}

/// `d`, then for five bits the fifth ones, then nibbles.
pub(crate) fn scaled(x: &[f32], grid: &impl Grid, five: bool, out: &mut [u8]) {
    let d = half(search::signed(x, &weights::<32>(x), grid));
    let inverse = inverse(d.to_f32());
    out[..2].copy_from_slice(&d.to_le_bytes());
    pack::nibbles(five, &mut out[2..], |i| grid.code(x[i] * inverse));
}

/// `d`, `m`, then for five bits the fifth ones, then nibbles.
pub(crate) fn affine(x: &[f32], five: bool, out: &mut [u8]) {
    let grid = Whole::upward(if five { 5 } else { 4 });
    let line = search::affine(x, &weights::<32>(x), grid, false);
    let (d, m) = (half(line.scale), half(line.offset));
    let inverse = inverse(d.to_f32());
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..4].copy_from_slice(&m.to_le_bytes());
    pack::nibbles(five, &mut out[4..], |i| grid.code((x[i] - m.to_f32()) * inverse));
}

/// Q8_0: the greatest value is ±127. Eight bits gain nothing from a search, and this way a block's values give the same
/// block again.
pub(crate) fn bytes(x: &[f32], out: &mut [u8]) {
    let grid = Whole { lo: -127.0, hi: 127.0 };
    let d = half(x.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0);
    let inverse = inverse(d.to_f32());
    out[..2].copy_from_slice(&d.to_le_bytes());
    for (out, x) in out[2..].iter_mut().zip(x) {
        *out = grid.level(x * inverse) as i8 as u8;
    }
}

/// The power of two with the least error, of the three that map the greatest value near the last level.
pub(crate) fn mxfp4(x: &[f32], out: &mut [u8]) {
    let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    // Half of this power of two, which is what `mxfp4_scale` gives, times 12, the last level, is at least half of `most`.
    let exponent = (most.to_bits() >> 23) as i32 - 2;
    // Errors are counted in the middle scale, so that their squares neither overflow nor vanish.
    let unit = mxfp4_scale(exponent.clamp(2, i32::from(MXFP4_EXPONENT_MAX)) as u8).recip();
    let mut best = (f32::INFINITY, 0u8);
    for candidate in exponent - 1..=exponent + 1 {
        let candidate = candidate.clamp(0, i32::from(MXFP4_EXPONENT_MAX)) as u8;
        let scale = mxfp4_scale(candidate);
        let inverse = inverse(scale);
        let [error] = sums(x, x, |x, _| {
            let off = (MXFP4.levels(x * inverse) * scale - x) * unit;
            [off * off]
        });
        if error < best.0 {
            best = (error, candidate);
        }
    }
    out[0] = best.1;
    let inverse = inverse(mxfp4_scale(best.1));
    pack::nibbles(false, &mut out[1..], |i| MXFP4.code(x[i] * inverse));
}
