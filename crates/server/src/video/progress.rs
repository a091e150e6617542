//! How far a job is, and how long it will still take.
//!
//! Stages weigh what the plan says they take. Within a stage, steps and frames are counted, and within those the share of
//! the network's run that is done. Time left is what the plan says of the rest, times how much longer than planned it has
//! taken so far.

use wushi_engine::video::{Part, Plan, Progress, Rates, Settings, VideoModel};

/// The parts of a job, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Text,
    Denoising,
    Decoding,
}

const PHASES: [Phase; 3] = [Phase::Text, Phase::Denoising, Phase::Decoding];

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Text => "text",
            Phase::Denoising => "denoising",
            Phase::Decoding => "decoding",
        }
    }
}

/// What each phase weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weights {
    phases: [f64; 3],
    /// Whether weights are seconds.
    timed: bool,
}

impl Weights {
    pub(super) fn new(plan: &Plan, rates: Option<&Rates>) -> Weights {
        let mut phases = [0.0; 3];
        for stage in &plan.stages {
            let phase = match stage.name {
                "reading the prompt" => Phase::Text,
                "decoding" => Phase::Decoding,
                _ => Phase::Denoising,
            };
            phases[phase as usize] += rates.map_or(stage.macs() as f64, |rates| stage.seconds(rates));
        }
        // Nothing is done in no time.
        let least = phases.iter().sum::<f64>().max(1e-9) * 1e-3;
        Weights { phases: phases.map(|weight| weight.max(least)), timed: rates.is_some() }
    }

    /// Seconds of the whole job, if weights are any.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.timed.then(|| self.phases.iter().sum())
    }

    /// Seconds of all steps, if weights are any.
    pub(super) fn denoising(&self) -> Option<f64> {
        self.timed.then_some(self.phases[Phase::Denoising as usize])
    }

    fn total(&self) -> f64 {
        self.phases.iter().sum()
    }
}

/// Follows a job.
#[derive(Debug)]
pub(super) struct Meter {
    weights: Weights,
    /// How much longer than planned jobs have taken before this one.
    pace: f64,
    steps: usize,
    frames: usize,
    /// Runs of the denoiser in a step.
    forwards: usize,
    /// Frames that come together, but for the first.
    together: usize,
    phase: Phase,
    /// Steps and frames that are done.
    done: [usize; 3],
    /// Seconds and the weight of what they were spent on, by phase.
    spent: [(f64, f64); 3],
    /// The share of the network's run when something was done last: until it changes, the next has not begun.
    stale: f32,
    last: f32,
    runs: usize,
    best: f64,
}

impl Meter {
    pub(super) fn new(weights: Weights, pace: f64, settings: &Settings, model: &VideoModel) -> Meter {
        let forwards = settings.forwards(model).map_or(0, |forwards| forwards.iter().sum());
        Meter {
            weights,
            pace,
            steps: settings.steps,
            frames: settings.frames,
            forwards: if forwards > settings.steps { 2 } else { 1 },
            together: model.temporal_stride,
            phase: Phase::Text,
            done: [0; 3],
            spent: [(0.0, 0.0); 3],
            stale: 0.0,
            last: 0.0,
            runs: 0,
            best: 0.0,
        }
    }

    /// So many steps were done before; all of them if `None`.
    pub(super) fn resume(&mut self, steps: Option<usize>) {
        match steps {
            // The prompt is read again, or found: a moment either way.
            Some(steps) => self.done[Phase::Denoising as usize] = steps,
            None => {
                self.done[Phase::Denoising as usize] = self.steps;
                self.phase = Phase::Decoding;
            }
        }
    }

    /// Takes news of the run, whose network's share is `share` now.
    pub(super) fn tell(&mut self, progress: &Progress, share: f32) {
        match progress {
            Progress::Loading(Part::TextEncoder) => self.phase = Phase::Text,
            Progress::Loading(Part::Denoiser(_)) => self.phase = Phase::Denoising,
            Progress::Loading(Part::Decoder) => self.phase = Phase::Decoding,
            Progress::Text { cached, seconds } => {
                if !cached {
                    self.spend(Phase::Text, *seconds, self.weights.phases[0]);
                }
                self.done[0] = 1;
                self.phase = Phase::Denoising;
            }
            Progress::Step { done, of, seconds } => {
                self.done[1] = *done;
                self.spend(Phase::Denoising, *seconds, self.weights.phases[1] / (*of).max(1) as f64);
            }
            Progress::Frame { done, of, seconds } => {
                self.done[2] = *done;
                self.spend(Phase::Decoding, *seconds, self.weights.phases[2] / (*of).max(1) as f64);
            }
            Progress::Saved(_) => return,
        }
        (self.stale, self.last, self.runs) = (share, share, 0);
    }

    fn spend(&mut self, phase: Phase, seconds: f64, weight: f64) {
        let (spent, weighed) = &mut self.spent[phase as usize];
        (*spent, *weighed) = (*spent + seconds, *weighed + weight);
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn steps_done(&self) -> usize {
        self.done[Phase::Denoising as usize]
    }

    pub(super) fn frames_done(&self) -> usize {
        self.done[Phase::Decoding as usize]
    }

    /// Which share of a phase is done by what is counted, and `within` of what comes next.
    fn share_of(&self, phase: Phase, within: f64) -> f64 {
        let (done, of, next) = match phase {
            Phase::Text => (self.done[0], 1, 1),
            Phase::Denoising => (self.done[1], self.steps, 1),
            Phase::Decoding => (self.done[2], self.frames, if self.done[2] == 0 { 1 } else { self.together }),
        };
        ((done as f64 + within * next as f64) / of.max(1) as f64).min(1.0)
    }

    /// Progress in percent by what is done and will not be lost when the process ends: never more than [`Self::percent`].
    pub(super) fn kept(&self) -> f64 {
        let phases = PHASES.iter().map(|&phase| match phase {
            Phase::Text if self.steps_done() > 0 => self.weights.phases[0],
            Phase::Denoising => self.weights.phases[1] * self.share_of(phase, 0.0),
            _ => 0.0,
        });
        100.0 * phases.sum::<f64>() / self.weights.total()
    }

    /// Progress in percent, given the share of the network's run that is done now. Never less than before.
    pub(super) fn percent(&mut self, share: f32) -> f64 {
        let within = self.within(share);
        let weights = self.weights.phases;
        let done: f64 = PHASES
            .iter()
            .map(|&phase| match phase.cmp(&self.phase) {
                std::cmp::Ordering::Less => weights[phase as usize],
                std::cmp::Ordering::Equal => weights[phase as usize] * self.share_of(phase, within),
                // Denoised in an earlier run, while the prompt is read again.
                std::cmp::Ordering::Greater => weights[phase as usize] * self.share_of(phase, 0.0),
            })
            .sum();
        // What is not finished is not at its end.
        self.best = self.best.max((100.0 * done / self.weights.total()).min(99.9));
        self.best
    }

    /// Which share of the next step or frame is done.
    fn within(&mut self, share: f32) -> f64 {
        if share == self.stale {
            return 0.0;
        }
        self.stale = -1.0;
        let runs = if self.phase == Phase::Decoding { 1 } else { self.forwards };
        // A run that is less far than it was is the next.
        if share < self.last {
            self.runs = (self.runs + 1).min(runs - 1);
        }
        self.last = share;
        (self.runs as f64 + f64::from(share.clamp(0.0, 1.0))) / runs as f64
    }

    /// Seconds until the job is done; `None` where neither plan nor work say.
    pub(super) fn seconds_left(&mut self, share: f32) -> Option<f64> {
        let (spent, weighed) =
            self.spent.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        let pace = match (weighed > 0.0, self.weights.timed) {
            (true, _) => spent / weighed,
            (false, true) => self.pace,
            (false, false) => return None,
        };
        let within = self.within(share);
        let left = PHASES.iter().filter(|&&phase| phase >= self.phase).map(|&phase| {
            let (spent, weighed) = self.spent[phase as usize];
            let pace = if weighed > 0.0 { spent / weighed } else { pace };
            let within = if phase == self.phase { within } else { 0.0 };
            pace * self.weights.phases[phase as usize] * (1.0 - self.share_of(phase, within))
        });
        Some(left.fold(0.0, |sum, seconds| sum + seconds))
    }
}

#[cfg(test)]
mod tests {
    use wushi_engine::video::{Kept, Stage, Work};

    use super::*;

    fn meter(pace: f64) -> Meter {
        let stage = |name, linear, runs| Stage {
            name,
            memory: Default::default(),
            work: vec![(Work { linear, ..Work::default() }, runs)],
        };
        let stages =
            vec![stage("reading the prompt", 10, 1), stage("denoising", 5, 16), stage("decoding", 10, 1)];
        let rates = Rates { linear: 1.0, attention: 1.0, convolution: 1.0, bandwidth: 1.0 };
        let weights = Weights::new(&Plan { stages }, Some(&rates));
        assert_eq!(weights.seconds(), Some(100.0));
        Meter {
            weights,
            pace,
            steps: 8,
            frames: 5,
            forwards: 2,
            together: 4,
            phase: Phase::Text,
            done: [0; 3],
            spent: [(0.0, 0.0); 3],
            stale: 0.0,
            last: 0.0,
            runs: 0,
            best: 0.0,
        }
    }

    #[test]
    fn progress_never_goes_back_and_ends_with_the_job() {
        let mut meter = meter(1.0);
        let mut seen = vec![meter.percent(0.0)];
        assert_eq!(meter.seconds_left(0.0), Some(100.0));
        meter.tell(&Progress::Loading(Part::TextEncoder), 0.0);
        seen.push(meter.percent(0.5));
        meter.tell(&Progress::Text { cached: false, seconds: 20.0 }, 1.0);
        assert_eq!(meter.percent(1.0), 10.0);
        // The prompt took twice as long as planned, so will the rest.
        assert_eq!(meter.seconds_left(1.0), Some(180.0));
        meter.tell(&Progress::Loading(Part::Denoiser(0)), 1.0);
        for done in 1..=8 {
            for share in [1.0, 0.1, 0.9, 0.2, 1.0] {
                seen.push(meter.percent(share));
            }
            meter.tell(&Progress::Step { done, of: 8, seconds: 10.0 }, 1.0);
            assert_eq!(meter.percent(1.0), 10.0 + 10.0 * done as f64);
            meter.tell(&Progress::Saved(Kept::Steps(done)), 1.0);
            assert_eq!(meter.kept(), 10.0 + 10.0 * done as f64);
        }
        assert_eq!((meter.steps_done(), meter.phase()), (8, Phase::Denoising));
        meter.tell(&Progress::Loading(Part::Decoder), 1.0);
        seen.push(meter.percent(0.5));
        for done in 1..=5 {
            meter.tell(&Progress::Frame { done, of: 5, seconds: 2.0 }, 1.0);
            // All of them but the first come together.
            seen.push(meter.percent(1.0));
        }
        assert!((meter.percent(1.0) - 99.9).abs() < 1e-9);
        assert_eq!(meter.seconds_left(1.0), Some(0.0));
        assert!(seen.is_sorted(), "{seen:?}");
    }

    #[test]
    fn a_resumed_job_begins_where_it_was() {
        let mut meter = meter(2.0);
        meter.resume(Some(4));
        assert_eq!(meter.percent(0.0), 40.0);
        // The prompt has to be read again, perhaps.
        assert_eq!(meter.seconds_left(0.0), Some(2.0 * (10.0 + 40.0 + 10.0)));
        meter.tell(&Progress::Text { cached: true, seconds: 0.0 }, 0.0);
        assert_eq!((meter.percent(0.0), meter.seconds_left(0.0)), (50.0, Some(100.0)));
        let mut meter = self::meter(1.0);
        meter.resume(None);
        assert_eq!((meter.percent(0.0), meter.seconds_left(0.0)), (90.0, Some(10.0)));
    }

    #[test]
    fn without_a_measured_machine_time_is_told_after_some_work() {
        let mut meter = meter(1.0);
        meter.weights.timed = false;
        assert_eq!(meter.seconds_left(0.0), None);
        meter.tell(&Progress::Text { cached: false, seconds: 1.0 }, 0.0);
        assert_eq!(meter.seconds_left(0.0), Some(9.0));
    }
}
