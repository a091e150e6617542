//! What the family's published models are sampled with, where their files do not say.

use serde_json::Value;
use wushi_formats::pipeline::{Object, Sources};

use super::config::{Settings, invalid};
use crate::config::ModelError;
use crate::pipeline::{Decoder, Denoiser};
use crate::video::{Defaults, VideoModel};

/// Rows of text, real and padding: the denoisers were trained on so many.
const TEXT_LEN: usize = 512;
/// Far more than any, and far from what memory cannot hold.
const MAX_TEXT_LEN: usize = 1 << 16;
/// The key of `video.json` for another number. All other keys are of the defaults.
const TEXT_LEN_KEY: &str = "text_len";
/// Where the second denoiser takes over.
const BOUNDARY: f32 = 0.875;
/// Smaller frames than these pixels (those of 480p are) are shifted less.
const SMALL: (usize, f32) = (500_000, 3.0);
/// What diffusers calls the scheduler of Euler's method.
const EULER: &str = "FlowMatchEulerDiscreteScheduler";
/// What names of files say where training reduced the number of steps.
const DISTILLED: [&str; 6] = ["distill", "lightning", "lightx2v", "4step", "4-step", "4_step"];

/// Mean and deviation of every channel of the latents.
type Statistics = (Vec<f32>, Vec<f32>);

pub(super) fn model(
    sources: &Sources,
    denoiser: &Denoiser,
    two: bool,
    decoder: &Decoder,
    latents: Statistics,
    text_len: Option<usize>,
) -> Result<VideoModel, ModelError> {
    let scheduler = Settings::new(sources.scheduler.as_ref());
    sampled_as_here(&scheduler)?;
    let distilled = is_distilled(sources);
    let (config, text) = (&denoiser.config, sources.settings.as_ref());
    let (text_told, said) = split(text)?;
    let text_len = text_told.or(text_len).unwrap_or(TEXT_LEN);
    if !(1..=MAX_TEXT_LEN).contains(&text_len) {
        return Err(invalid(TEXT_LEN_KEY, text_len, "it must be 1 to 65536"));
    }
    let mut defaults = defaults(decoder, two, distilled);
    let shift = match scheduler.number("flow_shift")? {
        None => scheduler.number("shift")?,
        shift => shift,
    };
    // What fewer steps were trained with is not in a file that was copied along.
    if let Some(shift) = shift.filter(|_| !distilled) {
        (defaults.shift, defaults.shift_below) = (shift, None);
    }
    let boundary = Settings::new(sources.index.as_ref()).number("boundary_ratio")?;
    let own_two = sources.index.as_ref().and_then(|index| index.get("transformer_2")?.as_array());
    if two && boundary.is_none() && own_two.is_some_and(|class| class.iter().any(|part| !part.is_null())) {
        return Err(invalid(
            "boundary_ratio",
            "null",
            "it must say where the second of two denoisers takes over",
        ));
    }
    let boundary = boundary.unwrap_or(BOUNDARY);
    let (latent_mean, latent_std) = latents;
    Ok(VideoModel {
        channels: config.channels,
        temporal_stride: decoder.config.temporal_stride(),
        spatial_stride: decoder.config.spatial_stride(),
        patch: [1, config.patch, config.patch],
        latent_mean,
        latent_std,
        text_len,
        text_dim: config.text_width,
        train_timesteps: scheduler.number("num_train_timesteps")?.unwrap_or(1000.0),
        boundary: two.then_some(boundary),
        distilled,
        euler: distilled || scheduler.text("_class_name")? == Some(EULER),
        defaults: match said {
            None => defaults,
            Some(said) => defaults.override_with(&Value::Object(said).to_string())?,
        },
    })
}

/// Refuses a scheduler that would take other steps.
fn sampled_as_here(scheduler: &Settings<'_>) -> Result<(), ModelError> {
    let known = ["UniPCMultistepScheduler", EULER];
    let hint = "`UniPCMultistepScheduler` and `FlowMatchEulerDiscreteScheduler` are";
    scheduler.one_of("_class_name", &known, hint)?;
    scheduler.only("prediction_type", "flow_prediction", "`flow_prediction` is")?;
    scheduler.only("solver_type", "bh2", "`bh2` is")?;
    if let Some(order) = scheduler.count("solver_order")?.filter(|order| *order != 2) {
        return Err(scheduler.unsupported("solver_order", order, "2 is"));
    }
    let others = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_dynamic_shifting"];
    others.iter().try_for_each(|key| scheduler.never(key))
}

/// What `video.json` says of the text's length, and all else that it says.
fn split(object: Option<&Object>) -> Result<(Option<usize>, Option<Object>), ModelError> {
    let told = Settings::new(object).count(TEXT_LEN_KEY)?;
    let mut rest = object.cloned();
    if let Some(rest) = &mut rest {
        rest.remove(TEXT_LEN_KEY);
    }
    Ok((told, rest))
}

/// As their authors sample the published models: the 5B of 2.2, known by what its latents stand for, the pair of 14B of
/// 2.2, and those of 2.1.
fn defaults(decoder: &Decoder, two: bool, distilled: bool) -> Defaults {
    let large = decoder.config.spatial_stride() > 8;
    let mut defaults = Defaults {
        width: 832,
        height: 480,
        frames: 81,
        fps: 16,
        steps: 50,
        shift: 5.0,
        shift_below: Some(SMALL),
        guidance: 5.0,
        guidance_low: None,
        negative: String::new(),
    };
    if large {
        defaults = Defaults { width: 1280, height: 704, frames: 121, fps: 24, shift_below: None, ..defaults };
    }
    if two {
        (defaults.steps, defaults.shift, defaults.shift_below) = (40, 12.0, None);
        (defaults.guidance, defaults.guidance_low) = (4.0, Some(3.0));
    }
    if distilled {
        (defaults.steps, defaults.shift, defaults.shift_below) = (4, 5.0, None);
        (defaults.guidance, defaults.guidance_low) = (1.0, None);
    }
    defaults
}

/// Weights for few steps have the names and shapes of all others; only their files' names tell.
fn is_distilled(sources: &Sources) -> bool {
    let named = sources.transformer.iter().chain(&sources.transformer_2).filter_map(|path| path.file_name());
    let name = named.chain(sources.root.file_name()).map(|name| name.to_string_lossy().to_lowercase());
    name.into_iter().any(|name| DISTILLED.iter().any(|said| name.contains(said)))
}

/// What the decoder's configuration says of its latents, or what is known of those of so many channels.
pub(super) fn statistics(settings: &Settings<'_>, channels: usize) -> Result<Statistics, ModelError> {
    let mean = settings.numbers("latents_mean", channels)?;
    let std = settings.numbers("latents_std", channels)?;
    match (mean, std, channels) {
        (Some(_), Some(std), _) if std.iter().any(|std| *std <= 0.0) => {
            Err(invalid("latents_std", format!("{std:?}"), "deviations must be positive"))
        }
        (Some(mean), Some(std), _) => Ok((mean, std)),
        (None, None, 16) => Ok((MEAN_16.to_vec(), STD_16.to_vec())),
        (None, None, 48) => Ok((MEAN_48.to_vec(), STD_48.to_vec())),
        _ => Err(ModelError::NoStatistics { channels }),
    }
}

// The published autoencoders' statistics, of 2.1 and of 2.2.
const MEAN_16: [f32; 16] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632,
    -0.1922, -0.9497, 0.2503, -0.2921,
];
const STD_16: [f32; 16] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382,
    1.1253, 2.8251, 1.916,
];
const MEAN_48: [f32; 48] = [
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.157, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.052, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
];
const STD_48: [f32; 48] = [
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885,
    0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338,
    0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458,
    1.6887, 0.3971, 1.06, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
];
