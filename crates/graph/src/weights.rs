//! Weights: what a graph declares, and where their bytes come from.

use crate::DType;

/// What a weight is for; an executor chooses its layout by it, an adapter or quantiser what to touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rows are looked up by token id: shape `[vocabulary, width]`. May also be used as an output matrix.
    Embedding,
    /// A linear layer's matrix, shape `[outputs, inputs]`.
    Matrix,
    /// One value per channel (norm weights, biases, rope frequency factors), shape `[channels]`.
    Vector,
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
