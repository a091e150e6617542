//! Drives the real binary on tiny models.

mod bench;
mod convert;
mod determinism;
mod embed;
mod errors;
mod help;
mod inspect;
mod key;
mod knobs;
mod perplexity;
mod process;
mod replay;
mod robust;
mod run;
mod store;
mod support;
mod tokenize;
