//! Linear layers: panels of 16 outputs against tiles of rows, then what follows while the tile is hot.

use std::ops::Range;

use super::elementwise::{Unary, unary};
use crate::activations::Activations;
use crate::simd::{Isa, PANEL};
use crate::weights::{Format, Matrix, SEGMENT};

/// Some panels of one linear layer, for all rows.
#[derive(Clone)]
pub(crate) struct LinearCall {
    /// `[outputs, inputs]`.
    pub(crate) matrix: *const Matrix,
    /// Added to every output, padded to whole panels.
    pub(crate) bias: Option<*const f32>,
    /// Which panels.
    pub(crate) panels: Range<usize>,
    /// The rows' activations, as the matrix's format takes them.
    pub(crate) x: Activations,
    /// Which rows.
    pub(crate) rows: RowSet,
    /// If only one segment of the inputs is computed: which, `x` having activations of these alone. Its sums are added to
    /// what `out` has, unless it is the first; what becomes of a result happens with the last.
    pub(crate) segment: Option<Range<usize>>,
    /// The panel of the matrix that the outputs begin with: an expert's first, else 0.
    pub(crate) first_panel: usize,
    /// Where results go.
    pub(crate) out: Output,
    /// What becomes of a result before it is written.
    pub(crate) epilogue: Epilogue,
}

/// Which rows of the result a call computes, and from which rows of activations.
#[derive(Clone, Copy)]
pub(crate) enum RowSet {
    /// The first so many, each from the row of the same number.
    First(usize),
    /// The `count` rows at `slots`, each from row `slot / share`.
    Listed { slots: *const u32, count: usize, share: usize },
}

impl RowSet {
    pub(super) fn len(&self) -> usize {
        match *self {
            RowSet::First(count) | RowSet::Listed { count, .. } => count,
        }
    }

    /// Rows of the result and of the activations, for the `M` from the `first` on.
    #[inline(always)]
    unsafe fn take<const M: usize>(&self, first: usize) -> ([usize; M], [usize; M]) {
        let (mut to, mut from) = ([0; M], [0; M]);
        for t in 0..M {
            (to[t], from[t]) = match *self {
                RowSet::First(_) => (first + t, first + t),
                RowSet::Listed { slots, share, .. } => {
                    // SAFETY: the list has as many as it says.
                    let slot = unsafe { *slots.add(first + t) } as usize;
                    (slot, slot / share)
                }
            };
        }
        (to, from)
    }
}

/// Rows of F32.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    /// First row.
    pub(crate) base: *mut f32,
    /// Elements from row to row, whole panels.
    pub(crate) stride: usize,
}

/// What becomes of a linear layer's result `y` before it is written.
#[derive(Clone, Copy)]
pub(crate) enum Epilogue {
    /// `y`
    Store,
    /// `residual + y`
    Add(Output),
    /// `activation(g) * y`, `g` being the result of the gate matrix of the same shape and format on the same rows.
    Gate { matrix: *const Matrix, bias: Option<*const f32>, activation: Unary },
    /// `activation(y)`
    Map(Unary),
}

/// Rows that are computed before the next panel is looked at: their activations stay in the second-level cache.
const ROW_BLOCK: usize = 256;

/// A tile of results: `[row][lane]`.
pub(super) type Tile<const M: usize> = [[f32; PANEL]; M];

/// Rows from which on segments are computed one after the other for all of them, results waiting in memory: the activations
/// of a segment then stay in a cache for all panels.
const SEGMENT_ROWS: usize = 32;

/// The kernel compiled for `S`, once however many tables have it.
pub(super) unsafe fn enter<S: Isa, F: Format>(call: &LinearCall) {
    // SAFETY: see `Entry`.
    unsafe {
        S::run(
            #[inline(always)]
            || run::<S, F>(call),
        )
    }
}

#[inline(always)]
unsafe fn run<S: Isa, F: Format>(call: &LinearCall) {
    // SAFETY: see `Entry`.
    unsafe {
        if let Some(inputs) = &call.segment {
            return segment::<S, F>(call, 0..call.rows.len(), inputs, inputs.start);
        }
        let inputs = (*call.matrix).inputs;
        let gated = matches!(call.epilogue, Epilogue::Gate { .. });
        if F::SEGMENTS && !gated && inputs > 2 * SEGMENT && call.rows.len() >= SEGMENT_ROWS {
            for block in (0..call.rows.len()).step_by(ROW_BLOCK) {
                let rows = block..(block + ROW_BLOCK).min(call.rows.len());
                for from in (0..inputs).step_by(SEGMENT) {
                    segment::<S, F>(call, rows.clone(), &(from..(from + SEGMENT).min(inputs)), 0);
                }
            }
            return;
        }
        whole::<S, F>(call);
    }
}

/// One segment of the inputs for some rows; the activations begin with those of input `first`.
#[inline(always)]
unsafe fn segment<S: Isa, F: Format>(
    call: &LinearCall,
    rows: Range<usize>,
    inputs: &Range<usize>,
    first: usize,
) {
    if !F::SEGMENTS {
        return;
    }
    for panel in call.panels.clone() {
        let mut row = rows.start;
        // SAFETY: see `Entry`; the rows exist.
        unsafe {
            while row + 8 <= rows.end && S::LANES == 16 {
                segment_tile::<S, F, 8>(call, panel, row, inputs, first);
                row += 8;
            }
            while row + 4 <= rows.end {
                segment_tile::<S, F, 4>(call, panel, row, inputs, first);
                row += 4;
            }
            while row < rows.end {
                segment_tile::<S, F, 1>(call, panel, row, inputs, first);
                row += 1;
            }
        }
    }
}

/// One segment's sums for `M` rows, added to what is there.
#[inline(always)]
unsafe fn segment_tile<S: Isa, F: Format, const M: usize>(
    call: &LinearCall,
    panel: usize,
    row: usize,
    inputs: &Range<usize>,
    first: usize,
) {
    // SAFETY: see `Entry`. Strides are whole panels.
    unsafe {
        let (to, from) = call.rows.take::<M>(row);
        let matrix = &*call.matrix;
        let last = inputs.end == matrix.inputs;
        for part in 0..PANEL / S::LANES {
            let at = panel * PANEL + part * S::LANES;
            let x = inputs.clone();
            let sum = F::segment::<S, M>(matrix, call.first_panel + panel, part, &call.x, &from, x, first);
            for t in 0..M {
                let out = call.out.base.add(to[t] * call.out.stride + at);
                let before = if inputs.start == 0 { S::splat(0.0) } else { S::load(out) };
                let mut y = S::add(before, sum[t]);
                if last {
                    if let Some(bias) = call.bias {
                        y = S::add(y, S::load(bias.add(at)));
                    }
                    y = match call.epilogue {
                        Epilogue::Add(x) => S::add(S::load(x.base.add(to[t] * x.stride + at)), y),
                        Epilogue::Map(op) => unary::<S>(op, y),
                        // Gated layers are computed whole.
                        Epilogue::Store | Epilogue::Gate { .. } => y,
                    };
                }
                S::store(out, y);
            }
        }
    }
}

#[inline(always)]
unsafe fn whole<S: Isa, F: Format>(call: &LinearCall) {
    let rows = call.rows.len();
    for block in (0..rows).step_by(ROW_BLOCK) {
        let end = (block + ROW_BLOCK).min(rows);
        for panel in call.panels.clone() {
            let mut row = block;
            // SAFETY: see `Entry`; the rows exist.
            unsafe {
                while row + 8 <= end && S::LANES == 16 {
                    tile::<S, F, 8>(call, panel, row);
                    row += 8;
                }
                while row + 4 <= end {
                    tile::<S, F, 4>(call, panel, row);
                    row += 4;
                }
                if row + 2 <= end {
                    tile::<S, F, 2>(call, panel, row);
                    row += 2;
                }
                if row < end {
                    tile::<S, F, 1>(call, panel, row);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn products<S: Isa, F: Format, const M: usize>(
    matrix: *const Matrix,
    bias: Option<*const f32>,
    call: &LinearCall,
    panel: usize,
    from: &[usize; M],
    tile: &mut Tile<M>,
) {
    for part in 0..PANEL / S::LANES {
        // SAFETY: see `Entry`.
        unsafe {
            let mut y = F::tile::<S, M>(&*matrix, call.first_panel + panel, part, &call.x, from);
            for t in 0..M {
                if let Some(bias) = bias {
                    y[t] = S::add(y[t], S::load(bias.add(panel * PANEL + part * S::LANES)));
                }
                S::store(tile[t].as_mut_ptr().add(part * S::LANES), y[t]);
            }
        }
    }
}

/// The results of `M` rows from the `first` of the call's rows on.
#[inline(always)]
unsafe fn tile<S: Isa, F: Format, const M: usize>(call: &LinearCall, panel: usize, first: usize) {
    // SAFETY: see `Entry`. Strides are whole panels, so a last panel's padding has its place in every row.
    unsafe {
        let (to, from) = call.rows.take::<M>(first);
        let gate = match call.epilogue {
            Epilogue::Gate { matrix, bias, .. } => Some((matrix, bias)),
            _ => None,
        };
        let matrices = [(call.matrix, call.bias), gate.unwrap_or((call.matrix, None))];
        let mut tiles: [Tile<M>; 2] = [[[0.0; PANEL]; M]; 2];
        // A loop rather than two calls: a format's products are compiled once for both.
        let mut i = 0;
        while i < 1 + usize::from(gate.is_some()) {
            let (matrix, bias) = matrices[i];
            products::<S, F, M>(matrix, bias, call, panel, &from, &mut tiles[i]);
            i += 1;
        }
        let [tile, gate] = tiles;
        for t in 0..M {
            for part in (0..PANEL).step_by(S::LANES) {
                let (y, gate) = (S::load(tile[t].as_ptr().add(part)), gate[t].as_ptr().add(part));
                finish::<S>(call, to[t], panel * PANEL + part, y, gate);
            }
        }
    }
}

/// Writes the results `y` of the lanes from output `at` on for row `to`; of a gated layer, with the gate's results.
#[inline(always)]
pub(super) unsafe fn finish<S: Isa>(call: &LinearCall, to: usize, at: usize, y: S::V, gate: *const f32) {
    // SAFETY: see `Entry`. Strides are whole panels.
    unsafe {
        let y = match call.epilogue {
            Epilogue::Store => y,
            Epilogue::Add(x) => S::add(S::load(x.base.add(to * x.stride + at)), y),
            Epilogue::Gate { activation, .. } => S::mul(unary::<S>(activation, S::load(gate)), y),
            Epilogue::Map(activation) => unary::<S>(activation, y),
        };
        S::store(call.out.base.add(to * call.out.stride + at), y);
    }
}
