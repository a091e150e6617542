//! What can go wrong with a request, and what the client is told.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use wushi_engine::EngineError;
use wushi_formats::FormatError;

use crate::constraint::ConstraintError;

/// The code of a model that cannot be loaded.
pub(crate) const NOT_LOADED: &str = "model_not_loaded";
/// The code of what no client reads.
const GONE: &str = "client_closed_request";

/// A refusal or a failure, in OpenAI's terms.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// What was wrong and what to do.
    pub(crate) message: String,
    /// The parameter it was about.
    pub(crate) param: Option<String>,
    /// What programs look at.
    pub(crate) code: Option<&'static str>,
    /// When trying again makes sense, in seconds.
    pub(crate) retry_after: Option<u64>,
}

/// The body of every error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// What was wrong and what to do.
    message: String,
    /// Kind of error: `invalid_request_error`, `authentication_error`, `rate_limit_error`, `not_found_error`, `server_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The parameter it was about.
    #[schema(required)]
    param: Option<String>,
    /// What programs look at, as in `context_length_exceeded`.
    #[schema(required)]
    code: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// The request makes no sense: 400.
    pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// A parameter makes no sense: 400.
    pub(crate) fn parameter(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..ApiError::invalid(message) }
    }

    /// Something broke here: 500.
    pub(crate) fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The client went away; nobody reads this.
    pub(crate) fn gone() -> ApiError {
        ApiError::invalid("the client went away").code(GONE)
    }

    /// Whether the client went away.
    pub(crate) fn is_gone(&self) -> bool {
        self.code == Some(GONE)
    }

    /// Not now: 503.
    pub(crate) fn unavailable(message: impl Into<String>, retry_after: u64) -> ApiError {
        ApiError { retry_after: Some(retry_after), ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// Too much: 429.
    pub(crate) fn too_many(message: impl Into<String>, code: &'static str, retry_after: u64) -> ApiError {
        ApiError {
            code: Some(code),
            retry_after: Some(retry_after),
            ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, message)
        }
    }

    /// An error about the prompt names what the API at hand calls it.
    pub(crate) fn about(self, prompt: &str) -> ApiError {
        let param = self.param.map(|param| if param == "prompt" { prompt.to_owned() } else { param });
        ApiError { param, ..self }
    }

    pub(crate) fn code(self, code: &'static str) -> ApiError {
        ApiError { code: Some(code), ..self }
    }

    /// What sort of error it is, in the words of OpenAI and Anthropic alike.
    pub(crate) fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// What a client reads.
    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                message: self.message.clone(),
                kind: self.kind(),
                param: self.param.clone(),
                code: self.code,
            },
        }
    }

    /// The response with another body than OpenAI's.
    pub(crate) fn with_body(&self, body: impl Serialize) -> Response {
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Some(NOT_LOADED) || self.status == StatusCode::NOT_IMPLEMENTED {
            // OpenAI's and Anthropic's clients would wait and try again otherwise.
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.with_body(self.body());
        // For those who have to say it in another API's words.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> ApiError {
        let message = error.to_string();
        match error {
            EngineError::PromptTooLong { .. } | EngineError::TooFewPages { .. } => {
                ApiError::parameter("prompt", message).code("context_length_exceeded")
            }
            EngineError::QueueFull { .. } => ApiError::too_many(message, "queue_full", 2),
            EngineError::OutOfRange { name, .. } => ApiError::parameter(name.replace(' ', "_"), message),
            EngineError::EmptyPrompt => ApiError::parameter("prompt", message),
            EngineError::UnknownToken { place, .. } => ApiError::parameter(place.replace(' ', "_"), message),
            EngineError::EmptyStopString { .. } | EngineError::TooManyStopStrings { .. } => {
                ApiError::parameter("stop", message)
            }
            EngineError::NoCandidate { .. } => ApiError::invalid(message),
            EngineError::Panicked(_) => {
                tracing::error!(%message, "an engine");
                ApiError::internal("the model's engine has failed; the server's log says why. Try again")
            }
            EngineError::Stopped => ApiError::unavailable("the model is being unloaded: try again", 1),
            _ => ApiError::internal(message),
        }
    }
}

impl From<FormatError> for ApiError {
    fn from(error: FormatError) -> ApiError {
        ApiError::invalid(error.to_string())
    }
}

impl From<ConstraintError> for ApiError {
    fn from(error: ConstraintError) -> ApiError {
        ApiError::parameter("response_format", error.to_string()).code("invalid_grammar")
    }
}
