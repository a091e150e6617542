//! What `POST /v1/responses` takes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ask::{Ask, Chat, MAX_TOP_LOGPROBS, Prompt};
use crate::error::ApiError;

use super::super::chat::ReasoningEffort;
use super::super::shared::{Stop, StreamOptions, count, include_usage, sampling_wish, seed};
use super::items::{Input, conversation};
use super::tool::{ResponsesTool, ResponsesToolChoice, TextConfig, tools};

/// What is to be answered.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponsesRequest {
    /// Which model; the server's first one if absent.
    pub(crate) model: Option<String>,
    /// What the user says, or all that happened so far.
    #[schema(required, value_type = Input)]
    input: Option<Input>,
    /// What the model is told before that.
    instructions: Option<String>,
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
    /// The most tokens of the answer, thoughts included.
    #[schema(minimum = 1)]
    max_output_tokens: Option<i64>,
    /// Texts that end the answer.
    stop: Option<Stop>,
    /// Key of the random numbers: the same seed gives the same answer.
    seed: Option<i64>,
    /// Subtracted from a token's logit for each time it occurs in the answer.
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that occur in the answer.
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f32>,
    /// Makes tokens of prompt and answer less probable; 1 changes nothing.
    repetition_penalty: Option<f32>,
    /// Added to logits, by token id.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// How many alternatives come with each token's log-probability.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<i64>,
    /// What comes besides: `message.output_text.logprobs`. Thoughts are told in the clear and taken back as they are, so
    /// that `reasoning.encrypted_content` adds nothing.
    include: Option<Vec<String>>,
    /// Whether the answer comes as it is made.
    stream: Option<bool>,
    /// Accepted; streams are never padded.
    stream_options: Option<StreamOptions>,
    /// Functions the model may call.
    tools: Option<Vec<ResponsesTool>>,
    /// Whether, and what, it calls.
    tool_choice: Option<ResponsesToolChoice>,
    /// Whether it may make several calls at once.
    parallel_tool_calls: Option<bool>,
    /// Accepted: it limits tools of the server, and there are none.
    max_tool_calls: Option<i64>,
    /// What the answer must look like.
    text: Option<TextConfig>,
    /// How the model thinks.
    reasoning: Option<ReasoningConfig>,
    /// Variables for the template.
    chat_template_kwargs: Option<Map<String, Value>>,
    /// Report the BLAKE3 digest of the logits the answer was sampled from.
    logits_digest: Option<bool>,
    /// `disabled`: what does not fit is refused.
    truncation: Option<String>,
    /// Must be absent: nothing is stored.
    previous_response_id: Option<String>,
    /// Must be absent: nothing is stored.
    conversation: Option<Value>,
    /// Must be absent: nothing is stored.
    prompt: Option<Value>,
    /// Must not be true: answers are made while the client waits.
    background: Option<bool>,
    /// Accepted; nothing is stored either way.
    #[serde(rename = "store")]
    _store: Option<bool>,
    /// Told again with the answer.
    metadata: Option<BTreeMap<String, String>>,
    /// Told again with the answer.
    user: Option<String>,
    /// Told again with the answer.
    safety_identifier: Option<String>,
    /// Told again with the answer: all prompts share one cache.
    prompt_cache_key: Option<String>,
    /// Accepted and not used.
    #[serde(rename = "prompt_cache_retention")]
    _prompt_cache_retention: Option<Value>,
    /// Accepted and not used.
    #[serde(rename = "service_tier")]
    _service_tier: Option<Value>,
}

/// How the model thinks.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReasoningConfig {
    /// How much, for templates that know: also given to them as `reasoning_effort`.
    effort: Option<ReasoningEffort>,
    /// Accepted: thoughts are told in full, and never summed up.
    summary: Option<String>,
    /// An older name of `summary`.
    #[serde(default, rename = "generate_summary", skip_serializing)]
    _generate_summary: Option<String>,
}

/// Settings that the answer tells again.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Settings {
    background: bool,
    #[schema(required)]
    instructions: Option<String>,
    #[schema(required)]
    max_output_tokens: Option<usize>,
    #[schema(required)]
    max_tool_calls: Option<i64>,
    metadata: BTreeMap<String, String>,
    parallel_tool_calls: bool,
    #[schema(required)]
    previous_response_id: Option<String>,
    #[schema(required)]
    prompt_cache_key: Option<String>,
    reasoning: ReasoningConfig,
    #[schema(required)]
    safety_identifier: Option<String>,
    service_tier: &'static str,
    store: bool,
    /// What was sampled with; null while the model is loading, if the request did not say.
    #[schema(required)]
    pub(crate) temperature: Option<f32>,
    text: TextConfig,
    tool_choice: ResponsesToolChoice,
    tools: Vec<ResponsesTool>,
    top_logprobs: usize,
    #[schema(required)]
    pub(crate) top_p: Option<f32>,
    truncation: &'static str,
    #[schema(required)]
    user: Option<String>,
}

/// What matters after the request has become an ask.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) stream: bool,
    pub(crate) logprobs: bool,
    pub(crate) settings: Settings,
}

impl ResponsesRequest {
    /// What is asked for, and how the answer is to be told.
    pub(crate) fn ask(self) -> Result<(Ask, Wanted), ApiError> {
        self.check()?;
        let stream = self.stream.unwrap_or(false);
        include_usage(stream, self.stream_options)?;
        let top_logprobs = top_logprobs(self.include.as_deref().unwrap_or_default(), self.top_logprobs)?;
        let mut variables = self.chat_template_kwargs.unwrap_or_default();
        let reasoning = self.reasoning.unwrap_or_default();
        if let Some(effort) = reasoning.effort {
            effort.variables(&mut variables);
        }
        let text = self.text.unwrap_or_default();
        let (offered, tool_choice) = (self.tools.unwrap_or_default(), self.tool_choice.unwrap_or_default());
        let parallel = self.parallel_tool_calls.unwrap_or(true);
        let chat = Chat {
            messages: conversation(self.instructions.as_deref(), self.input)?,
            tools: tools(&offered, &tool_choice, parallel)?,
            variables,
            continue_final: false,
        };
        let max_tokens = count("max_output_tokens", self.max_output_tokens, i64::MAX)?;
        let ask = Ask {
            sampling: sampling_wish!(self),
            seed: seed(self.seed),
            max_tokens,
            stop: Stop::into_vec(self.stop),
            top_logprobs,
            format: text.grammar(),
            digest: self.logits_digest.unwrap_or(false),
            ..Ask::new(Prompt::Chat(chat))
        };
        let settings = Settings {
            background: false,
            instructions: self.instructions,
            max_output_tokens: max_tokens,
            max_tool_calls: self.max_tool_calls,
            metadata: self.metadata.unwrap_or_default(),
            parallel_tool_calls: parallel,
            previous_response_id: None,
            prompt_cache_key: self.prompt_cache_key,
            reasoning,
            safety_identifier: self.safety_identifier,
            service_tier: "default",
            store: false,
            temperature: self.temperature,
            text,
            tool_choice,
            tools: offered,
            top_logprobs: top_logprobs.unwrap_or(0),
            top_p: self.top_p,
            truncation: "disabled",
            user: self.user,
        };
        Ok((ask, Wanted { stream, logprobs: top_logprobs.is_some(), settings }))
    }

    /// Refuses what could only be ignored.
    fn check(&self) -> Result<(), ApiError> {
        let refuse = |param: &str, why: &str| Err(ApiError::parameter(param, format!("{param}: {why}")));
        if self.previous_response_id.is_some() {
            return refuse(
                "previous_response_id",
                "responses are not stored: send the whole conversation as input",
            );
        }
        if self.conversation.is_some() {
            return refuse(
                "conversation",
                "conversations are not stored: send the whole conversation as input",
            );
        }
        if self.prompt.is_some() {
            return refuse("prompt", "prompts are not stored: use instructions and input");
        }
        if self.background == Some(true) {
            return refuse("background", "responses are not stored to be asked for later: leave it out");
        }
        match self.truncation.as_deref() {
            None | Some("disabled") => Ok(()),
            Some("auto") => refuse(
                "truncation",
                "nothing is left out of a conversation unasked: only `disabled` is possible",
            ),
            Some(other) => {
                refuse("truncation", &format!("`{other}` is unknown, only `disabled` is possible"))
            }
        }
    }
}

/// Alternatives for each token, if log-probabilities are wanted at all.
fn top_logprobs(include: &[String], top: Option<i64>) -> Result<Option<usize>, ApiError> {
    let mut wanted = false;
    for (index, name) in include.iter().enumerate() {
        match name.as_str() {
            "message.output_text.logprobs" => wanted = true,
            "reasoning.encrypted_content" => {}
            name => {
                let param = format!("include[{index}]");
                let message =
                    format!("{param}: `{name}` cannot be given, only `message.output_text.logprobs`");
                return Err(ApiError::parameter(param, message));
            }
        }
    }
    match top {
        None => Ok(wanted.then_some(0)),
        Some(top) if (0..=MAX_TOP_LOGPROBS as i64).contains(&top) => {
            Ok((wanted || top > 0).then_some(top as usize))
        }
        Some(top) => {
            let message = format!("top_logprobs is {top}, expected 0 to {MAX_TOP_LOGPROBS}");
            Err(ApiError::parameter("top_logprobs", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::ask::{Ask, Chat, Prompt};
    use crate::constraint::Grammar;
    use crate::error::ApiError;
    use crate::tools::ToolChoice;

    use super::{ResponsesRequest, Wanted};

    fn ask(request: Value) -> Result<(Ask, Wanted), ApiError> {
        serde_json::from_value::<ResponsesRequest>(request).unwrap().ask()
    }

    fn chat(request: Value) -> Chat {
        match ask(request).unwrap().0.prompt {
            Prompt::Chat(chat) => chat,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn items_become_turns() {
        let chat = chat(json!({"instructions": "Be brief.", "input": [
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{\"city\":\"Paris\"}"},
            {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "sunny"}]},
        ]}));
        let messages: Value = chat.messages.iter().map(|message| json!(message)).collect();
        let function = json!({"name": "weather", "arguments": {"city": "Paris"}});
        let expected = json!([
            {"role": "system", "content": "Be brief.\n\nBe kind."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.",
             "tool_calls": [{"id": "call_1", "type": "function", "function": function}]},
            {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
        ]);
        assert_eq!(messages, expected);
    }

    #[test]
    fn thoughts_may_come_as_a_summary_or_sealed() {
        let thought = |item: Value| {
            let answer = json!({"role": "assistant", "content": "Yes."});
            let chat = chat(json!({"input": [item, answer]}));
            chat.messages[0].extra.get("reasoning_content").cloned()
        };
        let summary = json!([{"type": "summary_text", "text": "Hm."}]);
        assert_eq!(
            thought(json!({"type": "reasoning", "content": [], "summary": summary})),
            Some(json!("Hm."))
        );
        assert_eq!(thought(json!({"type": "reasoning", "summary": [], "encrypted_content": "xyz"})), None);
    }

    #[test]
    fn settings_are_taken_and_told_again() {
        let schema = json!({"type": "object"});
        let request = json!({"input": "x", "max_output_tokens": 9, "temperature": 0.5, "seed": -1, "stop": "y",
            "include": ["message.output_text.logprobs"], "top_logprobs": 3, "reasoning": {"effort": "none"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": true}},
            "metadata": {"a": "b"}, "parallel_tool_calls": false, "logits_digest": true});
        let (ask, wanted) = ask(request).unwrap();
        assert_eq!((ask.max_tokens, ask.seed, ask.top_logprobs), (Some(9), Some(u64::MAX), Some(3)));
        assert_eq!((ask.stop, ask.digest), (vec!["y".to_owned()], true));
        assert_eq!(ask.format, Some(Grammar::JsonSchema(schema.clone())));
        let Prompt::Chat(chat) = ask.prompt else { panic!() };
        assert_eq!(json!(chat.variables), json!({"reasoning_effort": "none", "enable_thinking": false}));
        let settings = json!(wanted.settings);
        let format = json!({"type": "json_schema", "name": "n", "schema": schema, "strict": true});
        assert_eq!(settings["text"], json!({"format": format}));
        assert_eq!(settings["reasoning"], json!({"effort": "none", "summary": null}));
        assert_eq!(settings["metadata"], json!({"a": "b"}));
        assert_eq!(settings["parallel_tool_calls"], false);
    }

    #[test]
    fn tools_are_chosen() {
        let chosen = |choice: Value| {
            let tool =
                |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}});
            let tools =
                chat(json!({"input": "x", "tools": [tool("a"), tool("b")], "tool_choice": choice})).tools;
            let tools = tools.unwrap();
            (tools.tools.into_iter().map(|tool| tool.name).collect::<String>(), tools.choice)
        };
        assert_eq!(chosen(json!("auto")), ("ab".into(), ToolChoice::Auto));
        assert_eq!(chosen(json!("required")), ("ab".into(), ToolChoice::Required));
        let named = json!({"type": "function", "name": "b"});
        assert_eq!(chosen(named.clone()), ("ab".into(), ToolChoice::Named("b".into())));
        let allowed = json!({"type": "allowed_tools", "mode": "required", "tools": [named]});
        assert_eq!(chosen(allowed), ("b".into(), ToolChoice::Required));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let call = json!({"type": "function_call_output", "call_id": "c", "output": "x"});
        for (request, param) in [
            (json!({}), "input"),
            (json!({"input": []}), "input"),
            (json!({"input": "x", "previous_response_id": "resp_1"}), "previous_response_id"),
            (json!({"input": "x", "conversation": "conv_1"}), "conversation"),
            (json!({"input": "x", "prompt": {"id": "p"}}), "prompt"),
            (json!({"input": "x", "background": true}), "background"),
            (json!({"input": "x", "truncation": "auto"}), "truncation"),
            (json!({"input": "x", "include": ["file_search_call.results"]}), "include[0]"),
            (json!({"input": "x", "top_logprobs": 21}), "top_logprobs"),
            (json!({"input": "x", "max_output_tokens": 0}), "max_output_tokens"),
            (json!({"input": "x", "stream_options": {}}), "stream_options"),
            (json!({"input": "x", "tools": [{"type": "web_search"}]}), "tools[0].type"),
            (json!({"input": "x", "tool_choice": "required"}), "tool_choice"),
            (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input[0]"),
            (json!({"input": [{"type": "computer_call"}]}), "input[0].type"),
            (json!({"input": [{"role": "tool", "content": "x"}]}), "input[0].role"),
            (json!({"input": [call]}), "input[0].call_id"),
        ] {
            let error = ask(request.clone()).map(|_| ()).unwrap_err();
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)), "{request}");
            assert!(error.message.contains(param.split(['.', '[']).next().unwrap()), "{}", error.message);
        }
    }
}
