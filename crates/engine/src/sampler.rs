//! From a row of logits to a token.
//!
//! In this order, as the arithmetic contract has it (point 8):
//!
//! 1. The *mask* of a constraint bans tokens, then *logit bias* is added; negative infinity bans a token too.
//! 2. *Penalties*, on the tokens seen: repetition (prompt and answer, as in CTRL and Hugging Face), then
//!    frequency and presence (answer only, as in OpenAI's API and vLLM).
//! 3. *Temperature* 0 takes the greatest logit, ties going to the lower id, and nothing below applies.
//!    Otherwise a token's weight is `e^((logit - max) / temperature)` with the greatest logit as `max`.
//! 4. *Top-k* keeps the k greatest logits, ties going to the lower id.
//! 5. *Top-p* keeps the fewest tokens, in that same order, whose weights reach `top_p` times the sum over the
//!    tokens left by top-k. The running sum is F64, in order.
//! 6. *Min-p* keeps the weights of at least `min_p` (the greatest is 1).
//! 7. The *draw*: tokens in ascending order of id, until the running F64 sum of their weights exceeds
//!    `uniform` times the sum over them.
//!
//! Every sum that normalises is as `softmax` states. Buffers are kept between tokens.

use std::collections::HashMap;

use crate::request::Sampling;
use crate::softmax::{Lanes, Scale, greatest_of};

/// Chooses tokens; holds the buffers for it.
#[derive(Default)]
pub(crate) struct Sampler {
    /// The logits after mask, bias and penalties.
    adjusted: Vec<f32>,
    /// The greatest logits, as [`key`]s, descending.
    ranked: Vec<u64>,
    /// The candidates, ascending.
    ids: Vec<u32>,
    /// The candidates' weights.
    weights: Vec<f32>,
}

/// Why no token could be chosen.
#[derive(Debug, PartialEq)]
pub(crate) enum SampleError {
    /// A logit is NaN or infinite.
    NotFinite { token: u32, value: f32 },
    /// Every token is banned.
    NoCandidate,
}

impl Sampler {
    /// Chooses a token from a row of logits. `mask` has a bit for each token that is allowed, `uniform` is in [0, 1).
    pub(crate) fn sample(
        &mut self,
        logits: &[f32],
        mask: Option<&[u32]>,
        sampling: &Sampling,
        history: &History,
        uniform: f64,
    ) -> Result<u32, SampleError> {
        check_finite(logits)?;
        let row = if mask.is_none() && sampling.logit_bias.is_empty() && !sampling.has_penalties() {
            logits
        } else {
            self.adjusted.clear();
            self.adjusted.extend_from_slice(logits);
            mask.into_iter().for_each(|mask| ban(&mut self.adjusted, mask));
            adjust(&mut self.adjusted, sampling, history);
            &self.adjusted
        };
        let best = argmax(row).ok_or(SampleError::NoCandidate)?;
        let max = row[best as usize];
        if max == f32::INFINITY {
            // A small repetition penalty can push a huge logit over the edge.
            return Err(SampleError::NotFinite { token: best, value: max });
        }
        if sampling.temperature == 0.0 {
            return Ok(best);
        }
        let scale = Scale { max, temperature: sampling.temperature };
        let count = if sampling.top_k == 0 { row.len() } else { sampling.top_k.min(row.len()) };
        if count < row.len() {
            rank(row, count, &mut self.ranked);
            take_ids(&self.ranked, &mut self.ids);
        } else {
            self.ids.clear();
            self.ids.extend(0..row.len() as u32);
        }
        if sampling.top_p < 1.0 {
            let total = weigh(row, scale, 0.0, &self.ids, &mut self.weights);
            let target = f64::from(sampling.top_p) * total;
            rank_nucleus(row, scale, count, target, &mut self.ranked, &mut self.weights);
            take_ids(&self.ranked, &mut self.ids);
        }
        let total = weigh(row, scale, sampling.min_p, &self.ids, &mut self.weights);
        Ok(draw(&self.ids, &self.weights, uniform * total))
    }
}

/// The first logit that is not a finite number is an error.
pub(crate) fn check_finite(logits: &[f32]) -> Result<(), SampleError> {
    // Without an early exit the test runs over many logits at once.
    if logits.iter().fold(true, |finite, logit| finite & logit.is_finite()) {
        return Ok(());
    }
    let culprit = (0u32..).zip(logits).find(|(_, logit)| !logit.is_finite());
    culprit.map_or(Ok(()), |(token, &value)| Err(SampleError::NotFinite { token, value }))
}

/// The greatest logit's id, the lowest of equals; `None` if all are negative infinity.
fn argmax(row: &[f32]) -> Option<u32> {
    let max = greatest_of(row);
    if max == f32::NEG_INFINITY {
        return None;
    }
    row.iter().position(|&logit| logit == max).map(|id| id as u32)
}

/// Bans every token without a bit in `mask`.
fn ban(row: &mut [f32], mask: &[u32]) {
    for (logits, &word) in row.chunks_mut(32).zip(mask) {
        for (bit, logit) in logits.iter_mut().enumerate() {
            *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
        }
    }
}

/// Bias, then penalties.
fn adjust(row: &mut [f32], sampling: &Sampling, history: &History) {
    for &(id, bias) in &sampling.logit_bias {
        row[id as usize] += bias;
    }
    // Each token on its own: the order in which a map yields them does not matter.
    for (&id, &generated) in &history.generated {
        let logit = &mut row[id as usize];
        let penalty = sampling.repetition_penalty;
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        if generated > 0 {
            *logit = sampling.frequency_penalty.mul_add(-(generated as f32), *logit);
            *logit -= sampling.presence_penalty;
        }
    }
}

/// Weighs candidates, in ascending order of id; those below `min_p` get nothing. Returns the sum.
fn weigh(row: &[f32], scale: Scale, min_p: f32, ids: &[u32], weights: &mut Vec<f32>) -> f64 {
    scale.weights(ids.iter().map(|&id| row[id as usize]), weights);
    let mut lanes = Lanes::default();
    for (&id, weight) in ids.iter().zip(weights) {
        *weight = if *weight >= min_p { *weight } else { 0.0 };
        lanes.add(id, *weight);
    }
    lanes.total()
}

/// The first candidate with which the running sum exceeds `target`.
fn draw(ids: &[u32], weights: &[f32], target: f64) -> u32 {
    let (mut sum, mut last) = (0.0f64, 0);
    for (&id, &weight) in ids.iter().zip(weights) {
        if weight > 0.0 {
            last = id;
            sum += f64::from(weight);
            if sum > target {
                break;
            }
        }
    }
    // Rounding can leave the running sum just short of the tree's: then it is the last token's turn.
    last
}

/// Ranks the fewest tokens whose weights, in descending order, reach `target`; at most `count`.
fn rank_nucleus(
    row: &[f32],
    scale: Scale,
    count: usize,
    target: f64,
    ranked: &mut Vec<u64>,
    weights: &mut Vec<f32>,
) {
    // Most nuclei are small: rank no further than needed.
    let mut head = 64;
    loop {
        head = count.min(head);
        rank(row, head, ranked);
        scale.weights(ranked.iter().map(|&key| logit_of(key)), weights);
        let mut sum = 0.0f64;
        let reached = weights.iter().position(|&weight| {
            sum += f64::from(weight);
            sum >= target
        });
        if let Some(last) = reached {
            ranked.truncate(last + 1);
        }
        if reached.is_some() || head == count {
            return;
        }
        head = head.saturating_mul(8);
    }
}

/// Ranks the `count` greatest logits in descending order; fewer if fewer are above negative infinity.
fn rank(row: &[f32], count: usize, ranked: &mut Vec<u64>) {
    const BLOCK: usize = 16;
    ranked.clear();
    if count == 0 {
        return;
    }
    // Once `count` are known, only what is greater than the last of them matters: later ids lose ties.
    let mut floor = f32::NEG_INFINITY;
    for (block, logits) in row.chunks(BLOCK).enumerate() {
        if logits.iter().fold(true, |all, &logit| all & (logit <= floor)) {
            continue;
        }
        let ids = (block * BLOCK) as u32..;
        ranked.extend(ids.zip(logits).filter(|(_, logit)| **logit > floor).map(key));
        if ranked.len() >= count.saturating_mul(2).max(4 * BLOCK) {
            keep_first(ranked, count);
            floor = logit_of(ranked[count - 1]);
        }
    }
    keep_first(ranked, count);
    ranked.sort_unstable_by(descending);
}

/// Keeps the `count` first in descending order, the last of them last, the others in no order.
fn keep_first(keys: &mut Vec<u64>, count: usize) {
    if count < keys.len() {
        keys.select_nth_unstable_by(count - 1, descending);
        keys.truncate(count);
    }
}

fn take_ids(keys: &[u64], ids: &mut Vec<u32>) {
    ids.clear();
    ids.extend(keys.iter().map(|&key| id_of(key)));
    ids.sort_unstable();
}

/// The ids and logits of the `count` greatest logits, in descending order, ties by ascending id.
pub(crate) fn greatest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut ranked = Vec::new();
    rank(logits, count, &mut ranked);
    ranked.into_iter().map(|key| (id_of(key), logit_of(key))).collect()
}

/// One integer that orders candidates: greater logit, then lower id, is the greater key.
fn key((id, logit): (u32, &f32)) -> u64 {
    // Adding +0 makes both zeros one. Then flip what makes the bits of floats order like integers.
    let bits = (logit + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(!id)
}

fn id_of(key: u64) -> u32 {
    !(key as u32)
}

fn logit_of(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

fn descending(a: &u64, b: &u64) -> std::cmp::Ordering {
    b.cmp(a)
}

/// The tokens a sequence has seen, for the penalties.
#[derive(Default)]
pub(crate) struct History {
    /// For each token of prompt or answer, how often it was generated.
    generated: HashMap<u32, u32>,
}

impl History {
    /// A prompt's tokens; empty if no penalty looks at them.
    pub(crate) fn new(prompt: &[u32], sampling: &Sampling) -> Self {
        let mut history = History::default();
        if sampling.has_penalties() {
            history.generated.extend(prompt.iter().map(|&id| (id, 0)));
        }
        history
    }

    /// Counts a generated token.
    pub(crate) fn push(&mut self, id: u32, sampling: &Sampling) {
        if sampling.has_penalties() {
            *self.generated.entry(id).or_default() += 1;
        }
    }
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
