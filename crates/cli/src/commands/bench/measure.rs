//! Runs of the engine, timed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use wushi_cpu::StepCost;
use wushi_engine::load::{LoadPlan, LoadedModel};
use wushi_engine::{Event, Generation, Request};

/// What the schedule says of the work.
pub(super) struct Costs {
    /// Bytes of weights that a step reads.
    weights: f64,
    /// Bytes of keys and values of one token.
    cache: f64,
    /// Multiply-adds of one decoded token, attention aside.
    token: f64,
    /// Multiply-adds of attention, for each key.
    key: f64,
    /// Multiply-adds of a whole prompt.
    prompt: f64,
}

impl Costs {
    pub(super) fn new(plan: &LoadPlan, prompt_tokens: usize) -> Result<Costs> {
        let (one, prompt) = (plan.schedule(1)?, plan.schedule(prompt_tokens)?);
        let macs = |steps: &[StepCost]| steps.iter().map(|step| step.macs).sum::<u64>() as f64;
        // The first token of a sequence attends to itself alone: one key.
        let key =
            one.iter().filter(|step| step.kernel == "attention").map(|step| step.macs).sum::<u64>() as f64;
        Ok(Costs {
            weights: one.iter().map(|step| step.weight_bytes).sum::<u64>() as f64,
            cache: plan.cache_bytes_per_token(),
            token: macs(&one) - key,
            key,
            prompt: macs(&prompt),
        })
    }
}

/// One measurement.
#[derive(Default)]
pub(super) struct Sample {
    pub(super) tokens: usize,
    pub(super) seconds: f64,
    /// Read from memory at least.
    pub(super) bytes: f64,
    /// Multiply-adds.
    pub(super) macs: f64,
    /// Seconds between a sequence's tokens, ascending.
    gaps: Vec<f64>,
}

impl Sample {
    /// A quantile of the time between tokens, in seconds.
    pub(super) fn gap(&self, quantile: f64) -> Option<f64> {
        let rank = (self.gaps.len() as f64 * quantile).ceil() as usize;
        self.gaps.get(rank.saturating_sub(1)).copied()
    }
}

/// How many tokens are computed, and how they are cut into steps.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) prompt_tokens: usize,
    pub(super) new_tokens: usize,
    /// The most rows of a step.
    pub(super) max_rows: usize,
    /// The most rows of one prompt in a step.
    pub(super) chunk: usize,
}

impl Shape {
    /// The longest a sequence can get, with so many at once.
    pub(super) fn context(&self, sequences: usize) -> usize {
        self.prompt_tokens + self.new_tokens + self.lead(sequences)
    }

    /// Steps that so many prompts take.
    fn steps(&self, sequences: usize) -> usize {
        let together = (sequences * self.prompt_tokens).div_ceil(self.max_rows);
        together.max(self.prompt_tokens.div_ceil(self.chunk.min(self.max_rows)))
    }

    /// How many tokens the first sequences may be ahead when the last one has its first: one for each step that prompts
    /// took, and some more, as decoding takes part of those steps and submitting takes time too.
    fn lead(&self, sequences: usize) -> usize {
        let steps = self.steps(sequences);
        steps + steps / 4 + 64
    }
}

/// How often decoding is tried where a sequence ends before the last one has its tokens, as can be with a model of a few
/// microseconds per token on a busy machine.
const ATTEMPTS: usize = 10;

/// A loaded model and the tokens it is fed.
pub(super) struct Bench<'a> {
    model: &'a LoadedModel,
    costs: Costs,
    shape: Shape,
    /// What prompts are made of: all tokens but the control tokens.
    vocabulary: Vec<u32>,
    random: u64,
}

impl<'a> Bench<'a> {
    pub(super) fn new(model: &'a LoadedModel, costs: Costs, shape: Shape) -> Result<Bench<'a>> {
        let size = model.tokenizer.vocab_size().min(model.engine.info().vocab) as u32;
        let vocabulary: Vec<u32> = (0..size).filter(|&id| !model.tokenizer.is_control(id)).collect();
        if vocabulary.is_empty() {
            bail!("the vocabulary has nothing but control tokens");
        }
        Ok(Bench { model, costs, shape, vocabulary, random: 0 })
    }

    /// A token that nobody could guess: splitmix64 (Steele et al. 2014).
    fn token(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.vocabulary[((z ^ (z >> 31)) % self.vocabulary.len() as u64) as usize]
    }

    fn submit(&mut self, max_tokens: usize) -> Result<Generation> {
        let mut request = Request::new((0..self.shape.prompt_tokens).map(|_| self.token()).collect());
        request.max_tokens = Some(max_tokens);
        Ok(self.model.engine.submit(request)?)
    }

    /// Seconds to the first token of one prompt.
    pub(super) fn first_token(&mut self) -> Result<f64> {
        let generation = self.submit(1)?;
        Ok(generation.finish()?.timings.ttft.as_secs_f64())
    }

    /// Prompts that come all at once, until the last one has its first token.
    pub(super) fn prefill(&mut self, sequences: usize) -> Result<Sample> {
        let start = Instant::now();
        let generations = (0..sequences).map(|_| self.submit(1)).collect::<Result<Vec<_>>>()?;
        for generation in generations {
            generation.finish()?;
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok(Sample {
            tokens: sequences * self.shape.prompt_tokens,
            seconds,
            bytes: self.shape.steps(sequences) as f64 * self.costs.weights,
            macs: sequences as f64 * self.costs.prompt,
            gaps: Vec::new(),
        })
    }

    /// Decoding while all sequences do nothing else: from the moment the last one has its first token, for as many steps as
    /// there are new tokens, or a few more.
    pub(super) fn decode(&mut self, sequences: usize) -> Result<Sample> {
        for _ in 0..ATTEMPTS {
            if let Some(sample) = self.try_decode(sequences)? {
                return Ok(sample);
            }
        }
        bail!("too few tokens to measure decoding with {sequences} sequences: take more (-n)")
    }

    /// `None` if all sequences did nothing but decode for too short a time.
    fn try_decode(&mut self, sequences: usize) -> Result<Option<Sample>> {
        let max_tokens = self.shape.new_tokens + self.shape.lead(sequences);
        let start = Instant::now();
        let mut answers = Vec::with_capacity(sequences);
        for _ in 0..sequences {
            let generation = self.submit(max_tokens)?;
            answers.push(Timed {
                offset: start.elapsed(),
                times: Vec::with_capacity(max_tokens),
                generation,
            });
        }
        for answer in &mut answers {
            answer.receive(self.shape.new_tokens + 1)?;
        }
        // Now every sequence has its new tokens, and those that were ahead some more.
        answers.iter().for_each(|answer| answer.generation.cancel());
        for answer in &mut answers {
            answer.receive(usize::MAX)?;
        }
        let times: Vec<Vec<Duration>> = answers.into_iter().map(|answer| answer.times).collect();
        Ok(self.sum_up(&times))
    }

    fn sum_up(&self, times: &[Vec<Duration>]) -> Option<Sample> {
        let start = times.iter().filter_map(|of_one| of_one.first()).max().copied().unwrap_or_default();
        let end = times.iter().filter_map(|of_one| of_one.last()).min().copied().unwrap_or_default();
        let mut sample = Sample { seconds: end.saturating_sub(start).as_secs_f64(), ..Sample::default() };
        // The tokens of one step come one after the other: a window that begins and ends half a step later has whole steps.
        let mut all_gaps: Vec<Duration> =
            times.iter().flat_map(|t| t.windows(2).map(|pair| pair[1] - pair[0])).collect();
        all_gaps.sort();
        let half = all_gaps.get(all_gaps.len() / 2).copied().unwrap_or_default() / 2;
        for of_one in times {
            for (index, pair) in of_one.windows(2).enumerate() {
                let (before, at) = (pair[0], pair[1]);
                if at <= start + half || at > end + half {
                    continue;
                }
                // The token was computed from the one before it, at this position.
                let keys = (self.shape.prompt_tokens + index + 1) as f64;
                sample.tokens += 1;
                sample.bytes += keys * self.costs.cache;
                sample.macs += self.costs.token + keys * self.costs.key;
                sample.gaps.push((at - before).as_secs_f64());
            }
        }
        let enough = times.len() * self.shape.new_tokens.div_ceil(2);
        if sample.tokens < enough || sample.seconds == 0.0 {
            return None;
        }
        // Every step decodes a token of every sequence.
        sample.bytes += sample.tokens as f64 / times.len() as f64 * self.costs.weights;
        sample.gaps.sort_by(f64::total_cmp);
        Some(sample)
    }
}

/// An answer whose text nobody reads.
struct Timed {
    generation: Generation,
    /// When it was submitted.
    offset: Duration,
    /// When its tokens came, counted like `offset`.
    times: Vec<Duration>,
}

impl Timed {
    /// Waits until there are this many tokens, or for the end.
    fn receive(&mut self, tokens: usize) -> Result<()> {
        while self.times.len() < tokens {
            match self.generation.next() {
                Some(Event::Token(token)) => self.times.push(self.offset + token.at),
                Some(Event::Failed(error)) => return Err(error.into()),
                Some(Event::Prompt(_) | Event::Embedding(_) | Event::Finished(_)) => {}
                None => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Sample, Shape};

    #[test]
    fn quantiles_are_measured_values() {
        let sample = Sample { gaps: (1..=100).map(f64::from).collect(), ..Sample::default() };
        assert_eq!((sample.gap(0.5), sample.gap(0.99)), (Some(50.0), Some(99.0)));
        assert_eq!(Sample::default().gap(0.5), None);
    }

    #[test]
    fn the_context_has_room_for_those_that_are_ahead() {
        let shape = Shape { prompt_tokens: 256, new_tokens: 64, max_rows: 512, chunk: 512 };
        assert_eq!(shape.context(1), 256 + 64 + 1 + 64);
        // 32 prompts take 16 steps, and some rows of those are decoded tokens.
        assert_eq!(shape.context(32), 256 + 64 + 16 + 4 + 64);
        assert_eq!(Shape { chunk: 8, ..shape }.context(1), 256 + 64 + 32 + 8 + 64);
    }
}
