//! What clients do to an engine: wait in line, leave, demand a form, panic.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use wushi_engine::{
    Constraint, Engine, EngineError, EngineOptions, Event, FinishReason, Request, Sampling, Ticket,
};
use wushi_graph::ExecutorInfo;

use crate::fake::{EOS, Fake, VOCAB, gate, info, wait_for};

fn from_a(max_tokens: usize) -> Request {
    Request { max_tokens: Some(max_tokens), ..Request::new(vec![b'a'.into()]) }
}

fn submit(engine: &Engine, request: Request) -> (Ticket, Receiver<Event>) {
    let (sender, events) = channel();
    let ticket = engine.submit_with(request, None, move |event| sender.send(event).unwrap()).unwrap();
    (ticket, events)
}

/// Allows one word, then the stop token.
struct Word {
    word: &'static [u8],
    accepted: Arc<Mutex<Vec<u32>>>,
}

impl Constraint for Word {
    fn allowed(&mut self, mask: &mut [u32]) -> Result<(), String> {
        assert_eq!(mask.len(), VOCAB.div_ceil(32));
        assert!(mask.iter().all(|&word| word == 0));
        let next = self.word.get(self.accepted.lock().unwrap().len()).map_or(EOS, |&byte| byte.into());
        mask[next as usize / 32] |= 1 << (next % 32);
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        self.accepted.lock().unwrap().push(token);
        Ok(())
    }
}

/// What an answer under a constraint ends with.
fn last_of(engine: &Engine, request: Request, constraint: impl Constraint + 'static) -> (String, Event) {
    let (sender, events) = channel();
    let sink = move |event| sender.send(event).unwrap();
    let _ticket = engine.submit_with(request, Some(Box::new(constraint)), sink).unwrap();
    let mut text = String::new();
    for event in events {
        match event {
            Event::Token(token) => text.push_str(&token.text),
            last => return (text, last),
        }
    }
    panic!("no last event")
}

#[test]
fn a_constraint_decides_and_sees_every_token() {
    let engine = Fake { counts_up: true, ..Fake::default() }.start(EngineOptions::default());
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let word = Word { word: b"yes", accepted: accepted.clone() };
    // Neither bias nor penalty can bring back what the mask bans.
    let sampling = Sampling { logit_bias: vec![(b'n'.into(), 100.0)], ..Sampling::default() };
    let request = Request { sampling, stop_tokens: vec![EOS], ..from_a(50) };
    let (text, last) = last_of(&engine, request, word);
    assert_eq!(text, "yes");
    assert!(matches!(last, Event::Finished(finished) if finished.reason == FinishReason::StopToken(EOS)));
    assert_eq!(*accepted.lock().unwrap(), [b'y'.into(), b'e'.into(), b's'.into(), EOS]);
}

#[test]
fn a_constraint_leaves_the_digest_to_the_raw_logits() {
    let engine = Fake { counts_up: true, ..Fake::default() }.start(EngineOptions::default());
    let request = Request { digest: true, ..from_a(3) };
    let free = engine.submit(request.clone()).unwrap().finish().unwrap();
    let word = Word { word: b"bcd", accepted: Arc::default() };
    let (_, Event::Finished(held)) = last_of(&engine, request, word) else { panic!("failed") };
    assert_eq!((free.text.as_str(), held.logits_digest), ("bcd", free.logits_digest));
}

/// Fails as it is told to.
struct Broken(&'static str);

impl Constraint for Broken {
    fn allowed(&mut self, mask: &mut [u32]) -> Result<(), String> {
        match self.0 {
            "nothing" => {}
            "panic" => panic!("a bug"),
            "allowed" => return Err("no mask".into()),
            _ => mask.fill(u32::MAX),
        }
        Ok(())
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        Err("not this one".into())
    }
}

#[test]
fn a_constraint_that_fails_ends_its_request_only() {
    let engine = Fake { counts_up: true, ..Fake::default() }.start(EngineOptions::default());
    let other = engine.submit(from_a(20)).unwrap();
    let constraint = |text: &str| EngineError::Constraint(text.into());
    for (how, error) in [
        ("nothing", EngineError::NoCandidate { position: 1 }),
        ("panic", constraint("it panicked: a bug")),
        ("allowed", constraint("no mask")),
        ("accept", constraint("not this one")),
    ] {
        assert_eq!(last_of(&engine, from_a(5), Broken(how)), (String::new(), Event::Failed(error)), "{how}");
    }
    assert_eq!(other.finish().unwrap().text, "bcdefghijklmnopqrstu");
    assert_eq!(engine.stats().pages_used, 0);
}

#[test]
fn a_sink_that_panics_ends_its_request_only() {
    let (engine, log) = Fake { counts_up: true, ..Fake::default() }
        .start_with_log(EngineOptions { prefix_cache: false, ..EngineOptions::default() });
    let other = engine.submit(from_a(20)).unwrap();
    let calls = Arc::new(Mutex::new(0));
    let sink = {
        let calls = calls.clone();
        move |_| {
            *calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
            panic!("a bug of the caller")
        }
    };
    let ticket = engine.submit_with(from_a(100), None, sink).unwrap();
    assert_eq!(other.finish().unwrap().text, "bcdefghijklmnopqrstu");
    let called = || *calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    wait_for(|| called() == 1 && engine.stats().running == 0);
    assert_eq!((engine.stats().pages_used, ticket.queue_position()), (0, None));
    assert_eq!(called(), 1);
    assert!(log.batches().len() < 100, "nothing was computed for nobody");
}

#[test]
fn places_in_the_queue() {
    let (permits, before) = gate();
    let fake = Fake { before: Some(before), counts_up: true, ..Fake::default() };
    let engine = fake.start(EngineOptions { max_sequences: Some(1), ..EngineOptions::default() });
    let (running, events) = submit(&engine, from_a(2));
    permits.send(()).unwrap();
    assert!(matches!(events.recv(), Ok(Event::Token(_))));
    assert_eq!(running.queue_position(), None);
    let mut waiting: Vec<_> = (0..4).map(|_| submit(&engine, from_a(1))).collect();
    let places = |waiting: &[(Ticket, Receiver<Event>)]| -> Vec<_> {
        waiting.iter().map(|(ticket, _)| ticket.queue_position()).collect()
    };
    assert_eq!(places(&waiting), [0, 1, 2, 3].map(Some));
    // One leaves, which the next step notices; the first is done with that step, so the second begins.
    drop(waiting.remove(1));
    permits.send(()).unwrap();
    assert!(events.iter().any(|event| matches!(event, Event::Finished(_))));
    wait_for(|| places(&waiting) == [None, Some(0), Some(1)]);
    drop(permits);
    wait_for(|| places(&waiting) == [None; 3]);
}

#[test]
fn a_full_queue_refuses() {
    let (permits, before) = gate();
    let fake = Fake { before: Some(before), counts_up: true, ..Fake::default() };
    let options = EngineOptions { max_sequences: Some(1), max_waiting: Some(2), ..EngineOptions::default() };
    let engine = fake.start(options);
    let (_first, events) = submit(&engine, from_a(2));
    permits.send(()).unwrap();
    assert!(matches!(events.recv(), Ok(Event::Token(_))));
    let (second, _events) = submit(&engine, from_a(1));
    let (_third, third_events) = submit(&engine, from_a(1));
    let refused = || engine.submit(from_a(1)).err();
    let full = Some(EngineError::QueueFull { waiting: 2, limit: 2 });
    assert_eq!(refused(), full);
    // What was refused took no place; what leaves gives its own back.
    assert_eq!(refused(), full);
    drop(second);
    drop(permits);
    assert!(third_events.iter().any(|event| matches!(event, Event::Finished(_))));
    assert_eq!(refused(), None);
}

#[test]
fn refusals_without_a_race() {
    let (permits, before) = gate();
    let engine = Fake { before: Some(before), ..Fake::default() }.start(EngineOptions {
        max_sequences: Some(1),
        max_waiting: Some(50),
        ..EngineOptions::default()
    });
    let (_running, _events) = submit(&engine, from_a(100));
    wait_for(|| _running.queue_position().is_none());
    let accepted: usize = std::thread::scope(|scope| {
        let submit_some = || (0..40).filter_map(|_| engine.submit(from_a(1)).ok()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(submit_some)).collect();
        let kept: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        kept.iter().map(Vec::len).sum()
    });
    assert_eq!(accepted, 50);
    drop(permits);
}

#[test]
fn every_sink_hears_the_end_of_the_engine() {
    let mut step = 0;
    let before = move |_: &wushi_graph::Batch| {
        step += 1;
        assert!(step < 2, "second step");
        Ok(())
    };
    let info = ExecutorInfo { pages: 2, ..info() };
    let fake = Fake { info: Some(info), before: Some(Box::new(before)), ..Fake::default() };
    let engine = fake.start(EngineOptions::default());
    let requests: Vec<_> = (0..5).map(|_| submit(&engine, Request::new(vec![1; 4]))).collect();
    let panicked = Event::Failed(EngineError::Panicked("second step".into()));
    for (ticket, events) in requests {
        assert_eq!(events.iter().last().as_ref(), Some(&panicked));
        assert_eq!(ticket.queue_position(), None);
    }
}

#[test]
fn a_sink_may_hold_the_engine() {
    let engine = Arc::new(Fake { counts_up: true, ..Fake::default() }.start(EngineOptions::default()));
    let (sender, events) = channel();
    let sink = {
        let engine = engine.clone();
        move |event| {
            assert!(engine.info().vocab == VOCAB);
            // Nobody listens once the test has gone on.
            let _ = sender.send(event);
        }
    };
    let _ticket = engine.submit_with(from_a(50), None, sink).unwrap();
    drop(engine);
    // The sink is dropped with its last event, and with it the engine, on the engine's own thread.
    assert!(matches!(events.iter().last(), Some(Event::Finished(_))));
}
