//! Weights as kernels read them: interleaved so that SIMD lanes are output rows, no larger than in the file.
//!
//! A [`Matrix`] cuts its rows into panels of [`PANEL`]. One file here per group of formats says how a panel's
//! elements are stored and how they meet the activations: that is all a new format needs.

mod block32;
mod float;

use std::ops::Range;

use wushi_graph::{DType, ReadError, TensorView};
use wushi_quant::dequantize;

pub(crate) use block32::{Blocks, Int8Block, Q4_0, Q4_1, Q8_0};
pub(crate) use float::{BF16, F16, F32, flush_bf16};

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
    /// What activations it takes.
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
}

/// Packing and unpacking, independent of any instruction set.
pub(crate) trait Layout {
    /// Bytes of one panel of `inputs` columns in each section (quants, scales, …).
    fn sections(inputs: usize) -> [usize; 3];
    /// Writes one row of the file's bytes into lane `lane` of a panel. False if a value is not finite.
    fn pack_row(file: &[u8], lane: usize, panel: [&mut [u8]; 3]) -> bool;
    /// Reads lane `lane` of a panel back, exactly the values the file stands for.
    fn unpack_row(panel: [&[u8]; 3], lane: usize, out: &mut [f32]);
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
            DType::Q8_0 => $f::<Blocks<Q8_0>>($($arg),*),
            other => unreachable!("no kernels for {other}"),
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
    /// From a tensor's shape: `[outputs, inputs]` or `[experts, outputs, inputs]`.
    pub(crate) fn of(shape: &[usize]) -> Self {
        match *shape {
            [outputs, inputs] => MatrixShape { experts: 1, outputs, inputs },
            [experts, outputs, inputs] => MatrixShape { experts, outputs, inputs },
            _ => unreachable!("matrices are declared with two or three dimensions"),
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
        with_layout!(self.dtype, unpack_row(panel, row % PANEL, out));
    }
}

fn unpack_row<L: Layout>(panel: [&[u8]; 3], lane: usize, out: &mut [f32]) {
    L::unpack_row(panel, lane, out);
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

/// The form in which activations meet weights of this dtype.
pub(crate) fn packing_of(dtype: DType) -> Packing {
    with_layout!(dtype, packing())
}
