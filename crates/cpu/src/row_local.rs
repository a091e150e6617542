//! Running steps in which a row depends on the same row of what is read only.

use std::ops::Range;

use wushi_graph::{Batch, Lookup, WeightId};

use crate::kernels::{
    CombineCall, MapCall, Norm, NormCall, PackCall, RopeCall, RouteCall, WriteCall, ZipCall,
};
use crate::program::{BufferId, Kind, NormKind, Rows};
use crate::step::Context;

impl Context<'_> {
    /// Some rows of a step.
    ///
    /// # Safety
    /// As [`Context::run`]; this thread alone touches these rows.
    pub(crate) unsafe fn row_local(&self, kind: &Kind, rows: Range<usize>) {
        // SAFETY: the caller's.
        unsafe {
            match *kind {
                Kind::RopeTable { rope, out } => self.rope_table(rope, out, rows),
                Kind::Embed { table, lookup, out } => self.embed(table, lookup, out, rows),
                Kind::Norm { x, norm, group, eps, out } => self.norm(x, norm, (group, eps), out, rows),
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
                Kind::Rope { rope, table, x } => self.rope(rope, table, x, rows),
                Kind::Copy { x, out } => {
                    let (x, out) = (self.f32(x), self.f32(out));
                    let (at, n) = (rows.start * x.stride, rows.len() * x.stride);
                    std::ptr::copy_nonoverlapping(x.base.add(at), out.base.add(at), n);
                }
                Kind::Cache { layer, k, v } => self.write_cache(layer, k, v, rows),
                Kind::Rows { x, out } => self.gather(x, out, rows),
                _ => unreachable!("run by other functions"),
            }
        }
    }

    unsafe fn rope_table(&self, rope: usize, out: BufferId, rows: Range<usize>) {
        let (width, rows_of, out) =
            (self.program.buffer(out).width, self.program.buffer(out).rows, self.f32(out));
        for row in rows {
            // SAFETY: as `row_local`.
            let table = unsafe { std::slice::from_raw_parts_mut(out.base.add(row * out.stride), width) };
            // On a grid, rows are places.
            let position = if rows_of == Rows::Tokens { self.data.place(row).position } else { row };
            self.turns[rope].fill(position, table);
        }
    }

    unsafe fn embed(&self, table: WeightId, lookup: Lookup, out: BufferId, rows: Range<usize>) {
        let (matrix, out) = (self.weights.matrix(table), self.f32(out));
        for row in rows {
            // SAFETY: as `row_local`.
            let x = unsafe { std::slice::from_raw_parts_mut(out.base.add(row * out.stride), matrix.inputs) };
            let entry = match lookup {
                Lookup::Token => self.batch.tokens[row] as usize,
                Lookup::Position => self.data.place(row).position,
                Lookup::Row(entry) => entry,
            };
            matrix.unpack_row(entry, x);
        }
    }

    unsafe fn norm(
        &self,
        x: BufferId,
        norm: NormKind,
        (group, eps): (usize, f32),
        out: BufferId,
        rows: Range<usize>,
    ) {
        let vector = |id| self.weights.vector(id).as_ptr();
        let (norm, weight) = match norm {
            NormKind::Rms(weight) => (Norm::Rms, vector(weight)),
            NormKind::Layer(Some([weight, bias])) => (Norm::Layer { bias: vector(bias) }, vector(weight)),
            NormKind::Layer(None) => {
                let [ones, zeros] = self.weights.plain();
                (Norm::Layer { bias: zeros.as_ptr() }, ones.as_ptr())
            }
        };
        let (width, x, out) = (self.program.buffer(x).width, self.f32(x), self.f32(out));
        let (stride, x, out) = (x.stride, x.base, out.base);
        // SAFETY: as `row_local`.
        unsafe { (self.kernels.norm)(&NormCall { norm, x, stride, out, width, group, weight, eps, rows }) };
    }

    unsafe fn rope(&self, rope: usize, table: BufferId, x: BufferId, rows: Range<usize>) {
        let (width, x, table) = (self.program.buffer(x).width, self.f32(x), self.f32(table));
        let kind = &self.program.ropes[rope];
        for row in rows {
            // SAFETY: as `row_local`.
            unsafe {
                (self.kernels.rope)(&RopeCall {
                    x: x.base.add(row * x.stride),
                    heads: 0..width / kind.head().0,
                    head: kind.head(),
                    pairs: kind.pairs(),
                    table: table.base.add(row * table.stride),
                });
            }
        }
    }

    unsafe fn write_cache(&self, layer: usize, k: BufferId, v: BufferId, rows: Range<usize>) {
        let (heads, k, v) = (self.program.layers[layer].heads, self.f32(k), self.f32(v));
        for row in rows {
            let place = self.data.place(row);
            // SAFETY: as `row_local`.
            unsafe {
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
    }

    unsafe fn gather(&self, x: BufferId, out: BufferId, rows: Range<usize>) {
        let (x, out) = (self.f32(x), self.f32(out));
        let Batch { logit_rows, state_rows, .. } = self.batch;
        for row in rows {
            let wanted = logit_rows.get(row).unwrap_or_else(|| &state_rows[row - logit_rows.len()]);
            // SAFETY: as `row_local`.
            unsafe {
                let from = x.base.add(wanted * x.stride);
                std::ptr::copy_nonoverlapping(from, out.base.add(row * out.stride), x.stride);
            }
        }
    }
}
