//! A compiled schedule: fixed steps on fixed operands at fixed places, for up to so many rows.

use std::ops::Range;

use wushi_graph::{DType, Lookup, Routing, WeightId};

use crate::activations::{Activations, Packing};
use crate::kernels::{Binary, Heads, Unary};
use crate::memory::ALIGN;
use crate::simd::PANEL;

/// Which rows a value or a step has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// One per token of the batch.
    Tokens,
    /// So many per token of the batch: one for each expert it uses.
    Slots(usize),
    /// One per row that wants logits, then one per row that wants its state.
    Picked,
    /// One per row that wants logits.
    Logits,
}

/// Index of a [`Buffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BufferId(pub(crate) usize);

/// A place in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(crate) packing: Packing,
    pub(crate) rows: Rows,
    /// Elements of a row.
    pub(crate) width: usize,
    /// Bytes from the arena's start; set when the arena is laid out.
    pub(crate) offset: usize,
    /// Rows there is room for.
    pub(crate) capacity: usize,
}

impl Buffer {
    /// F32 elements from row to row: whole panels.
    pub(crate) fn stride(&self) -> usize {
        self.width.next_multiple_of(PANEL)
    }

    /// Bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let width = if self.packing == Packing::F32 { self.stride() } else { self.width };
        Activations::bytes(self.packing, width, self.capacity).next_multiple_of(ALIGN)
    }
}

/// One matrix of a linear step.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) weight: WeightId,
    pub(crate) bias: Option<WeightId>,
    pub(crate) dtype: DType,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Activations in the form the weight's format takes.
    pub(crate) x: BufferId,
    pub(crate) out: BufferId,
    pub(crate) then: Then,
}

/// What becomes of a part's result before it is written.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    Store,
    /// Added to this value.
    Add(BufferId),
    /// Multiplied by the activation of the gate's result.
    Gate {
        weight: WeightId,
        bias: Option<WeightId>,
        activation: Unary,
    },
}

/// What a step computes.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Cosines and sines of every row's position.
    RopeTable { rope: usize, out: BufferId },
    /// Rows of a table.
    Embed { table: WeightId, lookup: Lookup, out: BufferId },
    /// RMS norm, or layer norm if there is a bias.
    Norm { x: BufferId, weight: WeightId, bias: Option<WeightId>, group: usize, eps: f32, out: BufferId },
    /// A value in the form a weight format takes.
    Pack { x: BufferId, out: BufferId },
    /// Linear layers over one value; `ranges[thread][part]` are the panels a thread computes.
    Linear { parts: Vec<Part>, ranges: Vec<Vec<Range<usize>>> },
    /// A linear layer of each token's experts, which are read from `routes`; one row of its activations serves `share`
    /// rows of the result. `ranges[thread]` are the panels of every expert that a thread computes.
    ExpertLinear { part: Part, routes: BufferId, routing: Routing, share: usize, ranges: Vec<Range<usize>> },
    /// Chooses experts.
    Route { scores: BufferId, routing: Routing, out: BufferId },
    /// Sums the experts' results.
    Combine { y: BufferId, routes: BufferId, used: usize, out: BufferId },
    /// A function of each element.
    Map { op: Unary, x: BufferId, out: BufferId },
    /// A function of two elements each.
    Zip { op: Binary, a: BufferId, b: BufferId, out: BufferId },
    /// Rotates heads in place.
    Rope { rope: usize, table: BufferId, x: BufferId },
    /// Copies a value.
    Copy { x: BufferId, out: BufferId },
    /// Writes keys and values into their pages.
    Cache { layer: usize, k: BufferId, v: BufferId },
    /// Attention over pages.
    Attention { layer: usize, q: BufferId, out: BufferId },
    /// Gathers the rows that want something.
    Rows { x: BufferId, out: BufferId },
}

impl Kind {
    /// The kernel's name in listings.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::RopeTable { .. } => "rope_table",
            Kind::Embed { .. } => "embed",
            Kind::Norm { bias: None, .. } => "rms_norm",
            Kind::Norm { .. } => "layer_norm",
            Kind::Pack { .. } => "pack",
            Kind::Linear { .. } => "linear",
            Kind::ExpertLinear { .. } => "expert_linear",
            Kind::Route { .. } => "route",
            Kind::Combine { .. } => "combine",
            Kind::Map { .. } => "map",
            Kind::Zip { .. } => "zip",
            Kind::Rope { .. } => "rope",
            Kind::Copy { .. } => "copy",
            Kind::Cache { .. } => "cache_write",
            Kind::Attention { .. } => "attention",
            Kind::Rows { .. } => "rows",
        }
    }

    /// Whether row `i` of the result depends on row `i` of the inputs only and threads split rows: between two such
    /// steps over the same rows no thread waits for another.
    pub(crate) fn is_row_local(&self) -> bool {
        !matches!(
            self,
            Kind::Linear { .. } | Kind::ExpertLinear { .. } | Kind::Attention { .. } | Kind::Rows { .. }
        )
    }

    /// Buffers read and written.
    pub(crate) fn buffers(&self) -> Vec<BufferId> {
        match self {
            Kind::RopeTable { out, .. } | Kind::Embed { out, .. } => vec![*out],
            Kind::Rope { table, x, .. } => vec![*table, *x],
            Kind::Cache { k, v, .. } => vec![*k, *v],
            Kind::Zip { a, b, out, .. } => vec![*a, *b, *out],
            Kind::Route { scores, out, .. } => vec![*scores, *out],
            Kind::Combine { y, routes, out, .. } => vec![*y, *routes, *out],
            Kind::ExpertLinear { part, routes, .. } => vec![part.x, *routes, part.out],
            Kind::Attention { q, out, .. } => vec![*q, *out],
            Kind::Norm { x, out, .. }
            | Kind::Pack { x, out }
            | Kind::Map { x, out, .. }
            | Kind::Copy { x, out }
            | Kind::Rows { x, out } => vec![*x, *out],
            Kind::Linear { parts, .. } => parts
                .iter()
                .flat_map(|part| {
                    let residual = match part.then {
                        Then::Add(residual) => Some(residual),
                        _ => None,
                    };
                    [Some(part.x), Some(part.out), residual].into_iter().flatten()
                })
                .collect(),
        }
    }
}

/// One step of the schedule.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) rows: Rows,
    /// Where in the model, e.g. `blk.3`.
    pub(crate) block: String,
    /// Whether all threads must have finished the step before this one starts.
    pub(crate) barrier: bool,
}

/// Rope of one kind, shared by all layers that use it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RopeKind {
    pub(crate) rope: wushi_graph::Rope,
    pub(crate) factors: Option<WeightId>,
}

/// A layer that keeps keys and values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    pub(crate) heads: Heads,
    /// Index into [`Program::attention_kinds`].
    pub(crate) kind: usize,
}

/// A compiled schedule.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) ropes: Vec<RopeKind>,
    pub(crate) layers: Vec<Layer>,
    /// Distinct sizes of attention: layers of one kind share their work items.
    pub(crate) attention_kinds: Vec<Heads>,
    /// Bytes of the arena.
    pub(crate) arena: usize,
    /// Where the logits are.
    pub(crate) output: BufferId,
    /// Where the states that they are computed from are, if they can be asked for.
    pub(crate) states: Option<BufferId>,
}

impl Program {
    pub(crate) fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0]
    }
}

/// Operations and bytes of one step, known before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepCost {
    /// Where in the model, e.g. `blk.3`; empty outside a block.
    pub block: String,
    /// The kernel.
    pub kernel: &'static str,
    /// What it works on: weights with their dtype, or sizes.
    pub what: String,
    /// Multiply-adds.
    pub macs: u64,
    /// Bytes of weights read.
    pub weight_bytes: u64,
    /// Bytes of activations, keys and values read and written.
    pub activation_bytes: u64,
    /// Whether all threads wait for each other before this step.
    pub barrier: bool,
}
