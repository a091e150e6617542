//! Kernels one by one, on one thread: each in the smallest schedule that has it. Items are multiply-adds, or elements where
//! there are none. Weights and activations lie in caches, so that decoding's bandwidth does not show.
//!
//! The environment's `WUSHI_ISA` names the instruction set, as for the program; without it the best there is.

#[path = "../tests/common/mod.rs"]
mod common;

use std::fmt;

use common::{Random, RandomWeights};
use divan::Bencher;
use divan::counter::ItemsCount;
use wushi_cpu::{CpuExecutor, CpuFunctions, FunctionOptions, InstructionSet, Options, PAGE_TOKENS};
use wushi_graph::{
    Attention, Batch, Builder, CacheType, DType, Executor, Functions, Graph, GraphError, Value,
};

fn main() {
    divan::main();
}

const ROWS: [usize; 4] = [1, 4, 16, 256];
const WIDTH: usize = 1536;
const OUTPUTS: usize = 2048;
/// How often a cheap step is repeated, so that handing over values does not count.
const CHAIN: usize = 16;

fn instruction_set() -> InstructionSet {
    match std::env::var("WUSHI_ISA") {
        Ok(name) => name.parse().expect("WUSHI_ISA names an instruction set"),
        Err(_) => InstructionSet::best(),
    }
}

/// Runs a graph of one input, `[rows, WIDTH]`.
fn function(
    bencher: Bencher<'_, '_>,
    rows: usize,
    dtype: DType,
    items: usize,
    build: impl Fn(&Builder, Value) -> Result<Value, GraphError>,
) {
    let g = Builder::new();
    let x = g.input_value("x", &[rows, WIDTH]).expect("a shape");
    let graph = build(&g, x).and_then(|y| g.finish(y)).expect("a graph");
    let mut random = Random(1);
    let weights = RandomWeights::new(&graph, dtype, &mut random);
    let x: Vec<f32> = (0..rows * WIDTH).map(|_| random.number()).collect();
    let options = FunctionOptions { threads: 1, instruction_set: instruction_set(), cache: CacheType::F16 };
    let mut functions = CpuFunctions::new(vec![graph], &weights, options).expect("weights for it");
    bencher.counter(ItemsCount::new(items)).bench_local(|| functions.run(0, &[&x]).expect("its input"));
}

/// A dtype and a number of rows.
#[derive(Clone, Copy)]
struct Case(DType, usize);

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} rows", self.0, self.1)
    }
}

fn cases() -> Vec<Case> {
    DType::ALL.iter().flat_map(|&dtype| ROWS.map(|rows| Case(dtype, rows))).collect()
}

/// A linear layer, the packing of its activations included.
#[divan::bench(args = cases())]
fn linear(bencher: Bencher<'_, '_>, Case(dtype, rows): Case) {
    function(bencher, rows, dtype, rows * WIDTH * OUTPUTS, |g, x| g.linear(x, "w", OUTPUTS));
}

/// Gate and up with their activation in one step.
#[divan::bench(args = ROWS)]
fn gated_linear_q4_k(bencher: Bencher<'_, '_>, rows: usize) {
    function(bencher, rows, DType::Q4_K, 2 * rows * WIDTH * OUTPUTS, |g, x| {
        g.mul(g.silu(g.linear(x, "gate", OUTPUTS)?)?, g.linear(x, "up", OUTPUTS)?)
    });
}

/// Activations in the form a weight's type takes; the one panel of weights behind it is a small part.
#[divan::bench(args = [DType::F32, DType::BF16, DType::Q8_0, DType::Q4_K])]
fn pack(bencher: Bencher<'_, '_>, dtype: DType) {
    let rows = 256;
    function(bencher, rows, dtype, rows * WIDTH, |g, x| g.linear(x, "w", 16));
}

/// The same step so often in a row.
fn chain(bencher: Bencher<'_, '_>, step: impl Fn(&Builder, Value, &str) -> Result<Value, GraphError>) {
    let rows = 64;
    function(bencher, rows, DType::F32, CHAIN * rows * WIDTH, |g, x| {
        (0..CHAIN).try_fold(x, |x, index| step(g, x, &format!("norm{index}")))
    });
}

#[divan::bench]
fn rms_norm(bencher: Bencher<'_, '_>) {
    chain(bencher, |g, x, name| g.rms_norm(x, name, WIDTH, 1e-6));
}

#[divan::bench]
fn layer_norm(bencher: Bencher<'_, '_>) {
    chain(bencher, |g, x, name| g.layer_norm(x, name, 1e-6));
}

#[divan::bench]
fn gelu(bencher: Bencher<'_, '_>) {
    chain(bencher, |g, x, _| g.gelu_tanh(x));
}

/// Sequences at once, the tokens that each has before, and the new tokens of each.
#[derive(Clone, Copy)]
struct Turn {
    sequences: usize,
    before: usize,
    tokens: usize,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} times {} tokens behind {}", self.sequences, self.tokens, self.before)
    }
}

const HEADS: usize = 16;
const KV_HEADS: usize = 4;
const HEAD_DIM: usize = 64;

/// Queries, keys and values from a table, and attention over them.
fn attention_graph() -> Result<Graph, GraphError> {
    let g = Builder::new();
    let table = |name: &str, heads: usize| g.embed(name, 8, heads * HEAD_DIM);
    let [q, k, v] = [table("q", HEADS)?, table("k", KV_HEADS)?, table("v", KV_HEADS)?];
    g.finish(g.rows(g.attention(q, k, v, Attention::causal(HEADS, KV_HEADS, HEAD_DIM))?)?)
}

/// Attention over pages in the cache's default type, with looking up and writing what it works on.
#[divan::bench(args = [
    Turn { sequences: 1, before: 0, tokens: 256 },
    Turn { sequences: 1, before: 4096, tokens: 256 },
    Turn { sequences: 1, before: 512, tokens: 1 },
    Turn { sequences: 1, before: 4096, tokens: 1 },
    Turn { sequences: 16, before: 160, tokens: 1 },
])]
fn attention(bencher: Bencher<'_, '_>, turn: Turn) {
    let Turn { sequences, before, tokens } = turn;
    let graph = attention_graph().expect("a graph");
    let weights = RandomWeights::new(&graph, DType::F32, &mut Random(1));
    let each = (before + tokens).div_ceil(PAGE_TOKENS);
    let options = Options {
        threads: 1,
        instruction_set: instruction_set(),
        cache: CacheType::F16,
        context: before + tokens,
        pages: sequences * each,
        max_rows: sequences * tokens,
        max_logit_rows: sequences,
    };
    let mut executor = CpuExecutor::new(graph, &weights, options).expect("weights for it");
    let mut batch = Batch::default();
    for sequence in 0..sequences {
        let pages: Vec<u32> = (sequence * each..(sequence + 1) * each).map(|page| page as u32).collect();
        let ids: Vec<u32> = (0..tokens).map(|token| (token % 8) as u32).collect();
        batch.push(&ids, before, &pages);
        batch.logit_rows.push(batch.tokens.len() - 1);
    }
    let keys: usize = (before..before + tokens).map(|position| position + 1).sum();
    let macs = 2 * sequences * keys * HEADS * HEAD_DIM;
    bencher.counter(ItemsCount::new(macs)).bench_local(|| {
        executor.run(&batch).expect("a batch of its size");
    });
}
