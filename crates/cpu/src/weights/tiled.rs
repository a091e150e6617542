//! How block formats meet AMX's tiles: a segment of a panel as signed bytes, and what becomes of their products.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::block32::{self, Block32, Blocks};
use super::codes::{self, Codes, GROUP};
use super::superblock::{GROUPS, PartScales, SuperBlock, SuperBlocks};
use super::{Format, Matrix, SEGMENT, prefetch};
use crate::activations::{Activations, Int8KRows, SUPERBLOCK};
pub(crate) use crate::simd::amx::TILE_ROWS;
use crate::simd::amx::{Products, Tiles};
use crate::simd::{Avx512, Isa, PANEL};

type Simd = Avx512<false>;

/// A format whose products AMX's tiles compute.
pub(crate) trait Tiled: Format {
    /// One segment of a panel, unpacked.
    type Segment;
    /// The tiles, configured for it.
    type Tiles;

    /// Configures this thread's tiles.
    ///
    /// # Safety
    /// The processor has AMX; the thread has no others.
    unsafe fn configure() -> Self::Tiles;

    /// Unpacks the segment `inputs` of a panel.
    ///
    /// # Safety
    /// The processor has AVX-512; the panel and the inputs exist.
    unsafe fn unpack(matrix: &Matrix, panel: usize, inputs: &Range<usize>, out: *mut Self::Segment);

    /// The segment's sums for `rows`, whole tiles, added to their totals `[row][lane]`; the first segment begins them.
    ///
    /// # Safety
    /// As above; the rows exist; the segment was unpacked from these inputs.
    unsafe fn multiply(
        tiles: &Self::Tiles,
        segment: *const Self::Segment,
        x: &Activations,
        rows: Range<usize>,
        inputs: &Range<usize>,
        totals: *mut f32,
    );
}

/// The 32 codes of a group as what they stand for, `offset` below what is stored.
#[inline(always)]
unsafe fn signed_codes<C: Codes>(group: *const u8, offset: u8) -> [__m512i; 8] {
    // SAFETY: the caller's.
    unsafe {
        let mut w = codes::vectors::<Simd, C>(group);
        if offset != 0 {
            for j in 0..8 {
                w[j] = Simd::sub_bytes(w[j], offset);
            }
        }
        w
    }
}

/// Adds a segment's sums to the totals.
#[inline(always)]
unsafe fn add_to(totals: *mut f32, sums: &[<Simd as Isa>::V; TILE_ROWS], inputs: &Range<usize>) {
    // SAFETY: the caller's.
    unsafe {
        for t in 0..TILE_ROWS {
            let total = totals.add(t * PANEL);
            let before = if inputs.start == 0 { Simd::splat(0.0) } else { Simd::load(total) };
            Simd::store(total, Simd::add(before, sums[t]));
        }
    }
}

/// A segment of a [`Block32`] format.
#[repr(align(64))]
pub(crate) struct BlockSegment {
    weights: [[i8; GROUP * PANEL]; SEGMENT / GROUP],
    scales: [[f32; PANEL]; SEGMENT / GROUP],
    minima: [[f32; PANEL]; SEGMENT / GROUP],
}

impl<F: Block32> Tiled for Blocks<F> {
    type Segment = BlockSegment;
    type Tiles = Tiles<GROUP>;

    #[inline(always)]
    unsafe fn configure() -> Tiles<GROUP> {
        // SAFETY: the caller's.
        unsafe { Tiles::configure() }
    }

    #[inline(always)]
    unsafe fn unpack(matrix: &Matrix, panel: usize, inputs: &Range<usize>, out: *mut BlockSegment) {
        let offset = if F::TABLE.is_some() || F::LOW == 8 { 128 } else { F::OFFSET as u8 };
        for (i, b) in (inputs.start / GROUP..inputs.end / GROUP).enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let codes = matrix.section(0, panel).add(b * Self::PANEL_CODES);
                prefetch::<Simd>(codes, Self::PANEL_CODES);
                for (j, w) in signed_codes::<F>(codes, offset).into_iter().enumerate() {
                    Simd::store_bytes((&raw mut (*out).weights[i]).cast::<u8>().add(64 * j), w);
                }
                let scales = block32::scales::<Simd, F>(matrix.section(1, panel).add(b * PANEL * F::SCALE));
                Simd::store((&raw mut (*out).scales[i]).cast(), scales);
                if F::MINIMUM {
                    let minima = Simd::load_f16(matrix.section(2, panel).add(b * PANEL * 2).cast());
                    Simd::store((&raw mut (*out).minima[i]).cast(), minima);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply(
        tiles: &Tiles<GROUP>,
        segment: *const BlockSegment,
        x: &Activations,
        rows: Range<usize>,
        inputs: &Range<usize>,
        totals: *mut f32,
    ) {
        let (first, blocks) = (inputs.start / GROUP, inputs.len() / GROUP);
        for (i, row) in rows.step_by(TILE_ROWS).enumerate() {
            // SAFETY: the caller's. Every product is written before it is read.
            unsafe {
                let x = x.int8_rows(row);
                let mut products = [const { MaybeUninit::<Products>::uninit() }; 2];
                let products = [0, 1].map(|i| products[i].as_mut_ptr());
                let start = x.quants.add(inputs.start);
                tiles.multiply(start, x.width, (&raw const (*segment).weights).cast(), products[0]);
                let mut sums = [Simd::splat(0.0); TILE_ROWS];
                for b in 0..blocks {
                    // One block ahead: a tile's rows cannot be read before they have left the store buffer.
                    if b + 1 < blocks {
                        let weights =
                            (&raw const (*segment).weights).cast::<[i8; GROUP * PANEL]>().add(b + 1);
                        tiles.multiply(start.add((b + 1) * GROUP), x.width, weights, products[(b + 1) % 2]);
                    }
                    let integers = products[b % 2].cast::<u8>();
                    let d = Simd::load((&raw const (*segment).scales[b]).cast());
                    for t in 0..TILE_ROWS {
                        let scale = Simd::mul(d, Simd::splat(*x.scales.add(t * x.blocks + first + b)));
                        let integer = Simd::load_bytes(integers.add(64 * t));
                        sums[t] = Simd::fma(Simd::to_f32(integer), scale, sums[t]);
                    }
                    if F::MINIMUM {
                        let m = Simd::load((&raw const (*segment).minima[b]).cast());
                        for t in 0..TILE_ROWS {
                            let sum = Simd::splat(*x.scaled_sums.add(t * x.blocks + first + b));
                            sums[t] = Simd::fma(m, sum, sums[t]);
                        }
                    }
                }
                add_to(totals.add(i * TILE_ROWS * PANEL), &sums, inputs);
            }
        }
    }
}

/// A block of a [`SuperBlock`] format. A weight times its part's scale is `low + 128 * high`, each a signed byte: the
/// sums over a whole block are then those of two tiles, and nothing is scaled in between.
#[repr(align(64))]
struct Scaled {
    /// Low and high bytes, `[quarter][word][lane][4]`.
    weights: [[[i8; 64 * PANEL]; SUPERBLOCK / 64]; 2],
    /// `d`, and `dmin`.
    scales: [[f32; PANEL]; 2],
    /// Parts' minima in pairs.
    minima: [[i32; PANEL]; 8],
}

/// A segment of a [`SuperBlock`] format.
pub(crate) struct SuperSegment([Scaled; SEGMENT / SUPERBLOCK]);

/// A segment's sums for two tiles of rows: `[block][tile][plane]`.
type SuperProducts = [[[Products; 2]; 2]; SEGMENT / SUPERBLOCK];

/// `w * scale` as `low + 128 * high`, for signed bytes, the scale in both halves of every lane.
///
/// Scales are at most 63 with codes of 5 bits, or within -128..=127 with codes within -32..=31, or within -32..=31 with
/// any byte: `high` is within -32..=32.
#[inline(always)]
unsafe fn scale_bytes(w: __m512i, scale: __m512i) -> [__m512i; 2] {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    // SAFETY: AVX-512 by the caller's word.
    unsafe {
        let half = _mm512_set1_epi16(64);
        let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(w));
        let odd = _mm512_srai_epi16::<8>(w);
        let even = _mm512_add_epi16(_mm512_mullo_epi16(even, scale), half);
        let odd = _mm512_add_epi16(_mm512_mullo_epi16(odd, scale), half);
        let low = _mm512_mask_blend_epi8(ODD, even, _mm512_slli_epi16::<8>(odd));
        let low = _mm512_sub_epi8(_mm512_and_si512(low, _mm512_set1_epi8(127)), _mm512_set1_epi8(64));
        // Bits 7 to 14, in the low byte and in the high one.
        let high = _mm512_mask_blend_epi8(ODD, _mm512_srli_epi16::<7>(even), _mm512_slli_epi16::<1>(odd));
        [low, high]
    }
}

impl<F: SuperBlock> SuperBlocks<F> {
    /// Whether a scaled weight may need a second byte: Q2_K's are 45 at most.
    const HIGH: bool = F::LOW + F::HIGH > 2;

    #[inline(always)]
    unsafe fn unpack_block(block: *const u8, words: [*const u8; 2], out: *mut Scaled) {
        let offset = if F::TABLE.is_some() { 128 } else { F::OFFSET as u8 };
        let mut parts = PartScales { scales: [0; 16 * PANEL], minima: [0; 16 * PANEL] };
        // SAFETY: the caller's.
        unsafe {
            F::scales::<Simd>(block.add(Self::PANEL_CODES), words[1], &mut parts);
            for g in 0..GROUPS {
                let group = block.add(g * Self::PANEL_GROUP);
                prefetch::<Simd>(group, Self::PANEL_GROUP);
                let w = signed_codes::<F>(group, offset);
                for j in 0..8 {
                    let part = (g * GROUP + 4 * j) / F::PART;
                    let scale = Simd::widen_i8(parts.scales.as_ptr().add(part * PANEL));
                    let bytes = scale_bytes(w[j], Simd::pair_i16(scale, scale));
                    let at = (g % 2 * 8 + j) * 64;
                    for plane in 0..1 + usize::from(Self::HIGH) {
                        let to = (&raw mut (*out).weights[plane][g / 2]).cast::<u8>();
                        Simd::store_bytes(to.add(at), bytes[plane]);
                    }
                }
            }
            Simd::store((&raw mut (*out).scales[0]).cast(), Simd::load_f16(words[0].cast()));
            if F::MINIMA {
                Simd::store((&raw mut (*out).scales[1]).cast(), Simd::load_f16(words[1].cast()));
                for pair in 0..SUPERBLOCK / F::PART / 2 {
                    let minima = parts.minima.as_ptr().add(2 * pair * PANEL);
                    let both = Simd::pair_i16(Simd::widen_u8(minima), Simd::widen_u8(minima.add(PANEL)));
                    Simd::store_bytes((&raw mut (*out).minima[pair]).cast(), both);
                }
            }
        }
    }
}

impl<F: SuperBlock> SuperBlocks<F> {
    /// Scales one tile's products of a segment and adds them to its totals.
    #[inline(always)]
    unsafe fn add_products(
        segment: *const SuperSegment,
        products: *const SuperProducts,
        x: &Int8KRows,
        tile: usize,
        inputs: &Range<usize>,
        totals: *mut f32,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let first = tile * TILE_ROWS * x.blocks + inputs.start / SUPERBLOCK;
            let mut sums = [Simd::splat(0.0); TILE_ROWS];
            for b in 0..inputs.len() / SUPERBLOCK {
                let block = &raw const (*segment).0[b];
                let planes = &raw const (*products)[b][tile];
                let [low, high] = [0, 1].map(|i| (&raw const (*planes)[i]).cast::<u8>());
                let [d, dmin] = [0, 1].map(|i| (&raw const (*block).scales[i]).cast());
                let d = Simd::load(d);
                for t in 0..TILE_ROWS {
                    let side = &*x.sides.add(first + b + t * x.blocks);
                    let mut integers = Simd::load_bytes(low.add(64 * t));
                    if Self::HIGH {
                        let high = _mm512_slli_epi32::<7>(Simd::load_bytes(high.add(64 * t)));
                        integers = _mm512_add_epi32(integers, high);
                    }
                    let scale = Simd::mul(d, Simd::splat(side.scale));
                    sums[t] = Simd::fma(Simd::to_f32(integers), scale, sums[t]);
                    if F::MINIMA {
                        let (mut minima, pairs) = (Simd::splat_i32(0), side.pairs(F::PART));
                        for pair in 0..SUPERBLOCK / F::PART / 2 {
                            let min = Simd::load_bytes((&raw const (*block).minima[pair]).cast());
                            minima = Simd::dot_i16(minima, min, Simd::splat_i32(*pairs.add(pair)));
                        }
                        let scale = Simd::mul(Simd::load(dmin), Simd::splat(-side.scale));
                        sums[t] = Simd::fma(Simd::to_f32(minima), scale, sums[t]);
                    }
                }
            }
            add_to(totals, &sums, inputs);
        }
    }
}

impl<F: SuperBlock> Tiled for SuperBlocks<F> {
    type Segment = SuperSegment;
    type Tiles = Tiles<64>;

    #[inline(always)]
    unsafe fn configure() -> Tiles<64> {
        // SAFETY: the caller's.
        unsafe { Tiles::configure() }
    }

    #[inline(always)]
    unsafe fn unpack(matrix: &Matrix, panel: usize, inputs: &Range<usize>, out: *mut SuperSegment) {
        for (i, b) in (inputs.start / SUPERBLOCK..inputs.end / SUPERBLOCK).enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let block = matrix.section(0, panel).add(b * Self::PANEL_BLOCK);
                let words = [1, 2].map(|i| matrix.section(i, panel).wrapping_add(b * PANEL * 2));
                Self::unpack_block(block, words, &raw mut (*out).0[i]);
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply(
        tiles: &Tiles<64>,
        segment: *const SuperSegment,
        x: &Activations,
        rows: Range<usize>,
        inputs: &Range<usize>,
        totals: *mut f32,
    ) {
        let mut row = rows.start;
        while row < rows.end {
            // SAFETY: the caller's.
            unsafe {
                let x = x.int8k_rows(row);
                let totals = totals.add((row - rows.start) * PANEL);
                let pair = row + 2 * TILE_ROWS <= rows.end;
                let mut products = MaybeUninit::<SuperProducts>::uninit();
                let products = products.as_mut_ptr();
                for b in 0..inputs.len() / SUPERBLOCK {
                    let quants = x.quants.add(inputs.start + b * SUPERBLOCK);
                    let weights = &raw const (*segment).0[b].weights;
                    let out = &raw mut (*products)[b];
                    match (pair, Self::HIGH) {
                        (true, true) => tiles.multiply::<2, 2>(quants, x.width, weights, out),
                        (true, false) => tiles.multiply::<2, 1>(quants, x.width, weights, out),
                        (false, true) => tiles.multiply::<1, 2>(quants, x.width, weights, out),
                        (false, false) => tiles.multiply::<1, 1>(quants, x.width, weights, out),
                    }
                }
                for tile in 0..1 + usize::from(pair) {
                    let totals = totals.add(tile * TILE_ROWS * PANEL);
                    Self::add_products(segment, products, &x, tile, inputs, totals);
                }
                row += if pair { 2 * TILE_ROWS } else { TILE_ROWS };
            }
        }
    }
}
