//! A compiled schedule: fixed steps on fixed operands at fixed places, for up to so many rows.

use std::ops::Range;

use wushi_graph::{Conv, DType, GridRope, Lookup, Rope, RopePairs, Routing, ScoreBias, Unfold, WeightId};

use crate::activations::{Activations, Packing};
use crate::kernels::{Binary, Filtering, Heads, PAGE_TOKENS, TILES, Unary};
use crate::memory::ALIGN;
use crate::scratch::PATCH_ROWS;
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
    /// So many, known when the graph was built.
    Fixed(usize),
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
    /// This function of it.
    Map(Unary),
}

impl Then {
    /// What it reads besides the result.
    pub(crate) fn residual(&self) -> Option<BufferId> {
        match self {
            Then::Add(residual) => Some(*residual),
            _ => None,
        }
    }
}

/// Which norm, with its weights.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NormKind {
    Rms(WeightId),
    /// Weight and bias; without them ones and zeros.
    Layer(Option<[WeightId; 2]>),
}

/// A convolution: by minimal filtering, or a linear layer of the patches around its output positions.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    pub(crate) conv: Conv,
    pub(crate) weight: WeightId,
    pub(crate) bias: Option<WeightId>,
    pub(crate) dtype: DType,
    /// Frames, height, width, channels.
    pub(crate) input: [usize; 4],
    pub(crate) output: [usize; 4],
    pub(crate) x: BufferId,
    pub(crate) out: BufferId,
    pub(crate) then: Then,
    /// Where the frames before the first are: index into [`Program::carried`].
    pub(crate) carried: Option<usize>,
    /// If it is one by minimal filtering: where its transformed weights are.
    pub(crate) filters: Option<BufferId>,
}

impl Convolution {
    /// Elements of a patch.
    pub(crate) fn patch(&self) -> usize {
        self.conv.kernel.iter().product::<usize>() * self.input[3]
    }

    /// What it is if it is one by minimal filtering.
    pub(crate) fn filtering(&self) -> Filtering {
        let [frames, height, width, outputs] = self.output;
        Filtering {
            frames: self.conv.kernel[0],
            channels: self.input[3],
            outputs,
            upsample: self.conv.upsample,
            output: [frames, height, width],
        }
    }

    /// Parts that it can be computed in, in any order and by any thread, of equal cost: tiles (the last ones of a row or
    /// column may have fewer outputs), or output positions. Ranges of them are best multiples of [`Convolution::together`].
    pub(crate) fn items(&self) -> usize {
        match self.filters {
            Some(_) => self.filtering().tiles(),
            None => self.output[..3].iter().product(),
        }
    }

    /// Panels of its outputs.
    pub(crate) fn panels(&self) -> usize {
        self.output[3].div_ceil(PANEL)
    }

    /// How many parts are computed together.
    pub(crate) fn together(&self) -> usize {
        if self.filters.is_some() { TILES } else { PATCH_ROWS }
    }
}

/// Frames that a convolution carries from run to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Its weight's name.
    pub(crate) name: String,
    /// Frames, height, width, channels.
    pub(crate) shape: [usize; 4],
}

/// Attention within a run: its work is known when it is compiled.
#[derive(Clone, Debug)]
pub(crate) struct Attend {
    pub(crate) heads: Heads,
    /// Of one sequence.
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    /// Index into [`Program::biases`].
    pub(crate) bias: Option<usize>,
}

impl Attend {
    /// Pages of one sequence's keys.
    pub(crate) fn pages(&self) -> usize {
        self.keys.div_ceil(PAGE_TOKENS)
    }
}

/// What is added to the scores of some attention layer, for sequences of up to so many keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BiasKind {
    pub(crate) bias: ScoreBias,
    pub(crate) heads: usize,
    pub(crate) keys: usize,
}

/// What a step computes.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Cosines and sines of every row's position.
    RopeTable { rope: usize, out: BufferId },
    /// Rows of a table.
    Embed { table: WeightId, lookup: Lookup, out: BufferId },
    /// A norm over groups of elements.
    Norm { x: BufferId, norm: NormKind, group: usize, eps: f32, out: BufferId },
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
    /// A weight as a row.
    Parameter { weight: WeightId, out: BufferId },
    /// Columns from the `first` on.
    Columns { x: BufferId, first: usize, out: BufferId },
    /// `a * b + c`; `b` and `c` may have one row for all.
    MulAdd { a: BufferId, b: BufferId, c: BufferId, out: BufferId },
    /// Cosines and sines of a timestep.
    TimestepEmbed { x: BufferId, out: BufferId },
    /// The weights of a convolution in the form that minimal filtering takes, a panel of them a row.
    Filters { weight: WeightId, sizes: Filtering, out: BufferId },
    /// Convolution.
    Conv(Convolution),
    /// Keeps the last frames that a convolution read for the next run.
    Carry { x: BufferId, carried: usize, frames: usize },
    /// Channels of a feature map (frames, height, width, channels) to frames, rows and columns.
    Unfold { x: BufferId, input: [usize; 4], unfold: Unfold, out: BufferId },
    /// Keys and values of this run into pages.
    Keep { attend: usize, k: BufferId, v: BufferId, pages: BufferId },
    /// Attention over them.
    Attend { attend: usize, q: BufferId, pages: BufferId, out: BufferId },
}

impl Kind {
    /// The kernel's name in listings.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::RopeTable { .. } => "rope_table",
            Kind::Embed { .. } => "embed",
            Kind::Norm { norm: NormKind::Rms(_), .. } => "rms_norm",
            Kind::Norm { .. } => "layer_norm",
            Kind::Parameter { .. } => "parameter",
            Kind::Columns { .. } => "columns",
            Kind::MulAdd { .. } => "mul_add",
            Kind::TimestepEmbed { .. } => "timestep_embed",
            Kind::Filters { .. } => "conv3d_filters",
            Kind::Conv(_) => "conv3d",
            Kind::Carry { .. } => "carry",
            Kind::Unfold { .. } => "unfold",
            Kind::Keep { .. } => "cache_write",
            Kind::Attend { .. } => "attention",
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
            Kind::Linear { .. }
                | Kind::ExpertLinear { .. }
                | Kind::Attention { .. }
                | Kind::Rows { .. }
                | Kind::Filters { .. }
                | Kind::Conv(_)
                | Kind::Unfold { .. }
                | Kind::Attend { .. }
        )
    }

    /// Buffers read and written.
    pub(crate) fn buffers(&self) -> Vec<BufferId> {
        match self {
            Kind::RopeTable { out, .. }
            | Kind::Embed { out, .. }
            | Kind::Parameter { out, .. }
            | Kind::Filters { out, .. } => vec![*out],
            Kind::Carry { x, .. } => vec![*x],
            Kind::MulAdd { a, b, c, out } => vec![*a, *b, *c, *out],
            Kind::Keep { k, v, pages, .. } => vec![*k, *v, *pages],
            Kind::Attend { q, pages, out, .. } => vec![*q, *pages, *out],
            Kind::Conv(conv) => [Some(conv.x), Some(conv.out), conv.then.residual(), conv.filters]
                .into_iter()
                .flatten()
                .collect(),
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
            | Kind::Columns { x, out, .. }
            | Kind::TimestepEmbed { x, out }
            | Kind::Unfold { x, out, .. }
            | Kind::Rows { x, out } => vec![*x, *out],
            Kind::Linear { parts, .. } => parts
                .iter()
                .flat_map(|part| [Some(part.x), Some(part.out), part.then.residual()].into_iter().flatten())
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
pub(crate) enum RopeKind {
    /// By the place in a sequence.
    Sequence { rope: Rope, factors: Option<WeightId> },
    /// By the place on a grid.
    Grid(GridRope),
}

impl RopeKind {
    /// Elements of a head, and how many of them turn.
    pub(crate) fn head(&self) -> (usize, usize) {
        match self {
            RopeKind::Sequence { rope, .. } => (rope.head_dim, rope.rotary_dim),
            RopeKind::Grid(rope) => (rope.head_dim(), rope.head_dim()),
        }
    }

    /// What turns together.
    pub(crate) fn pairs(&self) -> RopePairs {
        match self {
            RopeKind::Sequence { rope, .. } => rope.pairs,
            RopeKind::Grid(_) => RopePairs::Adjacent,
        }
    }
}

/// A layer that keeps keys and values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    pub(crate) heads: Heads,
    /// Index into [`Program::attention_kinds`].
    pub(crate) kind: usize,
    /// Index into [`Program::biases`].
    pub(crate) bias: Option<usize>,
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
    /// Where given values are put, by their place among the graph's inputs.
    pub(crate) given: Vec<BufferId>,
    /// Where all outputs are.
    pub(crate) results: Vec<BufferId>,
    pub(crate) carried: Vec<Carried>,
    pub(crate) attends: Vec<Attend>,
    pub(crate) biases: Vec<BiasKind>,
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
    /// Of these, in F32: attention, weights in F32 and F16.
    pub float_macs: u64,
    /// Of these, of BF16. The rest are of bytes.
    pub bf16_macs: u64,
    /// Bytes of weights read.
    pub weight_bytes: u64,
    /// Bytes of activations, keys and values read and written.
    pub activation_bytes: u64,
    /// Whether all threads wait for each other before this step.
    pub barrier: bool,
}
