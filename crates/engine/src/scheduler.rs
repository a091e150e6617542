//! Which tokens the next step computes.
//!
//! First come, first served: sequences are admitted in the order of submission, when pages for all their
//! tokens are there. One that begins like a prompt still being computed waits until it can take over the pages.
//! A step takes one token of every sequence that is generating, then chunks of prompts; these are kept short
//! while anyone is generating. When a generating sequence finds no page for its next token, the youngest sequence gives its pages up and
//! waits; it is computed again later, with the same bits.

use std::collections::VecDeque;

use wushi_graph::{Batch, ExecutorInfo};

use crate::EngineOptions;
use crate::pages::{PagePool, Prefix};
use crate::sequence::Sequence;
use crate::speculate::{ROW_COST, Step};
use crate::stats::Stats;

/// The sequences and the pages they share.
pub(crate) struct Scheduler {
    info: ExecutorInfo,
    prefill_chunk: usize,
    /// Whether a sequence must be computed in one step.
    is_whole: bool,
    prefix_cache: bool,
    max_sequences: usize,
    /// Rows of a step while any sequence is generating.
    step_tokens: usize,
    pool: PagePool,
    /// Oldest first. All are younger than the running ones.
    waiting: VecDeque<Sequence>,
    /// Oldest first.
    running: Vec<Sequence>,
    /// For each running sequence, the rows it gets in the next step.
    rows: Vec<usize>,
    /// Whether guessed tokens are tried.
    speculate: bool,
    row_cost: f32,
    /// Rows that the next step could have beyond those shared out.
    rows_left: usize,
    /// The same of rows with logits.
    logits_left: usize,
    cached_tokens: u64,
    preemptions: u64,
    guessed_tokens: u64,
    accepted_tokens: u64,
}

/// A step to be run.
#[derive(Default)]
pub(crate) struct Plan {
    /// For the executor.
    pub(crate) batch: Batch,
    /// For each of the batch's spans, the index of its running sequence.
    pub(crate) sequences: Vec<usize>,
}

impl Scheduler {
    /// `is_whole`: every sequence must be computed in one step.
    pub(crate) fn new(info: &ExecutorInfo, is_whole: bool, options: &EngineOptions) -> Self {
        let step_tokens = options.step_tokens.unwrap_or(info.max_rows).min(info.max_rows);
        let most = step_tokens.min(info.max_logit_rows);
        Scheduler {
            info: info.clone(),
            prefill_chunk: options.prefill_chunk.unwrap_or(info.max_rows),
            is_whole,
            // Nothing is computed that goes on from something else.
            prefix_cache: options.prefix_cache && !is_whole,
            // Every running sequence can get a row with logits in every step, so that none starves.
            max_sequences: options.max_sequences.unwrap_or(most).min(most),
            step_tokens,
            pool: PagePool::new(info.pages),
            waiting: VecDeque::new(),
            running: Vec::new(),
            rows: Vec::new(),
            speculate: options.speculate,
            row_cost: options.row_cost.unwrap_or(ROW_COST) as f32 / 100.0,
            rows_left: 0,
            logits_left: 0,
            cached_tokens: 0,
            preemptions: 0,
            guessed_tokens: 0,
            accepted_tokens: 0,
        }
    }

    /// Queues a sequence.
    pub(crate) fn submit(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// Tells those that wait their places.
    fn tell_places(&self) {
        for (place, sequence) in self.waiting.iter().enumerate() {
            sequence.set_place(place);
        }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// A running sequence, by its index in the latest plan.
    pub(crate) fn running(&mut self, index: usize) -> &mut Sequence {
        &mut self.running[index]
    }

    /// Plans the next step.
    pub(crate) fn schedule(&mut self, plan: &mut Plan) {
        self.admit();
        self.share_out_rows();
        self.find_pages();
        self.guess();
        self.tell_places();
        self.assemble(plan);
    }

    /// Admits waiting sequences while there is room.
    fn admit(&mut self) {
        while self.running.len() < self.max_sequences
            && let Some(mut sequence) = self.waiting.pop_front()
        {
            if !self.take_pages(&mut sequence) {
                self.waiting.push_front(sequence);
                break;
            }
            self.running.push(sequence);
        }
    }

    /// Gives a sequence pages for all its tokens, those that the cache has first; false if too few are left or
    /// the next one is about to be computed for another.
    fn take_pages(&mut self, sequence: &mut Sequence) -> bool {
        let page_tokens = self.info.page_tokens;
        let reusable = if self.prefix_cache { sequence.first_wanted() / page_tokens } else { 0 };
        // Only counted yet: a sequence that has to wait asks again every step, and must not make its prefix look
        // recently used by that.
        let (mut reused, mut idle) = (0, 0);
        while reused < reusable
            && let Some(is_idle) = self.pool.peek(&sequence.prefix(reused, page_tokens))
        {
            reused += 1;
            idle += usize::from(is_idle);
        }
        if reused < reusable && self.is_under_way(reused, sequence.prefix(reused, page_tokens)) {
            return false;
        }
        let needed = sequence.tokens.len().div_ceil(page_tokens) - reused;
        // Each running sequence may soon want one more page: leave it one, or the newcomer would be the first
        // to be turned out again.
        if self.pool.available() - idle < needed + self.running.len() {
            return false;
        }
        for index in 0..reused {
            let shared = self.pool.share(&sequence.prefix(index, page_tokens));
            sequence.pages.extend(shared);
        }
        sequence.pages.extend((0..needed).map_while(|_| self.pool.allocate()));
        sequence.computed = reused * page_tokens;
        sequence.published = reused;
        if sequence.admit(sequence.computed) {
            self.cached_tokens += sequence.computed as u64;
        }
        true
    }

    /// Whether a running sequence has yet to compute its page `index`, and that page is known by `prefix`.
    ///
    /// It will: only waiting sequences wait for others, and the oldest of the running ones gets rows in every
    /// step. If it ends before, nobody waits for it any more.
    fn is_under_way(&mut self, index: usize, prefix: Prefix) -> bool {
        let page_tokens = self.info.page_tokens;
        let end = (index + 1) * page_tokens;
        let mut running = self.running.iter_mut();
        running.any(|other| {
            other.computed < end && end <= other.tokens.len() && other.prefix(index, page_tokens) == prefix
        })
    }

    /// Divides the step's rows: one for each generating sequence, then chunks of prompts, oldest first.
    fn share_out_rows(&mut self) {
        let is_whole = self.is_whole;
        let is_generating = |sequence: &Sequence| sequence.uncomputed() == 1 && !is_whole;
        // Nobody waits for the next token of an answer: then the longest steps are the fastest.
        let is_hurried = self.running.iter().any(is_generating);
        let mut rows_left = if is_hurried { self.step_tokens } else { self.info.max_rows };
        let mut logits_left = self.info.max_logit_rows;
        self.rows.clear();
        self.rows.resize(self.running.len(), 0);
        let (answers, mut prompts): (Vec<usize>, Vec<usize>) =
            (0..self.running.len()).partition(|&index| is_generating(&self.running[index]));
        if !is_whole {
            // Every prompt gets its share, and what short ones leave of theirs goes to the longer ones: a question does
            // not wait for the document that came before it.
            prompts.sort_by_key(|&index| self.running[index].uncomputed());
        }
        let mut left = answers.len() + prompts.len();
        for index in answers.into_iter().chain(prompts) {
            let sequence = &self.running[index];
            let most = match is_whole {
                // The oldest always has room.
                true => Some(sequence.uncomputed()).filter(|&rows| rows <= rows_left).unwrap_or(0),
                false => {
                    let share = rows_left.div_ceil(left);
                    sequence.uncomputed().min(self.prefill_chunk).min(share)
                }
            };
            left -= 1;
            for position in sequence.computed..sequence.computed + most {
                if sequence.wants_logits(position) {
                    if logits_left == 0 {
                        break;
                    }
                    logits_left -= 1;
                }
                self.rows[index] += 1;
            }
            rows_left -= self.rows[index];
        }
        (self.rows_left, self.logits_left) = (rows_left, logits_left);
    }

    /// Finds a page for every row that lacks one, oldest sequence first, at the cost of the youngest.
    fn find_pages(&mut self) {
        let mut index = 0;
        while index < self.running.len() {
            let sequence = &mut self.running[index];
            let end = sequence.computed + self.rows[index];
            if end <= sequence.pages.len() * self.info.page_tokens {
                index += 1;
            } else if let Some(page) = self.pool.allocate() {
                sequence.pages.push(page);
            } else {
                self.preempt_youngest();
            }
        }
    }

    /// Takes the youngest sequence's pages; it waits, first in line, to be computed again.
    fn preempt_youngest(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            tracing::debug!(tokens = sequence.tokens.len(), "preempted for want of pages");
            self.pool.give_back(&mut sequence.pages);
            sequence.computed = 0;
            self.waiting.push_front(sequence);
            self.rows.pop();
            self.preemptions += 1;
        }
    }

    /// Guesses tokens of generating sequences, oldest first, with the rows and pages that nobody else wants.
    fn guess(&mut self) {
        let answers = self.running.iter().filter(|sequence| sequence.is_answering()).count();
        let (rows, row_cost) = (self.rows.iter().sum(), self.row_cost);
        let mut step = Step { rows, tokens: answers as f32, row_cost };
        let page_tokens = self.info.page_tokens;
        // Each running sequence may soon want one more page.
        let mut spare_pages = self.pool.available().saturating_sub(self.running.len());
        for (sequence, rows) in self.running.iter_mut().zip(&mut self.rows) {
            sequence.guesses.clear();
            if !self.speculate || *rows != 1 || !sequence.is_answering() {
                continue;
            }
            let free = (sequence.pages.len() + spare_pages) * page_tokens - sequence.tokens.len();
            let most = sequence.room().min(free).min(self.rows_left).min(self.logits_left);
            let count = sequence.guess(most, &mut step);
            while sequence.pages.len() * page_tokens < sequence.tokens.len() + count
                && let Some(page) = self.pool.allocate()
            {
                sequence.pages.push(page);
                spare_pages -= 1;
            }
            *rows += count;
            self.rows_left -= count;
            self.logits_left -= count;
            self.guessed_tokens += count as u64;
        }
    }

    fn assemble(&self, plan: &mut Plan) {
        plan.batch.clear();
        plan.sequences.clear();
        for generating in [true, false] {
            for (index, (sequence, &rows)) in self.running.iter().zip(&self.rows).enumerate() {
                if rows == 0 || (sequence.uncomputed() == 1) != generating {
                    continue;
                }
                let (start, end) = (sequence.computed, sequence.computed + rows);
                let row = plan.batch.tokens.len();
                let known = end.min(sequence.tokens.len());
                let wanted = (start..end).filter(|&at| at >= known || sequence.wants_logits(at));
                plan.batch.logit_rows.extend(wanted.map(|at| row + at - start));
                let wanted = (start..known).filter(|&at| sequence.wants_state(at));
                plan.batch.state_rows.extend(wanted.map(|at| row + at - start));
                let pages = &sequence.pages[..end.div_ceil(self.info.page_tokens)];
                plan.batch.push(&sequence.tokens[start..known], start, pages);
                plan.batch.tokens.extend_from_slice(&sequence.guesses);
                if let Some(span) = plan.batch.spans.last_mut() {
                    span.rows.end += sequence.guesses.len();
                }
                plan.sequences.push(index);
            }
        }
    }

    /// Notes that the keys and values of `rows` more tokens of a running sequence are there, those of wrong guesses
    /// aside, and offers its full pages to others.
    pub(crate) fn advance(&mut self, index: usize, rows: usize) {
        let sequence = &mut self.running[index];
        if sequence.guesses.is_empty() {
            sequence.computed += rows;
        } else {
            // The last token was chosen and not computed, unless it was guessed: then nothing follows it.
            let right = (rows - 1).min(sequence.tokens.len().saturating_sub(sequence.computed + 2));
            sequence.computed += right + 1;
            self.accepted_tokens += right as u64;
            let needed = sequence.tokens.len().div_ceil(self.info.page_tokens);
            self.pool.give_back(&mut sequence.pages.split_off(needed.min(sequence.pages.len())));
        }
        if self.prefix_cache {
            while sequence.published < sequence.computed / self.info.page_tokens {
                let prefix = sequence.prefix(sequence.published, self.info.page_tokens);
                self.pool.publish(sequence.pages[sequence.published], prefix);
                sequence.published += 1;
            }
        }
    }

    /// Takes out a running sequence and gives its pages back.
    pub(crate) fn remove(&mut self, index: usize) -> Sequence {
        let mut sequence = self.running.remove(index);
        self.pool.give_back(&mut sequence.pages);
        sequence
    }

    /// Whether `condition` holds for any sequence.
    pub(crate) fn any(&self, condition: impl Fn(&Sequence) -> bool) -> bool {
        self.running.iter().chain(&self.waiting).any(condition)
    }

    /// Takes out all sequences that `condition` holds for.
    pub(crate) fn remove_where(&mut self, condition: impl Fn(&Sequence) -> bool) -> Vec<Sequence> {
        let mut removed: Vec<_> = self.running.extract_if(.., |sequence| condition(sequence)).collect();
        for sequence in &mut removed {
            self.pool.give_back(&mut sequence.pages);
        }
        let (gone, waiting) = self.waiting.drain(..).partition(|sequence| condition(sequence));
        self.waiting = waiting;
        removed.extend::<VecDeque<_>>(gone);
        removed
    }

    /// Brings the counts up to date that the scheduler keeps.
    pub(crate) fn count(&self, stats: &mut Stats) {
        stats.running = self.running.len();
        stats.waiting = self.waiting.len();
        stats.pages_free = self.pool.free();
        stats.pages_cached = self.pool.cached();
        stats.pages_used = self.info.pages - self.pool.available();
        stats.cached_tokens = self.cached_tokens;
        stats.preemptions = self.preemptions;
        stats.guessed_tokens = self.guessed_tokens;
        stats.accepted_tokens = self.accepted_tokens;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Request;
    use crate::engine::Shared;
    use crate::link::{Client, Place};
    use crate::pages::prefix;

    const PAGE_TOKENS: usize = 2;

    fn info() -> ExecutorInfo {
        let (max_rows, max_logit_rows) = (64, 8);
        ExecutorInfo { vocab: 256, page_tokens: PAGE_TOKENS, pages: 8, max_rows, max_logit_rows, context: 64 }
    }

    fn submit(scheduler: &mut Scheduler, token: u32, length: usize) {
        submit_tokens(scheduler, vec![token; length]);
    }

    fn submit_tokens(scheduler: &mut Scheduler, tokens: Vec<u32>) {
        let shared = Arc::new(Shared::new(info().pages, &EngineOptions::default()));
        let (client, _) = Client::new(&Place::take(shared).unwrap(), Box::new(drop));
        let request = Request::new(tokens);
        scheduler.submit(Sequence::new(request, &info(), None, client));
    }

    /// Schedules a step and notes it as computed.
    fn step(scheduler: &mut Scheduler) -> Plan {
        let mut plan = Plan::default();
        scheduler.schedule(&mut plan);
        for (&index, span) in plan.sequences.iter().zip(&plan.batch.spans) {
            scheduler.advance(index, span.rows.len());
        }
        plan
    }

    /// The prefixes of the full pages of a prompt that repeats one token.
    fn prefixes(token: u32, pages: usize) -> Vec<Prefix> {
        let mut all: Vec<Prefix> = Vec::new();
        for _ in 0..pages {
            all.push(prefix(all.last(), &[token; PAGE_TOKENS]));
        }
        all
    }

    #[test]
    fn waiting_is_no_use_of_the_prefix_cache() {
        let mut scheduler = Scheduler::new(&info(), false, &EngineOptions::default());
        // Two prompts of two pages each have come and gone, that of token 1 first; 3 holds the other four pages.
        for token in [1, 2] {
            submit(&mut scheduler, token, 4);
            step(&mut scheduler);
            scheduler.remove(0);
        }
        submit(&mut scheduler, 3, 8);
        step(&mut scheduler);
        assert_eq!((scheduler.pool.free(), scheduler.pool.cached()), (0, 4));
        // Its prefix is there, but the two cached pages beside that are too few for the other four.
        submit(&mut scheduler, 1, 12);
        for _ in 0..3 {
            scheduler.admit();
            assert_eq!((scheduler.waiting.len(), scheduler.running.len()), (1, 1));
        }
        let known = |scheduler: &Scheduler, token| {
            prefixes(token, 2).iter().filter_map(|prefix| scheduler.pool.peek(prefix)).collect::<Vec<_>>()
        };
        assert_eq!((known(&scheduler, 1), known(&scheduler, 2)), (vec![true; 2], vec![true; 2]));
        let mut taken: Vec<_> = (0..2).filter_map(|_| scheduler.pool.allocate()).collect();
        assert_eq!(
            (known(&scheduler, 1), known(&scheduler, 2)),
            (vec![], vec![true; 2]),
            "the oldest go first"
        );
        scheduler.pool.give_back(&mut taken);
    }

    #[test]
    fn the_pages_of_a_prefix_do_not_count_twice() {
        let mut scheduler = Scheduler::new(&info(), false, &EngineOptions::default());
        submit(&mut scheduler, 1, 12);
        step(&mut scheduler);
        scheduler.remove(0);
        assert_eq!((scheduler.pool.free(), scheduler.pool.cached()), (2, 6));
        submit(&mut scheduler, 2, 4);
        step(&mut scheduler);
        // Six pages would be reused and one is missing, but none is left beside those.
        assert_eq!(scheduler.pool.available(), 6);
        submit(&mut scheduler, 1, 14);
        step(&mut scheduler);
        assert_eq!((scheduler.waiting.len(), scheduler.running.len()), (1, 1));
        scheduler.remove(0);
        step(&mut scheduler);
        assert_eq!((scheduler.waiting.len(), scheduler.running[0].cached), (0, 12));
    }

    #[test]
    fn a_short_prompt_does_not_wait_for_a_long_one() {
        let info = ExecutorInfo { max_rows: 4, pages: 16, ..info() };
        let mut scheduler = Scheduler::new(&info, false, &EngineOptions::default());
        submit(&mut scheduler, 1, 12);
        submit(&mut scheduler, 2, 2);
        let mut plan = Plan::default();
        scheduler.schedule(&mut plan);
        assert_eq!(scheduler.rows, [2, 2], "the short one is done, the long one has begun");
        scheduler.advance(0, 2);
        scheduler.advance(1, 2);
        scheduler.running(1).push(9);
        scheduler.schedule(&mut plan);
        assert_eq!(scheduler.rows, [3, 1]);
    }

    #[test]
    fn guesses_borrow_what_nobody_needs() {
        for taken in [0, 4] {
            let mut scheduler = Scheduler::new(&info(), false, &EngineOptions::default());
            submit_tokens(&mut scheduler, vec![1, 2, 3, 1, 2, 3]);
            let mut plan = Plan::default();
            scheduler.schedule(&mut plan);
            assert_eq!(plan.batch.tokens.len(), 6, "a prompt is no answer");
            scheduler.running(0).push(1);
            scheduler.advance(0, 6);
            // Two guesses are worth it and need a page more than the next token does.
            let mut taken: Vec<_> = (0..taken).filter_map(|_| scheduler.pool.allocate()).collect();
            scheduler.schedule(&mut plan);
            let (tokens, pages): (&[u32], _) = if taken.is_empty() { (&[1, 2, 3], 5) } else { (&[1, 2], 4) };
            assert_eq!((&plan.batch.tokens[..], plan.batch.logit_rows.len()), (tokens, tokens.len()));
            assert_eq!(scheduler.running[0].pages.len(), pages);
            // The first is wrong: no page is left for the others.
            scheduler.running(0).push(9);
            scheduler.advance(0, tokens.len());
            assert_eq!((scheduler.running[0].computed, scheduler.running[0].tokens.len()), (7, 8));
            assert_eq!(scheduler.running[0].pages.len(), 4);
            assert_eq!((scheduler.guessed_tokens, scheduler.accepted_tokens), (tokens.len() as u64 - 1, 0));
            scheduler.pool.give_back(&mut taken);
            scheduler.remove(0);
            assert_eq!(scheduler.pool.available(), 8);
        }
    }
}
