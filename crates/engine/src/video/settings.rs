//! What is asked of a video, and what becomes of it with a given model.

use std::fmt;
use std::ops::Range;

use super::{LatentShape, Rounding, SamplerKind, Schedule, Spacing, VideoError, VideoModel};

/// Wider or higher than any model makes; keeps all arithmetic on sizes far from overflowing.
const MAX_SIZE: usize = 1 << 14;
/// More than an hour at 24 frames a second.
const MAX_FRAMES: usize = 100_000;
const MAX_FPS: u32 = 1000;
const MAX_GUIDANCE: f32 = 1000.0;

/// What is asked for; `None` is the model's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Width and height in pixels.
    pub size: Option<(usize, usize)>,
    /// Frames.
    pub frames: Option<usize>,
    /// Frames a second.
    pub fps: Option<u32>,
    /// Steps of denoising.
    pub steps: Option<usize>,
    /// How far noise levels are shifted towards noise.
    pub shift: Option<f32>,
    /// How far the prompt is followed beyond the negative prompt; of the first denoiser where there are two, and of
    /// both unless `guidance_low` is given.
    pub guidance: Option<f32>,
    /// The guidance of the second of two denoisers.
    pub guidance_low: Option<f32>,
    /// Where the second of two denoisers takes over, as a share of the noise.
    pub boundary: Option<f32>,
    /// What the video shall not be.
    pub negative: Option<String>,
    /// Which sampler.
    pub sampler: Option<SamplerKind>,
    /// How noise levels lie.
    pub spacing: Option<Spacing>,
    /// Whether timesteps are whole numbers.
    pub rounding: Option<Rounding>,
    /// Of the noise.
    pub seed: u64,
}

/// Everything that decides what a video of a model becomes, the prompt aside.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
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
    /// Guidance of the first denoiser, or of the only one.
    pub guidance: f32,
    /// Guidance of the second denoiser; that of the first where there is one only.
    pub guidance_low: f32,
    /// Where the second denoiser takes over, as a share of the noise, if there are two.
    pub boundary: Option<f32>,
    /// What the video shall not be.
    pub negative: String,
    /// Which sampler.
    pub sampler: SamplerKind,
    /// How noise levels lie.
    pub spacing: Spacing,
    /// Whether timesteps are whole numbers.
    pub rounding: Rounding,
    /// Of the noise.
    pub seed: u64,
    /// What the latents' extents are.
    pub latents: LatentShape,
}

/// Something that was not done as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another number of frames.
    Frames {
        /// Frames asked for.
        wanted: usize,
        /// Frames there will be.
        used: usize,
        /// Frames come as one and a multiple of this.
        multiple: usize,
    },
    /// Another size.
    Size {
        /// Width and height asked for.
        wanted: (usize, usize),
        /// Those there will be.
        used: (usize, usize),
        /// Width and height are multiples of these.
        multiple: (usize, usize),
    },
    /// The end of a prompt is not read.
    Prompt {
        /// Whether it is the negative prompt.
        negative: bool,
        /// Its tokens.
        wanted: usize,
        /// Those that are read.
        used: usize,
    },
    /// The negative prompt is not read.
    NoNegative,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Frames { wanted, used, multiple } => {
                write!(f, "{used} frames instead of {wanted}: this model makes 1 + a multiple of {multiple}")
            }
            Change::Prompt { negative, wanted, used } => write!(
                f,
                "the first {used} of the {wanted} tokens of the {}prompt: this model reads no more",
                if *negative { "negative " } else { "" }
            ),
            Change::NoNegative => f.write_str("no negative prompt: a guidance of 1 does not look at it"),
            Change::Size { wanted, used, multiple } => write!(
                f,
                "{}x{} instead of {}x{}: this model makes multiples of {}x{}",
                used.0, used.1, wanted.0, wanted.1, multiple.0, multiple.1
            ),
        }
    }
}

impl Settings {
    /// What becomes of `wanted` with this model, and what was changed.
    ///
    /// Frames and sizes are rounded as diffusers does: frames to `n / stride * stride + 1`, sizes down to a multiple.
    pub fn resolve(wanted: &Wanted, model: &VideoModel) -> Result<(Settings, Vec<Change>), VideoError> {
        check_model(model)?;
        let defaults = &model.defaults;
        let mut changes = Vec::new();
        let (width, height) =
            size(wanted.size.unwrap_or((defaults.width, defaults.height)), model, &mut changes)?;
        let frames = frames(wanted.frames.unwrap_or(defaults.frames), model, &mut changes)?;
        let latents = LatentShape {
            channels: model.channels,
            frames: (frames - 1) / model.temporal_stride + 1,
            height: height / model.spatial_stride,
            width: width / model.spatial_stride,
        };
        let fps = wanted.fps.unwrap_or(defaults.fps);
        in_range("the number of frames a second", fps as usize, MAX_FPS as usize)?;
        let small = defaults.shift_below.filter(|(pixels, _)| width * height < *pixels);
        let guidance = wanted.guidance.unwrap_or(defaults.guidance);
        // Who says one number means it for both.
        let low = wanted.guidance_low.or(wanted.guidance).or(defaults.guidance_low).unwrap_or(guidance);
        let settings = Settings {
            width,
            height,
            frames,
            fps,
            steps: wanted.steps.unwrap_or(defaults.steps),
            shift: wanted.shift.unwrap_or(small.map_or(defaults.shift, |(_, shift)| shift)),
            guidance: guided(guidance)?,
            guidance_low: guided(if model.boundary.is_some() { low } else { guidance })?,
            boundary: boundary(wanted.boundary, model)?,
            negative: wanted.negative.clone().unwrap_or_else(|| defaults.negative.clone()),
            sampler: wanted.sampler.unwrap_or(match model.euler {
                true => SamplerKind::Euler,
                false => SamplerKind::UniPc,
            }),
            spacing: wanted.spacing.unwrap_or(match model.distilled {
                true => Spacing::Whole,
                false => Spacing::Training,
            }),
            rounding: wanted.rounding.unwrap_or(match model.distilled {
                true => Rounding::Exact,
                false => Rounding::Floor,
            }),
            seed: wanted.seed,
            latents,
        };
        let negative = wanted.negative.as_ref().is_some_and(|negative| !negative.trim().is_empty());
        // Whether there are such noise levels shows here, too.
        let forwards: usize = settings.forwards(model)?.iter().sum();
        if negative && forwards == settings.steps {
            changes.push(Change::NoNegative);
        }
        Ok((settings, changes))
    }

    /// The noise levels of these settings.
    pub fn schedule(&self, model: &VideoModel) -> Result<Schedule, VideoError> {
        Schedule::new(self.steps, self.shift, self.spacing, self.rounding, model.train_timesteps)
    }

    /// Tokens that the denoiser works on.
    pub fn tokens(&self, model: &VideoModel) -> usize {
        self.latents.elements() / (model.channels * model.patch.iter().product::<usize>())
    }

    /// How often a denoiser runs: twice a step with guidance, once without. With two denoisers, each one's runs.
    pub fn forwards(&self, model: &VideoModel) -> Result<[usize; 2], VideoError> {
        self.forwards_after(0, model)
    }

    /// The same when so many steps are done.
    pub(super) fn forwards_after(&self, done: usize, model: &VideoModel) -> Result<[usize; 2], VideoError> {
        let [first, second] = self.turns(model)?;
        let runs = |steps: Range<usize>, guidance: f32| {
            let steps = steps.end - steps.start.max(done).min(steps.end);
            if guidance == 1.0 { steps } else { 2 * steps }
        };
        Ok([runs(first, self.guidance), runs(second, self.guidance_low)])
    }

    /// Which steps each of two denoisers does; the first does all where there is one.
    pub(super) fn turns(&self, model: &VideoModel) -> Result<[Range<usize>; 2], VideoError> {
        let boundary = self.boundary.map(|share| share * model.train_timesteps);
        let first = self.schedule(model)?.first_expert_steps(boundary);
        Ok([0..first, first..self.steps])
    }
}

/// Where the second denoiser takes over.
fn boundary(wanted: Option<f32>, model: &VideoModel) -> Result<Option<f32>, VideoError> {
    match (wanted, model.boundary) {
        (None, own) => Ok(own),
        (Some(share), Some(_)) if (0.0..=1.0).contains(&share) => Ok(wanted),
        (Some(share), own) => Err(VideoError::OutOfRange {
            name: "the boundary between two denoisers",
            value: f64::from(share),
            expected: match own {
                Some(_) => "a share of the noise, 0 to 1".to_owned(),
                None => "none: this model has one denoiser".to_owned(),
            },
        }),
    }
}

/// A width and a height that the model can make are multiples of these.
fn multiple(model: &VideoModel) -> (usize, usize) {
    (model.spatial_stride * model.patch[2], model.spatial_stride * model.patch[1])
}

fn check_model(model: &VideoModel) -> Result<(), VideoError> {
    let bad = |problem: String| Err(VideoError::BadModel(problem));
    let counts = [
        ("channels", model.channels),
        ("the temporal stride", model.temporal_stride),
        ("the spatial stride", model.spatial_stride),
        ("the patch's height", model.patch[1]),
        ("the patch's width", model.patch[2]),
        ("the rows of text", model.text_len),
        ("the elements of a row of text", model.text_dim),
    ];
    for (name, count) in counts {
        if !(1..=MAX_SIZE).contains(&count) {
            return bad(format!("{name}: {count}, expected 1 to {MAX_SIZE}"));
        }
    }
    if model.patch[0] != 1 {
        return bad(format!("a token of {} latent frames, expected 1", model.patch[0]));
    }
    for (name, values) in [("mean", &model.latent_mean), ("deviation", &model.latent_std)] {
        if values.len() != model.channels || !values.iter().all(|value| value.is_finite()) {
            let count = values.len();
            return bad(format!(
                "the latents' {name} has {count} numbers, expected {} finite ones",
                model.channels
            ));
        }
    }
    match model.boundary {
        Some(share) if !(share > 0.0 && share < 1.0) => {
            bad(format!("the boundary between its denoisers is {share}, expected a share between 0 and 1"))
        }
        _ => Ok(()),
    }
}

fn in_range(name: &'static str, value: usize, most: usize) -> Result<(), VideoError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(VideoError::OutOfRange { name, value: value as f64, expected: format!("1 to {most}") })
}

fn guided(value: f32) -> Result<f32, VideoError> {
    // Below 1, implementations differ in what it means.
    if (1.0..=MAX_GUIDANCE).contains(&value) {
        return Ok(value);
    }
    let expected = format!("1 (none) to {MAX_GUIDANCE}");
    Err(VideoError::OutOfRange { name: "the guidance", value: f64::from(value), expected })
}

fn size(
    wanted: (usize, usize),
    model: &VideoModel,
    changes: &mut Vec<Change>,
) -> Result<(usize, usize), VideoError> {
    let multiple = multiple(model);
    let side = |name, wanted: usize, multiple: usize| {
        if (multiple..=MAX_SIZE).contains(&wanted) {
            return Ok(wanted / multiple * multiple);
        }
        let expected = format!("{multiple} to {MAX_SIZE} with this model");
        Err(VideoError::OutOfRange { name, value: wanted as f64, expected })
    };
    let used = (side("the width", wanted.0, multiple.0)?, side("the height", wanted.1, multiple.1)?);
    if used != wanted {
        changes.push(Change::Size { wanted, used, multiple });
    }
    Ok(used)
}

fn frames(wanted: usize, model: &VideoModel, changes: &mut Vec<Change>) -> Result<usize, VideoError> {
    in_range("the number of frames", wanted, MAX_FRAMES)?;
    let stride = model.temporal_stride;
    let used = if (wanted - 1).is_multiple_of(stride) { wanted } else { wanted / stride * stride + 1 };
    if used != wanted {
        changes.push(Change::Frames { wanted, used, multiple: stride });
    }
    Ok(used)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Defaults;
    use super::*;

    /// A small model with the strides of the large ones.
    pub(crate) fn model() -> VideoModel {
        VideoModel {
            channels: 2,
            temporal_stride: 4,
            spatial_stride: 8,
            patch: [1, 2, 2],
            latent_mean: vec![0.5, -0.25],
            latent_std: vec![2.0, 1.5],
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
                shift_below: Some((600_000, 3.0)),
                guidance: 5.0,
                guidance_low: None,
                negative: "blurry".to_owned(),
            },
        }
    }

    fn resolve(wanted: &Wanted, model: &VideoModel) -> (Settings, Vec<Change>) {
        Settings::resolve(wanted, model).unwrap()
    }

    #[test]
    fn defaults_are_the_models() {
        let model = model();
        let (settings, changes) = resolve(&Wanted::default(), &model);
        assert!(changes.is_empty());
        assert_eq!((settings.width, settings.height, settings.frames, settings.fps), (832, 480, 81, 16));
        assert_eq!((settings.steps, settings.shift, settings.guidance), (50, 3.0, 5.0));
        assert_eq!(settings.latents, LatentShape { channels: 2, frames: 21, height: 60, width: 104 });
        assert_eq!(settings.tokens(&model), 32_760);
        assert_eq!(settings.forwards(&model).unwrap(), [100, 0]);
        assert_eq!(settings.negative, "blurry");
        let (large, _) = resolve(&Wanted { size: Some((1280, 720)), ..Wanted::default() }, &model);
        assert_eq!((large.shift, large.tokens(&model)), (5.0, 75_600));
    }

    #[test]
    fn frames_and_sizes_are_rounded_and_told() {
        let mut model = model();
        for (wanted, used) in [(81, 81), (82, 81), (80, 81), (83, 81), (79, 77), (4, 5), (2, 1), (1, 1)] {
            let (settings, changes) = resolve(&Wanted { frames: Some(wanted), ..Wanted::default() }, &model);
            assert_eq!((settings.frames, changes.is_empty()), (used, wanted == used), "{wanted}");
        }
        let (settings, changes) =
            resolve(&Wanted { size: Some((100, 50)), frames: Some(7), ..Wanted::default() }, &model);
        assert_eq!((settings.width, settings.height, settings.frames), (96, 48, 5));
        let told: Vec<String> = changes.iter().map(Change::to_string).collect();
        assert_eq!(
            told,
            [
                "96x48 instead of 100x50: this model makes multiples of 16x16",
                "5 frames instead of 7: this model makes 1 + a multiple of 4"
            ]
        );
        model.temporal_stride = 1;
        let (settings, _) = resolve(&Wanted { frames: Some(7), ..Wanted::default() }, &model);
        assert_eq!((settings.frames, settings.latents.frames), (7, 7));
    }

    #[test]
    fn guidance_of_two_denoisers() {
        let mut model = model();
        model.boundary = Some(0.875);
        model.defaults.guidance = 4.0;
        model.defaults.guidance_low = Some(3.0);
        let both = |wanted: &Wanted| {
            let (settings, _) = resolve(wanted, &model);
            (settings.guidance, settings.guidance_low)
        };
        assert_eq!(both(&Wanted::default()), (4.0, 3.0));
        assert_eq!(both(&Wanted { guidance: Some(6.0), ..Wanted::default() }), (6.0, 6.0));
        assert_eq!(both(&Wanted { guidance_low: Some(1.0), ..Wanted::default() }), (4.0, 1.0));
        let wanted = Wanted { guidance_low: Some(1.0), steps: Some(4), ..Wanted::default() };
        assert_eq!(resolve(&wanted, &model).0.forwards(&model).unwrap(), [4, 2]);
        model.boundary = None;
        assert_eq!(resolve(&Wanted::default(), &model).0.guidance_low, 4.0);
    }

    #[test]
    fn distilled_models_are_sampled_as_they_were_trained() {
        let mut model = model();
        (model.distilled, model.euler) = (true, true);
        model.defaults = Defaults { steps: 4, guidance: 1.0, shift_below: None, ..model.defaults };
        let (settings, _) = resolve(&Wanted::default(), &model);
        assert_eq!(settings.schedule(&model).unwrap().timesteps(), [1000.0, 937.5, 833.333_3, 625.0]);
        assert_eq!((settings.sampler, settings.forwards(&model).unwrap()), (SamplerKind::Euler, [4, 0]));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let good = model();
        let told = |wanted: Wanted| Settings::resolve(&wanted, &good).unwrap_err().to_string();
        let base = Wanted::default;
        assert_eq!(
            told(Wanted { size: Some((15, 480)), ..base() }),
            "the width is 15, expected 16 to 16384 with this model"
        );
        assert!(told(Wanted { size: Some((480, usize::MAX)), ..base() }).starts_with("the height is"));
        assert_eq!(
            told(Wanted { frames: Some(0), ..base() }),
            "the number of frames is 0, expected 1 to 100000"
        );
        assert!(told(Wanted { fps: Some(0), ..base() }).contains("frames a second"));
        assert!(told(Wanted { steps: Some(0), ..base() }).contains("steps"));
        assert!(told(Wanted { shift: Some(-3.0), ..base() }).contains("shift"));
        assert!(
            told(Wanted { guidance: Some(f32::NAN), ..base() })
                .contains("guidance is NaN, expected 1 (none) to 1000")
        );
        let bad = VideoModel { latent_std: vec![1.0], ..good };
        let error = Settings::resolve(&base(), &bad).unwrap_err().to_string();
        assert!(error.contains("deviation has 1 numbers, expected 2"), "{error}");
        let bad = VideoModel { boundary: Some(1.5), latent_std: vec![1.0; 2], ..bad };
        assert!(Settings::resolve(&base(), &bad).unwrap_err().to_string().contains("boundary"));
    }
}
