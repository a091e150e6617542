//! `cargo +nightly fuzz run model`: any bytes as a GGUF file, then the graph, tokenizer and schedule of the model in it.
//! Good seeds are `fuzz/corpus/gguf` and `tests/fixtures/models`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/engine/tests/exercise/mod.rs"]
#[allow(dead_code, reason = "the other half is another target's")]
mod exercise;

fuzz_target!(|bytes: &[u8]| {
    exercise::exercise(bytes);
});
