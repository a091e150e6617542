//! What is asked of a video, as clients write it.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use wushi_engine::video::{Settings, VideoError, VideoModel, Wanted};
use wushi_media::Format;

use super::VideoRequest;
use super::number::Number;
use crate::error::ApiError;
use crate::ids;

/// The longest prompt in bytes: no model reads as many as its tokens could be.
const MAX_PROMPT: usize = 64 << 10;

/// A video to be made. Numbers may be written as texts.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateVideo {
    /// What the video shows.
    prompt: String,
    /// Which model; the server's first one for videos if absent.
    model: Option<String>,
    /// How long it is. Becomes a number of frames that the model can make, which `changes` tells.
    #[schema(value_type = Option<String>, example = "4")]
    seconds: Option<Number<f64>>,
    /// Width and height in pixels. Rounded down to what the model can make, which `changes` tells.
    #[schema(example = "832x480")]
    size: Option<String>,
    /// In place of `size`, together with `height`.
    #[schema(value_type = Option<usize>)]
    width: Option<Number<usize>>,
    /// In place of `size`, together with `width`.
    #[schema(value_type = Option<usize>)]
    height: Option<Number<usize>>,
    /// In place of `seconds`.
    #[schema(value_type = Option<usize>)]
    num_frames: Option<Number<usize>>,
    /// Frames a second.
    #[schema(value_type = Option<u32>)]
    fps: Option<Number<u32>>,
    /// Steps of denoising.
    #[schema(value_type = Option<usize>)]
    num_inference_steps: Option<Number<usize>>,
    /// How far the prompt is followed beyond the negative prompt; 1 is not at all, in half the time.
    #[schema(value_type = Option<f32>)]
    guidance_scale: Option<Number<f32>>,
    /// The same for the second denoiser, of a model that has two.
    #[schema(value_type = Option<f32>)]
    guidance_scale_2: Option<Number<f32>>,
    /// Where the second of two denoisers takes over, as a share of the noise.
    #[schema(value_type = Option<f32>)]
    boundary_ratio: Option<Number<f32>>,
    /// How far noise levels are shifted towards noise.
    #[schema(value_type = Option<f32>)]
    flow_shift: Option<Number<f32>>,
    /// What the video shall not be; the model's own if absent.
    negative_prompt: Option<String>,
    /// Of the noise: the same seed gives the same frames. Drawn if absent.
    #[schema(value_type = Option<u64>)]
    seed: Option<Number<u64>>,
    /// What the file is; `mp4` if absent.
    output_format: Option<OutputFormat>,
    /// Refused: videos are made of text alone.
    #[schema(value_type = Option<Object>)]
    input_reference: Option<Value>,
}

/// What a video's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OutputFormat {
    /// H.264 in MP4.
    Mp4,
    /// Animated PNG: exactly the frames.
    Apng,
    /// GIF with 256 colours.
    Gif,
}

impl OutputFormat {
    fn format(self) -> Format {
        match self {
            OutputFormat::Mp4 => Format::Mp4,
            OutputFormat::Apng => Format::Apng,
            OutputFormat::Gif => Format::Gif,
        }
    }
}

impl CreateVideo {
    /// Which model is asked for.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref().filter(|name| !name.is_empty())
    }

    /// The same with this seed, unless it has one.
    pub(super) fn seeded(self, seed: u64) -> CreateVideo {
        CreateVideo { seed: self.seed.or(Some(Number(seed))), ..self }
    }

    /// What is asked of this model, a seed drawn if none was given. Whatever the model cannot do is refused.
    pub(crate) fn request(self, model: &VideoModel) -> Result<VideoRequest, ApiError> {
        if self.input_reference.is_some() {
            let message = "input_reference: videos are made of text alone here; leave it out";
            return Err(ApiError::parameter("input_reference", message));
        }
        if self.prompt.trim().is_empty() {
            return Err(ApiError::parameter("prompt", "prompt: it is empty; say what the video shows"));
        }
        for (name, text) in
            [("prompt", Some(&self.prompt)), ("negative_prompt", self.negative_prompt.as_ref())]
        {
            if let Some(length) = text.map(String::len).filter(|&length| length > MAX_PROMPT) {
                let message = format!("{name}: it has {length} bytes, at most {MAX_PROMPT} are possible");
                return Err(ApiError::parameter(name, message).code("context_length_exceeded"));
            }
        }
        let wanted = self.wanted(model)?;
        let (settings, _) = Settings::resolve(&wanted, model).map_err(|error| self.refusal(error))?;
        self.check_unused(&settings, model)?;
        let format = self.output_format.unwrap_or(OutputFormat::Mp4).format();
        let multiple = format.multiple() as usize;
        if !settings.width.is_multiple_of(multiple) || !settings.height.is_multiple_of(multiple) {
            let message = format!(
                "output_format: {} takes even sizes only, and this is {}x{}; take apng",
                format.name(),
                settings.width,
                settings.height
            );
            return Err(ApiError::parameter("output_format", message));
        }
        Ok(VideoRequest { model: self.model().map(str::to_owned), prompt: self.prompt, wanted, format })
    }

    fn wanted(&self, model: &VideoModel) -> Result<Wanted, ApiError> {
        Ok(Wanted {
            size: self.pixels()?,
            frames: self.frames(model)?,
            fps: self.fps.map(|fps| fps.0),
            steps: self.num_inference_steps.map(|steps| steps.0),
            shift: self.flow_shift.map(|shift| shift.0),
            guidance: self.guidance_scale.map(|guidance| guidance.0),
            guidance_low: self.guidance_scale_2.map(|guidance| guidance.0),
            negative: self.negative_prompt.clone(),
            boundary: self.boundary_ratio.map(|share| share.0),
            seed: self.seed.map_or_else(ids::seed, |seed| Ok(seed.0))?,
            ..Wanted::default()
        })
    }

    /// Width and height, from either place.
    fn pixels(&self) -> Result<Option<(usize, usize)>, ApiError> {
        let apart = match (self.width, self.height) {
            (Some(width), Some(height)) => Some((width.0, height.0)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(ApiError::parameter("height", "height: width is of no use without it"));
            }
            (None, Some(_)) => {
                return Err(ApiError::parameter("width", "width: height is of no use without it"));
            }
        };
        let Some(size) = &self.size else { return Ok(apart) };
        let read = || {
            let (width, height) = size.split_once(['x', 'X', '×'])?;
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            (digits(width) && digits(height)).then_some((width.parse().ok()?, height.parse().ok()?))
        };
        let Some(together) = read() else {
            let message = format!("size: `{}` is none; write it as in 832x480", size.escape_default());
            return Err(ApiError::parameter("size", message));
        };
        if apart.is_some_and(|apart| apart != together) {
            let message = format!("size: {size} is not what width and height say; leave one of them out");
            return Err(ApiError::parameter("size", message));
        }
        Ok(Some(together))
    }

    /// Frames, from either place.
    fn frames(&self, model: &VideoModel) -> Result<Option<usize>, ApiError> {
        let Some(Number(seconds)) = self.seconds else { return Ok(self.num_frames.map(|frames| frames.0)) };
        let fps = self.fps.map_or(model.defaults.fps, |fps| fps.0);
        // What is too large for a number of frames stays too large.
        let frames = (seconds * f64::from(fps)).round() as usize;
        if frames == 0 {
            let message = format!("seconds: {seconds} with {fps} frames a second is no frame");
            return Err(ApiError::parameter("seconds", message));
        }
        if let Some(Number(other)) = self.num_frames.filter(|other| other.0 != frames) {
            let message = format!(
                "seconds: {seconds} with {fps} frames a second is {frames} frames, and num_frames says {other}; leave one \
                 of them out"
            );
            return Err(ApiError::parameter("seconds", message));
        }
        Ok(Some(frames))
    }

    /// What would change nothing is refused rather than ignored.
    fn check_unused(&self, settings: &Settings, model: &VideoModel) -> Result<(), ApiError> {
        if model.boundary.is_none() && self.guidance_scale_2.is_some() {
            let message = "guidance_scale_2: this model has one denoiser only; leave it out";
            return Err(ApiError::parameter("guidance_scale_2", message));
        }
        let negative = self.negative_prompt.as_ref().filter(|text| {
            // Whoever sends back what an answer said asks for nothing.
            !text.is_empty() && **text != model.defaults.negative
        });
        if negative.is_some() && settings.guidance == 1.0 && settings.guidance_low == 1.0 {
            let message = "negative_prompt: it has no effect where guidance_scale is 1; leave it out, or raise guidance_scale";
            return Err(ApiError::parameter("negative_prompt", message));
        }
        Ok(())
    }

    /// An error about settings names the field they came from.
    fn refusal(&self, error: VideoError) -> ApiError {
        let message = error.to_string();
        let field = match error {
            VideoError::OutOfRange { name, value, .. } => self.field(name, value),
            _ => None,
        };
        match field {
            Some(field) => ApiError::parameter(field, format!("{field}: {message}")),
            None => ApiError::internal(message),
        }
    }

    /// The field that a setting with this value came from.
    fn field(&self, setting: &str, value: f64) -> Option<&'static str> {
        let apart = self.size.is_none();
        Some(match setting {
            "the width" if apart => "width",
            "the height" if apart => "height",
            "the width" | "the height" => "size",
            "the number of frames" if self.seconds.is_some() => "seconds",
            "the number of frames" => "num_frames",
            "the number of frames a second" => "fps",
            "the number of steps" => "num_inference_steps",
            "the flow shift" => "flow_shift",
            "the guidance" => match self.guidance_scale {
                Some(Number(scale)) if f64::from(scale) == value => "guidance_scale",
                _ => "guidance_scale_2",
            },
            "the boundary between two denoisers" => "boundary_ratio",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wushi_engine::video::Defaults;

    use super::*;
    use crate::body::parse;

    fn model() -> VideoModel {
        VideoModel {
            channels: 2,
            temporal_stride: 4,
            spatial_stride: 8,
            patch: [1, 2, 2],
            latent_mean: vec![0.0; 2],
            latent_std: vec![1.0; 2],
            text_len: 8,
            text_dim: 3,
            train_timesteps: 1000.0,
            boundary: None,
            distilled: false,
            euler: false,
            defaults: Defaults {
                width: 832,
                height: 480,
                frames: 81,
                fps: 16,
                steps: 50,
                shift: 5.0,
                shift_below: None,
                guidance: 5.0,
                guidance_low: None,
                negative: "blurry".to_owned(),
            },
        }
    }

    fn two_denoisers() -> VideoModel {
        VideoModel { boundary: Some(0.875), ..model() }
    }

    /// A request with these fields beside its prompt.
    fn ask(fields: Value, model: &VideoModel) -> Result<VideoRequest, ApiError> {
        let mut body = json!({ "prompt": "a river" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        parse::<CreateVideo>(body.to_string().as_bytes())?.request(model)
    }

    fn wanted(fields: Value) -> Wanted {
        ask(fields, &model()).unwrap().wanted
    }

    #[test]
    fn what_is_not_said_is_the_models() {
        let request = ask(json!({}), &model()).unwrap();
        let seed = request.wanted.seed;
        assert_eq!(request.wanted, Wanted { seed, ..Wanted::default() });
        assert_eq!((request.model, request.format, request.prompt.as_str()), (None, Format::Mp4, "a river"));
        assert_ne!(seed, wanted(json!({})).seed, "drawn");
        assert_eq!(ask(json!({ "model": "" }), &model()).unwrap().model, None);
    }

    #[test]
    fn everything_that_is_said_is_heard() {
        let all = json!({
            "model": "wan", "seconds": "5.0625", "size": "480x832", "seed": "7", "width": 480, "height": "832",
            "num_frames": 81, "fps": 16, "num_inference_steps": "20", "guidance_scale": 4, "guidance_scale_2": 3.5,
            "boundary_ratio": "0.9", "flow_shift": 3.0, "negative_prompt": "", "output_format": "apng",
        });
        let request = ask(all, &two_denoisers()).unwrap();
        let expected = Wanted {
            size: Some((480, 832)),
            frames: Some(81),
            fps: Some(16),
            steps: Some(20),
            shift: Some(3.0),
            guidance: Some(4.0),
            guidance_low: Some(3.5),
            boundary: Some(0.9),
            negative: Some(String::new()),
            seed: 7,
            ..Wanted::default()
        };
        assert_eq!((request.wanted, request.format), (expected, Format::Apng));
        assert_eq!(request.model.as_deref(), Some("wan"));
    }

    #[test]
    fn seconds_become_frames() {
        let frames = |fields| wanted(fields).frames;
        assert_eq!(frames(json!({ "seconds": "4" })), Some(64));
        assert_eq!(frames(json!({ "seconds": 4, "fps": 24 })), Some(96));
        assert_eq!(frames(json!({ "seconds": 0.05 })), Some(1));
        assert_eq!(frames(json!({ "seconds": "5.0417", "fps": 24, "num_frames": 121 })), Some(121));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (fields, param) in [
            (json!({ "prompt": " \n" }), "prompt"),
            (json!({ "prompt": 5 }), "prompt"),
            (json!({ "prompt": "x".repeat(MAX_PROMPT + 1) }), "prompt"),
            (json!({ "negative_prompt": "x".repeat(MAX_PROMPT + 1) }), "negative_prompt"),
            (json!({ "bananas": 1 }), "bananas"),
            (json!({ "n": 1 }), "n"),
            (json!({ "input_reference": { "file_id": "f" } }), "input_reference"),
            (json!({ "seconds": "four" }), "seconds"),
            (json!({ "seconds": -4 }), "seconds"),
            (json!({ "seconds": "0" }), "seconds"),
            (json!({ "seconds": 1e300 }), "seconds"),
            (json!({ "seconds": "4", "num_frames": 81 }), "seconds"),
            (json!({ "size": "large" }), "size"),
            (json!({ "size": "480x" }), "size"),
            (json!({ "size": "+480x832" }), "size"),
            (json!({ "size": "99999999999999999999x9" }), "size"),
            (json!({ "size": "832x8" }), "size"),
            (json!({ "size": "20000x480" }), "size"),
            (json!({ "size": "832x480", "width": 832, "height": 832 }), "size"),
            (json!({ "width": 832 }), "height"),
            (json!({ "height": 832 }), "width"),
            (json!({ "width": 0, "height": 480 }), "width"),
            (json!({ "width": 480, "height": 1_000_000 }), "height"),
            (json!({ "num_frames": 0 }), "num_frames"),
            (json!({ "num_frames": 1.5 }), "num_frames"),
            (json!({ "fps": 0 }), "fps"),
            (json!({ "fps": 100_000 }), "fps"),
            (json!({ "num_inference_steps": 0 }), "num_inference_steps"),
            (json!({ "guidance_scale": 0.5 }), "guidance_scale"),
            (json!({ "guidance_scale": "nan" }), "guidance_scale"),
            (json!({ "guidance_scale_2": 3 }), "guidance_scale_2"),
            (json!({ "boundary_ratio": 0.5 }), "boundary_ratio"),
            (json!({ "flow_shift": -1 }), "flow_shift"),
            (json!({ "seed": -1 }), "seed"),
            (json!({ "seed": 0.5 }), "seed"),
            (json!({ "output_format": "png-dir" }), "output_format"),
            (json!({ "guidance_scale": 1, "negative_prompt": "dark" }), "negative_prompt"),
        ] {
            let error = ask(fields.clone(), &model()).map(|_| ()).expect_err(&fields.to_string());
            assert_eq!(
                (error.status.as_u16(), error.param.as_deref()),
                (400, Some(param)),
                "{fields}: {}",
                error.message
            );
            assert!(
                error.message.starts_with(param) || error.message.contains(&format!("`{param}`")),
                "{}",
                error.message
            );
        }
        for (fields, param) in [
            (json!({ "guidance_scale": 3, "guidance_scale_2": 0 }), "guidance_scale_2"),
            (json!({ "guidance_scale": 2000, "guidance_scale_2": 0 }), "guidance_scale"),
            (json!({ "boundary_ratio": 1.5 }), "boundary_ratio"),
        ] {
            let error = ask(fields.clone(), &two_denoisers()).map(|_| ()).expect_err(&fields.to_string());
            assert_eq!(error.param.as_deref(), Some(param), "{fields}: {}", error.message);
        }
        let missing = parse::<CreateVideo>(b"{}").map(|_| ()).unwrap_err();
        assert!(missing.message.contains("missing field `prompt`"), "{}", missing.message);
    }

    #[test]
    fn what_an_answer_said_may_be_sent_back() {
        let fields = json!({
            "guidance_scale": 1.0, "negative_prompt": "blurry", "seconds": "5.0625", "num_frames": 81, "size": "832x480",
            "width": 832, "height": 480,
        });
        assert_eq!(wanted(fields).negative.as_deref(), Some("blurry"));
    }

    #[test]
    fn mp4_takes_even_sizes_only() {
        let odd = VideoModel { spatial_stride: 1, patch: [1, 1, 1], ..model() };
        let error = ask(json!({ "size": "31x32" }), &odd).map(|_| ()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("output_format"));
        assert!(ask(json!({ "size": "31x32", "output_format": "gif" }), &odd).is_ok());
    }
}
