//! `POST /v1/responses`: chat completions' successor. Nothing is stored, so every request carries its whole conversation.

mod items;
pub(crate) mod request;
mod response;
mod stream;
mod tool;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::IntoResponse;

use crate::app::{App, now};
use crate::ask::{Ask, SamplingWish};
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{ApiError, ErrorBody};
use crate::handlers::{Begun, begin, head, receive};
use crate::ledger::Arrival;
use crate::pool::{Lease, ModelEntry};
use crate::sse;
use crate::whole::{Said, collect};

use super::chat::Head;
pub(crate) use request::ResponsesRequest;
use request::Wanted;
use response::{Items, Response};
use stream::{ResponseEvent, ResponsesEncoder};

/// What the parts below call by other names.
fn in_our_words(error: ApiError) -> ApiError {
    let param = error.param.as_deref().map(|param| match param {
        "messages" | "prompt" => "input".to_owned(),
        "response_format" => "text.format".to_owned(),
        "max_tokens" => "max_output_tokens".to_owned(),
        param => param.to_owned(),
    });
    ApiError { param, ..error }
}

/// A request whose answer is on its way, and what is known of it since.
struct Started {
    begun: Begun,
    head: Head,
    wanted: Wanted,
}

async fn start(
    app: App,
    arrival: Arrival,
    entry: Arc<ModelEntry>,
    ask: Ask,
    mut wanted: Wanted,
) -> Result<Started, ApiError> {
    let names = head(&arrival, &entry);
    let sampling = ask.sampling.clone();
    let begun = begin(app, arrival, entry, vec![ask]).await.map_err(in_our_words)?;
    settle(&mut wanted, &sampling, &begun.lease)?;
    let head = Head { fingerprint: begun.lease.fingerprint_text(), ..names };
    Ok(Started { begun, head, wanted })
}

/// Says what is sampled with where the request left it to the model.
fn settle(wanted: &mut Wanted, sampling: &SamplingWish, lease: &Lease) -> Result<(), ApiError> {
    let sampling = sampling.resolve(&lease.text()?.info.sampling)?;
    wanted.settings.temperature = Some(sampling.temperature);
    wanted.settings.top_p = Some(sampling.top_p);
    Ok(())
}

/// Answer
///
/// Nothing is stored: there is no `previous_response_id`, and every request carries its whole conversation.
#[utoipa::path(
    post, path = "/v1/responses", operation_id = "create_response", tag = "OpenAI", request_body = ResponsesRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, server-sent events with names",
         content((Response = "application/json"), (ResponseEvent = "text/event-stream"))),
        (status = "4XX", description = "What was wrong", body = ErrorBody),
        (status = "5XX", description = "What went wrong", body = ErrorBody),
    )
)]
pub(crate) async fn create_response(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<ResponsesRequest>,
) -> Result<axum::response::Response, ApiError> {
    let (arrival, entry) = receive(&app, caller, request.model.as_deref(), "resp_", "/v1/responses")?;
    let (ask, wanted) = request.ask()?;
    if !wanted.stream {
        let Started { begun: Begun { answers, lease, .. }, head, wanted } =
            start(app, arrival, entry, ask, wanted).await?;
        let tokenizer = lease.text()?.tokenizer.clone();
        drop(lease);
        let mut whole = collect(answers).await.map_err(in_our_words)?;
        let said: Said = whole.choices.pop().unwrap_or_default();
        let items = Items { head: &head, tokenizer: wanted.logprobs.then_some(&*tokenizer) };
        return Ok(Json(Response::ended(&items, &wanted, &said, &whole.summary, now())).into_response());
    }
    let waiting = ResponsesEncoder::new(head(&arrival, &entry), wanted.clone(), None);
    let starting = {
        let entry = entry.clone();
        async move {
            let Started { begun: Begun { answers, lease, .. }, head, wanted } =
                start(app, arrival, entry, ask, wanted).await?;
            let tokenizer = lease.text()?.tokenizer.clone();
            Ok((answers, ResponsesEncoder::new(head, wanted, Some(tokenizer))))
        }
    };
    sse::respond(&entry, Box::pin(starting), waiting).await
}
