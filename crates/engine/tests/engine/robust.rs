//! Hundreds of requests at random, most of which misbehave, on engines too small for them: nobody is forgotten, no
//! page is lost, and whoever gets an answer gets the right one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use proptest::prelude::*;
use wushi_engine::{
    Constraint, Engine, EngineError, EngineOptions, Event, FinishReason, Finished, Request, Sampling,
};
use wushi_graph::ExecutorInfo;

use crate::fake::{EOS, Fake, info, wait_for};

/// What a client does, after so many events.
#[derive(Clone, Copy, Debug)]
enum Whim {
    Stay,
    Cancel(usize),
    Drop(usize),
    Panic(usize),
    /// The constraint fails.
    Fail(usize),
    /// The constraint leaves no token.
    Ban(usize),
}

fn whim() -> impl Strategy<Value = Whim> {
    let after = 0usize..6;
    prop_oneof![
        5 => Just(Whim::Stay),
        1 => after.clone().prop_map(Whim::Cancel),
        1 => after.clone().prop_map(Whim::Drop),
        1 => after.clone().prop_map(Whim::Panic),
        1 => after.clone().prop_map(Whim::Fail),
        1 => after.prop_map(Whim::Ban),
    ]
}

fn options() -> impl Strategy<Value = (ExecutorInfo, EngineOptions)> {
    let some = |range: std::ops::Range<usize>| prop::option::of(range);
    let executor = (12usize..40, 1usize..70, 1usize..20);
    let switches = (any::<bool>(), any::<bool>(), some(0..30));
    let engine = (some(1..20), some(1..6), some(1..30), some(1..200), switches);
    (executor, engine).prop_map(|((pages, max_rows, max_logit_rows), engine)| {
        let (prefill_chunk, max_sequences, step_tokens, max_waiting, switches) = engine;
        let (prefix_cache, speculate, row_cost) = switches;
        let options = EngineOptions {
            prefill_chunk,
            max_sequences,
            step_tokens,
            max_waiting,
            prefix_cache,
            speculate,
            row_cost,
        };
        (ExecutorInfo { pages, max_rows, max_logit_rows, ..info() }, options)
    })
}

/// One of a few requests, so that some have a prefix or everything in common.
fn request(index: u32) -> Request {
    let length = 1 + index as usize * 7 % 40;
    let sampling = Sampling {
        temperature: [0.0, 1.5][index as usize % 2],
        presence_penalty: [0.0, 0.5][index as usize / 2 % 2],
        ..Sampling::default()
    };
    Request {
        sampling,
        seed: index.into(),
        max_tokens: [Some(0), Some(3), Some(30), None][index as usize % 4],
        stop_tokens: vec![EOS],
        stop_strings: vec!["\u{3}\u{4}\u{3}".into()],
        top_logprobs: (index.is_multiple_of(5)).then_some(2),
        score_from: (index.is_multiple_of(3)).then_some(length.div_ceil(2)),
        digest: true,
        ..Request::new((0..length as u32).map(|at| if at < 20 { at % 6 } else { at * index % 200 }).collect())
    }
}

/// Allows everything until it does not.
struct Fickle {
    whim: Whim,
    tokens: usize,
}

impl Constraint for Fickle {
    fn allowed(&mut self, mask: &mut [u32]) -> Result<(), String> {
        match self.whim {
            Whim::Fail(after) if self.tokens == after => return Err("at a whim".into()),
            Whim::Ban(after) if self.tokens == after => {}
            _ => mask.fill(u32::MAX),
        }
        Ok(())
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        self.tokens += 1;
        Ok(())
    }
}

/// What a client heard.
#[derive(Default)]
struct Heard {
    events: usize,
    last: Option<Event>,
    after_last: usize,
}

/// Submits a request. `None` if the queue is full.
fn submit(engine: &Engine, index: u32, whim: Whim) -> Option<(wushi_engine::Ticket, Arc<Mutex<Heard>>)> {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let constraint: Option<Box<dyn Constraint>> = match whim {
        Whim::Fail(_) | Whim::Ban(_) => Some(Box::new(Fickle { whim, tokens: 0 })),
        _ => None,
    };
    let sink = {
        let heard = heard.clone();
        move |event| {
            let mut heard = heard.lock().unwrap();
            heard.events += 1;
            heard.after_last += usize::from(heard.last.is_some());
            if matches!(event, Event::Finished(_) | Event::Failed(_)) {
                heard.last = Some(event);
            }
            if matches!(whim, Whim::Panic(after) if after < heard.events) {
                heard.last = Some(Event::Failed(EngineError::Panicked("this sink".into())));
                drop(heard);
                // Without the message that a panic prints.
                std::panic::resume_unwind(Box::new("a bug of the caller"));
            }
        }
    };
    match engine.submit_with(request(index), constraint, sink) {
        Ok(ticket) => Some((ticket, heard)),
        Err(EngineError::QueueFull { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Digests of complete answers so far, by request and length, as fewer pages make a shorter context. Whatever the
/// engine, they are the same.
static DIGESTS: Mutex<BTreeMap<(u32, usize), [u8; 32]>> = Mutex::new(BTreeMap::new());

fn check_digest(index: u32, finished: &Finished) {
    let digest = finished.logits_digest.unwrap();
    let key = (index, finished.usage.completion_tokens);
    let known = *DIGESTS.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(digest);
    assert_eq!(known, digest, "request {index}");
}

fn run(info: ExecutorInfo, options: EngineOptions, script: &[(u32, Whim)], stop_early: bool) {
    let pages = info.pages;
    let limit = options.max_waiting;
    let fake = Fake { info: Some(info), repeats: true, ..Fake::default() };
    let engine = fake.start(options);
    let mut clients = Vec::new();
    for &(index, whim) in script {
        let Some((ticket, heard)) = submit(&engine, index, whim) else {
            assert!(limit.is_some());
            std::thread::yield_now();
            continue;
        };
        let ticket = match whim {
            Whim::Cancel(0) => {
                ticket.cancel();
                Some(ticket)
            }
            Whim::Drop(0) => None,
            _ => Some(ticket),
        };
        clients.push((index, whim, ticket, heard));
        for (_, whim, ticket, heard) in &mut clients {
            let events = heard.lock().unwrap().events;
            match *whim {
                Whim::Cancel(after) if after <= events => ticket.iter().for_each(|ticket| ticket.cancel()),
                Whim::Drop(after) if after <= events => *ticket = None,
                _ => {}
            }
        }
    }
    if stop_early {
        drop(engine);
    } else {
        let all_ended = || clients.iter().all(|(.., heard)| heard.lock().unwrap().last.is_some());
        wait_for(all_ended);
        wait_for(|| engine.stats().running + engine.stats().waiting == 0);
        let stats = engine.stats();
        assert_eq!((stats.pages_used, stats.pages_cached + stats.pages_free), (0, pages), "{stats:?}");
        assert!(stats.accepted_tokens <= stats.guessed_tokens);
        // Nothing counts as waiting either: one more finds a place.
        assert!(limit.is_none() || submit(&engine, 1, Whim::Stay).is_some());
    }
    for (index, whim, ticket, heard) in clients {
        assert!(ticket.is_none_or(|ticket| ticket.queue_position().is_none()));
        let heard = heard.lock().unwrap();
        assert_eq!((heard.last.is_some(), heard.after_last), (true, 0), "{whim:?}");
        match (&heard.last, whim) {
            (Some(Event::Finished(finished)), _) if finished.reason != FinishReason::Cancelled => {
                check_digest(index, finished);
            }
            (Some(Event::Finished(_)), Whim::Cancel(_) | Whim::Drop(_)) => {}
            (Some(Event::Failed(EngineError::Panicked(_))), Whim::Panic(_)) => {}
            (Some(Event::Failed(EngineError::Constraint(_))), Whim::Fail(_)) => {}
            (Some(Event::Failed(EngineError::NoCandidate { .. })), Whim::Ban(_)) => {}
            (Some(Event::Failed(EngineError::Stopped)), _) if stop_early => {}
            (last, whim) => panic!("request {index}, {whim:?}: {last:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn nobody_is_forgotten_and_no_page_is_lost(
        (info, options) in options(),
        script in prop::collection::vec((0u32..16, whim()), 1..300),
        stop_early in prop::bool::weighted(0.2),
    ) {
        run(info, options, &script, stop_early);
    }
}
