//! `cargo +nightly fuzz run template`: any bytes as a chat template, then those behind the last 0xff as messages.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/formats/tests/exercise/template.rs"]
mod exercise;

fuzz_target!(|bytes: &[u8]| {
    exercise::exercise(bytes);
});
