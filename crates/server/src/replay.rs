//! Runs a recorded request again, and compares every bit that was recorded.
//!
//! The model is loaded, the prompt made and the answer constrained by the very code that serves requests; only the way in
//! is another: the stored ids, or the body of the original request.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use wushi_engine::{Event, FinishReason, Pooling, Request, Sampling};

use crate::anthropic::MessagesRequest;
use crate::ask::Ask;
use crate::body::parse;
use crate::constraint::Grammar;
use crate::error::ApiError;
use crate::ledger;
use crate::openai::chat::ChatRequest;
use crate::openai::completions::CompletionRequest;
use crate::openai::embeddings::{self, EmbeddingRequest};
use crate::openai::responses::ResponsesRequest;
use crate::pool::{Lease, Pool, ServedModel};
use crate::prepare::{Prepared, PreparedChoice, PreparedPrompt, prepare};
use crate::speech::Speech;
use crate::store::{AuditRecord, Choice, Digest, Ending, Loading, Parameters, Prompt, Status, Text};

pub use crate::video::replay_video;

/// Why a record could not be run again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Only digests were recorded.
    #[error(
        "the record `{0}` has no text, as the server ran without --audit-text: give the body of the original request with \
         --request FILE"
    )]
    NoText(String),
    /// A record of an endpoint that makes no answers.
    #[error("the record is of {0}, whose requests cannot be run again from their body")]
    Endpoint(String),
    /// What was recorded does not fit together.
    #[error("the record `{id}` is damaged: {what}")]
    Damaged {
        /// The record.
        id: String,
        /// What is wrong with it.
        what: String,
    },
    /// The request or its model cannot be used.
    #[error("{0}")]
    Refused(String),
    /// No thread, no timer.
    #[error("the system gives no runtime: {0}")]
    System(#[from] std::io::Error),
}

impl From<ApiError> for ReplayError {
    fn from(error: ApiError) -> ReplayError {
        ReplayError::Refused(error.message)
    }
}

/// What was compared.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// One by one.
    pub checks: Vec<Check>,
    /// What could not be compared, and what may explain a difference.
    pub notes: Vec<String>,
    /// Whether the logits of every answer (or every embedding) were compared, that is, every bit.
    pub every_bit: bool,
}

/// One thing that was compared.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What it is.
    pub what: String,
    /// What the record says.
    pub recorded: String,
    /// What is so now.
    pub found: String,
    /// Whether they are the same.
    pub equal: bool,
}

impl Verdict {
    pub(crate) fn new() -> Verdict {
        Verdict { checks: Vec::new(), notes: Vec::new(), every_bit: true }
    }

    /// Whether everything that was compared is the same.
    pub fn equal(&self) -> bool {
        self.checks.iter().all(|check| check.equal)
    }

    pub(crate) fn check<T: PartialEq + Display>(&mut self, what: impl Into<String>, recorded: T, found: T) {
        let equal = recorded == found;
        let (recorded, found) = (recorded.to_string(), found.to_string());
        self.checks.push(Check { what: what.into(), recorded, found, equal });
    }
}

/// Loads `model` and runs the recorded request, from the `request`'s body or else from the stored ids. Blocks; must not be
/// called from asynchronous code.
///
/// # Errors
/// A record without text and no request, a request that is refused, a model that cannot be loaded. A difference is none.
pub fn replay(
    record: &AuditRecord,
    request: Option<&[u8]>,
    model: ServedModel,
) -> Result<Verdict, ReplayError> {
    if request.is_none() && record.text.is_none() {
        return Err(ReplayError::NoText(record.id.clone()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pool = Arc::new(Pool::new(vec![model], Vec::new(), None));
    runtime.block_on(async {
        let entry = pool.find_or_first(None)?.clone();
        let lease = pool.acquire(&entry).await?;
        run(record, request, &lease).await
    })
}

async fn run(record: &AuditRecord, request: Option<&[u8]>, lease: &Lease) -> Result<Verdict, ReplayError> {
    let mut verdict = Verdict::new();
    check_model(record, lease, &mut verdict);
    let work = match (request, &record.text) {
        (Some(body), _) => from_request(record, body, lease).await?,
        (None, Some(text)) => from_text(record, text, lease)?,
        (None, None) => return Err(ReplayError::NoText(record.id.clone())),
    };
    if let Some(parameters) = &work.parameters {
        check_parameters(&record.parameters, parameters, &mut verdict);
    }
    check_prompts(record, &work.task.prompts(), &mut verdict);
    if asks_otherwise(&mut verdict) {
        return Ok(verdict);
    }
    match work.task {
        Task::Answers(prepared) => answers(record, prepared, lease, &mut verdict).await?,
        Task::Embeddings(prompts, pooling) => {
            let (vectors, _) = crate::embed::embed_all(lease, prompts, pooling).await?;
            for (index, (choice, vector)) in record.choices.iter().zip(&vectors).enumerate() {
                check_digest(
                    &format!("embedding {index}"),
                    choice,
                    Some(Digest::of_numbers(vector)),
                    &mut verdict,
                );
            }
        }
    }
    if let Status::Failed(error) = &record.status {
        verdict.notes.push(format!("the request failed: {error}"));
    }
    if record.choices.iter().any(lacks_digest) {
        verdict.notes.push(
            "not all logits were recorded: `wushi serve --audit` records the digests of all".to_owned(),
        );
    }
    Ok(verdict)
}

/// Whether something else is asked for than was recorded, which is noted.
pub(crate) fn asks_otherwise(verdict: &mut Verdict) -> bool {
    let differs = |check: &Check| !check.equal && check.what != FINGERPRINT && check.what != FILE;
    if !verdict.checks.iter().any(differs) {
        return false;
    }
    verdict.every_bit = false;
    verdict.notes.push("what is asked for differs, so the answers were not computed".to_owned());
    true
}

/// What there is to do.
struct Work {
    task: Task,
    /// As the request has them; `None` where they are taken from the record.
    parameters: Option<Parameters>,
}

enum Task {
    Answers(Prepared),
    Embeddings(Vec<Vec<u32>>, Pooling),
}

impl Task {
    fn prompts(&self) -> Vec<&[u32]> {
        match self {
            Task::Answers(prepared) => prepared.prompts.iter().map(|prompt| &*prompt.tokens).collect(),
            Task::Embeddings(prompts, _) => prompts.iter().map(|prompt| &**prompt).collect(),
        }
    }
}

/// As the server does it.
async fn from_request(record: &AuditRecord, body: &[u8], lease: &Lease) -> Result<Work, ReplayError> {
    let mut asks: Vec<Ask> = match record.endpoint.as_str() {
        "/v1/chat/completions" => vec![parse::<ChatRequest>(body)?.ask()?.0],
        "/v1/responses" => vec![parse::<ResponsesRequest>(body)?.ask()?.0],
        "/v1/messages" => vec![parse::<MessagesRequest>(body)?.ask()?.0],
        "/v1/completions" => parse::<CompletionRequest>(body)?.asks()?.0,
        "/v1/embeddings" => {
            let (inputs, pooling) = parse::<EmbeddingRequest>(body)?.inputs(lease)?;
            let prompts = embeddings::tokenize(lease.clone(), inputs).await?;
            let parameters = ledger::embedding_parameters(pooling);
            return Ok(Work { task: Task::Embeddings(prompts, pooling), parameters: Some(parameters) });
        }
        other => return Err(ReplayError::Endpoint(other.to_owned())),
    };
    for ask in &mut asks {
        // One that was drawn is in the record only.
        ask.seed.get_or_insert(record.parameters.seed);
        ask.digest = true;
    }
    let mut prepared = prepare(lease, asks)?;
    let parameters = ledger::parameters(&prepared);
    // Answers that were cut off end where they did; this is no parameter of the request.
    cut_off(&mut prepared, record);
    Ok(Work { task: Task::Answers(prepared), parameters: Some(parameters) })
}

/// From what was stored.
fn from_text(record: &AuditRecord, text: &Text, lease: &Lease) -> Result<Work, ReplayError> {
    let damaged = |what: String| ReplayError::Damaged { id: record.id.clone(), what };
    let parameters = &record.parameters;
    if let Some(embedding) = &parameters.embedding {
        let pooling = embeddings::pooling_named(&embedding.pooling)
            .ok_or_else(|| damaged(format!("pooling `{}`", embedding.pooling.escape_default())))?;
        return Ok(Work { task: Task::Embeddings(text.prompts.clone(), pooling), parameters: None });
    }
    let grammar = text.constraint.as_deref().map(Grammar::from_text).transpose();
    let grammar = grammar.map_err(|error| damaged(error.to_string()))?;
    let stops: Vec<Digest> = text.stop_strings.iter().map(|stop| Digest::of_text(stop)).collect();
    if stops != parameters.stop_strings {
        return Err(damaged("the stop strings are not those of the digests".to_owned()));
    }
    let request = Request {
        sampling: Sampling::from(&parameters.sampling),
        seed: parameters.seed,
        max_tokens: parameters.max_tokens.map(|most| most as usize),
        stop_tokens: parameters.stop_tokens.clone(),
        stop_strings: text.stop_strings.clone(),
        spelled_tokens: lease.style.marks().to_vec(),
        digest: true,
        ..Request::new(Vec::new())
    };
    let prompts = text.prompts.iter().enumerate().map(|(index, tokens)| {
        let choices = record.choices.iter().filter(|choice| choice.prompt as usize == index).map(|choice| {
            let constraint = match &grammar {
                Some(grammar) => Some(lease.compiler()?.compile(grammar).map_err(ApiError::from)?),
                None => None,
            };
            let request = Request { tokens: tokens.clone(), choice: choice.choice, ..request.clone() };
            request.validate(lease.model.engine.info()).map_err(ApiError::from)?;
            Ok(PreparedChoice { request, constraint, speech: Speech::plain() })
        });
        let choices = choices.collect::<Result<_, ApiError>>()?;
        Ok(PreparedPrompt { tokens: tokens.clone(), grammar: grammar.clone(), choices })
    });
    let prompts = prompts.collect::<Result<_, ApiError>>()?;
    let mut prepared = Prepared { prompts, seed: parameters.seed };
    cut_off(&mut prepared, record);
    Ok(Work { task: Task::Answers(prepared), parameters: None })
}

/// An answer whose client went away is run up to the token it had come to.
fn cut_off(prepared: &mut Prepared, record: &AuditRecord) {
    let choices = prepared.prompts.iter_mut().flat_map(|prompt| &mut prompt.choices);
    for (prepared, recorded) in choices.zip(&record.choices) {
        if recorded.ending == Some(Ending::Cancelled) {
            prepared.request.max_tokens = Some(recorded.completion_tokens as usize);
        }
    }
}

const FINGERPRINT: &str = "fingerprint";
const FILE: &str = "model file (SHA-256)";

/// Compares the model with the recorded one.
fn check_model(record: &AuditRecord, lease: &Lease, verdict: &mut Verdict) {
    if let (Some(recorded), Some(found)) = (&record.model_digest, lease.entry().digest()) {
        verdict.check(FILE, recorded.as_str(), found);
    }
    check_fingerprint(record, Digest(lease.fingerprint), &lease.loading, verdict);
}

/// Compares the model's fingerprint with the recorded one, and says what may have changed.
pub(crate) fn check_fingerprint(
    record: &AuditRecord,
    found: Digest,
    loading: &Loading,
    verdict: &mut Verdict,
) {
    let recorded = record.fingerprint;
    verdict.check(FINGERPRINT, recorded, found);
    if recorded == found {
        return;
    }
    let (then, now) = (members(&record.loading), members(loading));
    let changed: Vec<String> = then
        .iter()
        .filter(|(name, value)| *name != "reference" && now.get(*name) != Some(value))
        .map(|(name, value)| format!("{name} was {value}, is {}", now.get(name).unwrap_or(&Value::Null)))
        .collect();
    verdict.notes.push(match changed.is_empty() {
        true => "the fingerprint differs though the model was loaded as recorded: its file is another one"
            .to_owned(),
        false => format!("the fingerprint differs: {}", changed.join("; ")),
    });
}

/// The fields of a structure.
fn members(value: &impl Serialize) -> BTreeMap<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => members.into_iter().collect(),
        // Neither of the structures below is anything but an object.
        _ => BTreeMap::new(),
    }
}

/// Compares what a request asks for with what was recorded, field by field.
pub(crate) fn check_parameters(recorded: &Parameters, found: &Parameters, verdict: &mut Verdict) {
    let fields = |parameters: &Parameters| {
        let mut fields = members(parameters);
        for group in ["sampling", "video"] {
            if let Some(Value::Object(members)) = fields.remove(group) {
                fields.extend(members);
            }
        }
        fields
    };
    let (then, now) = (fields(recorded), fields(found));
    if recorded == found {
        return verdict.check("parameters", "as recorded", "as recorded");
    }
    for (name, value) in &then {
        let found = now.get(name).unwrap_or(&Value::Null);
        if value != found {
            verdict.check(name.as_str(), value, found);
        }
    }
}

/// Compares the prompts' ids.
pub(crate) fn check_prompts(record: &AuditRecord, prompts: &[&[u32]], verdict: &mut Verdict) {
    if prompts.len() != record.prompts.len() {
        return verdict.check("prompts", record.prompts.len(), prompts.len());
    }
    let several = prompts.len() > 1;
    for (index, (recorded, ids)) in record.prompts.iter().zip(prompts).enumerate() {
        let what = if several { format!("prompt {index}") } else { "prompt".to_owned() };
        let shown = |prompt: &Prompt| format!("{} tokens, {}", prompt.tokens, prompt.digest);
        verdict.check(what, shown(recorded), shown(&Prompt::of(ids)));
    }
}

/// What came of an answer.
#[derive(Default)]
struct Outcome {
    ids: Vec<u32>,
    ending: Option<FinishReason>,
    digest: Option<Digest>,
}

/// Computes all answers, together, and compares them.
async fn answers(
    record: &AuditRecord,
    prepared: Prepared,
    lease: &Lease,
    verdict: &mut Verdict,
) -> Result<(), ReplayError> {
    let choices: Vec<PreparedChoice> =
        prepared.prompts.into_iter().flat_map(|prompt| prompt.choices).collect();
    if choices.len() != record.choices.len() {
        verdict.check("answers", record.choices.len(), choices.len());
        return Ok(());
    }
    let (sender, mut events) = mpsc::unbounded_channel();
    let mut outcomes: Vec<Outcome> = choices.iter().map(|_| Outcome::default()).collect();
    let mut tickets = Vec::new();
    for (index, (choice, recorded)) in choices.into_iter().zip(&record.choices).enumerate() {
        let what = name(index, record);
        match recorded.ending {
            None => {
                verdict.every_bit = false;
                verdict.notes.push(format!("{what} broke off with the request and is not compared"));
            }
            Some(Ending::Cancelled) if recorded.completion_tokens == 0 => {
                verdict.notes.push(format!("{what} was cancelled before its first token"));
            }
            Some(_) => {
                let sender = sender.clone();
                let sink = move |event| drop(sender.send((index, event)));
                let PreparedChoice { request, constraint, .. } = choice;
                tickets
                    .push(lease.model.engine.submit_with(request, constraint, sink).map_err(ApiError::from)?);
            }
        }
    }
    drop(sender);
    while let Some((index, event)) = events.recv().await {
        let outcome = &mut outcomes[index];
        match event {
            Event::Token(token) => outcome.ids.push(token.id),
            Event::Finished(finished) => {
                outcome.ending = Some(finished.reason);
                outcome.digest = finished.logits_digest.map(Digest);
            }
            Event::Failed(error) => return Err(ApiError::from(error).into()),
            Event::Prompt(_) | Event::Embedding(_) => {}
        }
    }
    for (index, outcome) in outcomes.iter().enumerate().filter(|(_, outcome)| outcome.ending.is_some()) {
        check_answer(record, index, outcome, verdict);
    }
    Ok(())
}

/// What an answer is called.
fn name(index: usize, record: &AuditRecord) -> String {
    if record.choices.len() > 1 { format!("answer {index}") } else { "answer".to_owned() }
}

fn check_answer(record: &AuditRecord, index: usize, outcome: &Outcome, verdict: &mut Verdict) {
    let (what, recorded) = (name(index, record), &record.choices[index]);
    verdict.check(format!("{what}: tokens"), recorded.completion_tokens as usize, outcome.ids.len());
    if let Some(ids) = record.text.as_ref().and_then(|text| text.completions.get(index)) {
        let first = ids.iter().zip(&outcome.ids).position(|(then, now)| then != now);
        let found = match first {
            None if ids.len() == outcome.ids.len() => Digest::of_ids(&outcome.ids).to_string(),
            None => format!("the same up to token {}", ids.len().min(outcome.ids.len())),
            Some(place) => format!("{} instead of {} at token {place}", outcome.ids[place], ids[place]),
        };
        verdict.check(format!("{what}: token ids"), Digest::of_ids(ids).to_string(), found);
    }
    match (recorded.ending, outcome.ending.map(Ending::from)) {
        // It was cut off, and has been cut off in the same place.
        (Some(Ending::Cancelled), _) | (None, _) | (_, None) => {}
        (Some(recorded), Some(found)) => {
            verdict.check(format!("{what}: end"), recorded.to_string(), found.to_string())
        }
    }
    check_digest(&format!("{what}: logits"), recorded, outcome.digest, verdict);
}

/// Whether there were logits, or a vector, of which nothing was recorded.
fn lacks_digest(choice: &Choice) -> bool {
    choice.digest.is_none() && choice.ending.is_some() && choice.completion_tokens > 0
}

fn check_digest(what: &str, recorded: &Choice, found: Option<Digest>, verdict: &mut Verdict) {
    match (recorded.digest, found) {
        (Some(recorded), Some(found)) => verdict.check(what, recorded, found),
        // Without a token, no logits were sampled from.
        _ => verdict.every_bit &= recorded.completion_tokens == 0 && recorded.ending.is_some(),
    }
}
