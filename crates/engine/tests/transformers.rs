//! Tiny checkpoints made with `transformers` (see `tools/`): the same logits, the same greedy continuations.

use std::path::PathBuf;

use serde_json::Value;
use wushi_cpu::{CpuExecutor, InstructionSet, Options, PAGE_TOKENS, reference};
use wushi_engine::Pooling;
use wushi_engine::load::{self, LoadOptions};
use wushi_formats::Checkpoint;
use wushi_graph::{Batch, CacheType, Executor};
use wushi_models::Positions;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models")
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().expect("a list of ids");
    ids.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// The same weights, as `transformers` saves them or as llama.cpp's converter writes them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Directory,
    Gguf,
}

impl Source {
    fn key(self) -> &'static str {
        match self {
            Source::Directory => "directory",
            Source::Gguf => "gguf",
        }
    }
}

fn executor(checkpoint: &Checkpoint, context: usize) -> CpuExecutor {
    let positions = Positions { context, stretch: None };
    let model = wushi_models::build(checkpoint, &positions).expect("a supported model");
    let options = Options {
        threads: 2,
        instruction_set: InstructionSet::best(),
        cache: CacheType::F32,
        context,
        pages: context.div_ceil(PAGE_TOKENS),
        max_rows: 512,
        max_logit_rows: 512,
    };
    CpuExecutor::new(model.graph, checkpoint, options).expect("the model loads")
}

/// Logits of all tokens.
fn logits(executor: &mut CpuExecutor, tokens: &[u32]) -> Vec<f32> {
    let table: Vec<u32> = (0..executor.info().pages as u32).collect();
    let mut all = Vec::new();
    for start in (0..tokens.len()).step_by(300) {
        let end = (start + 300).min(tokens.len());
        let mut batch = Batch::default();
        batch.push(&tokens[start..end], start, &table);
        batch.logit_rows.extend(0..end - start);
        all.extend_from_slice(executor.run(&batch).expect("a valid batch").logits);
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

/// A fixture's expectations, and what its file or directory gives.
struct Fixture {
    name: &'static str,
    expected: Value,
    /// Logits of all cases.
    raw: Vec<f32>,
}

impl Fixture {
    fn read(name: &'static str) -> Fixture {
        let text = std::fs::read_to_string(fixtures().join(format!("{name}.json"))).expect("a fixture");
        let expected: Value = serde_json::from_str(&text).expect("valid JSON");
        let raw = std::fs::read(fixtures().join(expected["logits"].as_str().unwrap())).expect("a fixture");
        Fixture { name, expected, raw: wushi_quant::dequantize(wushi_graph::DType::F32, &raw) }
    }

    fn vocab(&self) -> usize {
        self.expected["config"]["vocab"].as_u64().unwrap() as usize
    }

    /// The expectations in a list that hold for a source, with the context each needs.
    fn expectations<'a>(
        &'a self,
        list: &'a Value,
        source: Source,
    ) -> impl Iterator<Item = (&'a Value, usize)> {
        let cases = list.as_array().into_iter().flatten();
        let trained = self.expected["config"]["context"].as_u64().unwrap();
        cases
            .filter(move |case| case["only"].as_str().is_none_or(|only| only == source.key()))
            .map(move |case| (case, case["context"].as_u64().unwrap_or(trained) as usize))
    }

    fn check(&self) {
        let mut sources = 0;
        for source in [Source::Directory, Source::Gguf] {
            if let Some(path) = self.expected[source.key()].as_str() {
                let checkpoint = wushi_models::open(&fixtures().join(path)).expect("a sound model");
                self.check_logits(&checkpoint, source);
                self.check_greedy(&checkpoint, source);
                sources += 1;
            }
        }
        assert!(sources > 0, "{}: nothing to check", self.name);
    }

    fn check_logits(&self, checkpoint: &Checkpoint, source: Source) {
        let (name, vocab) = (self.name, self.vocab());
        let bound = bound(self.expected["matrices"].as_str().unwrap());
        for (case, context) in self.expectations(&self.expected["cases"], source) {
            let tokens = ids(&case["ids"]);
            let all = logits(&mut executor(checkpoint, context.max(tokens.len())), &tokens);
            let rows = ids(&case["rows"]);
            let got: Vec<f32> =
                rows.iter().flat_map(|&r| &all[r as usize * vocab..][..vocab]).copied().collect();
            let offset = case["offset"].as_u64().unwrap() as usize;
            let far = distance(&got, &self.raw[offset..offset + got.len()]);
            assert!(far <= bound, "{name}, {source:?}, {}: {far:e} is beyond {bound:e}", case["name"]);
            // Where the reference rounded activations as the contract does, only the order of sums is left.
            if let Some(offset) = case["rounded_offset"].as_u64() {
                let offset = offset as usize;
                let far = distance(&got, &self.raw[offset..offset + got.len()]);
                assert!(
                    far <= 1e-4,
                    "{name}, {source:?}, {} with rounded activations: {far:e}",
                    case["name"]
                );
            }
        }
    }

    fn check_greedy(&self, checkpoint: &Checkpoint, source: Source) {
        let greedy = Value::from(vec![self.expected["greedy"].clone()]);
        let more = &self.expected["more_greedy"];
        for (case, context) in self.expectations(&greedy, source).chain(self.expectations(more, source)) {
            let (mut tokens, want) = (ids(&case["prompt"]), ids(&case["ids"]));
            let start = tokens.len();
            let mut executor = executor(checkpoint, context);
            for _ in &want {
                let all = logits(&mut executor, &tokens);
                let last = &all[all.len() - self.vocab()..];
                let best = (0..last.len()).fold(0, |best, id| if last[id] > last[best] { id } else { best });
                tokens.push(best as u32);
            }
            assert_eq!(tokens[start..], want, "{}, {source:?}: greedy continuation", self.name);
        }
    }
}

macro_rules! checkpoints {
    ($($test:ident: $name:literal,)*) => {$(
        #[test]
        fn $test() {
            Fixture::read($name).check();
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
    llama_linear: "llama-tiny-linear",
    llama_llama3: "llama-tiny-llama3",
    mistral: "mistral-tiny",
    qwen2: "qwen2-tiny",
    qwen2_untied: "qwen2-tiny-untied",
    qwen2_yarn: "qwen2-tiny-yarn",
    qwen3: "qwen3-tiny",
    qwen3moe: "qwen3moe-tiny",
    qwen3moe_raw: "qwen3moe-tiny-raw",
    gemma3: "gemma3-tiny",
    gemma3_linear: "gemma3-tiny-linear",
    gemma3_scalar: "gemma3-tiny-scalar",
    phi3: "phi-tiny",
    phi3_longrope: "phi-tiny-longrope",
}

/// Embeddings of text models are pooled states: those of `transformers` within rounding, those of the reference bit by
/// bit, whatever was asked before.
#[test]
fn states_of_text_models() {
    let text = std::fs::read_to_string(fixtures().join("../pooled.json")).expect("a fixture");
    let expected: Value = serde_json::from_str(&text).expect("valid JSON");
    let models = expected["models"].as_object().unwrap();
    assert!(models.len() >= 7);
    for (name, case) in models {
        let options = LoadOptions {
            cache: CacheType::F32,
            threads: Some(2),
            context: Some(256),
            ..LoadOptions::new(fixtures().join(name))
        };
        let plan = load::plan(&options).expect("a sound model");
        let (graph, tokens) = (plan.graph().clone(), ids(&case["ids"]));
        let checkpoint = wushi_models::open(&options.path).expect("a sound model");
        let states = graph.states().expect("a text model has states");
        let states = reference::evaluate_value(&graph, &checkpoint, &tokens, options.cache, states).unwrap();
        let width = graph.node(graph.states().unwrap()).shape.width().unwrap();
        let mean = (0..width).map(|i| {
            let sum: f64 = states.chunks(width).map(|state| f64::from(state[i])).sum();
            (sum / tokens.len() as f64) as f32
        });
        let engine = plan.load().expect("it loads").engine;
        assert_eq!(engine.embedding_width(), Some(width));
        for (pooling, key, want) in [
            (Pooling::Mean, "mean", mean.collect()),
            (Pooling::Last, "last", states[states.len() - width..].to_vec()),
        ] {
            let embed = || engine.embed(tokens.clone(), pooling).expect("an embedding").vector;
            let got = embed();
            assert_eq!(got, want, "{name}, {key}");
            assert_eq!(embed(), want, "{name}, {key}, again");
            let theirs: Vec<f32> = serde_json::from_value(case[key].clone()).expect("numbers");
            let far = distance(&got, &theirs);
            assert!(far <= 1e-4, "{name}: {key} is {far:e} apart");
        }
    }
}

/// Token ids, all states and the pooled embedding of an encoder's texts.
fn check_encoder(name: &str) {
    let text = std::fs::read_to_string(fixtures().join(format!("{name}.json"))).expect("a fixture");
    let expected: Value = serde_json::from_str(&text).expect("valid JSON");
    let raw = std::fs::read(fixtures().join(expected["states"].as_str().unwrap())).expect("a fixture");
    let raw = wushi_quant::dequantize(wushi_graph::DType::F32, &raw);
    let width = expected["config"]["width"].as_u64().unwrap() as usize;
    // The same folder without a word on pooling: the mean.
    let silent = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(fixtures().join(name)).expect("a fixture") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            std::fs::copy(&path, silent.path().join(path.file_name().unwrap())).expect("a copy");
        }
    }
    let paths = [
        (fixtures().join(name), "cls_offset"),
        (fixtures().join(format!("{name}.gguf")), "cls_offset"),
        (silent.path().to_owned(), "mean_offset"),
    ];
    for (path, pooled) in paths {
        let plan = load::plan(&LoadOptions::new(&path)).expect("a sound model");
        let mut loaded = plan.load_embedder().expect("it loads");
        let shared =
            load::plan(&LoadOptions::new(&path)).expect("a sound model").load_any(&|_| {}).expect("it loads");
        let pooling = shared.pooling.expect("an embedding model");
        let checkpoint = wushi_models::open(&path).expect("a sound model");
        let context = loaded.embedder.context();
        let cases = expected["cases"].as_array().unwrap();
        // Two texts in one sequence are not what embeddings are made of.
        for case in cases.iter().filter(|case| case["text"].is_string()) {
            let (what, tokens) = (format!("{}, {}", path.display(), case["name"]), ids(&case["ids"]));
            let encoded = loaded.tokenizer.encode(case["text"].as_str().unwrap(), true, false);
            assert_eq!(encoded.expect("text"), tokens, "{what}");
            let at = |key: &str| &raw[case[key].as_u64().unwrap() as usize..];
            let states = logits(&mut executor(&checkpoint, context), &tokens);
            let far = distance(&states, &at("offset")[..tokens.len() * width]);
            assert!(far <= 1e-4, "{what}: states are {far:e} apart");
            let embedding = loaded.embedder.embed(&tokens).expect("an embedding");
            let far = distance(&embedding, &at(pooled)[..width]);
            assert!(far <= 1e-4, "{what}: {pooled} is {far:e} apart");
            // An engine, which computes several texts a step, gives the same bits.
            assert_eq!(
                shared.engine.embed(tokens, pooling).expect("an embedding").vector,
                embedding,
                "{what}"
            );
        }
    }
}

#[test]
fn bert() {
    check_encoder("bert-tiny");
}
