//! An answer depends on the tokens, the sampling and the seed only.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use wushi_engine::{
    Constraint, Engine, EngineOptions, Event, Finished, Request, Sampling, Stats, Ticket, Timings, Token,
    Usage,
};
use wushi_graph::{Batch, ExecutorInfo};

use crate::fake::{EOS, Fake, Log, VOCAB, gate, info, mix, wait_for};

/// Prompts of all lengths around the page and chunk sizes; some begin alike.
fn request(index: u64) -> Request {
    let length = 1 + (index * 11 % 70) as usize;
    let common = if index.is_multiple_of(3) { 40 } else { 0 };
    let tokens =
        (0..length).map(|at| if at < common { 5 } else { (index as u32 * 31 + at as u32 * 17) % 250 });
    Request {
        sampling: Sampling {
            temperature: if index.is_multiple_of(4) { 0.0 } else { 1.3 },
            top_k: if index.is_multiple_of(2) { 50 } else { 0 },
            top_p: if index % 5 < 2 { 0.9 } else { 1.0 },
            repetition_penalty: if index % 3 == 1 { 1.2 } else { 1.0 },
            frequency_penalty: if index % 6 == 2 { 0.3 } else { 0.0 },
            ..Sampling::default()
        },
        seed: index / 2,
        choice: (index % 2) as u32,
        max_tokens: Some(20 + index as usize % 13),
        top_logprobs: (index.is_multiple_of(2)).then_some(3),
        score_from: (index.is_multiple_of(5)).then_some(1 + length / 2),
        stop_tokens: vec![EOS],
        stop_strings: if index.is_multiple_of(8) { vec!["\u{4}\u{5}x".into()] } else { Vec::new() },
        digest: true,
        ..Request::new(tokens.collect())
    }
}

/// Allows three quarters of the tokens, which ones depends on all tokens so far.
struct Picky(u64);

impl Constraint for Picky {
    fn allowed(&mut self, mask: &mut [u32]) -> Result<(), String> {
        let ids = (0..VOCAB as u32).filter(|&id| !mix(self.0, id.into()).is_multiple_of(4));
        ids.for_each(|id| mask[id as usize / 32] |= 1 << (id % 32));
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        self.0 = mix(self.0, token.into());
        Ok(())
    }
}

/// A request under way: its hold and its events.
type Pending = (Ticket, Receiver<Event>);

fn submit(engine: &Engine, index: u64) -> Pending {
    let constraint = (index % 7 > 4).then(|| Box::new(Picky(index)) as Box<dyn Constraint>);
    let (sender, events) = channel();
    let ticket = engine.submit_with(request(index), constraint, move |event| sender.send(event).unwrap());
    (ticket.unwrap(), events)
}

/// What must not change: everything but durations and cache hits.
fn essence((_ticket, events): Pending) -> Vec<Event> {
    let unchanging = events.into_iter().map(|event| match event {
        Event::Token(token) => Event::Token(Token { at: Duration::ZERO, ..token }),
        Event::Finished(finished) => Event::Finished(Finished {
            usage: Usage { cached_tokens: 0, ..finished.usage },
            timings: Timings::default(),
            ..finished
        }),
        other => other,
    });
    unchanging.collect()
}

fn digest(events: &[Event]) -> [u8; 32] {
    let Some(Event::Finished(finished)) = events.last() else { panic!("{events:?}") };
    finished.logits_digest.unwrap()
}

fn fake() -> Fake {
    Fake { repeats: true, ..Fake::default() }
}

fn alone(index: u64) -> Vec<Event> {
    let options = EngineOptions { prefix_cache: false, speculate: false, ..EngineOptions::default() };
    essence(submit(&fake().start(options), index))
}

/// Submits requests 0 to 32 before the first step may run.
fn together(info: ExecutorInfo, options: EngineOptions) -> (Engine, Log, Vec<Vec<Event>>) {
    let (permits, before) = gate();
    let fake = Fake { info: Some(info), before: Some(before), ..fake() };
    let (engine, log) = fake.start_with_log(options);
    let pending: Vec<_> = (0..33).map(|index| submit(&engine, index)).collect();
    drop(permits);
    let answers = pending.into_iter().map(essence).collect();
    (engine, log, answers)
}

fn expect_alone(answers: &[Vec<Event>]) {
    for (index, events) in answers.iter().enumerate() {
        assert_eq!(*events, alone(index as u64), "request {index}");
    }
}

#[test]
fn the_executor_tells_requests_apart() {
    let digests: std::collections::HashSet<_> = (0..33).map(|index| digest(&alone(index))).collect();
    assert_eq!(digests.len(), 33);
}

#[test]
fn alone_or_among_others_in_any_chunks() {
    for prefill_chunk in [None, Some(1), Some(7), Some(64)] {
        let options = EngineOptions {
            prefill_chunk,
            prefix_cache: false,
            speculate: false,
            ..EngineOptions::default()
        };
        let (_engine, log, answers) =
            together(ExecutorInfo { max_rows: 256, pages: 1024, ..info() }, options);
        expect_alone(&answers);
        let batches = log.batches();
        assert!(batches.iter().any(|batch| batch.spans.len() == 33), "the sequences did run together");
        let longest = batches.iter().flat_map(|batch| &batch.spans).map(|span| span.rows.len()).max();
        // A share of a step's rows has more than 7 for each of 33 prompts.
        match prefill_chunk {
            Some(few @ 1..=7) => assert_eq!(longest, Some(few), "chunks are as asked for"),
            _ => assert!(longest > Some(7) && longest <= Some(prefill_chunk.unwrap_or(70)), "{longest:?}"),
        }
    }
}

#[test]
fn with_room_for_few_rows_and_logits() {
    for (max_rows, max_logit_rows) in [(1, 1), (3, 2), (64, 1), (5, 40)] {
        let (_engine, _, answers) =
            together(ExecutorInfo { max_rows, max_logit_rows, ..info() }, EngineOptions::default());
        expect_alone(&answers);
    }
}

#[test]
fn with_guessed_tokens() {
    let options = EngineOptions { prefix_cache: false, ..EngineOptions::default() };
    let (engine, log, answers) = together(ExecutorInfo { pages: 1024, ..info() }, options.clone());
    expect_alone(&answers);
    let Stats { guessed_tokens, accepted_tokens, .. } = engine.stats();
    assert!(accepted_tokens > 10 && guessed_tokens > accepted_tokens, "{:?}", engine.stats());
    let logits: usize = log.batches().iter().map(|batch| batch.logit_rows.len()).sum();
    assert!(logits as u64 > engine.stats().completion_tokens, "wrong guesses had logits of their own");
    // One at a time they are worth more.
    let engine = fake().start(options);
    for index in 0..33 {
        assert_eq!(essence(submit(&engine, index)), alone(index), "request {index}");
    }
    assert!(engine.stats().accepted_tokens > accepted_tokens, "{:?}", engine.stats());
    assert!(engine.stats().accepted_tokens * 5 > engine.stats().completion_tokens, "{:?}", engine.stats());
}

#[test]
fn with_few_pages() {
    // The longest request needs 25 pages.
    for (pages, prefill_chunk) in [(25, None), (40, None), (60, None), (40, Some(3))] {
        for (speculate, step_tokens) in [(false, None), (true, None), (true, Some(9)), (false, Some(2))] {
            let options = EngineOptions { prefill_chunk, speculate, step_tokens, ..EngineOptions::default() };
            let (engine, log, answers) = together(ExecutorInfo { pages, ..info() }, options);
            expect_alone(&answers);
            let stats = engine.stats();
            assert!(stats.preemptions > 0 || step_tokens.is_some(), "{pages} pages are few enough");
            assert_eq!(stats.accepted_tokens > 0, speculate && step_tokens != Some(2));
            let most = |batch: &Batch| batch.spans.len() > 1;
            assert!(log.batches().iter().any(most), "{pages} pages are enough for two");
            assert_eq!(stats.pages_used, 0);
        }
    }
}

#[test]
fn within_a_budget_of_rows() {
    for step_tokens in [1, 2, 5, 17, 40] {
        let options = EngineOptions { step_tokens: Some(step_tokens), ..EngineOptions::default() };
        let (_, log, answers) = together(info(), options);
        expect_alone(&answers);
        // Longer steps are those that nobody waits for: none of their rows but a prompt's last has logits.
        for batch in log.batches().iter().filter(|batch| batch.tokens.len() > step_tokens) {
            assert!(batch.spans.iter().all(|span| span.rows.len() > 1), "{step_tokens}: {:?}", batch.spans);
        }
    }
}

#[test]
fn with_a_cold_or_warm_cache() {
    let (engine, log) = fake().start_with_log(EngineOptions { speculate: false, ..EngineOptions::default() });
    let mut rows = Vec::new();
    for _ in 0..3 {
        let before = log.rows();
        for index in 0..12 {
            assert_eq!(essence(submit(&engine, index)), alone(index), "request {index}");
        }
        rows.push(log.rows() - before);
    }
    assert!(rows[1] < rows[0] * 3 / 4, "the cache saved work: {rows:?}");
    assert_eq!(rows[1], rows[2]);
}

#[test]
fn with_a_prefix_that_is_still_being_computed() {
    let (permits, before) = gate();
    let fake = Fake { before: Some(before), ..Fake::default() };
    let (engine, log) =
        fake.start_with_log(EngineOptions { prefill_chunk: Some(7), ..EngineOptions::default() });
    let request = || Request { digest: true, max_tokens: Some(5), ..Request::new(vec![5; 40]) };
    let first = engine.submit(request()).unwrap();
    permits.send(()).unwrap();
    wait_for(|| log.batches().len() == 2);
    // The second step is under way; the newcomer waits for all full pages but the last token's.
    let second = engine.submit(request()).unwrap();
    drop(permits);
    let (first, second) = (first.finish().unwrap(), second.finish().unwrap());
    assert_eq!(second.usage.cached_tokens, 36);
    assert_eq!(log.rows(), (40 + 4) + (4 + 4), "nothing was computed twice");
    assert_eq!((first.token_ids, first.logits_digest), (second.token_ids, second.logits_digest));
}

#[test]
fn with_a_cache_under_pressure() {
    let (engine, _) = Fake { info: Some(ExecutorInfo { pages: 30, ..info() }), ..fake() }
        .start_with_log(EngineOptions::default());
    for index in (0..33).chain(0..33).rev() {
        assert_eq!(essence(submit(&engine, index)), alone(index), "request {index}");
    }
}

#[test]
fn seeds_and_choices_differ() {
    let (engine, _) = Fake::default().start_with_log(EngineOptions::default());
    let answer = |seed, choice| {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let request = Request { sampling, seed, choice, max_tokens: Some(30), ..Request::new(vec![1, 2, 3]) };
        engine.submit(request).unwrap().finish().unwrap().token_ids
    };
    assert_eq!(answer(1, 0), answer(1, 0));
    assert_ne!(answer(1, 0), answer(2, 0));
    assert_ne!(answer(1, 0), answer(1, 1));
}
