//! `cargo +nightly fuzz run part`: any bytes as a part of a pipeline: safetensors, GGUF, PyTorch.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/formats/tests/exercise/part.rs"]
mod exercise;

fuzz_target!(|bytes: &[u8]| {
    exercise::exercise(bytes);
});
