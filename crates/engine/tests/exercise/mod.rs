//! What can be done with the model in a file or folder that may be anything, shared by the tests and the fuzz target.

use wushi_cpu::{InstructionSet, Options};
use wushi_engine::Weights;
use wushi_engine::load::describe;
use wushi_formats::{Checkpoint, Folder, Gguf};
use wushi_graph::{CacheType, DType, WeightSource};
use wushi_models::Positions;

/// Reads `bytes` as a GGUF file, describes its model and plans it, as loading does before it allocates.
///
/// Says whether its graph could be planned, with or without a tokenizer. Whatever the bytes, nothing may panic.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let Ok(file) = Gguf::from_bytes(bytes.to_vec()) else { return false };
    exercise_checkpoint(&Checkpoint::from_gguf(file))
}

/// Reads `bytes` as a folder, `config.json` up to the first zero and `model.safetensors` behind it, beside a tokenizer
/// that is sound, and does the same. Weights are read and quantised too, as a folder's are made of others.
pub(crate) fn exercise_folder(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let weights = bytes.get(end + 1..).unwrap_or_default();
    let tokenizer = include_bytes!("../../../../tests/fixtures/models/llama-tiny-llama3/tokenizer.json");
    let files = [
        ("config.json", &bytes[..end]),
        ("model.safetensors", weights),
        ("generation_config.json", &bytes[..end]),
        ("tokenizer.json", &tokenizer[..]),
    ];
    let files = files.map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
    let Ok(folder) = Folder::from_files(files.into_iter().collect()) else { return false };
    let Ok(checkpoint) = wushi_models::import(folder) else { return false };
    let planned = exercise_checkpoint(&checkpoint);
    for tensor in checkpoint.tensors() {
        assert_eq!(checkpoint.read(&tensor.name).expect("it is listed").len(), tensor.bytes);
    }
    if let Ok(description) = describe(&checkpoint) {
        let weights = Weights::quantised(checkpoint, &description.model.graph, DType::Q4_0, None);
        for decl in description.model.graph.weights() {
            let Some(found) = weights.describe(&decl.name) else { continue };
            // Numbers that are none cannot be quantised.
            let Ok(bytes) = weights.read(&decl.name) else { continue };
            assert_eq!(found.dtype.bytes_of(found.shape.iter().product()), Some(bytes.len()));
        }
    }
    planned
}

fn exercise_checkpoint(checkpoint: &Checkpoint) -> bool {
    let described = describe(checkpoint);
    // A graph is planned even if the tokenizer beside it is of no use.
    let Ok(model) = wushi_models::build(checkpoint, &Positions { context: 64, stretch: None }) else {
        assert!(described.is_err());
        return false;
    };
    let options = Options {
        threads: 2,
        instruction_set: InstructionSet::best(),
        cache: CacheType::F16,
        context: model.trained_context.min(64),
        pages: 2,
        max_rows: 8,
        max_logit_rows: 2,
    };
    let Ok(plan) = wushi_cpu::plan(&model.graph, checkpoint, &options) else { return false };
    assert!(plan.weights > 0 && plan.cache > 0 && plan.arena > 0);
    let steps = wushi_cpu::schedule(&model.graph, checkpoint, &options, options.max_rows);
    assert!(steps.is_ok_and(|steps| !steps.is_empty()), "what can be planned has a schedule");
    true
}
