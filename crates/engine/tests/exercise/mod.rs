//! What can be done with the model in a file that may be anything, shared by the tests and the fuzz target.

use wushi_cpu::{InstructionSet, Options};
use wushi_engine::load::describe;
use wushi_formats::{Checkpoint, Gguf};
use wushi_graph::CacheType;
use wushi_models::Positions;

/// Reads `bytes` as a GGUF file, describes its model and plans it, as loading does before it allocates.
///
/// Says whether its graph could be planned, with or without a tokenizer. Whatever the bytes, nothing may panic.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let Ok(file) = Gguf::from_bytes(bytes.to_vec()) else { return false };
    let checkpoint = Checkpoint::from_gguf(file);
    let described = describe(&checkpoint);
    // A graph is planned even if the tokenizer beside it is of no use.
    let Ok(model) = wushi_models::build(&checkpoint, &Positions { context: 64, stretch: None }) else {
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
    let Ok(plan) = wushi_cpu::plan(&model.graph, &checkpoint, &options) else { return false };
    assert!(plan.weights > 0 && plan.cache > 0 && plan.arena > 0);
    let steps = wushi_cpu::schedule(&model.graph, &checkpoint, &options, options.max_rows);
    assert!(steps.is_ok_and(|steps| !steps.is_empty()), "what can be planned has a schedule");
    true
}
