//! Running one step: each thread's share of each kind of step.

use std::ops::Range;

use wushi_graph::{Batch, CacheType, Lookup};

use crate::activations::{Activations, Packing};
use crate::batch::StepData;
use crate::given::AttendWork;
use crate::kernels::{
    AttentionCall, Bias, CombineCall, Epilogue, Kernels, LinearCall, MapCall, Norm, NormCall, Output,
    PackCall, Pages, RopeCall, RouteCall, RowSet, WriteCall, ZipCall,
};
use crate::memory::SharedBytes;
use crate::model::Weights;
use crate::program::{BufferId, Kind, NormKind, Part, Program, Rows, Step, Then};
use crate::rope_table::Turns;
use crate::score_table::ScoreTable;
use crate::scratch::Scratch;
use crate::simd::PANEL;

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

    fn activations(&self, id: BufferId) -> Activations {
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

    fn pages(&self, layer: usize) -> Pages {
        let stride = self.program.layers[layer].heads.page_bytes(self.cache_type);
        Pages { base: self.cache[layer].as_ptr(), stride }
    }

    /// A thread's share of a step.
    ///
    /// # Safety
    /// Every thread runs the steps in order, waiting for all others where a step says `barrier`.
    pub(crate) unsafe fn run(&self, step: &Step, thread: usize) {
        let rows = self.rows(step.rows);
        let share = rows * thread / self.threads..rows * (thread + 1) / self.threads;
        // SAFETY: the schedule's partition; shapes were checked when the graph was built.
        unsafe {
            match &step.kind {
                Kind::Linear { parts, ranges } => {
                    for (part, panels) in parts.iter().zip(&ranges[thread]) {
                        self.linear(part, panels.clone(), RowSet::First(rows), 0);
                    }
                }
                Kind::ExpertLinear { part, routes, routing, share, ranges } => {
                    let lists = &mut (*self.scratch.add(thread)).experts;
                    lists.fill(self.f32(*routes), routing, self.batch.tokens.len());
                    for (expert, slots) in lists.iter() {
                        let first_panel = expert * part.outputs.div_ceil(PANEL);
                        let rows =
                            RowSet::Listed { slots: slots.as_ptr(), count: slots.len(), share: *share };
                        self.linear(part, ranges[thread].clone(), rows, first_panel);
                    }
                }
                Kind::Attention { layer, q, out } => self.attention(*layer, *q, *out, thread),
                Kind::Filters { weight, sizes, out } => self.filters(*weight, *sizes, *out, share),
                Kind::Conv(conv) if conv.filters.is_some() => self.filter(conv, share, thread),
                Kind::Conv(conv) => self.convolve(conv, share, thread),
                Kind::Unfold { x, input, unfold, out } => self.unfold(*x, *input, unfold, *out, share),
                Kind::Attend { attend, q, pages, out } => self.attend(*attend, *q, *pages, *out, thread),
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

    unsafe fn linear(&self, part: &Part, panels: Range<usize>, rows: RowSet, first_panel: usize) {
        let bias = |id: Option<_>| id.map(|id| self.weights.vector(id).as_ptr());
        let call = LinearCall {
            matrix: self.weights.matrix(part.weight),
            bias: bias(part.bias),
            panels,
            x: self.activations(part.x),
            rows,
            segment: None,
            first_panel,
            out: self.f32(part.out),
            epilogue: match part.then {
                Then::Store => Epilogue::Store,
                Then::Add(residual) => Epilogue::Add(self.f32(residual)),
                Then::Gate { weight, bias: gate_bias, activation } => {
                    Epilogue::Gate { matrix: self.weights.matrix(weight), bias: bias(gate_bias), activation }
                }
                Then::Map(op) => Epilogue::Map(op),
            },
        };
        // SAFETY: as `run`.
        unsafe { self.kernels.linear(part.dtype)(&call) }
    }

    unsafe fn attention(&self, layer: usize, q: BufferId, out: BufferId, thread: usize) {
        let layer_info = self.program.layers[layer];
        let items = self.data.attention_items(layer_info.kind, thread);
        let (q, out) = (self.f32(q), self.f32(out));
        let call = AttentionCall {
            heads: layer_info.heads,
            pages: self.pages(layer),
            tables: self.batch.pages.as_ptr(),
            bias: self.score_bias(layer_info.bias),
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

    pub(crate) fn score_bias(&self, bias: Option<usize>) -> Option<Bias> {
        bias.map(|place| self.biases[place].bias())
    }

    unsafe fn row_local(&self, kind: &Kind, rows: Range<usize>) {
        // SAFETY: as `run`; this thread alone touches these rows.
        unsafe {
            match *kind {
                Kind::RopeTable { rope, out } => {
                    let (width, rows_of, out) =
                        (self.program.buffer(out).width, self.program.buffer(out).rows, self.f32(out));
                    for row in rows {
                        let table = std::slice::from_raw_parts_mut(out.base.add(row * out.stride), width);
                        // On a grid, rows are places.
                        let position =
                            if rows_of == Rows::Tokens { self.data.place(row).position } else { row };
                        self.turns[rope].fill(position, table);
                    }
                }
                Kind::Embed { table, lookup, out } => {
                    let (matrix, out) = (self.weights.matrix(table), self.f32(out));
                    for row in rows {
                        let x = std::slice::from_raw_parts_mut(out.base.add(row * out.stride), matrix.inputs);
                        let entry = match lookup {
                            Lookup::Token => self.batch.tokens[row] as usize,
                            Lookup::Position => self.data.place(row).position,
                            Lookup::Row(entry) => entry,
                        };
                        matrix.unpack_row(entry, x);
                    }
                }
                Kind::Norm { x, norm, group, eps, out } => {
                    let vector = |id| self.weights.vector(id).as_ptr();
                    let (norm, weight) = match norm {
                        NormKind::Rms(weight) => (Norm::Rms, vector(weight)),
                        NormKind::Layer(Some([weight, bias])) => {
                            (Norm::Layer { bias: vector(bias) }, vector(weight))
                        }
                        NormKind::Layer(None) => {
                            let [ones, zeros] = self.weights.plain();
                            (Norm::Layer { bias: zeros.as_ptr() }, ones.as_ptr())
                        }
                    };
                    let (width, x, out) = (self.program.buffer(x).width, self.f32(x), self.f32(out));
                    let call = NormCall {
                        norm,
                        x: x.base,
                        stride: x.stride,
                        out: out.base,
                        width,
                        group,
                        weight,
                        eps,
                        rows,
                    };
                    (self.kernels.norm)(&call);
                }
                Kind::Route { scores, routing, out } => {
                    let (scores, out) = (self.f32(scores), self.f32(out));
                    (self.kernels.route)(&RouteCall {
                        routing,
                        scores: scores.base,
                        stride: scores.stride,
                        out: out.base,
                        out_stride: out.stride,
                        rows,
                    });
                }
                Kind::Combine { y, routes, used, out } => {
                    let (y, routes, out) = (self.f32(y), self.f32(routes), self.f32(out));
                    (self.kernels.combine)(&CombineCall {
                        used,
                        y: y.base,
                        stride: y.stride,
                        routes: routes.base,
                        routes_stride: routes.stride,
                        out: out.base,
                        rows,
                    });
                }
                Kind::Pack { x, out } => {
                    let x = self.f32(x);
                    let call = PackCall { x: x.base, stride: x.stride, rows, out: self.activations(out) };
                    (self.kernels.pack)(&call);
                }
                Kind::Map { op, x, out } => {
                    let (x, out) = (self.f32(x), self.f32(out));
                    let range = rows.start * x.stride..rows.end * x.stride;
                    (self.kernels.map)(&MapCall { op, x: x.base, out: out.base, range });
                }
                Kind::Zip { op, a, b, out } => {
                    let (a, b, out) = (self.f32(a), self.f32(b), self.f32(out));
                    let range = rows.start * a.stride..rows.end * a.stride;
                    (self.kernels.zip)(&ZipCall { op, a: a.base, b: b.base, out: out.base, range });
                }
                Kind::Rope { rope, table, x } => {
                    let (width, x, table) = (self.program.buffer(x).width, self.f32(x), self.f32(table));
                    let kind = &self.program.ropes[rope];
                    for row in rows {
                        (self.kernels.rope)(&RopeCall {
                            x: x.base.add(row * x.stride),
                            heads: 0..width / kind.head().0,
                            head: kind.head(),
                            pairs: kind.pairs(),
                            table: table.base.add(row * table.stride),
                        });
                    }
                }
                Kind::Copy { x, out } => {
                    let (x, out) = (self.f32(x), self.f32(out));
                    let (at, n) = (rows.start * x.stride, rows.len() * x.stride);
                    std::ptr::copy_nonoverlapping(x.base.add(at), out.base.add(at), n);
                }
                Kind::Cache { layer, k, v } => {
                    let (heads, k, v) = (self.program.layers[layer].heads, self.f32(k), self.f32(v));
                    for row in rows {
                        let place = self.data.place(row);
                        (self.kernels.write_cache(self.cache_type))(&WriteCall {
                            heads,
                            pages: self.pages(layer),
                            page: place.page,
                            slot: place.slot,
                            k: k.base.add(row * k.stride),
                            v: v.base.add(row * v.stride),
                            range: 0..heads.attention.kv_heads,
                        });
                    }
                }
                Kind::Rows { x, out } => {
                    let (x, out) = (self.f32(x), self.f32(out));
                    let Batch { logit_rows, state_rows, .. } = self.batch;
                    for row in rows {
                        let wanted =
                            logit_rows.get(row).unwrap_or_else(|| &state_rows[row - logit_rows.len()]);
                        let from = x.base.add(wanted * x.stride);
                        std::ptr::copy_nonoverlapping(from, out.base.add(row * out.stride), x.stride);
                    }
                }
                _ => unreachable!("run by other functions"),
            }
        }
    }
}
