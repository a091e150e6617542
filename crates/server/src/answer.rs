//! A request under way: from the engine's events to what clients are told, for all APIs alike.
//!
//! Every request has a task of its own (the *driver*), which outlives the connection: when a client goes away it cancels the
//! sequences, and what was computed until then is still counted and recorded.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use wushi_engine::{Constraint, EngineError, Event, FinishReason, Finished, Logprob, Place, Request, Ticket};

use crate::app::{App, Closing};
use crate::error::ApiError;
use crate::ledger::Entry;
use crate::metrics::Metrics;
use crate::pool::Lease;
use crate::prepare::{Prepared, PreparedChoice};
use crate::speech::{Piece, Speech};

/// Answers of one request that are under way together: a request for hundreds leaves room for those of others.
const WINDOW: usize = 16;
/// How often those who wait hear of their place in the queue.
const QUEUE_NEWS: Duration = Duration::from_millis(250);

/// What happens to a request, in order.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// Requests before this one in the queue.
    Queued(usize),
    /// The scores of one of the prompts, where they were asked for.
    Prompt { prompt: usize, scores: Vec<Logprob> },
    /// More of one of the answers.
    Delta(Delta),
    /// One of the answers is complete.
    Ended(Ended),
    /// All are, and the record of it has been written.
    Done(Box<Summary>),
    /// An answer broke off, and with it the request.
    Failed(ApiError),
}

/// More of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    /// Which answer.
    pub(crate) choice: u32,
    /// Text, thought and calls, in order.
    pub(crate) pieces: Vec<Piece>,
    /// Tokens that came since the last delta.
    pub(crate) tokens: Vec<u32>,
    /// Their log-probabilities, if they were asked for.
    pub(crate) logprobs: Vec<Logprob>,
}

/// How an answer ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) choice: u32,
    pub(crate) reason: Reason,
    pub(crate) finished: Finished,
}

/// Why an answer ended, in the terms of the APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The model was done.
    Stop,
    /// This stop string of the request came up.
    StopString(usize),
    /// `max_tokens` or the end of the context.
    Length,
    /// The model wants tools called.
    ToolCalls,
    /// The client went away, or the server.
    Cancelled,
}

impl Reason {
    fn new(reason: FinishReason, called: bool) -> Reason {
        match reason {
            FinishReason::Cancelled => Reason::Cancelled,
            FinishReason::Length => Reason::Length,
            _ if called => Reason::ToolCalls,
            FinishReason::StopString(index) => Reason::StopString(index),
            FinishReason::StopToken(_) => Reason::Stop,
        }
    }

    /// OpenAI's word.
    pub(crate) fn openai(self) -> &'static str {
        match self {
            Reason::Stop | Reason::StopString(_) => "stop",
            Reason::Length => "length",
            Reason::ToolCalls => "tool_calls",
            Reason::Cancelled => "cancelled",
        }
    }
}

/// What is known when all answers are complete.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) seed: u64,
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) completion_tokens: usize,
    /// By choice; empty unless they were asked for.
    pub(crate) digests: Vec<[u8; 32]>,
    pub(crate) queue: Duration,
    pub(crate) ttft: Duration,
    pub(crate) prefill_rate: Option<f64>,
    pub(crate) decode_rate: Option<f64>,
    /// Tokens of thought.
    pub(crate) reasoning_tokens: usize,
}

/// The client's end: dropping it cancels the request.
pub(crate) struct Answers {
    news: UnboundedReceiver<News>,
}

impl Answers {
    /// What happens next; `None` after [`News::Done`] and [`News::Failed`].
    pub(crate) async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// [`Answers::next`], for streams.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<News>> {
        self.news.poll_recv(context)
    }
}

/// Submits a prepared request to its model and follows it in a task of its own.
///
/// # Errors
/// What the engine refuses; nothing runs then.
pub(crate) fn start(app: &App, lease: Lease, prepared: Prepared, entry: Entry) -> Result<Answers, ApiError> {
    let Prepared { prompts, seed } = prepared;
    let (events, inbox) = mpsc::unbounded_channel();
    let mut choices = Vec::new();
    for (prompt, prepared) in prompts.into_iter().enumerate() {
        for choice in prepared.choices {
            choices.push(Choice::new(choices.len() as u32, prompt, choice));
        }
    }
    let (news, receiver) = mpsc::unbounded_channel();
    let mut driver = Driver {
        choices,
        events,
        inbox,
        news,
        entry,
        metrics: app.metrics.clone(),
        seed,
        lease,
        started: Instant::now(),
        closing: app.closing.subscribe(),
        place: None,
    };
    driver.place = Some(driver.lease.engine()?.place()?);
    driver.submit()?;
    tokio::spawn(driver.drive());
    Ok(Answers { news: receiver })
}

/// Waits until answers under way have to end.
pub(crate) async fn cancelling(closing: &mut watch::Receiver<Closing>) {
    if closing.wait_for(|closing| *closing == Closing::Cancelling).await.is_err() {
        // Nobody is left to say so.
        std::future::pending::<()>().await;
    }
}

/// One of a request's answers.
struct Choice {
    index: u32,
    /// Which prompt it continues.
    prompt: usize,
    /// What is still to be submitted.
    prepared: Option<(Request, Option<Box<dyn Constraint>>)>,
    ticket: Option<Ticket>,
    speech: Speech,
    /// All of its tokens.
    ids: Vec<u32>,
    /// Log-probabilities that no delta has carried yet.
    logprobs: Vec<Logprob>,
    /// How many of `ids` deltas have carried.
    told: usize,
    last_token: Option<Instant>,
    ended: Option<Ended>,
    failed: bool,
}

impl Choice {
    fn new(index: u32, prompt: usize, choice: PreparedChoice) -> Choice {
        let PreparedChoice { request, constraint, speech } = choice;
        Choice {
            index,
            prompt,
            prepared: Some((request, constraint)),
            ticket: None,
            speech,
            ids: Vec::new(),
            logprobs: Vec::new(),
            told: 0,
            last_token: None,
            ended: None,
            failed: false,
        }
    }

    /// Whether it has been submitted and has not ended.
    fn is_under_way(&self) -> bool {
        self.ticket.is_some() && !self.is_over()
    }

    /// Whether nothing will come any more.
    fn is_over(&self) -> bool {
        self.failed || self.ended.is_some()
    }

    /// What has come since the last delta.
    fn delta(&mut self, pieces: Vec<Piece>) -> News {
        let tokens = self.ids[self.told..].to_vec();
        self.told = self.ids.len();
        News::Delta(Delta {
            choice: self.index,
            pieces,
            tokens,
            logprobs: std::mem::take(&mut self.logprobs),
        })
    }
}

/// Follows a request from its submission to its record.
struct Driver {
    choices: Vec<Choice>,
    events: UnboundedSender<(usize, Event)>,
    inbox: UnboundedReceiver<(usize, Event)>,
    news: UnboundedSender<News>,
    entry: Entry,
    metrics: Arc<Metrics>,
    seed: u64,
    lease: Lease,
    started: Instant,
    closing: watch::Receiver<Closing>,
    /// In the engine's queue, as long as anything is to be submitted.
    place: Option<Place>,
}

impl Driver {
    /// Submits answers, as many as one request may have under way. Others follow when these have ended.
    fn submit(&mut self) -> Result<(), ApiError> {
        let Some(place) = self.place.take() else { return Ok(()) };
        let engine = self.lease.engine()?;
        let mut under_way = self.choices.iter().filter(|choice| choice.is_under_way()).count();
        for (index, choice) in self.choices.iter_mut().enumerate() {
            if under_way == WINDOW {
                // Those that follow keep it.
                self.place = Some(place);
                return Ok(());
            }
            let Some((request, constraint)) = choice.prepared.take() else { continue };
            let events = self.events.clone();
            // Where a driver is gone, so is the ticket.
            let sink = move |event| drop(events.send((index, event)));
            match engine.submit_at(&place, request, constraint, sink) {
                Ok(ticket) => choice.ticket = Some(ticket),
                Err(error) => {
                    choice.failed = true;
                    if matches!(error, EngineError::Panicked(_) | EngineError::Stopped) {
                        self.lease.give_up();
                    }
                    return Err(error.into());
                }
            }
            under_way += 1;
        }
        Ok(())
    }

    async fn drive(mut self) {
        let outcome = self.follow().await;
        let summary = self.summary();
        let Driver { choices, news, entry, metrics, lease, started, .. } = self;
        let ids: Vec<Vec<u32>> = choices.iter().map(|choice| choice.ids.clone()).collect();
        let ended: Vec<Option<Ended>> = choices.into_iter().map(|choice| choice.ended).collect();
        let is_cancelled = |ended: &Option<Ended>| {
            ended.as_ref().is_some_and(|ended| ended.finished.reason == FinishReason::Cancelled)
        };
        let how = match &outcome {
            Err(_) => "failed",
            Ok(()) if ended.iter().any(is_cancelled) => "cancelled",
            Ok(()) => "ok",
        };
        tracing::info!(
            id = entry.id(),
            model = lease.name(),
            how,
            prompt_tokens = summary.prompt_tokens,
            cached_tokens = summary.cached_tokens,
            completion_tokens = summary.completion_tokens,
            ms = started.elapsed().as_millis() as u64,
            "answered"
        );
        metrics.ended(lease.name(), (summary.prompt_tokens, summary.cached_tokens), how, started.elapsed());
        let recorded = entry.write(&summary, &ended, ids, &outcome).await;
        // The model may be unloaded from here on; what is told below needs it no more.
        drop(lease);
        let last = match outcome.and(recorded) {
            Ok(()) => News::Done(Box::new(summary)),
            Err(error) => News::Failed(error),
        };
        let _ = news.send(last);
    }

    /// Passes events on until the last answer has ended.
    async fn follow(&mut self) -> Result<(), ApiError> {
        let mut failed = None;
        let mut clock = tokio::time::interval(QUEUE_NEWS);
        let mut place = None;
        let mut closing = self.closing.clone();
        while self.choices.iter().any(|choice| !choice.is_over()) {
            let waiting = self.choices.iter().all(|choice| choice.ids.is_empty());
            tokio::select! {
                biased;
                () = cancelling(&mut closing) => {
                    self.cancel();
                    let message = "the server is about to end, and the answer with it";
                    return self.drain(failed).await.and(Err(ApiError::unavailable(message, 5)));
                }
                () = self.news.closed() => {
                    self.cancel();
                    // Their last events come still, and are counted.
                    self.news = mpsc::unbounded_channel().0;
                    return self.drain(failed).await;
                }
                event = self.inbox.recv() => {
                    let Some((index, event)) = event else { break };
                    let taken = self.take(index, event);
                    // Of a request that has failed, nothing more is begun.
                    if let Err(error) = if failed.is_none() { taken.and_then(|()| self.submit()) } else { taken } {
                        self.cancel();
                        failed.get_or_insert(error);
                    }
                }
                _ = clock.tick(), if waiting => {
                    let tickets = self.choices.iter().filter_map(|choice| choice.ticket.as_ref());
                    let now = tickets.filter_map(Ticket::queue_position).min();
                    if now != place && let Some(position) = now {
                        let _ = self.news.send(News::Queued(position));
                    }
                    place = now;
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Takes in what is left of cancelled answers.
    async fn drain(&mut self, mut failed: Option<ApiError>) -> Result<(), ApiError> {
        while self.choices.iter().any(|choice| !choice.is_over()) {
            let Some((index, event)) = self.inbox.recv().await else { break };
            if let Err(error) = self.take(index, event) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn cancel(&mut self) {
        for choice in &mut self.choices {
            match &choice.ticket {
                Some(ticket) => ticket.cancel(),
                // It never begins.
                None => choice.failed = true,
            }
        }
    }

    /// Takes in one event. Where nobody listens any more, nothing is lost by it.
    fn take(&mut self, index: usize, event: Event) -> Result<(), ApiError> {
        let choice = &mut self.choices[index];
        match event {
            Event::Prompt(scores) => {
                let _ = self.news.send(News::Prompt { prompt: choice.prompt, scores });
            }
            Event::Token(token) => {
                let now = Instant::now();
                if let Some(before) = choice.last_token.replace(now) {
                    self.metrics.inter_token(self.lease.name(), now - before);
                }
                if choice.ids.is_empty() {
                    self.metrics.first_token(self.lease.name(), token.at);
                }
                choice.ids.push(token.id);
                choice.logprobs.extend(token.logprob);
                let pieces = choice.speech.push(&token.text);
                if !pieces.is_empty() {
                    let delta = choice.delta(pieces);
                    let _ = self.news.send(delta);
                }
            }
            // Nobody asks for one here.
            Event::Embedding(_) => {}
            Event::Finished(finished) => {
                let pieces = choice.speech.finish(&finished.tail);
                if !pieces.is_empty() || choice.told < choice.ids.len() {
                    let delta = choice.delta(pieces);
                    let _ = self.news.send(delta);
                }
                let reason = Reason::new(finished.reason, choice.speech.called());
                let ended = Ended { choice: choice.index, reason, finished };
                choice.ended = Some(ended.clone());
                // What was cancelled is no answer.
                if reason != Reason::Cancelled {
                    let _ = self.news.send(News::Ended(ended));
                }
            }
            Event::Failed(error) => {
                choice.failed = true;
                if matches!(error, EngineError::Panicked(_)) {
                    self.lease.give_up();
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn summary(&self) -> Summary {
        let ended = || self.choices.iter().filter_map(|choice| choice.ended.as_ref());
        let finished = || ended().map(|ended| &ended.finished);
        let first = finished().next();
        // Each prompt counts once, however many answers it has.
        let firsts = self
            .choices
            .iter()
            .enumerate()
            .filter(|&(index, choice)| index == 0 || self.choices[index - 1].prompt != choice.prompt);
        let usages = firsts.filter_map(|(_, choice)| choice.ended.as_ref()).map(|ended| ended.finished.usage);
        let (prompt_tokens, cached_tokens) = usages.fold((0, 0), |(prompt, cached), usage| {
            (prompt + usage.prompt_tokens, cached + usage.cached_tokens)
        });
        let timings = first.map(|finished| finished.timings).unwrap_or_default();
        let rate = |tokens: usize, time: Duration| {
            (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
        };
        Summary {
            seed: self.seed,
            prompt_tokens,
            cached_tokens,
            completion_tokens: self.choices.iter().map(|choice| choice.ids.len()).sum(),
            digests: finished().filter_map(|finished| finished.logits_digest).collect(),
            queue: timings.queue,
            ttft: timings.ttft,
            prefill_rate: first.and_then(|finished| {
                let usage = finished.usage;
                rate(usage.prompt_tokens.saturating_sub(usage.cached_tokens), timings.prefill)
            }),
            decode_rate: first.and_then(|finished| {
                rate(finished.usage.completion_tokens.saturating_sub(1), timings.decode)
            }),
            reasoning_tokens: self.choices.iter().map(|choice| choice.speech.reasoning_tokens()).sum(),
        }
    }
}
