//! Noise levels of the steps.
//!
//! A latent at noise level `sigma` is `(1 - sigma) * video + sigma * noise`. The levels fall evenly from 1, are shifted
//! towards noise, and end with 0. As diffusers 0.42 computes them (`UniPCMultistepScheduler` with flow sigmas): in F64,
//! rounded to F32 at the end, so that samplers see the same numbers.

use super::VideoError;

/// More steps than any sampler needs.
pub const MAX_STEPS: usize = 1000;

/// The lowest level of training: one of its 1000 timesteps.
const LOWEST: f64 = 1.0 / 1000.0;
/// The first level is kept this far from 1, where `ln(1 - sigma)` has no value.
const BELOW_ONE: f64 = 1e-6;

/// How the levels lie between 1 and 0 before they are shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// `N + 1` even levels from 1 to 0.001, without the last; the first 1e-6 below 1. What the models are sampled with.
    Training,
    /// `N + 1` even levels from 1 to 0, without the last. What models distilled to few steps were trained on.
    Whole,
    /// Diffusers' `FlowMatchEulerDiscreteScheduler`, for comparison only: `N` even levels from 1 to an already shifted
    /// 0.001, which are shifted again.
    TwiceShifted,
}

/// What the denoiser is told of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// The whole number at or below `timesteps * sigma`, as diffusers and the models' own code do.
    Floor,
    /// `timesteps * sigma`, as stable-diffusion.cpp does and distilled models expect.
    Exact,
}

/// The noise level and timestep of every step.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
}

impl Schedule {
    /// The levels of `steps` steps shifted by `shift`, with timesteps of `train_timesteps`.
    pub fn new(
        steps: usize,
        shift: f32,
        spacing: Spacing,
        rounding: Rounding,
        train_timesteps: f32,
    ) -> Result<Schedule, VideoError> {
        let bad = |name, value, expected: String| Err(VideoError::OutOfRange { name, value, expected });
        if !(1..=MAX_STEPS).contains(&steps) {
            return bad("the number of steps", steps as f64, format!("1 to {MAX_STEPS}"));
        }
        if !(shift.is_finite() && shift > 0.0) {
            return bad("the flow shift", f64::from(shift), "a number above 0".to_owned());
        }
        if !(train_timesteps.is_finite() && train_timesteps >= 1.0) {
            return bad("the timesteps of training", f64::from(train_timesteps), "at least 1".to_owned());
        }
        let levels = levels(steps, f64::from(shift), spacing);
        let scale = f64::from(train_timesteps);
        let timesteps = levels.iter().map(|&level| match (spacing, rounding) {
            (_, Rounding::Floor) => (level * scale).floor() as f32,
            // Diffusers rounds the levels first here.
            (Spacing::TwiceShifted, Rounding::Exact) => level as f32 * train_timesteps,
            (_, Rounding::Exact) => (level * scale) as f32,
        });
        let timesteps = timesteps.collect();
        let mut sigmas: Vec<f32> = levels.iter().map(|&level| level as f32).collect();
        sigmas.push(0.0);
        // A shift so far that F32 cannot tell two levels apart leaves steps of no length.
        if !sigmas.windows(2).all(|pair| pair[0] > pair[1]) {
            let expected = format!("a shift that keeps {steps} noise levels apart");
            return bad("the flow shift", f64::from(shift), expected);
        }
        Ok(Schedule { sigmas, timesteps })
    }

    /// The noise level before each step, and 0 after the last: one more than steps, falling.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// What the denoiser is told at each step.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// How many of the steps the first of two denoisers does: those whose timestep is at least `boundary`, in
    /// timesteps. All of them without a boundary.
    pub fn first_expert_steps(&self, boundary: Option<f32>) -> usize {
        let Some(boundary) = boundary else { return self.steps() };
        self.timesteps.iter().take_while(|&&timestep| timestep >= boundary).count()
    }
}

fn levels(steps: usize, shift: f64, spacing: Spacing) -> Vec<f64> {
    let shifted = |level: f64| shift * level / (1.0 + (shift - 1.0) * level);
    // Numbers of `numpy.linspace`: the step is rounded once, then multiplied.
    let even = |lowest: f64, parts: usize| {
        let step = (lowest - 1.0) / parts.max(1) as f64;
        (0..steps).map(move |index| shifted(index as f64 * step + 1.0)).collect::<Vec<f64>>()
    };
    match spacing {
        Spacing::Training => {
            let mut levels = even(LOWEST, steps);
            if (levels[0] - 1.0).abs() < BELOW_ONE {
                levels[0] -= BELOW_ONE;
            }
            levels
        }
        Spacing::Whole => even(0.0, steps),
        Spacing::TwiceShifted => {
            let (shift, lowest) = (shift as f32, LOWEST as f32);
            let lowest = shift * lowest / (1.0 + (shift - 1.0) * lowest);
            even(f64::from(lowest), steps - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(steps: usize, shift: f32, spacing: Spacing, rounding: Rounding) -> Schedule {
        Schedule::new(steps, shift, spacing, rounding, 1000.0).unwrap()
    }

    /// Numbers of diffusers 0.42.1 (the first four steps are also `sched.*` of its dumps).
    #[test]
    fn levels_are_those_of_diffusers() {
        let four = schedule(4, 3.0, Spacing::Training, Rounding::Floor);
        assert_eq!(four.sigmas(), [0.999_999, 0.900_119_96, 0.750_374_8, 0.500_999, 0.0]);
        assert_eq!(1.0 - four.sigmas()[0], 17.0 * 2f32.powi(-24));
        assert_eq!(four.timesteps(), [999.0, 900.0, 750.0, 500.0]);
        let five = schedule(5, 5.0, Spacing::Training, Rounding::Floor);
        assert_eq!(five.sigmas(), [0.999_999, 0.952_437_64, 0.882_525_86, 0.769_674_1, 0.556_787_9, 0.0]);
        assert_eq!(five.timesteps(), [999.0, 952.0, 882.0, 769.0, 556.0]);
        let exact = schedule(4, 3.0, Spacing::Training, Rounding::Exact);
        assert_eq!(exact.timesteps(), [999.999, 900.12, 750.374_8, 500.999]);
        let one = schedule(1, 3.0, Spacing::Training, Rounding::Floor);
        assert_eq!((one.sigmas(), one.timesteps()), (&[0.999_999, 0.0][..], &[999.0][..]));
    }

    #[test]
    fn diffusers_shifts_the_lower_end_of_euler_twice() {
        let four = schedule(4, 3.0, Spacing::TwiceShifted, Rounding::Exact);
        let expected = [1000.0, 857.692_3, 602.150_6, 8.928_572];
        for (found, expected) in four.timesteps().iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-6 * expected, "{found} {expected}");
        }
        let one = schedule(1, 3.0, Spacing::TwiceShifted, Rounding::Exact);
        assert_eq!((one.sigmas(), one.timesteps()), (&[1.0, 0.0][..], &[1000.0][..]));
    }

    /// The timesteps that LightX2V's distilled models state.
    #[test]
    fn distilled_steps() {
        let four = schedule(4, 5.0, Spacing::Whole, Rounding::Exact);
        assert_eq!(four.timesteps(), [1000.0, 937.5, 833.333_3, 625.0]);
        assert_eq!(four.sigmas(), [1.0, 0.9375, 0.833_333_3, 0.625, 0.0]);
    }

    #[test]
    fn experts_share_the_steps_at_the_boundary() {
        let four = schedule(4, 3.0, Spacing::Training, Rounding::Floor);
        assert_eq!(four.first_expert_steps(None), 4);
        assert_eq!(four.first_expert_steps(Some(875.0)), 2);
        assert_eq!(four.first_expert_steps(Some(900.0)), 2);
        assert_eq!(four.first_expert_steps(Some(1000.0)), 0);
    }

    #[test]
    fn impossible_settings_are_named() {
        let told = |steps, shift| {
            let made = Schedule::new(steps, shift, Spacing::Training, Rounding::Floor, 1000.0);
            made.unwrap_err().to_string()
        };
        assert_eq!(told(0, 3.0), "the number of steps is 0, expected 1 to 1000");
        assert_eq!(told(4, 0.0), "the flow shift is 0, expected a number above 0");
        assert!(told(4, f32::NAN).contains("NaN"));
        assert_eq!(
            told(50, 1e8),
            "the flow shift is 100000000, expected a shift that keeps 50 noise levels apart"
        );
        // Every schedule that is possible falls, and stays above zero until its end.
        for (steps, shift) in [(1, 1.0), (1000, 1.0), (1000, 12.0), (3, 0.01), (50, 1e3)] {
            let made = schedule(steps, shift, Spacing::Training, Rounding::Floor);
            assert!(made.sigmas().windows(2).all(|pair| pair[0] > pair[1]), "{steps} {shift}");
            assert!(made.sigmas()[..steps].iter().all(|&sigma| sigma > 0.0 && sigma < 1.0));
        }
    }
}
