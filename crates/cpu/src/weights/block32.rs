//! Formats in blocks of 32 elements, met by int8 activations in blocks of 32.
//!
//! Sections of a panel: codes `[block]` (see [`codes`](super::codes)), then the scales and, where there are any, the
//! minima `[block][lane]`.

use std::marker::PhantomData;

use half::f16;
use wushi_quant::{IQ4_VALUES, MXFP4_DOUBLED};

use super::codes::{self, Codes, GROUP, Place};
use super::{Format, Layout, Matrix, SEGMENT, end_segment, prefetch};
use crate::activations::{Activations, Packing};
use crate::simd::{Isa, PANEL};

/// What a block of 32 has beside its codes: what differs between these formats is all here and in [`Codes`].
pub(crate) trait Block32: Codes {
    /// Taken off every code, where codes are neither indices nor signed bytes.
    const OFFSET: i32 = 0;
    /// Whether an F16 minimum follows the scale.
    const MINIMUM: bool = false;
    /// Bytes of the scale: an F16 number, or an exponent (E8M0) of one byte.
    const SCALE: usize = 2;
}

/// One block of `M` activation rows.
pub(crate) struct Int8Block<const M: usize> {
    /// 32 quants each.
    pub(crate) quants: [*const i8; M],
    /// Scale.
    pub(crate) scale: [f32; M],
    /// Sum of the quants.
    pub(crate) sum: [i32; M],
    /// Scale times sum.
    pub(crate) scaled_sum: [f32; M],
}

/// Four bits, symmetric: `d * (q - 8)`.
pub(crate) struct Q4_0;
/// Four bits with a minimum: `d * q + m`.
pub(crate) struct Q4_1;
/// Five bits, symmetric: `d * (q - 16)`.
pub(crate) struct Q5_0;
/// Five bits with a minimum: `d * q + m`.
pub(crate) struct Q5_1;
/// Eight bits, symmetric: `d * q`; stored with 128 added.
pub(crate) struct Q8_0;
/// Four bits that index a table: `d * table[q]`.
pub(crate) struct Iq4Nl;
/// Four bits that index a table of doubled E2M1 numbers: `2^(e - 128) * table[q]`.
pub(crate) struct Mxfp4;

/// Nibbles of 32 codes from byte `at` on: the low ones are the first half.
const fn nibbles(at: usize, word: usize) -> Place {
    Place::Bytes { at: at + word % 4 * 4, shift: word / 4 * 4 }
}

/// The same with 32 fifth bits before them.
const fn fives(at: usize, high: bool, word: usize) -> Place {
    if high { Place::Bits { at, shift: 4 * word } } else { nibbles(at + 4, word) }
}

/// Values as bytes with 128 added.
pub(super) const fn unsigned_table(values: &[i8; 16]) -> [u8; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = (values[i] as u8).wrapping_add(128);
        i += 1;
    }
    table
}

impl Codes for Q4_0 {
    const LOW: usize = 4;
    const HIGH: usize = 0;
    fn place(_: bool, _: usize, word: usize) -> Place {
        nibbles(2, word)
    }
}
impl Block32 for Q4_0 {
    const OFFSET: i32 = 8;
}

impl Codes for Q4_1 {
    const LOW: usize = 4;
    const HIGH: usize = 0;
    fn place(_: bool, _: usize, word: usize) -> Place {
        nibbles(4, word)
    }
}
impl Block32 for Q4_1 {
    const MINIMUM: bool = true;
}

impl Codes for Q5_0 {
    const LOW: usize = 4;
    const HIGH: usize = 1;
    fn place(high: bool, _: usize, word: usize) -> Place {
        fives(2, high, word)
    }
}
impl Block32 for Q5_0 {
    const OFFSET: i32 = 16;
}

impl Codes for Q5_1 {
    const LOW: usize = 4;
    const HIGH: usize = 1;
    fn place(high: bool, _: usize, word: usize) -> Place {
        fives(4, high, word)
    }
}
impl Block32 for Q5_1 {
    const MINIMUM: bool = true;
}

impl Codes for Q8_0 {
    const LOW: usize = 8;
    const HIGH: usize = 0;
    const FLIP: u8 = 128;
    fn place(_: bool, _: usize, word: usize) -> Place {
        Place::Bytes { at: 2 + 4 * word, shift: 0 }
    }
}
impl Block32 for Q8_0 {}

impl Codes for Iq4Nl {
    const LOW: usize = 4;
    const HIGH: usize = 0;
    const TABLE: Option<[u8; 16]> = Some(unsigned_table(&IQ4_VALUES));
    fn place(_: bool, _: usize, word: usize) -> Place {
        nibbles(2, word)
    }
}
impl Block32 for Iq4Nl {}

impl Codes for Mxfp4 {
    const LOW: usize = 4;
    const HIGH: usize = 0;
    const TABLE: Option<[u8; 16]> = Some(unsigned_table(&MXFP4_DOUBLED));
    fn place(_: bool, _: usize, word: usize) -> Place {
        nibbles(1, word)
    }
}
impl Block32 for Mxfp4 {
    const SCALE: usize = 1;
}

/// Layout and kernel of a [`Block32`] format.
pub(crate) struct Blocks<F>(PhantomData<F>);

impl<F: Block32> Blocks<F> {
    /// Bytes of one block's codes in a panel.
    pub(super) const PANEL_CODES: usize = codes::panel_bytes::<F>();
    /// Bytes of a block in the file: scale, minimum, codes.
    const FILE_BYTES: usize = Self::HEAD + Self::PANEL_CODES / PANEL;
    /// Of them, before the codes.
    const HEAD: usize = F::SCALE + if F::MINIMUM { 2 } else { 0 };

    /// Scale and minimum: which section, which bytes of a block.
    fn heads() -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        [(1, 0..F::SCALE), (2, F::SCALE..Self::HEAD)].into_iter().filter(|(_, bytes)| !bytes.is_empty())
    }
}

/// Scales of one block: `F16`, or half of the power of two that an exponent stands for (see `mxfp4_scale`).
#[inline(always)]
pub(super) unsafe fn scales<S: Isa, F: Block32>(scales: *const u8) -> S::V {
    // SAFETY: the caller vouches for the instruction set and the block.
    unsafe {
        if F::SCALE == 2 {
            return S::load_f16(scales.cast());
        }
        let exponent = S::to_f32(S::widen_u8(scales));
        let power = S::pow2(S::sub(exponent, S::splat(128.0)));
        S::select_less(exponent, S::splat(2.0), S::splat(0.0), power)
    }
}

/// Adds one block's products to `sum`, in the order the reference defines.
#[inline(always)]
unsafe fn accumulate<S: Isa, F: Block32, const M: usize>(
    sum: &mut [S::V; M],
    block: *const u8,
    heads: [*const u8; 2],
    x: &Int8Block<M>,
) {
    // SAFETY: the caller's.
    unsafe {
        let w = codes::vectors::<S, F>(block);
        let integers = if F::TABLE.is_some() || F::LOW == 8 {
            S::dot_i8(&w, &x.quants, &x.sum)
        } else {
            let mut init = [0; M];
            for t in 0..M {
                init[t] = -F::OFFSET * x.sum[t];
            }
            if F::HIGH == 0 {
                S::dot_unsigned::<15, M>(&w, &x.quants, &init)
            } else {
                S::dot_unsigned::<31, M>(&w, &x.quants, &init)
            }
        };
        let d = scales::<S, F>(heads[0]);
        for t in 0..M {
            sum[t] = S::fma(S::to_f32(integers[t]), S::mul(d, S::splat(x.scale[t])), sum[t]);
        }
        if F::MINIMUM {
            let m = S::load_f16(heads[1].cast());
            for t in 0..M {
                sum[t] = S::fma(m, S::splat(x.scaled_sum[t]), sum[t]);
            }
        }
    }
}

impl<F: Block32> Layout for Blocks<F> {
    fn sections(inputs: usize) -> [usize; 3] {
        let blocks = inputs / GROUP;
        let mut sections = [blocks * Self::PANEL_CODES, 0, 0];
        for (section, bytes) in Self::heads() {
            sections[section] = blocks * PANEL * bytes.len();
        }
        sections
    }

    fn pack_row(file: &[u8], lane: usize, panel: [&mut [u8]; 3]) -> bool {
        let mut finite = true;
        for (b, block) in file.chunks_exact(Self::FILE_BYTES).enumerate() {
            for (section, bytes) in Self::heads() {
                let (head, at) = (&block[bytes.clone()], (b * PANEL + lane) * bytes.len());
                finite &= match head {
                    [exponent] => *exponent != 255,
                    _ => f16::from_le_bytes([head[0], head[1]]).is_finite(),
                };
                panel[section][at..at + bytes.len()].copy_from_slice(head);
            }
            codes::pack::<F>(block, 0, lane, &mut panel[0][b * Self::PANEL_CODES..][..Self::PANEL_CODES]);
        }
        finite
    }

    fn unpack_blocks(panel: [&[u8]; 3], lane: usize, first: usize, file: &mut [u8]) {
        for (b, block) in file.chunks_exact_mut(Self::FILE_BYTES).enumerate() {
            let b = first + b;
            for (section, bytes) in Self::heads() {
                let at = (b * PANEL + lane) * bytes.len();
                block[bytes.clone()].copy_from_slice(&panel[section][at..at + bytes.len()]);
            }
            codes::unpack::<F>(&panel[0][b * Self::PANEL_CODES..][..Self::PANEL_CODES], lane, 0, block);
        }
    }
}

impl<F: Block32> Format for Blocks<F> {
    const PACKING: Packing = Packing::Int8;

    #[inline(always)]
    unsafe fn tile<S: Isa, const M: usize>(
        matrix: &Matrix,
        panel: usize,
        part: usize,
        x: &Activations,
        rows: &[usize; M],
    ) -> [S::V; M] {
        // SAFETY: the caller vouches for the instruction set and for panel and rows.
        unsafe {
            let blocks = matrix.inputs / GROUP;
            let quants = matrix.section(0, panel).add(part * S::LANES * 4);
            let scales = matrix.section(1, panel).add(part * S::LANES * F::SCALE);
            let minima = matrix.section(2, panel).wrapping_add(part * S::LANES * 2);
            let mut total = [S::splat(0.0); M];
            let mut sum = [S::splat(0.0); M];
            for b in 0..blocks {
                prefetch::<S>(quants.add(b * Self::PANEL_CODES), Self::PANEL_CODES);
                let activations = x.int8_block::<M>(rows, b);
                let heads = [scales.add(b * PANEL * F::SCALE), minima.wrapping_add(b * PANEL * 2)];
                accumulate::<S, F, M>(&mut sum, quants.add(b * Self::PANEL_CODES), heads, &activations);
                if (b + 1) % (SEGMENT / GROUP) == 0 || b + 1 == blocks {
                    end_segment::<S, M>(&mut total, &mut sum);
                }
            }
            total
        }
    }
}
