//! Qwen 3 (Yang et al., 2025): Llama's layer with a norm on every head of queries and keys; `qwen3moe` has a mixture of
//! experts in place of the feed-forward network.

use serde_json::json;
use wushi_graph::{Builder, GraphError, Mask, RopePairs, Routing, Value};

use crate::config::{Keys, ModelError};
use crate::decoder::Decoder;
use crate::huggingface::{As, Import, Importer};
use crate::rope::Rotary;
use crate::{Family, Model, Positions};

pub(crate) const FAMILY: Family =
    Family { architecture: "qwen3", models: "Qwen 3, Qwen3-Embedding", build, imports: IMPORTS };

pub(crate) const FAMILY_MOE: Family = Family {
    architecture: "qwen3moe",
    models: "Qwen3-30B-A3B, Qwen3-Coder-30B-A3B",
    build: build_moe,
    imports: MOE_IMPORTS,
};

#[derive(Clone, Debug)]
struct Config {
    decoder: Decoder,
    rotary: Rotary,
    feed_forward: FeedForward,
}

#[derive(Clone, Copy, Debug)]
enum FeedForward {
    /// One network of so many hidden elements.
    Dense(usize),
    /// Some of several networks of so many hidden elements each.
    Experts(Routing, usize),
}

impl FeedForward {
    fn experts(keys: &Keys<'_>) -> Result<Self, ModelError> {
        let shared = keys.number_of("expert_shared_feed_forward_length")?.filter(|&length| length > 0);
        if let Some(length) = shared {
            let hint = "an expert that all tokens share is not supported";
            return Err(keys.unsupported("expert_shared_feed_forward_length", length, hint));
        }
        let used = keys.count("expert_used_count")?;
        let normalise = keys.truth_or("expert_weights_norm", true)?;
        let routing = Routing { experts: keys.count("expert_count")?, used, normalise };
        let all = keys.count("feed_forward_length")?;
        Ok(FeedForward::Experts(routing, keys.count_or("expert_feed_forward_length", all.div_ceil(used))?))
    }
}

/// What only the mixture of experts knows.
const EXPERT_KEYS: &[&str] = &[
    "expert_count",
    "expert_used_count",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "expert_weights_norm",
];

impl Config {
    fn read(keys: &Keys<'_>, positions: &Positions, experts: bool) -> Result<Self, ModelError> {
        let decoder = Decoder::read(keys, if experts { EXPERT_KEYS } else { &[] })?;
        let feed_forward = match experts {
            false => FeedForward::Dense(keys.count("feed_forward_length")?),
            true => FeedForward::experts(keys)?,
        };
        let rotary = Rotary::read(keys, decoder.head_dim, 1_000_000.0, RopePairs::Halves, positions)?;
        Ok(Config { decoder, rotary, feed_forward })
    }

    fn layer(&self, b: &Builder, x: Value) -> Result<Value, GraphError> {
        let c = &self.decoder;
        let h = b.rms_norm(x, "attn_norm", c.width, c.eps)?;
        let q = b.rms_norm(b.linear(h, "attn_q", c.q_width())?, "attn_q_norm", c.head_dim, c.eps)?;
        let k = b.rms_norm(b.linear(h, "attn_k", c.kv_width())?, "attn_k_norm", c.head_dim, c.eps)?;
        let v = b.linear(h, "attn_v", c.kv_width())?;
        let (q, k) = (self.rotary.apply(b, q)?, self.rotary.apply(b, k)?);
        let a = b.attention(q, k, v, c.attention(Mask::Causal))?;
        let x = b.add(x, b.linear(a, "attn_output", c.width)?)?;
        let h = b.rms_norm(x, "ffn_norm", c.width, c.eps)?;
        b.add(x, self.feed_forward(b, h)?)
    }

    fn feed_forward(&self, b: &Builder, h: Value) -> Result<Value, GraphError> {
        let width = self.decoder.width;
        match self.feed_forward {
            FeedForward::Dense(hidden) => {
                let gate = b.silu(b.linear(h, "ffn_gate", hidden)?)?;
                let up = b.mul(gate, b.linear(h, "ffn_up", hidden)?)?;
                b.linear(up, "ffn_down", width)
            }
            FeedForward::Experts(routing, hidden) => {
                let routes = b.route(b.linear(h, "ffn_gate_inp", routing.experts)?, routing)?;
                let gate = b.silu(b.expert_linear(h, routes, "ffn_gate_exps", hidden)?)?;
                let up = b.mul(gate, b.expert_linear(h, routes, "ffn_up_exps", hidden)?)?;
                b.combine(b.expert_linear(up, routes, "ffn_down_exps", width)?, routes)
            }
        }
    }
}

fn build(keys: &Keys<'_>, positions: &Positions) -> Result<Model, ModelError> {
    model(keys, &Config::read(keys, positions, false)?)
}

fn build_moe(keys: &Keys<'_>, positions: &Positions) -> Result<Model, ModelError> {
    model(keys, &Config::read(keys, positions, true)?)
}

fn model(keys: &Keys<'_>, config: &Config) -> Result<Model, ModelError> {
    Model::new(keys, config.decoder.stack(|b, _, x| config.layer(b, x))?, config.decoder.pooling)
}

const IMPORTS: &[Import] = &[
    Import { class: "Qwen3ForCausalLM", architecture: "qwen3", describe: import },
    Import { class: "Qwen3Model", architecture: "qwen3", describe: import },
];

const MOE_IMPORTS: &[Import] =
    &[Import { class: "Qwen3MoeForCausalLM", architecture: "qwen3moe", describe: import_moe }];

/// The attention half of a layer, and the norm behind it.
const ATTENTION: [(&str, &str, As); 8] = [
    ("attn_norm", "input_layernorm", As::Same),
    ("attn_q", "self_attn.q_proj", As::Same),
    ("attn_k", "self_attn.k_proj", As::Same),
    ("attn_v", "self_attn.v_proj", As::Same),
    ("attn_q_norm", "self_attn.q_norm", As::Same),
    ("attn_k_norm", "self_attn.k_norm", As::Same),
    ("attn_output", "self_attn.o_proj", As::Same),
    ("ffn_norm", "post_attention_layernorm", As::Same),
];

/// What both kinds share; gives the number of layers.
fn import_common(from: &mut Importer) -> Result<usize, ModelError> {
    from.defaults(json!({ "head_dim": 128 }));
    from.only("hidden_act", &["silu"], "`silu` is")?;
    from.refuse("use_sliding_window", "every layer of this family sees everything")?;
    let layers = from.sizes()?;
    let head_dim = from.head_dim()?;
    from.rope(head_dim)?;
    Ok(layers)
}

fn import(from: &mut Importer) -> Result<(), ModelError> {
    let layers = import_common(from)?;
    let feed_forward = [
        ("ffn_gate", "mlp.gate_proj", As::Same),
        ("ffn_up", "mlp.up_proj", As::Same),
        ("ffn_down", "mlp.down_proj", As::Same),
    ];
    from.decoder(layers, &[&ATTENTION[..], &feed_forward].concat(), As::Same)
}

fn import_moe(from: &mut Importer) -> Result<(), ModelError> {
    let hint = "every layer must have experts";
    match from.get("mlp_only_layers").and_then(|list| list.as_array()) {
        Some(list) if !list.is_empty() => {
            return Err(from.unsupported("mlp_only_layers", &json!(list), hint));
        }
        _ => {}
    }
    match from.count_or("decoder_sparse_step", 1)? {
        1 => {}
        step => return Err(from.unsupported("decoder_sparse_step", &json!(step), hint)),
    }
    let layers = import_common(from)?;
    let experts = from.count("num_experts")?;
    for (key, there) in [
        ("expert_count", "num_experts"),
        ("expert_used_count", "num_experts_per_tok"),
        ("expert_feed_forward_length", "moe_intermediate_size"),
    ] {
        let count = from.count(there)?;
        from.set_count(key, count);
    }
    let normalised = from.flag("norm_topk_prob")?;
    from.set("expert_weights_norm", normalised);
    for layer in 0..layers {
        let mlp = format!("model.layers.{layer}.mlp");
        for (name, there) in [("gate", "gate_proj"), ("up", "up_proj"), ("down", "down_proj")] {
            let name = format!("blk.{layer}.ffn_{name}_exps.weight");
            from.experts(name, experts, |expert| format!("{mlp}.experts.{expert}.{there}.weight"))?;
        }
    }
    let router = [("ffn_gate_inp", "mlp.gate", As::Same)];
    from.decoder(layers, &[&ATTENTION[..], &router].concat(), As::Same)
}
