//! Pages, prefixes, chunks and scores, as the executor and the statistics see them.

use wushi_engine::{Engine, EngineError, EngineOptions, Event, FinishReason, Request};
use wushi_graph::ExecutorInfo;

use crate::fake::{Fake, VOCAB, gate, info, wait_for};

fn run(engine: &Engine, request: Request) -> wushi_engine::Output {
    engine.submit(request).unwrap().finish().unwrap()
}

fn prompt(length: usize) -> Vec<u32> {
    (0..length as u32).collect()
}

fn limited(tokens: Vec<u32>, max_tokens: usize) -> Request {
    Request { max_tokens: Some(max_tokens), ..Request::new(tokens) }
}

#[test]
fn the_last_prompt_token_is_always_computed() {
    // Pages hold 4 tokens. Of a known prompt, all full pages before the last token are reused.
    for (length, cached) in [(1, 0), (3, 0), (4, 0), (5, 4), (8, 4), (9, 8), (12, 8), (13, 12)] {
        let engine = Fake::default().start(EngineOptions::default());
        assert_eq!(run(&engine, limited(prompt(length), 1)).usage.cached_tokens, 0);
        assert_eq!(run(&engine, limited(prompt(length), 1)).usage.cached_tokens, cached, "{length} tokens");
    }
}

#[test]
fn scores_are_never_skipped_by_the_cache() {
    let engine = Fake::default().start(EngineOptions::default());
    run(&engine, limited(prompt(30), 1));
    // The logits that score token n are those of position n - 1.
    for (from, cached) in [(1, 0), (4, 0), (5, 4), (8, 4), (9, 8), (29, 28), (30, 28)] {
        let scored = run(&engine, Request { score_from: Some(from), ..limited(prompt(30), 0) });
        assert_eq!(scored.usage.cached_tokens, cached, "from {from}");
        assert_eq!(scored.prompt_logprobs.len(), 30 - from);
        assert!(scored.prompt_logprobs.iter().map(|score| score.id).eq(from as u32..30));
        assert_eq!((scored.reason, scored.token_ids.len()), (FinishReason::Length, 0));
    }
}

#[test]
fn scores_are_log_probabilities() {
    let engine = Fake::default().start(EngineOptions::default());
    let scored =
        run(&engine, Request { score_from: Some(1), top_logprobs: Some(VOCAB), ..limited(prompt(20), 2) });
    assert_eq!(scored.logprobs.len(), 2);
    for entry in scored.prompt_logprobs.iter().chain(&scored.logprobs) {
        let sum: f64 = entry.top.iter().map(|(_, logprob)| f64::from(*logprob).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert!(entry.top.is_sorted_by(|a, b| a.1 >= b.1));
        assert!(entry.top.contains(&(entry.id, entry.logprob)));
    }
    // Greedy: the chosen token is the most probable one.
    assert!(scored.logprobs.iter().all(|entry| entry.top[0] == (entry.id, entry.logprob)));
}

#[test]
fn scores_come_before_the_first_token() {
    let engine = Fake::default().start(EngineOptions::default());
    let request = Request { score_from: Some(3), ..limited(prompt(3), 1) };
    let events: Vec<Event> = engine.submit(request).unwrap().collect();
    assert!(
        matches!(&events[..], [Event::Prompt(scores), Event::Token(_), Event::Finished(_)] if scores.is_empty()),
        "{events:?}"
    );
}

#[test]
fn a_prompt_alone_is_computed_and_cached() {
    let (engine, log) = Fake::default().start_with_log(EngineOptions::default());
    let output = run(&engine, limited(prompt(128), 0));
    assert_eq!((output.reason, output.text.as_str()), (FinishReason::Length, ""));
    assert!(log.batches().iter().all(|batch| batch.logit_rows.is_empty()));
    assert_eq!(engine.stats().pages_cached, 32);
    assert_eq!(run(&engine, limited(prompt(100), 1)).usage.cached_tokens, 96);
}

#[test]
fn an_answer_becomes_a_prefix() {
    let engine = Fake::default().start(EngineOptions::default());
    let first = run(&engine, limited(prompt(6), 11));
    let mut next = prompt(6);
    next.extend(&first.token_ids);
    // 17 tokens; the last was never computed.
    assert_eq!(run(&engine, limited(next, 1)).usage.cached_tokens, 16);
}

#[test]
fn without_a_prefix_cache_nothing_is_kept() {
    let engine = Fake::default().start(EngineOptions { prefix_cache: false, ..EngineOptions::default() });
    for _ in 0..2 {
        assert_eq!(run(&engine, limited(prompt(40), 10)).usage.cached_tokens, 0);
        assert_eq!((engine.stats().pages_cached, engine.stats().pages_free), (0, 256));
    }
}

#[test]
fn running_sequences_share_pages() {
    let (permits, before) = gate();
    let fake = Fake { before: Some(before), ..Fake::default() };
    let (engine, log) = fake.start_with_log(EngineOptions::default());
    let mut first = engine.submit(limited(prompt(41), 20)).unwrap();
    permits.send(()).unwrap();
    assert!(matches!(first.next(), Some(Event::Token(_))));
    let mut others: Vec<_> = Vec::new();
    for last in 0..4 {
        let mut tokens = prompt(40);
        tokens.push(100 + last);
        others.push(engine.submit(limited(tokens, 20)).unwrap());
    }
    drop(permits);
    assert!(first.finish().is_ok());
    for other in others {
        assert_eq!(other.finish().unwrap().usage.cached_tokens, 40);
    }
    let five = log.batches().into_iter().find(|batch| batch.spans.len() == 5).unwrap();
    let tables: Vec<_> = five.spans.iter().map(|span| &five.pages[span.pages.clone()]).collect();
    assert!(tables.iter().all(|table| table[..10] == tables[0][..10]));
}

#[test]
fn generating_sequences_come_before_prompts() {
    let (permits, before) = gate();
    let info = ExecutorInfo { max_rows: 8, ..info() };
    let (engine, log) = Fake { info: Some(info), before: Some(before), ..Fake::default() }
        .start_with_log(EngineOptions { prefill_chunk: Some(6), ..EngineOptions::default() });
    let mut first = engine.submit(limited(prompt(3), 30)).unwrap();
    permits.send(()).unwrap();
    assert!(matches!(first.next(), Some(Event::Token(_))));
    let second = engine.submit(limited(vec![9; 40], 5)).unwrap();
    drop(permits);
    first.finish().unwrap();
    second.finish().unwrap();
    let mixed: Vec<_> = log.batches().into_iter().filter(|batch| batch.spans.len() == 2).collect();
    let sizes = |at: usize| mixed[at].spans.iter().map(|span| span.rows.len()).collect::<Vec<_>>();
    assert_eq!(sizes(0), [1, 6]);
    assert_eq!(sizes(6), [1, 4]);
    assert_eq!(sizes(7), [1, 1]);
}

#[test]
fn prompts_are_cut_short_while_anyone_generates() {
    let (permits, before) = gate();
    let (engine, log) = Fake { before: Some(before), ..Fake::default() }
        .start_with_log(EngineOptions { step_tokens: Some(8), ..EngineOptions::default() });
    let mut first = engine.submit(limited(prompt(60), 12)).unwrap();
    permits.send(()).unwrap();
    assert!(matches!(first.next(), Some(Event::Token(_))));
    wait_for(|| log.batches().len() == 2);
    let others = [engine.submit(limited(vec![9; 30], 3)), engine.submit(limited(vec![8; 20], 3))];
    drop(permits);
    first.finish().unwrap();
    others.into_iter().for_each(|other| drop(other.unwrap().finish().unwrap()));
    let sizes: Vec<Vec<usize>> =
        log.batches().iter().map(|batch| batch.spans.iter().map(|span| span.rows.len()).collect()).collect();
    // Alone, a prompt comes in one piece. Later two share the budget, and what one leaves is the other's.
    let mut expected = vec![vec![60], vec![1]];
    expected.extend(vec![vec![1, 3, 4]; 5]);
    expected.extend([vec![1, 1, 6], vec![1, 1, 6], vec![1, 3], vec![1, 1], vec![1, 1]]);
    assert_eq!(sizes, expected);
}

#[test]
fn a_step_has_room_for_every_running_sequence() {
    let (permits, before) = gate();
    let (engine, log) = Fake { before: Some(before), ..Fake::default() }
        .start_with_log(EngineOptions { step_tokens: Some(2), ..EngineOptions::default() });
    let generations: Vec<_> =
        (0..5).map(|token| engine.submit(limited(vec![token; 3], 20)).unwrap()).collect();
    drop(permits);
    generations.into_iter().for_each(|generation| drop(generation.finish().unwrap()));
    let batches = log.batches();
    assert!(batches.iter().all(|batch| batch.spans.len() <= 2));
    // Two at a time: nobody's prompt waits for long behind two answers.
    assert!(batches.len() < 70, "{} steps", batches.len());
}

#[test]
fn a_common_prefix_is_computed_once() {
    let (permits, before) = gate();
    let (engine, log) =
        Fake { before: Some(before), ..Fake::default() }.start_with_log(EngineOptions::default());
    // Held up until all are there: four choices of one prompt, then one that shares its first half.
    let blocker = engine.submit(limited(vec![200], 1)).unwrap();
    wait_for(|| log.batches().len() == 1);
    let mut generations: Vec<_> =
        (0..4).map(|choice| engine.submit(Request { choice, ..limited(prompt(42), 3) }).unwrap()).collect();
    generations.push(engine.submit(limited([prompt(20), vec![7; 10]].concat(), 3)).unwrap());
    drop(permits);
    blocker.finish().unwrap();
    let cached: Vec<_> =
        generations.into_iter().map(|other| other.finish().unwrap().usage.cached_tokens).collect();
    assert_eq!(cached, [0, 40, 40, 40, 20]);
    assert_eq!(engine.stats().cached_tokens, 140);
    let batches = log.batches();
    let prefill = batches[1..].iter().flat_map(|batch| &batch.spans).map(|span| span.rows.len());
    assert_eq!(prefill.filter(|&rows| rows > 1).collect::<Vec<_>>(), [42, 2, 2, 2, 10]);
    // Nobody waits for pages that will never be shared.
    let engine = Fake::default().start(EngineOptions { prefix_cache: false, ..EngineOptions::default() });
    let generations = [0, 1].map(|choice| engine.submit(Request { choice, ..limited(prompt(42), 3) }));
    for generation in generations {
        assert_eq!(generation.unwrap().finish().unwrap().usage.cached_tokens, 0);
    }
}

#[test]
fn waiting_for_a_prefix_ends_with_its_sequence() {
    let (permits, before) = gate();
    let (engine, log) = Fake { before: Some(before), ..Fake::default() }
        .start_with_log(EngineOptions { prefill_chunk: Some(6), ..EngineOptions::default() });
    let first = engine.submit(limited(prompt(40), 3)).unwrap();
    permits.send(()).unwrap();
    wait_for(|| log.batches().len() == 2);
    let second = engine.submit(limited(prompt(40), 3)).unwrap();
    drop(first);
    drop(permits);
    // Of the first's two steps, three pages are left.
    assert_eq!(second.finish().unwrap().usage.cached_tokens, 12);
}

#[test]
fn nobody_overtakes() {
    let (permits, before) = gate();
    let fake =
        Fake { info: Some(ExecutorInfo { pages: 6, ..info() }), before: Some(before), ..Fake::default() };
    let (engine, log) = fake.start_with_log(EngineOptions::default());
    // While the first holds 4 pages, the second finds too few and the third would find enough.
    let generations = [(1, 13), (2, 17), (3, 2)]
        .map(|(token, length)| engine.submit(limited(vec![token; length], 3)).unwrap());
    drop(permits);
    generations.into_iter().for_each(|generation| drop(generation.finish().unwrap()));
    let prompts = log.batches().into_iter().flat_map(|batch| {
        let starts: Vec<u32> = batch
            .spans
            .iter()
            .filter(|span| span.start == 0)
            .map(|span| batch.tokens[span.rows.start])
            .collect();
        starts
    });
    assert_eq!(prompts.collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn answers_end_with_the_context() {
    let engine = Fake::default().start(EngineOptions::default());
    for length in [1, 100, 127] {
        let output = run(&engine, Request::new(prompt(length)));
        assert_eq!((output.reason, output.token_ids.len()), (FinishReason::Length, 128 - length));
    }
    // Fewer pages than context: the pages are the limit.
    let few = Fake { info: Some(ExecutorInfo { pages: 5, ..info() }), ..Fake::default() };
    let output = run(&few.start(EngineOptions::default()), Request::new(prompt(7)));
    assert_eq!((output.reason, output.token_ids.len()), (FinishReason::Length, 13));
}

#[test]
fn a_failing_step_ends_its_sequences_only() {
    let mut step = 0;
    let before = move |_: &wushi_graph::Batch| {
        step += 1;
        if step == 3 { Err(wushi_graph::ExecError::InvalidBatch("third".into())) } else { Ok(()) }
    };
    let fake = Fake { before: Some(Box::new(before)), ..Fake::default() };
    let engine = fake.start(EngineOptions::default());
    let error = engine.submit(limited(prompt(9), 9)).unwrap().finish().unwrap_err();
    assert!(matches!(error, EngineError::Executor(_)), "{error}");
    assert_eq!(engine.stats().pages_used, 0);
    let output = run(&engine, limited(prompt(9), 9));
    assert_eq!((output.token_ids.len(), output.usage.cached_tokens), (9, 8));
}
