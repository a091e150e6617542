//! From a model in any files to one GGUF file.

use std::io::{self, Write};
use std::path::Path;

use wushi_formats::FormatError;
use wushi_formats::gguf::{GgmlType, Metadata, Stream, file_type};
use wushi_graph::{DType, ReadError, WeightSource};
use wushi_models::ModelError;

use crate::load::{DescribeError, LoadError, describe, team_of};
use crate::weights::Weights;

/// The version of the block formats that a file with quantised tensors names (`GGML_QNT_VERSION` of ggml.h).
const QUANTISATION_VERSION: u32 = 2;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A tensor cannot be read, or not be quantised.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The new file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A GGUF file to be written, its size known before any weight is read.
#[derive(Debug)]
pub struct Conversion {
    weights: Weights,
    metadata: Metadata,
    tensors: Vec<(String, GgmlType, Vec<usize>)>,
    bytes: u64,
}

impl Conversion {
    /// Opens a model, checks that it is one that runs, and says what becomes of it: its weights as they are stored, or
    /// quantised by so many threads.
    ///
    /// # Errors
    /// A file or folder that cannot be read, or whose model is not supported. They name it.
    pub fn plan(path: &Path, quant: Option<DType>, threads: usize) -> Result<Conversion, LoadError> {
        let unusable = |error: DescribeError| LoadError::Description { path: path.to_owned(), error };
        let checkpoint = wushi_models::open(path).map_err(LoadError::File)?;
        let graph = describe(&checkpoint).map_err(unusable)?.model.graph;
        let weights = match quant {
            None => Weights::stored(checkpoint),
            Some(wanted) => Weights::quantised(checkpoint, &graph, wanted, Some(team_of(threads, path)?)),
        };
        let checkpoint = weights.checkpoint();
        let mut metadata = checkpoint.metadata().clone();
        if let Some(wanted) = quant {
            metadata.set("general.file_type", file_type(wanted));
            // How it was quantised before is no longer true.
            metadata.remove_below("quantize.");
        }
        let mut tensors = Vec::with_capacity(checkpoint.tensors().len());
        let mut plain = true;
        for tensor in checkpoint.tensors() {
            let ggml_type = weights.ggml_type(&tensor.name).unwrap_or(tensor.ggml_type);
            plain &= ggml_type.dtype().is_none_or(DType::is_plain);
            tensors.push((tensor.name.clone(), ggml_type, tensor.shape.clone()));
        }
        if !plain {
            metadata.set("general.quantization_version", QUANTISATION_VERSION);
        }
        let bytes = Stream::file_size(&metadata, &tensors)
            .map_err(|error: FormatError| unusable(ModelError::from(error).into()))?;
        Ok(Conversion { weights, metadata, tensors, bytes })
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The type that most of its elements will have.
    pub fn main_type(&self) -> Option<GgmlType> {
        self.weights.main_type()
    }

    /// See [`Weights::instead`].
    pub fn instead(&self) -> Option<&str> {
        self.weights.instead()
    }

    /// Tensors of the file.
    pub fn tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Writes the file, one tensor in memory at a time. `advance` is told of the bytes as they are written; `Break`
    /// from it ends the writing with an error.
    ///
    /// # Errors
    /// A tensor that cannot be read or quantised, and those of `out`.
    pub fn write<W: Write>(
        &self,
        out: W,
        mut advance: impl FnMut(u64) -> io::Result<()>,
    ) -> Result<W, ConvertError> {
        let (mut stream, header) = Stream::begin(out, &self.metadata, &self.tensors)?;
        advance(header)?;
        for (name, ..) in &self.tensors {
            let bytes = self.weights.read(name)?;
            advance(stream.tensor(&bytes)?)?;
            self.weights.release(name);
        }
        Ok(stream.finish()?)
    }
}
