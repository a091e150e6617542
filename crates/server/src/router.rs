//! Paths, and what every request passes through.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use crate::anthropic::error::speak;
use crate::anthropic::handlers as messages;
use crate::app::App;
use crate::auth;
use crate::error::ApiError;
use crate::openai::{embeddings, models, responses, tokenize};
use crate::video::handlers as videos;
use crate::{handlers, page, service, unread, video};

/// All paths.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(handlers::chat_completions))
        .route("/v1/completions", post(handlers::completions))
        .route("/v1/responses", post(responses::create_response))
        .route("/v1/messages", post(messages::create_message))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::show))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/health", get(service::health))
        .route("/ready", get(service::ready))
        .route("/metrics", get(service::metrics))
        .route("/status", get(service::status))
        .route("/openapi.json", get(openapi))
        .merge(video::router())
        .merge(page::router())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), auth::guard))
        .layer(from_fn(speak))
        .layer(from_fn_with_state(app.clone(), count_refusals))
        .layer(from_fn(unread::tell))
        .with_state(app)
}

async fn unknown_path(request: Request) -> ApiError {
    let path = request.uri().path();
    let message =
        format!("there is nothing at {path}: the APIs are under /v1, and /openapi.json lists all paths");
    ApiError::new(StatusCode::NOT_FOUND, message).code("unknown_url")
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} is not possible at {}", request.method(), request.uri().path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).code("method_not_allowed")
}

/// Logs requests, counts errors, and says of every response that its type is what it says.
async fn count_refusals(State(app): State<App>, request: Request, next: Next) -> Response {
    let (method, path, begun) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    let mut response = next.run(request).await;
    let (status, ms) = (response.status().as_u16(), begun.elapsed().as_millis() as u64);
    match path.as_str() {
        // Asked for every few seconds.
        "/health" | "/ready" | "/metrics" | "/status" => {
            tracing::debug!(%method, path, status, ms, "request")
        }
        _ => tracing::info!(%method, path, status, ms, "request"),
    }
    if response.status().is_client_error() || response.status().is_server_error() {
        app.metrics.refused(response.status().as_u16());
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The description of all paths.
#[derive(OpenApi)]
#[openapi(
    info(title = "Wushi", description = "Text and video generation on the machines one already has, reproducible to the bit."),
    paths(
        handlers::chat_completions, handlers::completions, responses::create_response, messages::create_message, messages::count_tokens,
        embeddings::embeddings, models::list, models::show,
        videos::create, videos::list, videos::show, videos::delete, videos::download, videos::sync, videos::plan,
        videos::remix, videos::edits, videos::extensions, videos::characters,
        tokenize::tokenize, tokenize::detokenize, service::health, service::ready, service::metrics, service::status,
    ),
    security((), ("key" = []))
)]
struct Description;

/// The description of all paths, as OpenAPI has it
async fn openapi() -> Response {
    let mut description = Description::openapi();
    let key = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    description.components.get_or_insert_default().add_security_scheme("key", key);
    match serde_json::to_value(description) {
        Ok(mut description) => {
            describe_events(&mut description);
            Json(description).into_response()
        }
        Err(error) => ApiError::internal(format!("no description of the paths: {error}")).into_response(),
    }
}

/// Where a response is a stream of events, what is described is their data.
fn describe_events(description: &mut Value) {
    let Some(paths) = description["paths"].as_object_mut() else { return };
    let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(|path| path.values_mut());
    for operation in operations {
        let Some(responses) = operation["responses"].as_object_mut() else { continue };
        let contents =
            responses.values_mut().filter_map(|response| response.get_mut("content")?.as_object_mut());
        for stream in contents.filter_map(|content| content.get_mut("text/event-stream")) {
            let data = stream["schema"].take();
            stream["schema"] = json!({
                "type": "object",
                "description": "An event; `data` is JSON but for the last, which may be `[DONE]`",
                "properties": {
                    "event": { "type": "string" },
                    "data": { "type": "string", "contentMediaType": "application/json", "contentSchema": data },
                },
                "required": ["data"],
            });
        }
    }
}
