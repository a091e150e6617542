//! Graph to static schedule to bits: reference arithmetic, its SIMD twins, the thread team.
//!
//! This crate knows no architecture and no request: it lowers a [`wushi_graph::Graph`] to a fixed schedule and runs
//! batches of tokens through it. [`mod@reference`] says what every operator means; kernels equal it to the last bit.

// Kernels count lanes and rows of several arrays at once; an iterator over one of them would hide that.
#![allow(clippy::needless_range_loop)]

mod activations;
mod arena;
mod batch;
mod compile;
mod cost;
mod executor;
mod follow;
mod functions;
mod given;
mod isa;
mod kernels;
pub mod math;
mod memory;
mod model;
mod probe;
mod program;
pub mod reference;
mod rope_table;
mod row_local;
mod run;
mod score_table;
mod scratch;
mod simd;
mod step;
mod team;
mod turns;
mod weights;

pub use cost::Costs;
pub use executor::{CpuError, CpuExecutor, MemoryPlan, Options, page_bytes, plan, schedule};
pub use follow::Follow;
pub use functions::{CpuFunctions, FunctionOptions, function_schedule, plan_functions};
pub use isa::InstructionSet;
pub use kernels::PAGE_TOKENS;
pub use probe::Probe;
pub use program::StepCost;
pub use run::StepTime;
pub use team::Team;
pub use weights::{SEGMENT, WeightError};

/// Version of the arithmetic: part of every fingerprint. Two versions may differ in bits, one never does.
pub const ARITHMETIC_VERSION: u32 = 2;
