//! Weights: what a graph declares, and where their bytes come from.

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
    /// One value per channel (norm weights, biases, rope frequency factors), shape `[channels]`.
    Vector,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// A tensor's bytes as a file holds them.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// How elements are stored.
    pub dtype: DType,
    /// Outermost dimension first; the last dimension is contiguous.
    pub shape: &'a [usize],
    /// Exactly `dtype.bytes_of(product of shape)` bytes, little-endian, of any alignment.
    pub bytes: &'a [u8],
}

/// Where weights come from (a GGUF file, safetensors, memory).
///
/// The reader has validated every view: its length matches dtype and shape.
pub trait WeightSource: Sync {
    /// The tensor of this canonical name, if there is one.
    fn tensor(&self, name: &str) -> Option<TensorView<'_>>;

    /// Tells the source that the tensor's bytes were copied and its pages may leave memory. Only a hint.
    fn release(&self, _name: &str) {}
}
