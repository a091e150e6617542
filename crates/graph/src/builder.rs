//! Describing a model: one call per operator, shapes checked at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use crate::{
    Attention, Dim, Graph, Input, Lookup, Mask, Node, Op, Part, Role, Rope, RopeScaling, Routing, ScoreBias,
    Shape, Value, WeightDecl, WeightId,
};

/// A graph that does not fit together: which operator, where, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}{}: {reason}", At(.name))]
pub struct GraphError {
    /// The operator's name.
    pub op: &'static str,
    /// The weight it uses, or the block it stands in; may be empty.
    pub name: String,
    /// What does not fit, with the shapes.
    pub reason: String,
}

struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " `{}`", self.0) }
    }
}

/// Builds a [`Graph`]. Cheap to clone; [`Builder::block`] gives one that prefixes weight names.
///
/// ```
/// use wushi_graph::{Attention, Builder};
/// # fn main() -> Result<(), wushi_graph::GraphError> {
/// let g = Builder::new();
/// let mut x = g.embed("token_embd", 1000, 64)?;
/// let b = g.block("blk", 0);
/// let h = b.rms_norm(x, "attn_norm", 64, 1e-5)?;
/// let q = b.linear(h, "attn_q", 64)?;
/// let k = b.linear(h, "attn_k", 32)?;
/// let v = b.linear(h, "attn_v", 32)?;
/// let a = b.attention(q, k, v, Attention::causal(4, 2, 16))?;
/// x = b.add(x, b.linear(a, "attn_output", 64)?)?;
/// let logits = g.linear(g.rows(x)?, "output", 1000)?;
/// let graph = g.finish(logits)?;
/// assert_eq!(graph.weights()[1].name, "blk.0.attn_norm.weight");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    pub(crate) inner: Rc<RefCell<Inner>>,
    prefix: String,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    nodes: Vec<Node>,
    pub(crate) inputs: Vec<Input>,
    weights: Vec<WeightDecl>,
    /// Declared weights by name and part.
    declared: HashMap<(String, Option<Part>), WeightId>,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same graph, with weights named `name.index.…` from here on.
    pub fn block(&self, name: &str, index: usize) -> Builder {
        Builder { inner: Rc::clone(&self.inner), prefix: format!("{}{name}.{index}.", self.prefix) }
    }

    /// The finished graph, computing `output`.
    pub fn finish(&self, output: Value) -> Result<Graph, GraphError> {
        self.finished(&[output], None)
    }

    /// The finished graph, computing all of these, one at least.
    pub fn finish_all(&self, outputs: &[Value]) -> Result<Graph, GraphError> {
        self.finished(outputs, None)
    }

    /// The finished graph, computing `output` from the final `states` of the rows that want something: a step may be asked
    /// for these instead. A model that gives states alone has them as output, too.
    pub fn finish_with_states(&self, output: Value, states: Value) -> Result<Graph, GraphError> {
        let (shape, _) = self.input("finish", "", states)?;
        if shape.dims().first() != Some(&Dim::Picked) {
            return Err(self.error("finish", "", format!("states of {shape} are not those of picked rows")));
        }
        self.finished(&[output], Some(states))
    }

    fn finished(&self, outputs: &[Value], states: Option<Value>) -> Result<Graph, GraphError> {
        let inner = self.inner.borrow();
        if outputs.is_empty() {
            return Err(self.error("finish", "", "a graph must compute something".into()));
        }
        if outputs.iter().any(|output| inner.nodes.get(output.index()).is_none()) {
            return Err(self.error("finish", "", "the output belongs to another graph".into()));
        }
        Ok(Graph {
            nodes: inner.nodes.clone(),
            weights: inner.weights.clone(),
            inputs: inner.inputs.clone(),
            outputs: outputs.to_vec(),
            states,
        })
    }

    /// Looks up the batch's token ids in table `name.weight` of shape `[vocab, width]`.
    pub fn embed(&self, name: &str, vocab: usize, width: usize) -> Result<Value, GraphError> {
        self.lookup(name, vocab, width, Lookup::Token)
    }

    /// Looks up the tokens' positions in table `name.weight` of shape `[positions, width]`.
    pub fn embed_position(&self, name: &str, positions: usize, width: usize) -> Result<Value, GraphError> {
        self.lookup(name, positions, width, Lookup::Position)
    }

    /// Row `row` of table `name.weight`, of shape `[rows, width]`, for every token.
    pub fn embed_row(&self, name: &str, rows: usize, width: usize, row: usize) -> Result<Value, GraphError> {
        if row >= rows {
            return Err(self.error("embed", name, format!("row {row} of a table of {rows}")));
        }
        self.lookup(name, rows, width, Lookup::Row(row))
    }

    fn lookup(&self, name: &str, rows: usize, width: usize, lookup: Lookup) -> Result<Value, GraphError> {
        let table = self.weight("embed", name, "weight", &[rows, width], Role::Embedding)?;
        self.push(Op::Embed { table, lookup }, &[], Shape::tokens(width))
    }

    /// `x · Wᵀ`, with matrix `name.weight` of shape `[outputs, width of x]`.
    pub fn linear(&self, x: Value, name: &str, outputs: usize) -> Result<Value, GraphError> {
        self.linear_with(x, name, outputs, false)
    }

    /// [`Builder::linear`], plus `name.bias` of shape `[outputs]` if `bias`.
    pub fn linear_with(&self, x: Value, name: &str, outputs: usize, bias: bool) -> Result<Value, GraphError> {
        let (shape, width) = self.input("linear", name, x)?;
        let weight = self.weight("linear", name, "weight", &[outputs, width], Role::Matrix)?;
        let bias = match bias {
            true => Some(self.weight("linear", name, "bias", &[outputs], Role::Vector)?),
            false => None,
        };
        self.push(Op::Linear { weight, bias }, &[x], shape.with_width(outputs))
    }

    /// [`Builder::linear`] with the rows `rows` of a matrix `name.weight` that several layers share, of shape
    /// `[total, width of x]`.
    pub fn linear_rows(
        &self,
        x: Value,
        name: &str,
        rows: Range<usize>,
        total: usize,
    ) -> Result<Value, GraphError> {
        let (shape, width) = self.input("linear", name, x)?;
        if rows.is_empty() || rows.end > total {
            return Err(self.error("linear", name, format!("rows {rows:?} of a matrix of {total}")));
        }
        let outputs = rows.len();
        let part = Part { rows, total };
        let weight = self.declare("linear", name, "weight", &[outputs, width], Role::Matrix, Some(part))?;
        self.push(Op::Linear { weight, bias: None }, &[x], shape.with_width(outputs))
    }

    /// Elementwise sum.
    pub fn add(&self, a: Value, b: Value) -> Result<Value, GraphError> {
        self.elementwise(Op::Add, a, b)
    }

    /// Elementwise product.
    pub fn mul(&self, a: Value, b: Value) -> Result<Value, GraphError> {
        self.elementwise(Op::Mul, a, b)
    }

    /// `x * factor`.
    pub fn scale(&self, x: Value, factor: f32) -> Result<Value, GraphError> {
        self.unary(Op::Scale(factor), x)
    }

    /// RMS norm over consecutive groups of `group` elements (the whole width, or one head), with `name.weight`
    /// of shape `[group]`.
    pub fn rms_norm(&self, x: Value, name: &str, group: usize, eps: f32) -> Result<Value, GraphError> {
        let (shape, width) = self.input("rms_norm", name, x)?;
        if group == 0 || !width.is_multiple_of(group) {
            let reason = format!("a width of {width} cannot be cut into groups of {group}");
            return Err(self.error("rms_norm", name, reason));
        }
        let weight = self.weight("rms_norm", name, "weight", &[group], Role::Vector)?;
        self.push(Op::RmsNorm { weight, eps }, &[x], shape)
    }

    /// Layer norm over the whole width, with `name.weight` and `name.bias` of shape `[width]`.
    pub fn layer_norm(&self, x: Value, name: &str, eps: f32) -> Result<Value, GraphError> {
        let (shape, width) = self.input("layer_norm", name, x)?;
        let weight = self.weight("layer_norm", name, "weight", &[width], Role::Vector)?;
        let bias = self.weight("layer_norm", name, "bias", &[width], Role::Vector)?;
        self.push(Op::LayerNorm { affine: Some([weight, bias]), eps }, &[x], shape)
    }

    /// Layer norm over the whole width, without weight and bias.
    pub fn layer_norm_plain(&self, x: Value, eps: f32) -> Result<Value, GraphError> {
        let (shape, _) = self.input("layer_norm", "", x)?;
        self.push(Op::LayerNorm { affine: None, eps }, &[x], shape)
    }

    /// Rotates every head by its token's position.
    pub fn rope(&self, x: Value, rope: Rope) -> Result<Value, GraphError> {
        self.rope_op(x, rope, None)
    }

    /// [`Builder::rope`] with frequencies divided by the vector `name.weight` of shape `[rotary_dim / 2]`, which all
    /// blocks share: its name has no prefix.
    pub fn rope_with_factors(&self, x: Value, rope: Rope, name: &str) -> Result<Value, GraphError> {
        let shape = [rope.rotary_dim / 2];
        let root = Builder { inner: Rc::clone(&self.inner), prefix: String::new() };
        let factors = root.weight("rope", name, "weight", &shape, Role::Vector)?;
        self.rope_op(x, rope, Some(factors))
    }

    /// Attention of queries `[rows, heads * head_dim]` over keys and values `[rows, kv_heads * head_dim]`. Where no batch says
    /// which rows belong together, there may be other numbers of queries and keys.
    pub fn attention(&self, q: Value, k: Value, v: Value, attention: Attention) -> Result<Value, GraphError> {
        let fail = |reason: String| Err(self.error("attention", "", reason));
        let Attention { heads, kv_heads, head_dim, sequences, .. } = attention;
        if heads == 0 || kv_heads == 0 || head_dim == 0 || !heads.is_multiple_of(kv_heads) {
            return fail(format!("{heads} heads cannot share {kv_heads} key heads of {head_dim}"));
        }
        if attention.mask == Mask::SlidingWindow(0) {
            return fail("a sliding window of 0 tokens sees nothing".into());
        }
        let mut rows = [None; 3];
        let values = [("queries", q, heads), ("keys", k, kv_heads), ("values", v, kv_heads)];
        for (rows, (what, value, heads)) in rows.iter_mut().zip(values) {
            let shape = self.shape("attention", "", value)?;
            let wanted = heads.checked_mul(head_dim);
            *rows = shape.known_rows();
            if wanted.is_none() || shape.width() != wanted || (rows.is_none() && shape.dims().len() != 2) {
                return fail(format!("{what} have shape {shape}, expected [tokens, {heads} * {head_dim}]"));
            }
        }
        match rows {
            [None, None, None] if sequences == 1 && !matches!(attention.bias, ScoreBias::LastKey(_)) => {
                let of_tokens = |value| -> Result<bool, GraphError> {
                    Ok(self.shape("attention", "", value)?.dims().first() == Some(&Dim::Tokens))
                };
                if !(of_tokens(q)? && of_tokens(k)? && of_tokens(v)?) {
                    return fail("only all tokens of a batch attend to each other, not picked rows".into());
                }
            }
            [Some(q), Some(k), Some(v)] => {
                if k != v || sequences == 0 || !q.is_multiple_of(sequences) || !k.is_multiple_of(sequences) {
                    return fail(format!("{q} queries, {k} keys and {v} values in {sequences} sequences"));
                }
                if matches!(attention.bias, ScoreBias::Relative(_)) && q != k {
                    return fail(format!("{q} queries and {k} keys have no distances"));
                }
                if attention.mask != Mask::Full {
                    return fail("only rows of a batch have an order to mask by".into());
                }
            }
            _ => {
                return fail(
                    "queries, keys and values must all come from a batch, or none, in one sequence".into(),
                );
            }
        }
        if let ScoreBias::Relative(bias) = attention.bias
            && self
                .inner
                .borrow()
                .weights
                .get(bias.table.index())
                .is_none_or(|w| w.shape != [bias.buckets, heads])
        {
            return fail(format!(
                "the relative bias has no table of {} buckets and {heads} heads",
                bias.buckets
            ));
        }
        let shape = self.shape("attention", "", q)?;
        self.push(Op::Attention(attention), &[q, k, v], shape)
    }

    /// `x * sigmoid(x)`.
    pub fn silu(&self, x: Value) -> Result<Value, GraphError> {
        self.unary(Op::Silu, x)
    }

    /// The tanh form of GELU.
    pub fn gelu_tanh(&self, x: Value) -> Result<Value, GraphError> {
        self.unary(Op::GeluTanh, x)
    }

    /// The exact form of GELU.
    pub fn gelu_erf(&self, x: Value) -> Result<Value, GraphError> {
        self.unary(Op::GeluErf, x)
    }

    /// `cap * tanh(x / cap)`.
    pub fn softcap(&self, x: Value, cap: f32) -> Result<Value, GraphError> {
        self.unary(Op::Softcap(cap), x)
    }

    /// Chooses experts for every token by their `scores`, of shape `[tokens, experts]`.
    pub fn route(&self, scores: Value, routing: Routing) -> Result<Value, GraphError> {
        let shape = self.shape("route", "", scores)?;
        let Routing { experts, used, .. } = routing;
        if shape != Shape::tokens(experts) {
            return Err(self.error(
                "route",
                "",
                format!("scores have shape {shape}, expected [tokens, {experts}]"),
            ));
        }
        if used == 0 || used > experts {
            return Err(self.error("route", "", format!("{used} of {experts} experts cannot be used")));
        }
        self.push(Op::Route(routing), &[scores], Shape::tokens(2 * used))
    }

    /// `x · Wᵀ` with the matrices of each token's experts; `name.weight` has shape `[experts, outputs, width of x]`, and
    /// `x` one row per token, or one for each of its experts.
    pub fn expert_linear(
        &self,
        x: Value,
        routes: Value,
        name: &str,
        outputs: usize,
    ) -> Result<Value, GraphError> {
        let (shape, width) = self.input("expert_linear", name, x)?;
        let routing = self.routing("expert_linear", name, routes)?;
        let slots = |width| Shape::new([Dim::Tokens, Dim::Fixed(routing.used), Dim::Fixed(width)]);
        if shape != Shape::tokens(width) && shape != slots(width) {
            let reason =
                format!("{shape} has neither a row per token nor one for each of {} experts", routing.used);
            return Err(self.error("expert_linear", name, reason));
        }
        let shape = [routing.experts, outputs, width];
        let weight = self.weight("expert_linear", name, "weight", &shape, Role::Experts)?;
        self.push(Op::ExpertLinear { weight }, &[x, routes], slots(outputs))
    }

    /// The experts' results `y`, of shape `[tokens, used, width]`, weighted and summed: `[tokens, width]`.
    pub fn combine(&self, y: Value, routes: Value) -> Result<Value, GraphError> {
        let (shape, width) = self.input("combine", "", y)?;
        let used = self.routing("combine", "", routes)?.used;
        if shape.dims() != [Dim::Tokens, Dim::Fixed(used), Dim::Fixed(width)] {
            let reason = format!("{shape} has no row for each of {used} experts");
            return Err(self.error("combine", "", reason));
        }
        self.push(Op::Combine, &[y, routes], Shape::tokens(width))
    }

    /// How routes were made.
    fn routing(&self, op: &'static str, name: &str, routes: Value) -> Result<Routing, GraphError> {
        match self.inner.borrow().nodes.get(routes.index()).map(|node| node.op) {
            Some(Op::Route(routing)) => Ok(routing),
            _ => Err(self.error(op, name, "routes do not come from `route`".into())),
        }
    }

    /// The rows that want output.
    pub fn rows(&self, x: Value) -> Result<Value, GraphError> {
        let (shape, width) = self.input("rows", "", x)?;
        if shape.dims().first() != Some(&Dim::Tokens) {
            return Err(self.error("rows", "", format!("{shape} has no row per token")));
        }
        let picked = Shape::new([Dim::Picked, Dim::Fixed(width)]);
        self.push(Op::Rows, &[x], picked)
    }

    fn rope_op(&self, x: Value, rope: Rope, factors: Option<WeightId>) -> Result<Value, GraphError> {
        let (shape, width) = self.input("rope", "", x)?;
        let Rope { head_dim, rotary_dim, .. } = rope;
        if shape.dims().first() != Some(&Dim::Tokens) {
            return Err(self.error("rope", "", format!("{shape} has no row per token, so no positions")));
        }
        if head_dim == 0 || !width.is_multiple_of(head_dim) {
            let reason = format!("a width of {width} is no whole number of heads of {head_dim}");
            return Err(self.error("rope", "", reason));
        }
        if rotary_dim == 0 || rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
            let reason = format!("cannot rotate {rotary_dim} elements of a head of {head_dim}");
            return Err(self.error("rope", "", reason));
        }
        let positive = |x: f32| x > 0.0 && x.is_finite();
        let scaling = match rope.scaling {
            RopeScaling::None => true,
            RopeScaling::Linear(factor) => positive(factor),
            RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow } => {
                [factor, original_context, beta_fast, beta_slow].into_iter().all(positive) && rope.base > 1.0
            }
        };
        if !(positive(rope.base) && positive(rope.magnitude) && scaling) {
            let reason = format!(
                "base {}, magnitude {} and all of {:?} must be positive",
                rope.base, rope.magnitude, rope.scaling
            );
            return Err(self.error("rope", "", reason));
        }
        self.push(Op::Rope { rope, factors }, &[x], shape)
    }

    pub(crate) fn elementwise(&self, op: Op, a: Value, b: Value) -> Result<Value, GraphError> {
        let (left, right) = (self.shape(op.name(), "", a)?, self.shape(op.name(), "", b)?);
        if left != right {
            return Err(self.error(op.name(), "", format!("shapes {left} and {right} differ")));
        }
        self.push(op, &[a, b], left)
    }

    pub(crate) fn unary(&self, op: Op, x: Value) -> Result<Value, GraphError> {
        let shape = self.shape(op.name(), "", x)?;
        self.push(op, &[x], shape)
    }

    pub(crate) fn shape(&self, op: &'static str, name: &str, value: Value) -> Result<Shape, GraphError> {
        match self.inner.borrow().nodes.get(value.index()) {
            Some(node) => Ok(node.shape.clone()),
            None => Err(self.error(op, name, "an input belongs to another graph".into())),
        }
    }

    pub(crate) fn input(&self, op: &'static str, name: &str, x: Value) -> Result<(Shape, usize), GraphError> {
        let shape = self.shape(op, name, x)?;
        match shape.width() {
            Some(width) => Ok((shape, width)),
            None => Err(self.error(op, name, format!("{shape} has no fixed width"))),
        }
    }

    pub(crate) fn weight(
        &self,
        op: &'static str,
        name: &str,
        suffix: &str,
        shape: &[usize],
        role: Role,
    ) -> Result<WeightId, GraphError> {
        self.declare(op, name, suffix, shape, role, None)
    }

    /// Declares a weight. One name may be declared again (tied weights, shared factors) with the same shape.
    fn declare(
        &self,
        op: &'static str,
        name: &str,
        suffix: &str,
        shape: &[usize],
        role: Role,
        part: Option<Part>,
    ) -> Result<WeightId, GraphError> {
        if shape.contains(&0) {
            return Err(self.error(op, name, format!("weight shape {shape:?} is empty")));
        }
        if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_none() {
            return Err(self.error(op, name, format!("weight shape {shape:?} is beyond any memory")));
        }
        let full = format!("{}{name}.{suffix}", self.prefix);
        let mut inner = self.inner.borrow_mut();
        let key = (full.clone(), part.clone());
        if let Some(&id) = inner.declared.get(&key) {
            let declared = &inner.weights[id.index()].shape;
            if declared != shape {
                let reason = format!("declared as {declared:?} before, now as {shape:?}");
                return Err(self.error(op, name, reason));
            }
            return Ok(id);
        }
        let id = WeightId(inner.weights.len() as u32);
        inner.declared.insert(key, id);
        inner.weights.push(WeightDecl { name: full, shape: shape.to_vec(), role, part });
        Ok(id)
    }

    pub(crate) fn push(&self, op: Op, inputs: &[Value], shape: Shape) -> Result<Value, GraphError> {
        let mut inner = self.inner.borrow_mut();
        inner.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            shape,
            block: self.prefix.trim_end_matches('.').to_string(),
        });
        Ok(Value(inner.nodes.len() as u32 - 1))
    }

    pub(crate) fn error(&self, op: &'static str, name: &str, reason: String) -> GraphError {
        let name = format!("{}{name}", self.prefix);
        GraphError { op, name: name.trim_end_matches('.').to_string(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RopePairs;

    #[test]
    fn errors_name_operator_weight_and_shapes() {
        let g = Builder::new();
        let x = g.embed("token_embd", 10, 8).unwrap();
        let y = g.block("blk", 3).linear(x, "attn_q", 4).unwrap();
        let e = g.block("blk", 3).add(x, y).unwrap_err();
        assert_eq!(e.to_string(), "add `blk.3`: shapes [tokens, 8] and [tokens, 4] differ");
        let e = g.block("blk", 3).linear(y, "attn_q", 4).unwrap_err();
        assert_eq!(e.to_string(), "linear `blk.3.attn_q`: declared as [4, 8] before, now as [4, 4]");
        let e = g.attention(x, y, y, Attention::causal(2, 1, 3)).unwrap_err();
        assert_eq!(e.to_string(), "attention: queries have shape [tokens, 8], expected [tokens, 2 * 3]");
        let e = g.rms_norm(x, "norm", 3, 1e-5).unwrap_err();
        assert_eq!(e.to_string(), "rms_norm `norm`: a width of 8 cannot be cut into groups of 3");
    }

    #[test]
    fn tied_weights_are_declared_once() {
        let g = Builder::new();
        let x = g.embed("token_embd", 10, 8).unwrap();
        let logits = g.linear(g.rows(x).unwrap(), "token_embd", 10).unwrap();
        let graph = g.finish(logits).unwrap();
        assert_eq!(graph.weights().len(), 1);
        assert_eq!(graph.weights()[0].role, Role::Embedding);
        assert_eq!(graph.parameters(), 80);
        assert_eq!(graph.uses(), vec![1, 1, 1]);
    }

    #[test]
    fn experts_take_a_row_per_token_or_one_for_each() {
        let g = Builder::new();
        let x = g.embed("token_embd", 10, 8).unwrap();
        let routing = Routing { experts: 6, used: 2, normalise: true };
        let routes = g.route(g.linear(x, "router", 6).unwrap(), routing).unwrap();
        let h = g.expert_linear(x, routes, "up", 12).unwrap();
        let y = g.expert_linear(h, routes, "down", 8).unwrap();
        let graph = g.finish(g.combine(y, routes).unwrap()).unwrap();
        assert_eq!(graph.weight(WeightId(3)).shape, [6, 8, 12]);
        assert_eq!(graph.node(y).shape.to_string(), "[tokens, 2, 8]");
        let e = g.expert_linear(x, x, "up", 12).unwrap_err();
        assert_eq!(e.to_string(), "expert_linear `up`: routes do not come from `route`");
        let e = g.combine(x, routes).unwrap_err();
        assert_eq!(e.to_string(), "combine: [tokens, 8] has no row for each of 2 experts");
        let e = g.route(x, routing).unwrap_err();
        assert_eq!(e.to_string(), "route: scores have shape [tokens, 8], expected [tokens, 6]");
    }

    #[test]
    fn states_are_those_of_picked_rows() {
        let g = Builder::new();
        let x = g.embed("token_embd", 10, 8).unwrap();
        let states = g.rows(x).unwrap();
        let logits = g.linear(states, "token_embd", 10).unwrap();
        let graph = g.finish_with_states(logits, states).unwrap();
        assert_eq!((graph.output(), graph.states()), (logits, Some(states)));
        assert_eq!(graph.uses(), vec![1, 2, 1]);
        let e = g.finish_with_states(logits, x).unwrap_err();
        assert_eq!(e.to_string(), "finish: states of [tokens, 8] are not those of picked rows");
        assert!(Builder::new().finish_with_states(logits, states).is_err());
    }

    #[test]
    fn absurd_sizes_are_errors_not_overflows() {
        let g = Builder::new();
        assert!(g.embed("token_embd", usize::MAX, 8).is_err());
        assert!(g.embed("token_embd", 0, 8).is_err());
        let x = g.embed("token_embd", 10, 8).unwrap();
        assert!(g.attention(x, x, x, Attention::causal(usize::MAX, 1, 8)).is_err());
        let rope = Rope { rotary_dim: 9, ..Rope::plain(8, 1e4, RopePairs::Adjacent) };
        assert!(g.rope(x, rope).is_err());
    }
}
