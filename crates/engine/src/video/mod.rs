//! Video from text: what happens around the graphs that encode text, denoise latents and decode frames.
//!
//! The life of a frame:
//!
//! 1. `settings`: what was asked for meets what the model can do (frames, sizes, defaults).
//! 2. `plan`: memory and time of the whole run, before anything is loaded; what cannot fit is refused.
//! 3. `pipeline`: the prompt's states (from `prompt_cache` if they are there), then steps of denoising: `schedule`
//!    says which noise levels, `noise` where it starts, `sampler` how a velocity moves the latents.
//! 4. `resume`: the latents are saved before decoding begins.
//! 5. `frames`: each latent frame becomes frames, which are hashed, written (`tensor_file`) and handed on.
//!
//! Inside, latents are `[T, H, W, C]`; in files, and where noise is numbered, `[C, T, H, W]` (`latents`).

mod error;
mod frames;
mod latents;
mod networks;
mod noise;
mod pipeline;
mod plan;
mod prompt_cache;
mod rates;
mod resume;
mod sampler;
mod schedule;
mod settings;
mod tensor_file;

pub use error::{PartError, VideoError};
pub use frames::{FramesDigest, to_rgb8};
pub use latents::{LatentShape, read_latents};
pub use networks::{NetworkOptions, Ready, VideoNetworks};
pub use noise::fill_noise;
pub use pipeline::{
    Decoder, Denoiser, Frame, Job, Kept, Made, Part, Parts, Progress, Save, Start, TextEncoder, Watch, make,
};
pub use plan::{Fit, Limit, Memory, Plan, Rates, Stage, Work, kept_bytes};
pub use prompt_cache::{PromptCache, TextStates};
pub use resume::{Identity, Saved, SavedSteps, load_saved, save_latents, saved_latents, saved_seeds};
pub use sampler::{Sampler, SamplerKind, guide};
pub use schedule::{MAX_STEPS, Rounding, Schedule, Spacing};
pub use settings::{Change, Settings, Wanted};
pub use tensor_file::TensorFile;
pub use wushi_cpu::Follow;
pub use wushi_models::video::{Defaults, VideoModel};
