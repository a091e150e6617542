//! Drives `wushi video` on the tiny pipelines of the fixtures.

mod bench;
mod errors;
mod outputs;
mod parity;
mod place;
mod plan;
mod playback;
#[path = "../support/programs.rs"]
#[allow(dead_code, reason = "each test takes a part of it")]
mod programs;
mod resume;
mod same_bits;
#[path = "../cli/support.rs"]
#[allow(dead_code, reason = "each test takes a part of it")]
mod support;
mod wan;
