//! The denoiser: a transformer over patches of the latent video, which attends to the prompt and is modulated by the
//! timestep (Wan, 2025; Peebles & Xie, 2023).
//!
//! It is two graphs over the same weights: what depends on the prompt alone is computed once, all else at every step.

use wushi_graph::{Attention, Builder, Conv, Graph, GraphError, GridRope, ScoreBias, Value};

use super::config::Settings;
use super::names::Tensors;
use crate::config::ModelError;

/// Heads have so many elements where nobody says otherwise.
const HEAD: usize = 128;
/// Shift, scale and gate of self-attention, then of the feed-forward network.
const MODULATIONS: usize = 6;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Channels of the latent, and of the velocity.
    pub(crate) channels: usize,
    /// Height and width of a patch; it is one frame long.
    pub(crate) patch: usize,
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    hidden: usize,
    pub(crate) text_width: usize,
    /// Elements of a timestep's embedding.
    frequencies: usize,
    eps: f32,
    /// Whether what asks the prompt is normed.
    cross_norm: bool,
}

impl Config {
    pub(crate) fn read(tensors: &Tensors, settings: &Settings<'_>) -> Result<Config, ModelError> {
        refuse_images(tensors, settings)?;
        settings.one_of(
            "_class_name",
            &["WanTransformer3DModel", "WanModel"],
            "Wan's text-to-video models are",
        )?;
        settings.only("qk_norm", "rms_norm_across_heads", "`rms_norm_across_heads` is")?;
        let width = tensors.length("patch_embedding.bias")?;
        let (channels, patch) = patches(tensors, settings, width)?;
        let layers = tensors.blocks("blk");
        let outputs = tensors.length("head.bias")?;
        if outputs != channels * patch * patch {
            return Err(settings.unsupported(
                "in_channels",
                channels,
                "models from text alone, which give as many channels as they take, are supported",
            ));
        }
        let heads = heads(settings, width)?;
        let config = Config {
            channels,
            patch,
            width,
            layers,
            heads,
            hidden: tensors.length("blk.0.ffn_up.bias")?,
            text_width: tensors.inputs("text_in.weight")?,
            frequencies: tensors.inputs("time_in.weight")?,
            eps: settings.number("eps")?.unwrap_or(1e-6),
            cross_norm: tensors.has("blk.0.cross_norm.weight"),
        };
        settings.agree(&["num_layers"], config.layers)?;
        settings.agree(&["ffn_dim"], config.hidden)?;
        settings.agree(&["freq_dim"], config.frequencies)?;
        settings.agree(&["text_dim"], config.text_width)?;
        settings.agree(&["dim"], width)?;
        settings.agree(&["in_channels", "in_dim"], channels)?;
        settings.agree(&["out_channels", "out_dim"], channels)?;
        settings.agree_on("cross_attn_norm", config.cross_norm)?;
        Ok(config)
    }

    /// What the prompt's states become: `text`, `[rows, text width]`, gives keys and values of every layer, in turn.
    pub(crate) fn context(&self, rows: usize) -> Result<Graph, GraphError> {
        let g = Builder::new();
        let text = g.input_value("text", &[rows, self.text_width])?;
        let text = g.gelu_tanh(g.linear_with(text, "text_in", self.width, true)?)?;
        let text = g.linear_with(text, "text_out", self.width, true)?;
        let mut outputs = Vec::with_capacity(2 * self.layers);
        for layer in 0..self.layers {
            let b = g.block("blk", layer);
            let k = b.linear_with(text, "cross_k", self.width, true)?;
            outputs.push(b.rms_norm(k, "cross_k_norm", self.width, self.eps)?);
            outputs.push(b.linear_with(text, "cross_v", self.width, true)?);
        }
        g.finish_all(&outputs)
    }

    /// The velocity of a latent `[frames, height, width, channels]` at a timestep, given what [`Config::context`] made of
    /// `rows` rows of text, the last of which stands for `padding` equal ones (if any).
    pub(crate) fn denoise(
        &self,
        latent: [usize; 3],
        rows: usize,
        padding: usize,
    ) -> Result<Graph, ModelError> {
        let [frames, height, width] = latent;
        let patch = self.patch;
        if !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
            return Err(ModelError::Invalid {
                key: "size of the latent".to_owned(),
                value: format!("{width}x{height}"),
                reason: "it must be a whole number of patches",
            });
        }
        let g = Builder::new();
        let x = g.input_value("latent", &[frames, height, width, self.channels])?;
        let timestep = g.input_value("timestep", &[1, 1])?;
        let x = g.conv3d(x, "patch_embedding", self.width, Conv::patches(patch), true)?;
        let time = self.time(&g, timestep)?;
        let shifts = g.linear_with(g.silu(time)?, "time_projection", MODULATIONS * self.width, true)?;
        let grid = [frames, height / patch, width / patch];
        let mut x = x;
        for layer in 0..self.layers {
            let text = ["k", "v"].map(|what| g.input_value(&format!("{what}_{layer}"), &[rows, self.width]));
            let [k, v] = text;
            x = self.layer(&g.block("blk", layer), x, shifts, grid, [k?, v?], padding)?;
        }
        // Channels of a patch lie row by row, then column by column.
        let unfold = wushi_graph::Unfold {
            channels: self.channels,
            time: 1,
            space: patch,
            strides: [1, 0, patch * self.channels, self.channels],
            repeats: 1,
            skip: 0,
        };
        let y = self.head(&g, x, time)?;
        Ok(g.finish(g.unfold(y, unfold)?)?)
    }

    fn time(&self, g: &Builder, timestep: Value) -> Result<Value, GraphError> {
        let e = g.timestep_embed(timestep, self.frequencies)?;
        let e = g.silu(g.linear_with(e, "time_in", self.width, true)?)?;
        g.linear_with(e, "time_out", self.width, true)
    }

    fn layer(
        &self,
        b: &Builder,
        x: Value,
        shifts: Value,
        grid: [usize; 3],
        text: [Value; 2],
        padding: usize,
    ) -> Result<Value, GraphError> {
        let shifts = b.add(b.parameter("modulation", MODULATIONS * self.width)?, shifts)?;
        let part = |i: usize| b.columns(shifts, i * self.width, self.width);
        let h = self.modulated(b, x, part(0)?, part(1)?)?;
        let x = b.mul_add(self.attend(b, h, grid)?, part(2)?, x)?;
        let h = match self.cross_norm {
            true => b.layer_norm(x, "cross_norm", self.eps)?,
            false => x,
        };
        let x = b.add(x, self.ask(b, h, text, padding)?)?;
        let h = self.modulated(b, x, part(3)?, part(4)?)?;
        let h = b.gelu_tanh(b.linear_with(h, "ffn_up", self.hidden, true)?)?;
        b.mul_add(b.linear_with(h, "ffn_down", self.width, true)?, part(5)?, x)
    }

    fn head(&self, g: &Builder, x: Value, time: Value) -> Result<Value, GraphError> {
        let shifts = g.parameter("head_modulation", 2 * self.width)?;
        let part = |i: usize| g.add(g.columns(shifts, i * self.width, self.width)?, time);
        let h = self.modulated(g, x, part(0)?, part(1)?)?;
        g.linear_with(h, "head", self.channels * self.patch * self.patch, true)
    }

    /// The norm of `x`, times one plus `scale`, plus `shift`.
    fn modulated(&self, b: &Builder, x: Value, shift: Value, scale: Value) -> Result<Value, GraphError> {
        b.mul_add(b.layer_norm_plain(x, self.eps)?, b.offset(scale, 1.0)?, shift)
    }

    /// Attention of all patches to each other.
    fn attend(&self, b: &Builder, h: Value, grid: [usize; 3]) -> Result<Value, GraphError> {
        let head = self.width / self.heads;
        let space = head / 6 * 2;
        let rope = GridRope { grid, axes: [head - 2 * space, space, space], base: 10_000.0 };
        // The norms go over all heads together.
        let turned = |name: &str| {
            let y = b.linear_with(h, &format!("attn_{name}"), self.width, true)?;
            b.grid_rope(b.rms_norm(y, &format!("attn_{name}_norm"), self.width, self.eps)?, rope)
        };
        let v = b.linear_with(h, "attn_v", self.width, true)?;
        let a = b.attention(turned("q")?, turned("k")?, v, Attention::full(self.heads, self.heads, head))?;
        b.linear_with(a, "attn_output", self.width, true)
    }

    /// Attention of patches to the prompt.
    fn ask(&self, b: &Builder, h: Value, [k, v]: [Value; 2], padding: usize) -> Result<Value, GraphError> {
        let q = b.linear_with(h, "cross_q", self.width, true)?;
        let q = b.rms_norm(q, "cross_q_norm", self.width, self.eps)?;
        let bias = match padding {
            0 | 1 => ScoreBias::None,
            n => ScoreBias::LastKey(libm::log(n as f64) as f32),
        };
        let full = Attention::full(self.heads, self.heads, self.width / self.heads);
        let a = b.attention(q, k, v, Attention { bias, ..full })?;
        b.linear_with(a, "cross_output", self.width, true)
    }
}

/// Models that start from an image attend to it as well, and have tensors for that.
fn refuse_images(tensors: &Tensors, settings: &Settings<'_>) -> Result<(), ModelError> {
    let hint = "models from text alone are supported";
    for key in ["image_dim", "added_kv_proj_dim"] {
        if let Some(found) = settings.count(key)? {
            return Err(settings.unsupported(key, found, hint));
        }
    }
    match settings.text("model_type")? {
        None | Some("t2v" | "ti2v") => {}
        Some(other) => return Err(settings.unsupported("model_type", other, hint)),
    }
    settings.only_null("pos_embed_seq_len")?;
    match tensors.unknown(&["img_emb.", "image_embedder"]) {
        None => Ok(()),
        Some(name) => Err(settings.unsupported("tensor", name, hint)),
    }
}

/// Channels and the patch's height and width, from the shape of what embeds patches: `[width, channels, frames, height,
/// width]`, of which formats of four dimensions have merged the first two or the last two.
fn patches(tensors: &Tensors, settings: &Settings<'_>, width: usize) -> Result<(usize, usize), ModelError> {
    let shape = tensors.shape("patch_embedding.weight")?;
    let told = settings.counts("patch_size")?;
    let square = |n: usize| Some(n.isqrt()).filter(|p| p * p == n);
    let found = match *shape {
        [rows, channels, frames, height, across] if rows == width => Some([channels, frames, height, across]),
        [rows, frames, height, across] if rows != width && rows.is_multiple_of(width) => {
            Some([rows / width, frames, height, across])
        }
        [rows, channels, frames, both] if rows == width => {
            square(both).map(|patch| [channels, frames, patch, patch])
        }
        _ => match told.as_deref() {
            Some(&[frames, height, across]) => {
                let per_channel = [width, frames, height, across].into_iter().try_fold(1, usize::checked_mul);
                let elements: usize = shape.iter().product();
                let channels = per_channel.and_then(|n| elements.checked_div(n));
                channels.map(|channels| [channels, frames, height, across])
            }
            _ => None,
        },
    };
    let Some([channels, frames, height, across]) = found else {
        return Err(tensors.wrong_shape("patch_embedding.weight", "[width, channels, 1, patch, patch]"));
    };
    let patch = [frames, height, across];
    if let Some(told) = told.filter(|told| told[..] != patch) {
        return Err(settings.contradiction("patch_size", format!("{told:?}"), format!("{patch:?}")));
    }
    if frames != 1 || height != across || height == 0 || channels == 0 {
        return Err(settings.unsupported(
            "patch_size",
            format!("{patch:?}"),
            "square patches of one frame are",
        ));
    }
    Ok((channels, height))
}

fn heads(settings: &Settings<'_>, width: usize) -> Result<usize, ModelError> {
    let told = match settings.count("num_attention_heads")? {
        Some(heads) => Some(heads),
        None => settings.count("num_heads")?,
    };
    let head = settings.count("attention_head_dim")?;
    if told.is_none() && head.is_none() && !width.is_multiple_of(HEAD) {
        return Err(ModelError::NoHeads { width });
    }
    let heads = told.unwrap_or_else(|| width.checked_div(head.unwrap_or(HEAD)).unwrap_or(0));
    let whole = |heads: usize| heads != 0 && width.is_multiple_of(2 * heads);
    match whole(heads) && head.is_none_or(|head| head.checked_mul(heads) == Some(width)) {
        true => Ok(heads),
        false => Err(ModelError::Invalid {
            key: "num_attention_heads".to_owned(),
            value: heads.to_string(),
            reason: "the model's width is no whole number of such heads",
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// As the models were published: width, layers, hidden elements, channels, and parameters in hundredths of billions.
    #[test]
    fn the_published_denoisers_have_their_sizes() {
        for (width, layers, hidden, channels, parameters) in
            [(1536, 30, 8960, 16, 142), (5120, 40, 13_824, 16, 1429), (3072, 30, 14_336, 48, 500)]
        {
            let config = Config {
                channels,
                patch: 2,
                width,
                layers,
                heads: width / HEAD,
                hidden,
                text_width: 4096,
                frequencies: 256,
                eps: 1e-6,
                cross_norm: true,
            };
            let graphs = [config.context(512).unwrap(), config.denoise([21, 60, 104], 77, 436).unwrap()];
            let weights: BTreeMap<&str, u64> = graphs
                .iter()
                .flat_map(Graph::weights)
                .map(|w| (w.name.as_str(), w.shape.iter().product::<usize>() as u64))
                .collect();
            assert_eq!((weights.values().sum::<u64>() + 5_000_000) / 10_000_000, parameters);
            let velocity = graphs[1].node(graphs[1].output());
            assert_eq!(velocity.shape.known().unwrap(), [21, 60, 104, channels]);
        }
    }
}
