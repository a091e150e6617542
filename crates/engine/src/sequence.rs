//! A request under way: its tokens, its pages, and what its answer needs from one token to the next.

use std::time::{Duration, Instant};

use wushi_graph::{ExecutorInfo, PageId};

use crate::constraint::{Constraint, Guard};
use crate::detokenize::Detokenizer;
use crate::event::{Event, FinishReason, Finished, Logprob, Timings, Usage};
use crate::link::Client;
use crate::pages::{Prefix, prefix};
use crate::pool::Pool;
use crate::sampler::History;
use crate::speculate::{Guesser, Step};
use crate::{EngineError, Request};

/// A request under way.
pub(crate) struct Sequence {
    /// What was asked; its `tokens` have moved to the field below.
    pub(crate) request: Request,
    /// Prompt, then answer.
    pub(crate) tokens: Vec<u32>,
    /// Length of the prompt.
    pub(crate) prompt: usize,
    /// Length at which the answer ends.
    pub(crate) limit: usize,
    /// Tokens whose keys and values lie in `pages`.
    pub(crate) computed: usize,
    /// The page table.
    pub(crate) pages: Vec<PageId>,
    /// How many of the pages, from the first on, have been offered to others or taken over.
    pub(crate) published: usize,
    /// Prefixes of the first full pages, as far as needed yet.
    prefixes: Vec<Prefix>,
    /// The next prompt token to be scored; the prompt's length when none is.
    pub(crate) next_score: usize,
    /// Scores so far, until they have been reported.
    pub(crate) scores: Option<Vec<Logprob>>,
    /// Prompt tokens that were found in the prefix cache when first admitted.
    pub(crate) cached: usize,
    /// What the penalties look at.
    pub(crate) history: History,
    /// What the text is made with.
    pub(crate) detokenizer: Detokenizer,
    /// Of the logits sampled from, if asked for.
    pub(crate) digest: Option<blake3::Hasher>,
    /// Guessed tokens that the next step tries.
    pub(crate) guesses: Vec<u32>,
    /// Where guesses come from, once one was wanted.
    guesser: Option<Guesser>,
    /// What the answer's form is held to.
    pub(crate) constraint: Option<Guard>,
    /// What becomes of the tokens' states, if an embedding is wanted.
    pub(crate) pool: Option<Pool>,
    client: Client,
    submitted: Instant,
    admitted: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

impl Sequence {
    /// Of a request that `info` has been checked to have room for.
    pub(crate) fn new(
        mut request: Request,
        info: &ExecutorInfo,
        constraint: Option<Box<dyn Constraint>>,
        client: Client,
    ) -> Self {
        let tokens = std::mem::take(&mut request.tokens);
        let prompt = tokens.len();
        let room = info.context.min(info.pages.saturating_mul(info.page_tokens));
        Sequence {
            limit: prompt.saturating_add(request.max_tokens.unwrap_or(usize::MAX)).min(room),
            computed: 0,
            pages: Vec::new(),
            published: 0,
            prefixes: Vec::new(),
            next_score: request.score_from.unwrap_or(prompt),
            scores: request.score_from.map(|_| Vec::new()),
            cached: 0,
            history: History::new(&tokens, &request.sampling),
            detokenizer: Detokenizer::new(&request.stop_strings),
            digest: request.digest.then(blake3::Hasher::new),
            request,
            tokens,
            prompt,
            guesses: Vec::new(),
            guesser: None,
            constraint: constraint.map(Guard::new),
            pool: None,
            client,
            submitted: Instant::now(),
            admitted: None,
            first_token: None,
            last_token: None,
        }
    }

    /// Whether the logits of `position` are wanted: to score the next token, or to choose one.
    pub(crate) fn wants_logits(&self, position: usize) -> bool {
        let next = position + 1;
        (self.next_score..self.prompt).contains(&next) || (next == self.tokens.len() && next < self.limit)
    }

    /// Whether the state of `position` is still wanted.
    pub(crate) fn wants_state(&self, position: usize) -> bool {
        self.pool.as_ref().is_some_and(|pool| pool.wanted().contains(&position))
    }

    /// The first position whose logits or state are still wanted, which must therefore be computed, not
    /// reused; at most the last.
    pub(crate) fn first_wanted(&self) -> usize {
        let logits = (if self.next_score < self.prompt { self.next_score } else { self.tokens.len() }) - 1;
        let states = self.pool.as_ref().and_then(|pool| pool.wanted().next());
        states.map_or(logits, |states| states.min(logits))
    }

    /// Tokens without keys and values yet.
    pub(crate) fn uncomputed(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether the next step continues an answer that has begun.
    pub(crate) fn is_answering(&self) -> bool {
        self.uncomputed() == 1 && self.tokens.len() > self.prompt
    }

    /// How many tokens may be guessed: one fewer than may still be chosen.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.tokens.len() + 1)
    }

    /// Guesses at most `most` tokens, as many as are worth it in `step`, and adds them to it.
    pub(crate) fn guess(&mut self, most: usize, step: &mut Step) -> usize {
        let guesser = self.guesser.get_or_insert_with(Guesser::new);
        guesser.look(&self.tokens, self.prompt);
        let count = guesser.chance().map_or(0, |chance| step.add_guesses(most, chance));
        guesser.guess(&self.tokens, count, &mut self.guesses);
        count
    }

    /// Whether the client wants no more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.client.is_cancelled()
    }

    /// The prefix of the full page `index`.
    pub(crate) fn prefix(&mut self, index: usize, page_tokens: usize) -> Prefix {
        while self.prefixes.len() <= index {
            let start = self.prefixes.len() * page_tokens;
            let tokens = &self.tokens[start..start + page_tokens];
            self.prefixes.push(prefix(self.prefixes.last(), tokens));
        }
        self.prefixes[index]
    }

    /// Notes an admission; true if it is the first, of which the prompt tokens found in the cache count.
    pub(crate) fn admit(&mut self, cached: usize) -> bool {
        let first = self.admitted.is_none();
        if first {
            self.admitted = Some(Instant::now());
            self.cached = cached;
            self.client.begin();
        }
        first
    }

    /// Appends a generated token; returns the time since submission.
    pub(crate) fn push(&mut self, id: u32) -> Duration {
        self.tokens.push(id);
        self.history.push(id, &self.request.sampling);
        let now = Instant::now();
        self.first_token.get_or_insert(now);
        self.last_token = Some(now);
        now - self.submitted
    }

    /// Reports something. A client that is gone has cancelled, which is seen before the next step.
    pub(crate) fn report(&mut self, event: Event) {
        self.client.report(event);
    }

    /// Notes how many sequences wait before this one.
    pub(crate) fn set_place(&self, place: usize) {
        self.client.set_place(place);
    }

    /// Drops a sequence that the engine never took, without an event.
    pub(crate) fn refuse(self) {
        self.client.refuse();
    }

    /// Reports the scores, once.
    pub(crate) fn report_scores(&mut self) {
        if let Some(scores) = self.scores.take() {
            self.report(Event::Prompt(scores));
        }
    }

    /// Reports the embedding, if one is wanted.
    pub(crate) fn report_embedding(&mut self) -> Result<(), EngineError> {
        if let Some(pool) = self.pool.take() {
            self.report(Event::Embedding(pool.finish()?));
        }
        Ok(())
    }

    /// The last event of an answer.
    pub(crate) fn finished(&mut self, reason: FinishReason) -> Event {
        let (tail, stop) = match reason {
            FinishReason::StopString(_) => (String::new(), None),
            _ => self.detokenizer.finish(),
        };
        Event::Finished(Finished {
            reason: stop.map_or(reason, FinishReason::StopString),
            tail,
            usage: Usage {
                prompt_tokens: self.prompt,
                cached_tokens: self.cached,
                completion_tokens: self.tokens.len() - self.prompt,
            },
            timings: self.timings(),
            logits_digest: self.digest.take().map(|digest| digest.finalize().into()),
        })
    }

    fn timings(&self) -> Timings {
        let end = Instant::now();
        let admitted = self.admitted.unwrap_or(end);
        let first = self.first_token.unwrap_or(end);
        Timings {
            queue: admitted - self.submitted,
            ttft: first - self.submitted,
            prefill: first - admitted,
            decode: self.last_token.unwrap_or(first) - first,
        }
    }
}
