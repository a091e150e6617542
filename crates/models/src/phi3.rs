//! Phi 3, 3.5 and 4 mini (Abdin et al., 2024): Llama's layer; files keep queries, keys and values in one matrix, gate and
//! up in another. Long contexts by LongRoPE's factors.

use wushi_graph::{Builder, GraphError, Mask, RopePairs, Value};

use crate::config::{Keys, ModelError};
use crate::decoder::{Decoder, mask};
use crate::huggingface::{As, Import, Importer};
use crate::rope::Rotary;
use crate::{Family, Model, Positions};

pub(crate) const FAMILY: Family =
    Family { architecture: "phi3", models: "Phi 3 and 3.5 mini, Phi 4 and 4 mini", build, imports: IMPORTS };

#[derive(Clone, Debug)]
struct Config {
    decoder: Decoder,
    hidden: usize,
    rotary: Rotary,
    mask: Mask,
}

const KEYS: &[&str] = &["attention.sliding_window"];

impl Config {
    fn read(keys: &Keys<'_>, positions: &Positions) -> Result<Self, ModelError> {
        let decoder = Decoder::read(keys, KEYS)?;
        Ok(Config {
            rotary: Rotary::read_partial(keys, decoder.head_dim, 10_000.0, RopePairs::Halves, positions)?,
            hidden: keys.count("feed_forward_length")?,
            mask: mask(keys)?,
            decoder,
        })
    }

    fn layer(&self, b: &Builder, x: Value) -> Result<Value, GraphError> {
        let (c, hidden) = (&self.decoder, self.hidden);
        let (q_width, kv_width) = (c.q_width(), c.kv_width());
        let (keys, values) = (q_width + kv_width, q_width + 2 * kv_width);
        let h = b.rms_norm(x, "attn_norm", c.width, c.eps)?;
        let q = b.linear_rows(h, "attn_qkv", 0..q_width, values)?;
        let k = b.linear_rows(h, "attn_qkv", q_width..keys, values)?;
        let v = b.linear_rows(h, "attn_qkv", keys..values, values)?;
        let (q, k) = (self.rotary.apply(b, q)?, self.rotary.apply(b, k)?);
        let a = b.attention(q, k, v, c.attention(self.mask))?;
        let x = b.add(x, b.linear(a, "attn_output", c.width)?)?;
        let h = b.rms_norm(x, "ffn_norm", c.width, c.eps)?;
        let gate = b.silu(b.linear_rows(h, "ffn_up", 0..hidden, 2 * hidden)?)?;
        let up = b.mul(gate, b.linear_rows(h, "ffn_up", hidden..2 * hidden, 2 * hidden)?)?;
        b.add(x, b.linear(up, "ffn_down", c.width)?)
    }
}

fn build(keys: &Keys<'_>, positions: &Positions) -> Result<Model, ModelError> {
    let config = Config::read(keys, positions)?;
    Model::new(keys, config.decoder.stack(|b, _, x| config.layer(b, x))?, config.decoder.pooling)
}

const IMPORTS: &[Import] = &[Import { class: "Phi3ForCausalLM", architecture: "phi3", describe: import }];

fn import(from: &mut Importer) -> Result<(), ModelError> {
    from.only("hidden_act", &["silu"], "`silu` is")?;
    let layers = from.sizes()?;
    let head_dim = from.head_dim()?;
    let original =
        from.count_or("original_max_position_embeddings", from.count("max_position_embeddings")?)?;
    from.set_count("rope.scaling.original_context_length", original);
    from.rope(head_dim)?;
    // 0 for none, which llama.cpp wants said.
    let window = from.count_if("sliding_window")?.unwrap_or(0);
    from.set_count("attention.sliding_window", window);
    let parts = [
        ("attn_norm", "input_layernorm", As::Same),
        ("attn_qkv", "self_attn.qkv_proj", As::Same),
        ("attn_output", "self_attn.o_proj", As::Same),
        ("ffn_norm", "post_attention_layernorm", As::Same),
        ("ffn_up", "mlp.gate_up_proj", As::Same),
        ("ffn_down", "mlp.down_proj", As::Same),
    ];
    from.decoder(layers, &parts, As::Same)
}
