//! One output of a linear layer: the row's blocks against the activations, both decoded once.

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
pub(super) fn in_segments(elements: usize, step: usize, mut add: impl FnMut(f32, usize) -> f32) -> f32 {
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

/// Activations in the form that weights of a storage type meet.
pub struct Activations {
    /// As computed, or rounded to BF16.
    floats: Vec<f32>,
    /// For the quantised types.
    blocks: Vec<Int8Block>,
}

impl Activations {
    /// One row of activations, for weights of this type.
    pub fn new(dtype: DType, x: &[f32]) -> Self {
        match dtype {
            DType::F32 | DType::F16 => Activations { floats: x.to_vec(), blocks: Vec::new() },
            DType::BF16 => {
                let floats = x.iter().map(|x| flush(bf16::from_f32(flush(*x)).to_f32())).collect();
                Activations { floats, blocks: Vec::new() }
            }
            _ => {
                let blocks = x.chunks(dtype.block_elements()).map(quantize).collect();
                Activations { floats: Vec::new(), blocks }
            }
        }
    }
}

/// One row of a matrix, decoded from the bytes of its file.
pub enum Row {
    /// F32 and F16: `mul_add` in sequence.
    Floats(Vec<f32>),
    /// BF16: in pairs.
    Pairs(Vec<f32>),
    /// Quantised: blocks of so many elements.
    Blocks(usize, Vec<Block>),
}

/// A block of a row: `d * scaled`, and what its minima add.
pub struct Block {
    d: f32,
    /// One per element, scales of parts included.
    scaled: Vec<i32>,
    minima: Minima,
}

enum Minima {
    None,
    /// `+ m`
    One(f32),
    /// `- dmin * min`, one per element.
    Each(f32, Vec<i32>),
}

impl Row {
    /// A row of this type.
    pub fn new(dtype: DType, row: &[u8]) -> Self {
        let half_at = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]).to_f32();
        let elements = row.chunks(dtype.block_bytes());
        match dtype {
            DType::F32 => {
                Row::Floats(elements.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            DType::F16 => Row::Floats(elements.map(half_at).collect()),
            DType::BF16 => {
                Row::Pairs(elements.map(|b| flush(bf16::from_le_bytes([b[0], b[1]]).to_f32())).collect())
            }
            _ => Row::Blocks(dtype.block_elements(), elements.map(|b| block(dtype, b)).collect()),
        }
    }

    /// The values of a row of an unquantised type.
    pub(super) fn floats(self) -> Vec<f32> {
        match self {
            Row::Floats(values) | Row::Pairs(values) => values,
            Row::Blocks(..) => unreachable!("called for unquantised types"),
        }
    }

    /// `Σ w[k] x[k]`, without bias; `x` was made for the row's type.
    pub fn dot(&self, x: &Activations) -> f32 {
        match self {
            Row::Floats(w) => in_segments(w.len(), 1, |sum, k| w[k].mul_add(x.floats[k], sum)),
            // Of each pair the odd element first, each fused.
            Row::Pairs(w) => in_segments(w.len(), 2, |sum, k| {
                let sum = if k + 1 < w.len() { w[k + 1].mul_add(x.floats[k + 1], sum) } else { sum + 0.0 };
                w[k].mul_add(x.floats[k], sum)
            }),
            Row::Blocks(size, blocks) => in_segments(size * blocks.len(), *size, |sum, k| {
                blocks[k / size].accumulate(&x.blocks[k / size], sum)
            }),
        }
    }
}

impl Block {
    /// `sum + Σ scaled x * (d * scale of x)`, fused; then for one minimum `+ m * (scale of x * Σ x)`, for several
    /// `+ Σ min x * -(dmin * scale of x)`, fused.
    fn accumulate(&self, x: &Int8Block, sum: f32) -> f32 {
        let sum = dot(&self.scaled, &x.quants).mul_add(self.d * x.scale, sum);
        match &self.minima {
            Minima::None => sum,
            Minima::One(m) => m.mul_add(x.scale * x.quants.iter().sum::<i32>() as f32, sum),
            Minima::Each(dmin, minima) => dot(minima, &x.quants).mul_add(-(dmin * x.scale), sum),
        }
    }
}

/// What is below 2^-50 becomes zero.
fn flush(x: f32) -> f32 {
    if x.abs() < f32::from_bits((127 - 50) << 23) { 0.0 } else { x }
}

/// An exact integer, rounded once.
fn dot(a: &[i32], b: &[i32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum::<i32>() as f32
}

fn block(dtype: DType, b: &[u8]) -> Block {
    let symmetric = |d: f32, scaled: Vec<i32>| Block { d, scaled, minima: Minima::None };
    let affine = |scaled: Vec<i32>| Block { d: scale(b, 0), scaled, minima: Minima::One(scale(b, 1)) };
    match dtype {
        DType::Q4_0 => symmetric(scale(b, 0), nibbles(&b[2..]).map(|q| q - 8).collect()),
        DType::Q4_1 => affine(nibbles(&b[4..]).collect()),
        DType::Q5_0 => symmetric(scale(b, 0), fives(&b[2..]).map(|q| q - 16).collect()),
        DType::Q5_1 => affine(fives(&b[4..]).collect()),
        DType::Q8_0 => symmetric(scale(b, 0), b[2..].iter().map(|q| i32::from(*q as i8)).collect()),
        DType::IQ4_NL => {
            symmetric(scale(b, 0), nibbles(&b[2..]).map(|q| i32::from(IQ4_VALUES[q as usize])).collect())
        }
        DType::MXFP4 => symmetric(
            mxfp4_scale(b[0]),
            nibbles(&b[1..]).map(|q| i32::from(MXFP4_DOUBLED[q as usize])).collect(),
        ),
        _ => super_block(dtype, b),
    }
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

/// A block of 256 in parts.
fn super_block(dtype: DType, b: &[u8]) -> Block {
    let half_at = |at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
    let elements = |f: &dyn Fn(usize) -> i32| (0..256).map(f).collect::<Vec<i32>>();
    let symmetric = |d: f32, f: &dyn Fn(usize) -> i32| Block { d, scaled: elements(f), minima: Minima::None };
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
            Block { d: half_at(80), scaled, minima: Minima::Each(half_at(82), minima) }
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
            Block { d: half_at(0), scaled, minima: Minima::Each(half_at(2), minima) }
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
