//! Weights as kernels read them: interleaved so that SIMD lanes are output rows, no larger than in the file.
//!
//! A [`Matrix`] cuts its rows into panels of [`PANEL`]. One file here per group of formats says how a panel's
//! elements are stored and how they meet the activations: that is all a new format needs.

mod block32;
mod codes;
mod float;
mod superblock;
#[cfg(target_arch = "x86_64")]
mod tiled;

use std::ops::Range;

use wushi_graph::{DType, ReadError, TensorView};
use wushi_quant::{dequantize, dequantize_into};

pub(crate) use block32::{Blocks, Int8Block, Iq4Nl, Mxfp4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub(crate) use float::{BF16, F16, F32, TINY_BF16, float_lanes, flush_bf16};
pub(crate) use superblock::{Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K, SuperBlocks};
#[cfg(target_arch = "x86_64")]
pub(crate) use tiled::{TILE_ROWS, Tiled};

use crate::activations::{Activations, Packing};
use crate::memory::{ALIGN, SharedBytes};
use crate::simd::{Isa, PANEL};

/// Elements of a sum that run in one sequence (see the arithmetic contract).
pub const SEGMENT: usize = 512;

/// A weight that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// The file does not have it.
    #[error("tensor `{name}` is missing")]
    Missing {
        /// Canonical name.
        name: String,
    },
    /// The file does not give it.
    #[error(transparent)]
    Read(ReadError),
    /// The file has it in another shape.
    #[error("tensor `{name}` has shape {found:?}, the model needs {expected:?}")]
    Shape {
        /// Canonical name.
        name: String,
        /// In the file, outermost first.
        found: Vec<usize>,
        /// As the graph declares it.
        expected: Vec<usize>,
    },
    /// Rows are no whole number of blocks.
    #[error("tensor `{name}` has rows of {inputs} elements, which {dtype} cannot store")]
    PartialBlock {
        /// Canonical name.
        name: String,
        /// In the file.
        dtype: DType,
        /// Elements of a row.
        inputs: usize,
    },
    /// A vector (norm weight, bias) in a block format.
    #[error("tensor `{name}` is a vector in {dtype}; vectors must be F32, F16 or BF16")]
    QuantisedVector {
        /// Canonical name.
        name: String,
        /// In the file.
        dtype: DType,
    },
    /// A convolution in a block format.
    #[error("tensor `{name}` is a convolution in {dtype}; convolutions must be F32, F16 or BF16")]
    QuantisedKernel {
        /// Canonical name.
        name: String,
        /// In the file.
        dtype: DType,
    },
    /// A value or a block's scale is infinite or not a number.
    #[error("tensor `{name}` holds a value that is not finite, in row {row}; the file is damaged")]
    NotFinite {
        /// Canonical name.
        name: String,
        /// The first such row.
        row: usize,
    },
}

/// How a format lies in a panel and meets the activations.
pub(crate) trait Format: 'static {
    /// What activations it takes; instead of [`Packing::Bf16`], [`Packing::Rounded`] where there is no instruction for pairs.
    const PACKING: Packing;

    /// `LANES` outputs (rows `panel * PANEL + part * LANES ..`) for the `M` activation rows `rows`.
    ///
    /// # Safety
    /// The processor has `S`; panel, part and rows exist; the matrix is of this format.
    unsafe fn tile<S: Isa, const M: usize>(
        matrix: &Matrix,
        panel: usize,
        part: usize,
        x: &Activations,
        rows: &[usize; M],
    ) -> [S::V; M];

    /// Whether [`Format::segment`] is there.
    const SEGMENTS: bool = false;

    /// One segment's sums of a tile: those of `inputs`; the activations begin with those of input `first`.
    ///
    /// # Safety
    /// As [`Format::tile`].
    unsafe fn segment<S: Isa, const M: usize>(
        _matrix: &Matrix,
        _panel: usize,
        _part: usize,
        _x: &Activations,
        _rows: &[usize; M],
        _inputs: Range<usize>,
        _first: usize,
    ) -> [S::V; M] {
        unreachable!("formats in blocks are computed whole")
    }
}

/// How far ahead of what it reads a kernel asks for weights: panels follow each other in memory.
const AHEAD: usize = 4096;

/// Asks for the lines of `bytes` bytes that are [`AHEAD`] of `p`.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
unsafe fn prefetch<S: Isa>(p: *const u8, bytes: usize) {
    for at in (0..bytes).step_by(64) {
        // SAFETY: the caller's.
        unsafe { S::prefetch(p.wrapping_add(AHEAD + at)) };
    }
}

/// Adds a segment's sums to the totals; the next segment's begin at zero.
///
/// # Safety
/// The processor has `S`.
#[inline(always)]
unsafe fn end_segment<S: Isa, const M: usize>(total: &mut [S::V; M], sum: &mut [S::V; M]) {
    for t in 0..M {
        // SAFETY: the caller's.
        unsafe {
            total[t] = S::add(total[t], sum[t]);
            sum[t] = S::splat(0.0);
        }
    }
}

/// Packing and unpacking, independent of any instruction set.
pub(crate) trait Layout {
    /// Bytes of one panel of `inputs` columns in each section (quants, scales, …).
    fn sections(inputs: usize) -> [usize; 3];
    /// Writes one row of the file's bytes into lane `lane` of a panel. False if a value is not finite.
    fn pack_row(file: &[u8], lane: usize, panel: [&mut [u8]; 3]) -> bool;
    /// The inverse: the row's bytes in the file (zeros before), from block `first` on. BF16 below 2^-50 stays zero.
    fn unpack_blocks(panel: [&[u8]; 3], lane: usize, first: usize, file: &mut [u8]);
}

/// Calls a generic function with the layout of a dtype.
macro_rules! with_layout {
    ($dtype:expr, $f:ident($($arg:expr),*)) => {
        match $dtype {
            DType::F32 => $f::<F32>($($arg),*),
            DType::F16 => $f::<F16>($($arg),*),
            DType::BF16 => $f::<BF16>($($arg),*),
            DType::Q4_0 => $f::<Blocks<Q4_0>>($($arg),*),
            DType::Q4_1 => $f::<Blocks<Q4_1>>($($arg),*),
            DType::Q5_0 => $f::<Blocks<Q5_0>>($($arg),*),
            DType::Q5_1 => $f::<Blocks<Q5_1>>($($arg),*),
            DType::Q8_0 => $f::<Blocks<Q8_0>>($($arg),*),
            DType::Q2_K => $f::<SuperBlocks<Q2K>>($($arg),*),
            DType::Q3_K => $f::<SuperBlocks<Q3K>>($($arg),*),
            DType::Q4_K => $f::<SuperBlocks<Q4K>>($($arg),*),
            DType::Q5_K => $f::<SuperBlocks<Q5K>>($($arg),*),
            DType::Q6_K => $f::<SuperBlocks<Q6K>>($($arg),*),
            DType::IQ4_NL => $f::<Blocks<Iq4Nl>>($($arg),*),
            DType::IQ4_XS => $f::<SuperBlocks<Iq4Xs>>($($arg),*),
            DType::MXFP4 => $f::<Blocks<Mxfp4>>($($arg),*),
        }
    };
}

/// The sizes of a matrix, or of one for each of several experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MatrixShape {
    /// Matrices.
    pub(crate) experts: usize,
    /// Output rows of each.
    pub(crate) outputs: usize,
    /// Input columns.
    pub(crate) inputs: usize,
}

impl MatrixShape {
    /// From a tensor's shape: `[outputs, inputs]`, `[experts, outputs, inputs]`, or a convolution's of five dimensions.
    pub(crate) fn of(shape: &[usize]) -> Self {
        match *shape {
            [outputs, inputs] => MatrixShape { experts: 1, outputs, inputs },
            [experts, outputs, inputs] => MatrixShape { experts, outputs, inputs },
            [outputs, ref patch @ ..] => MatrixShape { experts: 1, outputs, inputs: patch.iter().product() },
            [] => unreachable!("matrices are declared with two dimensions at least"),
        }
    }

    /// Panels of each matrix: every expert starts a new one.
    pub(crate) fn panels_each(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Panels of all matrices.
    pub(crate) fn panels(&self) -> usize {
        self.experts * self.panels_each()
    }

    /// Rows of all matrices.
    fn rows(&self) -> usize {
        self.experts * self.outputs
    }
}

/// A repacked matrix, or one for each of several experts.
pub(crate) struct Matrix {
    pub(crate) dtype: DType,
    pub(crate) shape: MatrixShape,
    /// Input columns.
    pub(crate) inputs: usize,
    bytes: SharedBytes,
    /// Where each section starts, and how far its panels lie apart.
    sections: [Section; 3],
}

#[derive(Clone, Copy, Default)]
struct Section {
    start: usize,
    stride: usize,
}

fn sections_of<L: Layout>(inputs: usize) -> [usize; 3] {
    L::sections(inputs)
}

impl Matrix {
    /// An empty matrix for a tensor of this shape.
    pub(crate) fn new(dtype: DType, shape: MatrixShape) -> std::io::Result<Self> {
        let (sections, len) = Self::layout(dtype, shape);
        let bytes = SharedBytes::zeroed_dense(len)?;
        Ok(Matrix { dtype, shape, inputs: shape.inputs, bytes, sections })
    }

    fn layout(dtype: DType, shape: MatrixShape) -> ([Section; 3], usize) {
        let (panels, inputs) = (shape.panels(), shape.inputs);
        let strides = with_layout!(dtype, sections_of(inputs));
        let mut len = 0;
        let sections = strides.map(|stride| {
            let start = len;
            len += (panels * stride).next_multiple_of(ALIGN);
            Section { start, stride }
        });
        (sections, len)
    }

    /// Bytes a matrix of this shape takes.
    pub(crate) fn planned_bytes(dtype: DType, shape: MatrixShape) -> usize {
        Self::layout(dtype, shape).1
    }

    pub(crate) fn panels(&self) -> usize {
        self.shape.panels()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Start of section `i` of a panel.
    #[inline(always)]
    pub(crate) fn section(&self, i: usize, panel: usize) -> *const u8 {
        let section = self.sections[i];
        debug_assert!(panel < self.panels());
        // SAFETY: within the allocation for every existing panel.
        unsafe { self.bytes.as_ptr().add(section.start + panel * section.stride) }
    }

    /// Packs the panels `panels` from a tensor of this matrix's shape. Returns the first row with a value that
    /// is not finite.
    ///
    /// # Safety
    /// No other thread reads or writes these panels meanwhile.
    pub(crate) unsafe fn pack(&self, view: &TensorView<'_>, panels: Range<usize>) -> Option<usize> {
        // SAFETY: as this function's.
        with_layout!(self.dtype, pack_panels(self, view.bytes, panels))
    }

    /// Writes the exact values of one row of a single matrix into `out`, which has `inputs` elements.
    pub(crate) fn unpack_row(&self, row: usize, out: &mut [f32]) {
        assert!(self.shape.experts == 1 && row < self.shape.outputs && out.len() == self.inputs);
        let panel = [0, 1, 2].map(|i| {
            let stride = self.sections[i].stride;
            // SAFETY: the panel exists; nobody writes a matrix after it was packed.
            unsafe { std::slice::from_raw_parts(self.section(i, row / PANEL), stride) }
        });
        // Some blocks at a time, as the file has them, so that what a block means is said in one place.
        let (elements, bytes) = (self.dtype.block_elements(), self.dtype.block_bytes());
        let mut file = [0; 1024];
        let blocks = file.len() / bytes;
        for (i, values) in out.chunks_mut(blocks * elements).enumerate() {
            let file = &mut file[..values.len() / elements * bytes];
            file.fill(0);
            with_layout!(self.dtype, unpack_blocks(panel, row % PANEL, i * blocks, file));
            dequantize_into(self.dtype, file, values);
        }
    }
}

fn unpack_blocks<L: Layout>(panel: [&[u8]; 3], lane: usize, first: usize, file: &mut [u8]) {
    L::unpack_blocks(panel, lane, first, file);
}

fn pack_panels<L: Layout>(matrix: &Matrix, file: &[u8], panels: Range<usize>) -> Option<usize> {
    let MatrixShape { outputs, .. } = matrix.shape;
    let row_bytes = file.len() / matrix.shape.rows();
    let mut bad = None;
    for panel in panels {
        let (expert, within) = (panel / matrix.shape.panels_each(), panel % matrix.shape.panels_each());
        let first = expert * outputs + within * PANEL;
        for row in first..(first + PANEL).min((expert + 1) * outputs) {
            let sections = [0, 1, 2].map(|i| {
                let stride = matrix.sections[i].stride;
                // SAFETY: the panel exists, and only this thread touches it (see `pack`).
                unsafe { std::slice::from_raw_parts_mut(matrix.section(i, panel).cast_mut(), stride) }
            });
            let finite = L::pack_row(&file[row * row_bytes..(row + 1) * row_bytes], row - first, sections);
            if !finite && bad.is_none() {
                bad = Some(row);
            }
        }
    }
    bad
}

/// A vector of F32 (norm weights, biases), padded with zeros to whole panels.
pub(crate) struct Vector {
    values: Vec<f32>,
}

impl Vector {
    /// Reads a tensor of an unquantised dtype; `None` if a value is not finite.
    pub(crate) fn read(view: &TensorView<'_>) -> Option<Self> {
        let mut values = dequantize(view.dtype, view.bytes);
        let finite = values.iter().all(|x| x.is_finite());
        values.resize(values.len().next_multiple_of(PANEL), 0.0);
        finite.then_some(Vector { values })
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.values[..])
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.values.as_ptr()
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }
}

fn packing<F: Format>() -> Packing {
    F::PACKING
}

/// The form in which activations meet weights of this dtype, where there are instructions for pairs of BF16 numbers or not.
pub(crate) fn packing_of(dtype: DType, pairs: bool) -> Packing {
    match with_layout!(dtype, packing()) {
        Packing::Bf16 if !pairs => Packing::Rounded,
        packing => packing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any bytes but scales that are refused.
    fn bytes_of(dtype: DType, outputs: usize, blocks: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // No byte of an infinite F16, BF16 or F32 number, nor the exponent 255.
            Some((state >> 56) as u8).filter(|byte| byte & 0x7c != 0x7c && byte & 0x7f != 0x7f).unwrap_or(1)
        };
        (0..outputs * blocks * dtype.block_bytes()).map(|_| next()).collect()
    }

    proptest! {
        #[test]
        fn panels_give_the_files_bytes_back(
            dtype in prop::sample::select(DType::ALL),
            outputs in 1usize..40,
            blocks in 1usize..9,
            seed: u64,
        ) {
            let mut file = bytes_of(dtype, outputs, blocks, seed);
            if dtype == DType::BF16 {
                // Numbers that are not too small to be kept.
                file.iter_mut().skip(1).step_by(2).for_each(|byte| *byte = *byte & 0x83 | 0x3c);
            }
            let shape = [outputs, blocks * dtype.block_elements()];
            let matrix = Matrix::new(dtype, MatrixShape::of(&shape)).unwrap();
            let view = TensorView { dtype, shape: &shape, bytes: &file };
            // SAFETY: nobody else knows the matrix.
            prop_assert_eq!(unsafe { matrix.pack(&view, 0..matrix.panels()) }, None);
            for row in 0..outputs {
                let panel = [0, 1, 2].map(|i| {
                    let stride = matrix.sections[i].stride;
                    // SAFETY: the panel exists.
                    unsafe { std::slice::from_raw_parts(matrix.section(i, row / PANEL), stride) }
                });
                let want = &file[row * blocks * dtype.block_bytes()..][..blocks * dtype.block_bytes()];
                // From the second block on as well, if there is one.
                for first in [0, 1].into_iter().take(blocks) {
                    let mut got = vec![0; want.len() - first * dtype.block_bytes()];
                    with_layout!(dtype, unpack_blocks(panel, row % PANEL, first, &mut got));
                    prop_assert_eq!(&got, &want[first * dtype.block_bytes()..], "{} row {}", dtype, row);
                }
                let mut values = vec![0.0; shape[1]];
                matrix.unpack_row(row, &mut values);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&values), bits(&dequantize(dtype, want)));
            }
            let padded = outputs.next_multiple_of(PANEL) * blocks * dtype.block_bytes();
            let odd = if dtype == DType::BF16 && blocks % 2 == 1 { matrix.panels() * PANEL * 2 } else { 0 };
            prop_assert!(matrix.bytes() <= padded + odd + 3 * ALIGN, "no larger than in the file");
        }
    }
}
