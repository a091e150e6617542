//! `cargo +nightly fuzz run tokenizer`: any bytes as a GGUF file or a `tokenizer.json`, then those behind the last 0xff as text.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/formats/tests/exercise/tokenizer.rs"]
mod exercise;

fuzz_target!(|bytes: &[u8]| {
    exercise::exercise(bytes);
});
