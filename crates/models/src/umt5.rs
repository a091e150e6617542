//! umT5's encoder (Chung et al., 2023): what a prompt becomes before a denoiser attends to it. Like T5 (Raffel et al.,
//! 2020), except that every layer has its own table of distances.

use wushi_formats::pipeline::Object;
use wushi_formats::{FormatError, Metadata};
use wushi_graph::{Attention, Builder, Graph, GraphError, Value};

use crate::config::ModelError;
use crate::wan::config::Settings;
use crate::wan::names::{Layout, Tensors};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) vocabulary: usize,
    pub(crate) width: usize,
    pub(crate) layers: usize,
    heads: usize,
    head_dim: usize,
    hidden: usize,
    /// Buckets of distances, and the distance from which on there is only one.
    buckets: usize,
    max_distance: usize,
    eps: f32,
}

impl Config {
    pub(crate) fn read(tensors: &Tensors, settings: &Settings<'_>) -> Result<Config, ModelError> {
        settings.only("model_type", "umt5", "`umt5` is")?;
        settings.only("feed_forward_proj", "gated-gelu", "`gated-gelu` is")?;
        settings.only("dense_act_fn", "gelu_new", "`gelu_new` is")?;
        let &[vocabulary, width] = tensors.shape("token_embd.weight")? else {
            return Err(tensors.wrong_shape("token_embd.weight", "[vocabulary, width]"));
        };
        let &[buckets, heads] = tensors.shape("blk.0.attn_rel_b.weight")? else {
            return Err(tensors.wrong_shape("blk.0.attn_rel_b.weight", "[buckets, heads]"));
        };
        let all_heads = tensors.outputs("blk.0.attn_q.weight")?;
        if heads == 0 || !all_heads.is_multiple_of(heads) {
            return Err(tensors.wrong_shape("blk.0.attn_q.weight", "[heads * elements of a head, width]"));
        }
        let config = Config {
            vocabulary,
            width,
            layers: tensors.blocks("blk"),
            heads,
            head_dim: all_heads / heads,
            hidden: tensors.outputs("blk.0.ffn_up.weight")?,
            buckets,
            max_distance: settings.count("relative_attention_max_distance")?.unwrap_or(128),
            eps: settings.number("layer_norm_epsilon")?.unwrap_or(1e-6),
        };
        settings.agree(&["vocab_size"], vocabulary)?;
        settings.agree(&["d_model"], width)?;
        settings.agree(&["num_layers"], config.layers)?;
        settings.agree(&["num_heads"], heads)?;
        settings.agree(&["d_kv"], config.head_dim)?;
        settings.agree(&["d_ff"], config.hidden)?;
        settings.agree(&["relative_attention_num_buckets"], buckets)?;
        Ok(config)
    }

    pub(crate) fn graph(&self) -> Result<Graph, GraphError> {
        let g = Builder::new();
        let mut x = g.embed("token_embd", self.vocabulary, self.width)?;
        for layer in 0..self.layers {
            x = self.layer(&g.block("blk", layer), x)?;
        }
        let states = g.rms_norm(g.rows(x)?, "output_norm", self.width, self.eps)?;
        g.finish_with_states(states, states)
    }

    fn layer(&self, b: &Builder, x: Value) -> Result<Value, GraphError> {
        let h = b.rms_norm(x, "attn_norm", self.width, self.eps)?;
        let [q, k, v] =
            ["attn_q", "attn_k", "attn_v"].map(|name| b.linear(h, name, self.heads * self.head_dim));
        let bias = b.relative_bias("attn_rel_b", self.heads, self.buckets, self.max_distance)?;
        // T5's scores are not scaled: training made the matrices small instead.
        let full = Attention { scale: 1.0, bias, ..Attention::full(self.heads, self.heads, self.head_dim) };
        let x = b.add(x, b.linear(b.attention(q?, k?, v?, full)?, "attn_output", self.width)?)?;
        let h = b.rms_norm(x, "ffn_norm", self.width, self.eps)?;
        let gate = b.gelu_tanh(b.linear(h, "ffn_gate", self.hidden)?)?;
        let up = b.mul(gate, b.linear(h, "ffn_up", self.hidden)?)?;
        b.add(x, b.linear(up, "ffn_down", self.width)?)
    }
}

/// What a GGUF file says, in the words of `config.json`.
pub(crate) fn settings(metadata: &Metadata) -> Result<Object, FormatError> {
    let mut object = Object::new();
    let Some(architecture) = metadata.str("general.architecture")? else { return Ok(object) };
    for (key, there) in [
        ("d_model", "embedding_length"),
        ("d_ff", "feed_forward_length"),
        ("num_layers", "block_count"),
        ("num_heads", "attention.head_count"),
        ("d_kv", "attention.key_length"),
        ("relative_attention_num_buckets", "attention.relative_buckets_count"),
    ] {
        if let Some(count) = metadata.u32(&format!("{architecture}.{there}"))? {
            object.insert(key.to_owned(), count.into());
        }
    }
    if let Some(eps) = metadata.f32(&format!("{architecture}.attention.layer_norm_rms_epsilon"))? {
        object.insert("layer_norm_epsilon".to_owned(), eps.into());
    }
    Ok(object)
}

/// As transformers saves it, as the models were published first, and as llama.cpp's converter names it.
pub(crate) const LAYOUTS: &[Layout] = &[
    Layout {
        name: "transformers",
        mark: "encoder.final_layer_norm.weight",
        names: &[
            ("token_embd.*", "shared.*"),
            ("token_embd.*", "encoder.embed_tokens.*"),
            ("output_norm.*", "encoder.final_layer_norm.*"),
            ("blk.#.attn_norm.*", "encoder.block.#.layer.0.layer_norm.*"),
            ("blk.#.attn_q.*", "encoder.block.#.layer.0.SelfAttention.q.*"),
            ("blk.#.attn_k.*", "encoder.block.#.layer.0.SelfAttention.k.*"),
            ("blk.#.attn_v.*", "encoder.block.#.layer.0.SelfAttention.v.*"),
            ("blk.#.attn_output.*", "encoder.block.#.layer.0.SelfAttention.o.*"),
            ("blk.#.attn_rel_b.*", "encoder.block.#.layer.0.SelfAttention.relative_attention_bias.*"),
            ("blk.#.ffn_norm.*", "encoder.block.#.layer.1.layer_norm.*"),
            ("blk.#.ffn_gate.*", "encoder.block.#.layer.1.DenseReluDense.wi_0.*"),
            ("blk.#.ffn_up.*", "encoder.block.#.layer.1.DenseReluDense.wi_1.*"),
            ("blk.#.ffn_down.*", "encoder.block.#.layer.1.DenseReluDense.wo.*"),
        ],
        // The tokenizer's file, which ComfyUI's files bring along.
        unused: &["spiece_model"],
        flat: None,
        shortcuts: false,
    },
    Layout {
        name: "original",
        mark: "blocks.0.ffn.fc1.weight",
        names: &[
            ("token_embd.*", "token_embedding.*"),
            ("output_norm.*", "norm.*"),
            ("blk.#.attn_norm.*", "blocks.#.norm1.*"),
            ("blk.#.attn_q.*", "blocks.#.attn.q.*"),
            ("blk.#.attn_k.*", "blocks.#.attn.k.*"),
            ("blk.#.attn_v.*", "blocks.#.attn.v.*"),
            ("blk.#.attn_output.*", "blocks.#.attn.o.*"),
            ("blk.#.attn_rel_b.*", "blocks.#.pos_embedding.embedding.*"),
            ("blk.#.ffn_norm.*", "blocks.#.norm2.*"),
            ("blk.#.ffn_gate.*", "blocks.#.ffn.gate.0.*"),
            ("blk.#.ffn_up.*", "blocks.#.ffn.fc1.*"),
            ("blk.#.ffn_down.*", "blocks.#.ffn.fc2.*"),
        ],
        unused: &[],
        flat: None,
        shortcuts: false,
    },
    Layout {
        name: "GGUF",
        mark: "enc.output_norm.weight",
        names: &[
            ("token_embd.*", "token_embd.*"),
            ("output_norm.*", "enc.output_norm.*"),
            ("blk.#.attn_norm.*", "enc.blk.#.attn_norm.*"),
            ("blk.#.attn_q.*", "enc.blk.#.attn_q.*"),
            ("blk.#.attn_k.*", "enc.blk.#.attn_k.*"),
            ("blk.#.attn_v.*", "enc.blk.#.attn_v.*"),
            ("blk.#.attn_output.*", "enc.blk.#.attn_o.*"),
            ("blk.#.attn_rel_b.*", "enc.blk.#.attn_rel_b.*"),
            ("blk.#.ffn_norm.*", "enc.blk.#.ffn_norm.*"),
            ("blk.#.ffn_gate.*", "enc.blk.#.ffn_gate.*"),
            ("blk.#.ffn_up.*", "enc.blk.#.ffn_up.*"),
            ("blk.#.ffn_down.*", "enc.blk.#.ffn_down.*"),
        ],
        unused: &[],
        flat: None,
        shortcuts: false,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_encoder_has_its_size() {
        let config = Config {
            vocabulary: 256_384,
            width: 4096,
            layers: 24,
            heads: 64,
            head_dim: 64,
            hidden: 10_240,
            buckets: 32,
            max_distance: 128,
            eps: 1e-6,
        };
        // 5.68 billion.
        assert_eq!(config.graph().unwrap().parameters() / 10_000_000, 568);
    }
}
