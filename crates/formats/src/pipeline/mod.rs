//! Models of several networks: diffusion pipelines as published, and their parts.
//!
//! A [`Part`] is one network: tensors under the names its file has, and its configuration. [`Sources`] says which files
//! the parts of a pipeline are, [`Pipeline`] is all of them opened. What configurations and names mean is a family's
//! affair (`models`); here they are found, read and checked.

mod part;
pub mod prompt;
mod sources;
pub mod tokenizer;

pub use part::{Part, PartTensor};
pub use sources::{Layout, Pipeline, Sources};

/// What a file of JSON holds.
pub type Object = serde_json::Map<String, serde_json::Value>;
