//! What the endpoints of text do: from a body to an answer.

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};

use crate::answer::{self, Answers};
use crate::app::{App, now};
use crate::ask::Ask;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{ApiError, ErrorBody};
use crate::ids;
use crate::ledger::Arrival;
use crate::openai::chat::{ChatCompletion, ChatRequest, Head};
use crate::openai::chat_stream::{ChatChunk, ChatEncoder};
use crate::openai::completions::{Completion, CompletionEncoder, CompletionRequest};
use crate::pool::{Lease, ModelEntry};
use crate::prepare::prepare;
use crate::sse;
use crate::whole::collect;
use std::sync::Arc;

/// The most answers to one request, to all of its prompts together.
const MAX_ANSWERS: usize = 512;

/// A request whose answers are on their way.
pub(crate) struct Begun {
    pub(crate) answers: Answers,
    pub(crate) lease: Lease,
    /// Ids of the prompts.
    pub(crate) prompts: Vec<Vec<u32>>,
}

/// Finds a request's model, if its key may ask for more.
pub(crate) fn admit(app: &App, caller: &Caller, model: Option<&str>) -> Result<Arc<ModelEntry>, ApiError> {
    app.check_open()?;
    let entry = app.pool.find_or_first(model)?.clone();
    tokio::task::block_in_place(|| app.ledger.admit(caller.0.as_ref()))?;
    Ok(entry)
}

/// [`admit`] for what will have a record.
pub(crate) fn receive(
    app: &App,
    caller: Caller,
    model: Option<&str>,
    prefix: &str,
    endpoint: &'static str,
) -> Result<(Arrival, Arc<ModelEntry>), ApiError> {
    let entry = admit(app, &caller, model)?;
    let id = ids::response_id(prefix)?;
    Ok((Arrival::new(id, endpoint, caller.0, app.under_way.subscribe()), entry))
}

/// Waits for the model, prepares and submits.
pub(crate) async fn begin(
    app: App,
    arrival: Arrival,
    entry: Arc<ModelEntry>,
    mut asks: Vec<Ask>,
) -> Result<Begun, ApiError> {
    let lease = app.pool.acquire(&entry).await?;
    asks.iter_mut().for_each(|ask| ask.digest |= app.digests);
    let answers: usize = asks.iter().map(|ask| ask.choices as usize).sum();
    if answers > MAX_ANSWERS {
        let message =
            format!("{answers} answers were asked for, at most {MAX_ANSWERS} are possible in one request");
        return Err(ApiError::parameter("n", message));
    }
    let preparing = lease.clone();
    let permit = app.preparing.clone().acquire_owned().await;
    let prepared = blocking(move || {
        // Kept until the work is done, even where nobody waits for it any more.
        let _permit = permit;
        prepare(&preparing, asks)
    });
    let prepared = prepared.await?;
    let prompts = prepared.prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
    let record = app.ledger.open(arrival, &lease, &prepared);
    let answers = answer::start(&app, lease.clone(), prepared, record)?;
    Ok(Begun { answers, lease, prompts })
}

/// Work that takes a while, such as cutting long texts into tokens, away from the tasks that serve connections.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ApiError::internal(format!("the work broke off: {error}"))))
}

/// What names the answer; the fingerprint is known once the model is loaded.
pub(crate) fn head(arrival: &Arrival, entry: &ModelEntry) -> Head {
    let fingerprint = entry.condition().running.map(|running| running.fingerprint_text());
    Head {
        id: arrival.id.clone(),
        created: now(),
        model: entry.name().to_owned(),
        fingerprint: fingerprint.unwrap_or_default(),
    }
}

/// Continue a conversation
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "OpenAI", request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, server-sent events of chunks, `[DONE]` at the end",
         content((ChatCompletion = "application/json"), (ChatChunk = "text/event-stream"))),
        (status = "4XX", description = "What was wrong", body = ErrorBody),
        (status = "5XX", description = "What went wrong", body = ErrorBody),
    )
)]
pub(crate) async fn chat_completions(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<ChatRequest>,
) -> Result<Response, ApiError> {
    let (arrival, entry) =
        receive(&app, caller, request.model.as_deref(), "chatcmpl-", "/v1/chat/completions")?;
    let (ask, wanted) = request.ask()?;
    let names = head(&arrival, &entry);
    if !wanted.stream {
        let Begun { answers, lease, .. } = begin(app, arrival, entry.clone(), vec![ask]).await?;
        let tokenizer = lease.text()?.tokenizer.clone();
        let names = Head { fingerprint: lease.fingerprint_text(), ..names };
        drop(lease);
        let whole = collect(answers).await?;
        return Ok(Json(ChatCompletion::new(names, &whole, &wanted, &tokenizer)).into_response());
    }
    let waiting = ChatEncoder::new(names.clone(), wanted.clone(), None);
    let start = {
        let entry = entry.clone();
        async move {
            let Begun { answers, lease, .. } = begin(app, arrival, entry, vec![ask]).await?;
            let names = Head { fingerprint: lease.fingerprint_text(), ..names };
            Ok((answers, ChatEncoder::new(names, wanted, Some(lease.text()?.tokenizer.clone()))))
        }
    };
    sse::respond(&entry, Box::pin(start), waiting).await
}

/// Continue texts
#[utoipa::path(
    post, path = "/v1/completions", tag = "OpenAI", request_body = CompletionRequest,
    responses(
        (status = 200, description = "The answers; with `stream`, server-sent events, `[DONE]` at the end",
         content((Completion = "application/json"), (Completion = "text/event-stream"))),
        (status = "4XX", description = "What was wrong", body = ErrorBody),
        (status = "5XX", description = "What went wrong", body = ErrorBody),
    )
)]
pub(crate) async fn completions(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<CompletionRequest>,
) -> Result<Response, ApiError> {
    let (arrival, entry) = receive(&app, caller, request.model.as_deref(), "cmpl-", "/v1/completions")?;
    let (asks, wanted) = request.asks()?;
    let names = head(&arrival, &entry);
    let (stream, waiting) = (wanted.stream, CompletionEncoder::waiting(names.clone(), &wanted));
    let start = {
        let entry = entry.clone();
        async move {
            let Begun { answers, lease, prompts } = begin(app, arrival, entry, asks).await?;
            let names = Head { fingerprint: lease.fingerprint_text(), ..names };
            Ok((answers, CompletionEncoder::new(names, wanted, lease.text()?.tokenizer.clone(), prompts)))
        }
    };
    if stream {
        return sse::respond(&entry, Box::pin(start), waiting).await;
    }
    let (answers, encoder) = start.await?;
    Ok(Json(encoder.whole(&collect(answers).await?)).into_response())
}
