//! What the engine does around a step: scheduling, sampling, text, events. The executor here computes nothing. Items are tokens.

use std::fmt;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use wushi_engine::{Engine, EngineOptions, Request, Sampling, Vocabulary};
use wushi_graph::{Batch, Computed, ExecError, Executor, ExecutorInfo};

fn main() {
    divan::main();
}

const TOKENS: usize = 16;
const MOST: usize = 32;

/// Gives every row the same logits.
struct Idle {
    info: ExecutorInfo,
    logits: Vec<f32>,
}

impl Idle {
    fn new(vocab: usize) -> Idle {
        let info = ExecutorInfo {
            vocab,
            page_tokens: 16,
            pages: 4 * MOST,
            max_rows: MOST,
            max_logit_rows: MOST,
            context: 64,
        };
        let mut state = 1u32;
        let row: Vec<f32> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 20) as f32 - 8.0
        })
        .take(vocab)
        .collect();
        Idle { info, logits: row.repeat(MOST) }
    }
}

impl Executor for Idle {
    fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    fn run(&mut self, batch: &Batch) -> Result<Computed<'_>, ExecError> {
        let logits = &self.logits[..batch.logit_rows.len() * self.info.vocab];
        Ok(Computed { logits, states: &[] })
    }
}

/// Every token is one letter.
struct Letters;

impl Vocabulary for Letters {
    fn token_bytes(&self, _id: u32) -> &[u8] {
        b"x"
    }

    fn is_control(&self, _id: u32) -> bool {
        false
    }
}

/// So many sequences at once, over a vocabulary.
#[derive(Clone, Copy)]
struct Case {
    sequences: usize,
    vocab: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.sequences, self.vocab)
    }
}

const CASES: [Case; 4] = [
    Case { sequences: 1, vocab: 49_152 },
    Case { sequences: MOST, vocab: 49_152 },
    Case { sequences: 1, vocab: 151_936 },
    Case { sequences: MOST, vocab: 151_936 },
];

fn answers(bencher: Bencher<'_, '_>, case: Case, sampling: Sampling) {
    let options = EngineOptions { prefix_cache: false, speculate: false, ..EngineOptions::default() };
    let engine =
        Engine::start(Box::new(Idle::new(case.vocab)), Arc::new(Letters), options).expect("sizes that fit");
    let request = Request { sampling, max_tokens: Some(TOKENS), ..Request::new(vec![1]) };
    bencher.counter(ItemsCount::new(case.sequences * TOKENS)).bench_local(|| {
        let answers: Vec<_> = (0..case.sequences)
            .map(|choice| {
                let request = Request { choice: choice as u32, ..request.clone() };
                engine.submit(request).expect("a request that fits")
            })
            .collect();
        answers.into_iter().for_each(|answer| {
            answer.finish().expect("an answer");
        });
    });
}

#[divan::bench(args = CASES)]
fn greedy(bencher: Bencher<'_, '_>, case: Case) {
    answers(bencher, case, Sampling { temperature: 0.0, ..Sampling::default() });
}

#[divan::bench(args = CASES)]
fn whole_vocabulary(bencher: Bencher<'_, '_>, case: Case) {
    answers(bencher, case, Sampling { temperature: 0.7, ..Sampling::default() });
}

#[divan::bench(args = CASES)]
fn top_p(bencher: Bencher<'_, '_>, case: Case) {
    answers(bencher, case, Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::default() });
}

#[divan::bench(args = CASES)]
fn top_k_of_40(bencher: Bencher<'_, '_>, case: Case) {
    answers(bencher, case, Sampling { temperature: 0.7, top_k: 40, ..Sampling::default() });
}
