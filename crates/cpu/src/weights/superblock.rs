//! Formats in blocks of 256 elements whose parts have small integer scales: K-quants and IQ4_XS. They meet int8
//! activations in blocks of 256.
//!
//! Sections of a panel: `[block]` of eight groups of codes (see [`codes`](super::codes)) and the parts' scales, then up
//! to two 16-bit words `[block][lane]`, the first of which is the scale `d`.

use std::marker::PhantomData;

use half::f16;
use wushi_quant::IQ4_VALUES;

use super::block32::unsigned_table;
use super::codes::{self, Codes, GROUP, Place};
use super::{Format, Layout, Matrix, SEGMENT, end_segment, prefetch};
use crate::activations::{Activations, Packing, SUPERBLOCK};
use crate::simd::{Isa, PANEL};

/// Groups of 32 codes in a block.
pub(super) const GROUPS: usize = SUPERBLOCK / GROUP;

/// Scales and minima of one block, `[part][lane]` each, as a kernel reads them.
#[repr(align(64))]
pub(crate) struct PartScales {
    pub(super) scales: [i8; 16 * PANEL],
    pub(super) minima: [u8; 16 * PANEL],
}

/// What a block of 256 has beside its codes.
pub(crate) trait SuperBlock: Codes {
    /// Elements that share a small scale: 16 or 32.
    const PART: usize;
    /// Bytes of a block in the file.
    const FILE_BYTES: usize;
    /// Where the file's block has the 16-bit words of sections 1 and 2.
    const WORDS: &'static [usize];
    /// Whether the parts have minima; then the second word is their scale `dmin`.
    const MINIMA: bool = false;
    /// Taken off every code, where codes are not indices.
    const OFFSET: i32 = 0;
    /// Bytes of the parts' scales of one lane in section 0.
    const SCALES: usize;

    /// Moves the parts' scales of a file's block into a lane.
    fn pack_scales(block: &[u8], lane: usize, panel: &mut [u8]);
    /// The inverse.
    fn unpack_scales(panel: &[u8], lane: usize, block: &mut [u8]);
    /// Decodes the scales, and the minima if there are any, of all lanes. `word` is the block's second word.
    ///
    /// # Safety
    /// The processor has `S`; the pointers are into an existing block.
    unsafe fn scales<S: Isa>(panel: *const u8, word: *const u8, out: &mut PartScales);
}

/// Two bits, scales and minima of four bits: `d * scale * q - dmin * min`.
pub(crate) struct Q2K;
/// Three bits, scales of six bits: `d * (scale - 32) * (q - 4)`.
pub(crate) struct Q3K;
/// Four bits, or five, scales and minima of six bits: `d * scale * q - dmin * min`.
pub(crate) struct Sixes<const FIFTH: bool>;
pub(crate) type Q4K = Sixes<false>;
pub(crate) type Q5K = Sixes<true>;
/// Six bits, scales of eight bits: `d * scale * (q - 32)`.
pub(crate) struct Q6K;
/// Four bits that index a table, scales of six bits: `d * (scale - 32) * table[q]`.
pub(crate) struct Iq4Xs;

/// Copies bytes of a block into a lane, `[byte][lane]`.
fn spread(bytes: &[u8], lane: usize, panel: &mut [u8]) {
    for (byte, lanes) in bytes.iter().zip(panel.chunks_exact_mut(PANEL)) {
        lanes[lane] = *byte;
    }
}

/// The inverse of [`spread`].
fn gather(panel: &[u8], lane: usize, bytes: &mut [u8]) {
    for (byte, lanes) in bytes.iter_mut().zip(panel.chunks_exact(PANEL)) {
        *byte = lanes[lane];
    }
}

impl Codes for Q2K {
    const LOW: usize = 2;
    const HIGH: usize = 0;
    fn place(_: bool, group: usize, word: usize) -> Place {
        Place::Bytes { at: 16 + group / 4 * 32 + 4 * word, shift: group % 4 * 2 }
    }
}

/// A panel has the file's bytes: scale low, minimum high.
impl SuperBlock for Q2K {
    const PART: usize = 16;
    const FILE_BYTES: usize = 84;
    const WORDS: &'static [usize] = &[80, 82];
    const MINIMA: bool = true;
    const SCALES: usize = 16;

    fn pack_scales(block: &[u8], lane: usize, panel: &mut [u8]) {
        spread(&block[..16], lane, panel);
    }
    fn unpack_scales(panel: &[u8], lane: usize, block: &mut [u8]) {
        gather(panel, lane, &mut block[..16]);
    }
    #[inline(always)]
    unsafe fn scales<S: Isa>(panel: *const u8, _: *const u8, out: &mut PartScales) {
        // SAFETY: the caller's; both sides have 16 rows of lanes.
        unsafe {
            for at in (0..16 * PANEL).step_by(4 * S::LANES) {
                let both = S::load_bytes(panel.add(at));
                S::store_bytes(out.scales.as_mut_ptr().cast::<u8>().add(at), S::pick(both, 0, 15));
                S::store_bytes(out.minima.as_mut_ptr().add(at), S::pick(both, 4, 15));
            }
        }
    }
}

impl Codes for Q3K {
    const LOW: usize = 2;
    const HIGH: usize = 1;
    fn place(high: bool, group: usize, word: usize) -> Place {
        if high {
            Place::Bytes { at: 4 * word, shift: group }
        } else {
            Place::Bytes { at: 32 + group / 4 * 32 + 4 * word, shift: group % 4 * 2 }
        }
    }
}

/// A panel has the file's bytes: low halves of scales `i` and `i + 8` in byte `i`, then the high pairs of bits.
impl SuperBlock for Q3K {
    const PART: usize = 16;
    const FILE_BYTES: usize = 110;
    const WORDS: &'static [usize] = &[108];
    const OFFSET: i32 = 4;
    const SCALES: usize = 12;

    fn pack_scales(block: &[u8], lane: usize, panel: &mut [u8]) {
        spread(&block[96..108], lane, panel);
    }
    fn unpack_scales(panel: &[u8], lane: usize, block: &mut [u8]) {
        gather(panel, lane, &mut block[96..108]);
    }
    #[inline(always)]
    unsafe fn scales<S: Isa>(panel: *const u8, _: *const u8, out: &mut PartScales) {
        // SAFETY: the caller's; quarters of four parts each.
        unsafe {
            for at in (0..4 * PANEL).step_by(4 * S::LANES) {
                let high = S::load_bytes(panel.add(8 * PANEL + at));
                for quarter in 0..4 {
                    let low = S::load_bytes(panel.add(quarter % 2 * 4 * PANEL + at));
                    let low = S::pick(low, (quarter / 2 * 4) as i32, 15);
                    let code = S::or(low, S::pick(high, 2 * quarter as i32 - 4, 48));
                    let to = out.scales.as_mut_ptr().cast::<u8>().add(quarter * 4 * PANEL + at);
                    S::store_bytes(to, S::sub_bytes(code, 32));
                }
            }
        }
    }
}

impl<const FIFTH: bool> Codes for Sixes<FIFTH> {
    const LOW: usize = 4;
    const HIGH: usize = FIFTH as usize;
    /// 16 bytes of head; fifth bits, if any; nibbles of two groups side by side.
    fn place(high: bool, group: usize, word: usize) -> Place {
        if high {
            return Place::Bytes { at: 16 + 4 * word, shift: group };
        }
        let nibbles = if FIFTH { 48 } else { 16 };
        Place::Bytes { at: nibbles + group / 2 * 32 + 4 * word, shift: group % 2 * 4 }
    }
}

/// The 6-bit scales and minima of Q4_K and Q5_K: in a panel eight bytes `scale & 15 | (min & 15) << 4`, then four with
/// the high bits of part `i` (scale, minimum) and of part `i + 4`.
mod sixes {
    use super::{Isa, PANEL, PartScales};

    pub(super) fn pack(file: &[u8], lane: usize, panel: &mut [u8]) {
        for i in 0..4 {
            // The file: bytes 0-3 scales, 4-7 minima of the first parts, with the others' high bits; 8-11 their low ones.
            let (scale, min, others) = (file[i], file[i + 4], file[i + 8]);
            panel[i * PANEL + lane] = scale & 15 | min << 4;
            panel[(i + 4) * PANEL + lane] = others;
            let high = scale >> 4 & 3 | (min >> 4 & 3) << 2 | (scale >> 6) << 4 | (min >> 6) << 6;
            panel[(i + 8) * PANEL + lane] = high;
        }
    }

    pub(super) fn unpack(panel: &[u8], lane: usize, file: &mut [u8]) {
        for i in 0..4 {
            let [low, others, high] = [i, i + 4, i + 8].map(|row| panel[row * PANEL + lane]);
            file[i] = low & 15 | (high & 3) << 4 | (high >> 4 & 3) << 6;
            file[i + 4] = low >> 4 | (high >> 2 & 3) << 4 | (high >> 6) << 6;
            file[i + 8] = others;
        }
    }

    #[inline(always)]
    pub(super) unsafe fn scales<S: Isa>(panel: *const u8, out: &mut PartScales) {
        // SAFETY: the caller's; halves of four parts each.
        unsafe {
            for at in (0..4 * PANEL).step_by(4 * S::LANES) {
                let high = S::load_bytes(panel.add(8 * PANEL + at));
                for half in 0..2 {
                    let to = half * 4 * PANEL + at;
                    let low = S::load_bytes(panel.add(to));
                    let scale = S::or(S::pick(low, 0, 15), S::pick(high, 4 * half as i32 - 4, 48));
                    let min = S::or(S::pick(low, 4, 15), S::pick(high, 4 * half as i32 - 2, 48));
                    S::store_bytes(out.scales.as_mut_ptr().cast::<u8>().add(to), scale);
                    S::store_bytes(out.minima.as_mut_ptr().add(to), min);
                }
            }
        }
    }
}

impl<const FIFTH: bool> SuperBlock for Sixes<FIFTH> {
    const PART: usize = 32;
    const FILE_BYTES: usize = if FIFTH { 176 } else { 144 };
    const WORDS: &'static [usize] = &[0, 2];
    const MINIMA: bool = true;
    const SCALES: usize = 12;

    fn pack_scales(block: &[u8], lane: usize, panel: &mut [u8]) {
        sixes::pack(&block[4..16], lane, panel);
    }
    fn unpack_scales(panel: &[u8], lane: usize, block: &mut [u8]) {
        sixes::unpack(panel, lane, &mut block[4..16]);
    }
    #[inline(always)]
    unsafe fn scales<S: Isa>(panel: *const u8, _: *const u8, out: &mut PartScales) {
        // SAFETY: the caller's.
        unsafe { sixes::scales::<S>(panel, out) }
    }
}

impl Codes for Q6K {
    const LOW: usize = 4;
    const HIGH: usize = 2;
    fn place(high: bool, group: usize, word: usize) -> Place {
        let (half, quarter) = (group / 4, group % 4);
        if high {
            Place::Bytes { at: 128 + 32 * half + 4 * word, shift: 2 * quarter }
        } else {
            Place::Bytes { at: 64 * half + quarter % 2 * 32 + 4 * word, shift: quarter / 2 * 4 }
        }
    }
}

impl SuperBlock for Q6K {
    const PART: usize = 16;
    const FILE_BYTES: usize = 210;
    const WORDS: &'static [usize] = &[208];
    const OFFSET: i32 = 32;
    const SCALES: usize = 16;

    fn pack_scales(block: &[u8], lane: usize, panel: &mut [u8]) {
        spread(&block[192..208], lane, panel);
    }
    fn unpack_scales(panel: &[u8], lane: usize, block: &mut [u8]) {
        gather(panel, lane, &mut block[192..208]);
    }
    #[inline(always)]
    unsafe fn scales<S: Isa>(panel: *const u8, _: *const u8, out: &mut PartScales) {
        // SAFETY: the caller's; both sides have 16 rows of lanes.
        unsafe {
            for at in (0..16 * PANEL).step_by(4 * S::LANES) {
                let to = out.scales.as_mut_ptr().cast::<u8>().add(at);
                S::store_bytes(to, S::load_bytes(panel.add(at)));
            }
        }
    }
}

impl Codes for Iq4Xs {
    const LOW: usize = 4;
    const HIGH: usize = 0;
    const TABLE: Option<[u8; 16]> = Some(unsigned_table(&IQ4_VALUES));
    fn place(_: bool, group: usize, word: usize) -> Place {
        Place::Bytes { at: 8 + 16 * group + word % 4 * 4, shift: word / 4 * 4 }
    }
}

/// A panel has the file's bytes: four with the low halves of two scales each, and the high pairs of bits as section 2.
impl SuperBlock for Iq4Xs {
    const PART: usize = 32;
    const FILE_BYTES: usize = 136;
    const WORDS: &'static [usize] = &[0, 2];
    const SCALES: usize = 4;

    fn pack_scales(block: &[u8], lane: usize, panel: &mut [u8]) {
        spread(&block[4..8], lane, panel);
    }
    fn unpack_scales(panel: &[u8], lane: usize, block: &mut [u8]) {
        gather(panel, lane, &mut block[4..8]);
    }
    #[inline(always)]
    unsafe fn scales<S: Isa>(panel: *const u8, word: *const u8, out: &mut PartScales) {
        // SAFETY: the caller's.
        let (low, high) =
            unsafe { (&*panel.cast::<[[u8; PANEL]; 4]>(), word.cast::<[u16; PANEL]>().read_unaligned()) };
        for (part, scales) in out.scales.chunks_exact_mut(PANEL).take(GROUPS).enumerate() {
            for (lane, scale) in scales.iter_mut().enumerate() {
                let low = low[part / 2][lane] >> (part % 2 * 4) & 15;
                let code = low | ((high[lane] >> (2 * part) & 3) as u8) << 4;
                *scale = code as i8 - 32;
            }
        }
    }
}

/// Layout and kernel of a [`SuperBlock`] format.
pub(crate) struct SuperBlocks<F>(PhantomData<F>);

impl<F: SuperBlock> SuperBlocks<F> {
    /// Bytes of a group of codes in a panel.
    pub(super) const PANEL_GROUP: usize = codes::panel_bytes::<F>();
    /// Bytes of all groups.
    pub(super) const PANEL_CODES: usize = GROUPS * Self::PANEL_GROUP;
    /// Bytes of a block in section 0.
    pub(super) const PANEL_BLOCK: usize = Self::PANEL_CODES + F::SCALES * PANEL;
    /// No larger than in the file.
    const SAME_SIZE: () = assert!(Self::PANEL_BLOCK + 2 * PANEL * F::WORDS.len() == PANEL * F::FILE_BYTES);
}

impl<F: SuperBlock> Layout for SuperBlocks<F> {
    fn sections(inputs: usize) -> [usize; 3] {
        const { Self::SAME_SIZE };
        let blocks = inputs / SUPERBLOCK;
        let words = |i: usize| if i < F::WORDS.len() { blocks * PANEL * 2 } else { 0 };
        [blocks * Self::PANEL_BLOCK, words(0), words(1)]
    }

    fn pack_row(file: &[u8], lane: usize, [panel, first, second]: [&mut [u8]; 3]) -> bool {
        let mut finite = true;
        let panels = panel.chunks_exact_mut(Self::PANEL_BLOCK);
        for (b, (block, panel)) in file.chunks_exact(F::FILE_BYTES).zip(panels).enumerate() {
            for (i, (section, &from)) in [&mut *first, &mut *second].into_iter().zip(F::WORDS).enumerate() {
                let word = [block[from], block[from + 1]];
                if i == 0 || F::MINIMA {
                    finite &= f16::from_le_bytes(word).is_finite();
                }
                let at = (b * PANEL + lane) * 2;
                section[at..at + 2].copy_from_slice(&word);
            }
            let (groups, scales) = panel.split_at_mut(Self::PANEL_CODES);
            for (group, panel) in groups.chunks_exact_mut(Self::PANEL_GROUP).enumerate() {
                codes::pack::<F>(block, group, lane, panel);
            }
            F::pack_scales(block, lane, scales);
        }
        finite
    }

    fn unpack_blocks([panel, one, two]: [&[u8]; 3], lane: usize, first: usize, file: &mut [u8]) {
        let panels = panel.chunks_exact(Self::PANEL_BLOCK).skip(first);
        for (b, (block, panel)) in file.chunks_exact_mut(F::FILE_BYTES).zip(panels).enumerate() {
            for (section, &to) in [one, two].into_iter().zip(F::WORDS) {
                let at = ((first + b) * PANEL + lane) * 2;
                block[to..to + 2].copy_from_slice(&section[at..at + 2]);
            }
            let (groups, scales) = panel.split_at(Self::PANEL_CODES);
            for (group, panel) in groups.chunks_exact(Self::PANEL_GROUP).enumerate() {
                codes::unpack::<F>(panel, lane, group, block);
            }
            F::unpack_scales(scales, lane, block);
        }
    }
}

/// `Σ scale * Σ code * x` of one group, added to `integers`.
///
/// What bounds all sums of a block: 8 groups of scale 128 and 32 products of 127 * 127 are 528,515,072 at most.
#[inline(always)]
unsafe fn add_group<S: Isa, F: SuperBlock, const M: usize>(
    integers: &mut [S::I; M],
    group: *const u8,
    scales: *const i8,
    x: &[*const i8; M],
    sums: &[i32; M],
) {
    // SAFETY: the caller's.
    unsafe {
        let w = codes::vectors::<S, F>(group);
        if F::TABLE.is_some() {
            let products = S::dot_i8(&w, x, sums);
            let scale = S::widen_i8(scales);
            for t in 0..M {
                integers[t] = S::mul_add_i32(integers[t], products[t], scale);
            }
        } else if F::PART == GROUP {
            add_parts::<S, F, 8, M>(integers, &w, x, S::widen_i8(scales));
        } else {
            let mut upper = *x;
            for t in 0..M {
                upper[t] = x[t].add(16);
            }
            let (low, high) = ([w[0], w[1], w[2], w[3]], [w[4], w[5], w[6], w[7]]);
            add_parts::<S, F, 4, M>(integers, &low, x, S::widen_i8(scales));
            add_parts::<S, F, 4, M>(integers, &high, &upper, S::widen_i8(scales.add(PANEL)));
        }
    }
}

/// [`Isa::dot_scaled`] with the largest code of the format.
#[inline(always)]
unsafe fn add_parts<S: Isa, F: SuperBlock, const N: usize, const M: usize>(
    integers: &mut [S::I; M],
    w: &[S::B; N],
    x: &[*const i8; M],
    scale: S::I,
) {
    // SAFETY: the caller's.
    unsafe {
        match F::LOW + F::HIGH {
            2 => S::dot_scaled::<3, N, M>(integers, w, x, scale),
            3 => S::dot_scaled::<7, N, M>(integers, w, x, scale),
            4 => S::dot_scaled::<15, N, M>(integers, w, x, scale),
            5 => S::dot_scaled::<31, N, M>(integers, w, x, scale),
            _ => S::dot_scaled::<63, N, M>(integers, w, x, scale),
        }
    }
}

/// `Σ y * Σ x` over the parts of a block, `y` being their minima, or their scales.
#[inline(always)]
unsafe fn over_sums<S: Isa, F: SuperBlock, const M: usize>(
    parts: &PartScales,
    part: usize,
    sums: [*const i32; M],
) -> [S::I; M] {
    // SAFETY: the caller's.
    unsafe {
        let mut out = [S::splat_i32(0); M];
        for pair in 0..SUPERBLOCK / F::PART / 2 {
            let (low, high) = (2 * pair * PANEL + part * S::LANES, (2 * pair + 1) * PANEL + part * S::LANES);
            let y = if F::MINIMA {
                let minima = parts.minima.as_ptr();
                S::pair_i16(S::widen_u8(minima.add(low)), S::widen_u8(minima.add(high)))
            } else {
                let scales = parts.scales.as_ptr();
                S::pair_i16(S::widen_i8(scales.add(low)), S::widen_i8(scales.add(high)))
            };
            for t in 0..M {
                out[t] = S::dot_i16(out[t], y, S::splat_i32(*sums[t].add(pair)));
            }
        }
        out
    }
}

impl<F: SuperBlock> Format for SuperBlocks<F> {
    const PACKING: Packing = Packing::Int8K;

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
            let blocks = matrix.inputs / SUPERBLOCK;
            let lanes = part * S::LANES;
            let base = matrix.section(0, panel);
            let mut parts = PartScales { scales: [0; 16 * PANEL], minima: [0; 16 * PANEL] };
            let mut total = [S::splat(0.0); M];
            let mut sum = [S::splat(0.0); M];
            for b in 0..blocks {
                let block = base.add(b * Self::PANEL_BLOCK);
                let word = |i: usize| matrix.section(i, panel).wrapping_add(b * PANEL * 2);
                let x = x.int8k_block::<M>(rows, b);
                prefetch::<S>(block.add(Self::PANEL_CODES), F::SCALES * PANEL);
                F::scales::<S>(block.add(Self::PANEL_CODES), word(2), &mut parts);
                let mut integers = [S::splat_i32(0); M];
                for g in 0..GROUPS {
                    let group = block.add(g * Self::PANEL_GROUP + 4 * lanes);
                    let scales = parts.scales.as_ptr().add(g * (GROUP / F::PART) * PANEL + lanes);
                    let (mut quants, mut sums) = (x.quants, [0; M]);
                    for t in 0..M {
                        quants[t] = quants[t].add(g * GROUP);
                        sums[t] = (*x.side[t]).sum(g);
                    }
                    prefetch::<S>(block.add(g * Self::PANEL_GROUP), Self::PANEL_GROUP);
                    add_group::<S, F, M>(&mut integers, group, scales, &quants, &sums);
                }
                let d = S::load_f16(word(1).cast::<u16>().add(lanes));
                let mut sums = [std::ptr::null(); M];
                for t in 0..M {
                    sums[t] = (*x.side[t]).pairs(F::PART);
                }
                if F::OFFSET != 0 {
                    let all = over_sums::<S, F, M>(&parts, part, sums);
                    for t in 0..M {
                        integers[t] = S::mul_add_i32(integers[t], all[t], S::splat_i32(-F::OFFSET));
                    }
                }
                for t in 0..M {
                    let scale = S::mul(d, S::splat((*x.side[t]).scale));
                    sum[t] = S::fma(S::to_f32(integers[t]), scale, sum[t]);
                }
                if F::MINIMA {
                    let minima = over_sums::<S, F, M>(&parts, part, sums);
                    let dmin = S::load_f16(word(2).cast::<u16>().add(lanes));
                    for t in 0..M {
                        let scale = S::mul(dmin, S::splat(-(*x.side[t]).scale));
                        sum[t] = S::fma(S::to_f32(minima[t]), scale, sum[t]);
                    }
                }
                if (b + 1) % (SEGMENT / SUPERBLOCK) == 0 || b + 1 == blocks {
                    end_segment::<S, M>(&mut total, &mut sum);
                }
            }
            total
        }
    }
}
