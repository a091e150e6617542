//! What decoder-only transformers share: sizes, and how a stack ends. What they do not share stands in their own files.

use wushi_graph::{Attention, Builder, Graph, GraphError, Mask, Value};

use crate::config::{Keys, ModelError};
use crate::{Pooling, rope};

/// Sizes of a decoder-only transformer.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    pub(crate) vocabulary: usize,
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) eps: f32,
    /// The output matrix is the embedding table.
    tied: bool,
    /// The model gives embeddings rather than logits.
    pub(crate) pooling: Option<Pooling>,
}

/// The keys that are read here or in `rope`, and those that change nothing.
const KNOWN_KEYS: &[&str] = &[
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "tensor_data_layout",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "pooling_type",
];

impl Decoder {
    /// Reads the sizes; refuses keys that are neither known here nor to the family (`own`).
    pub(crate) fn read(keys: &Keys<'_>, own: &[&str]) -> Result<Self, ModelError> {
        keys.refuse_unknown(&[KNOWN_KEYS, rope::KEYS, own].concat())?;
        let (width, heads) = keys.width_and_heads()?;
        let head_dim = keys.count_or("attention.key_length", width / heads)?;
        let value_dim = keys.count_or("attention.value_length", head_dim)?;
        if value_dim != head_dim {
            let hint = "keys and values must have heads of one length";
            return Err(keys.unsupported("attention.value_length", value_dim, hint));
        }
        Ok(Decoder {
            vocabulary: keys.vocabulary()?,
            layers: keys.layers(".attn_norm.weight")?,
            width,
            heads,
            kv_heads: keys.count_or("attention.head_count_kv", heads)?,
            head_dim,
            eps: keys.number("attention.layer_norm_rms_epsilon")?,
            tied: !keys.has("output.weight"),
            pooling: keys.pooling()?,
        })
    }

    /// Elements of all query heads.
    pub(crate) fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of all key heads, or of all value heads.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Attention with the usual scale.
    pub(crate) fn attention(&self, mask: Mask) -> Attention {
        Attention { mask, ..Attention::causal(self.heads, self.kv_heads, self.head_dim) }
    }

    /// The tokens' embeddings.
    pub(crate) fn embed(&self, g: &Builder) -> Result<Value, GraphError> {
        g.embed("token_embd", self.vocabulary, self.width)
    }

    /// The last norm and the logits of the rows that want them, as `then` changes them; for an embedding model, the states.
    pub(crate) fn finish(
        &self,
        g: &Builder,
        x: Value,
        then: impl FnOnce(Value) -> Result<Value, GraphError>,
    ) -> Result<Graph, GraphError> {
        let states = g.rms_norm(g.rows(x)?, "output_norm", self.width, self.eps)?;
        if self.pooling.is_some() {
            return g.finish_with_states(states, states);
        }
        let logits = g.linear(states, if self.tied { "token_embd" } else { "output" }, self.vocabulary)?;
        g.finish_with_states(then(logits)?, states)
    }

    /// The whole graph: embeddings through all layers to the output.
    pub(crate) fn stack(
        &self,
        mut layer: impl FnMut(&Builder, usize, Value) -> Result<Value, GraphError>,
    ) -> Result<Graph, GraphError> {
        let g = Builder::new();
        let mut x = self.embed(&g)?;
        for l in 0..self.layers {
            x = layer(&g.block("blk", l), l, x)?;
        }
        self.finish(&g, x, Ok)
    }
}

/// The file's sliding window, or causal attention to everything.
pub(crate) fn mask(keys: &Keys<'_>) -> Result<Mask, ModelError> {
    Ok(match keys.number_of("attention.sliding_window")? {
        None | Some(0) => Mask::Causal,
        Some(window) => Mask::SlidingWindow(window),
    })
}
