//! A video from beginning to end: text, steps of denoising, frames.
//!
//! Nothing here knows how a part computes. [`Parts`] loads one part at a time and drops it after use, because each of
//! them may fill the memory.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use wushi_cpu::Follow;
use wushi_graph::ExecError;

use super::frames::from_decoder;
use super::latents::denormalise;
use super::resume::save_steps;
use super::{
    FramesDigest, Identity, PartError, PromptCache, Sampler, SavedSteps, Settings, TensorFile, TextStates,
    VideoError, VideoModel, fill_noise, guide, save_latents, to_rgb8,
};

/// Reads prompts.
pub trait TextEncoder {
    /// The states of a prompt's tokens, `[rows, text_dim]`, at most `text_len` of them.
    fn encode(&mut self, prompt: &str) -> Result<TextStates, PartError>;
}

/// Says where latents are going.
pub trait Denoiser {
    /// What is computed once for each prompt: keys and values of its text.
    type Context;

    /// The context of a prompt's states.
    fn prepare(&mut self, states: &TextStates) -> Result<Self::Context, PartError>;

    /// The velocity at `latents`, both `[T, H, W, C]`.
    fn velocity(
        &mut self,
        latents: &[f32],
        timestep: f32,
        context: &Self::Context,
        velocity: &mut [f32],
    ) -> Result<(), PartError>;
}

/// Makes frames of latent frames, which come in order.
pub trait Decoder {
    /// Forgets the frames before: the next latent frame is the first.
    fn reset(&mut self);

    /// Adds the frames of the next latent frame `[H, W, C]`, in the decoder's own scale, to `frames`: `[n, H, W, 3]`,
    /// -1 being black and 1 white. The first latent frame gives one frame, each later one as many as the temporal
    /// stride.
    fn decode(&mut self, latent: &[f32], frames: &mut Vec<f32>) -> Result<(), PartError>;
}

/// The parts of a model, each loaded when asked for.
pub trait Parts {
    /// The text encoder.
    type Text: TextEncoder;
    /// A denoiser.
    type Denoiser: Denoiser;
    /// The decoder.
    type Decoder: Decoder;

    /// Loads the text encoder.
    fn text_encoder(&mut self) -> Result<Self::Text, PartError>;

    /// Loads a denoiser: 0 is the first or only one, 1 the one for little noise.
    fn denoiser(&mut self, which: usize) -> Result<Self::Denoiser, PartError>;

    /// Loads the decoder.
    fn decoder(&mut self) -> Result<Self::Decoder, PartError>;
}

/// A part of a model, in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The text encoder.
    TextEncoder,
    /// A denoiser; 0 is the first or only one.
    Denoiser(usize),
    /// The decoder.
    Decoder,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::TextEncoder => "the text encoder",
            Part::Denoiser(0) => "the denoiser",
            Part::Denoiser(_) => "the second denoiser",
            Part::Decoder => "the decoder",
        })
    }
}

/// What there is to tell while a video is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// A part is being loaded.
    Loading(Part),
    /// The prompts' states are there.
    Text {
        /// Whether all of them came from the cache.
        cached: bool,
        /// How long it took, loading included.
        seconds: f64,
    },
    /// A step of denoising is done.
    Step {
        /// Steps done.
        done: usize,
        /// Steps in all.
        of: usize,
        /// How long this one took.
        seconds: f64,
    },
    /// The latents, or those between two steps, are on disk.
    Saved(Kept),
    /// A frame is decoded and passed on.
    Frame {
        /// Frames done.
        done: usize,
        /// Frames in all.
        of: usize,
        /// How long it took. The frames of one latent frame come together: the first of them has its time.
        seconds: f64,
    },
}

/// What of a video lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// So many steps of denoising.
    Steps(usize),
    /// The denoised latents.
    Latents,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::Steps(1) => f.write_str("the first step of denoising is saved"),
            Kept::Steps(steps) => write!(f, "{steps} steps of denoising are saved"),
            Kept::Latents => f.write_str("the denoised latents are saved"),
        }
    }
}

/// What a video starts from.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// The noise of the settings' seed.
    Noise,
    /// Given latents, `[C, T, H, W]`, as read from a file.
    Latents(Vec<f32>),
    /// What a run has saved between two steps.
    Between(Box<SavedSteps>),
    /// Denoised latents, `[T, H, W, C]`, that wait to be decoded.
    Denoised(Vec<f32>),
}

/// Where a run saves what it has done.
#[derive(Clone, Copy, Debug)]
pub struct Save<'a> {
    /// The file.
    pub path: &'a Path,
    /// As whose.
    pub identity: &'a Identity,
    /// Not only the denoised latents, but also what there is after each so many steps.
    pub every: Option<usize>,
}

/// A video to be made.
#[derive(Debug)]
pub struct Job<'a> {
    /// The model.
    pub model: &'a VideoModel,
    /// Resolved for this model.
    pub settings: &'a Settings,
    /// What it shall show.
    pub prompt: &'a str,
    /// What it starts from.
    pub start: Start,
    /// States of earlier prompts.
    pub cache: Option<&'a PromptCache>,
    /// Where it is saved what is done.
    pub save: Option<Save<'a>>,
    /// Where all frames are written: tensor `video`, `[1, F, 3, H, W]`.
    pub save_frames: Option<&'a Path>,
}

/// A decoded frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// From 0.
    pub index: usize,
    /// Frames in all.
    pub of: usize,
    /// `[3, H, W]`, in 0 to 1.
    pub values: &'a [f32],
    /// `[H, W, 3]`.
    pub rgb: &'a [u8],
}

/// Who follows the making.
pub struct Watch<'a> {
    /// Told of progress.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Given every frame, in order.
    pub frame: &'a mut dyn FnMut(Frame<'_>) -> Result<(), PartError>,
    /// Looked at between runs of a part. A part that has it as well stops within its runs.
    pub follow: &'a Follow,
}

/// A video that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// BLAKE3 over the frames, see [`FramesDigest`].
    pub frames_digest: String,
    /// Seconds for the text, the steps and the frames, loading included.
    pub text_seconds: f64,
    /// See `text_seconds`.
    pub denoise_seconds: f64,
    /// See `text_seconds`.
    pub decode_seconds: f64,
}

/// Makes a video.
///
/// Panics when given latents are not as many as the settings say.
pub fn make<P: Parts>(job: Job<'_>, parts: &mut P, watch: Watch<'_>) -> Result<Made, VideoError> {
    if let Start::Latents(latents) | Start::Denoised(latents) = &job.start {
        assert_eq!(latents.len(), job.settings.latents.elements(), "latents of this size");
    }
    let mut run = Run { job, parts, watch, saved: None };
    let (mut text_seconds, mut denoise_seconds) = (0.0, 0.0);
    let latents = match std::mem::replace(&mut run.job.start, Start::Noise) {
        Start::Denoised(latents) => {
            run.saved = run.job.save.map(|_| Kept::Latents);
            latents
        }
        start => {
            let begun = Instant::now();
            let texts = run.texts()?;
            text_seconds = begun.elapsed().as_secs_f64();
            let begun = Instant::now();
            let latents = run.denoise(start, &texts)?;
            denoise_seconds = begun.elapsed().as_secs_f64();
            run.save(&latents);
            latents
        }
    };
    let begun = Instant::now();
    let frames_digest = run.decode(latents)?;
    let decode_seconds = begun.elapsed().as_secs_f64();
    Ok(Made { frames_digest, text_seconds, denoise_seconds, decode_seconds })
}

/// States of the prompt, and of the negative prompt where guidance needs it.
struct Texts {
    prompt: TextStates,
    negative: Option<TextStates>,
}

struct Run<'j, 'p, 'w, P> {
    job: Job<'j>,
    parts: &'p mut P,
    watch: Watch<'w>,
    /// What is on disk.
    saved: Option<Kept>,
}

impl<P: Parts> Run<'_, '_, '_, P> {
    fn check_stop(&self) -> Result<(), VideoError> {
        match self.watch.follow.stopped() {
            true => Err(VideoError::Stopped { saved: self.saved }),
            false => Ok(()),
        }
    }

    /// What a part gave. One that was stopped says so in its own words.
    fn done<T>(&self, part: Part, result: Result<T, PartError>) -> Result<T, VideoError> {
        result.map_err(|source| match source.downcast_ref::<ExecError>() {
            Some(ExecError::Stopped) => VideoError::Stopped { saved: self.saved },
            _ => VideoError::Part { part, source },
        })
    }

    fn tell(&mut self, progress: Progress) {
        (self.watch.progress)(progress);
    }

    fn texts(&mut self) -> Result<Texts, VideoError> {
        let begun = Instant::now();
        let (model, settings, cache) = (self.job.model, self.job.settings, self.job.cache);
        let [first, second] = settings.forwards(model)?;
        let guided = first + second > settings.steps;
        let negative = guided.then_some(settings.negative.as_str());
        let prompts = [Some(self.job.prompt), negative];
        let mut states = prompts.map(|prompt| cache?.get(prompt?, model));
        let mut encoder = None;
        for (prompt, states) in prompts.into_iter().zip(&mut states) {
            let Some(prompt) = prompt.filter(|_| states.is_none()) else { continue };
            self.check_stop()?;
            if encoder.is_none() {
                self.tell(Progress::Loading(Part::TextEncoder));
                let loaded = self.parts.text_encoder();
                encoder = Some(self.done(Part::TextEncoder, loaded)?);
            }
            if let Some(encoder) = &mut encoder {
                let made = self.done(Part::TextEncoder, encoder.encode(prompt))?;
                check_states(&made, model)?;
                // A video is worth more than its cache.
                if let Some(Err(error)) = cache.map(|cache| cache.put(prompt, model, &made)) {
                    tracing::warn!("the prompt's states were not kept: {error}");
                }
                *states = Some(made);
            }
        }
        let cached = encoder.is_none();
        self.tell(Progress::Text { cached, seconds: begun.elapsed().as_secs_f64() });
        let [prompt, negative] = states;
        let prompt = prompt.ok_or_else(|| missing_states(model))?;
        Ok(Texts { prompt, negative })
    }

    /// Denoised latents, `[T, H, W, C]`.
    fn denoise(&mut self, start: Start, texts: &Texts) -> Result<Vec<f32>, VideoError> {
        let (model, settings) = (self.job.model, self.job.settings);
        let shape = settings.latents;
        let schedule = settings.schedule(model)?;
        let mut sampler = Sampler::new(settings.sampler, &schedule);
        let mut latents = match start {
            Start::Between(saved) => {
                self.saved = self.job.save.map(|_| Kept::Steps(saved.steps()));
                saved.resume(&mut sampler)
            }
            Start::Latents(values) => shape.channels_last(&values),
            Start::Noise | Start::Denoised(_) => {
                let mut values = vec![0.0; shape.elements()];
                fill_noise(settings.seed, 0, &mut values);
                shape.channels_last(&values)
            }
        };
        let guidances = [settings.guidance, settings.guidance_low];
        let mut velocity = vec![0.0; latents.len()];
        for (which, (steps, guidance)) in settings.turns(model)?.into_iter().zip(guidances).enumerate() {
            let steps = steps.start.max(sampler.done())..steps.end;
            if steps.is_empty() {
                continue;
            }
            let part = Part::Denoiser(which);
            self.check_stop()?;
            self.tell(Progress::Loading(part));
            let denoiser = self.parts.denoiser(which);
            let mut denoiser = self.done(part, denoiser)?;
            let prompt = self.done(part, denoiser.prepare(&texts.prompt))?;
            let mut negative = match texts.negative.as_ref().filter(|_| guidance != 1.0) {
                Some(states) => Some((self.done(part, denoiser.prepare(states))?, vec![0.0; latents.len()])),
                None => None,
            };
            for step in steps {
                let begun = Instant::now();
                let timestep = schedule.timesteps()[step];
                let mut forward = |context: &_, velocity: &mut [f32]| {
                    self.check_stop()?;
                    self.done(part, denoiser.velocity(&latents, timestep, context, velocity))?;
                    check_finite(velocity, part, || format!("at step {}", step + 1))
                };
                forward(&prompt, &mut velocity)?;
                match &mut negative {
                    Some((context, unconditional)) => {
                        forward(context, unconditional)?;
                        guide(unconditional, &velocity, guidance);
                        sampler.step(unconditional, &mut latents);
                    }
                    None => sampler.step(&velocity, &mut latents),
                }
                let seconds = begun.elapsed().as_secs_f64();
                self.tell(Progress::Step { done: step + 1, of: settings.steps, seconds });
                self.save_between(&sampler, &latents);
            }
        }
        Ok(latents)
    }

    fn save_between(&mut self, sampler: &Sampler, latents: &[f32]) {
        let Some(save) = self.job.save else { return };
        // After the last step the latents themselves are saved.
        if sampler.left() > 0 && save.every.is_some_and(|every| sampler.done().is_multiple_of(every)) {
            let saved = save_steps(save.path, save.identity, self.job.settings, sampler, latents);
            self.kept(saved, Kept::Steps(sampler.done()));
        }
    }

    /// What cannot be saved is no reason to end: the frames are worth more than the chance to resume.
    fn kept(&mut self, saved: Result<(), VideoError>, kept: Kept) {
        match saved {
            Ok(()) => {
                self.saved = Some(kept);
                self.tell(Progress::Saved(kept));
            }
            Err(error) => {
                tracing::warn!("what is done is not saved, so a lost run cannot be resumed there: {error}")
            }
        }
    }

    fn save(&mut self, latents: &[f32]) {
        let Some(save) = self.job.save else { return };
        let saved = save_latents(save.path, save.identity, self.job.settings, latents);
        self.kept(saved, Kept::Latents);
    }

    /// Decodes `[T, H, W, C]`, one latent frame at a time, and gives the frames' digest.
    fn decode(&mut self, mut latents: Vec<f32>) -> Result<String, VideoError> {
        let (model, settings) = (self.job.model, self.job.settings);
        self.check_stop()?;
        self.tell(Progress::Loading(Part::Decoder));
        let decoder = self.parts.decoder();
        let mut decoder = self.done(Part::Decoder, decoder)?;
        decoder.reset();
        denormalise(model, &mut latents);
        let mut out = Frames::new(&self.job)?;
        let mut decoded = Vec::new();
        for (index, latent) in latents.chunks_exact(settings.latents.frame_elements()).enumerate() {
            self.check_stop()?;
            let mut begun = Instant::now();
            decoded.clear();
            self.done(Part::Decoder, decoder.decode(latent, &mut decoded))?;
            let expected = out.values.len() * if index == 0 { 1 } else { model.temporal_stride };
            if decoded.len() != expected {
                return Err(VideoError::WrongResult {
                    part: Part::Decoder,
                    found: format!("{} elements for latent frame {index}", decoded.len()),
                    expected: expected.to_string(),
                });
            }
            check_finite(&decoded, Part::Decoder, || format!("in latent frame {index}"))?;
            for frame in decoded.chunks_exact(out.values.len()) {
                out.pass_on(frame, &mut self.watch)?;
                let seconds = std::mem::replace(&mut begun, Instant::now()).elapsed().as_secs_f64();
                self.tell(Progress::Frame { done: out.index, of: settings.frames, seconds });
            }
        }
        out.finish()
    }
}

/// Frames on their way out.
struct Frames {
    index: usize,
    of: usize,
    values: Vec<f32>,
    rgb: Vec<u8>,
    digest: FramesDigest,
    file: Option<TensorFile>,
}

impl Frames {
    fn new(job: &Job<'_>) -> Result<Frames, VideoError> {
        let Settings { width, height, frames, .. } = *job.settings;
        let elements = 3 * height * width;
        let shape = [1, frames, 3, height, width];
        let file = job.save_frames.map(|path| TensorFile::create(path, "video", &shape, &[])).transpose()?;
        let (values, rgb) = (vec![0.0; elements], vec![0; elements]);
        Ok(Frames { index: 0, of: frames, values, rgb, digest: FramesDigest::new(), file })
    }

    /// Takes the next frame of the decoder, `[H, W, 3]`.
    fn pass_on(&mut self, decoded: &[f32], watch: &mut Watch<'_>) -> Result<(), VideoError> {
        from_decoder(decoded, &mut self.values);
        self.digest.update(&self.values);
        if let Some(file) = &mut self.file {
            file.write(&self.values)?;
        }
        to_rgb8(&self.values, &mut self.rgb);
        let index = self.index;
        let frame = Frame { index, of: self.of, values: &self.values, rgb: &self.rgb };
        (watch.frame)(frame).map_err(|source| VideoError::Sink { index, source })?;
        self.index += 1;
        Ok(())
    }

    fn finish(self) -> Result<String, VideoError> {
        self.file.map_or(Ok(()), TensorFile::finish)?;
        Ok(self.digest.hex())
    }
}

fn missing_states(model: &VideoModel) -> VideoError {
    let expected = format!("1 to {}", model.text_len);
    VideoError::WrongResult { part: Part::TextEncoder, found: "no states".to_owned(), expected }
}

fn check_states(states: &TextStates, model: &VideoModel) -> Result<(), VideoError> {
    let (rows, elements) = (states.rows, states.values.len());
    if !(1..=model.text_len).contains(&rows) || rows * model.text_dim != elements {
        return Err(VideoError::WrongResult {
            part: Part::TextEncoder,
            found: format!("{rows} states of {elements} elements together"),
            expected: format!("1 to {} states of {} elements each", model.text_len, model.text_dim),
        });
    }
    check_finite(&states.values, Part::TextEncoder, || "in a state".to_owned())
}

fn check_finite(values: &[f32], part: Part, place: impl Fn() -> String) -> Result<(), VideoError> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(&value) => Err(VideoError::NotFinite { part, value, place: place() }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
