//! Tiny checkpoints made with `transformers` (see `tools/`): the same logits, the same greedy continuations.

use std::path::PathBuf;

use serde_json::Value;
use wushi_cpu::{CpuExecutor, InstructionSet, Options};
use wushi_formats::Checkpoint;
use wushi_graph::{Batch, CacheType, Executor};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models")
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().expect("a list of ids");
    ids.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

fn executor(checkpoint: &Checkpoint, cache: CacheType) -> CpuExecutor {
    let model = wushi_models::build(checkpoint).expect("a supported model");
    let options = Options {
        threads: 2,
        instruction_set: InstructionSet::best(),
        cache,
        context: 2048,
        pages: 64,
        max_rows: 512,
        max_logit_rows: 512,
    };
    CpuExecutor::new(model.graph, checkpoint, options).expect("the model loads")
}

/// Logits of all tokens.
fn logits(executor: &mut CpuExecutor, tokens: &[u32]) -> Vec<f32> {
    let table: Vec<u32> = (0..64).collect();
    let mut all = Vec::new();
    for start in (0..tokens.len()).step_by(300) {
        let end = (start + 300).min(tokens.len());
        let mut batch = Batch::default();
        batch.push(&tokens[start..end], start, &table);
        batch.logit_rows.extend(0..end - start);
        all.extend_from_slice(executor.run(&batch).expect("a valid batch"));
    }
    all
}

/// max |a - b| / max |b|
fn distance(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    got.iter().zip(want).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// How far logits may be from those of `transformers` with the dequantised weights. F32 and F16 weights meet exact
/// activations; BF16 weights meet activations rounded to 8 bits, the block formats such rounded to int8.
fn bound(matrices: &str) -> f32 {
    match matrices {
        "F32" | "F16" => 1e-4,
        "BF16" => 2e-2,
        "Q4_0" | "Q4_1" | "Q8_0" => 6e-2,
        other => panic!("no bound for {other}"),
    }
}

fn check(name: &str) {
    let text = std::fs::read_to_string(fixtures().join(format!("{name}.json"))).expect("a fixture");
    let expected: Value = serde_json::from_str(&text).expect("valid JSON");
    let raw = std::fs::read(fixtures().join(expected["logits"].as_str().unwrap())).expect("a fixture");
    let raw = wushi_quant::dequantize(wushi_graph::DType::F32, &raw);
    let checkpoint =
        Checkpoint::open_gguf(fixtures().join(expected["gguf"].as_str().unwrap())).expect("a valid file");
    let vocab = expected["config"]["vocab"].as_u64().unwrap() as usize;
    let bound = bound(expected["matrices"].as_str().unwrap());
    let mut executor = executor(&checkpoint, CacheType::F32);
    for case in expected["cases"].as_array().unwrap() {
        let all = logits(&mut executor, &ids(&case["ids"]));
        let rows = ids(&case["rows"]);
        let got: Vec<f32> = rows.iter().flat_map(|&r| &all[r as usize * vocab..][..vocab]).copied().collect();
        let offset = case["offset"].as_u64().unwrap() as usize;
        let far = distance(&got, &raw[offset..offset + got.len()]);
        assert!(far <= bound, "{name}, {}: {far:e} is beyond {bound:e}", case["name"]);
        // Where the reference rounded activations as the contract does, only the order of sums is left.
        if let Some(offset) = case["rounded_offset"].as_u64() {
            let offset = offset as usize;
            let far = distance(&got, &raw[offset..offset + got.len()]);
            assert!(far <= 1e-4, "{name}, {} with rounded activations: {far:e}", case["name"]);
        }
    }
    let mut tokens = ids(&expected["greedy"]["prompt"]);
    let want = ids(&expected["greedy"]["ids"]);
    let start = tokens.len();
    for _ in &want {
        let all = logits(&mut executor, &tokens);
        let last = &all[all.len() - vocab..];
        let best = (0..vocab).fold(0, |best, id| if last[id] > last[best] { id } else { best });
        tokens.push(best as u32);
    }
    assert_eq!(tokens[start..], want, "{name}: greedy continuation");
}

macro_rules! checkpoints {
    ($($test:ident: $name:literal,)*) => {$(
        #[test]
        fn $test() {
            check($name);
        }
    )*};
}

checkpoints! {
    llama_f32: "llama-tiny-f32",
    llama_q8_0: "llama-tiny-q8_0",
    llama_q4_0: "llama-tiny-q4_0",
    llama_q4_1: "llama-tiny-q4_1",
    llama3_f16: "llama3-tiny-f16",
    llama3_bf16: "llama3-tiny-bf16",
}
