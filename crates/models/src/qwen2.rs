//! Qwen 2 and 2.5 (Yang et al., 2024): Llama's layer with biases on queries, keys and values.

use wushi_graph::{Builder, GraphError, Mask, RopePairs, Value};

use crate::config::{Keys, ModelError};
use crate::decoder::Decoder;
use crate::huggingface::{As, Import, Importer};
use crate::rope::Rotary;
use crate::{Family, Model, Positions};

pub(crate) const FAMILY: Family =
    Family { architecture: "qwen2", models: "Qwen 2 and 2.5, Qwen2.5-Coder", build, imports: IMPORTS };

#[derive(Clone, Debug)]
struct Config {
    decoder: Decoder,
    hidden: usize,
    rotary: Rotary,
}

impl Config {
    fn read(keys: &Keys<'_>, positions: &Positions) -> Result<Self, ModelError> {
        let decoder = Decoder::read(keys, &[])?;
        Ok(Config {
            rotary: Rotary::read(keys, decoder.head_dim, 1_000_000.0, RopePairs::Halves, positions)?,
            hidden: keys.count("feed_forward_length")?,
            decoder,
        })
    }

    fn layer(&self, b: &Builder, x: Value) -> Result<Value, GraphError> {
        let c = &self.decoder;
        let h = b.rms_norm(x, "attn_norm", c.width, c.eps)?;
        let q = self.rotary.apply(b, b.linear_with(h, "attn_q", c.q_width(), true)?)?;
        let k = self.rotary.apply(b, b.linear_with(h, "attn_k", c.kv_width(), true)?)?;
        let v = b.linear_with(h, "attn_v", c.kv_width(), true)?;
        let a = b.attention(q, k, v, c.attention(Mask::Causal))?;
        let x = b.add(x, b.linear(a, "attn_output", c.width)?)?;
        let h = b.rms_norm(x, "ffn_norm", c.width, c.eps)?;
        let gate = b.silu(b.linear(h, "ffn_gate", self.hidden)?)?;
        let up = b.mul(gate, b.linear(h, "ffn_up", self.hidden)?)?;
        b.add(x, b.linear(up, "ffn_down", c.width)?)
    }
}

fn build(keys: &Keys<'_>, positions: &Positions) -> Result<Model, ModelError> {
    let config = Config::read(keys, positions)?;
    Model::new(keys, config.decoder.stack(|b, _, x| config.layer(b, x))?, config.decoder.pooling)
}

const IMPORTS: &[Import] = &[Import { class: "Qwen2ForCausalLM", architecture: "qwen2", describe: import }];

fn import(from: &mut Importer) -> Result<(), ModelError> {
    from.only("hidden_act", &["silu"], "`silu` is")?;
    from.refuse("use_sliding_window", "every layer of this family sees everything")?;
    let layers = from.sizes()?;
    let head_dim = from.head_dim()?;
    from.rope(head_dim)?;
    let parts = [
        ("attn_norm", "input_layernorm", As::Same),
        ("attn_q", "self_attn.q_proj", As::Same),
        ("attn_k", "self_attn.k_proj", As::Same),
        ("attn_v", "self_attn.v_proj", As::Same),
        ("attn_output", "self_attn.o_proj", As::Same),
        ("ffn_norm", "post_attention_layernorm", As::Same),
        ("ffn_gate", "mlp.gate_proj", As::Same),
        ("ffn_up", "mlp.up_proj", As::Same),
        ("ffn_down", "mlp.down_proj", As::Same),
    ];
    from.decoder(layers, &parts, As::Same)
}
