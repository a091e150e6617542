//! `cargo +nightly fuzz run safetensors`: any bytes as a safetensors file, alone and in a folder.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/formats/tests/exercise/safetensors.rs"]
mod exercise;

fuzz_target!(|bytes: &[u8]| {
    exercise::exercise(bytes);
});
