//! Operations and bytes of a schedule, counted before it runs.

use wushi_graph::{CacheType, DType, Graph, Op, WeightId};

use crate::kernels::Heads;
use crate::program::{Attend, Kind, NormKind, Part, Program, Rows, Step, StepCost, Then};
use crate::reference::TILE_POINTS;

/// The attention layers of a graph, in order.
pub(crate) fn layers(graph: &Graph) -> impl Iterator<Item = Heads> {
    graph.nodes().iter().filter_map(|node| match node.op {
        Op::Attention(attention) => Some(Heads::new(attention)),
        _ => None,
    })
}

/// Costs of all steps for the first `rows` tokens of one sequence, the last one wanting logits.
pub(crate) fn costs(
    graph: &Graph,
    dtypes: &[DType],
    program: &Program,
    rows: usize,
    cache: CacheType,
) -> Vec<StepCost> {
    let counter = Counter { graph, dtypes, program, rows: rows as u64, cache };
    program.steps.iter().map(|step| counter.cost(step)).collect()
}

struct Counter<'a> {
    graph: &'a Graph,
    dtypes: &'a [DType],
    program: &'a Program,
    rows: u64,
    cache: CacheType,
}

impl Counter<'_> {
    fn cost(&self, step: &Step) -> StepCost {
        let rows = match step.rows {
            Rows::Tokens => self.rows,
            Rows::Slots(used) => self.rows * used as u64,
            Rows::Picked | Rows::Logits => 1,
            Rows::Fixed(rows) => rows as u64,
        };
        let buffers = step.kind.buffers();
        let row_bytes = |b: &crate::program::Buffer| (b.bytes() / b.capacity.max(1)) as u64;
        let activations: u64 = buffers.iter().map(|&id| row_bytes(self.program.buffer(id))).sum();
        let mut cost = StepCost {
            block: step.block.clone(),
            kernel: step.kind.name(),
            what: String::new(),
            macs: 0,
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
                // Of minimal filtering 36 for the 9 weights of a channel and frame, whatever of a tile lies outside.
                let filtered = |n: u64| n / 9 * TILE_POINTS as u64;
                cost.macs = match conv.filters {
                    Some(_) => rows * filtered(self.elements(conv.weight)),
                    None => rows * self.elements(conv.weight),
                };
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
                let position = heads.page_bytes(self.cache) / crate::kernels::PAGE_TOKENS;
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
                let position = heads.page_bytes(self.cache) / crate::kernels::PAGE_TOKENS;
                cost.activation_bytes += rows * position as u64;
                cost.what = format!("{} heads, {}", heads.attention.kv_heads, self.cache);
            }
            _ => {}
        }
        cost
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
                cost.macs += rows * (self.elements(weight) / experts);
                cost.weight_bytes += self.bytes(weight) / experts * met;
                names.push(format!("{} {}", self.short_name(weight), part.dtype));
            }
        }
        cost.what = names.join(", ");
    }

    fn attention(&self, layer: usize, cost: &mut StepCost) {
        let heads = self.program.layers[layer].heads;
        let a = heads.attention;
        let keys: u64 =
            (0..self.rows as usize).map(|p| heads.visible(p, self.rows as usize).len() as u64).sum();
        cost.macs = 2 * keys * (a.heads * a.head_dim) as u64;
        let position = heads.page_bytes(self.cache) / crate::kernels::PAGE_TOKENS;
        cost.activation_bytes += self.rows * position as u64;
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
