//! Running one step: each thread's share of each kind of step.

use std::ops::Range;

use wushi_graph::{Batch, CacheType, PageId};

use crate::activations::{Activations, Packing};
use crate::batch::StepData;
use crate::given::AttendWork;
use crate::kernels::{
    AttentionCall, AttentionItem, Epilogue, Heads, Kernels, LinearCall, Output, Pages, RowSet,
};
use crate::memory::SharedBytes;
use crate::model::Weights;
use crate::program::{BufferId, Convolution, Kind, Part, Program, Rows, Step, Then};
use crate::rope_table::Turns;
use crate::run::Piece;
use crate::score_table::ScoreTable;
use crate::scratch::Scratch;
use crate::simd::PANEL;

/// Rows of a linear layer that are not cut apart: unpacking a panel of weights is shared by so many.
const PIECE_ROWS: usize = 512;

/// Panels of a convolution's outputs that are not cut apart.
const PIECE_PANELS: usize = 8;

/// The fewest items of a convolution's block.
const LEAST_BLOCK: usize = 15;

/// All a step needs.
pub(crate) struct Context<'a> {
    pub(crate) program: &'a Program,
    pub(crate) batch: &'a Batch,
    pub(crate) data: &'a StepData,
    pub(crate) weights: &'a Weights,
    pub(crate) kernels: &'static Kernels,
    /// By rope kind.
    pub(crate) turns: &'a [Turns],
    /// By kind of bias.
    pub(crate) biases: &'a [ScoreTable],
    /// By place in [`Program::carried`].
    pub(crate) carried: &'a [&'a SharedBytes],
    /// By place in [`Program::attends`].
    pub(crate) attends: &'a [AttendWork],
    pub(crate) arena: &'a SharedBytes,
    pub(crate) cache: &'a [SharedBytes],
    pub(crate) cache_type: CacheType,
    /// One per thread.
    pub(crate) scratch: *mut Scratch,
    pub(crate) threads: usize,
}

// SAFETY: threads share the arena, the pages and the scratch by the schedule's partition.
unsafe impl Sync for Context<'_> {}

/// The first rows of a value that is not read again, without padding.
///
/// # Safety
/// No thread is running; the rows were written, and this is called once for them.
pub(crate) unsafe fn packed_rows<'a>(
    program: &Program,
    arena: &'a SharedBytes,
    id: BufferId,
    rows: usize,
) -> &'a [f32] {
    let buffer = program.buffer(id);
    // SAFETY: the buffer lies in the arena; rows are moved towards its start, first to last.
    unsafe {
        let base = arena.as_ptr().add(buffer.offset).cast::<f32>();
        if buffer.stride() != buffer.width {
            for row in 1..rows {
                std::ptr::copy(base.add(row * buffer.stride()), base.add(row * buffer.width), buffer.width);
            }
        }
        std::slice::from_raw_parts(base, rows * buffer.width)
    }
}

/// Keys and values that an attention layer looks at.
pub(crate) struct Keys<'a> {
    pub(crate) heads: Heads,
    pub(crate) pages: Pages,
    /// Pages in their order, for each sequence.
    pub(crate) tables: &'a [PageId],
    /// Index into [`Program::biases`].
    pub(crate) bias: Option<usize>,
}

/// Into how many pieces something of so many blocks is cut, if it shall be about `wanted`: whole blocks while they are enough,
/// then columns of every block, at most so many.
fn cut(wanted: usize, blocks: usize, columns: usize) -> usize {
    match wanted <= blocks {
        true => wanted.max(1),
        false => blocks * wanted.div_ceil(blocks).min(columns.max(1)),
    }
}

/// The blocks of such a piece, and which piece of their columns it is.
fn blocks_of(piece: Piece, blocks: usize) -> (Range<usize>, Piece) {
    if piece.of <= blocks {
        return (piece.part(0..blocks), Piece::WHOLE);
    }
    debug_assert_eq!(piece.of % blocks, 0, "as `cut` has it");
    let of = piece.of / blocks;
    let block = piece.index / of;
    (block..block + 1, Piece { index: piece.index % of, of })
}

/// Some blocks of a range, each of `size` but for the last.
fn spread(blocks: Range<usize>, size: usize, range: &Range<usize>) -> Range<usize> {
    let cut = |block: usize| (range.start + block * size).min(range.end);
    cut(blocks.start)..cut(blocks.end)
}

impl Context<'_> {
    fn rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.batch.tokens.len(),
            Rows::Slots(used) => self.batch.tokens.len() * used,
            Rows::Picked => self.batch.logit_rows.len() + self.batch.state_rows.len(),
            Rows::Logits => self.batch.logit_rows.len(),
            Rows::Fixed(rows) => rows,
        }
    }

    pub(crate) fn f32(&self, id: BufferId) -> Output {
        let buffer = self.program.buffer(id);
        debug_assert_eq!(buffer.packing, Packing::F32);
        // SAFETY: the buffer lies in the arena.
        let base = unsafe { self.arena.as_ptr().add(buffer.offset).cast() };
        Output { base, stride: buffer.stride() }
    }

    pub(crate) fn activations(&self, id: BufferId) -> Activations {
        let buffer = self.program.buffer(id);
        // SAFETY: the buffer lies in the arena and has room for its capacity.
        unsafe {
            let base = self.arena.as_ptr().add(buffer.offset);
            match buffer.packing {
                Packing::F32 => Activations::f32(base.cast(), buffer.width, buffer.stride()),
                packing => Activations::packed(packing, base, buffer.width, buffer.capacity),
            }
        }
    }

    pub(crate) fn pages(&self, layer: usize) -> Pages {
        let stride = self.program.layers[layer].heads.page_bytes(self.cache_type);
        Pages { base: self.cache[layer].as_ptr(), stride }
    }

    /// Into how many pieces a step can well be cut, if it shall be about so many.
    pub(crate) fn pieces(&self, step: &Step, wanted: usize) -> usize {
        let rows = self.rows(step.rows);
        match &step.kind {
            Kind::Linear { .. } => cut(wanted, rows.div_ceil(PIECE_ROWS).max(1), usize::MAX),
            Kind::ExpertLinear { .. } => 1,
            Kind::Conv(conv) => cut(wanted, self.conv_blocks(conv, rows, wanted).1, self.conv_columns(conv)),
            _ => wanted.max(1),
        }
    }

    /// Items of a block of every thread's share of a convolution, and how many blocks these are, so that there can be `wanted`
    /// pieces: weights are read once for a block, which has fewer items only where the pieces would be long otherwise.
    fn conv_blocks(&self, conv: &Convolution, items: usize, wanted: usize) -> (usize, usize) {
        let share = items.div_ceil(self.threads);
        let (columns, mut size) = (self.conv_columns(conv), conv.together());
        while share.div_ceil(size) * columns < wanted && size >= 2 * LEAST_BLOCK {
            size /= 2;
        }
        (size, share.div_ceil(size).max(1))
    }

    /// Into how many pieces a block's columns may be cut; what they have in common is computed for each of them.
    fn conv_columns(&self, conv: &Convolution) -> usize {
        if conv.filters.is_some() { (conv.panels() / PIECE_PANELS).max(1) } else { 1 }
    }

    /// A piece of a thread's share of a step; `piece.of` is 1 or what [`Context::pieces`] gave.
    ///
    /// # Safety
    /// Every thread runs the pieces of all steps in order, waiting for all others before the first piece of a step that
    /// says `barrier`.
    pub(crate) unsafe fn run(&self, step: &Step, thread: usize, piece: Piece) {
        let rows = self.rows(step.rows);
        let whole = rows * thread / self.threads..rows * (thread + 1) / self.threads;
        let share = piece.part(whole.clone());
        // SAFETY: the schedule's partition; shapes were checked when the graph was built.
        unsafe {
            match &step.kind {
                Kind::Linear { parts, ranges } => {
                    let (taken, columns) = blocks_of(piece, rows.div_ceil(PIECE_ROWS).max(1));
                    let rows = spread(taken, PIECE_ROWS, &(0..rows));
                    for (part, panels) in parts.iter().zip(&ranges[thread]) {
                        self.linear(part, columns.part(panels.clone()), rows.clone());
                    }
                }
                Kind::ExpertLinear { part, routes, routing, share, ranges } => {
                    let lists = &mut (*self.scratch.add(thread)).experts;
                    lists.fill(self.f32(*routes), routing, self.batch.tokens.len());
                    for (expert, slots) in lists.iter() {
                        let rows =
                            RowSet::Listed { slots: slots.as_ptr(), count: slots.len(), share: *share };
                        let call = LinearCall {
                            panels: ranges[thread].clone(),
                            first_panel: expert * part.outputs.div_ceil(PANEL),
                            ..self.linear_call(part, rows)
                        };
                        self.kernels.linear(part.dtype)(&call);
                    }
                }
                Kind::Attention { layer: place, q, out } => {
                    let layer = self.program.layers[*place];
                    let items = self.data.attention_items(layer.kind, thread);
                    let items = &items[piece.part(0..items.len())];
                    let (pages, tables) = (self.pages(*place), self.batch.pages.as_slice());
                    let keys = Keys { heads: layer.heads, pages, tables, bias: layer.bias };
                    self.attention(keys, *q, *out, items, thread);
                }
                Kind::Filters { weight, sizes, out } => self.filters(*weight, *sizes, *out, share),
                Kind::Conv(conv) => {
                    let (size, blocks) = self.conv_blocks(conv, rows, piece.of);
                    let (taken, columns) = blocks_of(piece, blocks);
                    let items = spread(taken, size, &whole);
                    match conv.filters {
                        Some(_) => self.filter(conv, items, columns.part(0..conv.panels()), thread),
                        None => self.convolve(conv, items, thread),
                    }
                }
                Kind::Unfold { x, input, unfold, out } => self.unfold(*x, *input, unfold, *out, share),
                Kind::Attend { attend, q, pages, out } => {
                    self.attend(*attend, *q, *pages, *out, thread, piece)
                }
                Kind::Parameter { .. }
                | Kind::Columns { .. }
                | Kind::MulAdd { .. }
                | Kind::TimestepEmbed { .. }
                | Kind::Carry { .. }
                | Kind::Keep { .. } => self.given(&step.kind, share),
                _ => self.row_local(&step.kind, share),
            }
        }
    }

    /// Some panels of some rows.
    unsafe fn linear(&self, part: &Part, panels: Range<usize>, rows: Range<usize>) {
        let whole = self.linear_call(part, RowSet::First(rows.len()));
        // SAFETY: as `run`; the rows exist.
        let from = |x: Output| unsafe { Output { base: x.base.add(rows.start * x.stride), ..x } };
        let call = LinearCall {
            panels,
            x: whole.x.starting_at(rows.start),
            out: from(whole.out),
            epilogue: match whole.epilogue {
                Epilogue::Add(residual) => Epilogue::Add(from(residual)),
                other => other,
            },
            ..whole
        };
        // SAFETY: as `run`.
        unsafe { self.kernels.linear(part.dtype)(&call) }
    }

    /// All of a part for some rows.
    fn linear_call(&self, part: &Part, rows: RowSet) -> LinearCall {
        let bias = |id: Option<_>| id.map(|id| self.weights.vector(id).as_ptr());
        let matrix = self.weights.matrix(part.weight);
        LinearCall {
            matrix,
            bias: bias(part.bias),
            panels: 0..matrix.panels(),
            x: self.activations(part.x),
            rows,
            segment: None,
            first_panel: 0,
            out: self.f32(part.out),
            epilogue: match part.then {
                Then::Store => Epilogue::Store,
                Then::Add(residual) => Epilogue::Add(self.f32(residual)),
                Then::Gate { weight, bias: gate_bias, activation } => {
                    Epilogue::Gate { matrix: self.weights.matrix(weight), bias: bias(gate_bias), activation }
                }
                Then::Map(op) => Epilogue::Map(op),
            },
        }
    }

    /// Some items of an attention layer.
    ///
    /// # Safety
    /// As [`Context::run`].
    pub(crate) unsafe fn attention(
        &self,
        keys: Keys<'_>,
        q: BufferId,
        out: BufferId,
        items: &[AttentionItem],
        thread: usize,
    ) {
        let (q, out) = (self.f32(q), self.f32(out));
        let call = AttentionCall {
            heads: keys.heads,
            pages: keys.pages,
            tables: keys.tables.as_ptr(),
            bias: keys.bias.map(|place| self.biases[place].bias()),
            q: q.base,
            out: out.base,
            stride: q.stride,
            items: items.as_ptr(),
            count: items.len(),
            // SAFETY: one per thread.
            scratch: unsafe { &raw mut (*self.scratch.add(thread)).attention },
        };
        // SAFETY: as `run`.
        unsafe { self.kernels.attention(self.cache_type)(&call) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_block_and_column_once() {
        for (length, size, columns, wanted) in [
            (0usize, 7, 3, 4),
            (100, 7, 3, 1),
            (100, 7, 3, 9),
            (100, 7, 64, 200),
            (5, 512, 20, 6),
            (60, 60, 1, 9),
        ] {
            let range = 10..10 + length;
            let blocks = length.div_ceil(size).max(1);
            let of = cut(wanted, blocks, columns);
            let mut seen = vec![0; length * columns];
            for index in 0..of {
                let (taken, part) = blocks_of(Piece { index, of }, blocks);
                for item in spread(taken, size, &range) {
                    part.part(0..columns).for_each(|column| seen[(item - 10) * columns + column] += 1);
                }
            }
            assert!(
                seen.iter().all(|&count| count == 1),
                "{length} by {size}, {columns}, {wanted}: {seen:?}"
            );
        }
    }
}
