//! `docs/models.md` is written by the code: families, storage types, tokenizers, and how each was tested.
//!
//! `UPDATE_DOCS=1 cargo test --release -p wushi --test docs` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wushi_graph::DType;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The texts in quotes of a test's source, which names the checkpoints it runs.
fn literals(path: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(path)).expect("a test");
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Names of the tiny checkpoints by family, those whose files say of none being of the first.
fn checkpoints() -> BTreeMap<String, Vec<String>> {
    let run = literals("crates/engine/tests/transformers.rs");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in fs::read_dir(root().join("tests/fixtures/models")).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "json") {
            let text = fs::read_to_string(&path).expect("a fixture");
            let about: Value = serde_json::from_str(&text).expect("valid JSON");
            let family = about["family"].as_str().unwrap_or("llama");
            // Files of this one are of the other's architecture.
            let family = if family == "mistral" { "llama" } else { family };
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            assert!(run.contains(&name), "{name} is compared by no test");
            let shown = match (about["directory"].is_string(), about["gguf"].is_string()) {
                (true, true) => name,
                (true, false) => format!("{name} (folder)"),
                _ => format!("{name} (GGUF)"),
            };
            found.entry(family.to_owned()).or_default().push(shown);
        }
    }
    found.values_mut().for_each(|names| names.sort());
    found
}

fn families(out: &mut String) {
    out.push_str(
        "## Families\n\n| GGUF architecture | models | Hugging Face classes | tiny checkpoints compared with `transformers` |\n\
         |---|---|---|---|\n",
    );
    let checkpoints = checkpoints();
    let same_bits = literals("crates/engine/tests/same_bits.rs");
    for family in wushi_models::families() {
        let stamped = |name: &String| same_bits.contains(name.split(' ').next().unwrap_or_default());
        let tested = checkpoints.get(family.architecture).expect("a family has a checkpoint");
        assert!(tested.iter().any(stamped), "{} is not in the same-bits harness", family.architecture);
        let classes: Vec<String> = family.classes().map(|class| format!("`{class}`")).collect();
        let tested = tested.join(", ");
        writeln!(
            out,
            "| `{}` | {} | {} | {tested} |",
            family.architecture,
            family.models,
            classes.join(", ")
        )
        .expect("a string");
    }
    let known: Vec<&str> = wushi_models::families().iter().map(|family| family.architecture).collect();
    for family in checkpoints.keys() {
        assert!(known.contains(&family.as_str()), "a checkpoint of `{family}`, which is no family");
    }
}

fn storage_types(out: &mut String) {
    out.push_str(
        "\n## Storage types\n\n| type | elements of a block | bits an element | activations meet it as |\n|---|---:|---:|---|\n",
    );
    for &dtype in DType::ALL {
        let (elements, bytes) = (dtype.block_elements(), dtype.block_bytes());
        let activations = match (dtype, elements) {
            (DType::BF16, _) => "BF16",
            (_, 1) => "F32",
            (_, 32) => "int8, a scale for 32",
            _ => "int8, a scale for 256",
        };
        let bits = (bytes * 8) as f64 / elements as f64;
        writeln!(out, "| {dtype} | {elements} | {bits} | {activations} |").expect("a string");
    }
}

const HEAD: &str = "\
# Models

Written by `crates/cli/tests/docs.rs` from the registry in `crates/models`; a test holds it to that.

";

const TAIL: &str = "
All of them are read from GGUF files, written by `wushi convert --quant`, and quantised to while loading (`--quant`), which both say where a matrix
gets another type: rows that are no whole blocks of 256 take a type in blocks of 32 (Q5_0 for Q4_K, Q5_1 for Q5_K, Q8_0 for Q6_K, IQ4_NL for Q2_K,
Q3_K and IQ4_XS), rows that are no whole blocks of 32 are F16, and what gives the logits is at least Q6_K. Vectors, routers and small tables keep
their type. Keys and values are kept in F16, F32 or Q8_0.

## Files

- GGUF version 2 and 3, in one file or in parts (`-00001-of-0000N.gguf`).
- Folders as published on Hugging Face: `config.json`, `model.safetensors` or its index and parts in F32, F16 or BF16, `tokenizer.json`, and where
  there are `tokenizer_config.json`, `chat_template.jinja`, `generation_config.json`, `special_tokens_map.json` and `1_Pooling/config.json`.

## Positions

Rope scaled linearly, by Llama 3's factors, by YaRN or by LongRoPE as the files say. LongRoPE's factors are chosen once, by the configured context
(`--ctx`). A model that says nothing can be stretched beyond its training with `--rope-scaling yarn` or `linear`; the factor follows from the
context. What was chosen is part of the fingerprint.

## How they are tested

- *Logits*: the tiny checkpoints above have random weights, made with `transformers`; F32 and F16 logits lie within `max|a-b| / max|b| <= 1e-4` of its
  own, from the folder and from the GGUF file that llama.cpp's converter makes of it unless one is named, and greedy continuations are equal. Of
  encoders it is the states and the pooled embedding (`crates/engine/tests/transformers.rs`).
- *Same bits*: every family in every storage type equals the scalar reference to the last bit, on every instruction set of the machine, with
  several numbers of threads, in chunks, on warm pages and among other sequences (`crates/engine/tests/same_bits.rs`).
- *Values of blocks* equal those of the `gguf` package bit by bit (`crates/quant/tests/dequantize.rs`).
- *Tokens* equal llama.cpp's for its vocabulary files, and those of `tokenizers` for imported `tokenizer.json` files (`crates/formats/tests`).

## Where llama.cpp computes something else

It reads the files that `wushi convert` writes, but some of what they say has no effect there: the sliding windows of `phi3` and of Mistral, and experts'
weights that are not normalised (`expert_weights_norm` of `qwen3moe`). `transformers` has all three.

What is not in this list is refused by name before any weight is read.
";

#[test]
fn the_list_of_models_is_what_the_registry_says() {
    let mut text = HEAD.to_owned();
    families(&mut text);
    storage_types(&mut text);
    text.push_str(TAIL);
    let path = root().join("docs/models.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).expect("docs/ can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/models.md is stale; see the top of crates/cli/tests/docs.rs");
}
