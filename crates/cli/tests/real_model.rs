//! The default model itself, fetched once through `wushi pull`: right by its peers' figures, and the same bits whatever
//! the threads, chunks, neighbours, cache and instruction set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use wushi_cpu::{CpuExecutor, InstructionSet, Options, reference};
use wushi_engine::load::{LoadOptions, LoadedModel, plan};
use wushi_engine::{Output, Request, Sampling};
use wushi_formats::{Gguf, Tokenizer};
use wushi_graph::{Batch, CacheType, Executor};
use wushi_models::Positions;

/// Where models are kept between runs: the user's choice, else the build folder.
fn home() -> PathBuf {
    match std::env::var_os("WUSHI_HOME") {
        Some(home) => home.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("store"),
    }
}

fn wushi(arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wushi"));
    command.args(arguments).arg("--json").env("WUSHI_HOME", home()).current_dir(env!("CARGO_TARGET_TMPDIR"));
    let output = command.output().expect("the binary runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "wushi {arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// The model's file; the first test that asks fetches it.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let mut pull = Command::new(env!("CARGO_BIN_EXE_wushi"));
        let output =
            pull.args(["pull", "smollm2"]).env("WUSHI_HOME", home()).output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let store = wushi_hub::Store::open(home()).expect("the store opens");
        let name = wushi_hub::ModelRef::parse("smollm2").expect("in the catalogue");
        store.find(&name).expect("just pulled")
    })
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("a fixture")).expect("valid JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// The first tokens of an English text.
fn text_tokens(n: usize) -> Vec<u32> {
    static TOKENS: OnceLock<Vec<u32>> = OnceLock::new();
    let tokens = TOKENS.get_or_init(|| {
        let gguf = Gguf::open(model()).expect("a valid file");
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).expect("a known tokenizer");
        let text = fs::read_to_string(fixtures().join("text/english.txt")).expect("a fixture");
        tokenizer.encode(&text, false, false).expect("encodes")
    });
    tokens[..n].to_vec()
}

#[test]
fn perplexity_is_within_one_percent_of_llama_cpp() {
    let golden = json(fixtures().join("smollm2.json"));
    model();
    for text in ["english.txt", "chinese.txt"] {
        let file = fixtures().join("text").join(text);
        let got = wushi(&["perplexity", "smollm2", file.to_str().expect("UTF-8"), "--ctx", "512"]);
        let peer = golden["perplexity"][text]["default"]["perplexity"].as_f64().expect("a number");
        let ratio = got["perplexity"].as_f64().expect("a number") / peer;
        assert!((ratio - 1.0).abs() < 0.01, "{text}: {got} is {ratio} of {peer}");
        assert_eq!(got["windows"], golden["perplexity"][text]["windows"]);
    }
}

#[test]
fn token_ids_are_the_reference_tokenizers() {
    let gguf = Gguf::open(model()).expect("a valid file");
    let tokenizer = Tokenizer::from_gguf(gguf.metadata()).expect("a known tokenizer");
    let own =
        json(Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/smollm2_tokens.json"));
    for case in own.as_array().expect("cases") {
        let text = case["text"].as_str().expect("text");
        assert_eq!(tokenizer.encode(text, true, true).unwrap(), ids(&case["special"]), "{text:?}");
        assert_eq!(tokenizer.encode(text, true, false).unwrap(), ids(&case["plain"]), "{text:?}");
    }
    for case in json(fixtures().join("smollm2.json"))["tokens"].as_array().expect("cases") {
        let text = case["text"].as_str().expect("text");
        assert_eq!(tokenizer.encode(text, true, true).unwrap(), ids(&case["ids"]), "{text:?}");
    }
}

fn load(change: impl FnOnce(&mut LoadOptions)) -> LoadedModel {
    let mut options = LoadOptions::new(model());
    options.context = Some(1100);
    options.threads = Some(2);
    change(&mut options);
    plan(&options).expect("fits").load().expect("loads")
}

/// A prompt of `n` tokens, continued by `answer` sampled ones.
fn request(n: usize, answer: usize) -> Request {
    let mut request = Request::new(text_tokens(n));
    request.sampling = Sampling { temperature: 0.8, top_k: 40, ..Sampling::default() };
    request.seed = 11;
    request.max_tokens = Some(answer);
    request.digest = true;
    request
}

fn answer(model: &LoadedModel, request: Request) -> Output {
    model.engine.submit(request).expect("accepted").finish().expect("answered")
}

/// Prompts whose answers begin before and end after 512 and 1,024 positions, and a short one.
const LENGTHS: [usize; 3] = [20, 505, 1017];
const ANSWER: usize = 14;

fn baseline() -> &'static [Output] {
    static BASELINE: OnceLock<Vec<Output>> = OnceLock::new();
    BASELINE.get_or_init(|| {
        let model = load(|options| options.engine.prefix_cache = false);
        LENGTHS.iter().map(|&n| answer(&model, request(n, ANSWER))).collect()
    })
}

fn assert_same(got: &Output, want: &Output, what: &str) {
    assert_eq!(got.token_ids, want.token_ids, "{what}");
    assert_eq!(got.logits_digest, want.logits_digest, "{what}: logits");
    assert!(want.logits_digest.is_some());
}

#[test]
fn same_bits_for_threads_chunks_and_instruction_sets() {
    let mut cases: Vec<(String, LoadedModel)> = Vec::new();
    for threads in [1, 2, 3] {
        cases.push((format!("{threads} threads"), load(|o| o.threads = Some(threads))));
    }
    for chunk in [1, 7, 64] {
        cases.push((format!("chunks of {chunk}"), load(|o| o.engine.prefill_chunk = Some(chunk))));
    }
    for set in InstructionSet::available() {
        cases.push((set.to_string(), load(|o| o.instruction_set = Some(set))));
    }
    for (what, model) in &cases {
        // Portable code computes some twenty tokens a second.
        let lengths = if what == InstructionSet::Portable.name() { 1 } else { LENGTHS.len() };
        for (&n, want) in LENGTHS.iter().zip(baseline()).take(lengths) {
            assert_same(&answer(model, request(n, ANSWER)), want, &format!("{what}, {n} tokens"));
        }
    }
}

#[test]
fn same_bits_from_a_warm_prefix_cache() {
    let model = load(|_| {});
    for (i, &n) in LENGTHS.iter().enumerate() {
        for (round, warm) in [false, true].into_iter().enumerate() {
            let got = answer(&model, request(n, ANSWER));
            assert_same(&got, &baseline()[i], &format!("{n} tokens, round {round}"));
            if warm && n > 100 {
                assert!(got.usage.cached_tokens + 64 > n, "{} of {n} tokens cached", got.usage.cached_tokens);
            }
        }
    }
}

#[test]
fn same_bits_among_others() {
    let model = load(|options| options.sequences = 6);
    let others: Vec<_> = (0..31)
        .map(|i| {
            let mut other = request(10 + 9 * i, 30);
            other.tokens.reverse();
            other.seed = i as u64;
            model.engine.submit(other).expect("accepted")
        })
        .collect();
    let ours: Vec<_> =
        LENGTHS.iter().map(|&n| model.engine.submit(request(n, ANSWER)).expect("accepted")).collect();
    for (i, generation) in ours.into_iter().enumerate() {
        assert_same(&generation.finish().expect("answered"), &baseline()[i], "among 31 others");
    }
    for other in others {
        assert_eq!(other.finish().expect("answered").usage.prompt_tokens % 9, 1);
    }
}

#[test]
fn kernels_equal_the_reference_on_the_real_weights() {
    let checkpoint = wushi_models::open(model()).expect("a valid file");
    let positions = Positions { context: 32, stretch: None };
    let graph = wushi_models::build(&checkpoint, &positions).expect("a supported model").graph;
    let tokens = text_tokens(5);
    for cache in [CacheType::F16, CacheType::F32] {
        let want = reference::evaluate(&graph, &checkpoint, &tokens, cache).expect("evaluates");
        for instruction_set in InstructionSet::available() {
            let options = Options {
                threads: 2,
                instruction_set,
                cache,
                context: 32,
                pages: 1,
                max_rows: 8,
                max_logit_rows: 8,
            };
            let mut executor = CpuExecutor::new(graph.clone(), &checkpoint, options).expect("loads");
            let mut batch = Batch::default();
            batch.push(&tokens, 0, &[0]);
            batch.logit_rows.extend(0..tokens.len());
            let got = executor.run(&batch).expect("a valid batch").logits;
            let differ = got.iter().zip(&want).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            assert_eq!((got.len(), differ), (want.len(), 0), "{instruction_set}, {cache} cache");
        }
    }
}

#[test]
fn the_answer_reads_as_json_and_repeats() {
    model();
    let ask = ["run", "smollm2", "Why is the sky blue?", "--seed", "5", "--max-tokens", "24"];
    let answer = wushi(&ask);
    assert_eq!(answer["usage"]["prompt_tokens"], 36);
    assert_eq!(answer["finish_reason"], "length");
    assert!(answer["text"].as_str().expect("text").contains("sky"), "{answer}");
    let again = wushi(&[&ask[..], &["--threads", "1"]].concat());
    for key in ["text", "token_ids", "logits_digest", "seed", "fingerprint"] {
        assert_eq!(answer[key], again[key], "{key}");
    }
}
