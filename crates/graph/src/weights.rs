//! Weights: what a graph declares, and where their bytes come from.

use std::borrow::Cow;
use std::ops::Range;

use crate::DType;

/// What a weight is for; an executor chooses its layout by it, an adapter or quantiser what to touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rows are looked up by token id: shape `[vocabulary, width]`. May also be used as an output matrix.
    Embedding,
    /// A linear layer's matrix, shape `[outputs, inputs]`.
    Matrix,
    /// One matrix for every expert of a mixture, shape `[experts, outputs, inputs]`.
    Experts,
    /// One value per channel (norm weights, biases, rope frequency factors), shape `[channels]`; or a small table of such.
    Vector,
    /// A convolution's kernels, shape `[outputs, channels, frames, heights, widths]`.
    Kernel,
}

/// Rows of a tensor that several weights share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Which rows.
    pub rows: Range<usize>,
    /// Rows of the whole tensor.
    pub total: usize,
}

/// A weight as the graph declares it, once, by canonical name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightDecl {
    /// Canonical name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// Outermost dimension first: a matrix is `[outputs, inputs]`, inputs contiguous.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// If the tensor of this name holds other weights as well: which rows of it are this one.
    pub part: Option<Part>,
}

impl WeightDecl {
    /// The shape of the tensor of this name: this weight's own, unless it is part of one.
    pub fn tensor_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(part) = &self.part {
            shape[0] = part.total;
        }
        shape
    }

    /// This weight's bytes within those of the tensor of this name.
    pub fn bytes_in<'a>(&self, tensor: &'a [u8]) -> &'a [u8] {
        match &self.part {
            None => tensor,
            Some(Part { rows, total }) => {
                let row = tensor.len() / total;
                &tensor[rows.start * row..rows.end * row]
            }
        }
    }
}

/// What a tensor is, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorDesc<'a> {
    /// How elements are stored.
    pub dtype: DType,
    /// Outermost dimension first; the last dimension is contiguous.
    pub shape: &'a [usize],
}

/// A tensor with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// How elements are stored.
    pub dtype: DType,
    /// Outermost dimension first; the last dimension is contiguous.
    pub shape: &'a [usize],
    /// Exactly `dtype.bytes_of(product of shape)` bytes, little-endian, of any alignment.
    pub bytes: &'a [u8],
}

/// A tensor that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tensor `{name}` {problem}")]
pub struct ReadError {
    /// Canonical name.
    pub name: String,
    /// What is wrong with it, to stand behind its name.
    pub problem: String,
}

impl ReadError {
    /// There is no such tensor.
    pub fn missing(name: &str) -> ReadError {
        ReadError { name: name.to_owned(), problem: "is missing".to_owned() }
    }
}

/// Where weights come from (a GGUF file, safetensors, memory).
pub trait WeightSource: Sync {
    /// What the tensor of this canonical name is, if there is one. Cheap: no weight is read.
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>>;

    /// The tensor's bytes, as a file has them or made anew. Their length is what dtype and shape say.
    ///
    /// # Errors
    /// A tensor that is not there, or cannot be made from what is.
    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError>;

    /// Tells the source that the tensor's bytes were copied and its pages may leave memory. Only a hint.
    fn release(&self, _name: &str) {}
}

impl<S: WeightSource + ?Sized> WeightSource for &S {
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>> {
        (**self).describe(name)
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        (**self).read(name)
    }

    fn release(&self, name: &str) {
        (**self).release(name);
    }
}
