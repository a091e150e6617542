//! `cargo +nightly fuzz run folder`: any bytes as `config.json` up to a zero and `model.safetensors` behind it, then the
//! graph and schedule of the model in this folder. Seeds are made by `tools/safetensors_corpus.py`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/engine/tests/exercise/mod.rs"]
#[allow(dead_code, reason = "the other half is another target's")]
mod exercise;

fuzz_target!(|bytes: &[u8]| {
    exercise::exercise_folder(bytes);
});
