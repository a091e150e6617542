//! Memory and time of a video before it is made.
//!
//! Parts are loaded, used and dropped in turn, so the run needs as much memory as its greediest stage. What a stage
//! takes is told by whoever builds its graph; here it is added up, held against what there is, and where that is too
//! little, sizes are looked for that fit.

use std::fmt;

use super::{SamplerKind, Settings, VideoError, VideoModel, Wanted};

/// What one run of a graph does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Multiply-adds of linear layers.
    pub linear: u64,
    /// Multiply-adds of attention.
    pub attention: u64,
    /// Multiply-adds of convolutions.
    pub convolution: u64,
    /// Bytes read from memory: weights, and what does not stay in caches.
    pub bytes: u64,
}

/// What a machine does in a second, as measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Multiply-adds of linear layers.
    pub linear: f64,
    /// Multiply-adds of attention.
    pub attention: f64,
    /// Multiply-adds of convolutions.
    pub convolution: f64,
    /// Bytes read from memory.
    pub bandwidth: f64,
}

impl Work {
    /// All multiply-adds.
    pub fn macs(&self) -> u64 {
        self.linear.saturating_add(self.attention).saturating_add(self.convolution)
    }

    /// How long it takes: computing or reading, whichever takes longer.
    pub fn seconds(&self, rates: &Rates) -> f64 {
        let computing = [
            (self.linear, rates.linear),
            (self.attention, rates.attention),
            (self.convolution, rates.convolution),
        ];
        let time = |amount: u64, rate: f64| if amount == 0 { 0.0 } else { amount as f64 / rate };
        let computing: f64 = computing.iter().map(|&(amount, rate)| time(amount, rate)).sum();
        computing.max(time(self.bytes, rates.bandwidth))
    }
}

/// Bytes that a stage takes while it lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights as they lie in memory.
    pub weights: u64,
    /// Buffers of its graphs.
    pub arena: u64,
    /// Frames that causal convolutions carry from one latent frame to the next.
    pub carried: u64,
    /// What lies beside: latents, what the sampler remembers, states of the text or keys and values made of them.
    pub kept: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        [self.weights, self.arena, self.carried, self.kept]
            .iter()
            .fold(0, |sum, &part| sum.saturating_add(part))
    }
}

/// One part's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What it does, e.g. `denoising`.
    pub name: &'static str,
    /// What it takes.
    pub memory: Memory,
    /// What its graphs do, and how often each of them runs.
    pub work: Vec<(Work, u64)>,
}

impl Stage {
    /// Multiply-adds of all runs.
    pub fn macs(&self) -> u64 {
        self.work.iter().fold(0, |sum, (work, runs)| sum.saturating_add(work.macs().saturating_mul(*runs)))
    }

    /// How long all runs take, loading aside.
    pub fn seconds(&self, rates: &Rates) -> f64 {
        self.work.iter().map(|(work, runs)| work.seconds(rates) * *runs as f64).sum()
    }
}

/// The memory there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes.
    pub bytes: u64,
    /// Whether that is the caller's limit rather than the machine's.
    pub budget: bool,
}

/// A smaller video that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Frames.
    pub frames: usize,
    /// Bytes its greediest stage takes.
    pub peak: u64,
}

/// What may be done where memory does not suffice.
pub(super) struct Advice<'a>(pub(super) &'a [Fit]);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fit) in self.0.iter().enumerate() {
            let before = if index == 0 { "" } else { " or " };
            write!(f, "{before}{}x{} with {} frames", fit.width, fit.height, fit.frames)?;
        }
        match self.0 {
            [] => f.write_str("free some, or take a smaller model or one with smaller weights"),
            _ => f.write_str(" would fit"),
        }
    }
}

/// Memory and operations of a whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of their turns.
    pub stages: Vec<Stage>,
}

impl Plan {
    /// The plan of a run with these settings, or why it cannot be.
    ///
    /// `stages` says what a run takes, for these settings and for the smaller ones that are tried when memory does not
    /// suffice; more pixels or frames must never take less. Without a `limit` everything fits.
    pub fn new(
        settings: &Settings,
        model: &VideoModel,
        limit: Option<Limit>,
        mut stages: impl FnMut(&Settings) -> Result<Vec<Stage>, VideoError>,
    ) -> Result<Plan, VideoError> {
        let plan = Plan { stages: stages(settings)? };
        let Some(limit) = limit.filter(|limit| limit.bytes < plan.peak()) else { return Ok(plan) };
        let mut search = Search { settings, model, limit, stages: &mut stages };
        let fits = search.run()?;
        let greediest = plan.stages.iter().max_by_key(|stage| stage.memory.total());
        let (stage, memory) = greediest.map_or(("nothing", Memory::default()), |s| (s.name, s.memory));
        let Settings { width, height, frames, .. } = *settings;
        Err(VideoError::TooLittleMemory { width, height, frames, stage, memory, limit, fits })
    }

    /// Bytes of the greediest stage.
    pub fn peak(&self) -> u64 {
        self.stages.iter().map(|stage| stage.memory.total()).max().unwrap_or(0)
    }

    /// Multiply-adds of the whole run.
    pub fn macs(&self) -> u64 {
        self.stages.iter().fold(0, |sum, stage| sum.saturating_add(stage.macs()))
    }

    /// How long the run takes, loading aside.
    pub fn seconds(&self, rates: &Rates) -> f64 {
        self.stages.iter().map(|stage| stage.seconds(rates)).sum()
    }
}

/// Looks for what fits: fewer frames, a smaller size, and if neither suffices both.
struct Search<'a, F> {
    settings: &'a Settings,
    model: &'a VideoModel,
    limit: Limit,
    stages: &'a mut F,
}

impl<F: FnMut(&Settings) -> Result<Vec<Stage>, VideoError>> Search<'_, F> {
    fn run(&mut self) -> Result<Vec<Fit>, VideoError> {
        let Settings { width, height, frames, .. } = *self.settings;
        let stride = self.model.temporal_stride;
        let shorter =
            self.largest((frames - 1) / stride, |groups| (width, height, (groups - 1) * stride + 1))?;
        let sizes = height / (self.model.spatial_stride * self.model.patch[1]) - 1;
        let smaller = self.largest(sizes, |rows| self::size(self.settings, self.model, rows, frames))?;
        let mut fits: Vec<Fit> = [shorter, smaller].into_iter().flatten().collect();
        if fits.is_empty() {
            fits.extend(self.largest(sizes, |rows| self::size(self.settings, self.model, rows, 1))?);
        }
        Ok(fits)
    }

    /// The candidate of the largest number from 1 to `most` that fits.
    fn largest(
        &mut self,
        most: usize,
        candidate: impl Fn(usize) -> (usize, usize, usize),
    ) -> Result<Option<Fit>, VideoError> {
        let (mut low, mut high) = (1, most);
        let mut found = None;
        while low <= high {
            let middle = low + (high - low) / 2;
            let (width, height, frames) = candidate(middle);
            let peak = self.peak(width, height, frames)?;
            if peak <= self.limit.bytes {
                found = Some(Fit { width, height, frames, peak });
                low = middle + 1;
            } else {
                high = middle - 1;
            }
        }
        Ok(found)
    }

    fn peak(&mut self, width: usize, height: usize, frames: usize) -> Result<u64, VideoError> {
        let wanted = Wanted { size: Some((width, height)), frames: Some(frames), ..Wanted::default() };
        let (sized, _) = Settings::resolve(&wanted, self.model)?;
        let tried = Settings { width, height, frames, latents: sized.latents, ..self.settings.clone() };
        Ok(Plan { stages: (self.stages)(&tried)? }.peak())
    }
}

/// A size of `rows` tokens in height, as near as possible to the form of the one wanted.
fn size(settings: &Settings, model: &VideoModel, rows: usize, frames: usize) -> (usize, usize, usize) {
    let [_, patch_height, patch_width] = model.patch.map(|extent| extent * model.spatial_stride);
    let height = rows * patch_height;
    let columns =
        (height * settings.width + settings.height * patch_width / 2) / (settings.height * patch_width);
    (columns.max(1) * patch_width, height, frames)
}

/// Bytes of latents and what the sampler keeps of them while denoising.
pub fn kept_bytes(settings: &Settings) -> u64 {
    // The latents, two velocities, and where it remembers steps: the latents before, two videos and the one at hand.
    let copies = match settings.sampler {
        SamplerKind::Euler => 3,
        SamplerKind::UniPc => 7,
    };
    copies * 4 * settings.latents.elements() as u64
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::model;
    use super::*;

    const RATES: Rates = Rates { linear: 100e9, attention: 50e9, convolution: 25e9, bandwidth: 10e9 };

    /// Weights of one gigabyte and a kilobyte for each token.
    fn stages(settings: &Settings) -> Result<Vec<Stage>, VideoError> {
        let tokens = settings.tokens(&model()) as u64;
        let text = Memory { weights: 2_000_000_000, arena: 1_000_000, ..Memory::default() };
        let denoise = Memory {
            weights: 1_000_000_000,
            arena: tokens * 1_000_000,
            kept: kept_bytes(settings),
            carried: 0,
        };
        let forward =
            Work { linear: tokens * 1_000_000, attention: tokens * tokens * 1000, ..Work::default() };
        Ok(vec![
            Stage { name: "encoding the text", memory: text, work: vec![(Work::default(), 2)] },
            Stage { name: "denoising", memory: denoise, work: vec![(forward, 2 * settings.steps as u64)] },
        ])
    }

    fn settings(size: (usize, usize), frames: usize) -> Settings {
        let wanted = Wanted { size: Some(size), frames: Some(frames), ..Wanted::default() };
        Settings::resolve(&wanted, &model()).unwrap().0
    }

    fn refusal(size: (usize, usize), frames: usize, bytes: u64) -> VideoError {
        let limit = Some(Limit { bytes, budget: false });
        Plan::new(&settings(size, frames), &model(), limit, stages).unwrap_err()
    }

    #[test]
    fn stages_take_turns() {
        let settings = settings((256, 256), 17);
        let plan = Plan::new(&settings, &model(), None, stages).unwrap();
        let tokens = 1280;
        assert_eq!(settings.tokens(&model()), tokens as usize);
        let kept = 7 * 4 * 2 * 5 * 32 * 32;
        assert_eq!(plan.peak(), 1_000_000_000 + tokens * 1_000_000 + kept);
        assert_eq!(plan.macs(), 100 * (tokens * 1_000_000 + tokens * tokens * 1000));
        let seconds = 100.0 * (1.28e9 / 100e9 + 1280.0 * 1280.0 * 1e3 / 50e9);
        assert!((plan.seconds(&RATES) - seconds).abs() < 1e-9, "{}", plan.seconds(&RATES));
        // What fits to the byte, fits.
        let exactly = Some(Limit { bytes: plan.peak(), budget: true });
        assert_eq!(Plan::new(&settings, &model(), exactly, stages).unwrap(), plan);
    }

    #[test]
    fn reading_may_take_longer_than_computing() {
        let work = Work { linear: 1_000_000_000, bytes: 1_000_000_000, ..Work::default() };
        assert!((work.seconds(&RATES) - 0.1).abs() < 1e-12);
        assert_eq!(Work::default().seconds(&Rates { linear: 0.0, ..RATES }), 0.0);
    }

    #[test]
    fn a_refusal_says_what_fits() {
        let error = refusal((832, 480), 81, 9_000_000_000);
        let VideoError::TooLittleMemory { fits, stage, .. } = &error else { panic!("{error}") };
        assert_eq!(*stage, "denoising");
        for fit in fits {
            assert!(fit.peak <= 9_000_000_000);
            let fitting = settings((fit.width, fit.height), fit.frames);
            assert_eq!((fitting.width, fitting.height, fitting.frames), (fit.width, fit.height, fit.frames));
        }
        // One more of either would not.
        assert_eq!((fits[0].width, fits[0].height, fits[0].frames), (832, 480, 17));
        assert!(fits[1].frames == 81 && fits[1].height == 224 && fits[1].width == 384, "{fits:?}");
        let text = error.to_string();
        assert!(
            text.starts_with("not enough memory: 832x480 with 81 frames needs 33.77 GB for denoising"),
            "{text}"
        );
        assert!(text.ends_with(
            "but 9.00 GB are available; 832x480 with 17 frames or 384x224 with 81 frames would fit"
        ));
    }

    #[test]
    fn where_one_does_not_suffice_both_shrink_or_nothing_is_offered() {
        let VideoError::TooLittleMemory { fits, .. } = refusal((832, 480), 81, 2_002_000_000) else {
            panic!()
        };
        // Not even one frame of that size.
        assert!(fits.len() == 1 && fits[0].frames == 81 && fits[0].height < 480, "{fits:?}");
        let narrow = |bytes| match refusal((4096, 4096), 2001, bytes) {
            VideoError::TooLittleMemory { fits, .. } => fits,
            other => panic!("{other}"),
        };
        // Text alone takes two gigabytes.
        assert_eq!(narrow(1_999_000_000), []);
        // Five thousand latent frames do not fit in the least size, so both must shrink.
        let both = match refusal((4096, 4096), 20_001, 2_001_000_000) {
            VideoError::TooLittleMemory { fits, .. } => fits,
            other => panic!("{other}"),
        };
        assert!(both.len() == 1 && both[0].frames == 1 && both[0].peak <= 2_001_000_000, "{both:?}");
        let error = refusal((832, 480), 81, 5_000_000).to_string();
        assert!(error.ends_with("free some, or take a smaller model or one with smaller weights"), "{error}");
    }
}
