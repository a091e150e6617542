//! One file per architecture: configuration on top, weights by name, then its graph.
//!
//! A family is one file and one line in `FAMILIES`. Nothing is run here, and no other room knows a family's name.

mod config;
mod huggingface;
mod llama;

pub use config::ModelError;

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
    /// What it computes: logits `[picked, vocabulary]` from token ids.
    pub graph: Graph,
    /// The longest sequence it was trained for, in tokens.
    pub trained_context: usize,
}

/// A family of models that share a graph.
struct Family {
    /// The names its files give in `general.architecture`.
    architectures: &'static [&'static str],
    /// Reads the configuration and describes the graph.
    build: fn(&Checkpoint) -> Result<Model, ModelError>,
    /// How its folders on Hugging Face are read.
    imports: &'static [Import],
}

/// Every family. A new one is a file and a line here.
const FAMILIES: &[Family] =
    &[Family { architectures: &["llama"], build: llama::build, imports: llama::IMPORTS }];

/// The names of all supported architectures.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| family.architectures).copied()
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

/// Describes the model in a file. Reads no weight.
pub fn build(gguf: &Checkpoint) -> Result<Model, ModelError> {
    let name = gguf.metadata().require_str("general.architecture")?;
    let Some(family) = FAMILIES.iter().find(|family| family.architectures.contains(&name)) else {
        return Err(ModelError::UnknownArchitecture {
            name: name.to_string(),
            supported: architectures().collect::<Vec<_>>().join(", "),
        });
    };
    let model = (family.build)(gguf)?;
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
        !derived && !declared.contains(tensor.name.as_str())
    });
    match unused {
        None => Ok(()),
        Some(tensor) => Err(ModelError::UnusedTensor { name: tensor.name.clone() }),
    }
}
