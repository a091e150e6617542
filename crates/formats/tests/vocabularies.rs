//! Tokenizers of every kind against llama.cpp's vocabulary-only test files (`tools/vocabulary_goldens.py`).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use wushi_formats::{Gguf, Tokenizer};

#[derive(Deserialize)]
struct Case {
    text: String,
    /// Ids under the whole vocabulary.
    whole: Vec<u32>,
    /// Ids under what is left of it.
    trimmed: Vec<u32>,
}

const NAMES: [&str; 19] = [
    "aquila",
    "baichuan",
    "bert-bge",
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gemma-4",
    "gpt-2",
    "gpt-neox",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "nomic-bert-moe",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "starcoder",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vocabularies").join(name)
}

fn cases(name: &str) -> Vec<Case> {
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(fixture(&format!("{name}.json"))).unwrap()).unwrap();
    assert!(cases.len() >= 30, "{name}");
    cases
}

/// Every difference between the ids that a file's tokenizer gives and the expected ones.
fn differences(name: &str, path: &Path, expected: impl Fn(&Case) -> &Vec<u32>) -> Vec<String> {
    let file = Gguf::open(path).unwrap();
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let differs = |case: &Case| {
        let ids = tokenizer.encode(&case.text, false, false).unwrap();
        let expected = expected(case);
        (ids != *expected).then(|| format!("{name}: {:?}: {ids:?}, but should be {expected:?}", case.text))
    };
    cases(name).iter().filter_map(differs).collect()
}

#[test]
fn ids_are_llama_cpps_under_trimmed_vocabularies() {
    let found: Vec<_> = NAMES
        .iter()
        .flat_map(|name| differences(name, &fixture(&format!("{name}.gguf")), |case| &case.trimmed))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The same under the whole vocabularies, in the folder that `WUSHI_VOCABULARIES` names; without it, this test checks
/// only that the expectations are there.
#[test]
fn ids_are_llama_cpps_under_whole_vocabularies() {
    let Some(folder) = std::env::var_os("WUSHI_VOCABULARIES") else {
        assert!(NAMES.iter().all(|name| cases(name).iter().any(|case| !case.whole.is_empty())));
        return;
    };
    let path = |name: &str| Path::new(&folder).join(format!("ggml-vocab-{name}.gguf"));
    let found: Vec<_> =
        NAMES.iter().flat_map(|name| differences(name, &path(name), |case| &case.whole)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Phi-3's tokens for roles and turns take the spaces behind them along, as its own tokenizer has it.
#[test]
fn special_tokens_strip_where_the_model_was_trained_so() {
    let file = Gguf::open(fixture("phi-3.gguf")).unwrap();
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
    let ids = |text: &str| tokenizer.encode(text, false, true).unwrap();
    assert_eq!(ids("<|user|>\n Hi<|end|>\n<|assistant|>\n"), ids("<|user|>Hi<|end|><|assistant|>"));
    assert_ne!(ids("<|endoftext|>\nHi"), ids("<|endoftext|>Hi"));
    let file = Gguf::open(fixture("llama-spm.gguf")).unwrap();
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
    assert_ne!(
        tokenizer.encode("</s> Hi", false, true).unwrap(),
        tokenizer.encode("</s>Hi", false, true).unwrap()
    );
}
