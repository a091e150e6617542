//! An answer in Anthropic's form.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::answer::{Reason, Summary};
use crate::openai::chat::Head;
use crate::openai::shared::Extension;
use crate::whole::{Part, Said};

use super::request::Wanted;

/// An answer, or the beginning of one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MessagesResponse {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    content: Vec<Block>,
    /// `end_turn`, `max_tokens`, `stop_sequence`, `tool_use` or `model_context_window_exceeded`.
    #[schema(required)]
    stop_reason: Option<&'static str>,
    /// The text that ended it.
    #[schema(required)]
    stop_sequence: Option<String>,
    usage: MessagesUsage,
    /// Identifies weights, quantisation and arithmetic.
    system_fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    wushi: Option<Extension>,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Block {
    /// What the model says.
    Text { text: String },
    /// What it thinks.
    Thinking {
        thinking: String,
        /// Always empty: thoughts are taken back as they are.
        signature: String,
    },
    /// What it calls.
    ToolUse {
        /// What the result repeats.
        id: String,
        name: String,
        #[schema(value_type = Object)]
        input: Value,
    },
}

/// Tokens of a request.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct MessagesUsage {
    /// Of the prompt, without those found in the prefix cache.
    input_tokens: usize,
    /// Always 0: writing to the cache is not counted.
    cache_creation_input_tokens: usize,
    /// Of the prompt, found in the prefix cache instead of computed.
    cache_read_input_tokens: usize,
    /// Of the answer.
    output_tokens: usize,
    /// Of the answer's: thought rather than said.
    output_tokens_details: ThinkingTokens,
    service_tier: &'static str,
}

/// More of the answer's tokens.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ThinkingTokens {
    /// Thought rather than said.
    thinking_tokens: usize,
}

impl MessagesUsage {
    /// Before there is an answer.
    pub(crate) fn of_prompt(tokens: usize) -> MessagesUsage {
        MessagesUsage {
            input_tokens: tokens,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: 0,
            output_tokens: 0,
            output_tokens_details: ThinkingTokens { thinking_tokens: 0 },
            service_tier: "standard",
        }
    }
}

impl From<&Summary> for MessagesUsage {
    fn from(summary: &Summary) -> MessagesUsage {
        MessagesUsage {
            cache_read_input_tokens: summary.cached_tokens,
            output_tokens: summary.completion_tokens,
            output_tokens_details: ThinkingTokens { thinking_tokens: summary.reasoning_tokens },
            ..MessagesUsage::of_prompt(summary.prompt_tokens.saturating_sub(summary.cached_tokens))
        }
    }
}

/// Why an answer ended, and the text that ended it.
pub(crate) fn stop(reason: Reason, wanted: &Wanted, summary: &Summary) -> (&'static str, Option<String>) {
    match reason {
        Reason::StopString(index) => ("stop_sequence", wanted.stops.get(index).cloned()),
        Reason::Length if summary.completion_tokens < wanted.max_tokens => {
            ("model_context_window_exceeded", None)
        }
        Reason::Length => ("max_tokens", None),
        Reason::ToolCalls => ("tool_use", None),
        // Nobody hears of an answer that was called off.
        Reason::Stop | Reason::Cancelled => ("end_turn", None),
    }
}

impl Block {
    /// Nothing yet.
    pub(crate) fn begun(part: &Part) -> Block {
        match part {
            Part::Text { .. } => Block::Text { text: String::new() },
            Part::Reasoning(_) => Block::Thinking { thinking: String::new(), signature: String::new() },
            Part::Call(call) => Block::ToolUse {
                id: call.id.clone(),
                name: call.name.clone(),
                input: Value::Object(serde_json::Map::new()),
            },
        }
    }

    /// A whole part. `None` for a call that broke off: its arguments are no JSON.
    fn whole(part: &Part, thoughts: bool) -> Option<Block> {
        Some(match part {
            Part::Text { text, .. } => Block::Text { text: text.clone() },
            Part::Reasoning(text) if thoughts => {
                Block::Thinking { thinking: text.clone(), signature: String::new() }
            }
            Part::Reasoning(_) => Block::begun(part),
            Part::Call(call) => Block::ToolUse {
                id: call.id.clone(),
                name: call.name.clone(),
                input: serde_json::from_str(&call.arguments).ok()?,
            },
        })
    }
}

impl MessagesResponse {
    /// One that has just begun.
    pub(crate) fn begun(head: &Head, prompt_tokens: usize) -> MessagesResponse {
        MessagesResponse {
            id: head.id.clone(),
            kind: "message",
            role: "assistant",
            model: head.model.clone(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: MessagesUsage::of_prompt(prompt_tokens),
            system_fingerprint: head.fingerprint.clone(),
            wushi: None,
        }
    }

    /// One that has ended.
    pub(crate) fn ended(head: &Head, wanted: &Wanted, said: &Said, summary: &Summary) -> MessagesResponse {
        let mut content: Vec<Block> =
            said.parts.iter().filter_map(|part| Block::whole(part, wanted.thoughts)).collect();
        if content.is_empty() {
            // Clients look at the first block without asking whether there is one.
            content.push(Block::Text { text: String::new() });
        }
        let (stop_reason, stop_sequence) = stop(said.reason(), wanted, summary);
        MessagesResponse {
            content,
            stop_reason: Some(stop_reason),
            stop_sequence,
            usage: MessagesUsage::from(summary),
            wushi: Some(Extension::new(&head.id, summary)),
            ..MessagesResponse::begun(head, 0)
        }
    }
}
