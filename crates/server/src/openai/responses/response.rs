//! The response object.

use serde::Serialize;
use utoipa::ToSchema;
use wushi_engine::Logprob;
use wushi_formats::Tokenizer;

use crate::answer::{Reason, Summary};
use crate::error::ApiError;
use crate::whole::{Part, Said};

use super::super::chat::{ChatLogprobs, Head, TokenLogprob};
use super::super::shared::Extension;
use super::request::{Settings, Wanted};

/// An answer, or what there is of it yet.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Response {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created_at: u64,
    /// Seconds since 1970.
    #[schema(required)]
    completed_at: Option<u64>,
    /// `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`.
    status: &'static str,
    #[schema(required)]
    error: Option<ResponseError>,
    #[schema(required)]
    incomplete_details: Option<IncompleteDetails>,
    model: String,
    output: Vec<OutputItem>,
    #[serde(flatten)]
    settings: Settings,
    #[schema(required)]
    usage: Option<ResponseUsage>,
    /// Identifies weights, quantisation and arithmetic.
    system_fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    wushi: Option<Extension>,
}

/// Why there is no answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ResponseError {
    /// `server_error`, `rate_limit_exceeded` or `invalid_prompt`.
    code: &'static str,
    /// What went wrong.
    message: String,
    /// Sort of error, as elsewhere.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The parameter it was about.
    #[schema(required)]
    param: Option<String>,
}

/// Why an answer ends early.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct IncompleteDetails {
    /// `max_output_tokens`; also at the end of the context.
    reason: &'static str,
}

/// A part of an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputItem {
    /// What the model thought.
    Reasoning {
        id: String,
        /// Always empty.
        summary: Vec<ContentOut>,
        content: Vec<ContentOut>,
        status: &'static str,
    },
    /// What it says.
    Message { id: String, role: &'static str, status: &'static str, content: Vec<ContentOut> },
    /// What it calls.
    FunctionCall {
        id: String,
        /// What the call's output repeats.
        call_id: String,
        name: String,
        /// JSON in a string.
        arguments: String,
        status: &'static str,
    },
}

/// A text.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ContentOut {
    /// Said.
    OutputText {
        text: String,
        /// Always empty.
        annotations: Vec<String>,
        logprobs: Vec<TokenLogprob>,
    },
    /// Thought.
    ReasoningText { text: String },
}

/// Tokens of a request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ResponseUsage {
    /// Of the prompt.
    input_tokens: usize,
    /// More of the prompt's.
    input_tokens_details: InputTokensDetails,
    /// Of the answer.
    output_tokens: usize,
    /// More of the answer's.
    output_tokens_details: OutputTokensDetails,
    /// Both.
    total_tokens: usize,
}

/// More of the prompt's tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct InputTokensDetails {
    /// Found in the prefix cache instead of computed.
    cached_tokens: usize,
    /// Always 0: writing to the cache is not counted.
    cache_write_tokens: usize,
}

/// More of the answer's tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct OutputTokensDetails {
    /// Thought rather than said.
    reasoning_tokens: usize,
}

impl From<&Summary> for ResponseUsage {
    fn from(summary: &Summary) -> ResponseUsage {
        ResponseUsage {
            input_tokens: summary.prompt_tokens,
            input_tokens_details: InputTokensDetails {
                cached_tokens: summary.cached_tokens,
                cache_write_tokens: 0,
            },
            output_tokens: summary.completion_tokens,
            output_tokens_details: OutputTokensDetails { reasoning_tokens: summary.reasoning_tokens },
            total_tokens: summary.prompt_tokens + summary.completion_tokens,
        }
    }
}

/// How far a part or an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on.
    Going,
    /// It is complete.
    Complete,
    /// It broke off.
    Cut,
}

impl Progress {
    /// Of the last part of an answer.
    pub(crate) fn of(reason: Reason) -> Progress {
        match reason {
            Reason::Length | Reason::Cancelled => Progress::Cut,
            Reason::Stop | Reason::StopString(_) | Reason::ToolCalls => Progress::Complete,
        }
    }

    fn status(self) -> &'static str {
        match self {
            Progress::Going => "in_progress",
            Progress::Complete => "completed",
            Progress::Cut => "incomplete",
        }
    }
}

/// Tells parts of an answer as items.
pub(crate) struct Items<'a> {
    pub(crate) head: &'a Head,
    /// Where log-probabilities are wanted.
    pub(crate) tokenizer: Option<&'a Tokenizer>,
}

impl Items<'_> {
    /// The name of a part: that of the response, and its place.
    pub(crate) fn id(&self, part: &Part, index: usize) -> String {
        let prefix = match part {
            Part::Text { .. } => "msg",
            Part::Reasoning(_) => "rs",
            Part::Call(_) => "fc",
        };
        let digits = self.head.id.strip_prefix("resp_").unwrap_or(&self.head.id);
        format!("{prefix}_{digits}{index:02x}")
    }

    /// The text of a part, unless it is a call.
    pub(crate) fn content(&self, part: &Part) -> Option<ContentOut> {
        match part {
            Part::Text { text, logprobs } => Some(ContentOut::OutputText {
                text: text.clone(),
                annotations: Vec::new(),
                logprobs: self.logprobs(logprobs),
            }),
            Part::Reasoning(text) => Some(ContentOut::ReasoningText { text: text.clone() }),
            Part::Call(_) => None,
        }
    }

    /// Log-probabilities with the tokens by name, if they are wanted.
    pub(crate) fn logprobs(&self, logprobs: &[Logprob]) -> Vec<TokenLogprob> {
        self.tokenizer.map_or_else(Vec::new, |tokenizer| ChatLogprobs::new(logprobs, tokenizer).content)
    }

    /// A part; one that goes on is told without what it has said so far.
    pub(crate) fn item(&self, part: &Part, index: usize, progress: Progress) -> OutputItem {
        let (id, status) = (self.id(part, index), progress.status());
        let content = || match progress {
            Progress::Going => Vec::new(),
            _ => self.content(part).into_iter().collect(),
        };
        match part {
            Part::Text { .. } => OutputItem::Message { id, role: "assistant", status, content: content() },
            Part::Reasoning(_) => {
                OutputItem::Reasoning { id, summary: Vec::new(), content: content(), status }
            }
            Part::Call(call) => OutputItem::FunctionCall {
                id,
                call_id: call.id.clone(),
                name: call.name.clone(),
                arguments: if progress == Progress::Going { String::new() } else { call.arguments.clone() },
                status,
            },
        }
    }

    /// All parts of an answer that has ended; an answer without any is an empty text.
    pub(crate) fn all(&self, said: &Said) -> Vec<OutputItem> {
        let last = said.parts.len().saturating_sub(1);
        let progress = |index| if index == last { Progress::of(said.reason()) } else { Progress::Complete };
        let items =
            said.parts.iter().enumerate().map(|(index, part)| self.item(part, index, progress(index)));
        let items: Vec<OutputItem> = items.collect();
        if items.is_empty() {
            let nothing = Part::Text { text: String::new(), logprobs: Vec::new() };
            return vec![self.item(&nothing, 0, progress(0))];
        }
        items
    }
}

impl Response {
    /// One that has just begun.
    pub(crate) fn begun(head: &Head, wanted: &Wanted) -> Response {
        Response {
            id: head.id.clone(),
            object: "response",
            created_at: head.created,
            completed_at: None,
            status: "in_progress",
            error: None,
            incomplete_details: None,
            model: head.model.clone(),
            output: Vec::new(),
            settings: wanted.settings.clone(),
            usage: None,
            system_fingerprint: head.fingerprint.clone(),
            wushi: None,
        }
    }

    /// One that has ended.
    pub(crate) fn ended(
        items: &Items<'_>,
        wanted: &Wanted,
        said: &Said,
        summary: &Summary,
        now: u64,
    ) -> Response {
        let (status, incomplete_details) = match said.reason() {
            Reason::Length => ("incomplete", Some(IncompleteDetails { reason: "max_output_tokens" })),
            Reason::Cancelled => ("cancelled", None),
            Reason::Stop | Reason::StopString(_) | Reason::ToolCalls => ("completed", None),
        };
        Response {
            completed_at: (status == "completed").then_some(now),
            status,
            incomplete_details,
            output: items.all(said),
            usage: Some(ResponseUsage::from(summary)),
            wushi: Some(Extension::new(&items.head.id, summary)),
            ..Response::begun(items.head, wanted)
        }
    }

    /// One that broke off.
    pub(crate) fn failed(head: &Head, wanted: &Wanted, error: ApiError) -> Response {
        let code = match error.status.as_u16() {
            429 => "rate_limit_exceeded",
            400..500 => "invalid_prompt",
            _ => "server_error",
        };
        let kind = error.kind();
        let error = ResponseError { code, message: error.message, kind, param: error.param };
        Response { status: "failed", error: Some(error), ..Response::begun(head, wanted) }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.status == "completed"
    }
}
