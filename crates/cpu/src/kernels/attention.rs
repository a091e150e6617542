//! Attention over paged keys and values.
//!
//! A page holds [`PAGE_TOKENS`] positions of one layer (see [`cache`](super::cache)): keys so that scores of neighbouring
//! keys are SIMD lanes, values so that a value's elements are. Every sum then runs in sequence per lane: over a head's
//! elements for a score, over keys for an output.

use std::ops::Range;

use wushi_graph::{Attention, CacheType, Mask, PageId};

use super::cache::{BLOCK, Cache, Half};
use super::elementwise::{Unary, unary};
use crate::simd::{self, Isa, PANEL};
use crate::weights::SEGMENT;

/// Positions a page holds; divides [`SEGMENT`] and is whole panels.
pub const PAGE_TOKENS: usize = 32;

/// Query rows of one work item.
pub(crate) const QUERY_TILE: usize = 8;

/// Queries computed together.
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
    /// At most [`QUERY_TILE`].
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
    /// `[QUERIES][SEGMENT]`
    scores: Vec<f32>,
    /// `[QUERIES][padded]`: queries, then a segment's outputs, then the merged ones.
    queries: Vec<f32>,
    segment: Vec<f32>,
    merged: Vec<f32>,
}

impl AttentionScratch {
    pub(crate) fn new(padded: usize) -> Self {
        let heads = vec![0.0; QUERIES * padded];
        AttentionScratch {
            scores: vec![0.0; QUERIES * SEGMENT],
            queries: heads.clone(),
            segment: heads.clone(),
            merged: heads,
        }
    }

    pub(crate) fn bytes(padded: usize) -> usize {
        4 * QUERIES * (SEGMENT + 3 * padded)
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
            for first in (0..queries).step_by(QUERIES) {
                match (queries - first).min(QUERIES) {
                    4 => queries_of::<S, C, 4>(call, item, first, scratch),
                    3 => queries_of::<S, C, 3>(call, item, first, scratch),
                    2 => queries_of::<S, C, 2>(call, item, first, scratch),
                    _ => queries_of::<S, C, 1>(call, item, first, scratch),
                }
            }
        }
    }
}

/// `Q` queries of an item from the `first` on, counted row by row, head by head.
#[inline(always)]
unsafe fn queries_of<S: Isa, C: Cache, const Q: usize>(
    call: &AttentionCall,
    item: &AttentionItem,
    first: usize,
    scratch: &mut AttentionScratch,
) {
    // SAFETY: see `Entry`.
    unsafe {
        let Heads { attention, padded } = call.heads;
        let dim = attention.head_dim;
        let group = attention.heads / attention.kv_heads;
        let mut visible: [Range<usize>; Q] = [const { 0..0 }; Q];
        let mut offset = [0; Q];
        let mut bias = [std::ptr::null(); Q];
        for t in 0..Q {
            let (row, head) = ((first + t) / group, item.kv_head * group + (first + t) % group);
            visible[t] = call.heads.visible(item.position + row, item.length);
            offset[t] = (item.row + row) * call.stride + head * dim;
            if let Some(Bias { base, heads, queries }) = call.bias {
                bias[t] = base.add(head * heads).wrapping_sub((item.position + row) * queries);
            }
            let query = scratch.queries.as_mut_ptr().add(t * padded);
            std::ptr::copy_nonoverlapping(call.q.add(offset[t]), query, dim);
        }
        // Rows ascend, so do both ends of what they see.
        let (low, high) = (visible[0].start, visible[Q - 1].end);
        let mut state = [(0.0f32, 0.0f32); Q];
        for start in (low / SEGMENT * SEGMENT..high).step_by(SEGMENT) {
            let mut keys: [Range<usize>; Q] = [const { 0..0 }; Q];
            for t in 0..Q {
                let within = |at: usize| at.clamp(start, start + SEGMENT) - start;
                keys[t] = within(visible[t].start)..within(visible[t].end);
            }
            segment::<S, C, Q>(call, item, start, &keys, scratch, &visible, &bias, &mut state);
        }
        for t in 0..Q {
            let sum = state[t].1;
            let merged = scratch.merged.as_mut_ptr().add(t * padded);
            for i in (0..padded).step_by(S::LANES) {
                S::store(merged.add(i), S::div(S::load(merged.add(i)), S::splat(sum)));
            }
            std::ptr::copy_nonoverlapping(merged, call.out.add(offset[t]), dim);
        }
    }
}

/// One segment of keys: scores, weights, weighted values, merged into what came before.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "what is known of the queries, as arrays of one size")]
unsafe fn segment<S: Isa, C: Cache, const Q: usize>(
    call: &AttentionCall,
    item: &AttentionItem,
    start: usize,
    keys: &[Range<usize>; Q],
    scratch: &mut AttentionScratch,
    visible: &[Range<usize>; Q],
    bias: &[*const f32; Q],
    state: &mut [(f32, f32); Q],
) {
    // SAFETY: see `Entry`.
    unsafe {
        let padded = call.heads.padded;
        let head = |page: usize| {
            let id = *call.tables.add(item.table + start / PAGE_TOKENS + page) as usize;
            let base = id * call.pages.stride + item.kv_head * call.heads.head_bytes(C::TYPE);
            Half::both::<C>(call.pages.base.add(base), padded)
        };
        let first_page = keys[0].start / PAGE_TOKENS;
        let last_page = keys[Q - 1].end.div_ceil(PAGE_TOKENS);
        for page in first_page..last_page {
            scores::<S, C, Q>(call, head(page)[0], start, page * PAGE_TOKENS, bias, scratch);
        }
        let mut partial = [(0.0, 0.0); Q];
        for t in 0..Q {
            if !keys[t].is_empty() {
                let row = scratch.scores.as_mut_ptr().add(t * SEGMENT);
                partial[t] = softmax::<S>(row, &keys[t]);
            }
        }
        scratch.segment.fill(0.0);
        // All queries together where all of them see the key, one by one at the ends: a masked key is skipped.
        let common = keys[Q - 1].start..keys[0].end.max(keys[Q - 1].start);
        for t in 0..Q {
            weigh::<S, C, 1>(head, keys[t].start..common.start.min(keys[t].end), scratch, t, padded);
        }
        weigh::<S, C, Q>(head, common.clone(), scratch, 0, padded);
        for t in 0..Q {
            weigh::<S, C, 1>(head, common.end.max(keys[t].start)..keys[t].end, scratch, t, padded);
        }
        for t in 0..Q {
            if keys[t].is_empty() {
                continue;
            }
            let (merged, new) =
                (scratch.merged.as_mut_ptr().add(t * padded), scratch.segment.as_ptr().add(t * padded));
            // The first segment a query sees starts its state.
            if visible[t].start >= start {
                state[t] = partial[t];
                std::ptr::copy_nonoverlapping(new, merged, padded);
            } else {
                merge::<S>(&mut state[t], partial[t], merged, new, padded);
            }
        }
    }
}

/// Scores of one page's keys for `Q` queries, at `at` in the segment that begins at `start`.
#[inline(always)]
unsafe fn scores<S: Isa, C: Cache, const Q: usize>(
    call: &AttentionCall,
    keys: Half,
    start: usize,
    at: usize,
    bias: &[*const f32; Q],
    scratch: &mut AttentionScratch,
) {
    // SAFETY: see `Entry`.
    unsafe {
        let Heads { attention, padded } = call.heads;
        let queries = scratch.queries.as_ptr();
        for slot in (0..PAGE_TOKENS).step_by(2 * S::LANES) {
            let mut sum = [[S::splat(0.0); 2]; Q];
            for block in (0..attention.head_dim).step_by(BLOCK) {
                let mut scale = [S::splat(1.0); 2];
                for part in 0..if C::SCALED { 2 } else { 0 } {
                    scale[part] = S::load_f16(keys.key_scale::<C>(block, slot + part * S::LANES));
                }
                for i in block..(block + BLOCK).min(attention.head_dim) {
                    let k = keys.key::<C>(i, slot);
                    let mut k = [C::load::<S>(k), C::load::<S>(k.add(S::LANES * C::BYTES))];
                    if C::SCALED {
                        k = [S::mul(k[0], scale[0]), S::mul(k[1], scale[1])];
                    }
                    for t in 0..Q {
                        let q = S::splat(*queries.add(t * padded + i));
                        sum[t] = [S::fma(q, k[0], sum[t][0]), S::fma(q, k[1], sum[t][1])];
                    }
                }
            }
            for t in 0..Q {
                for part in 0..2 {
                    let scale = S::splat(attention.scale);
                    let mut score = match call.bias {
                        None => S::mul(sum[t][part], scale),
                        Some(_) => {
                            let key = start + at + slot + part * S::LANES;
                            S::fma(sum[t][part], scale, S::load(bias[t].wrapping_add(key)))
                        }
                    };
                    if let Some(cap) = attention.softcap {
                        score = unary::<S>(Unary::Softcap(cap), score);
                    }
                    let out = scratch.scores.as_mut_ptr().add(t * SEGMENT + at + slot + part * S::LANES);
                    S::store(out, score);
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

/// Adds the values of `keys`, weighted, to the segment's outputs of the queries `first..first + Q`, key by key.
#[inline(always)]
unsafe fn weigh<S: Isa, C: Cache, const Q: usize>(
    head: impl Fn(usize) -> [Half; 2],
    keys: Range<usize>,
    scratch: &mut AttentionScratch,
    first: usize,
    padded: usize,
) {
    // SAFETY: see `Entry`.
    unsafe {
        let weights = scratch.scores.as_ptr().add(first * SEGMENT);
        let out = scratch.segment.as_mut_ptr().add(first * padded);
        let mut key = keys.start;
        while key < keys.end {
            let page = key / PAGE_TOKENS;
            let end = keys.end.min((page + 1) * PAGE_TOKENS);
            let [_, values] = head(page);
            // Two vectors at a time keep enough sums in flight; a last odd one goes alone. Both are of one block.
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
                for j in key..end {
                    let v = values.value::<C>(i, j % PAGE_TOKENS);
                    let mut v = [
                        C::load::<S>(v),
                        if wide { C::load::<S>(v.add(S::LANES * C::BYTES)) } else { S::splat(0.0) },
                    ];
                    if C::SCALED {
                        let scale = S::splat_f16(values.value_scale::<C>(i, j % PAGE_TOKENS));
                        v = [S::mul(v[0], scale), S::mul(v[1], scale)];
                    }
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
            key = end;
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
