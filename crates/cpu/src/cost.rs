//! Operations and bytes of a schedule, counted before it runs.

use wushi_graph::{Batch, CacheType, DType, Graph, Op, Span, WeightId, WeightSource};

use crate::compile::compile;
use crate::executor::{CpuError, Options, check, target};
use crate::kernels::{Heads, PAGE_TOKENS};
use crate::model;
use crate::program::{Attend, Kind, NormKind, Part, Program, Rows, Step, StepCost, Then};
use crate::reference::TILE_POINTS;

/// The attention layers of a graph, in order.
pub(crate) fn layers(graph: &Graph) -> impl Iterator<Item = Heads> {
    graph.nodes().iter().filter_map(|node| match node.op {
        Op::Attention(attention) => Some(Heads::new(attention)),
        _ => None,
    })
}

/// Costs of all steps for a batch.
pub(crate) fn costs(
    graph: &Graph,
    dtypes: &[DType],
    program: &Program,
    batch: &Batch,
    cache: CacheType,
) -> Vec<StepCost> {
    let counter = Counter { graph, dtypes, program, batch, cache };
    program.steps.iter().map(|step| counter.cost(step)).collect()
}

/// The first `rows` tokens of one sequence, the last one wanting logits.
pub(crate) fn first_rows(rows: usize) -> Batch {
    let (spans, last) = (vec![Span { rows: 0..rows, start: 0, pages: 0..0 }], rows.saturating_sub(1));
    Batch { tokens: vec![0; rows], spans, logit_rows: vec![last], ..Batch::default() }
}

/// Counts what a model's batches take: its schedule, without weights or memory to run it.
pub struct Costs {
    graph: Graph,
    dtypes: Vec<DType>,
    program: Program,
    cache: CacheType,
}

impl Costs {
    /// Compiles what [`CpuExecutor::new`](crate::CpuExecutor::new) does with the same arguments.
    ///
    /// # Errors
    /// The same, as far as they do not depend on the weights' values or on memory.
    pub fn new(graph: Graph, source: &dyn WeightSource, options: &Options) -> Result<Self, CpuError> {
        let dtypes = model::dtypes(&graph, source)?;
        check(&graph, options)?;
        let program = compile(&graph, &dtypes, target(options));
        Ok(Costs { graph, dtypes, program, cache: options.cache })
    }

    /// The schedule's steps for a batch; pages may be missing from it.
    pub fn of(&self, batch: &Batch) -> Vec<StepCost> {
        costs(&self.graph, &self.dtypes, &self.program, batch, self.cache)
    }

    /// The same for the first `rows` tokens of one sequence, the last of which wants logits.
    pub fn of_first(&self, rows: usize) -> Vec<StepCost> {
        self.of(&first_rows(rows))
    }
}

struct Counter<'a> {
    graph: &'a Graph,
    dtypes: &'a [DType],
    program: &'a Program,
    batch: &'a Batch,
    cache: CacheType,
}

impl Counter<'_> {
    fn cost(&self, step: &Step) -> StepCost {
        let rows = match step.rows {
            Rows::Tokens => self.batch.tokens.len(),
            Rows::Slots(used) => self.batch.tokens.len() * used,
            Rows::Picked => self.batch.logit_rows.len() + self.batch.state_rows.len(),
            Rows::Logits => self.batch.logit_rows.len(),
            Rows::Fixed(rows) => rows,
        } as u64;
        let buffers = step.kind.buffers();
        let row_bytes = |b: &crate::program::Buffer| (b.bytes() / b.capacity.max(1)) as u64;
        let activations: u64 = buffers.iter().map(|&id| row_bytes(self.program.buffer(id))).sum();
        let mut cost = StepCost {
            block: step.block.clone(),
            kernel: step.kind.name(),
            what: String::new(),
            macs: 0,
            float_macs: 0,
            bf16_macs: 0,
            weight_bytes: 0,
            activation_bytes: rows * activations,
            barrier: step.barrier,
        };
        match &step.kind {
            Kind::Linear { parts, .. } => self.linear(parts, rows, 1, 1, &mut cost),
            Kind::ExpertLinear { part, routing, .. } => {
                // Every expert is read that could be met.
                let (experts, met) = (routing.experts as u64, rows.min(routing.experts as u64));
                self.linear(std::slice::from_ref(part), rows, met, experts, &mut cost);
            }
            Kind::Route { routing, .. } => cost.what = format!("{} of {}", routing.used, routing.experts),
            Kind::Embed { table, .. } => {
                let table_rows = self.graph.weight(*table).shape[0] as u64;
                cost.weight_bytes = rows * self.bytes(*table) / table_rows;
                cost.what = format!("{} {}", self.short_name(*table), self.dtypes[table.index()]);
            }
            Kind::Norm { norm: NormKind::Rms(weight) | NormKind::Layer(Some([weight, _])), .. } => {
                cost.what = self.short_name(*weight).to_string();
                cost.weight_bytes = 4 * self.elements(*weight);
            }
            Kind::Filters { weight, .. } => {
                cost.weight_bytes = self.bytes(*weight);
                cost.what = format!("{} {}", self.conv_name(*weight), self.dtypes[weight.index()]);
            }
            Kind::Conv(conv) => {
                // Of minimal filtering 36 for the 9 weights of a channel and frame, whatever of a tile lies outside, in F32.
                let (n, dtype) = match conv.filters {
                    Some(_) => (self.elements(conv.weight) / 9 * TILE_POINTS as u64, DType::F32),
                    None => (self.elements(conv.weight), conv.dtype),
                };
                self.products(rows * n, dtype, &mut cost);
                // Rows of input and output differ.
                let positions = |[t, h, w, _]: [usize; 4]| (t * h * w) as u64;
                let row = |id| row_bytes(self.program.buffer(id));
                cost.activation_bytes =
                    positions(conv.input) * row(conv.x) + positions(conv.output) * row(conv.out);
                match conv.filters {
                    Some(filters) => cost.activation_bytes += self.program.buffer(filters).bytes() as u64,
                    None => cost.weight_bytes = self.bytes(conv.weight),
                }
                let [t, h, w] = conv.conv.kernel;
                cost.what = format!("{} {}, {t}x{h}x{w}", self.conv_name(conv.weight), conv.dtype);
            }
            Kind::Attend { attend, .. } => {
                let Attend { heads, queries, keys, .. } = self.program.attends[*attend];
                let a = heads.attention;
                let sizes = [a.sequences, queries, keys, a.heads, a.head_dim];
                cost.macs = sizes.iter().fold(2, |product: u64, &n| product.saturating_mul(n as u64));
                cost.float_macs = cost.macs;
                let position = heads.page_bytes(self.cache) / PAGE_TOKENS;
                cost.activation_bytes += (a.sequences * keys * position) as u64;
                cost.what =
                    format!("{} heads of {}, {queries} by {keys}, {}", a.heads, a.head_dim, self.cache);
            }
            Kind::Pack { out, .. } => {
                cost.what = format!("{:?}", self.program.buffer(*out).packing).to_lowercase();
            }
            Kind::Attention { layer, .. } => self.attention(*layer, &mut cost),
            Kind::Cache { layer, .. } => {
                let heads = self.program.layers[*layer].heads;
                let position = heads.page_bytes(self.cache) / PAGE_TOKENS;
                cost.activation_bytes += rows * position as u64;
                cost.what = format!("{} heads, {}", heads.attention.kv_heads, self.cache);
            }
            _ => {}
        }
        cost
    }

    /// Products with weights of this type.
    fn products(&self, macs: u64, dtype: DType, cost: &mut StepCost) {
        cost.macs += macs;
        match dtype {
            DType::F32 | DType::F16 => cost.float_macs += macs,
            DType::BF16 => cost.bf16_macs += macs,
            _ => {}
        }
    }

    /// Matrices of `experts`, `met` of which are read.
    fn linear(&self, parts: &[Part], rows: u64, met: u64, experts: u64, cost: &mut StepCost) {
        let mut names = Vec::new();
        for part in parts {
            let gate = match part.then {
                Then::Gate { weight, .. } => Some(weight),
                _ => None,
            };
            for weight in [Some(part.weight), gate].into_iter().flatten() {
                self.products(rows * (self.elements(weight) / experts), part.dtype, cost);
                cost.weight_bytes += self.bytes(weight) / experts * met;
                names.push(format!("{} {}", self.short_name(weight), part.dtype));
            }
        }
        cost.what = names.join(", ");
    }

    fn attention(&self, layer: usize, cost: &mut StepCost) {
        let heads = self.program.layers[layer].heads;
        let a = heads.attention;
        let (mut keys, mut read) = (0, 0);
        for span in &self.batch.spans {
            let end = span.start + span.rows.len();
            let first = heads.visible(span.start, end).start;
            keys += (span.start..end).map(|p| heads.visible(p, end).len() as u64).sum::<u64>();
            read += heads.visible(end - 1, end).end - first;
        }
        cost.macs = 2 * keys * (a.heads * a.head_dim) as u64;
        cost.float_macs = cost.macs;
        let position = heads.page_bytes(self.cache) / PAGE_TOKENS;
        cost.activation_bytes += (read * position) as u64;
        cost.what = format!("{} heads over {} of {}, {}", a.heads, a.kv_heads, a.head_dim, self.cache);
    }

    fn elements(&self, id: WeightId) -> u64 {
        self.graph.weight(id).shape.iter().map(|&n| n as u64).product()
    }

    fn bytes(&self, id: WeightId) -> u64 {
        let dtype = self.dtypes[id.index()];
        self.elements(id) / dtype.block_elements() as u64 * dtype.block_bytes() as u64
    }

    /// The name within its block.
    fn conv_name(&self, id: WeightId) -> &str {
        self.graph.weight(id).name.trim_end_matches(".weight")
    }

    /// The name without its block and without `.weight`.
    fn short_name(&self, id: WeightId) -> &str {
        let name = self.graph.weight(id).name.trim_end_matches(".weight");
        name.rsplit('.').next().unwrap_or(name)
    }
}
