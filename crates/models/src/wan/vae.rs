//! The decoder of the causal video autoencoder: latent frames become frames, in chunks of any length (Wan, 2025).
//!
//! Convolutions look back in time alone and carry what they looked at from chunk to chunk, so that frames are the same
//! however a video is cut. The first latent frame makes one frame and has a graph of its own: where time doubles, it is
//! passed on single and not remembered. There are two kinds: one that makes pixels itself (2.1), and one that makes
//! patches of pixels and has shortcuts around its levels (2.2). The encoder half is for training and images; it is not used.

use wushi_graph::{Attention, Builder, Conv, Graph, GraphError, Unfold, Value};

use super::config::Settings;
use super::names::Tensors;
use crate::config::ModelError;

/// Of a picture: red, green and blue.
const COLOURS: usize = 3;
/// Every level doubles height and width.
const DOUBLE: usize = 2;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Channels of the latent.
    pub(crate) latent: usize,
    /// Channels between latent and levels.
    width: usize,
    levels: Vec<Level>,
    /// Whether every level that doubles has a shortcut around it.
    shortcuts: bool,
    /// Height and width of the patches of pixels that the last layer gives.
    patch: usize,
}

/// Residual blocks, and what makes more of their result.
#[derive(Clone, Debug, PartialEq)]
struct Level {
    /// Channels that each of the blocks gives.
    blocks: Vec<usize>,
    /// None in the last level.
    double: Option<Doubling>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Doubling {
    /// Channels it gives.
    channels: usize,
    /// Whether frames are doubled, too.
    time: bool,
}

/// The graphs differ where time doubles.
#[derive(Clone, Copy, PartialEq)]
enum Chunk {
    First,
    Next,
}

impl Config {
    pub(crate) fn read(tensors: &Tensors, settings: &Settings<'_>) -> Result<Config, ModelError> {
        let shortcuts = tensors.layout().shortcuts;
        let levels = (0..tensors.blocks("up")).map(|level| Level::read(tensors, level));
        let levels = levels.collect::<Result<Vec<Level>, ModelError>>()?;
        if let Some(uneven) = levels.iter().position(|level| level.blocks.len() != levels[0].blocks.len()) {
            let name = format!("up.{uneven}.res.{}.conv1.weight", levels[uneven].blocks.len());
            return Err(tensors.missing(&name));
        }
        let outputs = tensors.length("conv_out.bias")?;
        let patch = (outputs / COLOURS).isqrt();
        if patch == 0 || COLOURS * patch * patch != outputs {
            return Err(tensors.wrong_shape("conv_out.bias", "[3 * patch * patch]"));
        }
        let latent = tensors.length("latent_in.bias")?;
        let config = Config { latent, width: tensors.length("conv_in.bias")?, levels, shortcuts, patch };
        settings.only("_class_name", "AutoencoderKLWan", "`AutoencoderKLWan` is")?;
        config.agree_with_levels(settings)?;
        settings.agree(&["z_dim"], latent)?;
        settings.agree(&["out_channels"], outputs)?;
        settings.agree(&["patch_size"], patch)?;
        settings.agree(&["scale_factor_temporal"], config.temporal_stride())?;
        settings.agree(&["scale_factor_spatial"], config.spatial_stride())?;
        settings.agree_on("is_residual", shortcuts)?;
        if let Some(blocks) = settings.count("num_res_blocks")? {
            settings.agree_value("num_res_blocks", blocks + 1, tensors.blocks("up.0.res"))?;
        }
        if let Some(scales) = settings.counts("attn_scales")?.filter(|scales| !scales.is_empty()) {
            return Err(settings.unsupported("attn_scales", format!("{scales:?}"), "none are"));
        }
        Ok(config)
    }

    /// Widths and doublings that the configuration says level by level.
    fn agree_with_levels(&self, settings: &Settings<'_>) -> Result<(), ModelError> {
        let base = match settings.count("decoder_base_dim")? {
            None => settings.count("base_dim")?,
            base => base,
        };
        if let Some(factors) = settings.counts("dim_mult")? {
            settings.agree_value("the length of dim_mult", factors.len(), self.levels.len())?;
            let widest = base.zip(factors.last()).map(|(base, factor)| base.saturating_mul(*factor));
            if let Some(widest) = widest {
                settings.agree_value("the base width times the last of dim_mult", widest, self.width)?;
            }
        }
        if let Some(doubles) = settings.truths("temperal_downsample")? {
            let told = doubles.iter().filter(|double| **double).count();
            let found =
                self.levels.iter().filter(|level| level.double.is_some_and(|double| double.time)).count();
            settings.agree_value("how often temperal_downsample is true", told, found)?;
        }
        Ok(())
    }

    /// Frames that a latent frame makes, but for the first.
    pub(crate) fn temporal_stride(&self) -> usize {
        let doubles = |level: &&Level| level.double.is_some_and(|double| double.time);
        1 << self.levels.iter().filter(doubles).count().min(16)
    }

    /// Pixels in height and width that one of the latent makes.
    pub(crate) fn spatial_stride(&self) -> usize {
        let doubles = self.levels.iter().filter(|level| level.double.is_some()).count();
        self.patch << doubles.min(16)
    }

    /// What makes the first frame of the first latent frame, `[1, height, width, channels]`.
    pub(crate) fn first(&self, height: usize, width: usize) -> Result<Graph, GraphError> {
        self.graph([1, height, width], Chunk::First)
    }

    /// What makes the frames of so many latent frames behind the first.
    pub(crate) fn next(&self, frames: usize, height: usize, width: usize) -> Result<Graph, GraphError> {
        self.graph([frames, height, width], Chunk::Next)
    }

    fn graph(&self, [frames, height, width]: [usize; 3], chunk: Chunk) -> Result<Graph, GraphError> {
        let g = Builder::new();
        let x = g.input_value("latent", &[frames, height, width, self.latent])?;
        // Convolutions of one element are linear layers of every pixel.
        let x = g.linear_with(x, "latent_in", self.latent, true)?;
        let x = g.conv3d(x, "conv_in", self.width, Conv::same([3, 3, 3]), true)?;
        let x = residual(&g.block("mid", 0), x, self.width, self.width)?;
        let x = attend(&g, x, self.width, frames)?;
        let mut x = residual(&g.block("mid", 1), x, self.width, self.width)?;
        let mut channels = self.width;
        for (number, level) in self.levels.iter().enumerate() {
            (x, channels) = self.level(&g.block("up", number), level, x, channels, chunk)?;
        }
        let x = g.silu(norm(&g, x, "norm_out", channels)?)?;
        let outputs = COLOURS * self.patch * self.patch;
        let x = g.conv3d(x, "conv_out", outputs, Conv::same([3, 3, 3]), true)?;
        if self.patch == 1 {
            return g.finish(x);
        }
        // A colour's patch lies column by column.
        let pixels = Unfold {
            channels: COLOURS,
            time: 1,
            space: self.patch,
            strides: [self.patch * self.patch, 0, 1, self.patch],
            repeats: 1,
            skip: 0,
        };
        g.finish(g.unfold(x, pixels)?)
    }

    fn level(
        &self,
        b: &Builder,
        level: &Level,
        before: Value,
        channels: usize,
        chunk: Chunk,
    ) -> Result<(Value, usize), GraphError> {
        let (mut x, mut inputs) = (before, channels);
        for (number, &outputs) in level.blocks.iter().enumerate() {
            x = residual(&b.block("res", number), x, inputs, outputs)?;
            inputs = outputs;
        }
        let Some(double) = level.double else { return Ok((x, inputs)) };
        if double.time && chunk == Chunk::Next {
            x = double_time(b, x, inputs)?;
        }
        let larger = Conv { upsample: DOUBLE, ..Conv::same([1, 3, 3]) };
        x = b.conv3d(x, "conv", double.channels, larger, true)?;
        if self.shortcuts {
            x = b.add(x, shortcut(b, before, channels, double, chunk)?)?;
        }
        Ok((x, double.channels))
    }
}

impl Level {
    fn read(tensors: &Tensors, level: usize) -> Result<Level, ModelError> {
        let up = format!("up.{level}");
        let blocks = (0..tensors.blocks(&format!("{up}.res")))
            .map(|block| tensors.length(&format!("{up}.res.{block}.conv1.bias")));
        let double = match level + 1 < tensors.blocks("up") {
            false => None,
            true => Some(Doubling {
                channels: tensors.length(&format!("{up}.conv.bias"))?,
                time: tensors.has(&format!("{up}.time_conv.weight")),
            }),
        };
        Ok(Level { blocks: blocks.collect::<Result<Vec<usize>, ModelError>>()?, double })
    }
}

/// Two frames from every frame: the second half of the channels is the second frame.
fn double_time(b: &Builder, x: Value, channels: usize) -> Result<Value, GraphError> {
    let x = b.conv3d(x, "time_conv", 2 * channels, Conv::same([3, 1, 1]), true)?;
    let strides = [1, channels, 0, 0];
    b.unfold(x, Unfold { channels, time: 2, space: 1, strides, repeats: 1, skip: 0 })
}

/// What a level was given, doubled as the level doubles it, without parameters: channels are repeated until there are
/// enough of them to be dealt out to frames, rows and columns.
fn shortcut(
    b: &Builder,
    x: Value,
    channels: usize,
    double: Doubling,
    chunk: Chunk,
) -> Result<Value, GraphError> {
    let time = if double.time { 2 } else { 1 };
    let wanted = double.channels * time * DOUBLE * DOUBLE;
    if !wanted.is_multiple_of(channels) {
        return Err(GraphError {
            op: "unfold",
            name: String::new(),
            reason: format!("{channels} channels cannot be repeated to {wanted}"),
        });
    }
    let unfold = Unfold {
        channels: double.channels,
        time,
        space: DOUBLE,
        strides: [time * DOUBLE * DOUBLE, DOUBLE * DOUBLE, DOUBLE, 1],
        repeats: wanted / channels,
        // The first latent frame makes one frame: the last of those dealt out.
        skip: if chunk == Chunk::First { time - 1 } else { 0 },
    };
    b.unfold(x, unfold)
}

fn residual(b: &Builder, x: Value, inputs: usize, outputs: usize) -> Result<Value, GraphError> {
    let conv = Conv::same([3, 3, 3]);
    let h = b.silu(norm(b, x, "norm1", inputs)?)?;
    let h = b.conv3d(h, "conv1", outputs, conv, true)?;
    let h = b.silu(norm(b, h, "norm2", outputs)?)?;
    let h = b.conv3d(h, "conv2", outputs, conv, true)?;
    let x = match inputs == outputs {
        true => x,
        false => b.linear_with(x, "shortcut", outputs, true)?,
    };
    b.add(x, h)
}

/// Every frame's pixels attend to each other, with one head.
fn attend(g: &Builder, x: Value, width: usize, frames: usize) -> Result<Value, GraphError> {
    let h = norm(g, x, "mid_attn_norm", width)?;
    let h = g.linear_with(h, "mid_attn_qkv", 3 * width, true)?;
    let [q, k, v] = [0, 1, 2].map(|i| g.columns(h, i * width, width));
    let a = g.attention(q?, k?, v?, Attention { sequences: frames, ..Attention::full(1, 1, width) })?;
    g.add(x, g.linear_with(a, "mid_attn_output", width, true)?)
}

/// `x / ‖x‖ · √C · w` over the `C` channels, which is RMS norm. Training divided by `max(‖x‖, 1e-12)`; as the mean square is
/// `‖x‖² / C`, this constant keeps a pixel of zeros at zero as well, and changes no other.
fn norm(b: &Builder, x: Value, name: &str, channels: usize) -> Result<Value, GraphError> {
    b.rms_norm(x, name, channels, 1e-24 / channels as f32)
}
