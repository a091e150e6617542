//! What a model computes: tensors, dtypes, operators, shapes. Runs nothing.
//!
//! This crate knows no model, no file and no device. A model ([`Graph`]) is described once with [`Builder`];
//! executors lower it, loaders read its weight declarations, planners count its operations.

mod builder;
mod builder_values;
mod dtype;
mod exec;
mod graph;
mod op;
mod shape;
mod weights;

pub use builder::{Builder, GraphError};
pub use dtype::DType;
pub use exec::{
    Batch, CacheType, Computed, ExecError, Executor, ExecutorInfo, Functions, PageId, Span, StatesInfo,
};
pub use graph::{Graph, Input, Node, Value, WeightId};
pub use op::{
    Attention, Conv, GridRope, Lookup, Mask, Op, RelativeBias, Rope, RopePairs, RopeScaling, Routing,
    ScoreBias, Unfold,
};
pub use shape::{Dim, Shape};
pub use weights::{Part, ReadError, Role, TensorDesc, TensorView, WeightDecl, WeightSource};
