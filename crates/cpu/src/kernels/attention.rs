//! Attention over paged keys and values.
//!
//! A page holds [`PAGE_TOKENS`] positions of one layer (see [`cache`](super::cache)): keys so that scores of neighbouring
//! keys are SIMD lanes, values so that a value's elements are. Every sum then runs in sequence per lane: over a head's
//! elements for a score, over keys for an output.

use std::ops::Range;

use wushi_graph::{Attention, CacheType, Mask, PageId};

use super::cache::{BLOCK, Cache, F32Cache, Half};
use super::elementwise::{Unary, unary};
use crate::simd::{self, Isa, PANEL};
use crate::weights::SEGMENT;

/// Positions a page holds; divides [`SEGMENT`] and is whole panels.
pub const PAGE_TOKENS: usize = 32;

/// Query rows of one work item of a batch.
pub(crate) const QUERY_TILE: usize = 8;

/// Queries that every page is read for at once.
pub(crate) const TILE: usize = 32;

/// Queries whose sums are in registers at once.
const QUERIES: usize = 4;

/// Sizes of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Heads {
    pub(crate) attention: Attention,
    /// Elements of a head as stored: whole panels, the rest zero.
    pub(crate) padded: usize,
}

impl Heads {
    pub(crate) fn new(attention: Attention) -> Self {
        Heads { attention, padded: attention.head_dim.next_multiple_of(PANEL) }
    }

    /// Bytes of one head's keys and values in a page.
    fn head_bytes(&self, cache: CacheType) -> usize {
        2 * PAGE_TOKENS * cache.bytes(self.padded)
    }

    /// Bytes of a page of this layer.
    pub(crate) fn page_bytes(&self, cache: CacheType) -> usize {
        self.attention.kv_heads * self.head_bytes(cache)
    }

    /// Positions that the query at `position` sees, of a sequence that has so many by the end of the step.
    pub(crate) fn visible(&self, position: usize, length: usize) -> Range<usize> {
        match self.attention.mask {
            Mask::Full => 0..length,
            Mask::Causal => 0..position + 1,
            Mask::SlidingWindow(n) => (position + 1).saturating_sub(n)..position + 1,
        }
    }
}

/// One layer's pages.
#[derive(Clone, Copy)]
pub(crate) struct Pages {
    pub(crate) base: *mut u8,
    /// Bytes from page to page.
    pub(crate) stride: usize,
}

/// Writes one row's keys and values of some key heads into its page.
pub(crate) struct WriteCall {
    pub(crate) heads: Heads,
    pub(crate) pages: Pages,
    pub(crate) page: PageId,
    pub(crate) slot: usize,
    /// The row's keys and values, `[kv_heads][head_dim]`.
    pub(crate) k: *const f32,
    pub(crate) v: *const f32,
    /// Which key heads.
    pub(crate) range: Range<usize>,
}

#[inline(always)]
pub(super) unsafe fn write<S: Isa, C: Cache>(call: &WriteCall) {
    let Heads { attention, padded } = call.heads;
    let dim = attention.head_dim;
    for head in call.range.clone() {
        // SAFETY: see `Entry`.
        unsafe {
            let page = call.pages.base.add(call.page as usize * call.pages.stride);
            let base = page.add(head * call.heads.head_bytes(C::TYPE));
            let [keys, values] = Half::both::<C>(base, padded);
            let (k, v) = (call.k.add(head * dim), call.v.add(head * dim));
            for i in (0..dim).step_by(BLOCK) {
                let n = (dim - i).min(BLOCK);
                let (rounded, scale) = round_block::<S, C>(k.add(i), n);
                for j in 0..n {
                    let key = keys.key::<C>(i + j, call.slot);
                    std::ptr::copy_nonoverlapping(rounded.as_ptr().add(j * C::BYTES), key, C::BYTES);
                }
                if C::SCALED {
                    *keys.key_scale::<C>(i, call.slot) = scale;
                }
                let (rounded, scale) = round_block::<S, C>(v.add(i), n);
                let value = values.value::<C>(i, call.slot);
                std::ptr::copy_nonoverlapping(rounded.as_ptr(), value, (padded - i).min(BLOCK) * C::BYTES);
                if C::SCALED {
                    *values.value_scale::<C>(i, call.slot) = scale;
                }
            }
        }
    }
}

/// Rounds `n` elements, at most a block, to the cache's type; the rest become zero. Returns the scale's bits as well.
#[inline(always)]
unsafe fn round_block<S: Isa, C: Cache>(x: *const f32, n: usize) -> ([u8; 4 * BLOCK], u16) {
    // SAFETY: see `Entry`.
    unsafe {
        let mut block = [0.0f32; BLOCK];
        std::ptr::copy_nonoverlapping(x, block.as_mut_ptr(), n);
        let mut rounded = [0; 4 * BLOCK];
        let scale = C::round::<S>(&block, &mut rounded);
        (rounded, scale.to_bits())
    }
}

/// Work of one thread: the query heads that share one key head, for some rows of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttentionItem {
    /// First row in the batch.
    pub(crate) row: usize,
    /// At most [`QUERY_TILE`] of a batch, [`TILE`] within a run.
    pub(crate) rows: usize,
    /// Position of the first row.
    pub(crate) position: usize,
    /// Positions the sequence has by the end of the step.
    pub(crate) length: usize,
    /// Where the sequence's page table starts in the batch's.
    pub(crate) table: usize,
    /// The key head.
    pub(crate) kv_head: usize,
}

/// What is added to scores: for a head's query at position `p` and key `j`, `base[head * heads + j - p * queries]`. Readable
/// for a page beyond the last key.
#[derive(Clone, Copy)]
pub(crate) struct Bias {
    pub(crate) base: *const f32,
    pub(crate) heads: usize,
    pub(crate) queries: usize,
}

/// A thread's working memory for attention.
pub(crate) struct AttentionScratch {
    /// `[TILE][SEGMENT]`
    scores: Vec<f32>,
    /// `[TILE][padded]`: queries, then a segment's outputs, then the merged ones.
    queries: Vec<f32>,
    segment: Vec<f32>,
    merged: Vec<f32>,
    /// One head's keys or values of a page in F32, as a page of [`F32Cache`] has them.
    page: Vec<f32>,
}

impl AttentionScratch {
    pub(crate) fn new(padded: usize) -> Self {
        let heads = vec![0.0; TILE * padded];
        AttentionScratch {
            scores: vec![0.0; TILE * SEGMENT],
            queries: heads.clone(),
            segment: heads.clone(),
            merged: heads,
            page: vec![0.0; PAGE_TOKENS * padded],
        }
    }

    pub(crate) fn bytes(padded: usize) -> usize {
        4 * (TILE * (SEGMENT + 3 * padded) + PAGE_TOKENS * padded)
    }
}

/// Computes some items.
pub(crate) struct AttentionCall {
    pub(crate) heads: Heads,
    pub(crate) pages: Pages,
    /// The batch's page tables.
    pub(crate) tables: *const PageId,
    pub(crate) bias: Option<Bias>,
    /// Rotated queries, and outputs, `[row][heads][head_dim]`, `stride` elements from row to row.
    pub(crate) q: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) stride: usize,
    pub(crate) items: *const AttentionItem,
    pub(crate) count: usize,
    pub(crate) scratch: *mut AttentionScratch,
}

#[inline(always)]
pub(super) unsafe fn run<S: Isa, C: Cache>(call: &AttentionCall) {
    // SAFETY: see `Entry`; a thread's scratch is its own.
    unsafe {
        let scratch = &mut *call.scratch;
        for item in std::slice::from_raw_parts(call.items, call.count) {
            let group = call.heads.attention.heads / call.heads.attention.kv_heads;
            let queries = item.rows * group;
            for first in (0..queries).step_by(TILE) {
                tile::<S, C>(call, item, first..(first + TILE).min(queries), scratch);
            }
        }
    }
}

/// What is known of one query of a tile.
#[derive(Clone, Copy)]
struct Query {
    /// Positions it sees.
    start: usize,
    end: usize,
    /// Elements from the call's queries and outputs.
    offset: usize,
    /// Of key 0.
    bias: *const f32,
    /// The greatest score so far, and the sum of weights.
    state: (f32, f32),
}

impl Query {
    /// What it sees of the positions from `start` to `end`, counted from `start`.
    fn within(&self, start: usize, end: usize) -> Range<usize> {
        self.start.clamp(start, end) - start..self.end.clamp(start, end) - start
    }
}

/// Some queries of an item, counted row by row, head by head: every page of keys is read once for all of them.
#[inline(always)]
unsafe fn tile<S: Isa, C: Cache>(
    call: &AttentionCall,
    item: &AttentionItem,
    which: Range<usize>,
    scratch: &mut AttentionScratch,
) {
    // SAFETY: see `Entry`.
    unsafe {
        let Heads { attention, padded } = call.heads;
        let dim = attention.head_dim;
        let group = attention.heads / attention.kv_heads;
        let count = which.len();
        let mut queries =
            [Query { start: 0, end: 0, offset: 0, bias: std::ptr::null(), state: (0.0, 0.0) }; TILE];
        for t in 0..count {
            let (row, head) = ((which.start + t) / group, item.kv_head * group + (which.start + t) % group);
            let position = item.position + row;
            let visible = call.heads.visible(position, item.length);
            let offset = (item.row + row) * call.stride + head * dim;
            let bias = call.bias.map_or(std::ptr::null(), |bias| {
                bias.base.wrapping_add(head * bias.heads).wrapping_sub(position * bias.queries)
            });
            queries[t] = Query { start: visible.start, end: visible.end, offset, bias, state: (0.0, 0.0) };
            let query = scratch.queries.as_mut_ptr().add(t * padded);
            std::ptr::copy_nonoverlapping(call.q.add(offset), query, dim);
        }
        let queries = &mut queries[..count];
        // Rows ascend, so do both ends of what they see.
        let (low, high) = (queries[0].start, queries[count - 1].end);
        for start in (low / SEGMENT * SEGMENT..high).step_by(SEGMENT) {
            segment::<S, C>(call, item, start, queries, scratch);
        }
        for t in 0..count {
            let sum = queries[t].state.1;
            let merged = scratch.merged.as_mut_ptr().add(t * padded);
            for i in (0..padded).step_by(S::LANES) {
                S::store(merged.add(i), S::div(S::load(merged.add(i)), S::splat(sum)));
            }
            std::ptr::copy_nonoverlapping(merged, call.out.add(queries[t].offset), dim);
        }
    }
}

/// One segment of keys: scores, weights, weighted values, merged into what came before.
#[inline(always)]
unsafe fn segment<S: Isa, C: Cache>(
    call: &AttentionCall,
    item: &AttentionItem,
    start: usize,
    queries: &mut [Query],
    scratch: &mut AttentionScratch,
) {
    // SAFETY: see `Entry`.
    unsafe {
        let padded = call.heads.padded;
        let count = queries.len();
        // One head's keys and values of a page of the segment.
        let page = |page: usize| {
            let id = *call.tables.add(item.table + start / PAGE_TOKENS + page) as usize;
            let base = id * call.pages.stride + item.kv_head * call.heads.head_bytes(C::TYPE);
            Half::both::<C>(call.pages.base.add(base), padded)
        };
        let (first, last) =
            (queries[0].within(start, start + SEGMENT), queries[count - 1].within(start, start + SEGMENT));
        let pages = first.start / PAGE_TOKENS..last.end.div_ceil(PAGE_TOKENS);
        for at in pages.clone() {
            let keys = keys_in_f32::<S, C>(page(at)[0], call.heads.attention.head_dim, &mut scratch.page);
            let at = at * PAGE_TOKENS;
            for t in (0..count).step_by(QUERIES) {
                match (count - t).min(QUERIES) {
                    4 => scores::<S, 4>(call, keys, start, at, t, queries, scratch),
                    3 => scores::<S, 3>(call, keys, start, at, t, queries, scratch),
                    2 => scores::<S, 2>(call, keys, start, at, t, queries, scratch),
                    _ => scores::<S, 1>(call, keys, start, at, t, queries, scratch),
                }
            }
        }
        let mut partial = [(0.0, 0.0); TILE];
        for t in 0..count {
            let keys = queries[t].within(start, start + SEGMENT);
            if !keys.is_empty() {
                partial[t] = softmax::<S>(scratch.scores.as_mut_ptr().add(t * SEGMENT), &keys);
            }
        }
        scratch.segment[..count * padded].fill(0.0);
        for at in pages {
            let values = values_in_f32::<S, C>(page(at)[1], &mut scratch.page);
            for t in (0..count).step_by(QUERIES) {
                let group = t..(t + QUERIES).min(count);
                weigh_page::<S>(values, start, at * PAGE_TOKENS, group, queries, scratch, padded);
            }
        }
        for t in 0..count {
            let query = &mut queries[t];
            if query.within(start, start + SEGMENT).is_empty() {
                continue;
            }
            let (merged, new) =
                (scratch.merged.as_mut_ptr().add(t * padded), scratch.segment.as_ptr().add(t * padded));
            // The first segment a query sees starts its state.
            if query.start >= start {
                query.state = partial[t];
                std::ptr::copy_nonoverlapping(new, merged, padded);
            } else {
                merge::<S>(&mut query.state, partial[t], merged, new, padded);
            }
        }
    }
}

/// The keys of a page in F32: where they are, or converted once for all queries.
#[inline(always)]
unsafe fn keys_in_f32<S: Isa, C: Cache>(keys: Half, head_dim: usize, page: &mut [f32]) -> Half {
    if C::TYPE == CacheType::F32 {
        return keys;
    }
    // SAFETY: see `Entry`; the scratch holds a page.
    unsafe {
        for i in 0..head_dim {
            for slot in (0..PAGE_TOKENS).step_by(S::LANES) {
                let mut k = C::load::<S>(keys.key::<C>(i, slot));
                if C::SCALED {
                    k = S::mul(k, S::load_f16(keys.key_scale::<C>(i, slot)));
                }
                S::store(page.as_mut_ptr().add(i * PAGE_TOKENS + slot), k);
            }
        }
    }
    keys.moved(page)
}

/// The same for values.
#[inline(always)]
unsafe fn values_in_f32<S: Isa, C: Cache>(values: Half, page: &mut [f32]) -> Half {
    if C::TYPE == CacheType::F32 {
        return values;
    }
    let padded = values.padded();
    // SAFETY: as above.
    unsafe {
        for slot in 0..PAGE_TOKENS {
            for i in (0..padded).step_by(S::LANES) {
                let mut v = C::load::<S>(values.value::<C>(i, slot));
                if C::SCALED {
                    v = S::mul(v, S::splat_f16(values.value_scale::<C>(i, slot)));
                }
                S::store(page.as_mut_ptr().add(slot * padded + i), v);
            }
        }
    }
    values.moved(page)
}

/// Scores of one page's keys, at `at` in the segment that begins at `start`, for `Q` queries from the `first` on.
#[inline(always)]
unsafe fn scores<S: Isa, const Q: usize>(
    call: &AttentionCall,
    keys: Half,
    start: usize,
    at: usize,
    first: usize,
    known: &[Query],
    scratch: &mut AttentionScratch,
) {
    // SAFETY: see `Entry`.
    unsafe {
        let Heads { attention, padded } = call.heads;
        let queries = scratch.queries.as_ptr().add(first * padded);
        for slot in (0..PAGE_TOKENS).step_by(2 * S::LANES) {
            let mut sum = [[S::splat(0.0); 2]; Q];
            for i in 0..attention.head_dim {
                let k = keys.key::<F32Cache>(i, slot).cast::<f32>();
                let k = [S::load(k), S::load(k.add(S::LANES))];
                for t in 0..Q {
                    let q = S::splat(*queries.add(t * padded + i));
                    sum[t] = [S::fma(q, k[0], sum[t][0]), S::fma(q, k[1], sum[t][1])];
                }
            }
            for t in 0..Q {
                for part in 0..2 {
                    let (scale, key) = (S::splat(attention.scale), at + slot + part * S::LANES);
                    let mut score = match call.bias {
                        None => S::mul(sum[t][part], scale),
                        Some(_) => {
                            let bias = known[first + t].bias.wrapping_add(start + key);
                            S::fma(sum[t][part], scale, S::load(bias))
                        }
                    };
                    if let Some(cap) = attention.softcap {
                        score = unary::<S>(Unary::Softcap(cap), score);
                    }
                    S::store(scratch.scores.as_mut_ptr().add((first + t) * SEGMENT + key), score);
                }
            }
        }
    }
}

/// Turns the scores of `keys` into `exp(score - max)`; returns the maximum and the sum.
#[inline(always)]
unsafe fn softmax<S: Isa>(scores: *mut f32, keys: &Range<usize>) -> (f32, f32) {
    // SAFETY: `scores` has a whole segment.
    unsafe {
        // Lanes outside the range become -inf: no maximum, and an exponential of exactly 0, which adds nothing.
        let (from, to) = (keys.start / PANEL * PANEL, keys.end.next_multiple_of(PANEL));
        for i in (from..keys.start).chain(keys.end..to) {
            *scores.add(i) = f32::NEG_INFINITY;
        }
        let mut max = S::splat(f32::NEG_INFINITY);
        for i in (from..to).step_by(S::LANES) {
            max = S::max(max, S::load(scores.add(i)));
        }
        let mut lanes = [f32::NEG_INFINITY; 16];
        S::store(lanes.as_mut_ptr(), max);
        let max = lanes.into_iter().fold(f32::NEG_INFINITY, crate::math::max);
        let mut sums = [S::splat(0.0); 2];
        for i in (from..to).step_by(PANEL) {
            for part in 0..PANEL / S::LANES {
                let p = scores.add(i + part * S::LANES);
                let e = simd::exp::<S>(S::sub(S::load(p), S::splat(max)));
                S::store(p, e);
                sums[part] = S::add(sums[part], e);
            }
        }
        (max, simd::sum_lanes::<S>(sums))
    }
}

/// Adds the weighted values of a page, at `at` in the segment that begins at `start`, for a few queries: all together where
/// all of them see the key, one by one at the ends. A masked key is skipped.
#[inline(always)]
unsafe fn weigh_page<S: Isa>(
    values: Half,
    start: usize,
    at: usize,
    which: Range<usize>,
    queries: &[Query],
    scratch: &mut AttentionScratch,
    padded: usize,
) {
    let seen = |t: usize| queries[t].within(start + at, start + at + PAGE_TOKENS);
    let begin = seen(which.end - 1).start;
    let common = begin..seen(which.start).end.max(begin);
    // SAFETY: see `Entry`.
    unsafe {
        for t in which.clone() {
            let keys = seen(t);
            weigh::<S, 1>(values, keys.start..common.start.min(keys.end), at, scratch, t, padded);
        }
        match which.len() {
            4 => weigh::<S, 4>(values, common.clone(), at, scratch, which.start, padded),
            3 => weigh::<S, 3>(values, common.clone(), at, scratch, which.start, padded),
            2 => weigh::<S, 2>(values, common.clone(), at, scratch, which.start, padded),
            _ => weigh::<S, 1>(values, common.clone(), at, scratch, which.start, padded),
        }
        for t in which {
            let keys = seen(t);
            weigh::<S, 1>(values, common.end.max(keys.start)..keys.end, at, scratch, t, padded);
        }
    }
}

/// Adds the values of `keys` of a page, weighted, to the segment's outputs of the queries `first..first + Q`, key by key.
#[inline(always)]
unsafe fn weigh<S: Isa, const Q: usize>(
    values: Half,
    keys: Range<usize>,
    at: usize,
    scratch: &mut AttentionScratch,
    first: usize,
    padded: usize,
) {
    if keys.is_empty() {
        return;
    }
    // SAFETY: see `Entry`.
    unsafe {
        let weights = scratch.scores.as_ptr().add(first * SEGMENT + at);
        let out = scratch.segment.as_mut_ptr().add(first * padded);
        // Two vectors at a time keep enough sums in flight; a last odd one goes alone.
        let mut i = 0;
        while i < padded {
            let wide = i + 2 * S::LANES <= padded;
            let mut sum = [[S::splat(0.0); 2]; Q];
            for t in 0..Q {
                sum[t][0] = S::load(out.add(t * padded + i));
                if wide {
                    sum[t][1] = S::load(out.add(t * padded + i + S::LANES));
                }
            }
            for j in keys.clone() {
                let v = values.value::<F32Cache>(i, j).cast::<f32>();
                let v = [S::load(v), if wide { S::load(v.add(S::LANES)) } else { S::splat(0.0) }];
                for t in 0..Q {
                    let p = S::splat(*weights.add(t * SEGMENT + j));
                    sum[t] = [S::fma(p, v[0], sum[t][0]), S::fma(p, v[1], sum[t][1])];
                }
            }
            for t in 0..Q {
                S::store(out.add(t * padded + i), sum[t][0]);
                if wide {
                    S::store(out.add(t * padded + i + S::LANES), sum[t][1]);
                }
            }
            i += 2 * S::LANES;
        }
    }
}

/// Merges a later segment `(max, sum, new)` into the state and `merged`.
#[inline(always)]
unsafe fn merge<S: Isa>(
    state: &mut (f32, f32),
    later: (f32, f32),
    merged: *mut f32,
    new: *const f32,
    n: usize,
) {
    let max = crate::math::max(state.0, later.0);
    let (old_weight, new_weight) = (crate::math::exp(state.0 - max), crate::math::exp(later.0 - max));
    *state = (max, state.1.mul_add(old_weight, later.1 * new_weight));
    for i in (0..n).step_by(S::LANES) {
        // SAFETY: both have `n` elements, whole panels.
        unsafe {
            let scaled = S::mul(S::load(new.add(i)), S::splat(new_weight));
            S::store(merged.add(i), S::fma(S::load(merged.add(i)), S::splat(old_weight), scaled));
        }
    }
}
