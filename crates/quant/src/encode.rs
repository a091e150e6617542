//! Numbers to blocks: how every storage type is quantised.
//!
//! | types | search |
//! |---|---|
//! | F32, F16, BF16 | none: rounded to nearest, halves to even |
//! | Q8_0 | none: the greatest value becomes ±127 |
//! | Q4_0, Q5_0, IQ4_NL | a scale for every 32 elements |
//! | Q4_1, Q5_1 | a scale and a minimum for every 32 elements |
//! | MXFP4 | the best of three powers of two for every 32 elements |
//! | Q3_K, Q6_K, IQ4_XS | a scale for every group, then a shared one for the groups' scales |
//! | Q2_K, Q4_K, Q5_K | a scale and a minimum for every group, then shared ones for those |
//!
//! The searches ([`search`]) minimise the squared error, weighted by magnitude: large weights matter more to what a layer
//! computes, as llama.cpp found for its K-quants, which weigh by `|x|` or `x²` as the type may be. [`weights`] is one
//! compromise for all types: a smaller error than llama.cpp's both unweighted and weighted by `x²`, or within a few
//! per cent of it where the other is smaller by more.

mod block32;
mod grid;
mod k;
pub(crate) mod pack;
mod search;

use half::{bf16, f16};
use wushi_graph::DType;

use grid::{IQ4, Whole};
use search::sums;

/// Encodes the elements of one block, all of them finite and within the type's range.
type Encode = fn(&[f32], &mut [u8]);

/// How blocks of a type are encoded.
pub(crate) fn block(dtype: DType) -> Encode {
    match dtype {
        DType::F32 => |x, out| out.copy_from_slice(&x[0].to_le_bytes()),
        DType::F16 => |x, out| out.copy_from_slice(&f16::from_f32(x[0]).to_le_bytes()),
        DType::BF16 => |x, out| out.copy_from_slice(&bf16::from_f32(x[0]).to_le_bytes()),
        DType::Q4_0 => |x, out| block32::scaled(x, &Whole::signed(4), false, out),
        DType::Q5_0 => |x, out| block32::scaled(x, &Whole::signed(5), true, out),
        DType::Q4_1 => |x, out| block32::affine(x, false, out),
        DType::Q5_1 => |x, out| block32::affine(x, true, out),
        DType::Q8_0 => block32::bytes,
        DType::IQ4_NL => |x, out| block32::scaled(x, &IQ4, false, out),
        DType::MXFP4 => block32::mxfp4,
        DType::Q2_K => q2_k,
        DType::Q3_K => q3_k,
        DType::Q4_K => |x, out| q45_k(x, false, out),
        DType::Q5_K => |x, out| q45_k(x, true, out),
        DType::Q6_K => q6_k,
        DType::IQ4_XS => iq4_xs,
    }
}

fn q2_k(x: &[f32], out: &mut [u8]) {
    let block = k::affine(x, 16, Whole::upward(2), Whole::upward(4));
    for (out, (scale, min)) in out.iter_mut().zip(block.scales.iter().zip(block.minima)) {
        *out = scale | min << 4;
    }
    pack::planes::<2>(&mut out[16..80], 32, |i| block.codes[i]);
    out[80..82].copy_from_slice(&block.d.to_le_bytes());
    out[82..].copy_from_slice(&block.dmin.to_le_bytes());
}

fn q3_k(x: &[f32], out: &mut [u8]) {
    let block = k::signed(x, 16, &Whole::signed(3), Whole::signed(6));
    pack::planes::<1>(&mut out[..32], 32, |i| block.codes[i] >> 2);
    pack::planes::<2>(&mut out[32..96], 32, |i| block.codes[i]);
    pack::scales_q3(&block.scales, &mut out[96..108]);
    out[108..].copy_from_slice(&block.d.to_le_bytes());
}

fn q45_k(x: &[f32], five: bool, out: &mut [u8]) {
    let quants = Whole::upward(if five { 5 } else { 4 });
    let block = k::affine(x, 32, quants, Whole::upward(6));
    out[..2].copy_from_slice(&block.d.to_le_bytes());
    out[2..4].copy_from_slice(&block.dmin.to_le_bytes());
    pack::scales_minima(&block.scales, &block.minima, &mut out[4..16]);
    if five {
        pack::planes::<1>(&mut out[16..48], 32, |i| block.codes[i] >> 4);
    }
    pack::planes::<4>(&mut out[if five { 48 } else { 16 }..], 32, |i| block.codes[i]);
}

fn q6_k(x: &[f32], out: &mut [u8]) {
    let block = k::signed(x, 16, &Whole::signed(6), Whole::signed(8));
    pack::planes::<4>(&mut out[..128], 64, |i| block.codes[i]);
    pack::planes::<2>(&mut out[128..192], 32, |i| block.codes[i] >> 4);
    for (out, scale) in out[192..208].iter_mut().zip(block.scales) {
        *out = scale ^ 0x80;
    }
    out[208..].copy_from_slice(&block.d.to_le_bytes());
}

fn iq4_xs(x: &[f32], out: &mut [u8]) {
    let block = k::signed(x, 32, &IQ4, Whole::signed(6));
    out[..2].copy_from_slice(&block.d.to_le_bytes());
    pack::scales_iq4(&block.scales[..8], &mut out[2..8]);
    for (out, codes) in out[8..].chunks_exact_mut(16).zip(block.codes.chunks_exact(32)) {
        pack::nibbles(false, out, |i| codes[i]);
    }
}

/// How much an error in an element counts: by its magnitude and half of the root of the mean square.
fn weights<const N: usize>(x: &[f32]) -> [f32; N] {
    let [squares] = sums(x, x, |x, _| [x * x]);
    let base = 0.5 * (squares / N as f32).sqrt();
    std::array::from_fn(|i| base + x[i].abs())
}
