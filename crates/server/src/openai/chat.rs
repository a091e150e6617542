//! `POST /v1/chat/completions`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wushi_engine::Logprob;
use wushi_formats::Tokenizer;

use crate::ask::{Ask, Chat, MAX_CHOICES, MAX_TOP_LOGPROBS, Prompt};
use crate::error::ApiError;
use crate::whole::{Call, Said, Whole};

use super::message::{CalledFunction, ChatMessage, ToolCall, conversation};
use super::shared::{Extension, Stop, StreamOptions, Usage, count, include_usage, sampling_wish, seed};
use super::tool::{ResponseFormat, Tool, ToolChoice, tools};

/// A conversation to be continued.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatRequest {
    /// Which model; the server's first one if absent.
    pub(crate) model: Option<String>,
    /// The conversation so far.
    #[schema(min_items = 1)]
    messages: Vec<ChatMessage>,
    /// Logits are divided by this; 0 always takes the most probable token. 0 to 2.
    #[schema(minimum = 0)]
    temperature: Option<f32>,
    /// Keep the fewest most probable tokens whose probabilities reach this sum.
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    /// Keep the most probable tokens, so many; 0 or -1 for all.
    top_k: Option<i64>,
    /// Keep the tokens at least this share as probable as the most probable one.
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    /// The most tokens of the answer; an older name of max_completion_tokens.
    #[schema(minimum = 1)]
    max_tokens: Option<i64>,
    /// The most tokens of the answer.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<i64>,
    /// Texts that end the answer.
    stop: Option<Stop>,
    /// Key of the random numbers: the same seed gives the same answer.
    seed: Option<i64>,
    /// How many answers.
    #[schema(minimum = 1, maximum = 128)]
    n: Option<i64>,
    /// Subtracted from a token's logit for each time it occurs in the answer.
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that occur in the answer.
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f32>,
    /// Makes tokens of prompt and answer less probable; 1 changes nothing.
    #[serde(alias = "repeat_penalty")]
    repetition_penalty: Option<f32>,
    /// Added to logits, by token id.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// Whether tokens come with their log-probabilities.
    logprobs: Option<bool>,
    /// How many alternatives come with each token.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<i64>,
    /// Whether the answer comes as it is made.
    pub(crate) stream: Option<bool>,
    /// What the stream carries besides.
    stream_options: Option<StreamOptions>,
    /// Functions the model may call.
    tools: Option<Vec<Tool>>,
    /// Whether, and what, it calls.
    tool_choice: Option<ToolChoice>,
    /// Whether it may make several calls at once.
    parallel_tool_calls: Option<bool>,
    /// What the answer must look like.
    response_format: Option<ResponseFormat>,
    /// How much the model thinks, for templates that know: also given to them as `reasoning_effort`.
    reasoning_effort: Option<ReasoningEffort>,
    /// Variables for the template.
    chat_template_kwargs: Option<Map<String, Value>>,
    /// The last message is the beginning of the answer.
    continue_final_message: Option<bool>,
    /// Report the BLAKE3 digests of the logits the answers were sampled from.
    logits_digest: Option<bool>,
    /// Accepted and not used.
    #[serde(rename = "user")]
    _user: Option<Value>,
    /// Accepted and not used.
    #[serde(rename = "metadata")]
    _metadata: Option<Value>,
    /// Accepted and not used: answers are not kept for others.
    #[serde(rename = "store")]
    _store: Option<bool>,
    /// Accepted and not used.
    #[serde(rename = "service_tier")]
    _service_tier: Option<Value>,
    /// Accepted and not used.
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<Value>,
    /// Accepted and not used: all prompts share one cache.
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<Value>,
    /// Accepted and not used.
    #[serde(rename = "prompt_cache_retention")]
    _prompt_cache_retention: Option<Value>,
    /// Accepted and not used: likely continuations are found in the prompt.
    #[serde(rename = "prediction")]
    _prediction: Option<Value>,
    /// Accepted and not used.
    #[serde(rename = "verbosity")]
    _verbosity: Option<Value>,
    /// Accepted and not used: prompts are always cached.
    #[serde(rename = "cache_prompt")]
    _cache_prompt: Option<Value>,
    /// The answer goes on after the token that would end it.
    ignore_eos: Option<bool>,
    /// More tokens that end the answer.
    stop_token_ids: Option<Vec<u32>>,
    /// `["text"]` is what there is.
    modalities: Option<Vec<String>>,
}

/// How much a model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReasoningEffort {
    /// Not at all.
    None,
    /// Hardly.
    Minimal,
    /// A little.
    Low,
    /// As usual.
    Medium,
    /// A lot.
    High,
    /// A great deal.
    Xhigh,
    /// As much as possible.
    Max,
}

impl ReasoningEffort {
    /// What templates look at: the effort by name, and whether there is any.
    pub(crate) fn variables(self, variables: &mut Map<String, Value>) {
        let name = serde_json::to_value(self).unwrap_or_default();
        let thinks = self != ReasoningEffort::None;
        // What a request says itself wins.
        variables.entry("reasoning_effort").or_insert(name);
        variables.entry("enable_thinking").or_insert(thinks.into());
    }
}

/// What matters after the request has become an ask.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) logprobs: bool,
}

impl ChatRequest {
    /// What is asked for, and how the answer is to be told.
    pub(crate) fn ask(self) -> Result<(Ask, Wanted), ApiError> {
        let stream = self.stream.unwrap_or(false);
        let include_usage = include_usage(stream, self.stream_options)?;
        if self.modalities.is_some_and(|modalities| modalities != ["text"]) {
            return Err(ApiError::parameter("modalities", "modalities: only [\"text\"] is possible"));
        }
        let logprobs = self.logprobs.unwrap_or(false);
        let mut variables = self.chat_template_kwargs.unwrap_or_default();
        if let Some(effort) = self.reasoning_effort {
            effort.variables(&mut variables);
        }
        let chat = Chat {
            messages: conversation(self.messages)?,
            tools: tools(self.tools, self.tool_choice, self.parallel_tool_calls)?,
            variables,
            continue_final: self.continue_final_message.unwrap_or(false),
        };
        let max_tokens = count("max_tokens", self.max_tokens, i64::MAX)?;
        let max_completion = count("max_completion_tokens", self.max_completion_tokens, i64::MAX)?;
        let ask = Ask {
            sampling: sampling_wish!(self),
            seed: seed(self.seed),
            choices: count("n", self.n, MAX_CHOICES.into())?.unwrap_or(1) as u32,
            max_tokens: max_completion.or(max_tokens),
            stop: Stop::into_vec(self.stop),
            ignore_end: self.ignore_eos.unwrap_or(false),
            stop_tokens: self.stop_token_ids.unwrap_or_default(),
            top_logprobs: top_logprobs(logprobs, self.top_logprobs)?,
            format: self.response_format.map(ResponseFormat::grammar).transpose()?.flatten(),
            digest: self.logits_digest.unwrap_or(false),
            ..Ask::new(Prompt::Chat(chat))
        };
        Ok((ask, Wanted { stream, include_usage, logprobs }))
    }
}

fn top_logprobs(logprobs: bool, top: Option<i64>) -> Result<Option<usize>, ApiError> {
    match top {
        None => Ok(logprobs.then_some(0)),
        Some(_) if !logprobs => {
            Err(ApiError::parameter("top_logprobs", "top_logprobs needs logprobs to be true"))
        }
        Some(top) if (0..=MAX_TOP_LOGPROBS as i64).contains(&top) => Ok(Some(top as usize)),
        Some(top) => {
            let message = format!("top_logprobs is {top}, expected 0 to {MAX_TOP_LOGPROBS}");
            Err(ApiError::parameter("top_logprobs", message))
        }
    }
}

/// Answers to a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatCompletion {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    choices: Vec<ChatChoice>,
    usage: Usage,
    /// Identifies weights, quantisation and arithmetic.
    system_fingerprint: String,
    wushi: Extension,
}

/// One of the answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    index: usize,
    message: AssistantMessage,
    #[schema(required)]
    logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    finish_reason: &'static str,
}

/// What the model says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AssistantMessage {
    role: &'static str,
    #[schema(required)]
    content: Option<String>,
    #[schema(required)]
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<ToolCall>>,
}

/// Log-probabilities of an answer's tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    pub(crate) content: Vec<TokenLogprob>,
    #[schema(required)]
    refusal: Option<Vec<TokenLogprob>>,
}

/// A token and its alternatives.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<Alternative>,
}

/// A token that might have been.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Alternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl ChatLogprobs {
    /// With the tokens by name.
    pub(crate) fn new(logprobs: &[Logprob], tokenizer: &Tokenizer) -> ChatLogprobs {
        let name = |id| tokenizer.decode(&[id], false);
        let content = logprobs.iter().map(|token| TokenLogprob {
            token: name(token.id),
            logprob: token.logprob,
            bytes: tokenizer.token_bytes(token.id).to_vec(),
            top_logprobs: token
                .top
                .iter()
                .map(|&(id, logprob)| Alternative {
                    token: name(id),
                    logprob,
                    bytes: tokenizer.token_bytes(id).to_vec(),
                })
                .collect(),
        });
        ChatLogprobs { content: content.collect(), refusal: None }
    }
}

impl From<&Call> for ToolCall {
    fn from(call: &Call) -> ToolCall {
        ToolCall {
            id: call.id.clone(),
            kind: "function".to_owned(),
            function: CalledFunction { name: call.name.clone(), arguments: call.arguments.clone() },
        }
    }
}

impl AssistantMessage {
    fn new(said: &Said) -> AssistantMessage {
        let calls: Vec<ToolCall> = said.calls().map(ToolCall::from).collect();
        let (text, reasoning) = (said.text(), said.reasoning());
        AssistantMessage {
            role: "assistant",
            // Nothing but calls is no content.
            content: (calls.is_empty() || !text.is_empty()).then_some(text),
            refusal: None,
            reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
            tool_calls: (!calls.is_empty()).then_some(calls),
        }
    }
}

/// What names an answer: the same in all chunks of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
}

impl ChatCompletion {
    pub(crate) fn new(head: Head, whole: &Whole, wanted: &Wanted, tokenizer: &Tokenizer) -> ChatCompletion {
        let choices = whole.choices.iter().enumerate().map(|(index, said)| ChatChoice {
            index,
            message: AssistantMessage::new(said),
            logprobs: wanted.logprobs.then(|| ChatLogprobs::new(&said.logprobs, tokenizer)),
            finish_reason: said.reason().openai(),
        });
        ChatCompletion {
            object: "chat.completion",
            created: head.created,
            model: head.model,
            choices: choices.collect(),
            usage: Usage::from(&whole.summary),
            system_fingerprint: head.fingerprint,
            wushi: Extension::new(&head.id, &whole.summary),
            id: head.id,
        }
    }
}
