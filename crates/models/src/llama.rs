//! Llama: pre-norm transformer with grouped-query attention, rotary positions and a gated feed-forward network
//! (Touvron et al., 2023). Llama 2 and 3, SmolLM2, TinyLlama, and with a sliding window Mistral.

use wushi_graph::{Builder, Graph, GraphError, Mask, RopePairs, Value};

use crate::config::{Keys, ModelError};
use crate::decoder::{Decoder, mask};
use crate::huggingface::{As, Import, Importer};
use crate::rope::Rotary;
use crate::{Family, Model, Positions};

pub(crate) const FAMILY: Family = Family {
    architecture: "llama",
    models: "Llama 2 and 3, SmolLM2, TinyLlama, Mistral 7B",
    build,
    imports: IMPORTS,
};

#[derive(Clone, Debug)]
struct Config {
    decoder: Decoder,
    hidden: usize,
    rotary: Rotary,
    mask: Mask,
    bias: Biases,
}

/// Which linear layers add a bias.
#[derive(Clone, Copy, Debug)]
struct Biases {
    qkv: bool,
    attention_output: bool,
    feed_forward: bool,
}

/// What only this family knows.
const KEYS: &[&str] = &["expert_count", "expert_used_count", "attention.sliding_window"];

impl Config {
    fn read(keys: &Keys<'_>, positions: &Positions) -> Result<Self, ModelError> {
        let decoder = Decoder::read(keys, KEYS)?;
        if let Some(experts) = keys.number_of("expert_count")?.filter(|&n| n > 0) {
            let hint = "mixtures of experts are supported in qwen3moe";
            return Err(keys.unsupported("expert_count", experts, hint));
        }
        Ok(Config {
            rotary: Rotary::read(keys, decoder.head_dim, 10_000.0, RopePairs::Adjacent, positions)?,
            hidden: keys.count("feed_forward_length")?,
            mask: mask(keys)?,
            bias: Biases {
                qkv: keys.has("blk.0.attn_q.bias"),
                attention_output: keys.has("blk.0.attn_output.bias"),
                feed_forward: keys.has("blk.0.ffn_down.bias"),
            },
            decoder,
        })
    }

    fn graph(&self) -> Result<Graph, GraphError> {
        self.decoder.stack(|b, _, x| self.layer(b, x))
    }

    fn layer(&self, b: &Builder, x: Value) -> Result<Value, GraphError> {
        let (c, bias) = (&self.decoder, self.bias);
        let h = b.rms_norm(x, "attn_norm", c.width, c.eps)?;
        let q = self.rotary.apply(b, b.linear_with(h, "attn_q", c.q_width(), bias.qkv)?)?;
        let k = self.rotary.apply(b, b.linear_with(h, "attn_k", c.kv_width(), bias.qkv)?)?;
        let v = b.linear_with(h, "attn_v", c.kv_width(), bias.qkv)?;
        let a = b.attention(q, k, v, c.attention(self.mask))?;
        let x = b.add(x, b.linear_with(a, "attn_output", c.width, bias.attention_output)?)?;
        let h = b.rms_norm(x, "ffn_norm", c.width, c.eps)?;
        let gate = b.silu(b.linear_with(h, "ffn_gate", self.hidden, bias.feed_forward)?)?;
        let up = b.mul(gate, b.linear_with(h, "ffn_up", self.hidden, bias.feed_forward)?)?;
        b.add(x, b.linear_with(up, "ffn_down", c.width, bias.feed_forward)?)
    }
}

fn build(keys: &Keys<'_>, positions: &Positions) -> Result<Model, ModelError> {
    let config = Config::read(keys, positions)?;
    Model::new(keys, config.graph()?, config.decoder.pooling)
}

const IMPORTS: &[Import] = &[
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
