//! A checkpoint's weights, as they are stored or quantised anew on their way.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use wushi_cpu::Team;
use wushi_formats::Checkpoint;
use wushi_formats::gguf::GgmlType;
use wushi_graph::{DType, Graph, Lookup, Op, ReadError, Role, TensorDesc, WeightId, WeightSource};
use wushi_quant::storage;

use crate::retyped::Retyped;

/// What a checkpoint gives a model. Nothing is read before it is asked for, and one tensor at a time.
#[derive(Debug)]
pub struct Weights {
    retyped: Retyped<Checkpoint>,
    /// What was wanted and could not be: for people.
    instead: Option<String>,
}

impl Weights {
    /// As they are stored.
    pub fn stored(checkpoint: Checkpoint) -> Weights {
        Weights { retyped: Retyped::new(checkpoint, HashMap::new(), None), instead: None }
    }

    /// Those of `graph` quantised to `wanted`, as far as that is sensible (see [`storage`]), by a team, or by whoever reads
    /// them.
    pub fn quantised(checkpoint: Checkpoint, graph: &Graph, wanted: DType, team: Option<Team>) -> Weights {
        let logits = logits_weight(graph).map(|id| graph.weight(id).name.as_str());
        let kept = kept(graph);
        let mut changed = HashMap::new();
        let mut given = BTreeMap::<DType, usize>::new();
        for decl in graph.weights() {
            let Some(TensorDesc { dtype, shape }) = checkpoint.describe(&decl.name) else { continue };
            let row = shape.last().copied().unwrap_or(1);
            if kept.contains(decl.name.as_str()) {
                continue;
            }
            let becomes = storage(decl.role, logits == Some(decl.name.as_str()), wanted, row);
            if decl.role != Role::Vector {
                *given.entry(becomes).or_default() += 1;
            }
            if becomes != dtype && decl.role != Role::Vector {
                changed.insert(decl.name.clone(), becomes);
            }
        }
        Weights { retyped: Retyped::new(checkpoint, changed, team), instead: instead(wanted, &given) }
    }

    /// Which matrices have another type than was wanted, in a sentence; `None` if all have it.
    pub fn instead(&self) -> Option<&str> {
        self.instead.as_deref()
    }

    /// The files.
    pub fn checkpoint(&self) -> &Checkpoint {
        self.retyped.source()
    }

    /// The type that a tensor is given as.
    pub fn ggml_type(&self, name: &str) -> Option<GgmlType> {
        let stored = self.checkpoint().tensor_info(name)?.ggml_type;
        Some(self.retyped.changed().get(name).map_or(stored, |&dtype| dtype.into()))
    }

    /// The type that most elements are given as.
    pub fn main_type(&self) -> Option<GgmlType> {
        let mut totals = HashMap::<GgmlType, u64>::new();
        for tensor in self.checkpoint().tensors() {
            let given =
                self.retyped.changed().get(&tensor.name).map_or(tensor.ggml_type, |&dtype| dtype.into());
            *totals.entry(given).or_default() += tensor.elements() as u64;
        }
        totals.into_iter().max_by_key(|&(given, elements)| (elements, given)).map(|(given, _)| given)
    }

    /// Whether any tensor changes its type.
    pub fn changes(&self) -> bool {
        !self.retyped.changed().is_empty()
    }
}

/// How many matrices have which type rather than the one that was wanted.
pub(crate) fn instead(wanted: DType, given: &BTreeMap<DType, usize>) -> Option<String> {
    let all: usize = given.values().sum();
    let others: Vec<String> = given
        .iter()
        .filter(|&(&dtype, _)| dtype != wanted)
        .map(|(dtype, count)| format!("{count} are {dtype}"))
        .collect();
    let others = others.join(", ");
    let why = "as the length of their rows or their place at the output asks for";
    (!others.is_empty()).then(|| format!("of {all} matrices {others} instead of {wanted}, {why}"))
}

/// Weights that keep their type, as in llama.cpp (`src/llama-quant.cpp`, MIT): routers, whose least error sends a token
/// to another expert, and small tables that are looked up otherwise than by token.
fn kept(graph: &Graph) -> HashSet<&str> {
    let mut kept = HashSet::new();
    for node in graph.nodes() {
        let id = match node.op {
            Op::Embed { table, lookup: Lookup::Position | Lookup::Row(_) } => table,
            Op::Route(_) => match graph.node(node.inputs[0]).op {
                Op::Linear { weight, .. } => weight,
                _ => continue,
            },
            _ => continue,
        };
        kept.insert(graph.weight(id).name.as_str());
    }
    kept
}

impl WeightSource for Weights {
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>> {
        self.retyped.describe(name)
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        self.retyped.read(name)
    }

    fn release(&self, name: &str) {
        self.retyped.release(name);
    }
}

/// The matrix whose rows give the logits.
fn logits_weight(graph: &Graph) -> Option<WeightId> {
    let mut value = graph.output();
    loop {
        let node = graph.node(value);
        match node.op {
            Op::Linear { weight, .. } => return Some(weight),
            Op::Softcap(_) | Op::Scale(_) => value = *node.inputs.first()?,
            _ => return None,
        }
    }
}
