//! `POST /v1/messages` and `/v1/messages/count_tokens`.

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::handlers::{Begun, admit, begin, blocking, head, receive};
use crate::openai::chat::Head;
use crate::prepare;
use crate::sse;
use crate::whole::collect;

use super::error::{MessagesErrorBody, RequestId};
use super::request::{CountTokensRequest, MessagesRequest};
use super::response::MessagesResponse;
use super::stream::{MessagesEncoder, MessagesEvent};

/// Continue a conversation, in Anthropic's form
#[utoipa::path(
    post, path = "/v1/messages", operation_id = "create_message", tag = "Anthropic", request_body = MessagesRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, server-sent events with names",
         content((MessagesResponse = "application/json"), (MessagesEvent = "text/event-stream"))),
        (status = "4XX", description = "What was wrong", body = MessagesErrorBody),
        (status = "5XX", description = "What went wrong", body = MessagesErrorBody),
    )
)]
pub(crate) async fn create_message(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(request_id): Extension<RequestId>,
    JsonBody(request): JsonBody<MessagesRequest>,
) -> Result<Response, ApiError> {
    let (arrival, entry) = receive(&app, caller, request.model.as_deref(), "msg_", "/v1/messages")?;
    let (ask, wanted) = request.ask()?;
    let names = head(&arrival, &entry);
    if !wanted.stream {
        let Begun { answers, lease, .. } = begin(app, arrival, entry, vec![ask]).await?;
        let names = Head { fingerprint: lease.fingerprint_text(), ..names };
        drop(lease);
        let mut whole = collect(answers).await?;
        let said = whole.choices.pop().unwrap_or_default();
        return Ok(Json(MessagesResponse::ended(&names, &wanted, &said, &whole.summary)).into_response());
    }
    let waiting = MessagesEncoder::new(names.clone(), wanted.clone(), request_id.clone(), 0);
    let start = {
        let entry = entry.clone();
        async move {
            let Begun { answers, lease, prompts } = begin(app, arrival, entry, vec![ask]).await?;
            let names = Head { fingerprint: lease.fingerprint_text(), ..names };
            let tokens = prompts.iter().map(Vec::len).sum();
            Ok((answers, MessagesEncoder::new(names, wanted, request_id, tokens)))
        }
    };
    sse::respond(&entry, Box::pin(start), waiting).await
}

/// How many tokens a conversation has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenCount {
    /// All of its prompt.
    input_tokens: usize,
}

/// Count a conversation's tokens
#[utoipa::path(
    post, path = "/v1/messages/count_tokens", tag = "Anthropic", request_body = CountTokensRequest,
    responses(
        (status = 200, description = "How many there are", body = TokenCount),
        (status = "4XX", description = "What was wrong", body = MessagesErrorBody),
        (status = "5XX", description = "What went wrong", body = MessagesErrorBody),
    )
)]
pub(crate) async fn count_tokens(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<CountTokensRequest>,
) -> Result<Json<TokenCount>, ApiError> {
    let entry = admit(&app, &caller, request.model.as_deref())?;
    let ask = request.ask()?;
    let lease = app.pool.acquire(&entry).await?;
    let tokens = blocking(move || prepare::tokens(&lease, &ask)).await?;
    Ok(Json(TokenCount { input_tokens: tokens.len() }))
}
