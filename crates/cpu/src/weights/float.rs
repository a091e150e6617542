//! F32, F16 and BF16: columns of a panel side by side.

use std::ops::Range;

use half::{bf16, f16};
use wushi_graph::DType;

use super::{Format, Layout, Matrix, SEGMENT, end_segment};
use crate::activations::{Activations, Packing};
use crate::simd::{Isa, PANEL};

/// IEEE binary32; a panel is `[input][lane]`.
pub(crate) struct F32;
/// IEEE binary16; a panel is `[input][lane]`.
pub(crate) struct F16;
/// The upper half of binary32; a panel is `[input / 2][lane][2]`.
pub(crate) struct BF16;

/// What is below this becomes zero in BF16, so that no product or partial sum is ever denormal: 2^-50.
pub(crate) const TINY_BF16: f32 = f32::from_bits((127 - 50) << 23);

/// Rounds to BF16; tiny numbers become zero.
pub(crate) fn flush_bf16(x: f32) -> u16 {
    if x.abs() < TINY_BF16 { 0 } else { bf16::from_f32(x).to_bits() }
}

/// What F32 and F16 share: one value per element, `mul_add` in sequence.
trait Element {
    const BYTES: usize;
    fn decode(bytes: &[u8]) -> f32;
    unsafe fn load<S: Isa>(p: *const u8) -> S::V;
}

impl Element for F32 {
    const BYTES: usize = 4;
    fn decode(b: &[u8]) -> f32 {
        f32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }
    #[inline(always)]
    unsafe fn load<S: Isa>(p: *const u8) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load(p.cast()) }
    }
}

impl Element for F16 {
    const BYTES: usize = 2;
    fn decode(b: &[u8]) -> f32 {
        f16::from_le_bytes([b[0], b[1]]).to_f32()
    }
    #[inline(always)]
    unsafe fn load<S: Isa>(p: *const u8) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load_f16(p.cast()) }
    }
}

impl<E: Element> Layout for E {
    fn sections(inputs: usize) -> [usize; 3] {
        [inputs * PANEL * E::BYTES, 0, 0]
    }

    fn pack_row(file: &[u8], lane: usize, [panel, _, _]: [&mut [u8]; 3]) -> bool {
        let mut finite = true;
        let columns = panel.chunks_exact_mut(PANEL * E::BYTES);
        for (element, column) in file.chunks_exact(E::BYTES).zip(columns) {
            column[lane * E::BYTES..(lane + 1) * E::BYTES].copy_from_slice(element);
            finite &= E::decode(element).is_finite();
        }
        finite
    }

    fn unpack_blocks([panel, _, _]: [&[u8]; 3], lane: usize, first: usize, file: &mut [u8]) {
        let columns = panel.chunks_exact(PANEL * E::BYTES).skip(first);
        for (element, column) in file.chunks_exact_mut(E::BYTES).zip(columns) {
            element.copy_from_slice(&column[lane * E::BYTES..(lane + 1) * E::BYTES]);
        }
    }
}

/// Some outputs' weights for one input, widened: those of the lanes from `part * LANES` on.
///
/// # Safety
/// The processor has `S`; panel, part and input exist; the matrix is of F32, F16 or BF16.
#[inline(always)]
pub(crate) unsafe fn float_lanes<S: Isa>(matrix: &Matrix, panel: usize, part: usize, input: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let (section, lane) = (matrix.section(0, panel), part * S::LANES);
        match matrix.dtype {
            DType::F32 => F32::load::<S>(section.add((input * PANEL + lane) * 4)),
            DType::F16 => F16::load::<S>(section.add((input * PANEL + lane) * 2)),
            _ => {
                let pairs = S::load_bytes(section.add((input / 2 * PANEL + lane) * 4));
                S::unpair_bf16(pairs)[input % 2]
            }
        }
    }
}

impl<E: Element + 'static> Format for E {
    const PACKING: Packing = Packing::F32;
    const SEGMENTS: bool = true;

    #[inline(always)]
    unsafe fn tile<S: Isa, const M: usize>(
        matrix: &Matrix,
        panel: usize,
        part: usize,
        x: &Activations,
        rows: &[usize; M],
    ) -> [S::V; M] {
        // SAFETY: the caller's.
        unsafe { segments::<S, E, M>(matrix, panel, part, x, rows) }
    }

    #[inline(always)]
    unsafe fn segment<S: Isa, const M: usize>(
        matrix: &Matrix,
        panel: usize,
        part: usize,
        x: &Activations,
        rows: &[usize; M],
        inputs: Range<usize>,
        first: usize,
    ) -> [S::V; M] {
        // SAFETY: the caller vouches for the instruction set and for panel and rows.
        unsafe {
            let weights = matrix.section(0, panel).add(part * S::LANES * E::BYTES);
            let mut x_rows = [std::ptr::null(); M];
            for t in 0..M {
                x_rows[t] = x.f32_row(rows[t]).add(inputs.start - first);
            }
            let mut sum = [S::splat(0.0); M];
            for (k, input) in inputs.enumerate() {
                let w = E::load::<S>(weights.add(input * PANEL * E::BYTES));
                for t in 0..M {
                    sum[t] = S::fma(w, S::splat(*x_rows[t].add(k)), sum[t]);
                }
            }
            sum
        }
    }
}

/// All segments of a tile, in sequence.
#[inline(always)]
unsafe fn segments<S: Isa, F: Format, const M: usize>(
    matrix: &Matrix,
    panel: usize,
    part: usize,
    x: &Activations,
    rows: &[usize; M],
) -> [S::V; M] {
    // SAFETY: the caller vouches for the instruction set and for panel and rows.
    unsafe {
        let mut total = [S::splat(0.0); M];
        let mut from = 0;
        while from < matrix.inputs {
            let to = (from + SEGMENT).min(matrix.inputs);
            let mut sum = F::segment::<S, M>(matrix, panel, part, x, rows, from..to, 0);
            end_segment::<S, M>(&mut total, &mut sum);
            from = to;
        }
        total
    }
}

impl Layout for BF16 {
    fn sections(inputs: usize) -> [usize; 3] {
        [inputs.div_ceil(2) * PANEL * 4, 0, 0]
    }

    fn pack_row(file: &[u8], lane: usize, [panel, _, _]: [&mut [u8]; 3]) -> bool {
        let mut finite = true;
        for (k, b) in file.chunks_exact(2).enumerate() {
            let x = bf16::from_le_bytes([b[0], b[1]]).to_f32();
            finite &= x.is_finite();
            let at = (k / 2 * PANEL + lane) * 4 + k % 2 * 2;
            panel[at..at + 2].copy_from_slice(&flush_bf16(x).to_le_bytes());
        }
        finite
    }

    fn unpack_blocks([panel, _, _]: [&[u8]; 3], lane: usize, first: usize, file: &mut [u8]) {
        for (k, element) in file.chunks_exact_mut(2).enumerate() {
            let k = first + k;
            let at = (k / 2 * PANEL + lane) * 4 + k % 2 * 2;
            element.copy_from_slice(&panel[at..at + 2]);
        }
    }
}

impl Format for BF16 {
    const PACKING: Packing = Packing::Bf16;
    const SEGMENTS: bool = true;

    #[inline(always)]
    unsafe fn tile<S: Isa, const M: usize>(
        matrix: &Matrix,
        panel: usize,
        part: usize,
        x: &Activations,
        rows: &[usize; M],
    ) -> [S::V; M] {
        // SAFETY: the caller's.
        unsafe { segments::<S, BF16, M>(matrix, panel, part, x, rows) }
    }

    #[inline(always)]
    unsafe fn segment<S: Isa, const M: usize>(
        matrix: &Matrix,
        panel: usize,
        part: usize,
        x: &Activations,
        rows: &[usize; M],
        inputs: Range<usize>,
        first: usize,
    ) -> [S::V; M] {
        // SAFETY: the caller vouches for the instruction set and for panel and rows. Segments begin at whole pairs.
        unsafe {
            let weights = matrix.section(0, panel).add(part * S::LANES * 4);
            let pairs = inputs.start / 2..inputs.end.div_ceil(2);
            match S::PAIRS {
                true => paired::<S, M>(weights, x, rows, pairs, first / 2),
                false => rounded::<S, M>(weights, x, rows, pairs, first / 2),
            }
        }
    }
}

/// One segment's sums by an instruction for pairs.
#[inline(always)]
unsafe fn paired<S: Isa, const M: usize>(
    weights: *const u8,
    x: &Activations,
    rows: &[usize; M],
    pairs: Range<usize>,
    first: usize,
) -> [S::V; M] {
    // SAFETY: the caller's.
    unsafe {
        let mut x_rows = [std::ptr::null_mut(); M];
        for t in 0..M {
            x_rows[t] = x.bf16_row(rows[t]).add(pairs.start - first);
        }
        let mut sum = [S::splat(0.0); M];
        for (k, pair) in pairs.enumerate() {
            let w = S::load_bytes(weights.add(pair * PANEL * 4));
            for t in 0..M {
                sum[t] = S::dot_bf16(sum[t], w, *x_rows[t].add(k));
            }
        }
        sum
    }
}

/// The same by two products each, the odd element's first.
#[inline(always)]
unsafe fn rounded<S: Isa, const M: usize>(
    weights: *const u8,
    x: &Activations,
    rows: &[usize; M],
    pairs: Range<usize>,
    first: usize,
) -> [S::V; M] {
    // SAFETY: the caller's.
    unsafe {
        let mut x_rows = [std::ptr::null_mut(); M];
        for t in 0..M {
            x_rows[t] = x.rounded_row(rows[t]).add(2 * (pairs.start - first));
        }
        let mut sum = [S::splat(0.0); M];
        for (k, pair) in pairs.enumerate() {
            let [even, odd] = S::unpair_bf16(S::load_bytes(weights.add(pair * PANEL * 4)));
            for t in 0..M {
                sum[t] = S::fma(odd, S::splat(*x_rows[t].add(2 * k + 1)), sum[t]);
            }
            for t in 0..M {
                sum[t] = S::fma(even, S::splat(*x_rows[t].add(2 * k)), sum[t]);
            }
        }
        sum
    }
}
