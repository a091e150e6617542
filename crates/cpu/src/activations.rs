//! Activations as weights meet them: F32 as they are, rounded to BF16 pairs, or quantised to int8 blocks.

use crate::simd::{self, Isa};
use crate::weights::flush_bf16;

/// What a weight format wants its activations to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Packing {
    /// As computed.
    F32,
    /// Rounded to BF16, in pairs.
    Bf16,
    /// Rounded to BF16, kept as F32, an even number of them.
    Rounded,
    /// Blocks of 32 signed bytes with an F32 scale.
    Int8,
    /// Blocks of 256 signed bytes with an F32 scale.
    Int8K,
    /// No activations: bytes, such as pages of keys and values.
    Bytes,
}

/// Elements of an [`Packing::Int8`] block.
const BLOCK: usize = 32;

/// Elements of an [`Packing::Int8K`] block.
pub(crate) const SUPERBLOCK: usize = 256;

/// What an [`Packing::Int8K`] block has beside its quants.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(crate) struct Side {
    pub(crate) scale: f32,
    /// Sums of 32 quants each, and of 16.
    by_32: [i16; 8],
    by_16: [i16; 16],
}

impl Side {
    /// Sum of the quants of the `i`th 32.
    #[inline(always)]
    pub(crate) fn sum(&self, i: usize) -> i32 {
        i32::from(self.by_32[i])
    }

    /// The sums of every `part` (16 or 32) quants, in pairs, the first of each in the low half.
    #[inline(always)]
    pub(crate) fn pairs(&self, part: usize) -> *const i32 {
        if part == 32 { self.by_32.as_ptr().cast() } else { self.by_16.as_ptr().cast() }
    }
}

/// One [`Packing::Int8K`] block of `M` rows.
pub(crate) struct Int8KBlock<const M: usize> {
    pub(crate) quants: [*const i8; M],
    pub(crate) side: [*const Side; M],
}

/// Consecutive rows of [`Packing::Int8`]: `width` quants each, and so much for each of its `blocks`.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Int8Rows {
    pub(crate) quants: *const i8,
    pub(crate) scales: *const f32,
    /// Scale times the sum of the quants.
    pub(crate) scaled_sums: *const f32,
    pub(crate) width: usize,
    pub(crate) blocks: usize,
}

/// Consecutive rows of [`Packing::Int8K`].
#[cfg(target_arch = "x86_64")]
pub(crate) struct Int8KRows {
    pub(crate) quants: *const i8,
    pub(crate) sides: *const Side,
    pub(crate) width: usize,
    pub(crate) blocks: usize,
}

/// Below this a block counts as zero, so that its scale's reciprocal is finite.
const TINY: f32 = f32::from_bits((127 - 120) << 23);

/// Activations of several rows, at fixed places in memory.
#[derive(Clone, Copy)]
pub(crate) struct Activations {
    packing: Packing,
    /// Elements of a row.
    width: usize,
    /// F32: elements from row to row. Otherwise the number of rows the memory was laid out for.
    extent: usize,
    /// The row that is called 0.
    first: usize,
    base: *mut u8,
}

impl Activations {
    /// F32 rows, `stride` elements apart.
    ///
    /// # Safety
    /// `base` is valid for all rows that are used.
    pub(crate) unsafe fn f32(base: *mut f32, width: usize, stride: usize) -> Self {
        Activations { packing: Packing::F32, width, extent: stride, first: 0, base: base.cast() }
    }

    /// Packed rows in `bytes(packing, width, rows)` bytes.
    ///
    /// # Safety
    /// `base` is valid for so many bytes and aligned to 4.
    pub(crate) unsafe fn packed(packing: Packing, base: *mut u8, width: usize, rows: usize) -> Self {
        Activations { packing, width, extent: rows, first: 0, base }
    }

    /// The same from a row on, which is then called 0.
    pub(crate) fn starting_at(self, row: usize) -> Self {
        Activations { first: self.first + row, ..self }
    }

    /// The form its rows have.
    pub(crate) fn packing(&self) -> Packing {
        self.packing
    }

    /// Bytes of `rows` rows.
    pub(crate) fn bytes(packing: Packing, width: usize, rows: usize) -> usize {
        rows * match packing {
            Packing::F32 => width * 4,
            Packing::Bf16 => width.div_ceil(2) * 4,
            Packing::Rounded => width.next_multiple_of(2) * 4,
            Packing::Int8 => width + width / BLOCK * 12,
            Packing::Int8K => width + width / SUPERBLOCK * size_of::<Side>(),
            Packing::Bytes => width,
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn f32_row(&self, row: usize) -> *const f32 {
        debug_assert_eq!(self.packing, Packing::F32);
        // SAFETY: the row exists by the caller's word.
        unsafe { self.base.cast::<f32>().add((self.first + row) * self.extent) }
    }

    #[inline(always)]
    pub(crate) unsafe fn bf16_row(&self, row: usize) -> *mut u32 {
        debug_assert_eq!(self.packing, Packing::Bf16);
        // SAFETY: as above.
        unsafe { self.base.cast::<u32>().add((self.first + row) * self.width.div_ceil(2)) }
    }

    #[inline(always)]
    pub(crate) unsafe fn rounded_row(&self, row: usize) -> *mut f32 {
        debug_assert_eq!(self.packing, Packing::Rounded);
        // SAFETY: as above.
        unsafe { self.base.cast::<f32>().add((self.first + row) * self.width.next_multiple_of(2)) }
    }

    /// Quants of a row, and its scales, sums and scaled sums per block.
    #[inline(always)]
    unsafe fn int8_row(&self, row: usize) -> (*mut i8, *mut f32, *mut i32, *mut f32) {
        debug_assert_eq!(self.packing, Packing::Int8);
        let (row, blocks) = (self.first + row, self.width / BLOCK);
        // SAFETY: as above; sections lie one after the other.
        unsafe {
            let scales = self.base.add(self.extent * self.width).cast::<f32>();
            let section = |i: usize| scales.add((i * self.extent + row) * blocks);
            (self.base.add(row * self.width).cast(), section(0), section(1).cast(), section(2))
        }
    }

    /// Block `block` of the rows `rows`.
    #[inline(always)]
    pub(crate) unsafe fn int8_block<const M: usize>(
        &self,
        rows: &[usize; M],
        block: usize,
    ) -> crate::weights::Int8Block<M> {
        let mut x = crate::weights::Int8Block {
            quants: [std::ptr::null(); M],
            scale: [0.0; M],
            sum: [0; M],
            scaled_sum: [0.0; M],
        };
        for t in 0..M {
            // SAFETY: the rows and the block exist by the caller's word.
            unsafe {
                let (q, d, s, ds) = self.int8_row(rows[t]);
                x.quants[t] = q.add(block * BLOCK);
                x.scale[t] = *d.add(block);
                x.sum[t] = *s.add(block);
                x.scaled_sum[t] = *ds.add(block);
            }
        }
        x
    }

    /// The rows from `row` on of [`Packing::Int8`], one after the other.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) unsafe fn int8_rows(&self, row: usize) -> Int8Rows {
        // SAFETY: as above.
        let (quants, scales, _, scaled_sums) = unsafe { self.int8_row(row) };
        Int8Rows { quants, scales, scaled_sums, width: self.width, blocks: self.width / BLOCK }
    }

    /// The rows from `row` on of [`Packing::Int8K`], one after the other.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) unsafe fn int8k_rows(&self, row: usize) -> Int8KRows {
        // SAFETY: as above.
        let (quants, sides) = unsafe { self.int8k_row(row) };
        Int8KRows { quants, sides, width: self.width, blocks: self.width / SUPERBLOCK }
    }

    /// Quants of a row, and what its blocks have beside them.
    #[inline(always)]
    unsafe fn int8k_row(&self, row: usize) -> (*mut i8, *mut Side) {
        debug_assert_eq!(self.packing, Packing::Int8K);
        let row = self.first + row;
        // SAFETY: as above.
        unsafe {
            let side = self.base.add(self.extent * self.width).cast::<Side>();
            (self.base.add(row * self.width).cast(), side.add(row * (self.width / SUPERBLOCK)))
        }
    }

    /// Block `block` of the rows `rows`.
    #[inline(always)]
    pub(crate) unsafe fn int8k_block<const M: usize>(
        &self,
        rows: &[usize; M],
        block: usize,
    ) -> Int8KBlock<M> {
        let mut x = Int8KBlock { quants: [std::ptr::null(); M], side: [std::ptr::null(); M] };
        for t in 0..M {
            // SAFETY: the rows and the block exist by the caller's word.
            unsafe {
                let (q, side) = self.int8k_row(rows[t]);
                x.quants[t] = q.add(block * SUPERBLOCK);
                x.side[t] = side.add(block);
            }
        }
        x
    }

    /// Packs one row of F32.
    ///
    /// # Safety
    /// The processor has `S`; `x` is valid for the width; nobody else touches the row.
    #[inline(always)]
    pub(crate) unsafe fn pack<S: Isa>(&self, x: *const f32, row: usize) {
        // SAFETY: the caller's.
        unsafe {
            match self.packing {
                Packing::F32 | Packing::Bytes => unreachable!("such rows are used where they are"),
                Packing::Bf16 => self.pack_bf16::<S>(x, row),
                Packing::Rounded => self.pack_rounded::<S>(x, row),
                Packing::Int8 => self.pack_int8::<S>(x, row),
                Packing::Int8K => self.pack_int8k::<S>(x, row),
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_bf16<S: Isa>(&self, x: *const f32, row: usize) {
        // SAFETY: the caller's.
        unsafe {
            // The even element of a pair is the low half: in memory they follow each other.
            let out = self.bf16_row(row).cast::<u16>();
            let whole = self.width / S::LANES * S::LANES;
            for i in (0..whole).step_by(S::LANES) {
                S::store_bf16(out.add(i), S::load(x.add(i)));
            }
            for i in whole..self.width {
                *out.add(i) = flush_bf16(*x.add(i));
            }
            if self.width % 2 == 1 {
                *out.add(self.width) = 0;
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_rounded<S: Isa>(&self, x: *const f32, row: usize) {
        // SAFETY: the caller's.
        unsafe {
            let out = self.rounded_row(row);
            let whole = self.width / S::LANES * S::LANES;
            for i in (0..whole).step_by(S::LANES) {
                S::store(out.add(i), S::round_bf16(S::load(x.add(i))));
            }
            for i in whole..self.width {
                *out.add(i) = f32::from_bits(u32::from(flush_bf16(*x.add(i))) << 16);
            }
            if self.width % 2 == 1 {
                *out.add(self.width) = 0.0;
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_int8<S: Isa>(&self, x: *const f32, row: usize) {
        // SAFETY: the caller's.
        unsafe {
            let (q, d, sums, scaled) = self.int8_row(row);
            for b in 0..self.width / BLOCK {
                let (x, q) = (x.add(b * BLOCK), q.add(b * BLOCK));
                let scale = quantise::<S>(x, q, BLOCK);
                let sum = S::sum_i8(q);
                *d.add(b) = scale;
                *sums.add(b) = sum;
                *scaled.add(b) = scale * sum as f32;
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_int8k<S: Isa>(&self, x: *const f32, row: usize) {
        // SAFETY: the caller's.
        unsafe {
            let (q, side) = self.int8k_row(row);
            for b in 0..self.width / SUPERBLOCK {
                let (x, q) = (x.add(b * SUPERBLOCK), q.add(b * SUPERBLOCK));
                let scale = quantise::<S>(x, q, SUPERBLOCK);
                let mut by_16 = [0; 16];
                for (i, sum) in by_16.iter_mut().enumerate() {
                    let quants = q.add(16 * i).cast::<[i8; 16]>().read_unaligned();
                    *sum = quants.into_iter().map(i16::from).sum();
                }
                let by_32 = std::array::from_fn(|i| by_16[2 * i] + by_16[2 * i + 1]);
                *side.add(b) = Side { scale, by_32, by_16 };
            }
        }
    }
}

/// Rounds `n` elements, whole panels, to signed bytes: the largest magnitude to 127, half to even. Returns the scale.
///
/// # Safety
/// The processor has `S`; `x` and `q` are valid for `n` elements.
#[inline(always)]
unsafe fn quantise<S: Isa>(x: *const f32, q: *mut i8, n: usize) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let largest = simd::max_magnitude::<S>(x, n);
        // Not `largest >= TINY`: a NaN must reach the scale and so the result.
        let (scale, inverse) = if largest < TINY { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) };
        for i in (0..n).step_by(S::LANES) {
            S::store_i8(q.add(i), S::mul(S::load(x.add(i)), S::splat(inverse)));
        }
        scale
    }
}
