//! Gemma 3 (Gemma Team, 2025): scaled embeddings, norms before and after each half of a layer, norms on the heads of
//! queries and keys; most layers see a sliding window and have a rope of their own.

use serde_json::json;
use wushi_graph::{Attention, Builder, Graph, GraphError, Mask, RopePairs, Value};

use crate::config::{Keys, ModelError, all_but_every};
use crate::decoder::{Decoder, mask};
use crate::huggingface::{As, Import, Importer};
use crate::rope::Rotary;
use crate::{Family, Model, Positions};

pub(crate) const FAMILY: Family = Family {
    architecture: "gemma3",
    models: "Gemma 3, the text model of those that see pictures",
    build,
    imports: IMPORTS,
};

#[derive(Clone, Debug)]
struct Config {
    decoder: Decoder,
    hidden: usize,
    /// Scores are multiplied by this.
    scale: f32,
    /// By layer: whether it sees the window only.
    local: Vec<bool>,
    window: Mask,
    global_rotary: Rotary,
    local_rotary: Rotary,
    softcap: Option<f32>,
}

const KEYS: &[&str] = &[
    "attention.scale",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "rope.freq_base_swa",
    "final_logit_softcapping",
];

/// Every so many layers one sees everything, unless the file says otherwise.
const PATTERN: usize = 6;

impl Config {
    fn read(keys: &Keys<'_>, positions: &Positions) -> Result<Self, ModelError> {
        let decoder = Decoder::read(keys, KEYS)?;
        let head_dim = decoder.head_dim;
        let window = mask(keys)?;
        let local = match window {
            Mask::Causal => vec![false; decoder.layers],
            _ => keys.pattern("attention.sliding_window_pattern", PATTERN, decoder.layers)?,
        };
        let local_base = keys.number_or("rope.freq_base_swa", 10_000.0)?;
        // The 27B model, which has 62 layers, divides by the root of another length; files do not tell.
        let divisor = if decoder.layers == 62 { decoder.width / decoder.heads } else { head_dim };
        let scale = (1.0 / (divisor as f64).sqrt()) as f32;
        Ok(Config {
            hidden: keys.count("feed_forward_length")?,
            scale: keys.number_or("attention.scale", scale)?,
            local,
            window,
            global_rotary: Rotary::read(keys, head_dim, 1_000_000.0, RopePairs::Halves, positions)?,
            local_rotary: Rotary::plain(head_dim, local_base, RopePairs::Halves),
            softcap: keys.optional_number("final_logit_softcapping")?,
            decoder,
        })
    }

    fn graph(&self) -> Result<Graph, GraphError> {
        let (g, c) = (Builder::new(), &self.decoder);
        let mut x = g.scale(c.embed(&g)?, (c.width as f32).sqrt())?;
        for layer in 0..c.layers {
            x = self.layer(&g.block("blk", layer), self.local[layer], x)?;
        }
        c.finish(&g, x, |logits| self.softcap.map_or(Ok(logits), |cap| g.softcap(logits, cap)))
    }

    fn layer(&self, b: &Builder, local: bool, x: Value) -> Result<Value, GraphError> {
        let c = &self.decoder;
        let norm = |x, name| b.rms_norm(x, name, c.width, c.eps);
        let (rotary, mask) = match local {
            true => (self.local_rotary, self.window),
            false => (self.global_rotary, Mask::Causal),
        };
        let h = norm(x, "attn_norm")?;
        let q = b.rms_norm(b.linear(h, "attn_q", c.q_width())?, "attn_q_norm", c.head_dim, c.eps)?;
        let k = b.rms_norm(b.linear(h, "attn_k", c.kv_width())?, "attn_k_norm", c.head_dim, c.eps)?;
        let v = b.linear(h, "attn_v", c.kv_width())?;
        let attention = Attention { scale: self.scale, ..c.attention(mask) };
        let a = b.attention(rotary.apply(b, q)?, rotary.apply(b, k)?, v, attention)?;
        let x = b.add(x, norm(b.linear(a, "attn_output", c.width)?, "post_attention_norm")?)?;
        let h = norm(x, "ffn_norm")?;
        let gate = b.gelu_tanh(b.linear(h, "ffn_gate", self.hidden)?)?;
        let up = b.mul(gate, b.linear(h, "ffn_up", self.hidden)?)?;
        b.add(x, norm(b.linear(up, "ffn_down", c.width)?, "post_ffw_norm")?)
    }
}

fn build(keys: &Keys<'_>, positions: &Positions) -> Result<Model, ModelError> {
    let config = Config::read(keys, positions)?;
    Model::new(keys, config.graph()?, config.decoder.pooling)
}

const IMPORTS: &[Import] = &[
    Import { class: "Gemma3ForCausalLM", architecture: "gemma3", describe: import },
    Import { class: "Gemma3ForConditionalGeneration", architecture: "gemma3", describe: import_text },
];

/// The text model of one that sees pictures too.
fn import_text(from: &mut Importer) -> Result<(), ModelError> {
    // The names before and after the class was rearranged.
    let newer = from.has("model.language_model.embed_tokens.weight");
    from.enter("text_config", if newer { "model.language_model." } else { "language_model.model." });
    import(from)
}

fn import(from: &mut Importer) -> Result<(), ModelError> {
    from.defaults(json!({
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-6,
        "rope_local_base_freq": 10_000.0,
        "rope_theta": 1_000_000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": true,
        "vocab_size": 262_208,
    }));
    from.only("hidden_activation", &["gelu_pytorch_tanh"], "`gelu_pytorch_tanh` is")?;
    from.refuse("attn_logit_softcapping", "this family has none")?;
    from.refuse("use_bidirectional_attention", "tokens of this family see what came before them only")?;
    let layers = from.sizes()?;
    let head_dim = from.head_dim()?;
    from.rope(head_dim)?;
    for (key, there) in [
        ("rope.freq_base_swa", "rope_local_base_freq"),
        ("final_logit_softcapping", "final_logit_softcapping"),
    ] {
        if let Some(number) = from.number_if(there)? {
            from.set(key, number);
        }
    }
    if let Some(base) = from.local_rope_base()? {
        from.set("rope.freq_base_swa", base);
    }
    if let Some(window) = from.count_if("sliding_window")? {
        from.set_count("attention.sliding_window", window);
    }
    if let Some(scalar) = from.number_if("query_pre_attn_scalar")? {
        from.set("attention.scale", (1.0 / f64::from(scalar).sqrt()) as f32);
    }
    if let Some(local) = local_layers(from, layers)? {
        from.set("attention.sliding_window_pattern", local);
    }
    let parts = [
        ("attn_norm", "input_layernorm", As::PlusOne),
        ("attn_q", "self_attn.q_proj", As::Same),
        ("attn_k", "self_attn.k_proj", As::Same),
        ("attn_v", "self_attn.v_proj", As::Same),
        ("attn_q_norm", "self_attn.q_norm", As::PlusOne),
        ("attn_k_norm", "self_attn.k_norm", As::PlusOne),
        ("attn_output", "self_attn.o_proj", As::Same),
        ("post_attention_norm", "post_attention_layernorm", As::PlusOne),
        ("ffn_norm", "pre_feedforward_layernorm", As::PlusOne),
        ("ffn_gate", "mlp.gate_proj", As::Same),
        ("ffn_up", "mlp.up_proj", As::Same),
        ("ffn_down", "mlp.down_proj", As::Same),
        ("post_ffw_norm", "post_feedforward_layernorm", As::PlusOne),
    ];
    from.decoder(layers, &parts, As::PlusOne)
}

/// Which layers see the window only, if not all but every sixth.
fn local_layers(from: &Importer, layers: usize) -> Result<Option<Vec<bool>>, ModelError> {
    let usual = all_but_every(PATTERN, layers);
    let local: Vec<bool> = match from.get("layer_types") {
        Some(value) => {
            let types = value.as_array().into_iter().flatten();
            let local: Vec<bool> = types.map(|kind| kind == "sliding_attention").collect();
            if local.len() != layers {
                return Err(from.invalid("layer_types", value, "expected one for each layer"));
            }
            local
        }
        None => all_but_every(from.count_or("sliding_window_pattern", PATTERN)?, layers),
    };
    Ok((local != usual).then_some(local))
}
