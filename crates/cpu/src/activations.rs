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
    /// Blocks of 32 signed bytes with an F32 scale.
    Int8,
}

/// Elements of an [`Packing::Int8`] block.
const BLOCK: usize = 32;

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
    base: *mut u8,
}

impl Activations {
    /// F32 rows, `stride` elements apart.
    ///
    /// # Safety
    /// `base` is valid for all rows that are used.
    pub(crate) unsafe fn f32(base: *mut f32, width: usize, stride: usize) -> Self {
        Activations { packing: Packing::F32, width, extent: stride, base: base.cast() }
    }

    /// Packed rows in `bytes(packing, width, rows)` bytes.
    ///
    /// # Safety
    /// `base` is valid for so many bytes and aligned to 4.
    pub(crate) unsafe fn packed(packing: Packing, base: *mut u8, width: usize, rows: usize) -> Self {
        Activations { packing, width, extent: rows, base }
    }

    /// Bytes of `rows` rows.
    pub(crate) fn bytes(packing: Packing, width: usize, rows: usize) -> usize {
        rows * match packing {
            Packing::F32 => width * 4,
            Packing::Bf16 => width.div_ceil(2) * 4,
            Packing::Int8 => width + width / BLOCK * 12,
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn f32_row(&self, row: usize) -> *const f32 {
        debug_assert_eq!(self.packing, Packing::F32);
        // SAFETY: the row exists by the caller's word.
        unsafe { self.base.cast::<f32>().add(row * self.extent) }
    }

    #[inline(always)]
    pub(crate) unsafe fn bf16_row(&self, row: usize) -> *mut u32 {
        debug_assert_eq!(self.packing, Packing::Bf16);
        // SAFETY: as above.
        unsafe { self.base.cast::<u32>().add(row * self.width.div_ceil(2)) }
    }

    /// Quants of a row, and its scales, sums and scaled sums per block.
    #[inline(always)]
    unsafe fn int8_row(&self, row: usize) -> (*mut i8, *mut f32, *mut i32, *mut f32) {
        debug_assert_eq!(self.packing, Packing::Int8);
        let blocks = self.width / BLOCK;
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

    /// Packs one row of F32.
    ///
    /// # Safety
    /// The processor has `S`; `x` is valid for the width; nobody else touches the row.
    #[inline(always)]
    pub(crate) unsafe fn pack<S: Isa>(&self, x: *const f32, row: usize) {
        // SAFETY: the caller's.
        unsafe {
            match self.packing {
                Packing::F32 => unreachable!("F32 rows are used where they are"),
                Packing::Bf16 => self.pack_bf16(x, row),
                Packing::Int8 => self.pack_int8::<S>(x, row),
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_bf16(&self, x: *const f32, row: usize) {
        // SAFETY: the caller's.
        unsafe {
            let out = self.bf16_row(row);
            for pair in 0..self.width.div_ceil(2) {
                let even = flush_bf16(*x.add(2 * pair));
                let odd = if 2 * pair + 1 < self.width { flush_bf16(*x.add(2 * pair + 1)) } else { 0 };
                *out.add(pair) = u32::from(even) | u32::from(odd) << 16;
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
                let largest = simd::max_magnitude::<S>(x, BLOCK);
                // Not `largest >= TINY`: a NaN must reach the scale and so the result.
                let (scale, inverse) =
                    if largest < TINY { (0.0, 0.0) } else { (largest / 127.0, 127.0 / largest) };
                for i in (0..BLOCK).step_by(S::LANES) {
                    S::store_i8(q.add(i), S::mul(S::load(x.add(i)), S::splat(inverse)));
                }
                let sum = S::sum_i8(q);
                *d.add(b) = scale;
                *sums.add(b) = sum;
                *scaled.add(b) = scale * sum as f32;
            }
        }
    }
}
