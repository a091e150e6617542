//! BERT (Devlin et al., 2019): an encoder whose tokens see each other both ways, for embeddings of texts.

use wushi_graph::{Attention, Builder, Graph, GraphError, Value};

use crate::config::{Keys, ModelError};
use crate::huggingface::{As, Import, Importer};
use crate::{Family, Model, Pooling, Positions};

pub(crate) const FAMILY: Family = Family {
    architecture: "bert",
    models: "BERT, BGE, MiniLM and other sentence encoders",
    build,
    imports: IMPORTS,
};

#[derive(Clone, Debug)]
struct Config {
    vocabulary: usize,
    /// Rows of the table of token types; a text alone is of the first type.
    token_types: Option<usize>,
    positions: usize,
    layers: usize,
    width: usize,
    hidden: usize,
    heads: usize,
    eps: f32,
}

const KEYS: &[&str] = &[
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_epsilon",
    "attention.causal",
    "pooling_type",
];

impl Config {
    fn read(keys: &Keys<'_>) -> Result<Self, ModelError> {
        keys.refuse_unknown(KEYS)?;
        let (width, heads) = keys.width_and_heads()?;
        if keys.truth_or("attention.causal", false)? {
            return Err(keys.unsupported(
                "attention.causal",
                true,
                "tokens of this family see each other both ways",
            ));
        }
        Ok(Config {
            vocabulary: keys.vocabulary()?,
            token_types: keys.rows("token_types.weight"),
            positions: keys.rows("position_embd.weight").unwrap_or(keys.count("context_length")?),
            layers: keys.layers(".attn_output_norm.weight")?,
            width,
            hidden: keys.count("feed_forward_length")?,
            heads,
            eps: keys.number("attention.layer_norm_epsilon")?,
        })
    }

    fn graph(&self) -> Result<Graph, GraphError> {
        let g = Builder::new();
        let mut x = g.embed("token_embd", self.vocabulary, self.width)?;
        if let Some(types) = self.token_types {
            x = g.add(x, g.embed_row("token_types", types, self.width, 0)?)?;
        }
        x = g.add(x, g.embed_position("position_embd", self.positions, self.width)?)?;
        x = g.layer_norm(x, "token_embd_norm", self.eps)?;
        for layer in 0..self.layers {
            x = self.layer(&g.block("blk", layer), x)?;
        }
        let states = g.rows(x)?;
        g.finish_with_states(states, states)
    }

    fn layer(&self, b: &Builder, x: Value) -> Result<Value, GraphError> {
        let linear = |x, name, outputs| b.linear_with(x, name, outputs, true);
        let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|name| linear(x, name, self.width));
        let a = b.attention(q?, k?, v?, Attention::full(self.heads, self.heads, self.width / self.heads))?;
        let x = b.add(x, linear(a, "attn_output", self.width)?)?;
        let x = b.layer_norm(x, "attn_output_norm", self.eps)?;
        let up = b.gelu_erf(linear(x, "ffn_up", self.hidden)?)?;
        let x = b.add(x, linear(up, "ffn_down", self.width)?)?;
        b.layer_norm(x, "layer_output_norm", self.eps)
    }
}

fn build(keys: &Keys<'_>, _: &Positions) -> Result<Model, ModelError> {
    let config = Config::read(keys)?;
    // What sentence encoders do that do not say.
    let pooling = keys.pooling()?.unwrap_or(Pooling::Mean);
    Model::new(keys, config.graph()?, Some(pooling))
}

const IMPORTS: &[Import] = &[
    Import { class: "BertModel", architecture: "bert", describe: import },
    Import { class: "BertForMaskedLM", architecture: "bert", describe: import },
];

fn import(from: &mut Importer) -> Result<(), ModelError> {
    from.only("hidden_act", &["gelu"], "`gelu` is")?;
    from.only("position_embedding_type", &["absolute"], "`absolute` is")?;
    let layers = from.sizes()?;
    let eps = from.number_if("layer_norm_eps")?.unwrap_or(1e-12);
    from.set("attention.layer_norm_epsilon", eps);
    from.set("attention.causal", false);
    if let Some(pooling) = from.pooling()? {
        from.set("pooling_type", pooling);
    }
    let prefix = if from.has("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
    from.ignore(UNUSED);
    for (name, there) in [
        ("token_embd", "word_embeddings"),
        ("token_types", "token_type_embeddings"),
        ("position_embd", "position_embeddings"),
        ("token_embd_norm", "LayerNorm"),
    ] {
        from.part(name, &format!("{prefix}embeddings.{there}"), As::Same)?;
    }
    let parts = [
        ("attn_q", "attention.self.query", As::Same),
        ("attn_k", "attention.self.key", As::Same),
        ("attn_v", "attention.self.value", As::Same),
        ("attn_output", "attention.output.dense", As::Same),
        ("attn_output_norm", "attention.output.LayerNorm", As::Same),
        ("ffn_up", "intermediate.dense", As::Same),
        ("ffn_down", "output.dense", As::Same),
        ("layer_output_norm", "output.LayerNorm", As::Same),
    ];
    for layer in 0..layers {
        from.layer(layer, &format!("{prefix}encoder.layer.{layer}"), &parts)?;
    }
    Ok(())
}

/// Heads for pre-training, and what follows from the configuration.
const UNUSED: &[&str] = &[
    "embeddings.position_ids",
    "bert.embeddings.position_ids",
    "pooler.dense.weight",
    "pooler.dense.bias",
    "bert.pooler.dense.weight",
    "bert.pooler.dense.bias",
    "cls.predictions.bias",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "cls.predictions.transform.dense.weight",
    "cls.predictions.transform.dense.bias",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.LayerNorm.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
];
