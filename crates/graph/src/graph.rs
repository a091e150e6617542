//! A finished graph.

use crate::{Op, Shape, WeightDecl};

/// Index of a node, which is also the value it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

impl Value {
    /// Position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of a declared weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub(crate) u32);

impl WeightId {
    /// Position in [`Graph::weights`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operator applied to values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// From which values, all of earlier nodes.
    pub inputs: Vec<Value>,
    /// The result's shape.
    pub shape: Shape,
    /// Where in the model it stands, e.g. `blk.0`; empty outside a block.
    pub block: String,
}

/// What a model computes: nodes in order of computation, weights by declaration. Made by [`crate::Builder`], so
/// every shape has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) weights: Vec<WeightDecl>,
    pub(crate) inputs: Vec<Input>,
    /// Never empty.
    pub(crate) outputs: Vec<Value>,
    pub(crate) states: Option<Value>,
}

/// A value that is given at every run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// What errors and listings call it.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

impl Graph {
    /// All nodes; a node's inputs come before it.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that computes `value`.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.index()]
    }

    /// All declared weights.
    pub fn weights(&self) -> &[WeightDecl] {
        &self.weights
    }

    /// One declared weight.
    pub fn weight(&self, id: WeightId) -> &WeightDecl {
        &self.weights[id.index()]
    }

    /// The values that are given at every run, in the order of declaration.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The value the graph is for; of several, the first.
    pub fn output(&self) -> Value {
        self.outputs[0]
    }

    /// All values the graph is for.
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// The final states `[picked, width]` that the output is computed from, where the model says which value these are;
    /// the output itself where the model gives nothing else.
    pub fn states(&self) -> Option<Value> {
        self.states
    }

    /// Every node's value, in order.
    pub fn values(&self) -> impl Iterator<Item = Value> + use<> {
        (0..self.nodes.len() as u32).map(Value)
    }

    /// How many nodes read each value; output and states count as read once more.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for input in self.nodes.iter().flat_map(|n| &n.inputs) {
            uses[input.index()] += 1;
        }
        for value in self.outputs.iter().copied().chain(self.states) {
            uses[value.index()] += 1;
        }
        uses
    }

    /// Parameters: the sum of all weights' elements.
    pub fn parameters(&self) -> u64 {
        let elements = |w: &WeightDecl| w.shape.iter().map(|&n| n as u64).product::<u64>();
        self.weights.iter().map(elements).sum()
    }
}
