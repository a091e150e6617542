//! Running what belongs to graphs over given values.

use std::ops::Range;

use wushi_graph::{PageId, Unfold, WeightId};

use crate::kernels::{
    AttentionItem, Epilogue, FilteredCall, Filtering, FiltersCall, Frames, LinearCall, MulAddCall, Output,
    PAGE_TOKENS, Pages, PatchCall, RowSet, TILE, WriteCall,
};
use crate::program::{Attend, BufferId, Convolution, Kind, Rows, Then};
use crate::run::Piece;
use crate::step::{Context, Keys};
use crate::weights::{SEGMENT, packing_of};

/// Who computes what of an attention layer, fixed when it is compiled.
pub(crate) struct AttendWork {
    items: Vec<AttentionItem>,
    /// Where each thread's items end.
    ends: Vec<usize>,
    /// Pages in their order: the one table.
    table: Vec<PageId>,
}

impl AttendWork {
    pub(crate) fn new(attend: &Attend, threads: usize) -> Self {
        let attention = attend.heads.attention;
        let (queries, pages) = (attend.queries, attend.pages());
        let tile = (TILE / (attention.heads / attention.kv_heads)).max(1);
        let mut items = Vec::new();
        for sequence in 0..attention.sequences {
            for kv_head in 0..attention.kv_heads {
                for row in (0..queries).step_by(tile) {
                    items.push(AttentionItem {
                        row: sequence * queries + row,
                        rows: tile.min(queries - row),
                        position: row,
                        length: attend.keys,
                        table: sequence * pages,
                        kv_head,
                    });
                }
            }
        }
        let ends = (1..=threads).map(|thread| items.len() * thread / threads).collect();
        AttendWork { items, ends, table: (0..(pages * attention.sequences) as PageId).collect() }
    }

    fn of(&self, thread: usize) -> &[AttentionItem] {
        let from = if thread == 0 { 0 } else { self.ends[thread - 1] };
        &self.items[from..self.ends[thread]]
    }
}

impl Context<'_> {
    fn kept(&self, attend: usize, pages: BufferId) -> Pages {
        let buffer = self.program.buffer(pages);
        debug_assert_eq!(buffer.width, self.program.attends[attend].heads.page_bytes(self.cache_type));
        // SAFETY: the buffer lies in the arena.
        Pages { base: unsafe { self.arena.as_ptr().add(buffer.offset) }, stride: buffer.width }
    }

    /// Memory that holds no value of the graph.
    fn bytes(&self, id: BufferId) -> *mut u8 {
        // SAFETY: the buffer lies in the arena.
        unsafe { self.arena.as_ptr().add(self.program.buffer(id).offset) }
    }

    /// A value that may have one row for all: then every row is the same.
    fn for_all(&self, id: BufferId, rows: &Rows) -> Output {
        let value = self.f32(id);
        let one = self.program.buffer(id).rows == Rows::Fixed(1) && *rows != Rows::Fixed(1);
        Output { stride: if one { 0 } else { value.stride }, ..value }
    }

    /// Rows of a row-local step.
    ///
    /// # Safety
    /// As [`Context::run`].
    pub(crate) unsafe fn given(&self, kind: &Kind, rows: Range<usize>) {
        // SAFETY: as `run`; this thread alone touches these rows.
        unsafe {
            match *kind {
                Kind::Parameter { weight, out } => {
                    let (out, width) = (self.f32(out), self.program.buffer(out).width);
                    for _ in rows {
                        std::ptr::copy_nonoverlapping(self.weights.vector(weight).as_ptr(), out.base, width);
                    }
                }
                Kind::Columns { x, first, out } => {
                    let (width, x, out) = (self.program.buffer(out).width, self.f32(x), self.f32(out));
                    for row in rows {
                        let from = x.base.add(row * x.stride + first);
                        std::ptr::copy_nonoverlapping(from, out.base.add(row * out.stride), width);
                    }
                }
                Kind::MulAdd { a, b, c, out } => {
                    let all = &self.program.buffer(out).rows;
                    (self.kernels.mul_add)(&MulAddCall {
                        a: self.f32(a),
                        b: self.for_all(b, all),
                        c: self.for_all(c, all),
                        out: self.f32(out),
                        rows,
                    });
                }
                Kind::TimestepEmbed { x, out } => {
                    let (width, x, out) = (self.program.buffer(out).width, self.f32(x), self.f32(out));
                    for row in rows {
                        let values = std::slice::from_raw_parts_mut(out.base.add(row * out.stride), width);
                        crate::reference::timestep_embed(*x.base.add(row * x.stride), values);
                    }
                }
                Kind::Carry { x, carried, frames } => self.carry(x, carried, frames, rows),
                Kind::Keep { attend, k, v, pages } => {
                    let (pages, k, v) = (self.kept(attend, pages), self.f32(k), self.f32(v));
                    let attend = &self.program.attends[attend];
                    for row in rows {
                        let (sequence, position) = (row / attend.keys, row % attend.keys);
                        (self.kernels.write_cache(self.cache_type))(&WriteCall {
                            heads: attend.heads,
                            pages,
                            page: (sequence * attend.pages() + position / PAGE_TOKENS) as PageId,
                            slot: position % PAGE_TOKENS,
                            k: k.base.add(row * k.stride),
                            v: v.base.add(row * v.stride),
                            range: 0..attend.heads.attention.kv_heads,
                        });
                    }
                }
                _ => unreachable!("run by other functions"),
            }
        }
    }

    /// Moves the last frames of what was carried and `x` to the beginning of what is carried, for some pixels of a frame.
    unsafe fn carry(&self, x: BufferId, carried: usize, frames: usize, pixels: Range<usize>) {
        let [kept, height, width, channels] = self.program.carried[carried].shape;
        let (x, frame) = (self.f32(x), height * width);
        // SAFETY: as `run`; frames are moved forwards, first to last.
        unsafe {
            let base = self.carried[carried].as_ptr().cast::<f32>();
            for pixel in pixels {
                for t in 0..kept {
                    let to = base.add((t * frame + pixel) * channels);
                    let from = match (t + frames).checked_sub(kept) {
                        Some(new) => x.base.add((new * frame + pixel) * x.stride),
                        None => base.add(((t + frames) * frame + pixel) * channels),
                    };
                    std::ptr::copy_nonoverlapping(from, to, channels);
                }
            }
        }
    }

    /// # Safety
    /// As [`Context::run`].
    pub(crate) unsafe fn attend(
        &self,
        attend: usize,
        q: BufferId,
        pages: BufferId,
        out: BufferId,
        thread: usize,
        piece: Piece,
    ) {
        let (work, program) = (&self.attends[attend], &self.program.attends[attend]);
        let items = work.of(thread);
        let items = &items[piece.part(0..items.len())];
        let (pages, tables) = (self.kept(attend, pages), work.table.as_slice());
        let keys = Keys { heads: program.heads, pages, tables, bias: program.bias };
        // SAFETY: as `run`.
        unsafe { self.attention(keys, q, out, items, thread) }
    }

    /// Some output positions of a convolution: of a few patches at a time, a segment of their elements at a time.
    ///
    /// # Safety
    /// As [`Context::run`].
    pub(crate) unsafe fn convolve(&self, conv: &Convolution, positions: Range<usize>, thread: usize) {
        let patch = conv.patch();
        let matrix = self.weights.matrix(conv.weight);
        let before = conv.carried.map(|place| self.carried[place].as_ptr().cast::<f32>().cast_const());
        // SAFETY: as `run`; a thread's scratch is its own and has room for so many rows of a segment.
        unsafe {
            let patches = &mut (*self.scratch.add(thread)).patches;
            for first in positions.clone().step_by(conv.together()) {
                let positions = first..(first + conv.together()).min(positions.end);
                let at = |id| {
                    let value = self.f32(id);
                    Output { base: value.base.add(first * value.stride), ..value }
                };
                for from in (0..patch).step_by(SEGMENT) {
                    let elements = from..(from + SEGMENT).min(patch);
                    let activations =
                        patches.activations(packing_of(conv.dtype, self.kernels.pairs), elements.len());
                    (self.kernels.patches)(&PatchCall {
                        frames: Frames { x: self.f32(conv.x), shape: conv.input, before },
                        conv: conv.conv,
                        output: [conv.output[1], conv.output[2]],
                        positions: positions.clone(),
                        elements: elements.clone(),
                        out: activations,
                        row: patches.f32.as_mut_ptr(),
                        stride: elements.len(),
                    });
                    (self.kernels.linear(conv.dtype))(&LinearCall {
                        matrix,
                        bias: conv.bias.map(|id| self.weights.vector(id).as_ptr()),
                        panels: 0..matrix.panels(),
                        x: activations,
                        rows: RowSet::First(positions.len()),
                        segment: Some(elements),
                        first_panel: 0,
                        out: at(conv.out),
                        epilogue: match conv.then {
                            Then::Add(residual) => Epilogue::Add(at(residual)),
                            _ => Epilogue::Store,
                        },
                    });
                }
            }
        }
    }

    /// Some panels of a convolution's weights.
    ///
    /// # Safety
    /// As [`Context::run`].
    pub(crate) unsafe fn filters(
        &self,
        weight: WeightId,
        sizes: Filtering,
        out: BufferId,
        panels: Range<usize>,
    ) {
        let matrix: *const _ = self.weights.matrix(weight);
        // SAFETY: as `run`; the buffer has room for all panels.
        unsafe {
            (self.kernels.filters)(&FiltersCall { sizes, matrix, panels, out: self.bytes(out).cast() })
        };
    }

    /// Some tiles of a convolution by minimal filtering.
    ///
    /// # Safety
    /// As [`Context::run`].
    pub(crate) unsafe fn filter(&self, conv: &Convolution, tiles: Range<usize>, thread: usize) {
        let before = conv.carried.map(|place| self.carried[place].as_ptr().cast::<f32>().cast_const());
        // SAFETY: as `run`; a thread's scratch is its own and has room for so many tiles.
        unsafe {
            let scratch = &mut (*self.scratch.add(thread)).tiles;
            for first in tiles.clone().step_by(conv.together()) {
                (self.kernels.filtered)(&FilteredCall {
                    sizes: conv.filtering(),
                    frames: Frames { x: self.f32(conv.x), shape: conv.input, before },
                    tiles: first..(first + conv.together()).min(tiles.end),
                    filters: self.bytes(conv.filters.expect("called for minimal filtering")).cast(),
                    bias: conv.bias.map(|id| self.weights.vector(id).as_ptr()),
                    residual: conv.then.residual().map(|id| self.f32(id)),
                    out: self.f32(conv.out),
                    inputs: scratch.inputs.as_mut_ptr(),
                    products: scratch.products.as_mut_ptr(),
                });
            }
        }
    }

    /// Some rows of the result.
    ///
    /// # Safety
    /// As [`Context::run`].
    pub(crate) unsafe fn unfold(
        &self,
        x: BufferId,
        input: [usize; 4],
        unfold: &Unfold,
        out: BufferId,
        rows: Range<usize>,
    ) {
        let [_, height, width, _] = input;
        let Unfold { channels, time, space, strides, repeats, skip } = *unfold;
        let (x, out) = (self.f32(x), self.f32(out));
        let (out_height, out_width) = (height * space, width * space);
        for row in rows {
            let (t, y, at) =
                (row / (out_height * out_width) + skip, row / out_width % out_height, row % out_width);
            let from = (t / time * height + y / space) * width + at / space;
            let first = t % time * strides[1] + y % space * strides[2] + at % space * strides[3];
            for c in 0..channels {
                // SAFETY: as `run`; the channels were checked when the graph was built.
                unsafe {
                    let value = *x.base.add(from * x.stride + (c * strides[0] + first) / repeats);
                    *out.base.add(row * out.stride + c) = value;
                }
            }
        }
    }
}
