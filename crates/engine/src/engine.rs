//! The handle on a running model: requests in, events out. The work happens on the engine's own thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use wushi_graph::{Executor, ExecutorInfo};

use crate::event::{Event, FinishReason, Finished, Logprob, Timings, Usage};
use crate::sequence::Sequence;
use crate::stats::Stats;
use crate::worker::Worker;
use crate::{EngineError, Request, Vocabulary};

/// How an engine schedules. None of it changes an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// The most tokens of one prompt computed in one step: smaller chunks keep the other sequences' tokens
    /// coming. `None`: as many as the executor takes.
    pub prefill_chunk: Option<usize>,
    /// Whether pages of keys and values are kept for later prompts that begin alike.
    pub prefix_cache: bool,
    /// The most sequences computed together. `None`: as many as the executor takes.
    pub max_sequences: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { prefill_chunk: None, prefix_cache: true, max_sequences: None }
    }
}

/// What the handles and the engine's thread share.
pub(crate) struct Shared {
    /// The thread's latest counts.
    pub(crate) stats: Mutex<Stats>,
    /// Set once if the thread panicked.
    failure: OnceLock<EngineError>,
}

impl Shared {
    /// Why the thread is gone.
    fn ended(&self) -> EngineError {
        self.failure.get().cloned().unwrap_or(EngineError::Stopped)
    }
}

/// A running model. Dropping it stops the thread; answers under way end with [`EngineError::Stopped`].
pub struct Engine {
    /// `None` only while dropping.
    submissions: Option<Sender<Sequence>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    info: ExecutorInfo,
}

impl Engine {
    /// Starts a thread that drives `executor`.
    pub fn start(
        executor: Box<dyn Executor>,
        vocabulary: Arc<dyn Vocabulary>,
        options: EngineOptions,
    ) -> Result<Engine, EngineError> {
        let info = executor.info().clone();
        check_sizes(&info, &options)?;
        let shared =
            Arc::new(Shared { stats: Mutex::new(Stats::empty(info.pages)), failure: OnceLock::new() });
        let (submissions, inbox) = mpsc::channel();
        let mut worker = Worker::new(executor, vocabulary, &options, shared.clone());
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn({
                let shared = shared.clone();
                move || {
                    // The worker outlives the catch: its channels close only after the failure is readable.
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker.work(&inbox))) {
                        let failure = EngineError::Panicked(panic_message(&*panic));
                        tracing::error!(%failure);
                        shared.failure.get_or_init(|| failure);
                    }
                }
            })
            .map_err(|error| EngineError::Thread(error.to_string()))?;
        Ok(Engine { submissions: Some(submissions), thread: Some(thread), shared, info })
    }

    /// Checks a request and queues it.
    pub fn submit(&self, request: Request) -> Result<Generation, EngineError> {
        request.validate(&self.info)?;
        let (events, receiver) = mpsc::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let sequence = Sequence::new(request, &self.info, events, cancelled.clone());
        match &self.submissions {
            Some(submissions) if submissions.send(sequence).is_ok() => {
                Ok(Generation { events: receiver, cancelled, shared: self.shared.clone(), ended: false })
            }
            _ => Err(self.shared.ended()),
        }
    }

    /// Counts as of the latest step.
    pub fn stats(&self) -> Stats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The executor's sizes.
    pub fn info(&self) -> &ExecutorInfo {
        &self.info
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.submissions = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been caught and recorded; there is nothing left to learn from joining.
            let _ = thread.join();
        }
    }
}

fn check_sizes(info: &ExecutorInfo, options: &EngineOptions) -> Result<(), EngineError> {
    let sizes = [
        ("the executor's vocabulary", info.vocab),
        ("the executor's page size", info.page_tokens),
        ("the executor's number of pages", info.pages),
        ("the executor's rows of a batch", info.max_rows),
        ("the executor's logits rows of a batch", info.max_logit_rows),
        ("the executor's context", info.context),
        ("prefill_chunk", options.prefill_chunk.unwrap_or(1)),
        ("max_sequences", options.max_sequences.unwrap_or(1)),
    ];
    match sizes.into_iter().find(|size| size.1 == 0) {
        Some((name, _)) => Err(EngineError::ZeroSize { name }),
        None => Ok(()),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// An answer under way: an iterator over its events that waits for the next one.
///
/// Dropping it before the end cancels the request.
pub struct Generation {
    events: Receiver<Event>,
    cancelled: Arc<AtomicBool>,
    shared: Arc<Shared>,
    ended: bool,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The text.
    pub text: String,
    /// The generated tokens, a stop token included.
    pub token_ids: Vec<u32>,
    /// The scores of the prompt's tokens; empty unless `score_from` was set.
    pub prompt_logprobs: Vec<Logprob>,
    /// One entry per generated token; empty unless `top_logprobs` was set.
    pub logprobs: Vec<Logprob>,
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens.
    pub usage: Usage,
    /// Durations.
    pub timings: Timings,
    /// If `digest` was asked for.
    pub logits_digest: Option<[u8; 32]>,
}

impl Generation {
    /// Asks the engine to end the answer; it does so before its next step, with [`FinishReason::Cancelled`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// A handle that can cancel from another thread while this one waits for events.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.cancelled.clone())
    }

    /// Waits for the whole answer.
    pub fn finish(self) -> Result<Output, EngineError> {
        let (mut text, mut token_ids) = (String::new(), Vec::new());
        let (mut prompt_logprobs, mut logprobs) = (Vec::new(), Vec::new());
        for event in self {
            match event {
                Event::Prompt(scores) => prompt_logprobs = scores,
                Event::Token(token) => {
                    text.push_str(&token.text);
                    token_ids.push(token.id);
                    logprobs.extend(token.logprob);
                }
                Event::Finished(Finished { reason, tail, usage, timings, logits_digest }) => {
                    text.push_str(&tail);
                    return Ok(Output {
                        text,
                        token_ids,
                        prompt_logprobs,
                        logprobs,
                        reason,
                        usage,
                        timings,
                        logits_digest,
                    });
                }
                Event::Failed(error) => return Err(error),
            }
        }
        Err(EngineError::Stopped)
    }
}

impl Iterator for Generation {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        // A channel closed without a last event means that the thread is gone.
        let event = self.events.recv().unwrap_or_else(|_| Event::Failed(self.shared.ended()));
        self.ended = matches!(event, Event::Finished(_) | Event::Failed(_));
        Some(event)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Cancels the [`Generation`] it was taken from.
#[derive(Clone, Debug)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// See [`Generation::cancel`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
