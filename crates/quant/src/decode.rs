//! Blocks to numbers: one function a storage type, each written as its layout reads.

use half::{bf16, f16};
use wushi_graph::DType;

use crate::{IQ4_VALUES, MXFP4_DOUBLED, mxfp4_scale};

/// Decodes one block into its elements.
type Decode = fn(&[u8], &mut [f32]);

/// How blocks of a type are decoded.
pub(crate) fn block(dtype: DType) -> Decode {
    match dtype {
        DType::F32 => |b, out| out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        DType::F16 => |b, out| out[0] = half_at(b, 0),
        DType::BF16 => |b, out| out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        DType::Q4_0 => |b, out| scaled(out, half_at(b, 0), 8.0, nibbles(&b[2..])),
        DType::Q4_1 => |b, out| affine(out, half_at(b, 0), half_at(b, 2), nibbles(&b[4..])),
        DType::Q5_0 => |b, out| scaled(out, half_at(b, 0), 16.0, fives(&b[2..])),
        DType::Q5_1 => |b, out| affine(out, half_at(b, 0), half_at(b, 2), fives(&b[4..])),
        DType::Q8_0 => |b, out| {
            let d = half_at(b, 0);
            out.iter_mut().zip(&b[2..]).for_each(|(x, &q)| *x = d * f32::from(q as i8));
        },
        DType::Q2_K => q2_k,
        DType::Q3_K => q3_k,
        DType::Q4_K => |b, out| q45_k(b, &[], &b[16..], out),
        DType::Q5_K => |b, out| q45_k(b, &b[16..48], &b[48..], out),
        DType::Q6_K => q6_k,
        DType::IQ4_NL => |b, out| table(out, half_at(b, 0), &IQ4_VALUES, nibbles(&b[2..])),
        DType::IQ4_XS => iq4_xs,
        DType::MXFP4 => |b, out| table(out, mxfp4_scale(b[0]), &MXFP4_DOUBLED, nibbles(&b[1..])),
    }
}

fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// 32 nibbles of 16 bytes: the low ones first, then the high ones.
fn nibbles(b: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { b[i] & 15 } else { b[i - 16] >> 4 })
}

/// 32 fifth bits, then nibbles.
fn fives(b: &[u8]) -> [u8; 32] {
    let high = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let low = nibbles(&b[4..]);
    std::array::from_fn(|i| low[i] | ((high >> i & 1) as u8) << 4)
}

fn scaled(out: &mut [f32], d: f32, offset: f32, quants: [u8; 32]) {
    for (x, q) in out.iter_mut().zip(quants) {
        *x = d * (f32::from(q) - offset);
    }
}

fn affine(out: &mut [f32], d: f32, m: f32, quants: [u8; 32]) {
    for (x, q) in out.iter_mut().zip(quants) {
        *x = d * f32::from(q) + m;
    }
}

fn table(out: &mut [f32], d: f32, values: &[i8; 16], quants: [u8; 32]) {
    for (x, q) in out.iter_mut().zip(quants) {
        *x = d * f32::from(values[usize::from(q)]);
    }
}

/// Scales and minima `[16]`, 2-bit quants `[64]`, `d`, `dmin`.
fn q2_k(b: &[u8], out: &mut [f32]) {
    let (d, min) = (half_at(b, 80), half_at(b, 82));
    for (group, values) in out.chunks_exact_mut(16).enumerate() {
        let (scale, m) = (d * f32::from(b[group] & 15), min * f32::from(b[group] >> 4));
        // Half of the block, which pair of bits, which half of 32 bytes.
        let (half, shift, part) = (group / 8, group % 8 / 2 * 2, group % 2);
        let quants = &b[16 + 32 * half + 16 * part..];
        for (x, q) in values.iter_mut().zip(quants) {
            *x = scale * f32::from(q >> shift & 3) - m;
        }
    }
}

/// Scale of group `j`, six bits, from the 12 bytes that Q3_K packs them in.
pub(crate) fn scale_q3(packed: &[u8], j: usize) -> u8 {
    let low = if j < 8 { packed[j] & 15 } else { packed[j - 8] >> 4 };
    low | (packed[8 + j % 4] >> (2 * (j / 4)) & 3) << 4
}

/// High bits `[32]`, 2-bit quants `[64]`, 6-bit scales in `[12]`, `d`.
fn q3_k(b: &[u8], out: &mut [f32]) {
    let (high, quants, scales, d) = (&b[..32], &b[32..96], &b[96..108], half_at(b, 108));
    for (group, values) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * (f32::from(scale_q3(scales, group)) - 32.0);
        let (half, pair, part) = (group / 8, group % 8 / 2, group % 2);
        for (i, x) in values.iter_mut().enumerate() {
            let at = 16 * part + i;
            let q = quants[32 * half + at] >> (2 * pair) & 3;
            let bit = high[at] >> (4 * half + pair) & 1;
            *x = scale * (f32::from(q | bit << 2) - 4.0);
        }
    }
}

/// Scale and minimum of group `j`, six bits each, from the 12 bytes that Q4_K and Q5_K pack them in.
pub(crate) fn scale_min(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let (low, scale_high, min_high) = (packed[j + 4], packed[j - 4] >> 6, packed[j] >> 6);
        (low & 15 | scale_high << 4, low >> 4 | min_high << 4)
    }
}

/// `d`, `dmin`, scales and minima `[12]`, then fifth bits `[32]` (empty for Q4_K) and nibbles `[128]`.
fn q45_k(b: &[u8], high: &[u8], quants: &[u8], out: &mut [f32]) {
    let (d, min) = (half_at(b, 0), half_at(b, 2));
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, m) = scale_min(&b[4..16], group);
        let (scale, m) = (d * f32::from(scale), min * f32::from(m));
        for (i, x) in values.iter_mut().enumerate() {
            let q = quants[group / 2 * 32 + i] >> (group % 2 * 4) & 15;
            let bit = high.get(i).map_or(0, |bits| bits >> group & 1);
            *x = scale * f32::from(q | bit << 4) - m;
        }
    }
}

/// Nibbles `[128]`, high pairs of bits `[64]`, signed scales `[16]`, `d`.
fn q6_k(b: &[u8], out: &mut [f32]) {
    let d = half_at(b, 208);
    for (i, x) in out.iter_mut().enumerate() {
        // Half of the block, which quarter of its 128 elements, where in the quarter.
        let (half, quarter, at) = (i / 128, i % 128 / 32, i % 32);
        let low = b[64 * half + quarter % 2 * 32 + at] >> (quarter / 2 * 4) & 15;
        let high = b[128 + 32 * half + at] >> (2 * quarter) & 3;
        let scale = b[192 + i / 16] as i8;
        *x = d * f32::from(scale) * (f32::from(low | high << 4) - 32.0);
    }
}

/// Scale of group `j`, six bits, from the 6 bytes that IQ4_XS packs them in.
pub(crate) fn scale_iq4(packed: &[u8], j: usize) -> u8 {
    let high = u16::from_le_bytes([packed[0], packed[1]]) >> (2 * j) & 3;
    packed[2 + j / 2] >> (j % 2 * 4) & 15 | (high as u8) << 4
}

/// `d`, high pairs of the scales' bits `[2]`, low nibbles of them `[4]`, nibbles `[128]`.
fn iq4_xs(b: &[u8], out: &mut [f32]) {
    let d = half_at(b, 0);
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let scale = f32::from(scale_iq4(&b[2..8], group)) - 32.0;
        table(values, d * scale, &IQ4_VALUES, nibbles(&b[8 + 16 * group..]));
    }
}
