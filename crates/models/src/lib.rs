//! One file per architecture: configuration on top, weights by name, then its graph.
//!
//! A family is one file and one line in `FAMILIES`. Nothing is run here, and no other room knows a family's name.

mod config;
mod llama;

pub use config::ModelError;

use std::collections::HashSet;
use std::path::Path;

use wushi_formats::Checkpoint;
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
}

/// Every family. A new one is a file and a line here.
const FAMILIES: &[Family] = &[Family { architectures: &["llama"], build: llama::build }];

/// The names of all supported architectures.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| family.architectures).copied()
}

/// Opens the model at `path`: a GGUF file, or one of several that a model was cut into. Errors name the file.
pub fn open(path: &Path) -> Result<Checkpoint, ModelError> {
    Ok(Checkpoint::open_gguf(path)?)
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
