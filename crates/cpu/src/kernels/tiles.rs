//! Linear layers of many rows by AMX's tiles: a panel's weights of one segment are unpacked once for a block of rows, whose
//! totals wait until the last segment. The order of every sum is the other kernel's.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::linear::{self, Epilogue, LinearCall, RowSet, Tile};
use crate::simd::{Avx512, Isa, PANEL};
use crate::weights::{SEGMENT, TILE_ROWS, Tiled};

type Simd = Avx512<false>;

/// The most rows that are computed before the next panel is looked at: unpacking a panel is shared by them.
const ROW_BLOCK: usize = 512;

/// Bytes of activations that stay in the second-level cache.
const NEAR: usize = 1 << 20;

/// Results of a block of rows, known by pointers alone.
#[repr(align(64))]
struct Totals(#[expect(dead_code, reason = "read by pointers")] Tile<ROW_BLOCK>);

/// The entry: whole tiles here, what is left by the kernel for any rows.
pub(super) unsafe fn run<F: Tiled>(call: &LinearCall) {
    let rows = call.rows.len();
    // Between one tile and two, what is left costs what the one tile saved.
    let enough = rows == TILE_ROWS || rows >= 2 * TILE_ROWS;
    // SAFETY: see `Entry`.
    unsafe {
        match call.rows {
            RowSet::First(_) if enough => Simd::run(
                #[inline(always)]
                || tiles::<F>(call, rows / TILE_ROWS * TILE_ROWS, rows),
            ),
            // Too few, or an expert's: those lie anywhere, a tile's evenly.
            _ => linear::enter::<Simd, F>(call),
        }
    }
}

/// The first `whole` rows of `rows` by tiles; the others of each panel while it is in a cache.
#[inline(always)]
unsafe fn tiles<F: Tiled>(call: &LinearCall, whole: usize, rows: usize) {
    let slots: [u32; TILE_ROWS] = std::array::from_fn(|t| (whole + t) as u32);
    let left = RowSet::Listed { slots: slots.as_ptr(), count: rows - whole, share: 1 };
    let mut left = LinearCall { rows: left, ..call.clone() };
    // SAFETY: see `Entry`.
    unsafe {
        let tiles = F::configure();
        let inputs = (*call.matrix).inputs;
        let matrices = match call.epilogue {
            Epilogue::Gate { matrix, .. } => [Some(call.matrix), Some(matrix)],
            _ => [Some(call.matrix), None],
        };
        // Written before they are read.
        let mut totals = [const { MaybeUninit::<Totals>::uninit() }; 2];
        let totals = [0, 1].map(|i| totals[i].as_mut_ptr().cast::<f32>());
        let mut segment = MaybeUninit::<F::Segment>::uninit();
        let segment = segment.as_mut_ptr();
        let block = (NEAR / inputs).clamp(4 * TILE_ROWS, ROW_BLOCK) / (2 * TILE_ROWS) * (2 * TILE_ROWS);
        for first in (0..whole).step_by(block) {
            let block = first..(first + block).min(whole);
            for panel in call.panels.clone() {
                for (matrix, totals) in matrices.into_iter().flatten().zip(totals) {
                    for from in (0..inputs).step_by(SEGMENT) {
                        let inputs = from..(from + SEGMENT).min(inputs);
                        F::unpack(&*matrix, call.first_panel + panel, &inputs, segment);
                        F::multiply(&tiles, segment, &call.x, block.clone(), &inputs, totals);
                    }
                }
                finish(call, panel, block.clone(), totals);
                if first == 0 && whole < rows {
                    left.panels = panel..panel + 1;
                    linear::enter::<Simd, F>(&left);
                }
            }
        }
    }
}

/// What follows the products: compiled once for all formats.
#[inline(never)]
unsafe fn finish(call: &LinearCall, panel: usize, rows: Range<usize>, totals: [*mut f32; 2]) {
    // SAFETY: see `Entry`.
    unsafe {
        Simd::run(
            #[inline(always)]
            || finish_rows(call, panel, rows, totals),
        )
    }
}

#[inline(always)]
unsafe fn finish_rows(call: &LinearCall, panel: usize, rows: Range<usize>, totals: [*mut f32; 2]) {
    let gate_bias = match call.epilogue {
        Epilogue::Gate { bias, .. } => bias,
        _ => None,
    };
    // SAFETY: see `Entry`; there are totals of all the rows, and of the gate if there is one.
    unsafe {
        for (totals, bias) in totals.into_iter().zip([call.bias, gate_bias]) {
            let Some(bias) = bias else { continue };
            let bias = Simd::load(bias.add(panel * PANEL));
            for row in 0..rows.len() {
                let total = totals.add(row * PANEL);
                Simd::store(total, Simd::add(Simd::load(total), bias));
            }
        }
        let [y, gate] = totals;
        for (i, row) in rows.enumerate() {
            let (y, gate) = (Simd::load(y.add(i * PANEL)), gate.add(i * PANEL));
            linear::finish::<Simd>(call, row, panel * PANEL, y, gate);
        }
    }
}
