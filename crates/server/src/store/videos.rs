//! Jobs that make videos, as rows.

use serde::{Deserialize, Serialize};
use wushi_engine::video::{Rounding, SamplerKind, Settings, Spacing, Wanted};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoState {
    /// It waits for its turn.
    Queued,
    /// It is being made.
    InProgress,
    /// Its file is there.
    Completed,
    /// It will never be there.
    Failed,
}

impl VideoState {
    /// All of them.
    const ALL: [VideoState; 4] =
        [VideoState::Queued, VideoState::InProgress, VideoState::Completed, VideoState::Failed];

    /// As clients read it: `queued`, `in_progress`, `completed` or `failed`.
    pub fn name(self) -> &'static str {
        match self {
            VideoState::Queued => "queued",
            VideoState::InProgress => "in_progress",
            VideoState::Completed => "completed",
            VideoState::Failed => "failed",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<VideoState> {
        VideoState::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing will happen any more.
    pub fn is_final(self) -> bool {
        matches!(self, VideoState::Completed | VideoState::Failed)
    }
}

/// Everything that decides what a video of a model becomes, the prompt aside: all numbers, whatever the model's defaults
/// come to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoSettings {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Frames.
    pub frames: usize,
    /// Frames a second.
    pub fps: u32,
    /// Steps of denoising.
    pub steps: usize,
    /// How far noise levels are shifted towards noise.
    pub shift: f32,
    /// Of the first denoiser, or of the only one.
    pub guidance: f32,
    /// Of the second denoiser; `None` where there is one.
    pub guidance_low: Option<f32>,
    /// Where the second denoiser takes over; `None` where there is one, or that is the model's own.
    pub boundary: Option<f32>,
    /// What the video shall not be.
    pub negative: String,
    /// `unipc` or `euler`.
    pub sampler: String,
    /// `training`, `whole` or `twice-shifted`.
    pub spacing: String,
    /// `floor` or `exact`.
    pub timesteps: String,
    /// Of the noise.
    pub seed: u64,
}

impl VideoSettings {
    /// What a request with these settings would be resolved to again. `two`: whether the model has two denoisers.
    pub fn of(settings: &Settings, two: bool) -> VideoSettings {
        VideoSettings {
            width: settings.width,
            height: settings.height,
            frames: settings.frames,
            fps: settings.fps,
            steps: settings.steps,
            shift: settings.shift,
            guidance: settings.guidance,
            guidance_low: two.then_some(settings.guidance_low),
            boundary: None,
            negative: settings.negative.clone(),
            sampler: settings.sampler.name().to_owned(),
            spacing: match settings.spacing {
                Spacing::Training => "training",
                Spacing::Whole => "whole",
                Spacing::TwiceShifted => "twice-shifted",
            }
            .to_owned(),
            timesteps: match settings.rounding {
                Rounding::Floor => "floor",
                Rounding::Exact => "exact",
            }
            .to_owned(),
            seed: settings.seed,
        }
    }

    /// The request that is resolved to these settings.
    ///
    /// # Errors
    /// A name that this program does not know.
    pub fn wanted(&self) -> Result<Wanted, String> {
        let sampler: SamplerKind =
            self.sampler.parse().map_err(|error: wushi_engine::video::VideoError| error.to_string())?;
        let spacing = match self.spacing.as_str() {
            "training" => Spacing::Training,
            "whole" => Spacing::Whole,
            "twice-shifted" => Spacing::TwiceShifted,
            other => return Err(format!("spacing `{}`", other.escape_default())),
        };
        let rounding = match self.timesteps.as_str() {
            "floor" => Rounding::Floor,
            "exact" => Rounding::Exact,
            other => return Err(format!("timesteps `{}`", other.escape_default())),
        };
        Ok(Wanted {
            size: Some((self.width, self.height)),
            frames: Some(self.frames),
            fps: Some(self.fps),
            steps: Some(self.steps),
            shift: Some(self.shift),
            guidance: Some(self.guidance),
            guidance_low: self.guidance_low,
            negative: Some(self.negative.clone()),
            sampler: Some(sampler),
            spacing: Some(spacing),
            rounding: Some(rounding),
            seed: self.seed,
        })
    }
}
