//! Wushi over HTTP: OpenAI's and Anthropic's APIs, a page to talk to, keys, audit.
//!
//! Wire types live here alone and are converted by hand; everything below this crate is plain Rust.

pub mod constraint;
pub mod tools;
