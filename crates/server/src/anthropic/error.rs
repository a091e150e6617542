//! Errors as Anthropic's clients read them, for every path below `/v1/messages`, whoever refuses.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::ids;

/// The name of a request, in its response's header and in its errors.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// The body of an error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MessagesErrorBody {
    /// `error`.
    #[serde(rename = "type")]
    kind: &'static str,
    error: MessagesError,
    /// The name of the request, also in the header `request-id`.
    request_id: String,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MessagesError {
    /// Kind of error: `invalid_request_error`, `authentication_error`, `rate_limit_error`, `api_error` and so on.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What was wrong and what to do.
    message: String,
}

impl MessagesErrorBody {
    pub(crate) fn new(error: &ApiError, request: &RequestId) -> MessagesErrorBody {
        let kind = match error.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            408 => "timeout_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        MessagesErrorBody {
            kind: "error",
            error: MessagesError { kind, message: error.message.clone() },
            request_id: request.0.clone(),
        }
    }
}

/// Names requests below `/v1/messages`, and tells what is wrong with them in Anthropic's terms.
pub(crate) async fn speak(mut request: Request, next: Next) -> Response {
    let rest = request.uri().path().strip_prefix("/v1/messages");
    if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return next.run(request).await;
    }
    let id = match ids::response_id("req_") {
        Ok(id) => RequestId(id),
        Err(error) => return error.with_body(MessagesErrorBody::new(&error, &RequestId(String::new()))),
    };
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = error.with_body(MessagesErrorBody::new(&error, &id));
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert("request-id", value);
    }
    response
}
