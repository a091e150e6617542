//! An answer depends on the tokens, the sampling and the seed only.

use wushi_engine::{Engine, EngineOptions, Output, Request, Sampling};
use wushi_graph::ExecutorInfo;

use crate::fake::{Fake, Log, gate, info, wait_for};

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
        digest: true,
        ..Request::new(tokens.collect())
    }
}

/// What must not change: everything but durations and cache hits.
fn essence(mut output: Output) -> Output {
    output.timings = Default::default();
    output.usage.cached_tokens = 0;
    output
}

fn alone(index: u64) -> Output {
    let options = EngineOptions { prefix_cache: false, ..EngineOptions::default() };
    essence(Fake::default().start(options).submit(request(index)).unwrap().finish().unwrap())
}

/// Submits requests 0 to 32 before the first step may run.
fn together(info: ExecutorInfo, options: EngineOptions) -> (Engine, Log, Vec<Output>) {
    let (permits, before) = gate();
    let fake = Fake { info: Some(info), before: Some(before), ..Fake::default() };
    let (engine, log) = fake.start_with_log(options);
    let generations: Vec<_> = (0..33).map(|index| engine.submit(request(index)).unwrap()).collect();
    drop(permits);
    let outputs = generations.into_iter().map(|generation| essence(generation.finish().unwrap())).collect();
    (engine, log, outputs)
}

fn expect_alone(outputs: &[Output]) {
    for (index, output) in outputs.iter().enumerate() {
        assert_eq!(*output, alone(index as u64), "request {index}");
    }
}

#[test]
fn the_executor_tells_requests_apart() {
    let digests: std::collections::HashSet<_> = (0..33).map(|index| alone(index).logits_digest).collect();
    assert_eq!(digests.len(), 33);
}

#[test]
fn alone_or_among_others_in_any_chunks() {
    for prefill_chunk in [None, Some(1), Some(7), Some(64)] {
        let options = EngineOptions { prefill_chunk, prefix_cache: false, ..EngineOptions::default() };
        let (_engine, log, outputs) =
            together(ExecutorInfo { max_rows: 256, pages: 1024, ..info() }, options);
        expect_alone(&outputs);
        let batches = log.batches();
        assert!(batches.iter().any(|batch| batch.spans.len() == 33), "the sequences did run together");
        let longest = batches.iter().flat_map(|batch| &batch.spans).map(|span| span.rows.len()).max();
        assert_eq!(longest, Some(prefill_chunk.unwrap_or(70)), "chunks are as asked for");
    }
}

#[test]
fn with_room_for_few_rows_and_logits() {
    for (max_rows, max_logit_rows) in [(1, 1), (3, 2), (64, 1), (5, 40)] {
        let (_engine, _, outputs) =
            together(ExecutorInfo { max_rows, max_logit_rows, ..info() }, EngineOptions::default());
        expect_alone(&outputs);
    }
}

#[test]
fn with_few_pages() {
    // The longest request needs 25 pages.
    for (pages, prefill_chunk) in [(25, None), (40, None), (60, None), (40, Some(3))] {
        let options = EngineOptions { prefill_chunk, ..EngineOptions::default() };
        let (engine, log, outputs) = together(ExecutorInfo { pages, ..info() }, options);
        expect_alone(&outputs);
        assert!(engine.stats().preemptions > 0, "{pages} pages are few enough");
        assert!(log.batches().iter().any(|batch| batch.spans.len() > 1), "{pages} pages are enough for two");
        assert_eq!(engine.stats().pages_used, 0);
    }
}

#[test]
fn with_a_cold_or_warm_cache() {
    let (engine, log) = Fake::default().start_with_log(EngineOptions::default());
    let mut rows = Vec::new();
    for _ in 0..3 {
        let before = log.rows();
        for index in 0..12 {
            let output = engine.submit(request(index)).unwrap().finish().unwrap();
            assert_eq!(essence(output), alone(index), "request {index}");
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
    assert_eq!(essence(first), essence(second));
}

#[test]
fn with_a_cache_under_pressure() {
    let (engine, _) = Fake { info: Some(ExecutorInfo { pages: 30, ..info() }), ..Fake::default() }
        .start_with_log(EngineOptions::default());
    for index in (0..33).chain(0..33).rev() {
        let output = engine.submit(request(index)).unwrap().finish().unwrap();
        assert_eq!(essence(output), alone(index), "request {index}");
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
