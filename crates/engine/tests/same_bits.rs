//! The arithmetic contract, stamped for every family and storage type: whatever computes a model's logits, and in
//! whatever company, gives the reference's bits.
//!
//! A family's model is that of its tiny checkpoint with rows long enough for every storage type, its weights drawn at
//! random. Threads, instruction sets, chunks, other sequences in the batch, pages that are there already: none may show.

use std::path::PathBuf;

use wushi_cpu::{CpuExecutor, InstructionSet, Options, PAGE_TOKENS, reference};
use wushi_formats::gguf::{GgmlType, Writer};
use wushi_formats::{Checkpoint, Gguf};
use wushi_graph::{Batch, CacheType, DType, Executor, Graph, Mask, Op};
use wushi_models::{ModelError, Positions};

#[path = "../../cpu/tests/common/mod.rs"]
mod common;

use common::{Random, RandomWeights, assert_same_bits};

/// Tokens of a sequence: more than a page, and than the sliding windows of the checkpoints.
const LENGTH: usize = PAGE_TOKENS + 13;
/// Rows of every matrix have so many elements: a block of every type.
const ROW: u32 = 256;

/// Tokens are below this, which every checkpoint has.
const VOCABULARY: usize = 128;

/// The family's graph with long rows, as its own code describes it.
fn graph(fixture: &str) -> Graph {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models").join(fixture);
    // Of its folder, as the converter leaves Mistral's sliding window out.
    let path = if path.is_dir() { path } else { path.with_extension("gguf") };
    let tiny = wushi_models::open(&path).expect("a fixture");
    // Where layers differ, one of each kind; other families do not know the key.
    let graph = with_long_rows(&tiny, true).or_else(|_| with_long_rows(&tiny, false));
    graph.expect("a supported model")
}

/// The graph of two layers whose rows are long, the second of which sees everything if layers alternate.
fn with_long_rows(tiny: &Checkpoint, alternate: bool) -> Result<Graph, ModelError> {
    let architecture = tiny.metadata().require_str("general.architecture")?;
    let key = |key: &str| format!("{architecture}.{key}");
    let mut writer = Writer::new();
    for (key, value) in tiny.metadata().iter() {
        writer.set(key, value.clone());
    }
    let sizes = [
        ("block_count", 2),
        ("embedding_length", ROW),
        ("feed_forward_length", ROW),
        ("expert_feed_forward_length", ROW),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("attention.key_length", ROW / 4),
        ("attention.value_length", ROW / 4),
        ("rope.dimension_count", ROW / 4),
    ];
    for (name, size) in sizes.into_iter().filter(|(name, _)| tiny.metadata().get(&key(name)).is_some()) {
        writer.set(key(name), size);
    }
    if alternate {
        writer.set(key("attention.sliding_window_pattern"), 2u32);
    }
    // Of the tensors only names are read, and rows of tables.
    let zeros = vec![0; 4 << 20];
    let layer =
        |name: &str| name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    for tensor in tiny.tensors().iter().filter(|tensor| layer(&tensor.name).is_none_or(|layer| layer < 2)) {
        let bytes = &zeros[..4 * tensor.shape.iter().product::<usize>()];
        writer.tensor(tensor.name.clone(), GgmlType::from(DType::F32), &tensor.shape, bytes)?;
    }
    let bytes = writer.to_bytes().expect("it can be written");
    let checkpoint = Checkpoint::from_gguf(Gguf::from_bytes(bytes)?);
    Ok(wushi_models::build(&checkpoint, &Positions { context: LENGTH, stretch: None })?.graph)
}

/// Whether tokens see what comes after them, so that a sequence is computed in one piece.
fn is_encoder(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| matches!(node.op, Op::Attention(how) if how.mask == Mask::Full))
}

fn options(set: InstructionSet, threads: usize, cache: CacheType) -> Options {
    Options {
        threads,
        instruction_set: set,
        cache,
        context: LENGTH,
        pages: 4 * LENGTH.div_ceil(PAGE_TOKENS),
        max_rows: 4 * LENGTH,
        max_logit_rows: 4 * LENGTH,
    }
}

/// Pages of sequence `i`, in no particular order.
fn table(i: u32) -> Vec<u32> {
    (0..LENGTH.div_ceil(PAGE_TOKENS) as u32).rev().map(|page| page * 4 + i).collect()
}

struct Case {
    weights: RandomWeights,
    tokens: Vec<u32>,
    /// The reference's logits of all tokens.
    want: Vec<f32>,
    width: usize,
    what: String,
}

impl Case {
    /// All tokens in chunks, after another sequence had the pages.
    fn chunked(&self, executor: &mut CpuExecutor, chunk: usize) {
        let other: Vec<u32> = self.tokens.iter().rev().copied().collect();
        common::run(executor, &other, LENGTH, &table(0));
        let got = common::run(executor, &self.tokens, chunk, &table(0));
        assert_same_bits(&got, &self.want, &format!("{}, chunks of {chunk}", self.what));
    }

    /// The last tokens once more, on pages that are there already.
    fn warm(&self, executor: &mut CpuExecutor) {
        let mut batch = Batch::default();
        batch.push(&self.tokens[PAGE_TOKENS..], PAGE_TOKENS, &table(0));
        batch.logit_rows.extend(0..LENGTH - PAGE_TOKENS);
        let got = executor.run(&batch).expect("a valid batch").logits;
        assert_same_bits(got, &self.want[PAGE_TOKENS * self.width..], &format!("{}, warm pages", self.what));
    }

    /// Among three other sequences.
    fn among_others(&self, executor: &mut CpuExecutor) {
        let mut batch = Batch::default();
        for i in 0..4u32 {
            let tokens: Vec<u32> = match i {
                2 => self.tokens.clone(),
                _ => self.tokens.iter().skip(7 * i as usize).map(|token| token ^ i).collect(),
            };
            let start = batch.tokens.len();
            batch.push(&tokens, 0, &table(i));
            if i == 2 {
                batch.logit_rows.extend(start..start + tokens.len());
            }
        }
        let got = executor.run(&batch).expect("a valid batch").logits;
        assert_same_bits(got, &self.want, &format!("{}, among others", self.what));
    }
}

fn check(fixture: &str, dtype: DType, cache: CacheType) {
    let graph = graph(fixture);
    let mut random = Random(fixture.len() as u64 * 31 + dtype as u64);
    let weights = RandomWeights::new(&graph, dtype, &mut random);
    let tokens: Vec<u32> = (0..LENGTH).map(|_| random.below(VOCABULARY) as u32).collect();
    let want = reference::evaluate(&graph, &weights, &tokens, cache).expect("the reference computes it");
    let width = want.len() / LENGTH;
    let mut case = Case { weights, tokens, want, width, what: String::new() };
    for set in InstructionSet::available() {
        for threads in [1, 3] {
            let mut executor = CpuExecutor::new(graph.clone(), &case.weights, options(set, threads, cache))
                .expect("it loads");
            case.what = format!("{fixture} in {dtype}, cache {cache}, {set}, {threads} threads");
            case.among_others(&mut executor);
            case.chunked(&mut executor, LENGTH);
            if !is_encoder(&graph) {
                case.chunked(&mut executor, 11);
                case.warm(&mut executor);
            }
        }
    }
}

/// One test for each family: all storage types with the usual cache, all types of cache with one storage type.
macro_rules! families {
    ($($family:ident: $fixture:literal,)*) => {$(
        #[test]
        fn $family() {
            for &dtype in DType::ALL {
                check($fixture, dtype, CacheType::F16);
            }
            for cache in CacheType::ALL {
                check($fixture, DType::Q8_0, cache);
            }
        }
    )*};
}

families! {
    llama: "llama-tiny-llama3",
    mistral: "mistral-tiny",
    qwen2: "qwen2-tiny-yarn",
    qwen3: "qwen3-tiny",
    qwen3moe: "qwen3moe-tiny",
    gemma3: "gemma3-tiny",
    phi3: "phi-tiny",
    bert: "bert-tiny",
}
