//! The handle on a running model: requests in, events out. The work happens on the engine's own thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, SendError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use wushi_graph::{Executor, ExecutorInfo, StatesInfo};
use wushi_models::Pooling;

use crate::constraint::{Constraint, panic_message};
use crate::event::{Event, FinishReason, Finished, Logprob, Timings, Usage};
use crate::link::{Canceller, Client, Place, Queue, Ticket};
use crate::pool::Pool;
use crate::request::check_prompt;
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
    /// The most tokens computed in one step while any sequence is generating: one for each of these, then
    /// chunks of prompts, so that a long prompt delays no answer by more than such a step. No more sequences
    /// than this are computed together. `None`: as many as the executor takes.
    pub step_tokens: Option<usize>,
    /// The most requests that may wait to begin; more are refused. `None`: any number.
    pub max_waiting: Option<usize>,
    /// Whether tokens that what came before suggests are tried several at a time where that saves steps; those
    /// that would not have been chosen are forgotten.
    pub speculate: bool,
    /// What one row more costs where a step has few, in hundredths of a step of one row: the dearer it is, the
    /// surer must tokens be that are tried. `None`: as measured with dense models of 4 bits; loading a model
    /// makes it more for experts, which rows do not share.
    pub row_cost: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            prefill_chunk: None,
            prefix_cache: true,
            max_sequences: None,
            step_tokens: None,
            max_waiting: None,
            speculate: true,
            row_cost: None,
        }
    }
}

/// What the handles and the engine's thread share.
pub(crate) struct Shared {
    /// The thread's latest counts.
    pub(crate) stats: Mutex<Stats>,
    /// Requests that have not begun.
    pub(crate) queue: Queue,
    /// Set once if the thread panicked.
    failure: OnceLock<EngineError>,
}

impl Shared {
    pub(crate) fn new(pages: usize, options: &EngineOptions) -> Self {
        let stats = Mutex::new(Stats::empty(pages));
        Shared { stats, queue: Queue::new(options), failure: OnceLock::new() }
    }

    /// Why the thread is gone.
    pub(crate) fn ended(&self) -> EngineError {
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
    states: Option<StatesInfo>,
}

impl Engine {
    /// Starts a thread that drives `executor`.
    pub fn start(
        executor: Box<dyn Executor>,
        vocabulary: Arc<dyn Vocabulary>,
        options: EngineOptions,
    ) -> Result<Engine, EngineError> {
        let (info, states) = (executor.info().clone(), executor.states());
        check_sizes(&info, &options)?;
        let shared = Arc::new(Shared::new(info.pages, &options));
        let (submissions, inbox) = mpsc::channel();
        let mut worker = Worker::new(executor, vocabulary, &options, shared.clone());
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn({
                let shared = shared.clone();
                move || {
                    // The worker outlives the catch: its requests end only after the failure is readable.
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker.work(&inbox))) {
                        let failure = EngineError::Panicked(panic_message(&*panic));
                        tracing::error!(%failure);
                        shared.failure.get_or_init(|| failure);
                    }
                }
            })
            .map_err(|error| EngineError::Thread(error.to_string()))?;
        Ok(Engine { submissions: Some(submissions), thread: Some(thread), shared, info, states })
    }

    /// Checks a request and queues it.
    pub fn submit(&self, request: Request) -> Result<Generation, EngineError> {
        let (sender, events) = mpsc::channel();
        // A client that no longer listens has cancelled.
        let ticket = self.submit_with(request, None, move |event| drop(sender.send(event)))?;
        Ok(Generation { events, ticket, shared: self.shared.clone(), ended: false })
    }

    /// Checks a request and queues it. Its answer takes the form that `constraint` demands.
    ///
    /// `events` is called on the engine's thread with every event, the last being `Finished` or `Failed`. The
    /// engine waits for it, so it must not block. If it panics its request is cancelled and it is not called
    /// again.
    pub fn submit_with(
        &self,
        request: Request,
        constraint: Option<Box<dyn Constraint>>,
        events: impl FnMut(Event) + Send + 'static,
    ) -> Result<Ticket, EngineError> {
        request.validate(&self.info)?;
        self.submit_at(&self.place()?, request, constraint, events)
    }

    /// A place in the queue, for requests that belong together.
    ///
    /// # Errors
    /// [`EngineError::QueueFull`].
    pub fn place(&self) -> Result<Place, EngineError> {
        Place::take(self.shared.clone())
    }

    /// [`Engine::submit_with`], at a place in the queue that is taken already.
    ///
    /// # Errors
    /// As [`Engine::submit_with`], except for a full queue.
    pub fn submit_at(
        &self,
        place: &Place,
        request: Request,
        constraint: Option<Box<dyn Constraint>>,
        events: impl FnMut(Event) + Send + 'static,
    ) -> Result<Ticket, EngineError> {
        if self.states.is_some_and(|states| states.only) {
            return Err(EngineError::NoText);
        }
        request.validate(&self.info)?;
        let (client, ticket) = Client::new(place, Box::new(events));
        self.queue(Sequence::new(request, &self.info, constraint, client), ticket)
    }

    /// Checks tokens, special ones included, and queues them for an embedding: their final states, pooled. It
    /// shares steps, pages and queue with all other requests, and its bits depend on the tokens alone.
    ///
    /// `events` is called as by [`Engine::submit_with`], with [`Event::Embedding`] and then `Finished`.
    pub fn embed_with(
        &self,
        tokens: Vec<u32>,
        pooling: Pooling,
        events: impl FnMut(Event) + Send + 'static,
    ) -> Result<Ticket, EngineError> {
        self.embed_at(&self.place()?, tokens, pooling, events)
    }

    /// [`Engine::embed_with`], at a place in the queue that is taken already.
    ///
    /// # Errors
    /// As [`Engine::embed_with`], except for a full queue.
    pub fn embed_at(
        &self,
        place: &Place,
        tokens: Vec<u32>,
        pooling: Pooling,
        events: impl FnMut(Event) + Send + 'static,
    ) -> Result<Ticket, EngineError> {
        let states = self.states.ok_or(EngineError::NoStates)?;
        // What must come in one step must fit one.
        let most = if states.whole { self.info.max_rows } else { usize::MAX };
        let info = ExecutorInfo { context: self.info.context.min(most), ..self.info.clone() };
        check_prompt(&tokens, 0, &info, states.tokens)?;
        let (client, ticket) = Client::new(place, Box::new(events));
        let pool = Pool::new(pooling, tokens.len());
        let request = Request { max_tokens: Some(0), ..Request::new(tokens) };
        let mut sequence = Sequence::new(request, &self.info, None, client);
        sequence.pool = Some(pool);
        self.queue(sequence, ticket)
    }

    /// [`Engine::embed_with`], waited for.
    pub fn embed(&self, tokens: Vec<u32>, pooling: Pooling) -> Result<Embedding, EngineError> {
        let (sender, events) = mpsc::channel();
        let _ticket = self.embed_with(tokens, pooling, move |event| drop(sender.send(event)))?;
        let mut vector = Vec::new();
        for event in events {
            match event {
                Event::Embedding(embedding) => vector = embedding,
                Event::Finished(Finished { usage, timings, .. }) => {
                    return Ok(Embedding { vector, usage, timings });
                }
                Event::Failed(error) => return Err(error),
                Event::Prompt(_) | Event::Token(_) => {}
            }
        }
        Err(self.shared.ended())
    }

    fn queue(&self, sequence: Sequence, ticket: Ticket) -> Result<Ticket, EngineError> {
        let Some(submissions) = &self.submissions else {
            sequence.refuse();
            return Err(self.shared.ended());
        };
        match submissions.send(sequence) {
            Ok(()) => Ok(ticket),
            Err(SendError(sequence)) => {
                sequence.refuse();
                Err(self.shared.ended())
            }
        }
    }

    /// Counts as of the latest step.
    pub fn stats(&self) -> Stats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Elements of an embedding, if the model gives any.
    pub fn embedding_width(&self) -> Option<usize> {
        self.states.map(|states| states.width)
    }

    /// The executor's sizes.
    pub fn info(&self) -> &ExecutorInfo {
        &self.info
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.submissions = None;
        // Where a request's events go may have held the last handle: then this is the thread, which ends by itself.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
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
        ("step_tokens", options.step_tokens.unwrap_or(1)),
        ("max_waiting", options.max_waiting.unwrap_or(1)),
    ];
    match sizes.into_iter().find(|size| size.1 == 0) {
        Some((name, _)) => Err(EngineError::ZeroSize { name }),
        None => Ok(()),
    }
}

/// An answer under way: an iterator over its events that waits for the next one.
///
/// Dropping it before the end cancels the request.
pub struct Generation {
    events: Receiver<Event>,
    ticket: Ticket,
    shared: Arc<Shared>,
    ended: bool,
}

/// A text's embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// The vector, not normalised.
    pub vector: Vec<f32>,
    /// Tokens.
    pub usage: Usage,
    /// Durations.
    pub timings: Timings,
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
    /// See [`Ticket::cancel`].
    pub fn cancel(&self) {
        self.ticket.cancel();
    }

    /// A handle that can cancel from another thread while this one waits for events.
    pub fn canceller(&self) -> Canceller {
        self.ticket.canceller()
    }

    /// Waits for the whole answer.
    pub fn finish(self) -> Result<Output, EngineError> {
        let (mut text, mut token_ids) = (String::new(), Vec::new());
        let (mut prompt_logprobs, mut logprobs) = (Vec::new(), Vec::new());
        for event in self {
            match event {
                Event::Prompt(scores) => prompt_logprobs = scores,
                Event::Embedding(_) => {}
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
