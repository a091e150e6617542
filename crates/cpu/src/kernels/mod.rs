//! Kernels: each written once over [`Isa`], collected in one table per instruction set.

mod attention;
mod cache;
mod conv;
mod elementwise;
mod experts;
mod filtering;
mod linear;
mod norm;
mod rope;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::ops::Range;

use wushi_graph::{CacheType, DType};

pub use attention::PAGE_TOKENS;
pub(crate) use attention::{
    AttentionCall, AttentionItem, AttentionScratch, Bias, Heads, Pages, QUERY_TILE, TILE, WriteCall,
};
pub(crate) use conv::{Frames, PatchCall};
pub(crate) use elementwise::{Binary, MapCall, MulAddCall, Unary, ZipCall};
pub(crate) use experts::{CombineCall, RouteCall};
pub(crate) use filtering::{FilteredCall, Filtering, FiltersCall, TILES};
pub(crate) use linear::{Epilogue, LinearCall, Output, RowSet};
pub(crate) use norm::{Norm, NormCall};
pub(crate) use rope::RopeCall;

use crate::activations::Activations;
use crate::probe::{self, ProbeCall};
use crate::simd::Isa;
use crate::weights::{
    BF16, Blocks, F16, F32, Iq4Nl, Iq4Xs, Mxfp4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0,
    SuperBlocks,
};

/// A kernel's entry for one instruction set.
///
/// # Safety
/// The processor has the instruction set; every pointer in the call is valid for what the call says; no other
/// thread writes what this one reads or writes.
pub(crate) type Entry<Call> = unsafe fn(&Call);

/// All kernels of one instruction set.
pub(crate) struct Kernels {
    /// In the order of [`DType::ALL`].
    linear: [Entry<LinearCall>; DType::ALL.len()],
    pub(crate) norm: Entry<NormCall>,
    pub(crate) map: Entry<MapCall>,
    pub(crate) zip: Entry<ZipCall>,
    pub(crate) mul_add: Entry<MulAddCall>,
    pub(crate) patches: Entry<PatchCall>,
    pub(crate) filters: Entry<FiltersCall>,
    pub(crate) filtered: Entry<FilteredCall>,
    pub(crate) rope: Entry<RopeCall>,
    pub(crate) route: Entry<RouteCall>,
    pub(crate) combine: Entry<CombineCall>,
    pub(crate) pack: Entry<PackCall>,
    attention: [Entry<AttentionCall>; 3],
    write_cache: [Entry<WriteCall>; 3],
    /// Whether BF16 is multiplied in pairs: decides the form of activations.
    pub(crate) pairs: bool,
    /// Lanes of a vector, and the kernels that measure the machine.
    pub(crate) lanes: usize,
    pub(crate) probe_stream: Entry<ProbeCall>,
    pub(crate) probe_integers: Entry<ProbeCall>,
    pub(crate) probe_floats: Entry<ProbeCall>,
}

/// Packs consecutive rows.
pub(crate) struct PackCall {
    /// Rows of F32.
    pub(crate) x: *const f32,
    /// Elements from row to row of `x`.
    pub(crate) stride: usize,
    /// Which rows.
    pub(crate) rows: Range<usize>,
    /// Where to.
    pub(crate) out: Activations,
}

#[inline(always)]
unsafe fn pack<S: Isa>(call: &PackCall) {
    for row in call.rows.clone() {
        // SAFETY: see `Entry`.
        unsafe { call.out.pack::<S>(call.x.add(row * call.stride), row) };
    }
}

/// Makes the entry of a kernel: a plain function that runs it compiled for `S`.
macro_rules! entry {
    ($call:ty, $($kernel:tt)+) => {{
        unsafe fn enter<S: Isa>(call: &$call) {
            // SAFETY: see `Entry`.
            unsafe { S::run(#[inline(always)] || $($kernel)+(call)) }
        }
        enter::<S>
    }};
}

impl Kernels {
    /// The table of `S`.
    pub(crate) const fn of<S: Isa>() -> Self {
        Kernels {
            linear: [
                linear::enter::<S, F32>,
                linear::enter::<S, F16>,
                linear::enter::<S, BF16>,
                linear::enter::<S, Blocks<Q4_0>>,
                linear::enter::<S, Blocks<Q4_1>>,
                linear::enter::<S, Blocks<Q5_0>>,
                linear::enter::<S, Blocks<Q5_1>>,
                linear::enter::<S, Blocks<Q8_0>>,
                linear::enter::<S, SuperBlocks<Q2K>>,
                linear::enter::<S, SuperBlocks<Q3K>>,
                linear::enter::<S, SuperBlocks<Q4K>>,
                linear::enter::<S, SuperBlocks<Q5K>>,
                linear::enter::<S, SuperBlocks<Q6K>>,
                linear::enter::<S, Blocks<Iq4Nl>>,
                linear::enter::<S, SuperBlocks<Iq4Xs>>,
                linear::enter::<S, Blocks<Mxfp4>>,
            ],
            norm: entry!(NormCall, norm::run::<S>),
            map: entry!(MapCall, elementwise::map::<S>),
            zip: entry!(ZipCall, elementwise::zip::<S>),
            mul_add: entry!(MulAddCall, elementwise::mul_add::<S>),
            patches: entry!(PatchCall, conv::patches::<S>),
            filters: entry!(FiltersCall, filtering::filters::<S>),
            filtered: entry!(FilteredCall, filtering::filtered::<S>),
            rope: entry!(RopeCall, rope::run::<S>),
            route: entry!(RouteCall, experts::route::<S>),
            combine: entry!(CombineCall, experts::combine::<S>),
            pack: entry!(PackCall, pack::<S>),
            attention: [
                entry!(AttentionCall, attention::run::<S, cache::F32Cache>),
                entry!(AttentionCall, attention::run::<S, cache::F16Cache>),
                entry!(AttentionCall, attention::run::<S, cache::Q8Cache>),
            ],
            write_cache: [
                entry!(WriteCall, attention::write::<S, cache::F32Cache>),
                entry!(WriteCall, attention::write::<S, cache::F16Cache>),
                entry!(WriteCall, attention::write::<S, cache::Q8Cache>),
            ],
            pairs: S::PAIRS,
            lanes: S::LANES,
            probe_stream: entry!(ProbeCall, probe::stream::<S>),
            probe_integers: entry!(ProbeCall, probe::integers::<S>),
            probe_floats: entry!(ProbeCall, probe::floats::<S>),
        }
    }

    /// The same with products of BF16 by those of `S`.
    pub(crate) const fn with_pairs<S: Isa>(mut self) -> Self {
        self.linear[DType::BF16 as usize] = linear::enter::<S, BF16>;
        self.pairs = S::PAIRS;
        self
    }

    /// The same with products of bytes by AMX's tiles.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const fn with_tiles(mut self) -> Self {
        self.linear[DType::Q4_0 as usize] = tiles::run::<Blocks<Q4_0>>;
        self.linear[DType::Q4_1 as usize] = tiles::run::<Blocks<Q4_1>>;
        self.linear[DType::Q5_0 as usize] = tiles::run::<Blocks<Q5_0>>;
        self.linear[DType::Q5_1 as usize] = tiles::run::<Blocks<Q5_1>>;
        self.linear[DType::Q8_0 as usize] = tiles::run::<Blocks<Q8_0>>;
        self.linear[DType::Q2_K as usize] = tiles::run::<SuperBlocks<Q2K>>;
        self.linear[DType::Q3_K as usize] = tiles::run::<SuperBlocks<Q3K>>;
        self.linear[DType::Q4_K as usize] = tiles::run::<SuperBlocks<Q4K>>;
        self.linear[DType::Q5_K as usize] = tiles::run::<SuperBlocks<Q5K>>;
        self.linear[DType::Q6_K as usize] = tiles::run::<SuperBlocks<Q6K>>;
        self.linear[DType::IQ4_NL as usize] = tiles::run::<Blocks<Iq4Nl>>;
        self.linear[DType::IQ4_XS as usize] = tiles::run::<SuperBlocks<Iq4Xs>>;
        self.linear[DType::MXFP4 as usize] = tiles::run::<Blocks<Mxfp4>>;
        self.probe_integers = probe::integers_by_tiles;
        self
    }

    pub(crate) fn linear(&self, dtype: DType) -> Entry<LinearCall> {
        self.linear[dtype as usize]
    }

    pub(crate) fn attention(&self, cache: CacheType) -> Entry<AttentionCall> {
        self.attention[cache_index(cache)]
    }

    pub(crate) fn write_cache(&self, cache: CacheType) -> Entry<WriteCall> {
        self.write_cache[cache_index(cache)]
    }
}

fn cache_index(cache: CacheType) -> usize {
    match cache {
        CacheType::F32 => 0,
        CacheType::F16 => 1,
        CacheType::Q8_0 => 2,
    }
}
