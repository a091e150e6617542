//! An embedding depends on its tokens and the pooling only, though it shares steps and pages with all else.

use std::sync::mpsc::channel;

use wushi_engine::{Engine, EngineError, EngineOptions, Event, FinishReason, Pooling, Request};
use wushi_graph::{ExecutorInfo, StatesInfo};

use crate::fake::{Fake, VOCAB, WIDTH, gate, info, states, wait_for};

const POOLINGS: [Pooling; 3] = [Pooling::Mean, Pooling::First, Pooling::Last];

/// Texts of all lengths around the page and chunk sizes; some begin alike.
fn text(index: usize) -> (Vec<u32>, Pooling) {
    let length = 1 + index * 13 % 70;
    let common = if index.is_multiple_of(3) { 30 } else { 0 };
    let tokens = (0..length).map(|at| if at < common { 5 } else { ((index * 31 + at * 17) % 250) as u32 });
    (tokens.collect(), POOLINGS[index / 2 % 3])
}

fn alone(index: usize) -> Vec<f32> {
    let options = EngineOptions { prefix_cache: false, ..EngineOptions::default() };
    let (tokens, pooling) = text(index);
    Fake::default().start(options).embed(tokens, pooling).unwrap().vector
}

/// Queues texts, and a request for an answer after every second one, before the first step may run.
fn together(info: ExecutorInfo, fake: Fake, options: EngineOptions) -> Engine {
    let (permits, before) = gate();
    let answers = !fake.states.is_some_and(|states| states.only);
    let engine = Fake { info: Some(info), before: Some(before), ..fake }.start(options);
    let (mut embeddings, mut generations) = (Vec::new(), Vec::new());
    for index in 0..24 {
        let (tokens, pooling) = text(index);
        let (sender, events) = channel();
        let ticket =
            engine.embed_with(tokens.clone(), pooling, move |event| sender.send(event).unwrap()).unwrap();
        embeddings.push((ticket, events));
        if answers && index.is_multiple_of(2) {
            let request = Request { max_tokens: Some(20), digest: true, ..Request::new(tokens) };
            generations.push((request.clone(), engine.submit(request).unwrap()));
        }
    }
    drop(permits);
    for (index, (_ticket, events)) in embeddings.into_iter().enumerate() {
        let events: Vec<Event> = events.iter().collect();
        let [Event::Embedding(vector), Event::Finished(finished)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(*vector, alone(index), "text {index}");
        assert_eq!(finished.reason, FinishReason::Length);
        assert_eq!(finished.usage.prompt_tokens, text(index).0.len());
        assert_eq!((finished.usage.completion_tokens, finished.logits_digest), (0, None));
    }
    for (request, generation) in generations {
        let output = generation.finish().unwrap();
        let alone = Fake::default().start(EngineOptions::default());
        let expected = alone.submit(request).unwrap().finish().unwrap();
        assert_eq!(output.logits_digest, expected.logits_digest);
    }
    assert_eq!(engine.stats().pages_used, 0);
    engine
}

#[test]
fn embeddings_tell_texts_and_poolings_apart() {
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for pooling in POOLINGS {
        let engine = Fake::default().start(EngineOptions::default());
        for last in [7, 8] {
            seen.push(engine.embed(vec![1, 2, last], pooling).unwrap().vector);
        }
        assert_eq!(seen.last().unwrap().len(), WIDTH);
        assert_eq!(engine.embedding_width(), Some(WIDTH));
    }
    // The first token knows nothing of the last.
    let same = |a: usize, b: usize| seen[a] == seen[b];
    assert!(!same(0, 1) && same(2, 3) && !same(4, 5) && !same(0, 2) && !same(0, 4) && !same(2, 4));
}

#[test]
fn alone_or_among_others_in_any_chunks() {
    for prefill_chunk in [None, Some(1), Some(7)] {
        for prefix_cache in [false, true] {
            let options = EngineOptions { prefill_chunk, prefix_cache, ..EngineOptions::default() };
            together(ExecutorInfo { max_rows: 256, pages: 1024, ..info() }, Fake::default(), options);
        }
    }
}

#[test]
fn with_room_for_few_rows_logits_and_pages() {
    for (max_rows, max_logit_rows) in [(1, 1), (3, 2), (64, 1)] {
        let info = ExecutorInfo { max_rows, max_logit_rows, ..info() };
        together(info, Fake::default(), EngineOptions::default());
    }
    for (pages, prefill_chunk) in [(25, None), (40, Some(3))] {
        let options = EngineOptions { prefill_chunk, ..EngineOptions::default() };
        let engine = together(ExecutorInfo { pages, ..info() }, Fake::default(), options);
        assert!(engine.stats().preemptions > 0, "{pages} pages are few enough");
    }
}

#[test]
fn a_cached_prefix_gives_no_states_and_is_computed_again_where_they_are_wanted() {
    let (engine, log) = Fake::default().start_with_log(EngineOptions::default());
    let tokens: Vec<u32> = (0..41).collect();
    for (pooling, cached) in [(Pooling::Last, 40), (Pooling::Mean, 0), (Pooling::First, 0)] {
        let cold = Fake::default().start(EngineOptions::default()).embed(tokens.clone(), pooling).unwrap();
        for round in 0..2 {
            let before = log.rows();
            let warm = engine.embed(tokens.clone(), pooling).unwrap();
            assert_eq!(warm.vector, cold.vector, "{pooling:?}");
            let expected = if round == 0 && pooling == Pooling::Last { 0 } else { cached };
            assert_eq!(warm.usage.cached_tokens, expected, "{pooling:?}");
            assert_eq!(log.rows() - before, tokens.len() - expected);
        }
    }
}

#[test]
fn what_was_pooled_before_a_preemption_stays() {
    for pooling in POOLINGS {
        let tokens: Vec<u32> = (100..160).collect();
        let alone = Fake::default().start(EngineOptions::default()).embed(tokens.clone(), pooling).unwrap();
        let (permits, before) = gate();
        let fake = Fake {
            info: Some(ExecutorInfo { pages: 20, ..info() }),
            before: Some(before),
            ..Fake::default()
        };
        let options = EngineOptions { prefill_chunk: Some(1), speculate: false, ..EngineOptions::default() };
        let (engine, log) = fake.start_with_log(options);
        let older = engine.submit(Request { max_tokens: Some(70), ..Request::new(vec![9; 4]) }).unwrap();
        let (sender, events) = channel();
        let _ticket = engine.embed_with(tokens, pooling, move |event| sender.send(event).unwrap()).unwrap();
        drop(permits);
        assert_eq!(events.recv().unwrap(), Event::Embedding(alone.vector));
        assert!(matches!(events.recv().unwrap(), Event::Finished(_)));
        older.finish().unwrap();
        assert_eq!(engine.stats().preemptions, 1);
        // The states that had been pooled are not asked for again.
        let wanted: usize = log.batches().iter().map(|batch| batch.state_rows.len()).sum();
        assert_eq!(wanted, if pooling == Pooling::Mean { 60 } else { 1 });
    }
}

#[test]
fn texts_that_must_come_whole() {
    for (max_rows, pages) in [(128, 256), (75, 20)] {
        let states = Some(StatesInfo { whole: true, only: true, ..states() });
        // Nothing that cuts texts elsewhere may do so here.
        let options =
            EngineOptions { prefill_chunk: Some(2), step_tokens: Some(40), ..EngineOptions::default() };
        let fake = Fake { states, ..Fake::default() };
        let engine = together(ExecutorInfo { max_rows, pages, ..info() }, fake, options);
        assert!(engine.stats().steps < 24, "several texts share a step");
        assert_eq!(engine.stats().cached_tokens, 0);
        assert_eq!(engine.submit(Request::new(vec![1])).err(), Some(EngineError::NoText));
    }
    let states = Some(StatesInfo { whole: true, ..states() });
    let fake = Fake { states, info: Some(ExecutorInfo { max_rows: 10, ..info() }), ..Fake::default() };
    let error = fake.start(EngineOptions::default()).embed(vec![1; 11], Pooling::Mean).unwrap_err();
    assert_eq!(error, EngineError::PromptTooLong { prompt: 11, answer: 0, context: 10 });
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    let engine = Fake::default().start(EngineOptions::default());
    let refusal = |tokens: Vec<u32>| engine.embed(tokens, Pooling::Mean).unwrap_err();
    assert_eq!(refusal(vec![]), EngineError::EmptyPrompt);
    // A text may fill the context, as nothing follows it.
    assert_eq!(engine.embed(vec![1; 128], Pooling::Mean).unwrap().usage.prompt_tokens, 128);
    assert_eq!(refusal(vec![1; 129]), EngineError::PromptTooLong { prompt: 129, answer: 0, context: 128 });
    let unknown = EngineError::UnknownToken { place: "prompt", id: VOCAB as u32, vocab: VOCAB };
    assert_eq!(refusal(vec![1, VOCAB as u32]), unknown);
    let none = Some(StatesInfo { width: 0, ..states() });
    let engine = Fake { states: none, ..Fake::default() }.start(EngineOptions::default());
    assert_eq!(engine.embed(vec![1], Pooling::Mean).unwrap_err(), EngineError::NoStates);
    assert_eq!(engine.embedding_width(), None);
}

#[test]
fn states_that_are_damaged_or_missing_end_the_embedding() {
    let damaged = |after: fn(&mut Vec<f32>)| {
        let fake = Fake { after_states: Some(Box::new(after)), ..Fake::default() };
        fake.start(EngineOptions::default()).embed(vec![1, 2, 3], Pooling::Mean).unwrap_err()
    };
    let infinite = damaged(|states| states[4] = f32::INFINITY);
    assert_eq!(infinite, EngineError::NonFiniteEmbedding { value: f32::INFINITY });
    let missing = damaged(|states| states.truncate(3 * WIDTH - 1));
    assert_eq!(missing, EngineError::StateCount { expected: 3 * WIDTH, found: 3 * WIDTH - 1 });
}

#[test]
fn an_embedding_can_be_cancelled() {
    let (permits, before) = gate();
    let engine = Fake { before: Some(before), ..Fake::default() }
        .start(EngineOptions { prefill_chunk: Some(1), ..EngineOptions::default() });
    let (sender, events) = channel();
    let ticket =
        engine.embed_with(vec![1; 50], Pooling::Mean, move |event| sender.send(event).unwrap()).unwrap();
    permits.send(()).unwrap();
    wait_for(|| engine.stats().steps == 1);
    drop(ticket);
    drop(permits);
    let Event::Finished(finished) = events.recv().unwrap() else { panic!("no end") };
    assert_eq!(finished.reason, FinishReason::Cancelled);
    assert!(engine.stats().steps < 10);
}
