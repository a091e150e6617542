use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;

use super::super::settings::tests::model;
use super::super::{LatentShape, SamplerKind, Saved, Wanted, load_saved, read_latents};
use super::*;

/// Parts that compute something small, count their runs and can be told to fail.
#[derive(Default)]
struct Toy {
    log: RefCell<Vec<String>>,
    /// The run of a denoiser, from 0, that gives NaN.
    nan_at: Option<usize>,
    /// Frames that the decoder gives too many.
    surplus: usize,
    /// The run of a denoiser, from 0, during which the video is stopped.
    stop_at: Option<usize>,
    follow: Follow,
    forwards: Cell<usize>,
}

impl Toy {
    fn log(&self, what: impl Into<String>) {
        self.log.borrow_mut().push(what.into());
    }

    /// How often each thing happened.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for what in self.log.borrow().iter() {
            *counts.entry(what.clone()).or_default() += 1;
        }
        counts
    }
}

struct ToyText<'a>(&'a Toy);
struct ToyDenoiser<'a>(&'a Toy, usize);
struct ToyDecoder<'a>(&'a Toy, f32);

impl TextEncoder for ToyText<'_> {
    fn encode(&mut self, prompt: &str) -> Result<TextStates, PartError> {
        if prompt == "unreadable" {
            return Err("no such word".into());
        }
        self.0.log(format!("encode {prompt}"));
        Ok(TextStates { rows: 1, values: vec![prompt.len() as f32 / 16.0, 0.5, -0.5] })
    }
}

impl Denoiser for ToyDenoiser<'_> {
    type Context = f32;

    fn prepare(&mut self, states: &TextStates) -> Result<f32, PartError> {
        self.0.log(format!("prepare {}", self.1));
        Ok(states.values.iter().sum())
    }

    fn velocity(
        &mut self,
        latents: &[f32],
        timestep: f32,
        context: &f32,
        velocity: &mut [f32],
    ) -> Result<(), PartError> {
        self.0.log(format!("velocity {}", self.1));
        for (v, x) in velocity.iter_mut().zip(latents) {
            *v = x * (0.5 + timestep / 2000.0) - context * (1.0 + self.1 as f32);
        }
        let forward = self.0.forwards.replace(self.0.forwards.get() + 1);
        if self.0.nan_at == Some(forward) {
            velocity[1] = f32::NAN;
        }
        if self.0.stop_at == Some(forward) {
            self.0.follow.stop();
        }
        Ok(())
    }
}

/// Strides of 2 in time and 8 in space; every frame carries something of the latent frame before.
impl Decoder for ToyDecoder<'_> {
    fn reset(&mut self) {
        self.0.log("reset");
        self.1 = 0.0;
    }

    fn decode(&mut self, latent: &[f32], frames: &mut Vec<f32>) -> Result<(), PartError> {
        self.0.log("decode");
        let first = self.1 == 0.0;
        let carried = self.1;
        self.1 = 1.0 + latent[0].abs();
        for frame in 0..if first { 1 } else { 4 } + self.0.surplus {
            for (row, column) in (0..16).flat_map(|row| (0..32).map(move |column| (row, column))) {
                let element = &latent[(row / 8 * 4 + column / 8) * 2..][..2];
                let base = carried * 0.1 + frame as f32 * 0.05;
                frames.extend([element[0] + base, element[1] - base, element[0] * element[1]]);
            }
        }
        Ok(())
    }
}

impl<'a> Parts for &'a Toy {
    type Text = ToyText<'a>;
    type Denoiser = ToyDenoiser<'a>;
    type Decoder = ToyDecoder<'a>;

    fn text_encoder(&mut self) -> Result<ToyText<'a>, PartError> {
        self.log("load text");
        Ok(ToyText(self))
    }

    fn denoiser(&mut self, which: usize) -> Result<ToyDenoiser<'a>, PartError> {
        self.log(format!("load denoiser {which}"));
        Ok(ToyDenoiser(self, which))
    }

    fn decoder(&mut self) -> Result<ToyDecoder<'a>, PartError> {
        self.log("load decoder");
        Ok(ToyDecoder(self, 0.0))
    }
}

fn wanted() -> Wanted {
    Wanted { size: Some((32, 16)), frames: Some(9), steps: Some(4), seed: 7, ..Wanted::default() }
}

fn resolve(wanted: &Wanted, model: &VideoModel) -> Settings {
    Settings::resolve(wanted, model).unwrap().0
}

fn job<'a>(model: &'a VideoModel, settings: &'a Settings) -> Job<'a> {
    Job { model, settings, prompt: "a cat", start: Start::Noise, cache: None, save: None, save_frames: None }
}

/// What came of a run: the result, the events, and all frames.
struct Outcome {
    made: Result<Made, VideoError>,
    events: Vec<Progress>,
    values: Vec<f32>,
    rgb: Vec<u8>,
}

/// Runs a job; `stop_at` says at which event it is stopped.
fn run(job: Job<'_>, mut toy: &Toy, stop_at: impl Fn(&Progress) -> bool) -> Outcome {
    let follow = &toy.follow;
    let (mut events, mut values, mut rgb) = (Vec::new(), Vec::new(), Vec::new());
    let mut progress = |event: Progress| {
        if stop_at(&event) {
            follow.stop();
        }
        events.push(event);
    };
    let mut frame = |frame: Frame<'_>| {
        values.extend_from_slice(frame.values);
        rgb.extend_from_slice(frame.rgb);
        Ok(())
    };
    let watch = Watch { progress: &mut progress, frame: &mut frame, follow };
    let made = make(job, &mut toy, watch);
    Outcome { made, events, values, rgb }
}

fn digest(job: Job<'_>) -> String {
    run(job, &Toy::default(), |_| false).made.unwrap().frames_digest
}

#[test]
fn a_video_from_beginning_to_end() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let settings = resolve(&wanted(), &model);
    assert_eq!(settings.latents, LatentShape { channels: 2, frames: 3, height: 2, width: 4 });
    let path = folder.path().join("frames.safetensors");
    let toy = Toy::default();
    let outcome = run(Job { save_frames: Some(&path), ..job(&model, &settings) }, &toy, |_| false);
    let made = outcome.made.unwrap();
    let elements = 9 * 3 * 16 * 32;
    assert_eq!((outcome.values.len(), outcome.rgb.len()), (elements, elements));
    let bytes: Vec<u8> = outcome.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(made.frames_digest, blake3::hash(&bytes).to_hex().as_str());
    // The file ends with the very same elements.
    assert!(fs::read(&path).unwrap().ends_with(&bytes));
    assert!(outcome.values.iter().all(|value| (0.0..=1.0).contains(value)));
    assert!(outcome.values.iter().any(|value| *value > 0.0 && *value < 1.0));
    let counts = toy.counts();
    let count = |what: &str| counts.get(what).copied().unwrap_or(0);
    assert_eq!((count("load text"), count("encode a cat"), count("encode blurry")), (1, 1, 1));
    assert_eq!((count("load denoiser 0"), count("prepare 0"), count("velocity 0")), (1, 2, 8));
    assert_eq!(
        (count("load denoiser 1"), count("load decoder"), count("reset"), count("decode")),
        (0, 1, 1, 3)
    );
    let steps = outcome.events.iter().filter(|event| matches!(event, Progress::Step { of: 4, .. })).count();
    let last = outcome.events.last().unwrap();
    assert!(steps == 4 && matches!(last, Progress::Frame { done: 9, of: 9, .. }), "{last:?}");
}

/// What the steps do is what a reader of the samplers expects, in the layout of files as inside.
#[test]
fn the_latents_are_those_of_the_sampler_fed_by_hand() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let settings = resolve(&wanted(), &model);
    let identity = Identity::new("weights", "a cat", &settings, None);
    let path = identity.path(folder.path());
    digest(Job {
        save: Some(Save { path: &path, identity: &identity, every: None }),
        ..job(&model, &settings)
    });

    let mut latents = vec![0.0; settings.latents.elements()];
    fill_noise(7, 0, &mut latents);
    let schedule = settings.schedule(&model).unwrap();
    let mut sampler = Sampler::new(SamplerKind::UniPc, &schedule);
    for &timestep in schedule.timesteps() {
        let at = |length: f32| -> Vec<f32> {
            latents.iter().map(|x| x * (0.5 + timestep / 2000.0) - length / 16.0).collect()
        };
        let mut velocity = at("blurry".len() as f32);
        guide(&mut velocity, &at("a cat".len() as f32), 5.0);
        sampler.step(&velocity, &mut latents);
    }
    assert_eq!(read_latents(&path, &settings.latents).unwrap(), latents);
}

#[test]
fn a_seed_is_a_video_and_given_noise_is_the_same() {
    let model = model();
    let settings = resolve(&wanted(), &model);
    let base = digest(job(&model, &settings));
    assert_eq!(digest(job(&model, &settings)), base);
    let other = Settings { seed: 8, ..settings.clone() };
    assert_ne!(digest(job(&model, &other)), base);
    let mut noise = vec![0.0; settings.latents.elements()];
    fill_noise(7, 0, &mut noise);
    assert_eq!(digest(Job { start: Start::Latents(noise), ..job(&model, &other) }), base);
    assert_ne!(digest(Job { prompt: "a dog house", ..job(&model, &settings) }), base);
}

#[test]
fn without_guidance_one_forward_a_step_and_no_negative_prompt() {
    let model = model();
    let settings = resolve(&Wanted { guidance: Some(1.0), ..wanted() }, &model);
    let toy = Toy::default();
    run(job(&model, &settings), &toy, |_| false).made.unwrap();
    let counts = toy.counts();
    assert_eq!((counts["velocity 0"], counts["prepare 0"]), (4, 1));
    assert!(!counts.contains_key("encode blurry"));
}

#[test]
fn two_denoisers_take_turns() {
    let model = VideoModel { boundary: Some(0.875), ..model() };
    let settings = resolve(&Wanted { guidance: Some(4.0), guidance_low: Some(1.0), ..wanted() }, &model);
    let toy = Toy::default();
    run(job(&model, &settings), &toy, |_| false).made.unwrap();
    let counts = toy.counts();
    // Timesteps 999 and 900, then 750 and 500; the second one has no guidance.
    assert_eq!((counts["velocity 0"], counts["velocity 1"]), (4, 2));
    assert_eq!((counts["prepare 0"], counts["prepare 1"]), (2, 1));
    let log = toy.log.borrow();
    let at = |what: &str| log.iter().position(|entry| entry == what).unwrap();
    assert!(at("velocity 0") < at("load denoiser 1") && at("load denoiser 1") < at("load decoder"));
}

#[test]
fn cached_prompts_need_no_encoder() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let settings = resolve(&wanted(), &model);
    let cache = PromptCache::new(folder.path(), "encoder");
    let cached = || Job { cache: Some(&cache), ..job(&model, &settings) };
    let base = digest(cached());
    let toy = Toy::default();
    let outcome = run(cached(), &toy, |_| false);
    assert_eq!(outcome.made.unwrap().frames_digest, base);
    assert!(!toy.counts().contains_key("load text"));
    assert!(outcome.events.iter().any(|event| matches!(event, Progress::Text { cached: true, .. })));
    // One of two is there.
    let toy = Toy::default();
    run(Job { prompt: "a dog", ..cached() }, &toy, |_| false).made.unwrap();
    assert_eq!(toy.counts().get("encode blurry"), None);
    assert_eq!(toy.counts()["encode a dog"], 1);
    // A cache that cannot be written costs nothing but time.
    let nowhere = PromptCache::new(Path::new("/dev/null/nowhere"), "encoder");
    assert_eq!(digest(Job { cache: Some(&nowhere), ..job(&model, &settings) }), base);
}

#[test]
fn stopped_while_decoding_it_resumes() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let settings = resolve(&wanted(), &model);
    let base = digest(job(&model, &settings));
    let identity = Identity::new("weights", "a cat", &settings, None);
    let path = identity.path(folder.path());
    let frames = folder.path().join("frames.safetensors");
    let saving = |start| Job {
        start,
        save: Some(Save { path: &path, identity: &identity, every: None }),
        save_frames: Some(&frames),
        ..job(&model, &settings)
    };
    let outcome = run(saving(Start::Noise), &Toy::default(), |event| matches!(event, Progress::Frame { .. }));
    assert!(
        matches!(outcome.made, Err(VideoError::Stopped { saved: Some(Kept::Latents) })),
        "{:?}",
        outcome.made
    );
    assert_eq!(outcome.values.len(), 3 * 16 * 32);
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, std::slice::from_ref(&path), "no part of a file is left");

    let Saved::Denoised(latents) = load_saved(&path, &identity, &settings, &model).unwrap() else {
        panic!("they were denoised")
    };
    let toy = Toy::default();
    let outcome = run(saving(Start::Denoised(latents)), &toy, |_| false);
    assert_eq!(outcome.made.unwrap().frames_digest, base);
    assert!(toy.log.borrow().iter().all(|entry| !entry.contains("text") && !entry.contains("denoiser")));
}

/// At every step, with both samplers and with two denoisers: what is done is not done again, and the frames are the same.
#[test]
fn stopped_between_steps_it_goes_on_there() {
    let two = VideoModel { boundary: Some(0.875), ..model() };
    for (model, sampler) in
        [(model(), SamplerKind::UniPc), (model(), SamplerKind::Euler), (two, SamplerKind::UniPc)]
    {
        let settings = resolve(&Wanted { sampler: Some(sampler), ..wanted() }, &model);
        let base = digest(job(&model, &settings));
        let identity = Identity::new("weights", "a cat", &settings, None);
        for steps in 1..4 {
            let folder = tempfile::tempdir().unwrap();
            let path = identity.path(folder.path());
            let save = Save { path: &path, identity: &identity, every: Some(1) };
            let saving = |start| Job { start, save: Some(save), ..job(&model, &settings) };
            let kept = Progress::Saved(Kept::Steps(steps));
            let outcome = run(saving(Start::Noise), &Toy::default(), |event| *event == kept);
            let error = outcome.made.unwrap_err();
            assert!(
                matches!(error, VideoError::Stopped { saved: Some(Kept::Steps(n)) } if n == steps),
                "{error}"
            );
            let Saved::Steps(saved) = load_saved(&path, &identity, &settings, &model).unwrap() else {
                panic!("they are not denoised yet")
            };
            assert_eq!(saved.steps(), steps);
            let toy = Toy::default();
            let outcome = run(saving(Start::Between(saved)), &toy, |_| false);
            assert_eq!(outcome.made.unwrap().frames_digest, base, "{sampler:?} after {steps} steps");
            let first = outcome.events.iter().find(|event| matches!(event, Progress::Step { .. }));
            assert!(matches!(first, Some(Progress::Step { done, of: 4, .. }) if *done == steps + 1));
            assert_eq!(toy.forwards.get(), 2 * (4 - steps));
            assert!(matches!(load_saved(&path, &identity, &settings, &model), Ok(Saved::Denoised(_))));
        }
    }
}

#[test]
fn stopped_between_steps() {
    let model = model();
    let settings = resolve(&wanted(), &model);
    let toy = Toy::default();
    let outcome = run(job(&model, &settings), &toy, |event| matches!(event, Progress::Step { done: 2, .. }));
    assert!(matches!(outcome.made, Err(VideoError::Stopped { saved: None })));
    assert_eq!(toy.counts()["velocity 0"], 4);
    // Within a step, between its two velocities.
    let toy = Toy { stop_at: Some(2), ..Toy::default() };
    run(job(&model, &settings), &toy, |_| false).made.unwrap_err();
    assert_eq!(toy.counts()["velocity 0"], 3);
    // Before a denoiser is loaded.
    let toy = Toy::default();
    let outcome = run(job(&model, &settings), &toy, |event| matches!(event, Progress::Text { .. }));
    assert_eq!(outcome.made.unwrap_err().to_string(), "stopped");
    assert_eq!(toy.counts().get("load denoiser 0"), None);
}

#[test]
fn what_goes_wrong_is_said() {
    let model = model();
    let settings = resolve(&wanted(), &model);
    let told = |job: Job<'_>, toy: Toy| run(job, &toy, |_| false).made.unwrap_err().to_string();
    assert_eq!(
        told(job(&model, &settings), Toy { nan_at: Some(3), ..Toy::default() }),
        "the denoiser gave NaN at step 2: the weights are damaged or overflow"
    );
    assert_eq!(
        told(job(&model, &settings), Toy { surplus: 1, ..Toy::default() }),
        "the decoder gave 3072 elements for latent frame 0, expected 1536"
    );
    let unreadable = Job { prompt: "unreadable", ..job(&model, &settings) };
    assert_eq!(told(unreadable, Toy::default()), "the text encoder: no such word");
    let wide = VideoModel { text_dim: 4, ..model.clone() };
    assert_eq!(
        told(job(&wide, &settings), Toy::default()),
        "the text encoder gave 1 states of 3 elements together, expected 1 to 8 states of 4 elements each"
    );
    let follow = Follow::default();
    let mut frame = |frame: Frame<'_>| if frame.index == 2 { Err("the disk is full".into()) } else { Ok(()) };
    let watch = Watch { progress: &mut |_| (), frame: &mut frame, follow: &follow };
    let error = make(job(&model, &settings), &mut &Toy::default(), watch).unwrap_err();
    assert_eq!(error.to_string(), "frame 2 could not be passed on: the disk is full");
}
