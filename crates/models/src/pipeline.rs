//! Models of several networks that make video: what their files describe, as graphs over given values.

use wushi_formats::pipeline::Pipeline;
use wushi_graph::Graph;

use crate::config::ModelError;
use crate::video::VideoModel;
use crate::wan;

pub use crate::wan::names::Weights;

/// The networks of a model that makes video. Each has weights of its own and may be dropped alone.
#[derive(Clone, Debug)]
pub struct Networks {
    /// The model in numbers.
    pub model: VideoModel,
    /// What makes states of a prompt.
    pub text_encoder: TextEncoder,
    /// What turns noise into a latent video.
    pub denoiser: Denoiser,
    /// What does so where little noise is left, if there are two.
    pub denoiser_low: Option<Denoiser>,
    /// What makes frames of a latent video.
    pub decoder: Decoder,
}

/// An encoder of text.
#[derive(Clone, Debug)]
pub struct TextEncoder {
    /// From token ids to the states of picked rows, `[picked, width]`.
    pub graph: Graph,
    /// Token ids are below this.
    pub vocabulary: usize,
    /// Elements of a state.
    pub width: usize,
    /// What the graph declares.
    pub weights: Weights,
}

/// A network that says where a noisy latent video should move.
#[derive(Clone, Debug)]
pub struct Denoiser {
    pub(crate) config: wan::dit::Config,
    /// What its graphs declare.
    pub weights: Weights,
}

impl Denoiser {
    /// What a prompt becomes, once for all steps: `text`, `[rows, text width]`, gives keys and values of every layer, `k_0`,
    /// `v_0`, `k_1`, …, all `[rows, width]`.
    ///
    /// # Errors
    /// No rows, or more than any memory.
    pub fn context(&self, rows: usize) -> Result<Graph, ModelError> {
        Ok(self.config.context(rows)?)
    }

    /// One step: `latent`, `[frames, height, width, channels]`, `timestep`, `[1, 1]`, and `k_0`, `v_0`, `k_1`, … give the
    /// velocity, in the latent's shape. `latent` is frames, height and width; keys and values have `rows` rows. If
    /// `padding` is not 0, the last of these stands for so many equal ones.
    ///
    /// # Errors
    /// A size that is no whole number of patches, or beyond any memory.
    pub fn denoise(&self, latent: [usize; 3], rows: usize, padding: usize) -> Result<Graph, ModelError> {
        self.config.denoise(latent, rows, padding)
    }

    /// Layers, each of which has a key and a value of the prompt.
    pub fn layers(&self) -> usize {
        self.config.layers
    }

    /// Elements of a token, also of a key and of a value.
    pub fn width(&self) -> usize {
        self.config.width
    }

    /// Attention's heads.
    pub fn heads(&self) -> usize {
        self.config.heads
    }
}

/// A network that makes frames of latent frames, in chunks of any length. It carries frames from one to the next.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub(crate) config: wan::vae::Config,
    /// What its graphs declare.
    pub weights: Weights,
}

impl Decoder {
    /// The first latent frame, `[1, height, width, channels]`, gives the first frame, `[1, H, W, 3]` in -1 to 1 and a bit
    /// beyond. Nothing may be carried yet.
    ///
    /// # Errors
    /// A size of 0 or beyond any memory.
    pub fn first(&self, height: usize, width: usize) -> Result<Graph, ModelError> {
        Ok(self.config.first(height, width)?)
    }

    /// The next latent frames, `[frames, height, width, channels]`, give as many times the temporal stride,
    /// `[frames * stride, H, W, 3]`.
    ///
    /// # Errors
    /// A size of 0 or beyond any memory.
    pub fn next(&self, frames: usize, height: usize, width: usize) -> Result<Graph, ModelError> {
        Ok(self.config.next(frames, height, width)?)
    }
}

/// Describes the model of a pipeline, and finds every weight of it. Reads no weight.
///
/// # Errors
/// A pipeline that no family knows, parts that do not fit together, tensors that are missing, unknown or of another shape.
/// They name the file and the tensor.
pub fn open(pipeline: Pipeline) -> Result<Networks, ModelError> {
    wan::open(pipeline)
}
