//! The record of each request, written before its last word is told.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use wushi_engine::{FinishReason, Pooling};

use crate::answer::{Ended, Summary};
use crate::constraint::Grammar;
use crate::error::ApiError;
use crate::openai::embeddings::pooling_name;
use crate::pool::Lease;
use crate::prepare::Prepared;
use crate::store::{
    AuditRecord, Choice, ConstraintRecord, Digest, EmbeddingRecord, Ending, Key, Parameters, Prompt,
    SamplingRecord, Status, Store, StoreError, Text, unix_ms,
};

/// Where records go, and how much they say.
#[derive(Clone)]
pub(crate) struct Ledger {
    store: Arc<Store>,
    /// Whether texts are kept.
    text: bool,
}

/// A request that has been let in and will have a record.
pub(crate) struct Arrival {
    pub(crate) id: String,
    endpoint: &'static str,
    key: Option<Key>,
    time: u64,
    started: Instant,
    under_way: watch::Receiver<()>,
}

impl Arrival {
    /// While there is one of `under_way`, the server does not end.
    pub(crate) fn new(
        id: String,
        endpoint: &'static str,
        key: Option<Key>,
        under_way: watch::Receiver<()>,
    ) -> Arrival {
        Arrival { id, endpoint, key, time: unix_ms(), started: Instant::now(), under_way }
    }
}

/// A record that lacks the answers yet.
pub(crate) struct Entry {
    ledger: Ledger,
    record: AuditRecord,
    started: Instant,
    /// When it was ready for the engine.
    opened: Instant,
    _under_way: watch::Receiver<()>,
}

impl Ledger {
    pub(crate) fn new(store: Arc<Store>, text: bool) -> Ledger {
        Ledger { store, text }
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Lets a request in, if its key may ask for more.
    pub(crate) fn admit(&self, key: Option<&Key>) -> Result<(), ApiError> {
        let Some(key) = key else { return Ok(()) };
        match self.store.admit(key, unix_ms()).map_err(ApiError::from)? {
            Ok(()) => Ok(()),
            Err(limited) => Err(ApiError::too_many(
                limited.to_string(),
                "rate_limit_exceeded",
                limited.retry_after_seconds(),
            )),
        }
    }

    /// Begins the record of answers to prompts.
    pub(crate) fn open(&self, arrival: Arrival, lease: &Lease, prepared: &Prepared) -> Entry {
        let parameters = parameters(prepared);
        let first = prepared.prompts.first();
        let grammar = first.and_then(|prompt| prompt.grammar.as_ref());
        let request = first.and_then(|prompt| prompt.choices.first()).map(|choice| &choice.request);
        let stops = request.map_or(&[][..], |request| &request.stop_strings);
        let text = self.text.then(|| Text {
            prompts: prepared.prompts.iter().map(|prompt| prompt.tokens.clone()).collect(),
            completions: Vec::new(),
            stop_strings: stops.to_vec(),
            constraint: grammar.map(Grammar::to_text),
            ..Text::default()
        });
        let prompts = prepared.prompts.iter().map(|prompt| Prompt::of(&prompt.tokens)).collect();
        let choices = prepared.prompts.iter().enumerate().flat_map(|(prompt, prepared)| {
            (0..prepared.choices.len()).map(move |choice| blank(prompt, choice))
        });
        self.entry(arrival, lease, parameters, prompts, choices.collect(), text)
    }

    /// Begins the record of embeddings.
    pub(crate) fn open_embedding(
        &self,
        arrival: Arrival,
        lease: &Lease,
        pooling: Pooling,
        prompts: &[Vec<u32>],
    ) -> Entry {
        let parameters = embedding_parameters(pooling);
        let text = self.text.then(|| Text { prompts: prompts.to_vec(), ..Text::default() });
        let choices = (0..prompts.len()).map(|prompt| blank(prompt, 0)).collect();
        let prompts = prompts.iter().map(|prompt| Prompt::of(prompt)).collect();
        self.entry(arrival, lease, parameters, prompts, choices, text)
    }

    fn entry(
        &self,
        arrival: Arrival,
        lease: &Lease,
        parameters: Parameters,
        prompts: Vec<Prompt>,
        choices: Vec<Choice>,
        text: Option<Text>,
    ) -> Entry {
        let record = AuditRecord {
            id: arrival.id,
            time: arrival.time,
            key: arrival.key.map(|key| key.id.to_string()),
            endpoint: arrival.endpoint.to_owned(),
            model: lease.name().to_owned(),
            model_digest: lease.entry().digest().map(str::to_owned),
            fingerprint: Digest(lease.fingerprint),
            loading: lease.loading.clone(),
            parameters,
            prompts,
            choices,
            cached_tokens: 0,
            queue_ms: 0,
            ttft_ms: None,
            total_ms: 0,
            status: Status::Ok,
            text,
        };
        Entry {
            ledger: self.clone(),
            record,
            started: arrival.started,
            opened: Instant::now(),
            _under_way: arrival.under_way,
        }
    }
}

/// What records say of a request for answers.
pub(crate) fn parameters(prepared: &Prepared) -> Parameters {
    let first = prepared.prompts.first();
    let request = first.and_then(|prompt| prompt.choices.first()).map(|choice| &choice.request);
    let grammar = first.and_then(|prompt| prompt.grammar.as_ref());
    let stops = request.map_or(&[][..], |request| &request.stop_strings);
    Parameters {
        sampling: request.map(|request| SamplingRecord::from(&request.sampling)).unwrap_or_default(),
        seed: prepared.seed,
        n: first.map_or(0, |prompt| prompt.choices.len() as u32),
        max_tokens: request.and_then(|request| request.max_tokens).map(|most| most as u64),
        stop_tokens: request.map(|request| request.stop_tokens.clone()).unwrap_or_default(),
        stop_strings: stops.iter().map(|stop| Digest::of_text(stop)).collect(),
        constraint: grammar.map(|grammar| ConstraintRecord {
            kind: grammar.kind().to_owned(),
            digest: Digest::of_text(&grammar.to_text()),
        }),
        embedding: None,
        video: None,
    }
}

/// What records say of a request for embeddings.
pub(crate) fn embedding_parameters(pooling: Pooling) -> Parameters {
    let pooling = pooling_name(pooling).to_owned();
    let embedding = EmbeddingRecord { pooling, normalised: true, dimensions: None };
    Parameters { embedding: Some(embedding), ..Parameters::default() }
}

fn blank(prompt: usize, choice: usize) -> Choice {
    Choice { prompt: prompt as u32, choice: choice as u32, completion_tokens: 0, ending: None, digest: None }
}

impl Entry {
    /// The record's name.
    pub(crate) fn id(&self) -> &str {
        &self.record.id
    }

    /// Writes what became of the answers; returns when it is on the disk.
    pub(crate) async fn write(
        mut self,
        summary: &Summary,
        ended: &[Option<Ended>],
        ids: Vec<Vec<u32>>,
        outcome: &Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        for ((choice, ended), ids) in self.record.choices.iter_mut().zip(ended).zip(&ids) {
            choice.completion_tokens = ids.len() as u32;
            choice.ending = ended.as_ref().map(|ended| Ending::from(ended.finished.reason));
            choice.digest = ended.as_ref().and_then(|ended| ended.finished.logits_digest).map(Digest);
        }
        if let Some(text) = &mut self.record.text {
            text.completions = ids;
        }
        let cancelled = |ended: &Option<Ended>| {
            ended.as_ref().is_some_and(|ended| ended.finished.reason == FinishReason::Cancelled)
        };
        self.record.cached_tokens = summary.cached_tokens as u64;
        // The engine counts from its submission, a record from the request's arrival.
        let before = self.opened - self.started;
        self.record.queue_ms = (before + summary.queue).as_millis() as u64;
        self.record.ttft_ms =
            (summary.completion_tokens > 0).then_some((before + summary.ttft).as_millis() as u64);
        self.record.status = match outcome {
            Err(error) => Status::Failed(error.message.clone()),
            Ok(()) if ended.iter().any(cancelled) => Status::Cancelled,
            Ok(()) => Status::Ok,
        };
        self.commit().await
    }

    /// Writes what became of embeddings.
    pub(crate) async fn write_embeddings(
        mut self,
        outcome: &Result<(Vec<Vec<f32>>, usize), ApiError>,
    ) -> Result<(), ApiError> {
        match outcome {
            Err(error) if error.is_gone() => self.record.status = Status::Cancelled,
            Err(error) => self.record.status = Status::Failed(error.message.clone()),
            Ok((embeddings, cached)) => {
                self.record.cached_tokens = *cached as u64;
                for (choice, embedding) in self.record.choices.iter_mut().zip(embeddings) {
                    choice.digest = Some(Digest::of_numbers(embedding));
                }
            }
        }
        self.commit().await
    }

    async fn commit(mut self) -> Result<(), ApiError> {
        self.record.total_ms = self.started.elapsed().as_millis() as u64;
        let (done, written) = tokio::sync::oneshot::channel();
        let store = self.ledger.store;
        // Where many records wait, giving one to the writer may wait too.
        let record = self.record;
        let given = tokio::task::spawn_blocking(move || {
            store.record(record, move |result| drop(done.send(result)));
        });
        if let Err(error) = given.await {
            return Err(ApiError::internal(format!("the record could not be written: {error}")));
        }
        match written.await {
            Ok(result) => result.map_err(ApiError::from),
            Err(_) => Err(ApiError::internal("the record could not be written")),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        tracing::error!(%error, "the database");
        ApiError::internal("the database of keys and records cannot be used; the server's log says why")
    }
}
