//! One output of a linear layer: the row's blocks against the activations.

use half::{bf16, f16};
use wushi_graph::DType;
use wushi_quant::{IQ4_VALUES, MXFP4_DOUBLED, mxfp4_scale};

use crate::weights::SEGMENT;

/// A block of activations: `x ≈ scale * quant`.
struct Int8Block {
    quants: Vec<i32>,
    scale: f32,
}

/// Largest magnitude to 127, round half to even; a block below 2^-120 is zero.
fn quantize(x: &[f32]) -> Int8Block {
    let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    if largest < f32::from_bits((127 - 120) << 23) {
        return Int8Block { quants: vec![0; x.len()], scale: 0.0 };
    }
    let inverse = 127.0 / largest;
    Int8Block {
        quants: x.iter().map(|x| (x * inverse).round_ties_even() as i32).collect(),
        scale: largest / 127.0,
    }
}

/// Adds terms in the contract's order: segments of 512 elements in sequence, each its terms in sequence.
fn in_segments(elements: usize, step: usize, mut add: impl FnMut(f32, usize) -> f32) -> f32 {
    let mut total = 0.0;
    for segment in (0..elements).step_by(SEGMENT) {
        let mut sum = 0.0;
        for k in (segment..(segment + SEGMENT).min(elements)).step_by(step) {
            sum = add(sum, k);
        }
        total += sum;
    }
    total
}

/// `Σ w[k] x[k]` for one row of a matrix as the file stores it, without bias.
pub fn linear(dtype: DType, row: &[u8], x: &[f32]) -> f32 {
    let half_at = |at: usize| f16::from_le_bytes([row[at], row[at + 1]]).to_f32();
    match dtype {
        DType::F32 => in_segments(x.len(), 1, |sum, k| {
            let w = f32::from_le_bytes([row[4 * k], row[4 * k + 1], row[4 * k + 2], row[4 * k + 3]]);
            w.mul_add(x[k], sum)
        }),
        DType::F16 => in_segments(x.len(), 1, |sum, k| half_at(2 * k).mul_add(x[k], sum)),
        DType::BF16 => bf16_row(row, x),
        DType::Q4_0 => symmetric(dtype, row, x, |b| (scale(b, 0), nibbles(&b[2..]).map(|q| q - 8).collect())),
        DType::Q4_1 => affine(dtype, row, x, |b| nibbles(&b[4..]).collect()),
        DType::Q5_0 => symmetric(dtype, row, x, |b| (scale(b, 0), fives(&b[2..]).map(|q| q - 16).collect())),
        DType::Q5_1 => affine(dtype, row, x, |b| fives(&b[4..]).collect()),
        DType::Q8_0 => {
            symmetric(dtype, row, x, |b| (scale(b, 0), b[2..].iter().map(|q| i32::from(*q as i8)).collect()))
        }
        DType::IQ4_NL => symmetric(dtype, row, x, |b| {
            (scale(b, 0), nibbles(&b[2..]).map(|q| i32::from(IQ4_VALUES[q as usize])).collect())
        }),
        DType::MXFP4 => symmetric(dtype, row, x, |b| {
            (mxfp4_scale(b[0]), nibbles(&b[1..]).map(|q| i32::from(MXFP4_DOUBLED[q as usize])).collect())
        }),
        DType::Q2_K | DType::Q3_K | DType::Q4_K | DType::Q5_K | DType::Q6_K | DType::IQ4_XS => {
            super_blocks(dtype, row, x)
        }
    }
}

/// Weights and activations in BF16, below 2^-50 zero; of each pair the odd element first, each fused.
fn bf16_row(row: &[u8], x: &[f32]) -> f32 {
    let flush = |x: f32| if x.abs() < f32::from_bits((127 - 50) << 23) { 0.0 } else { x };
    let weight = |k: usize| flush(bf16::from_le_bytes([row[2 * k], row[2 * k + 1]]).to_f32());
    let activation = |k: usize| flush(bf16::from_f32(flush(x[k])).to_f32());
    in_segments(x.len(), 2, |sum, k| {
        let sum = if k + 1 < x.len() { weight(k + 1).mul_add(activation(k + 1), sum) } else { sum + 0.0 };
        weight(k).mul_add(activation(k), sum)
    })
}

/// Blocks of 32 that are a scale and integers: `sum + Σ q x * (d * scale of x)`, fused.
fn symmetric(dtype: DType, row: &[u8], x: &[f32], decode: impl Fn(&[u8]) -> (f32, Vec<i32>)) -> f32 {
    blocks32(dtype, row, x, |block, x, sum| {
        let (d, quants) = decode(block);
        dot(&quants, &x.quants).mul_add(d * x.scale, sum)
    })
}

/// Blocks of 32 with a minimum `m`: then `+ m * (scale of x * Σ x)`, fused.
fn affine(dtype: DType, row: &[u8], x: &[f32], decode: impl Fn(&[u8]) -> Vec<i32>) -> f32 {
    blocks32(dtype, row, x, |block, x, sum| {
        let sum = dot(&decode(block), &x.quants).mul_add(scale(block, 0) * x.scale, sum);
        let total: i32 = x.quants.iter().sum();
        scale(block, 1).mul_add(x.scale * total as f32, sum)
    })
}

/// An exact integer, rounded once.
fn dot(a: &[i32], b: &[i32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum::<i32>() as f32
}

/// A block of 256 in parts: `d * scale * q - dmin * min`.
struct SuperBlock {
    d: f32,
    /// One per element, the part's scale included.
    scaled: Vec<i32>,
    /// `dmin`, and the minimum of each element's part.
    minima: Option<(f32, Vec<i32>)>,
}

/// Blocks of 256: `sum + Σ scale q x * (d * scale of x)`, then `+ Σ min x * -(dmin * scale of x)`, each fused.
fn super_blocks(dtype: DType, row: &[u8], x: &[f32]) -> f32 {
    let bytes = dtype.block_bytes();
    in_segments(x.len(), 256, |sum, k| {
        let block = super_block(dtype, &row[k / 256 * bytes..(k / 256 + 1) * bytes]);
        let x = quantize(&x[k..k + 256]);
        let mut sum = dot(&block.scaled, &x.quants).mul_add(block.d * x.scale, sum);
        if let Some((dmin, minima)) = block.minima {
            sum = dot(&minima, &x.quants).mul_add(-(dmin * x.scale), sum);
        }
        sum
    })
}

/// `count` bits of a byte, from bit `from` on.
fn bits(byte: u8, from: usize, count: usize) -> i32 {
    i32::from(byte >> from) & ((1 << count) - 1)
}

/// Scales and minima of the eight parts of Q4_K and Q5_K: six bits each. The first four lie whole in bytes 0-3 and 4-7;
/// of the others the low halves are bytes 8-11, the high bits are on top of the first four.
fn six_bits(b: &[u8]) -> [(i32, i32); 8] {
    std::array::from_fn(|part| match part {
        0..4 => (bits(b[part], 0, 6), bits(b[part + 4], 0, 6)),
        _ => {
            let scale = bits(b[part + 4], 0, 4) + 16 * bits(b[part - 4], 6, 2);
            (scale, bits(b[part + 4], 4, 4) + 16 * bits(b[part], 6, 2))
        }
    })
}

fn super_block(dtype: DType, b: &[u8]) -> SuperBlock {
    let half_at = |at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
    let elements = |f: &dyn Fn(usize) -> i32| (0..256).map(f).collect::<Vec<i32>>();
    let symmetric = |d: f32, f: &dyn Fn(usize) -> i32| SuperBlock { d, scaled: elements(f), minima: None };
    // Element `i` is element `at` of quarter `q` of half `h` of the block.
    let place = |i: usize| (i / 128, i % 128 / 32, i % 32);
    match dtype {
        DType::Q2_K => {
            let quant = |i: usize| {
                let (h, q, at) = place(i);
                bits(b[16 + 32 * h + at], 2 * q, 2)
            };
            let minima = elements(&|i| bits(b[i / 16], 4, 4));
            let scaled = elements(&|i| bits(b[i / 16], 0, 4) * quant(i));
            SuperBlock { d: half_at(80), scaled, minima: Some((half_at(82), minima)) }
        }
        DType::Q3_K => symmetric(half_at(108), &|i| {
            let (h, q, at) = place(i);
            let quant = bits(b[32 + 32 * h + at], 2 * q, 2) + 4 * bits(b[at], 4 * h + q, 1) - 4;
            let part = i / 16;
            let low = bits(b[96 + part % 8], part / 8 * 4, 4);
            (low + 16 * bits(b[104 + part % 4], part / 4 * 2, 2) - 32) * quant
        }),
        DType::Q4_K | DType::Q5_K => {
            let (parts, nibbles) = (six_bits(&b[4..16]), if dtype == DType::Q5_K { 48 } else { 16 });
            let quant = |i: usize| {
                let low = bits(b[nibbles + i / 64 * 32 + i % 32], i / 32 % 2 * 4, 4);
                low + if dtype == DType::Q5_K { 16 * bits(b[16 + i % 32], i / 32, 1) } else { 0 }
            };
            let minima = elements(&|i| parts[i / 32].1);
            let scaled = elements(&|i| parts[i / 32].0 * quant(i));
            SuperBlock { d: half_at(0), scaled, minima: Some((half_at(2), minima)) }
        }
        DType::Q6_K => symmetric(half_at(208), &|i| {
            let (h, q, at) = place(i);
            let low = bits(b[64 * h + q % 2 * 32 + at], q / 2 * 4, 4);
            let quant = low + 16 * bits(b[128 + 32 * h + at], 2 * q, 2) - 32;
            i32::from(b[192 + i / 16] as i8) * quant
        }),
        _ => symmetric(half_at(0), &|i| {
            let part = i / 32;
            let high = bits(b[2 + part / 4], part % 4 * 2, 2);
            let scale = bits(b[4 + part / 2], part % 2 * 4, 4) + 16 * high - 32;
            let quant = bits(b[8 + 16 * part + i % 16], i % 32 / 16 * 4, 4);
            scale * i32::from(IQ4_VALUES[quant as usize])
        }),
    }
}

fn blocks32(dtype: DType, row: &[u8], x: &[f32], block: impl Fn(&[u8], &Int8Block, f32) -> f32) -> f32 {
    let bytes = dtype.block_bytes();
    in_segments(x.len(), 32, |sum, k| {
        block(&row[k / 32 * bytes..(k / 32 + 1) * bytes], &quantize(&x[k..k + 32]), sum)
    })
}

fn scale(block: &[u8], i: usize) -> f32 {
    f16::from_le_bytes([block[2 * i], block[2 * i + 1]]).to_f32()
}

fn nibbles(bytes: &[u8]) -> impl Iterator<Item = i32> {
    let (low, high) = (bytes.iter().map(|b| b & 15), bytes.iter().map(|b| b >> 4));
    low.chain(high).map(i32::from)
}

/// 32 fifth bits, then nibbles.
fn fives(bytes: &[u8]) -> impl Iterator<Item = i32> {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    nibbles(&bytes[4..]).enumerate().map(move |(i, q)| q + 16 * (high >> i & 1) as i32)
}
