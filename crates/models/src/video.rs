//! What the engine must know of a model that makes video: sizes, strides and how it wants to be sampled.
//!
//! A family fills a [`VideoModel`] from its configuration; nothing else tells the engine a number of a model. What a
//! pipeline's files do not say (frames, size, steps) may stand in a `video.json` beside them, see
//! [`Defaults::override_with`].

use serde_json::Value;

/// A model that makes video, in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoModel {
    /// Channels of a latent (`z_dim`).
    pub channels: usize,
    /// Frames that one latent frame stands for; the first one stands for a single frame.
    pub temporal_stride: usize,
    /// Pixels, in height and in width, that one latent element stands for.
    pub spatial_stride: usize,
    /// Latent elements of a token: frames, height, width.
    pub patch: [usize; 3],
    /// The decoder reads `latent * std + mean`, by channel.
    pub latent_mean: Vec<f32>,
    /// See `latent_mean`.
    pub latent_std: Vec<f32>,
    /// Rows of text that the denoiser attends to, those of the prompt first, zeros behind.
    pub text_len: usize,
    /// Elements of a row of text.
    pub text_dim: usize,
    /// Timesteps that training divided noise into; what a timestep is a share of.
    pub train_timesteps: f32,
    /// With two denoisers: the first serves while the timestep is at least this share of `train_timesteps`.
    pub boundary: Option<f32>,
    /// Made to be sampled in few steps without guidance.
    pub distilled: bool,
    /// Sampled by Euler's method where nobody says otherwise.
    pub euler: bool,
    /// What is used where nobody says otherwise.
    pub defaults: Defaults,
}

/// What a model is sampled with where nobody says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Frames of the video.
    pub frames: usize,
    /// Frames a second.
    pub fps: u32,
    /// Steps of denoising.
    pub steps: usize,
    /// How far noise levels are shifted towards noise.
    pub shift: f32,
    /// Another shift for frames of fewer pixels than this.
    pub shift_below: Option<(usize, f32)>,
    /// How far the prompt is followed beyond the negative prompt; 1 is not at all.
    pub guidance: f32,
    /// Guidance of the second denoiser (the one for little noise), where there are two.
    pub guidance_low: Option<f32>,
    /// What the video shall not be.
    pub negative: String,
}

/// What is wrong with a `video.json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VideoJsonError {
    /// No JSON, or no object.
    #[error("video.json: {0}")]
    NoObject(String),
    /// A key nobody reads.
    #[error("video.json: key `{key}` is unknown; known are {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Those there are.
        known: String,
    },
    /// A value that cannot be used.
    #[error("video.json: `{key}` is {value}, expected {expected}")]
    BadValue {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

const KEYS: &str = "width, height, num_frames, fps, num_inference_steps, flow_shift, guidance_scale, \
                    guidance_scale_2, negative_prompt";

/// The most that a count in `video.json` may be: beyond every video, and far from overflowing.
const MAX_COUNT: u64 = 1 << 20;

impl Defaults {
    /// These defaults with what a `video.json` says: an object with any of `width`, `height`, `num_frames`, `fps`,
    /// `num_inference_steps`, `flow_shift`, `guidance_scale`, `guidance_scale_2` and `negative_prompt`, which are what
    /// diffusers calls them.
    pub fn override_with(mut self, text: &str) -> Result<Defaults, VideoJsonError> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| VideoJsonError::NoObject(error.to_string()))?;
        let Value::Object(said) = value else {
            return Err(VideoJsonError::NoObject("it must hold one object".to_owned()));
        };
        for (key, value) in &said {
            match key.as_str() {
                "width" => self.width = count(key, value)?,
                "height" => self.height = count(key, value)?,
                "num_frames" => self.frames = count(key, value)?,
                "fps" => self.fps = count(key, value)? as u32,
                "num_inference_steps" => self.steps = count(key, value)?,
                "flow_shift" => {
                    self.shift = positive(key, value)?;
                    self.shift_below = None;
                }
                "guidance_scale" => self.guidance = positive(key, value)?,
                "guidance_scale_2" => self.guidance_low = Some(positive(key, value)?),
                "negative_prompt" => {
                    let text = value.as_str().ok_or_else(|| bad(key, value, "text"))?;
                    self.negative = text.to_owned();
                }
                _ => {
                    let key = key.chars().take(64).collect();
                    return Err(VideoJsonError::UnknownKey { key, known: KEYS.to_owned() });
                }
            }
        }
        Ok(self)
    }
}

fn bad(key: &str, value: &Value, expected: &'static str) -> VideoJsonError {
    let value = value.to_string().chars().take(64).collect();
    VideoJsonError::BadValue { key: key.to_owned(), value, expected }
}

fn count(key: &str, value: &Value) -> Result<usize, VideoJsonError> {
    let count = value.as_u64().filter(|count| (1..=MAX_COUNT).contains(count));
    count.map(|count| count as usize).ok_or_else(|| bad(key, value, "a whole number from 1 to 1048576"))
}

fn positive(key: &str, value: &Value) -> Result<f32, VideoJsonError> {
    let number = value.as_f64().map(|number| number as f32);
    let number = number.filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| bad(key, value, "a number above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            width: 832,
            height: 480,
            frames: 81,
            fps: 16,
            steps: 50,
            shift: 5.0,
            shift_below: Some((500_000, 3.0)),
            guidance: 5.0,
            guidance_low: None,
            negative: String::new(),
        }
    }

    #[test]
    fn a_file_says_what_differs() {
        let text = r#"{"width": 96, "num_frames": 9, "fps": 24, "flow_shift": 8, "guidance_scale_2": 3.5,
                       "negative_prompt": "blurry"}"#;
        let expected = Defaults {
            width: 96,
            frames: 9,
            fps: 24,
            shift: 8.0,
            shift_below: None,
            guidance_low: Some(3.5),
            negative: "blurry".to_owned(),
            ..defaults()
        };
        assert_eq!(defaults().override_with(text), Ok(expected));
        assert_eq!(defaults().override_with("{}"), Ok(defaults()));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let told = |text: &str| defaults().override_with(text).unwrap_err().to_string();
        assert!(told("[1]").contains("one object"));
        assert!(told("{").starts_with("video.json: EOF"));
        assert!(told(r#"{"frames": 4}"#).contains("key `frames` is unknown; known are width"));
        assert!(told(r#"{"width": 0}"#).contains("`width` is 0, expected a whole number"));
        assert!(told(r#"{"fps": 1e9}"#).contains("`fps` is 1000000000.0"));
        assert!(told(r#"{"flow_shift": -1}"#).contains("expected a number above 0"));
        assert!(told(r#"{"negative_prompt": 3}"#).contains("expected text"));
    }
}
