//! Graph to schedule: which steps, on which buffers, with which threads at which panels.
//!
//! Three things are fused here: linear layers that read one value become one step; a linear layer takes the addition
//! of a residual, or the product with an activated gate, that follows it; and rope works in place.

mod given;

use std::collections::HashMap;
use std::ops::Range;

use wushi_graph::{CacheType, DType, Dim, Graph, Op, Routing, ScoreBias, Value, WeightId};

use crate::activations::Packing;
use crate::arena;
use crate::kernels::{Binary, Heads, Unary};
use crate::program::{
    BiasKind, Buffer, BufferId, Kind, Layer, NormKind, Part, Program, RopeKind, Rows, Step, Then,
};
use crate::simd::PANEL;
use crate::weights::{Matrix, MatrixShape, packing_of};

/// What a schedule is compiled for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) threads: usize,
    /// The most rows of a batch.
    pub(crate) rows: usize,
    /// The most rows that want logits.
    pub(crate) picked: usize,
    /// The longest sequence.
    pub(crate) context: usize,
    /// In what type keys and values are kept.
    pub(crate) cache: CacheType,
    /// Whether BF16 is multiplied in pairs.
    pub(crate) pairs: bool,
}

/// Compiles a graph whose weights have these dtypes (by [`WeightId`]).
pub(crate) fn compile(graph: &Graph, dtypes: &[DType], target: Target) -> Program {
    let mut lowering = Lowering {
        graph,
        dtypes,
        target,
        uses: graph.uses(),
        readers: readers(graph),
        beyond: beyond_states(graph),
        defined: Vec::new(),
        ready: vec![false; graph.nodes().len()],
        done: vec![false; graph.nodes().len()],
        values: vec![None; graph.nodes().len()],
        packed: HashMap::new(),
        tables: Vec::new(),
        program: Program {
            steps: Vec::new(),
            buffers: Vec::new(),
            ropes: Vec::new(),
            layers: Vec::new(),
            attention_kinds: Vec::new(),
            arena: 0,
            output: BufferId(0),
            states: None,
            given: Vec::new(),
            results: Vec::new(),
            carried: Vec::new(),
            attends: Vec::new(),
            biases: Vec::new(),
        },
    };
    for value in graph.values() {
        lowering.lower(value);
        for defined in lowering.defined.drain(..) {
            lowering.ready[defined.index()] = true;
        }
    }
    lowering.finish()
}

/// The nodes that read each value, in order.
fn readers(graph: &Graph) -> Vec<Vec<Value>> {
    let mut readers = vec![Vec::new(); graph.nodes().len()];
    for value in graph.values() {
        for input in &graph.node(value).inputs {
            readers[input.index()].push(value);
        }
    }
    readers
}

/// Which nodes only logits need: those that depend on the states.
fn beyond_states(graph: &Graph) -> Vec<bool> {
    let mut beyond = vec![false; graph.nodes().len()];
    for value in graph.values() {
        let mut inputs = graph.node(value).inputs.iter();
        beyond[value.index()] = inputs.any(|&input| beyond[input.index()] || graph.states() == Some(input));
    }
    beyond
}

struct Lowering<'a> {
    graph: &'a Graph,
    dtypes: &'a [DType],
    target: Target,
    uses: Vec<usize>,
    readers: Vec<Vec<Value>>,
    /// Nodes that only rows that want logits have.
    beyond: Vec<bool>,
    /// Values that have a buffer since the last node was lowered: another step may not read them yet.
    defined: Vec<Value>,
    /// Values that an earlier step has computed.
    ready: Vec<bool>,
    /// Nodes that need no step of their own any more.
    done: Vec<bool>,
    values: Vec<Option<BufferId>>,
    packed: HashMap<(Value, Packing), BufferId>,
    /// The rope tables' buffers, by rope kind.
    tables: Vec<BufferId>,
    program: Program,
}

impl Lowering<'_> {
    fn lower(&mut self, value: Value) {
        if self.done[value.index()] {
            return;
        }
        let node = self.graph.node(value);
        match node.op {
            Op::Linear { .. } => return self.lower_linear(value),
            Op::ExpertLinear { .. } => return self.lower_expert_linear(value),
            Op::Rope { rope, factors } => {
                return self.lower_rope(value, RopeKind::Sequence { rope, factors });
            }
            Op::GridRope(rope) => return self.lower_rope(value, RopeKind::Grid(rope)),
            Op::Conv3d { .. } => return self.lower_conv(value),
            Op::Attention(_) if self.rows_of(value) != Rows::Tokens => self.lower_attend(value),
            Op::Attention(_) => self.lower_attention(value),
            Op::Input(_)
            | Op::Parameter { .. }
            | Op::Columns(_)
            | Op::MulAdd
            | Op::TimestepEmbed
            | Op::Unfold(_) => self.lower_given(value),
            Op::Embed { table, lookup } => {
                let out = self.define(value);
                self.push(value, Kind::Embed { table, lookup, out });
            }
            Op::RmsNorm { weight, eps } => self.lower_norm(value, NormKind::Rms(weight), eps),
            Op::LayerNorm { affine, eps } => self.lower_norm(value, NormKind::Layer(affine), eps),
            Op::Route(routing) => {
                let (scores, out) = (self.operand(node.inputs[0]), self.define(value));
                self.push(value, Kind::Route { scores, routing, out });
            }
            Op::Combine => {
                let [y, routes] = [0, 1].map(|i| self.operand(node.inputs[i]));
                let used = self.routing(node.inputs[1]).used;
                let out = self.define(value);
                self.push(value, Kind::Combine { y, routes, used, out });
            }
            Op::Rows => {
                let (x, out) = (self.operand(node.inputs[0]), self.define(value));
                self.push(value, Kind::Rows { x, out });
            }
            Op::Add => self.lower_zip(value, Binary::Add),
            Op::Mul => self.lower_zip(value, Binary::Mul),
            Op::Scale(_) | Op::Offset(_) | Op::Silu | Op::GeluTanh | Op::GeluErf | Op::Softcap(_) => {
                let op = unary(&node.op).expect("an elementwise operator");
                let (x, out) = (self.operand(node.inputs[0]), self.define(value));
                self.push(value, Kind::Map { op, x, out });
            }
        }
        self.done[value.index()] = true;
    }

    fn lower_norm(&mut self, value: Value, norm: NormKind, eps: f32) {
        let (x, out) = (self.operand(self.graph.node(value).inputs[0]), self.define(value));
        let group = match norm {
            NormKind::Rms(weight) => self.graph.weight(weight).shape[0],
            NormKind::Layer(_) => self.program.buffer(x).width,
        };
        self.push(value, Kind::Norm { x, norm, group, eps, out });
    }

    fn lower_zip(&mut self, value: Value, op: Binary) {
        let inputs = &self.graph.node(value).inputs;
        let (a, b) = (self.operand(inputs[0]), self.operand(inputs[1]));
        let out = self.define(value);
        self.push(value, Kind::Zip { op, a, b, out });
    }

    /// All linear layers of the same input in one step.
    fn lower_linear(&mut self, value: Value) {
        let x = self.graph.node(value).inputs[0];
        let mut parts = Vec::new();
        for i in 0..self.readers[x.index()].len() {
            let other = self.readers[x.index()][i];
            if matches!(self.graph.node(other).op, Op::Linear { .. }) && !self.done[other.index()] {
                parts.push(self.linear_part(other));
            }
        }
        let ranges = split_panels(&parts, self.target.threads);
        self.push(value, Kind::Linear { parts, ranges });
    }

    /// A linear layer of each token's experts.
    fn lower_expert_linear(&mut self, value: Value) {
        let inputs = self.graph.node(value).inputs.clone();
        let (routes, routing) = (self.operand(inputs[1]), self.routing(inputs[1]));
        let share = if self.rows_of(inputs[0]) == Rows::Tokens { routing.used } else { 1 };
        let part = self.linear_part(value);
        let panels = part.outputs.div_ceil(PANEL);
        let threads = self.target.threads;
        let ranges = (0..threads).map(|t| panels * t / threads..panels * (t + 1) / threads).collect();
        self.push(value, Kind::ExpertLinear { part, routes, routing, share, ranges });
    }

    /// How routes were made.
    fn routing(&self, routes: Value) -> Routing {
        match self.graph.node(routes).op {
            Op::Route(routing) => routing,
            _ => unreachable!("checked when the graph was built"),
        }
    }

    /// One linear layer, with what follows it where that can be fused.
    fn linear_part(&mut self, value: Value) -> Part {
        let fused = self.gated(value).or_else(|| self.residual(value)).or_else(|| self.mapped(value));
        // Of a gated pair the layer that is multiplied, whichever of the two was met first.
        let (main, result, then) = fused.unwrap_or((value, value, Then::Store));
        let (weight, bias) =
            linear_weights(&self.graph.node(main).op).expect("what is fused is fused around a linear layer");
        self.done[value.index()] = true;
        self.done[main.index()] = true;
        self.done[result.index()] = true;
        let dtype = self.dtypes[weight.index()];
        let MatrixShape { outputs, inputs, .. } = MatrixShape::of(&self.graph.weight(weight).shape);
        let x = self.operand_as(self.graph.node(value).inputs[0], packing_of(dtype, self.target.pairs));
        let out = self.define(result);
        Part { weight, bias, dtype, inputs, outputs, x, out, then }
    }

    /// `linear` whose only reader adds a value that is there already.
    fn residual(&self, linear: Value) -> Option<(Value, Value, Then)> {
        let add = self.only_consumer(linear)?;
        let node = self.graph.node(add);
        if node.op != Op::Add || node.inputs[0] == node.inputs[1] {
            return None;
        }
        let other = if node.inputs[0] == linear { node.inputs[1] } else { node.inputs[0] };
        // A sibling in this very step is not there yet, whichever thread computes it.
        let residual = self.values[other.index()].filter(|_| self.ready[other.index()])?;
        Some((linear, add, Then::Add(residual)))
    }

    /// `linear` whose only reader is a function of each element.
    fn mapped(&self, linear: Value) -> Option<(Value, Value, Then)> {
        let map = self.only_consumer(linear)?;
        let op = unary(&self.graph.node(map).op)?;
        Some((linear, map, Then::Map(op)))
    }

    /// `activation(gate) * up`, both linear layers of one input, shape and dtype, read by nobody else. Returns up.
    fn gated(&mut self, linear: Value) -> Option<(Value, Value, Then)> {
        let consumer = self.only_consumer(linear)?;
        let product = match unary(&self.graph.node(consumer).op) {
            Some(_) => self.only_consumer(consumer)?,
            None => consumer,
        };
        let node = self.graph.node(product);
        if node.op != Op::Mul {
            return None;
        }
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let (activated, up) = if unary(&self.graph.node(a).op).is_some() { (a, b) } else { (b, a) };
        let activation = unary(&self.graph.node(activated).op)?;
        let gate = *self.graph.node(activated).inputs.first()?;
        for value in [activated, gate, up] {
            self.only_consumer(value)?;
        }
        let (weight, bias) = linear_weights(&self.graph.node(gate).op)?;
        let (up_weight, _) = linear_weights(&self.graph.node(up).op)?;
        let same = self.dtypes[weight.index()] == self.dtypes[up_weight.index()]
            && self.graph.weight(weight).shape == self.graph.weight(up_weight).shape
            && self.graph.node(gate).inputs == self.graph.node(up).inputs;
        if !same || self.done[gate.index()] || self.done[up.index()] {
            return None;
        }
        self.done[gate.index()] = true;
        self.done[activated.index()] = true;
        Some((up, product, Then::Gate { weight, bias, activation }))
    }

    fn only_consumer(&self, value: Value) -> Option<Value> {
        self.readers[value.index()].first().copied().filter(|_| self.uses[value.index()] == 1)
    }

    fn lower_rope(&mut self, value: Value, kind: RopeKind) {
        let input = self.graph.node(value).inputs[0];
        let x = self.operand(input);
        let rope = match self.program.ropes.iter().position(|r| *r == kind) {
            Some(rope) => rope,
            None => {
                let rope = self.program.ropes.len();
                let out = self.buffer(Packing::F32, self.rows_of(value), kind.head().1);
                self.program.ropes.push(kind);
                self.tables.push(out);
                rope
            }
        };
        let x = if self.uses[input.index()] == 1 {
            x
        } else {
            let out = self.define(value);
            self.push(value, Kind::Copy { x, out });
            out
        };
        self.values[value.index()] = Some(x);
        self.defined.push(value);
        self.push(value, Kind::Rope { rope, table: self.tables[rope], x });
        self.done[value.index()] = true;
    }

    fn lower_attention(&mut self, value: Value) {
        let node = self.graph.node(value);
        let Op::Attention(attention) = node.op else { unreachable!("called for attention") };
        let heads = Heads::new(attention);
        let kinds = &mut self.program.attention_kinds;
        let kind = kinds.iter().position(|k| *k == heads).unwrap_or_else(|| {
            kinds.push(heads);
            kinds.len() - 1
        });
        let layer = self.program.layers.len();
        let bias = self.bias(attention.bias, attention.heads, self.target.context);
        self.program.layers.push(Layer { heads, kind, bias });
        let [q, k, v] = [0, 1, 2].map(|i| self.operand(node.inputs[i]));
        self.push(value, Kind::Cache { layer, k, v });
        let out = self.define(value);
        self.push(value, Kind::Attention { layer, q, out });
    }

    /// The bias of scores, if there is one, shared by all layers that have the same.
    fn bias(&mut self, bias: ScoreBias, heads: usize, keys: usize) -> Option<usize> {
        if bias == ScoreBias::None {
            return None;
        }
        let (kind, biases) = (BiasKind { bias, heads, keys }, &mut self.program.biases);
        Some(biases.iter().position(|other| *other == kind).unwrap_or_else(|| {
            biases.push(kind);
            biases.len() - 1
        }))
    }

    /// Where a computed value is, in F32.
    fn operand(&self, value: Value) -> BufferId {
        self.values[value.index()].expect("inputs come before their readers")
    }

    /// The same in another form; packs it if nobody has.
    fn operand_as(&mut self, value: Value, packing: Packing) -> BufferId {
        let x = self.operand(value);
        if packing == Packing::F32 {
            return x;
        }
        if let Some(&packed) = self.packed.get(&(value, packing)) {
            return packed;
        }
        let Buffer { rows, width, .. } = *self.program.buffer(x);
        let out = self.buffer(packing, rows, width);
        self.push(value, Kind::Pack { x, out });
        self.packed.insert((value, packing), out);
        out
    }

    fn define(&mut self, value: Value) -> BufferId {
        let width = self.graph.node(value).shape.width().expect("values have a fixed width");
        let id = self.buffer(Packing::F32, self.rows_of(value), width);
        self.values[value.index()] = Some(id);
        self.defined.push(value);
        id
    }

    fn buffer(&mut self, packing: Packing, rows: Rows, width: usize) -> BufferId {
        let capacity = match rows {
            Rows::Tokens => self.target.rows,
            Rows::Slots(used) => self.target.rows * used,
            Rows::Fixed(rows) => rows,
            // What comes in one step may all want states.
            Rows::Picked if self.graph.states().is_some() => self.target.rows,
            Rows::Picked | Rows::Logits => self.target.picked,
        };
        self.program.buffers.push(Buffer { packing, rows, width, offset: 0, capacity });
        BufferId(self.program.buffers.len() - 1)
    }

    fn rows_of(&self, value: Value) -> Rows {
        match *self.graph.node(value).shape.dims() {
            [Dim::Picked, ..] if self.beyond[value.index()] => Rows::Logits,
            [Dim::Picked, ..] => Rows::Picked,
            [Dim::Tokens, Dim::Fixed(used), _] => Rows::Slots(used),
            _ => self.graph.node(value).shape.known_rows().map_or(Rows::Tokens, Rows::Fixed),
        }
    }

    fn push(&mut self, value: Value, kind: Kind) {
        let rows = self.rows_of(value);
        let block = self.graph.node(value).block.clone();
        self.program.steps.push(Step { kind, rows, block, barrier: true });
    }

    fn finish(mut self) -> Program {
        let tables: Vec<Step> = self
            .tables
            .iter()
            .enumerate()
            .map(|(rope, &out)| Step {
                kind: Kind::RopeTable { rope, out },
                rows: self.program.buffer(out).rows,
                block: String::new(),
                barrier: true,
            })
            .collect();
        self.program.steps.splice(0..0, tables);
        let steps = &mut self.program.steps;
        for i in (0..steps.len()).rev() {
            // The first step starts with the job; row-local ones go on without waiting. Rows of another kind may
            // belong to another thread.
            let follows = i > 0
                && steps[i].kind.is_row_local()
                && steps[i - 1].rows == steps[i].rows
                && (steps[i - 1].kind.is_row_local() || matches!(steps[i - 1].kind, Kind::Rows { .. }));
            steps[i].barrier = i > 0 && !follows;
        }
        self.program.results = self.graph.outputs().iter().map(|&value| self.operand(value)).collect();
        self.program.output = self.operand(self.graph.output());
        self.program.states = self.graph.states().map(|states| self.operand(states));
        let kept: Vec<BufferId> = self.program.results.iter().copied().chain(self.program.states).collect();
        let Program { steps, buffers, given, .. } = &mut self.program;
        self.program.arena = arena::lay_out(steps, buffers, given, &kept);
        self.program
    }
}

/// Matrix and bias of a linear layer, an expert's too.
fn linear_weights(op: &Op) -> Option<(WeightId, Option<WeightId>)> {
    match *op {
        Op::Linear { weight, bias } => Some((weight, bias)),
        Op::ExpertLinear { weight } => Some((weight, None)),
        _ => None,
    }
}

fn unary(op: &Op) -> Option<Unary> {
    match *op {
        Op::Silu => Some(Unary::Silu),
        Op::GeluTanh => Some(Unary::GeluTanh),
        Op::GeluErf => Some(Unary::GeluErf),
        Op::Scale(c) => Some(Unary::Scale(c)),
        Op::Offset(c) => Some(Unary::Offset(c)),
        Op::Softcap(c) => Some(Unary::Softcap(c)),
        _ => None,
    }
}

/// Shares the panels of all parts among the threads by their bytes: `[thread][part]`.
fn split_panels(parts: &[Part], threads: usize) -> Vec<Vec<Range<usize>>> {
    let costs: Vec<(usize, usize)> = parts
        .iter()
        .map(|part| {
            let matrices = if matches!(part.then, Then::Gate { .. }) { 2 } else { 1 };
            let panels = part.outputs.div_ceil(PANEL);
            let shape = MatrixShape { experts: 1, outputs: PANEL, inputs: part.inputs };
            (panels, matrices * Matrix::planned_bytes(part.dtype, shape))
        })
        .collect();
    let total: usize = costs.iter().map(|(panels, cost)| panels * cost).sum();
    // The panel of each part at which a share of the total cost ends.
    let ends = |thread: usize| -> Vec<usize> {
        let mut left = total * thread / threads;
        costs
            .iter()
            .map(|&(panels, cost)| {
                let end = (left / cost).min(panels);
                left = if end < panels { 0 } else { left - panels * cost };
                end
            })
            .collect()
    };
    (0..threads)
        .map(|thread| ends(thread).into_iter().zip(ends(thread + 1)).map(|(from, to)| from..to).collect())
        .collect()
}
