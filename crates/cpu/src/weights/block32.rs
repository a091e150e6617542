//! Formats in blocks of 32 elements with F16 scales, met by int8 activations: Q4_0, Q4_1, Q8_0.
//!
//! Sections of a panel: quants `[block][chunk][lane]`, then up to two F16 scales `[block][lane]`. A chunk holds
//! four elements of each lane as bytes, or eight as nibbles: elements `8c..8c+4` low, `8c+4..8c+8` high.

use std::marker::PhantomData;

use half::f16;

use super::{Format, Layout, Matrix, SEGMENT};
use crate::activations::{Activations, Packing};
use crate::simd::{Isa, PANEL};

/// Elements of a block.
pub(crate) const BLOCK: usize = 32;

/// A format in blocks of 32: what differs between them.
pub(crate) trait Block32: 'static {
    /// Bytes of a block in the file: F16 scales first, then quants.
    const FILE_BYTES: usize = 2 * Self::SCALES + if Self::NIBBLES { 16 } else { 32 };
    /// F16 scales of a block.
    const SCALES: usize;
    /// Whether a quant has four bits, else eight.
    const NIBBLES: bool;

    /// The value of a stored quant.
    fn value(quant: u8, scales: [f32; 2]) -> f32;

    /// Adds one block's products to `sum`, in the order the reference defines.
    ///
    /// # Safety
    /// The processor has `S`; the pointers are into existing blocks.
    unsafe fn accumulate<S: Isa, const M: usize>(
        sum: &mut [S::V; M],
        quants: *const u8,
        scales: [*const u16; 2],
        x: &Int8Block<M>,
    );
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
/// Eight bits, symmetric: `d * q`; stored with 128 added.
pub(crate) struct Q8_0;

/// The 32 quants of a block in the file's order: low nibbles first, then high ones.
pub(crate) fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

/// Eight vectors of four quants per lane, from nibbles.
#[inline(always)]
unsafe fn unpack_nibbles<S: Isa>(quants: *const u8) -> [S::B; 8] {
    // SAFETY: the caller vouches for the instruction set and the block.
    unsafe {
        let mut w = [S::load_bytes(quants); 8];
        for chunk in 0..4 {
            let bytes = S::load_bytes(quants.add(chunk * PANEL * 4));
            w[2 * chunk] = S::low_nibbles(bytes);
            w[2 * chunk + 1] = S::high_nibbles(bytes);
        }
        w
    }
}

/// `sum += f32(integer) * (d * scale)`: what all symmetric formats do.
#[inline(always)]
unsafe fn add_scaled<S: Isa, const M: usize>(
    sum: &mut [S::V; M],
    integers: &[S::I; M],
    d: S::V,
    x: &Int8Block<M>,
) {
    for t in 0..M {
        // SAFETY: the caller vouches for the instruction set.
        sum[t] = unsafe { S::fma(S::to_f32(integers[t]), S::mul(d, S::splat(x.scale[t])), sum[t]) };
    }
}

impl Block32 for Q4_0 {
    const SCALES: usize = 1;
    const NIBBLES: bool = true;

    fn value(quant: u8, [d, _]: [f32; 2]) -> f32 {
        d * (f32::from(quant) - 8.0)
    }

    #[inline(always)]
    unsafe fn accumulate<S: Isa, const M: usize>(
        sum: &mut [S::V; M],
        quants: *const u8,
        scales: [*const u16; 2],
        x: &Int8Block<M>,
    ) {
        let mut offset = [0; M];
        for t in 0..M {
            offset[t] = -8 * x.sum[t];
        }
        // SAFETY: the caller's.
        unsafe {
            let integers = S::dot_u4(&unpack_nibbles::<S>(quants), &x.quants, &offset);
            add_scaled::<S, M>(sum, &integers, S::load_f16(scales[0]), x);
        }
    }
}

impl Block32 for Q4_1 {
    const SCALES: usize = 2;
    const NIBBLES: bool = true;

    fn value(quant: u8, [d, m]: [f32; 2]) -> f32 {
        f32::from(quant).mul_add(d, m)
    }

    #[inline(always)]
    unsafe fn accumulate<S: Isa, const M: usize>(
        sum: &mut [S::V; M],
        quants: *const u8,
        scales: [*const u16; 2],
        x: &Int8Block<M>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let integers = S::dot_u4(&unpack_nibbles::<S>(quants), &x.quants, &[0; M]);
            add_scaled::<S, M>(sum, &integers, S::load_f16(scales[0]), x);
            let m = S::load_f16(scales[1]);
            for t in 0..M {
                sum[t] = S::fma(m, S::splat(x.scaled_sum[t]), sum[t]);
            }
        }
    }
}

impl Block32 for Q8_0 {
    const SCALES: usize = 1;
    const NIBBLES: bool = false;

    fn value(quant: u8, [d, _]: [f32; 2]) -> f32 {
        d * (f32::from(quant) - 128.0)
    }

    #[inline(always)]
    unsafe fn accumulate<S: Isa, const M: usize>(
        sum: &mut [S::V; M],
        quants: *const u8,
        scales: [*const u16; 2],
        x: &Int8Block<M>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let mut w = [S::load_bytes(quants); 8];
            for chunk in 1..8 {
                w[chunk] = S::load_bytes(quants.add(chunk * PANEL * 4));
            }
            let integers = S::dot_i8(&w, &x.quants, &x.sum);
            add_scaled::<S, M>(sum, &integers, S::load_f16(scales[0]), x);
        }
    }
}

/// Layout and kernel of a [`Block32`] format.
pub(crate) struct Blocks<F>(PhantomData<F>);

impl<F: Block32> Blocks<F> {
    /// Bytes of one block's quants in a panel.
    const PANEL_QUANTS: usize = PANEL * if F::NIBBLES { 16 } else { 32 };
}

impl<F: Block32> Layout for Blocks<F> {
    fn sections(inputs: usize) -> [usize; 3] {
        let blocks = inputs / BLOCK;
        let scales = |used: bool| if used { blocks * PANEL * 2 } else { 0 };
        [blocks * Self::PANEL_QUANTS, scales(F::SCALES > 0), scales(F::SCALES > 1)]
    }

    fn pack_row(file: &[u8], lane: usize, [quants, first, second]: [&mut [u8]; 3]) -> bool {
        let mut finite = true;
        let panels = quants.chunks_exact_mut(Self::PANEL_QUANTS);
        for (b, (block, panel)) in file.chunks_exact(F::FILE_BYTES).zip(panels).enumerate() {
            for (i, section) in [&mut *first, &mut *second].into_iter().take(F::SCALES).enumerate() {
                let scale = [block[2 * i], block[2 * i + 1]];
                finite &= f16::from_le_bytes(scale).is_finite();
                let at = (b * PANEL + lane) * 2;
                section[at..at + 2].copy_from_slice(&scale);
            }
            let codes = &block[2 * F::SCALES..];
            let mut put = |chunk: usize, word: u32| {
                let at = (chunk * PANEL + lane) * 4;
                panel[at..at + 4].copy_from_slice(&word.to_le_bytes());
            };
            let word = |i: usize| u32::from_le_bytes([codes[i], codes[i + 1], codes[i + 2], codes[i + 3]]);
            if F::NIBBLES {
                // Four nibbles in the low halves of a word's bytes, four in the high ones: see the layout above.
                const LOW: u32 = 0x0f0f_0f0f;
                for half in 0..2 {
                    let (a, b) = (word(8 * half), word(8 * half + 4));
                    put(half, a & LOW | (b & LOW) << 4);
                    put(half + 2, (a >> 4) & LOW | b & !LOW);
                }
            } else {
                for chunk in 0..8 {
                    put(chunk, word(4 * chunk) ^ 0x8080_8080);
                }
            }
        }
        finite
    }

    fn unpack_row([quants, first, second]: [&[u8]; 3], lane: usize, out: &mut [f32]) {
        for (b, values) in out.chunks_exact_mut(BLOCK).enumerate() {
            let mut scales = [0.0; 2];
            for (scale, section) in scales.iter_mut().zip([first, second]).take(F::SCALES) {
                let at = (b * PANEL + lane) * 2;
                *scale = f16::from_le_bytes([section[at], section[at + 1]]).to_f32();
            }
            let panel = &quants[b * Self::PANEL_QUANTS..];
            for (i, value) in values.iter_mut().enumerate() {
                let quant = if F::NIBBLES {
                    let byte = panel[(i / 8 * PANEL + lane) * 4 + i % 4];
                    if i % 8 < 4 { byte & 15 } else { byte >> 4 }
                } else {
                    panel[(i / 4 * PANEL + lane) * 4 + i % 4]
                };
                *value = F::value(quant, scales);
            }
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
            let blocks = matrix.inputs / BLOCK;
            let quants = matrix.section(0, panel).add(part * S::LANES * 4);
            let scale = |i: usize| matrix.section(i, panel).cast::<u16>().add(part * S::LANES);
            let scales = [scale(1), scale(if F::SCALES > 1 { 2 } else { 1 })];
            let mut total = [S::splat(0.0); M];
            let mut sum = [S::splat(0.0); M];
            for b in 0..blocks {
                let activations = x.int8_block::<M>(rows, b);
                F::accumulate::<S, M>(
                    &mut sum,
                    quants.add(b * Self::PANEL_QUANTS),
                    [scales[0].add(b * PANEL), scales[1].add(b * PANEL)],
                    &activations,
                );
                if (b + 1) % (SEGMENT / BLOCK) == 0 || b + 1 == blocks {
                    for t in 0..M {
                        total[t] = S::add(total[t], sum[t]);
                        sum[t] = S::splat(0.0);
                    }
                }
            }
            total
        }
    }
}
