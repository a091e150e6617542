//! Folders as published on Hugging Face, beside the GGUF files that llama.cpp's converter made of them.

use std::path::{Path, PathBuf};

use wushi_formats::Checkpoint;
use wushi_graph::WeightSource;
use wushi_models::Positions;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models").join(name)
}

/// Keys that name the model, or say what Wushi adds and the converter does not.
const APART: [&str; 3] = ["general.name", "general.size_label", "general.quantization_version"];

fn check(name: &str, extra: &[&str]) {
    let folder = wushi_models::open(&fixture(name)).expect("a folder");
    let file = Checkpoint::open_gguf(fixture(&format!("{name}.gguf"))).expect("a file");
    for tensor in file.tensors() {
        let found = folder.tensor_info(&tensor.name).unwrap_or_else(|| panic!("{name}: no {}", tensor.name));
        assert_eq!(found, tensor, "{name}");
        let (ours, theirs) =
            (folder.read(&tensor.name).expect("bytes"), file.read(&tensor.name).expect("bytes"));
        if tensor.name == "rope_freqs.weight" {
            // The converter computes them in single precision.
            let floats = |bytes: &[u8]| -> Vec<f32> {
                bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect()
            };
            for (a, b) in floats(&ours).into_iter().zip(floats(&theirs)) {
                assert!((a - b).abs() <= 4e-6 * b, "{name}: {a} for {b}");
            }
        } else {
            assert!(ours == theirs, "{name}: {}", tensor.name);
        }
    }
    assert_eq!(folder.tensors().len(), file.tensors().len(), "{name}");
    // How tokenizers are read is tested in their room.
    let compared = |key: &str| !APART.contains(&key) && !key.starts_with("tokenizer.");
    let mut keys = vec!["tokenizer.ggml.tokens", "tokenizer.ggml.merges"];
    keys.extend(file.metadata().iter().map(|(key, _)| key).filter(|key| compared(key)));
    for key in keys {
        assert_eq!(folder.metadata().get(key), file.metadata().get(key), "{name}: {key}");
    }
    // What some families say there, all say here.
    let common = [".vocab_size", ".rope.dimension_count", ".attention.head_count_kv"];
    let known =
        |key: &str| file.metadata().get(key).is_some() || common.iter().any(|common| key.ends_with(common));
    let more: Vec<&str> =
        folder.metadata().iter().map(|(key, _)| key).filter(|key| compared(key) && !known(key)).collect();
    assert_eq!(more, extra, "{name}");
    wushi_models::build(&folder, &Positions { context: 512, stretch: None }).expect("a model");
}

macro_rules! folders {
    ($($test:ident: $($name:literal $(with $extra:literal)?),+;)*) => {$(
        #[test]
        fn $test() {
            $(check($name, &[$($extra)?]);)+
        }
    )*};
}

folders! {
    llama: "llama-tiny-llama3", "llama-tiny-linear";
    mistral: "mistral-tiny" with "llama.attention.sliding_window";
    qwen2: "qwen2-tiny", "qwen2-tiny-untied", "qwen2-tiny-yarn";
    qwen3: "qwen3-tiny";
    qwen3moe: "qwen3moe-tiny" with "qwen3moe.expert_weights_norm";
    gemma3: "gemma3-tiny" with "gemma3.attention.scale", "gemma3-tiny-linear" with "gemma3.attention.scale";
    phi3: "phi-tiny", "phi-tiny-longrope";
    bert: "bert-tiny";
}
