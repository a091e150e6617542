//! `cargo +nightly fuzz run gguf`: any bytes as a GGUF file, then the tokenizer and the chat template in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/formats/tests/exercise/mod.rs"]
mod exercise;

fuzz_target!(|bytes: &[u8]| {
    exercise::exercise(bytes);
});
