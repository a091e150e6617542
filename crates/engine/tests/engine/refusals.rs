//! What is refused, and how it is said.

use std::sync::Arc;

use wushi_engine::{Engine, EngineError, EngineOptions, MAX_STOP_STRINGS, Request, Sampling};
use wushi_graph::{Batch, Computed, ExecError, Executor, ExecutorInfo};

use crate::fake::{Fake, VOCAB, info};

fn refusal(request: Request) -> EngineError {
    let engine = Fake::default().start(EngineOptions::default());
    match engine.submit(request) {
        Err(error) => error,
        Ok(_) => panic!("accepted"),
    }
}

fn with(change: impl FnOnce(&mut Request)) -> EngineError {
    let mut request = Request::new(vec![1, 2, 3]);
    change(&mut request);
    refusal(request)
}

fn sampling(change: impl FnOnce(&mut Sampling)) -> &'static str {
    match with(|request| change(&mut request.sampling)) {
        EngineError::OutOfRange { name, .. } => name,
        other => panic!("{other}"),
    }
}

#[test]
fn prompts() {
    assert_eq!(refusal(Request::new(vec![])), EngineError::EmptyPrompt);
    let too_long = |tokens, max_tokens| refusal(Request { max_tokens, ..Request::new(vec![1; tokens]) });
    let error = EngineError::PromptTooLong { prompt: 128, answer: 1, context: 128 };
    assert_eq!(too_long(128, None), error);
    assert!(error.to_string().contains("128 tokens"));
    assert_eq!(too_long(129, Some(0)), EngineError::PromptTooLong { prompt: 129, answer: 0, context: 128 });
    let unknown = |place| EngineError::UnknownToken { place, id: VOCAB as u32, vocab: VOCAB };
    assert_eq!(refusal(Request::new(vec![1, VOCAB as u32])), unknown("prompt"));
    assert_eq!(with(|request| request.stop_tokens = vec![VOCAB as u32]), unknown("stop tokens"));
    assert_eq!(with(|request| request.spelled_tokens = vec![VOCAB as u32]), unknown("spelled tokens"));
    assert_eq!(
        with(|request| request.sampling.logit_bias = vec![(VOCAB as u32, 0.0)]),
        unknown("logit bias")
    );
}

#[test]
fn prompts_that_no_pages_can_hold() {
    let engine = Fake { info: Some(ExecutorInfo { pages: 5, ..info() }), ..Fake::default() }
        .start(EngineOptions::default());
    let refused =
        |tokens, max_tokens| engine.submit(Request { max_tokens, ..Request::new(vec![1; tokens]) }).err();
    let error = Some(EngineError::TooFewPages { needed: 6, pages: 5, page_tokens: 4 });
    assert_eq!(refused(20, Some(1)), error);
    assert_eq!(refused(21, Some(0)), error);
    assert_eq!(refused(20, Some(0)), None);
    assert_eq!(refused(19, Some(1)), None);
}

#[test]
fn numbers_out_of_range() {
    for value in [f32::NAN, f32::INFINITY, -0.1] {
        assert_eq!(sampling(|s| s.temperature = value), "temperature");
    }
    for value in [f32::NAN, 0.0, 1.1, -1.0] {
        assert_eq!(sampling(|s| s.top_p = value), "top_p");
    }
    for value in [f32::NAN, -0.1, 1.1] {
        assert_eq!(sampling(|s| s.min_p = value), "min_p");
    }
    for value in [f32::NAN, f32::INFINITY, 0.0, -1.0, 101.0] {
        assert_eq!(sampling(|s| s.repetition_penalty = value), "repetition_penalty");
    }
    for value in [f32::NAN, f32::INFINITY, -2.1, 2.1] {
        assert_eq!(sampling(|s| s.presence_penalty = value), "presence_penalty");
        assert_eq!(sampling(|s| s.frequency_penalty = value), "frequency_penalty");
    }
    for value in [f32::NAN, f32::INFINITY, 100.1, -100.1] {
        assert_eq!(sampling(|s| s.logit_bias = vec![(0, value)]), "logit bias");
    }
    assert_eq!(
        with(|request| request.sampling.top_p = 2.0).to_string(),
        "top_p is 2, expected above 0 and at most 1 (1 keeps all)"
    );
    let name = |error| match error {
        EngineError::OutOfRange { name, .. } => name,
        other => panic!("{other}"),
    };
    assert_eq!(name(with(|request| request.top_logprobs = Some(VOCAB + 1))), "top_logprobs");
    assert_eq!(name(with(|request| request.score_from = Some(0))), "score_from");
    assert_eq!(name(with(|request| request.score_from = Some(4))), "score_from");
}

#[test]
fn stop_strings() {
    let with_stops = |stops: Vec<String>| with(|request| request.stop_strings = stops);
    assert_eq!(with_stops(vec!["a".into(), String::new()]), EngineError::EmptyStopString { index: 1 });
    let count = MAX_STOP_STRINGS + 1;
    assert_eq!(
        with_stops(vec!["a".into(); count]),
        EngineError::TooManyStopStrings { count, limit: MAX_STOP_STRINGS }
    );
}

#[test]
fn sizes_of_zero() {
    struct Nothing(ExecutorInfo);
    impl Executor for Nothing {
        fn info(&self) -> &ExecutorInfo {
            &self.0
        }
        fn run(&mut self, _: &Batch) -> Result<Computed<'_>, ExecError> {
            Ok(Computed::default())
        }
    }
    struct NoText;
    impl wushi_engine::Vocabulary for NoText {
        fn token_bytes(&self, _: u32) -> &[u8] {
            &[]
        }
        fn is_control(&self, _: u32) -> bool {
            false
        }
    }
    let start = |info, options| Engine::start(Box::new(Nothing(info)), Arc::new(NoText), options);
    let chunk = EngineOptions { prefill_chunk: Some(0), ..EngineOptions::default() };
    for (info, options, expected) in [
        (ExecutorInfo { pages: 0, ..info() }, EngineOptions::default(), "the executor's number of pages"),
        (info(), chunk, "prefill_chunk"),
    ] {
        assert_eq!(start(info, options).err(), Some(EngineError::ZeroSize { name: expected }));
    }
    // An executor that forgets its logits is found out.
    let engine = start(info(), EngineOptions::default()).unwrap();
    let error = engine.submit(Request::new(vec![1])).unwrap().finish().unwrap_err();
    assert_eq!(error, EngineError::LogitCount { expected: VOCAB, found: 0 });
}
