//! One output of a linear layer: the row's blocks against the activations.

use half::{bf16, f16};
use wushi_graph::DType;

use crate::weights::SEGMENT;

/// A block of 32 activations: `x ≈ scale * quant`.
struct Int8Block {
    quants: [i32; 32],
    scale: f32,
}

/// Largest magnitude to 127, round half to even; a block below 2^-120 is zero.
fn quantize(x: &[f32]) -> Int8Block {
    let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    if largest < f32::from_bits((127 - 120) << 23) {
        return Int8Block { quants: [0; 32], scale: 0.0 };
    }
    let inverse = 127.0 / largest;
    Int8Block {
        quants: std::array::from_fn(|i| (x[i] * inverse).round_ties_even() as i32),
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
        DType::Q4_0 => blocks32(dtype, row, x, |block, x, sum| {
            let integer: i32 = nibbles(&block[2..]).zip(x.quants).map(|(q, x)| (q - 8) * x).sum();
            (integer as f32).mul_add(scale(block, 0) * x.scale, sum)
        }),
        DType::Q4_1 => blocks32(dtype, row, x, |block, x, sum| {
            let integer: i32 = nibbles(&block[4..]).zip(x.quants).map(|(q, x)| q * x).sum();
            let sum = (integer as f32).mul_add(scale(block, 0) * x.scale, sum);
            let total: i32 = x.quants.iter().sum();
            scale(block, 1).mul_add(x.scale * total as f32, sum)
        }),
        DType::Q8_0 => blocks32(dtype, row, x, |block, x, sum| {
            let integer: i32 = block[2..].iter().zip(x.quants).map(|(q, x)| i32::from(*q as i8) * x).sum();
            (integer as f32).mul_add(scale(block, 0) * x.scale, sum)
        }),
        other => unreachable!("no kernels for {other}"),
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
