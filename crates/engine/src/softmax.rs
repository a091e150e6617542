//! The sums behind probabilities, in the order the arithmetic contract states: lane `id % 16` adds its tokens
//! in ascending order of id, then the lanes are added in a fixed tree. A token that is masked or filtered out
//! adds nothing, whatever its place. Exponentials are F32, sums F64, so that a running sum over a whole
//! vocabulary stays close to the tree's.

use wushi_cpu::math::{exp_all, ln};

const LANES: usize = 16;

/// A sum over token ids.
#[derive(Default)]
pub(crate) struct Lanes([f64; LANES]);

impl Lanes {
    /// Adds a token's weight. Call with ascending ids.
    pub(crate) fn add(&mut self, id: u32, weight: f32) {
        self.0[id as usize % LANES] += f64::from(weight);
    }

    /// Adds the weights of consecutive ids, the first of them a multiple of 16.
    fn add_all(&mut self, weights: &[f32]) {
        for chunk in weights.chunks(LANES) {
            for (lane, &weight) in self.0.iter_mut().zip(chunk) {
                *lane += f64::from(weight);
            }
        }
    }

    /// Lanes 8 apart, then 4, 2, 1.
    pub(crate) fn total(mut self) -> f64 {
        for width in [8, 4, 2, 1] {
            for lane in 0..width {
                self.0[lane] += self.0[lane + width];
            }
        }
        self.0[0]
    }
}

/// Turns logits into unnormalised probabilities, `e^((logit - max) / temperature)`: in [0, 1], and 1 for the
/// greatest.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// The greatest logit.
    pub(crate) max: f32,
    /// Above 0.
    pub(crate) temperature: f32,
}

impl Scale {
    /// The weights of these logits.
    pub(crate) fn weights(self, logits: impl Iterator<Item = f32>, weights: &mut Vec<f32>) {
        weights.clear();
        weights.extend(logits.map(|logit| (logit - self.max) / self.temperature));
        exp_all(weights);
    }
}

/// The log-softmax of a row: `logit - max - ln(sum of e^(logit - max))`.
pub(crate) struct LogSoftmax {
    max: f32,
    ln_sum: f32,
}

impl LogSoftmax {
    /// Of a row of finite logits, one per token id.
    pub(crate) fn new(logits: &[f32]) -> Self {
        let max = greatest_of(logits);
        let mut lanes = Lanes::default();
        let mut block = [0.0f32; 64 * LANES];
        for logits in logits.chunks(block.len()) {
            let weights = &mut block[..logits.len()];
            weights.iter_mut().zip(logits).for_each(|(weight, logit)| *weight = logit - max);
            exp_all(weights);
            lanes.add_all(weights);
        }
        LogSoftmax { max, ln_sum: ln(lanes.total() as f32) }
    }

    /// A logit's natural-log probability.
    pub(crate) fn of(&self, logit: f32) -> f32 {
        logit - self.max - self.ln_sum
    }
}

/// The greatest of logits that are no NaN; negative infinity if there are none.
pub(crate) fn greatest_of(logits: &[f32]) -> f32 {
    // A comparison instead of `f32::max`, which minds NaN: it runs over many logits at once.
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in logits.chunks(LANES) {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn log_softmax_is_close_to_exact(logits in prop::collection::vec(-60f32..60.0, 1..2100)) {
            let exact_sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let log_softmax = LogSoftmax::new(&logits);
            for &logit in &logits {
                let exact = f64::from(logit) - exact_sum.ln();
                prop_assert!((f64::from(log_softmax.of(logit)) - exact).abs() < 2e-5);
            }
        }

        #[test]
        fn both_forms_add_alike(logits in prop::collection::vec(-60f32..60.0, 1..2100)) {
            let row = LogSoftmax::new(&logits);
            let (mut lanes, mut weights) = (Lanes::default(), Vec::new());
            Scale { max: row.max, temperature: 1.0 }.weights(logits.iter().copied(), &mut weights);
            for (id, &weight) in weights.iter().enumerate() {
                lanes.add(id as u32, weight);
            }
            prop_assert_eq!(ln(lanes.total() as f32), row.ln_sum);
        }
    }

    #[test]
    fn lanes_add_in_a_tree() {
        let mut lanes = Lanes::default();
        // Within a lane in sequence, so the 1 is lost; across lanes the large ones cancel first.
        for (id, weight) in [(0, 1e18), (8, -1e18), (3, 1.0), (16, 1.0)] {
            lanes.add(id, weight);
        }
        assert_eq!(lanes.total(), 1.0);
    }
}
