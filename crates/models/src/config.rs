//! Reading configurations: what all families ask of a file's metadata.

use std::path::PathBuf;

use wushi_formats::gguf::{Array, Value};
use wushi_formats::{Checkpoint, FormatError};
use wushi_graph::GraphError;

use crate::Pooling;
use crate::video::VideoJsonError;

/// Why a model cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Nobody here knows it.
    #[error("architecture `{name}` is not supported; supported are: {supported}")]
    UnknownArchitecture {
        /// As the file has it.
        name: String,
        /// What could be used instead.
        supported: String,
    },
    /// The family is known, this feature of it is not.
    #[error("`{key}` = {value} is not supported; {hint}")]
    Unsupported {
        /// The metadata key.
        key: String,
        /// Its value.
        value: String,
        /// What is supported.
        hint: &'static str,
    },
    /// A number that cannot be right.
    #[error("`{key}` = {value} makes no sense: {reason}")]
    Invalid {
        /// The metadata key.
        key: String,
        /// Its value.
        value: String,
        /// Why.
        reason: &'static str,
    },
    /// The file has more than its configuration says.
    #[error(
        "tensor `{name}` has no place in the model that the file's configuration describes; the file is damaged, or \
         uses a feature that is not supported"
    )]
    UnusedTensor {
        /// The first such tensor.
        name: String,
    },
    /// Without it there is no vocabulary.
    #[error("tensor `token_embd.weight` is missing")]
    NoEmbedding,
    /// What a graph reads and a file does not have.
    #[error("tensor `{name}` is missing; the file is damaged, or of a model that is not supported")]
    MissingTensor {
        /// What the file would call it.
        name: String,
    },
    /// A tensor that the graph cannot read.
    #[error("tensor `{name}` has shape {found}, expected {expected}")]
    TensorShape {
        /// What the file calls it.
        name: String,
        /// Its shape.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// No network that is known here.
    #[error("the names of its tensors are none that are known; a network of this kind has one of {known}")]
    UnknownLayout {
        /// A tensor of each way to name them.
        known: String,
    },
    /// A configuration beside the tensors of another model.
    #[error(
        "`{key}` is {told} in the configuration, but the tensors make it {found}; they belong to different models"
    )]
    Contradiction {
        /// The key.
        key: String,
        /// What the configuration says.
        told: String,
        /// What follows from the tensors.
        found: String,
    },
    /// Parts of different models.
    #[error("{what} is {expected} in the {of}, but {found} in the {other}; they belong to different models")]
    PartsDiffer {
        /// What should be the same.
        what: &'static str,
        /// One of them.
        of: &'static str,
        /// The other.
        other: &'static str,
        /// The number in the first.
        expected: usize,
        /// The number in the other.
        found: usize,
    },
    /// Latents are scaled before they are decoded; a new kind of decoder must say how.
    #[error(
        "nothing says mean and deviation of the latents' {channels} channels; put the VAE's `config.json` with \
         `latents_mean` and `latents_std` beside it"
    )]
    NoStatistics {
        /// Of the latents.
        channels: usize,
    },
    /// Shapes do not tell how a width is cut into heads.
    #[error(
        "nothing says how many heads attention has, and a width of {width} is no whole number of the usual 128; give \
         the folder that has the model's `config.json`, its weights named `diffusion_pytorch_model.safetensors`"
    )]
    NoHeads {
        /// Elements of a token.
        width: usize,
    },
    /// A file of settings that cannot be used.
    #[error(transparent)]
    VideoJson(#[from] VideoJsonError),
    /// Any other error, with the folder it concerns.
    #[error("{path}: {error}", path = path.display())]
    InFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong. Part of this error's own text, hence not its `source`.
        error: Box<ModelError>,
    },
    /// Missing or mistyped metadata.
    #[error(transparent)]
    Metadata(#[from] FormatError),
    /// The configuration does not fit together.
    #[error("the model's configuration does not fit together: {0}")]
    Graph(#[from] GraphError),
}

/// Of so many layers all but every `period`-th.
pub(crate) fn all_but_every(period: usize, layers: usize) -> Vec<bool> {
    (0..layers).map(|layer| layer % period != period - 1).collect()
}

/// The metadata of one architecture: keys are given without the architecture's name in front.
pub(crate) struct Keys<'a> {
    gguf: &'a Checkpoint,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(gguf: &'a Checkpoint) -> Result<Self, ModelError> {
        let architecture = gguf.metadata().require_str("general.architecture")?;
        Ok(Keys { gguf, architecture })
    }

    /// Refuses keys of this architecture that the family does not know: what they ask for would silently not happen.
    pub(crate) fn refuse_unknown(&self, known: &[&str]) -> Result<(), ModelError> {
        Ok(self.gguf.metadata().refuse_unknown(&format!("{}.", self.architecture), known)?)
    }

    pub(crate) fn architecture(&self) -> &'a str {
        self.architecture
    }

    /// The key's full name.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// A count that must be there and not be zero.
    pub(crate) fn count(&self, key: &str) -> Result<usize, ModelError> {
        let value = self.gguf.metadata().require_u32(&self.name(key))?;
        self.positive(key, value)
    }

    /// A count that has a default.
    pub(crate) fn count_or(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        match self.gguf.metadata().u32(&self.name(key))? {
            Some(value) => self.positive(key, value),
            None => Ok(default),
        }
    }

    fn positive(&self, key: &str, value: u32) -> Result<usize, ModelError> {
        match value {
            0 => Err(self.invalid(key, 0, "it must be at least 1")),
            n => Ok(n as usize),
        }
    }

    /// A positive, finite number that must be there.
    pub(crate) fn number(&self, key: &str) -> Result<f32, ModelError> {
        let value = self.gguf.metadata().require_f32(&self.name(key))?;
        self.finite(key, value)
    }

    /// A positive, finite number that has a default.
    pub(crate) fn number_or(&self, key: &str, default: f32) -> Result<f32, ModelError> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    fn finite(&self, key: &str, value: f32) -> Result<f32, ModelError> {
        match value > 0.0 && value.is_finite() {
            true => Ok(value),
            false => Err(self.invalid(key, value, "it must be a positive number")),
        }
    }

    /// A positive, finite number, if it is there.
    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.gguf.metadata().f32(&self.name(key))?.map(|value| self.finite(key, value)).transpose()
    }

    /// A positive number, if it is there and not 0.
    pub(crate) fn optional_factor(&self, key: &str) -> Result<Option<f32>, ModelError> {
        match self.gguf.metadata().f32(&self.name(key))? {
            Some(0.0) | None => Ok(None),
            Some(value) => Ok(Some(self.finite(key, value)?)),
        }
    }

    /// A text, if it is there.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        Ok(self.gguf.metadata().str(&self.name(key))?)
    }

    /// How many layers: never more than the file has norms whose names end like this.
    pub(crate) fn layers(&self, norm: &str) -> Result<usize, ModelError> {
        let layers = self.count("block_count")?;
        let present = self.gguf.tensors().iter().filter(|t| t.name.ends_with(norm)).count();
        match layers <= present {
            true => Ok(layers),
            false => Err(self.invalid("block_count", layers, "the file has tensors for fewer layers")),
        }
    }

    /// Width and heads of attention, which must share it evenly unless the file gives the length of a head.
    pub(crate) fn width_and_heads(&self) -> Result<(usize, usize), ModelError> {
        let (width, heads) = (self.count("embedding_length")?, self.count("attention.head_count")?);
        let given = self.gguf.metadata().u32(&self.name("attention.key_length"))?.is_some();
        match heads <= width && (given || width.is_multiple_of(heads)) {
            true => Ok((width, heads)),
            false => Err(self.invalid(
                "attention.head_count",
                heads,
                "the model's width is no whole number of heads",
            )),
        }
    }

    /// Rows of the embedding table, which is the vocabulary.
    pub(crate) fn vocabulary(&self) -> Result<usize, ModelError> {
        self.rows("token_embd.weight").ok_or(ModelError::NoEmbedding)
    }

    /// A count that may be 0 or not be there.
    pub(crate) fn number_of(&self, key: &str) -> Result<Option<usize>, ModelError> {
        Ok(self.gguf.metadata().u32(&self.name(key))?.map(|n| n as usize))
    }

    /// A truth that has a default.
    pub(crate) fn truth_or(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        Ok(self.gguf.metadata().bool(&self.name(key))?.unwrap_or(default))
    }

    /// Which of so many layers are of the common kind: as a list, or all but every so many-th.
    pub(crate) fn pattern(&self, key: &str, default: usize, layers: usize) -> Result<Vec<bool>, ModelError> {
        let name = self.name(key);
        let period = match self.gguf.metadata().get(&name) {
            Some(Value::Array(Array::Bool(list))) if list.len() == layers => return Ok(list.clone()),
            Some(Value::Array(list)) => {
                return Err(self.invalid(key, list.len(), "expected one truth value for each layer"));
            }
            _ => self.count_or(key, default)?,
        };
        Ok(all_but_every(period, layers))
    }

    /// How a text's embedding is made of its tokens', if the file says.
    pub(crate) fn pooling(&self) -> Result<Option<Pooling>, ModelError> {
        // `enum llama_pooling_type` of llama.cpp.
        match self.number_of("pooling_type")? {
            None | Some(0) => Ok(None),
            Some(1) => Ok(Some(Pooling::Mean)),
            Some(2) => Ok(Some(Pooling::First)),
            Some(3) => Ok(Some(Pooling::Last)),
            Some(other) => {
                let hint = "1 (mean), 2 (first token) and 3 (last token) are";
                Err(self.unsupported("pooling_type", other, hint))
            }
        }
    }

    /// Rows of a tensor, if the file has it.
    pub(crate) fn rows(&self, tensor: &str) -> Option<usize> {
        self.gguf.tensor_info(tensor).and_then(|t| t.shape.first()).copied()
    }

    /// Whether the file has a tensor.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.gguf.tensor_info(tensor).is_some()
    }

    pub(crate) fn invalid(&self, key: &str, value: impl ToString, reason: &'static str) -> ModelError {
        ModelError::Invalid { key: self.name(key), value: value.to_string(), reason }
    }

    pub(crate) fn unsupported(&self, key: &str, value: impl ToString, hint: &'static str) -> ModelError {
        ModelError::Unsupported { key: self.name(key), value: value.to_string(), hint }
    }
}
