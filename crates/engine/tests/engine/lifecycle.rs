//! How answers end: stops, limits, cancellation, failure, shutdown.

use std::time::Duration;

use wushi_engine::{Engine, EngineError, EngineOptions, Event, FinishReason, Output, Request, Sampling};

use crate::fake::{EOS, Fake, Log, VOCAB, gate, wait_for};

/// Answers "a" with "bcdef…".
fn counting() -> Engine {
    Fake { counts_up: true, ..Fake::default() }.start(EngineOptions::default())
}

fn from_a(max_tokens: usize) -> Request {
    Request { max_tokens: Some(max_tokens), ..Request::new(vec![b'a'.into()]) }
}

fn run(engine: &Engine, request: Request) -> Output {
    engine.submit(request).unwrap().finish().unwrap()
}

#[test]
fn length() {
    let output = run(&counting(), from_a(5));
    assert_eq!((output.text.as_str(), output.reason), ("bcdef", FinishReason::Length));
    assert_eq!((output.usage.prompt_tokens, output.usage.completion_tokens), (1, 5));
    assert!(output.timings.ttft >= output.timings.prefill && output.timings.decode > Duration::ZERO);
    assert!(output.logits_digest.is_none() && output.logprobs.is_empty());
}

#[test]
fn stop_tokens_count_but_are_no_text() {
    let output = run(&counting(), Request { stop_tokens: vec![EOS, b'e'.into()], ..from_a(50) });
    assert_eq!((output.text.as_str(), output.reason), ("bcd", FinishReason::StopToken(b'e'.into())));
    assert_eq!(output.token_ids, b"bcde".map(u32::from));
    assert_eq!(output.usage.completion_tokens, 4);
}

#[test]
fn control_tokens_are_text_where_the_request_says_so() {
    let sampling = || Sampling { logit_bias: vec![(EOS, 100.0)], ..Sampling::default() };
    assert_eq!(run(&counting(), Request { sampling: sampling(), ..from_a(1) }).text, "");
    let spelled = Request { sampling: sampling(), spelled_tokens: vec![EOS], ..from_a(1) };
    let spelled = run(&counting(), spelled);
    assert_eq!((spelled.text.as_str(), spelled.reason), ("<control>", FinishReason::Length));
}

#[test]
fn stop_strings_end_before_themselves() {
    let stops = ["xyz", "efg", "fghi"].map(String::from).to_vec();
    let output = run(&counting(), Request { stop_strings: stops, ..from_a(50) });
    assert_eq!((output.text.as_str(), output.reason), ("bcd", FinishReason::StopString(1)));
    assert_eq!(output.usage.completion_tokens, 6);
}

#[test]
fn text_held_back_comes_at_the_end() {
    let stops = vec!["defX".to_string()];
    let events: Vec<Event> =
        counting().submit(Request { stop_strings: stops, ..from_a(4) }).unwrap().collect();
    let texts: Vec<&str> = events
        .iter()
        .map(|event| match event {
            Event::Token(token) => token.text.as_str(),
            Event::Finished(finished) => finished.tail.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, ["b", "c", "", "", "de"]);
}

#[test]
fn control_tokens_are_no_text() {
    let bias = vec![(EOS + 3, 100.0)];
    let sampling = Sampling { logit_bias: bias, ..Sampling::default() };
    let output = run(&counting(), Request { sampling, ..from_a(3) });
    assert_eq!((output.text.as_str(), output.token_ids), ("", vec![EOS + 3; 3]));
}

#[test]
fn penalties_see_prompt_and_answer() {
    let engine = counting();
    let answer = |prompt: Vec<u32>, repetition_penalty| {
        let logit_bias = vec![(7, 59.0)];
        let sampling = Sampling { logit_bias, repetition_penalty, ..Sampling::default() };
        run(&engine, Request { sampling, max_tokens: Some(4), ..Request::new(prompt) }).token_ids
    };
    // The bias beats the successor's 40 and up to 16 of noise.
    assert_eq!(answer(vec![100], 1.0), [7; 4]);
    assert_eq!(answer(vec![100], 100.0), [7, 8, 9, 10]);
    assert_eq!(answer(vec![7, 100], 100.0), [101, 102, 103, 104]);
    assert_eq!(answer(vec![7, 100], 1.0), [7; 4]);
}

#[test]
fn unfinished_utf8_is_replaced_at_the_end() {
    // The sequence goes on with 0xc3, the beginning of a two-byte character.
    let request = Request { max_tokens: Some(1), ..Request::new(vec![0xc2]) };
    assert_eq!(run(&counting(), request).text, "\u{fffd}");
}

#[test]
fn the_digest_is_of_the_raw_logits() {
    use std::sync::{Arc, Mutex};
    let raw = Arc::new(Mutex::new(Vec::new()));
    let after = {
        let raw = raw.clone();
        move |logits: &mut Vec<f32>| raw.lock().unwrap().extend_from_slice(logits)
    };
    let engine = Fake { after: Some(Box::new(after)), ..Fake::default() }.start(EngineOptions::default());
    let sampling = Sampling {
        temperature: 2.0,
        repetition_penalty: 1.5,
        logit_bias: vec![(3, 10.0)],
        ..Sampling::default()
    };
    let request = Request { sampling, digest: true, max_tokens: Some(6), ..Request::new(vec![1, 2, 3]) };
    let output = run(&engine, request);
    let bytes: Vec<u8> = raw.lock().unwrap().iter().flat_map(|logit| logit.to_le_bytes()).collect();
    assert_eq!(bytes.len(), 6 * VOCAB * 4);
    assert_eq!(output.logits_digest, Some(blake3::hash(&bytes).into()));
}

#[test]
fn logits_that_are_not_finite_end_the_sequence_alone() {
    let mut step = 0;
    let after = move |logits: &mut Vec<f32>| {
        step += 1;
        if step == 3 {
            logits[7] = f32::NAN;
        }
    };
    let engine = Fake { after: Some(Box::new(after)), ..Fake::default() }.start(EngineOptions::default());
    let request = Request { max_tokens: Some(9), ..Request::new(vec![1, 2]) };
    let mut events: Vec<Event> = engine.submit(request.clone()).unwrap().collect();
    // The third row was computed from the second generated token, at position 3.
    let Some(Event::Failed(EngineError::NonFiniteLogit { position: 3, token: 7, value })) = events.pop()
    else {
        panic!("{events:?}")
    };
    assert!(value.is_nan());
    assert_eq!(events.len(), 2);
    assert_eq!(engine.stats().pages_used, 0);
    assert_eq!(run(&engine, request).token_ids.len(), 9);
}

#[test]
fn a_bias_against_everything_is_an_error() {
    let logit_bias = (0..VOCAB as u32).map(|id| (id, f32::NEG_INFINITY)).collect();
    let sampling = Sampling { logit_bias, ..Sampling::default() };
    let error = counting().submit(Request { sampling, ..from_a(3) }).unwrap().finish().unwrap_err();
    assert_eq!(error, EngineError::NoCandidate { position: 1 });
}

/// One sequence at a time, one step per permit.
fn gated() -> (std::sync::mpsc::Sender<()>, Engine, Log) {
    let (permits, before) = gate();
    let fake = Fake { before: Some(before), counts_up: true, ..Fake::default() };
    let (engine, log) =
        fake.start_with_log(EngineOptions { prefix_cache: false, ..EngineOptions::default() });
    (permits, engine, log)
}

#[test]
fn cancelling_ends_with_what_came_so_far() {
    let (permits, engine, log) = gated();
    let mut generation = engine.submit(from_a(100)).unwrap();
    permits.send(()).unwrap();
    assert!(matches!(generation.next(), Some(Event::Token(_))));
    generation.canceller().cancel();
    drop(permits);
    // The step under way may still bring a token, no other does.
    let output = generation.finish().unwrap();
    assert_eq!(output.reason, FinishReason::Cancelled);
    assert!(output.usage.completion_tokens <= 2 && log.batches().len() <= 2);
    assert_eq!(engine.stats().pages_used, 0);
    assert_eq!(run(&engine, from_a(2)).text, "bc");
}

#[test]
fn a_waiting_request_can_be_cancelled() {
    let (permits, engine, log) = gated();
    let running = engine.submit(from_a(2)).unwrap();
    let waiting = engine.submit(from_a(100)).unwrap();
    waiting.cancel();
    drop(permits);
    let output = waiting.finish().unwrap();
    assert_eq!((output.reason, output.usage.completion_tokens), (FinishReason::Cancelled, 0));
    assert_eq!(running.finish().unwrap().text, "bc");
    assert!(log.batches().iter().all(|batch| batch.spans.len() == 1));
}

#[test]
fn dropping_a_generation_frees_its_pages_within_a_step() {
    let (permits, engine, log) = gated();
    let mut generation = engine.submit(from_a(100)).unwrap();
    permits.send(()).unwrap();
    generation.next();
    drop(generation);
    permits.send(()).unwrap();
    wait_for(|| engine.stats().running == 0 && engine.stats().pages_used == 0);
    assert!(log.batches().len() <= 2);
}

#[test]
fn pages_do_not_leak() {
    let fake = Fake {
        info: Some(wushi_graph::ExecutorInfo { pages: 48, ..crate::fake::info() }),
        ..Fake::default()
    };
    let engine = fake.start(EngineOptions::default());
    let mut state = 7u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut pending = Vec::new();
    for _ in 0..200 {
        let tokens = (0..1 + random(90)).map(|_| random(2) as u32).collect();
        let request = Request {
            max_tokens: Some(random(40) as usize),
            score_from: (random(4) == 0).then_some(1),
            sampling: Sampling { temperature: random(2) as f32, ..Sampling::default() },
            ..Request::new(tokens)
        };
        let mut generation = engine.submit(request).unwrap();
        match random(4) {
            0 => generation.cancel(),
            1 => drop(generation.next()),
            _ => pending.push(generation),
        }
    }
    for generation in pending {
        generation.finish().unwrap();
    }
    wait_for(|| engine.stats().running == 0 && engine.stats().waiting == 0);
    let stats = engine.stats();
    assert_eq!((stats.pages_used, stats.pages_cached + stats.pages_free), (0, 48));
}

#[test]
fn dropping_the_engine_ends_its_answers() {
    let (permits, engine, _) = gated();
    let mut generation = engine.submit(from_a(100)).unwrap();
    let waiting = engine.submit(from_a(100)).unwrap();
    permits.send(()).unwrap();
    generation.next();
    let dropping = std::thread::spawn(move || drop(engine));
    // One step at a time until the thread notices, long before the answer's end.
    while !dropping.is_finished() {
        let _ = permits.send(());
        std::thread::sleep(Duration::from_millis(5));
    }
    dropping.join().unwrap();
    assert_eq!(generation.finish().unwrap_err(), EngineError::Stopped);
    assert_eq!(waiting.finish().unwrap_err(), EngineError::Stopped);
}

#[test]
fn a_panic_surfaces_as_an_error() {
    let mut step = 0;
    let before = move |_: &wushi_graph::Batch| {
        step += 1;
        assert!(step < 3, "third step");
        Ok(())
    };
    let engine = Fake { before: Some(Box::new(before)), ..Fake::default() }.start(EngineOptions::default());
    let panicked = EngineError::Panicked("third step".into());
    let request = Request { max_tokens: Some(9), ..Request::new(vec![1]) };
    let events: Vec<Event> = engine.submit(request.clone()).unwrap().collect();
    assert_eq!(events.last(), Some(&Event::Failed(panicked.clone())));
    // Submissions fail too, at once or as soon as the thread is gone.
    let after = engine.submit(request).and_then(|generation| generation.finish());
    assert_eq!(after.unwrap_err(), panicked);
}

#[test]
fn an_idle_engine_sleeps_and_wakes() {
    let engine = counting();
    assert_eq!(run(&engine, from_a(1)).text, "b");
    let steps = engine.stats().steps;
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(engine.stats().steps, steps);
    assert_eq!(run(&engine, from_a(2)).text, "bc");
    assert_eq!(engine.stats().completion_tokens, 3);
}
