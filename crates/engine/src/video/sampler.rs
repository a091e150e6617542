//! How a velocity moves the latents from one noise level to the next.
//!
//! The denoiser's velocity `v` at latents `x` of level `sigma` says where they are going: the video is
//! `x - sigma * v`. Everything here goes element by element in a fixed order of F32 operations, so that neither layout
//! nor threads change a bit.

use std::str::FromStr;

use super::{Schedule, VideoError};

/// Which sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerKind {
    /// UniPC of order 2 (Zhao and others, "UniPC: a unified predictor-corrector framework", 2023) with the variant
    /// `bh2`, predicting the video: what the models are published with.
    UniPc,
    /// A straight step along the velocity.
    Euler,
}

impl SamplerKind {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            SamplerKind::UniPc => "unipc",
            SamplerKind::Euler => "euler",
        }
    }
}

impl FromStr for SamplerKind {
    type Err = VideoError;

    fn from_str(name: &str) -> Result<SamplerKind, VideoError> {
        let known = [SamplerKind::UniPc, SamplerKind::Euler];
        let found = known.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| VideoError::UnknownSampler(name.chars().take(64).collect()))
    }
}

/// Makes `unconditional` what guidance makes of both: `u + scale * (c - u)`.
pub fn guide(unconditional: &mut [f32], conditional: &[f32], scale: f32) {
    assert_eq!(unconditional.len(), conditional.len(), "two velocities of the same latents");
    for (u, c) in unconditional.iter_mut().zip(conditional) {
        *u += scale * (c - *u);
    }
}

/// A sampler between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    levels: Vec<Level>,
    /// The step that comes next.
    step: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Euler,
    UniPc(History),
}

/// What UniPC keeps of earlier steps, each the size of the latents; empty before the first.
#[derive(Clone, Debug, Default, PartialEq)]
struct History {
    /// Corrected latents of the step before.
    latents: Vec<f32>,
    /// Its video.
    video: Vec<f32>,
    /// The video of the step before that.
    older: Vec<f32>,
    /// The order of the prediction that led here.
    order: usize,
}

/// A noise level in the numbers of the sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Level {
    sigma: f32,
    /// `1 - sigma` in F32: what rounding leaves of the first one is part of the result.
    alpha: f32,
    /// `ln(alpha / sigma)`, infinite at the end.
    lambda: f32,
}

impl Level {
    fn new(sigma: f32) -> Level {
        let alpha = 1.0 - sigma;
        Level { sigma, alpha, lambda: ln(alpha) - ln(sigma) }
    }
}

/// The F32 nearest to a logarithm, the same on every machine.
fn ln(x: f32) -> f32 {
    libm::log(f64::from(x)) as f32
}

/// The F32 nearest to `e^x - 1`.
fn exp_m1(x: f32) -> f32 {
    libm::expm1(f64::from(x)) as f32
}

impl Sampler {
    /// A sampler before its first step.
    pub fn new(kind: SamplerKind, schedule: &Schedule) -> Sampler {
        let mut sigmas = schedule.sigmas().to_vec();
        let kind = match kind {
            SamplerKind::Euler => Kind::Euler,
            SamplerKind::UniPc => {
                // At 1 there is no logarithm; diffusers' own remedy, for schedules that begin there.
                if sigmas[0] >= 1.0 {
                    sigmas[0] = 1.0 - 1e-6;
                }
                Kind::UniPc(History::default())
            }
        };
        Sampler { levels: sigmas.into_iter().map(Level::new).collect(), step: 0, kind }
    }

    /// Steps that are done.
    pub fn done(&self) -> usize {
        self.step
    }

    /// Steps that are left.
    pub fn left(&self) -> usize {
        self.levels.len() - 1 - self.step
    }

    /// What the steps to come need of those before: an order, and values as many as the latents' each.
    pub(super) fn memory(&self) -> (usize, [&[f32]; 3]) {
        match &self.kind {
            Kind::Euler => (0, [&[]; 3]),
            Kind::UniPc(History { latents, video, older, order }) => (*order, [latents, video, older]),
        }
    }

    /// Goes on where so many steps are `done`, with what [`Sampler::memory`] gave then. `None` if that cannot be.
    pub(super) fn resume(mut self, done: usize, order: usize, memory: [Vec<f32>; 3]) -> Option<Sampler> {
        self.step = done;
        let [latents, video, older] = memory;
        let there = [&latents, &video, &older].map(|values| !values.is_empty());
        let fits = match &mut self.kind {
            Kind::Euler => there == [false; 3],
            Kind::UniPc(history) => {
                let fits =
                    there == [done > 0, done > 0, done > 1] && (order == 1 || (order == 2 && done > 1));
                *history = History { latents, video, older, order };
                fits
            }
        };
        (fits && done > 0 && done < self.levels.len() - 1).then_some(self)
    }

    /// Moves `latents` to the next noise level along `velocity`, the denoiser's answer at these latents.
    ///
    /// Panics when no step is left or the lengths differ from those of earlier steps.
    pub fn step(&mut self, velocity: &[f32], latents: &mut [f32]) {
        assert!(self.left() > 0, "no step is left");
        assert_eq!(velocity.len(), latents.len(), "a velocity for each latent element");
        match &mut self.kind {
            Kind::Euler => {
                let length = self.levels[self.step + 1].sigma - self.levels[self.step].sigma;
                for (x, v) in latents.iter_mut().zip(velocity) {
                    *x += length * v;
                }
            }
            Kind::UniPc(history) => {
                let sigma = self.levels[self.step].sigma;
                let video: Vec<f32> = latents.iter().zip(velocity).map(|(x, v)| x - sigma * v).collect();
                if self.step > 0 {
                    history.correct(&self.levels, self.step, &video, latents);
                }
                history.advance(video, latents);
                history.order = (self.levels.len() - 1 - self.step).min(self.step + 1).min(2);
                history.predict(&self.levels, self.step, latents);
            }
        }
        self.step += 1;
    }
}

impl History {
    /// The latents of this step again, from those before and from what is known now, the `video` seen from here.
    fn correct(&self, levels: &[Level], step: usize, video: &[f32], latents: &mut [f32]) {
        let (before, here) = (levels[step - 1], levels[step]);
        let h = here.lambda - before.lambda;
        let b = exp_m1(-h);
        let (keep, add) = (here.sigma / before.sigma, here.alpha * b);
        assert_eq!(self.latents.len(), latents.len(), "the latents of the step before");
        let old = self.latents.iter().zip(&self.video);
        if self.order == 1 {
            for ((x, now), (x0, m0)) in latents.iter_mut().zip(video).zip(old) {
                *x = keep * x0 - add * (m0 + 0.5 * (now - m0));
            }
            return;
        }
        let ratio = (levels[step - 2].lambda - before.lambda) / h;
        let p = b / -h - 1.0;
        let (b1, b2) = (p / b, (p / -h - 0.5) * 2.0 / b);
        let c1 = (b1 - b2) / (1.0 - ratio);
        let c2 = b1 - c1;
        for (((x, now), (x0, m0)), older) in latents.iter_mut().zip(video).zip(old).zip(&self.older) {
            *x = keep * x0 - add * (m0 + c1 * (older - m0) / ratio + c2 * (now - m0));
        }
    }

    /// Remembers this step's corrected latents and its video.
    fn advance(&mut self, video: Vec<f32>, latents: &[f32]) {
        self.older = std::mem::replace(&mut self.video, video);
        self.latents.clear();
        self.latents.extend_from_slice(latents);
    }

    /// The latents of the next level.
    fn predict(&self, levels: &[Level], step: usize, latents: &mut [f32]) {
        let (here, next) = (levels[step], levels[step + 1]);
        let h = next.lambda - here.lambda;
        let b = exp_m1(-h);
        let (keep, add) = (next.sigma / here.sigma, next.alpha * b);
        if self.order == 1 {
            for (x, m) in latents.iter_mut().zip(&self.video) {
                *x = keep * *x - add * m;
            }
            return;
        }
        let ratio = (levels[step - 1].lambda - here.lambda) / h;
        for ((x, m), older) in latents.iter_mut().zip(&self.video).zip(&self.older) {
            *x = keep * *x - add * (m + 0.5 * (older - m) / ratio);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Rounding, Spacing};
    use super::*;

    fn schedule(steps: usize) -> Schedule {
        Schedule::new(steps, 3.0, Spacing::Training, Rounding::Floor, 1000.0).unwrap()
    }

    /// Follows the exact velocity field of one video: every sampler must arrive at it.
    fn follow(kind: SamplerKind, steps: usize, video: &[f32], noise: &[f32]) -> Vec<f32> {
        let schedule = schedule(steps);
        let mut sampler = Sampler::new(kind, &schedule);
        let mut x = noise.to_vec();
        for &sigma in &schedule.sigmas()[..steps] {
            let velocity: Vec<f32> = x.iter().zip(video).map(|(x, video)| (x - video) / sigma).collect();
            sampler.step(&velocity, &mut x);
        }
        assert_eq!(sampler.left(), 0);
        x
    }

    #[test]
    fn the_video_is_reached() {
        let (video, noise) = ([0.5, -2.0, 1.25], [1.0, 0.3, -0.7]);
        for kind in [SamplerKind::Euler, SamplerKind::UniPc] {
            for steps in [1, 2, 3, 4, 7, 50] {
                let reached = follow(kind, steps, &video, &noise);
                for (found, wanted) in reached.iter().zip(video) {
                    assert!((found - wanted).abs() < 1e-5, "{kind:?} {steps}: {found} {wanted}");
                }
            }
        }
    }

    /// Where the denoiser's answer depends on the level, UniPC of order 2 is nearer to the truth than Euler.
    #[test]
    fn order_two_pays() {
        // dx/dsigma = x: x(0) = x(s) e^-s.
        let error = |kind, steps| {
            let schedule = schedule(steps);
            let mut sampler = Sampler::new(kind, &schedule);
            let mut x = vec![1.0f32];
            for _ in 0..steps {
                let velocity = x.clone();
                sampler.step(&velocity, &mut x);
            }
            (f64::from(x[0]) - (-f64::from(schedule.sigmas()[0])).exp()).abs()
        };
        assert!(error(SamplerKind::UniPc, 20) < 0.2 * error(SamplerKind::Euler, 20));
        assert!(error(SamplerKind::UniPc, 40) < 0.5 * error(SamplerKind::UniPc, 20));
    }

    /// Against an independent statement in Python, computed in F64 from the same levels.
    #[test]
    fn many_steps() {
        let cases = [
            (50, 5.0, [0.775_407_1, -0.134_076_1, 1.381_729_2]),
            (20, 12.0, [0.718_461_5, -0.171_729_9, 1.311_922_4]),
            (40, 3.0, [0.815_331_5, -0.094_459, 1.421_858_5]),
        ];
        for (steps, shift, expected) in cases {
            let schedule = Schedule::new(steps, shift, Spacing::Training, Rounding::Floor, 1000.0).unwrap();
            let mut sampler = Sampler::new(SamplerKind::UniPc, &schedule);
            let mut x = [1.0f32, -0.5, 2.0];
            for step in 0..steps {
                let velocity = x.map(|x| 0.5 * x - 0.25 * (step % 3) as f32);
                sampler.step(&velocity, &mut x);
            }
            for (found, expected) in x.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{steps} steps: {found} {expected}");
            }
        }
    }

    #[test]
    fn a_schedule_from_one_works_with_both() {
        let schedule = Schedule::new(4, 5.0, Spacing::Whole, Rounding::Exact, 1000.0).unwrap();
        for kind in [SamplerKind::Euler, SamplerKind::UniPc] {
            let mut sampler = Sampler::new(kind, &schedule);
            let mut x = vec![0.25f32; 3];
            for _ in 0..4 {
                sampler.step(&[0.5, -0.5, 0.0], &mut x);
            }
            assert!(x.iter().all(|x| x.is_finite()), "{kind:?} {x:?}");
        }
    }

    #[test]
    fn guidance() {
        let mut u = [1.0, -2.0];
        guide(&mut u, &[2.0, 0.0], 5.0);
        assert_eq!(u, [6.0, 8.0]);
        guide(&mut u, &[3.0, 1.0], 1.0);
        assert_eq!(u, [3.0, 1.0]);
    }

    #[test]
    fn names() {
        assert_eq!("euler".parse::<SamplerKind>().unwrap(), SamplerKind::Euler);
        assert_eq!(SamplerKind::UniPc.name().parse::<SamplerKind>().unwrap(), SamplerKind::UniPc);
        let error = "ddim".parse::<SamplerKind>().unwrap_err();
        assert_eq!(error.to_string(), "sampler `ddim` is unknown: choose unipc or euler");
    }
}
