//! From a step's logits to tokens, text and events.

use std::sync::Arc;

use wushi_graph::{Computed, ExecError, Executor};

use crate::event::{Event, FinishReason, Logprob, Token};
use crate::sampler::{SampleError, Sampler, check_finite, greatest};
use crate::scheduler::{Plan, Scheduler};
use crate::sequence::Sequence;
use crate::softmax::LogSoftmax;
use crate::{EngineError, Vocabulary, philox};

/// Chooses tokens and reports them.
pub(crate) struct Postprocessor {
    vocabulary: Arc<dyn Vocabulary>,
    vocab: usize,
    /// Elements of a state; 0 if there are none.
    state_width: usize,
    sampler: Sampler,
    /// A row of logits as bytes, for the digest.
    bytes: Vec<u8>,
    /// Tokens that a constraint allows.
    mask: Vec<u32>,
    generated: u64,
}

/// How a sequence stands after a row: `None` if it goes on.
type Outcome = Result<Option<FinishReason>, EngineError>;

impl Postprocessor {
    pub(crate) fn new(vocabulary: Arc<dyn Vocabulary>, executor: &dyn Executor) -> Self {
        Postprocessor {
            vocabulary,
            vocab: executor.info().vocab,
            state_width: executor.states().map_or(0, |states| states.width),
            sampler: Sampler::default(),
            bytes: Vec::new(),
            mask: Vec::new(),
            generated: 0,
        }
    }

    /// Tokens generated so far.
    pub(crate) fn generated(&self) -> u64 {
        self.generated
    }

    /// Takes in what a step computed. Returns the sequences that ended, with their last events; their pages
    /// have been given back.
    pub(crate) fn postprocess(
        &mut self,
        scheduler: &mut Scheduler,
        plan: &Plan,
        computed: Result<Computed<'_>, ExecError>,
    ) -> Vec<(Sequence, Event)> {
        let mut outcomes: Vec<(usize, Outcome)> = match self.checked(plan, computed) {
            Ok(computed) => self.take_spans(scheduler, plan, computed),
            Err(error) => plan.sequences.iter().map(|&index| (index, Err(error.clone()))).collect(),
        };
        // From the last on, so that the indices stay true.
        outcomes.sort_unstable_by_key(|&(index, _)| std::cmp::Reverse(index));
        let ended = outcomes.into_iter().filter_map(|(index, outcome)| {
            let outcome = outcome.transpose()?;
            let mut sequence = scheduler.remove(index);
            let event = match outcome {
                Ok(reason) => sequence.finished(reason),
                Err(error) => Event::Failed(error),
            };
            Some((sequence, event))
        });
        ended.collect()
    }

    /// What was computed, if it is as much as was asked for.
    fn checked<'a>(
        &self,
        plan: &Plan,
        computed: Result<Computed<'a>, ExecError>,
    ) -> Result<Computed<'a>, EngineError> {
        let computed = computed.map_err(|error| EngineError::Executor(Arc::new(error)))?;
        let (expected, found) = (plan.batch.logit_rows.len() * self.vocab, computed.logits.len());
        if found != expected {
            return Err(EngineError::LogitCount { expected, found });
        }
        let (expected, found) = (plan.batch.state_rows.len() * self.state_width, computed.states.len());
        if found != expected {
            return Err(EngineError::StateCount { expected, found });
        }
        Ok(computed)
    }

    fn take_spans(
        &mut self,
        scheduler: &mut Scheduler,
        plan: &Plan,
        computed: Computed<'_>,
    ) -> Vec<(usize, Outcome)> {
        let mut rows = plan.batch.logit_rows.iter().zip(computed.logits.chunks_exact(self.vocab)).peekable();
        // Where there are none, any width will do.
        let states = computed.states.chunks_exact(self.state_width.max(1));
        let mut states = plan.batch.state_rows.iter().zip(states).peekable();
        let mut outcomes = Vec::with_capacity(plan.sequences.len());
        for (span, &index) in plan.batch.spans.iter().zip(&plan.sequences) {
            let sequence = scheduler.running(index);
            let mut outcome = Ok(None);
            while let Some((&row, logits)) = rows.next_if(|(row, _)| span.rows.contains(row)) {
                let position = span.start + row - span.rows.start;
                // A row is of use if its token is the sequence's: from a wrong guess on none is.
                let is_known = sequence.tokens.get(position) == Some(&plan.batch.tokens[row]);
                if is_known && matches!(outcome, Ok(None)) {
                    outcome = self.take_row(sequence, position, logits);
                }
            }
            while let Some((_, state)) = states.next_if(|(row, _)| span.rows.contains(row)) {
                if let Some(pool) = &mut sequence.pool {
                    pool.add(state);
                }
            }
            scheduler.advance(index, span.rows.len());
            let sequence = scheduler.running(index);
            if matches!(outcome, Ok(None)) && sequence.uncomputed() == 0 {
                // Only the prompt was wanted.
                sequence.report_scores();
                outcome = sequence.report_embedding().map(|()| Some(FinishReason::Length));
            }
            outcomes.push((index, outcome));
        }
        outcomes
    }

    /// Uses the logits of the token at `position`: to score the next one of the prompt, or to choose it.
    fn take_row(&mut self, sequence: &mut Sequence, position: usize, logits: &[f32]) -> Outcome {
        let Some(&next) = sequence.tokens.get(position + 1) else {
            return self.generate(sequence, logits);
        };
        check_finite(logits).map_err(|error| located(error, position))?;
        let score = logprob(logits, next, sequence.request.top_logprobs.unwrap_or(0));
        sequence.next_score += 1;
        if let Some(scores) = &mut sequence.scores {
            scores.push(score);
        }
        Ok(None)
    }

    /// Chooses and reports a token.
    fn generate(&mut self, sequence: &mut Sequence, logits: &[f32]) -> Outcome {
        sequence.report_scores();
        let position = sequence.tokens.len();
        let mask = match &mut sequence.constraint {
            Some(constraint) => {
                constraint.allowed(&mut self.mask, self.vocab)?;
                Some(&self.mask[..])
            }
            None => None,
        };
        let request = &sequence.request;
        let uniform = philox::uniform(request.seed, request.choice, position as u64);
        let id = self
            .sampler
            .sample(logits, mask, &request.sampling, &sequence.history, uniform)
            .map_err(|error| located(error, position - 1))?;
        if let Some(constraint) = &mut sequence.constraint {
            constraint.accept(id)?;
        }
        let logprob = request.top_logprobs.map(|top| logprob(logits, id, top));
        if let Some(digest) = &mut sequence.digest {
            self.bytes.clear();
            self.bytes.extend(logits.iter().flat_map(|logit| logit.to_le_bytes()));
            digest.update(&self.bytes);
        }
        let at = sequence.push(id);
        self.generated += 1;

        let is_stop = sequence.request.stop_tokens.contains(&id);
        let is_sign = self.vocabulary.is_control(id) && !sequence.request.spelled_tokens.contains(&id);
        let is_text = !is_stop && !is_sign;
        let bytes = if is_text { self.vocabulary.token_bytes(id) } else { &[] };
        let (text, stop_string) = sequence.detokenizer.push(bytes);
        sequence.report(Event::Token(Token { id, text, logprob, at }));
        Ok(match stop_string {
            Some(index) => Some(FinishReason::StopString(index)),
            None if is_stop => Some(FinishReason::StopToken(id)),
            None if sequence.tokens.len() >= sequence.limit => Some(FinishReason::Length),
            None => None,
        })
    }
}

/// The log-probability of `id` and the `top` greatest.
fn logprob(logits: &[f32], id: u32, top: usize) -> Logprob {
    let log_softmax = LogSoftmax::new(logits);
    let top = greatest(logits, top);
    Logprob {
        id,
        logprob: log_softmax.of(logits[id as usize]),
        top: top.into_iter().map(|(id, logit)| (id, log_softmax.of(logit))).collect(),
    }
}

fn located(error: SampleError, position: usize) -> EngineError {
    match error {
        SampleError::NotFinite { token, value } => EngineError::NonFiniteLogit { position, token, value },
        SampleError::NoCandidate => EngineError::NoCandidate { position: position + 1 },
    }
}
