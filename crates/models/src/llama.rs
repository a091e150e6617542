//! Llama: pre-norm transformer with grouped-query attention, rotary positions and a gated feed-forward network
//! (Touvron et al., 2023). The graph of Llama 2 and 3, SmolLM2, TinyLlama and Mistral; whether a file of theirs runs
//! depends on its tokenizer as well.

use wushi_formats::Checkpoint;
use wushi_graph::{Attention, Builder, Graph, GraphError, Mask, Rope, RopePairs, Value};

use crate::Model;
use crate::config::{Keys, ModelError};
use crate::huggingface::{As, Import, Importer};

#[derive(Clone, Debug)]
struct Config {
    vocabulary: usize,
    layers: usize,
    width: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    eps: f32,
    rope: Rope,
    /// Llama 3 divides rope's frequencies by a vector.
    rope_factors: bool,
    mask: Mask,
    /// The output matrix is the embedding table.
    tied: bool,
    bias: Biases,
}

/// Which linear layers add a bias.
#[derive(Clone, Copy, Debug)]
struct Biases {
    qkv: bool,
    attention_output: bool,
    feed_forward: bool,
}

/// The keys that are read below, and those that change nothing here.
const KNOWN_KEYS: &[&str] = &[
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "tensor_data_layout",
    "expert_count",
    "expert_used_count",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
];

impl Config {
    fn read(keys: &Keys<'_>) -> Result<Self, ModelError> {
        keys.refuse_unknown(KNOWN_KEYS)?;
        if let Some(experts) = keys.experts()? {
            return Err(keys.unsupported("expert_count", experts, "mixtures of experts are not supported"));
        }
        let (width, heads) = keys.width_and_heads()?;
        let head_dim = keys.count_or("attention.key_length", width / heads)?;
        if keys.count_or("attention.value_length", head_dim)? != head_dim {
            let value = keys.count("attention.value_length")?;
            let hint = "keys and values must have heads of one length";
            return Err(keys.unsupported("attention.value_length", value, hint));
        }
        let rotary_dim = keys.count_or("rope.dimension_count", head_dim)?;
        if rotary_dim != head_dim {
            return Err(keys.invalid("rope.dimension_count", rotary_dim, "this family rotates whole heads"));
        }
        let rope = Rope {
            head_dim,
            rotary_dim,
            base: keys.number_or("rope.freq_base", 10_000.0)?,
            position_scale: position_scale(keys)?,
            pairs: RopePairs::Adjacent,
        };
        Ok(Config {
            vocabulary: keys.vocabulary()?,
            layers: keys.layers()?,
            width,
            hidden: keys.count("feed_forward_length")?,
            heads,
            kv_heads: keys.count_or("attention.head_count_kv", heads)?,
            head_dim,
            eps: keys.number("attention.layer_norm_rms_epsilon")?,
            rope,
            rope_factors: keys.has("rope_freqs.weight"),
            mask: match keys.count_or("attention.sliding_window", usize::MAX)? {
                usize::MAX => Mask::Causal,
                window => Mask::SlidingWindow(window),
            },
            tied: !keys.has("output.weight"),
            bias: Biases {
                qkv: keys.has("blk.0.attn_q.bias"),
                attention_output: keys.has("blk.0.attn_output.bias"),
                feed_forward: keys.has("blk.0.ffn_down.bias"),
            },
        })
    }

    fn graph(&self) -> Result<Graph, GraphError> {
        let g = Builder::new();
        // All three are below 2^32: no overflow.
        let (q_width, kv_width) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let rope = |b: &Builder, x: Value| match self.rope_factors {
            true => g.rope_with_factors(x, self.rope, "rope_freqs"),
            false => b.rope(x, self.rope),
        };
        let attention =
            Attention { mask: self.mask, ..Attention::causal(self.heads, self.kv_heads, self.head_dim) };
        let mut x = g.embed("token_embd", self.vocabulary, self.width)?;
        for layer in 0..self.layers {
            let b = g.block("blk", layer);
            let h = b.rms_norm(x, "attn_norm", self.width, self.eps)?;
            let q = rope(&b, b.linear_with(h, "attn_q", q_width, self.bias.qkv)?)?;
            let k = rope(&b, b.linear_with(h, "attn_k", kv_width, self.bias.qkv)?)?;
            let v = b.linear_with(h, "attn_v", kv_width, self.bias.qkv)?;
            let a = b.attention(q, k, v, attention)?;
            x = b.add(x, b.linear_with(a, "attn_output", self.width, self.bias.attention_output)?)?;
            let h = b.rms_norm(x, "ffn_norm", self.width, self.eps)?;
            let gate = b.silu(b.linear_with(h, "ffn_gate", self.hidden, self.bias.feed_forward)?)?;
            let up = b.mul(gate, b.linear_with(h, "ffn_up", self.hidden, self.bias.feed_forward)?)?;
            x = b.add(x, b.linear_with(up, "ffn_down", self.width, self.bias.feed_forward)?)?;
        }
        let x = g.rms_norm(g.rows(x)?, "output_norm", self.width, self.eps)?;
        let output = if self.tied { "token_embd" } else { "output" };
        g.finish(g.linear(x, output, self.vocabulary)?)
    }
}

/// What positions are divided by.
fn position_scale(keys: &Keys<'_>) -> Result<f32, ModelError> {
    match keys.text("rope.scaling.type")? {
        None | Some("none") => keys.number_or("rope.scale_linear", 1.0),
        Some("linear") => keys.number("rope.scaling.factor"),
        Some(other) => Err(keys.unsupported("rope.scaling.type", other, "`none` and `linear` are")),
    }
}

pub(crate) fn build(gguf: &Checkpoint) -> Result<Model, ModelError> {
    let keys = Keys::new(gguf)?;
    let config = Config::read(&keys)?;
    Ok(Model {
        architecture: keys.architecture().to_string(),
        graph: config.graph()?,
        trained_context: keys.count("context_length")?,
    })
}

pub(crate) const IMPORTS: &[Import] = &[
    Import { class: "LlamaForCausalLM", architecture: "llama", describe: import },
    Import { class: "MistralForCausalLM", architecture: "llama", describe: import },
];

fn import(from: &mut Importer) -> Result<(), ModelError> {
    from.only("hidden_act", &["silu"], "`silu` is")?;
    let layers = from.sizes()?;
    let head_dim = from.head_dim()?;
    from.rope(head_dim)?;
    if let Some(window) = from.count_if("sliding_window")? {
        from.set_count("attention.sliding_window", window);
    }
    let (heads, kv_heads) = from.heads()?;
    let parts = [
        ("attn_norm", "input_layernorm", As::Same),
        ("attn_q", "self_attn.q_proj", As::Pairs(heads)),
        ("attn_k", "self_attn.k_proj", As::Pairs(kv_heads)),
        ("attn_v", "self_attn.v_proj", As::Same),
        ("attn_output", "self_attn.o_proj", As::Same),
        ("ffn_norm", "post_attention_layernorm", As::Same),
        ("ffn_gate", "mlp.gate_proj", As::Same),
        ("ffn_up", "mlp.up_proj", As::Same),
        ("ffn_down", "mlp.down_proj", As::Same),
    ];
    from.decoder(layers, &parts, As::Same)
}
