//! One file per architecture: configuration on top, weights by name, then its graph.
//!
//! A family is one file and one line in `FAMILIES`. Nothing is run here, and no other room knows a family's name.

mod bert;
mod config;
mod decoder;
mod gemma3;
mod huggingface;
mod llama;
mod phi3;
pub mod pipeline;
mod qwen2;
mod qwen3;
mod rope;
mod umt5;
pub mod video;
mod wan;

pub use config::ModelError;
pub use rope::{Positions, Stretch};

use config::Keys;

use std::collections::HashSet;
use std::path::Path;

use huggingface::Import;
use wushi_formats::{Checkpoint, Folder, FormatError};
use wushi_graph::Graph;

/// A model as described by its file: what it computes, and for how long a sequence it was trained.
#[derive(Clone, Debug)]
pub struct Model {
    /// The architecture's name in the file.
    pub architecture: String,
    /// What it computes from token ids: logits `[picked, vocabulary]`, or the states `[picked, width]` of an embedding
    /// model.
    pub graph: Graph,
    /// The longest sequence it was trained for, in tokens.
    pub trained_context: usize,
    /// An embedding model says how its tokens' states become one embedding.
    pub pooling: Option<Pooling>,
}

/// How a text's embedding is made of its tokens' states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token (`[CLS]`).
    First,
    /// That of the last token.
    Last,
}

impl Model {
    fn new(keys: &Keys<'_>, graph: Graph, pooling: Option<Pooling>) -> Result<Self, ModelError> {
        let trained_context = rope::trained_context(keys)?;
        Ok(Model { architecture: keys.architecture().to_string(), graph, trained_context, pooling })
    }
}

/// A family of models that share a graph.
pub struct Family {
    /// The name its GGUF files give in `general.architecture`.
    pub architecture: &'static str,
    /// What people call its models.
    pub models: &'static str,
    /// Reads the configuration and describes the graph.
    build: fn(&Keys<'_>, &Positions) -> Result<Model, ModelError>,
    /// How its folders on Hugging Face are read.
    imports: &'static [Import],
}

impl Family {
    /// The classes of its folders on Hugging Face (`architectures` in `config.json`).
    pub fn classes(&self) -> impl Iterator<Item = &'static str> {
        self.imports.iter().map(|import| import.class)
    }
}

/// Every family. A new one is a file and a line here.
const FAMILIES: &[Family] = &[
    llama::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    qwen3::FAMILY_MOE,
    gemma3::FAMILY,
    phi3::FAMILY,
    bert::FAMILY,
];

/// Every family, in no particular order.
pub fn families() -> &'static [Family] {
    FAMILIES
}

/// The names of all supported architectures.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.architecture)
}

/// The family of a file.
fn family(keys: &Keys<'_>) -> Result<&'static Family, ModelError> {
    let name = keys.architecture();
    FAMILIES.iter().find(|family| family.architecture == name).ok_or_else(|| {
        ModelError::UnknownArchitecture {
            name: name.to_string(),
            supported: architectures().collect::<Vec<_>>().join(", "),
        }
    })
}

/// Opens the model at `path`: a GGUF file, one of several that a model was cut into, or a folder as published on Hugging
/// Face. Errors name the file or folder.
pub fn open(path: &Path) -> Result<Checkpoint, ModelError> {
    if !path.is_dir() {
        return Ok(Checkpoint::open_gguf(path)?);
    }
    import(Folder::open(path)?).map_err(|error| match error {
        error @ ModelError::Metadata(FormatError::Io { .. } | FormatError::InFile { .. }) => error,
        error => ModelError::InFolder { path: path.to_owned(), error: Box::new(error) },
    })
}

/// Reads a folder as the GGUF file that could be made of it.
pub fn import(folder: Folder) -> Result<Checkpoint, ModelError> {
    huggingface::import(folder, FAMILIES.iter().flat_map(|family| family.imports))
}

/// The longest sequence the model in a file was trained for, in tokens.
pub fn trained_context(gguf: &Checkpoint) -> Result<usize, ModelError> {
    let keys = Keys::new(gguf)?;
    family(&keys)?;
    rope::trained_context(&keys)
}

/// Describes the model in a file, for sequences of these positions. Reads no weight.
pub fn build(gguf: &Checkpoint, positions: &Positions) -> Result<Model, ModelError> {
    let keys = Keys::new(gguf)?;
    let model = (family(&keys)?.build)(&keys, positions)?;
    refuse_unused_tensors(gguf, &model.graph)?;
    Ok(model)
}

/// A tensor that the graph does not use means that the graph is not this model's: a wrong count of layers, a feature
/// the family does not have here. Better no answer than a wrong one.
fn refuse_unused_tensors(gguf: &Checkpoint, graph: &Graph) -> Result<(), ModelError> {
    let declared: HashSet<&str> = graph.weights().iter().map(|weight| weight.name.as_str()).collect();
    let unused = gguf.tensors().iter().find(|tensor| {
        // Old converters stored rope's frequencies, which follow from the configuration.
        let derived = tensor.name.ends_with(".rot_embd") || tensor.name.ends_with(".attn_rot_embd");
        // Of LongRoPE's two vectors one is used.
        let other = tensor.name.starts_with("rope_factors_");
        !derived && !other && !declared.contains(tensor.name.as_str())
    });
    match unused {
        None => Ok(()),
        Some(tensor) => Err(ModelError::UnusedTensor { name: tensor.name.clone() }),
    }
}
