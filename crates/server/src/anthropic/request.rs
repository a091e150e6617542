//! What `POST /v1/messages` takes.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wushi_formats::Message;

use crate::ask::{Ask, Chat, Prompt, SamplingWish, Tools};
use crate::body::TextOrList;
use crate::constraint::Grammar;
use crate::error::ApiError;
use crate::openai::chat::ReasoningEffort;
use crate::openai::message::MessageContent;
use crate::openai::shared::{count, seed};
use crate::tools;
use crate::turns::Turns;

/// A conversation to be continued.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessagesRequest {
    /// Which model; the server's first one if absent.
    pub(crate) model: Option<String>,
    /// The conversation so far. If the last message is the assistant's, it is the beginning of the answer.
    #[schema(min_items = 1)]
    messages: Vec<InputMessage>,
    /// What the model is told before that.
    system: Option<MessageContent>,
    /// The most tokens of the answer, thoughts included.
    #[schema(minimum = 1)]
    max_tokens: i64,
    /// Texts that end the answer.
    stop_sequences: Option<Vec<String>>,
    /// Logits are divided by this; 0 always takes the most probable token.
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
    /// Makes tokens of prompt and answer less probable; 1 changes nothing.
    repetition_penalty: Option<f32>,
    /// Key of the random numbers: the same seed gives the same answer.
    seed: Option<i64>,
    /// Whether the answer comes as it is made.
    stream: Option<bool>,
    /// Functions the model may call.
    tools: Option<Vec<InputTool>>,
    /// Whether, and what, it calls.
    tool_choice: Option<InputChoice>,
    /// Whether the model thinks first, if its template knows; it does not if absent.
    thinking: Option<Thinking>,
    /// What the answer must look like.
    output_config: Option<OutputConfig>,
    /// An older place for `output_config.format`.
    output_format: Option<OutputFormat>,
    /// Variables for the template.
    chat_template_kwargs: Option<Map<String, Value>>,
    /// Report the BLAKE3 digest of the logits the answer was sampled from.
    logits_digest: Option<bool>,
    /// Accepted and not used.
    #[serde(rename = "metadata")]
    _metadata: Option<Value>,
    /// Accepted and not used.
    #[serde(rename = "service_tier")]
    _service_tier: Option<Value>,
    /// Accepted and not used: whatever can be cached is.
    #[serde(rename = "cache_control")]
    _cache_control: Option<Value>,
    /// Accepted and not used: nothing is taken out of a conversation.
    #[serde(rename = "context_management")]
    _context_management: Option<Value>,
}

/// A conversation to be counted.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CountTokensRequest {
    /// Which model; the server's first one if absent.
    pub(crate) model: Option<String>,
    /// The conversation so far.
    #[schema(min_items = 1)]
    messages: Vec<InputMessage>,
    /// What the model is told before that.
    system: Option<MessageContent>,
    /// Functions the model may call.
    tools: Option<Vec<InputTool>>,
    /// Whether, and what, it calls.
    tool_choice: Option<InputChoice>,
    /// Whether the model thinks first.
    thinking: Option<Thinking>,
    /// Of this the effort matters.
    output_config: Option<OutputConfig>,
    /// Accepted; it is not part of the prompt.
    #[serde(rename = "output_format")]
    _output_format: Option<OutputFormat>,
    /// Variables for the template.
    chat_template_kwargs: Option<Map<String, Value>>,
    /// Accepted and not used.
    #[serde(rename = "cache_control")]
    _cache_control: Option<Value>,
    /// Accepted and not used.
    #[serde(rename = "context_management")]
    _context_management: Option<Value>,
}

/// One turn of a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct InputMessage {
    /// Who speaks.
    role: InputRole,
    /// What is said.
    content: BlockContent,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum InputRole {
    /// A person, or a tool.
    User,
    /// The model.
    Assistant,
    /// Instructions.
    System,
}

/// A text, or blocks.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, from = "TextOrList<InputBlock>")]
pub(crate) enum BlockContent {
    /// A text.
    Text(String),
    /// Texts, calls of tools, what they gave, thoughts.
    Blocks(Vec<InputBlock>),
}

impl From<TextOrList<InputBlock>> for BlockContent {
    fn from(either: TextOrList<InputBlock>) -> BlockContent {
        match either {
            TextOrList::Text(text) => BlockContent::Text(text),
            TextOrList::List(list) => BlockContent::Blocks(list),
        }
    }
}

/// A part of a message.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct InputBlock {
    /// `text`, `tool_use`, `tool_result` or `thinking`.
    #[serde(rename = "type")]
    kind: String,
    /// Of `text`: what is said.
    #[serde(default)]
    text: Option<String>,
    /// Of `thinking`: what was thought.
    #[serde(default)]
    thinking: Option<String>,
    /// Of `tool_use`: its name, which the result repeats.
    #[serde(default)]
    id: Option<String>,
    /// Of `tool_use`: the function.
    #[serde(default)]
    name: Option<String>,
    /// Of `tool_use`: the arguments.
    #[serde(default)]
    input: Option<Map<String, Value>>,
    /// Of `tool_result`: which call it answers.
    #[serde(default)]
    tool_use_id: Option<String>,
    /// Of `tool_result`: what the function gave.
    #[serde(default)]
    content: Option<MessageContent>,
    /// Of `tool_result`: whether the function failed.
    #[serde(default)]
    is_error: Option<bool>,
}

/// A function the model may call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct InputTool {
    /// `custom`, also if absent.
    #[serde(rename = "type", default)]
    kind: Option<String>,
    /// Its name: letters, digits, `_` and `-`.
    #[schema(max_length = 64, pattern = "^[a-zA-Z0-9_-]{1,64}$")]
    name: String,
    /// What it is for.
    #[serde(default)]
    description: Option<String>,
    /// JSON schema of its arguments. They always follow it.
    #[serde(default)]
    #[schema(required)]
    input_schema: Option<Map<String, Value>>,
}

/// Whether, and what, the model calls.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum InputChoice {
    /// It decides.
    Auto {
        /// Whether it may make one call only.
        disable_parallel_tool_use: Option<bool>,
    },
    /// It calls something.
    Any {
        /// Whether it may make one call only.
        disable_parallel_tool_use: Option<bool>,
    },
    /// It calls this function.
    Tool {
        /// Its name.
        name: String,
        /// Whether it may make one call only.
        disable_parallel_tool_use: Option<bool>,
    },
    /// It calls nothing.
    None,
}

/// Whether the model thinks before it answers.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Thinking {
    /// It does.
    Enabled {
        /// How many tokens it should think: below max_tokens. Given to the template as `thinking_budget`.
        #[schema(minimum = 1)]
        budget_tokens: i64,
        /// Whether thoughts are told.
        display: Option<ThinkingDisplay>,
    },
    /// As the template has it.
    Adaptive {
        /// Whether thoughts are told.
        display: Option<ThinkingDisplay>,
    },
    /// It does not.
    Disabled,
}

/// Whether thoughts are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ThinkingDisplay {
    /// They are, in full.
    Summarized,
    /// They are not.
    Omitted,
}

/// What the answer must look like.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputConfig {
    /// How much effort, for templates that know: given to them as `reasoning_effort`.
    effort: Option<ReasoningEffort>,
    /// Its form.
    format: Option<OutputFormat>,
}

/// A form of answers.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputFormat {
    /// JSON that follows a schema.
    JsonSchema {
        /// The schema.
        schema: Map<String, Value>,
    },
}

/// What matters after the request has become an ask.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) stream: bool,
    pub(crate) stops: Vec<String>,
    pub(crate) max_tokens: usize,
    /// Whether thoughts are told.
    pub(crate) thoughts: bool,
}

impl MessagesRequest {
    /// What is asked for, and how the answer is to be told.
    pub(crate) fn ask(self) -> Result<(Ask, Wanted), ApiError> {
        let max_tokens = count("max_tokens", Some(self.max_tokens), i64::MAX)?.unwrap_or(1);
        check_budget(self.thinking.as_ref(), self.max_tokens.saturating_sub(1))?;
        let display = match &self.thinking {
            Some(Thinking::Enabled { display, .. } | Thinking::Adaptive { display }) => *display,
            _ => None,
        };
        let config = self.output_config.unwrap_or_default();
        let format = config.format.or(self.output_format);
        let chat = Chat {
            continue_final: self.messages.last().is_some_and(|last| last.role == InputRole::Assistant),
            messages: conversation(self.system, self.messages)?,
            tools: offered(self.tools, self.tool_choice)?,
            variables: variables(self.chat_template_kwargs, self.thinking.as_ref(), config.effort),
        };
        let stops = self.stop_sequences.unwrap_or_default();
        let ask = Ask {
            sampling: SamplingWish {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                ..SamplingWish::default()
            },
            seed: seed(self.seed),
            max_tokens: Some(max_tokens),
            stop: stops.clone(),
            format: format.map(|OutputFormat::JsonSchema { schema }| Grammar::JsonSchema(schema.into())),
            digest: self.logits_digest.unwrap_or(false),
            ..Ask::new(Prompt::Chat(chat))
        };
        let wanted = Wanted {
            stream: self.stream.unwrap_or(false),
            stops,
            max_tokens,
            thoughts: display != Some(ThinkingDisplay::Omitted),
        };
        Ok((ask, wanted))
    }
}

/// Thoughts must leave something of the answer.
fn check_budget(thinking: Option<&Thinking>, most: i64) -> Result<(), ApiError> {
    match thinking {
        Some(Thinking::Enabled { budget_tokens, .. }) => {
            count("thinking.budget_tokens", Some(*budget_tokens), most).map(drop)
        }
        _ => Ok(()),
    }
}

impl CountTokensRequest {
    /// The prompt that is counted.
    pub(crate) fn ask(self) -> Result<Ask, ApiError> {
        let effort = self.output_config.and_then(|config| config.effort);
        check_budget(self.thinking.as_ref(), i64::MAX)?;
        let chat = Chat {
            continue_final: self.messages.last().is_some_and(|last| last.role == InputRole::Assistant),
            messages: conversation(self.system, self.messages)?,
            tools: offered(self.tools, self.tool_choice)?,
            variables: variables(self.chat_template_kwargs, self.thinking.as_ref(), effort),
        };
        Ok(Ask::new(Prompt::Chat(chat)))
    }
}

/// What the template is told of thinking. What a request says itself wins.
fn variables(
    given: Option<Map<String, Value>>,
    thinking: Option<&Thinking>,
    effort: Option<ReasoningEffort>,
) -> Map<String, Value> {
    let mut variables = given.unwrap_or_default();
    let thinks = match thinking {
        Some(Thinking::Adaptive { .. }) => None,
        Some(Thinking::Enabled { .. }) => Some(true),
        // Clients of this API expect no thoughts that they have not asked for.
        Some(Thinking::Disabled) | None => Some(false),
    };
    if let Some(thinks) = thinks {
        variables.entry("enable_thinking").or_insert(thinks.into());
    }
    if let Some(Thinking::Enabled { budget_tokens, .. }) = thinking {
        variables.entry("thinking_budget").or_insert((*budget_tokens).into());
    }
    if let Some(effort) = effort {
        effort.variables(&mut variables);
    }
    variables
}

/// What a request says of tools; `None` if there are none.
fn offered(tools: Option<Vec<InputTool>>, choice: Option<InputChoice>) -> Result<Option<Tools>, ApiError> {
    let tools = tools.unwrap_or_default();
    let (choice, alone) = match choice {
        None => (tools::ToolChoice::Auto, None),
        Some(InputChoice::None) => (tools::ToolChoice::None, None),
        Some(InputChoice::Auto { disable_parallel_tool_use: alone }) => (tools::ToolChoice::Auto, alone),
        Some(InputChoice::Any { disable_parallel_tool_use: alone }) => (tools::ToolChoice::Required, alone),
        Some(InputChoice::Tool { name, disable_parallel_tool_use: alone }) => {
            (tools::ToolChoice::Named(name), alone)
        }
    };
    if tools.is_empty() {
        return match choice {
            tools::ToolChoice::Auto | tools::ToolChoice::None => Ok(None),
            _ => Err(ApiError::parameter("tool_choice", "tool_choice wants a call, but there are no tools")),
        };
    }
    let tools = tools.into_iter().enumerate().map(|(place, tool)| tool.convert(place));
    let tools = tools.collect::<Result<Vec<_>, _>>()?;
    Tools::new(tools, choice, !alone.unwrap_or(false)).map(Some)
}

impl InputTool {
    fn convert(self, place: usize) -> Result<tools::Tool, ApiError> {
        if let Some(kind) = self.kind.filter(|kind| kind != "custom") {
            let message =
                format!("tools[{place}]: a tool of type `{kind}` cannot be used, only functions (`custom`)");
            return Err(ApiError::parameter(format!("tools[{place}].type"), message));
        }
        let Some(schema) = self.input_schema else {
            let param = format!("tools[{place}].input_schema");
            return Err(ApiError::parameter(&param, format!("{param} is missing")));
        };
        let about =
            |error| ApiError::parameter(format!("tools[{place}]"), format!("tools[{place}]: {error}"));
        let mut tool = tools::Tool::new(&self.name, Some(schema.into())).map_err(about)?;
        tool.description = self.description;
        Ok(tool)
    }
}

/// The conversation as templates know it.
fn conversation(
    system: Option<MessageContent>,
    messages: Vec<InputMessage>,
) -> Result<Vec<Message>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::parameter("messages", "messages is empty: at least one is needed"));
    }
    let mut turns = Turns::default();
    if let Some(system) = system {
        let text = system.text("system")?;
        if !text.is_empty() {
            turns.say("system", text);
        }
    }
    for (index, message) in messages.into_iter().enumerate() {
        let place = format!("messages[{index}]");
        let blocks = match message.content {
            BlockContent::Blocks(blocks) => blocks,
            BlockContent::Text(text) => {
                match message.role {
                    InputRole::User => turns.join("user", text, "\n"),
                    InputRole::System => turns.join("system", text, "\n\n"),
                    InputRole::Assistant => turns.speak(&text),
                }
                continue;
            }
        };
        if blocks.is_empty() {
            let param = format!("{place}.content");
            return Err(ApiError::parameter(&param, format!("{param} is empty")));
        }
        for (index, block) in blocks.into_iter().enumerate() {
            block.add(message.role, &mut turns, &format!("{place}.content[{index}]"))?;
        }
    }
    Ok(turns.into_messages())
}

impl InputBlock {
    fn add(self, role: InputRole, turns: &mut Turns, place: &str) -> Result<(), ApiError> {
        match (role, self.kind.as_str()) {
            (InputRole::User, "text") => turns.join("user", needed(self.text, place, "text")?, "\n"),
            (InputRole::System, "text") => turns.join("system", needed(self.text, place, "text")?, "\n"),
            (InputRole::Assistant, "text") => turns.speak(&needed(self.text, place, "text")?),
            (InputRole::Assistant, "thinking") => turns.think(&needed(self.thinking, place, "thinking")?),
            (InputRole::Assistant, "tool_use") => {
                let id = needed(self.id, place, "id")?;
                let name = needed(self.name, place, "name")?;
                turns.call(id, &name, needed(self.input, place, "input")?.into());
            }
            (InputRole::User, "tool_result") => {
                let id = needed(self.tool_use_id, place, "tool_use_id")?;
                let mut text = match self.content {
                    Some(content) => content.text(place)?,
                    None => String::new(),
                };
                if self.is_error == Some(true) {
                    // No template has another word for it.
                    text.insert_str(0, "Error: ");
                }
                if !turns.result(&id, text) {
                    let param = format!("{place}.tool_use_id");
                    let message = format!("{param}: there is no tool_use `{id}` before this result");
                    return Err(ApiError::parameter(param, message));
                }
            }
            (_, kind @ ("tool_use" | "tool_result" | "thinking")) => {
                let message = format!("{place}: `{kind}` cannot come from this role");
                return Err(ApiError::parameter(place, message));
            }
            (_, kind) => {
                let message = format!(
                    "{place}: a block of type `{kind}` cannot be used, only text, tool_use, tool_result and thinking"
                );
                return Err(ApiError::parameter(place, message));
            }
        }
        Ok(())
    }
}

fn needed<T>(value: Option<T>, place: &str, name: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| {
        let param = format!("{place}.{name}");
        ApiError::parameter(&param, format!("{param} is missing"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::ask::{Ask, Chat, Prompt};
    use crate::constraint::Grammar;
    use crate::error::ApiError;
    use crate::tools::ToolChoice;

    use super::{CountTokensRequest, MessagesRequest, Wanted};

    /// A request with these fields besides the ones that must be.
    fn ask(fields: Value) -> Result<(Ask, Wanted), ApiError> {
        let mut request = json!({"max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value::<MessagesRequest>(request).unwrap().ask()
    }

    fn chat_of(ask: Ask) -> Chat {
        match ask.prompt {
            Prompt::Chat(chat) => chat,
            other => panic!("{other:?}"),
        }
    }

    fn chat(fields: Value) -> Chat {
        chat_of(ask(fields).unwrap().0)
    }

    #[test]
    fn blocks_become_turns() {
        let fields = json!({
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "user", "content": [{"type": "text", "text": "In Paris."}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
                {"type": "tool_result", "tool_use_id": "call_2", "is_error": true, "content": "no city"},
                {"type": "text", "text": "Well?"}]},
        ]});
        let chat = chat(fields);
        assert!(!chat.continue_final);
        let messages: Value = chat.messages.iter().map(|message| json!(message)).collect();
        let call = |id: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}});
        let expected = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?\nIn Paris."},
            {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.",
             "tool_calls": [call("call_1", json!({"city": "Paris"})), call("call_2", json!({}))]},
            {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
            {"role": "tool", "content": "Error: no city", "tool_call_id": "call_2"},
            {"role": "user", "content": "Well?"},
        ]);
        assert_eq!(messages, expected);
    }

    #[test]
    fn an_assistants_last_message_is_continued() {
        let messages =
            json!([{"role": "user", "content": "Capital?"}, {"role": "assistant", "content": "It is"}]);
        assert!(chat(json!({"messages": messages})).continue_final);
        let request: CountTokensRequest = serde_json::from_value(json!({"messages": messages})).unwrap();
        assert!(chat_of(request.ask().unwrap()).continue_final);
    }

    #[test]
    fn thinking_is_told_to_the_template() {
        let variables = |fields: Value| json!(chat(fields).variables);
        assert_eq!(variables(json!({})), json!({"enable_thinking": false}));
        assert_eq!(variables(json!({"thinking": {"type": "disabled"}})), json!({"enable_thinking": false}));
        assert_eq!(variables(json!({"thinking": {"type": "adaptive"}})), json!({}));
        let enabled = json!({"thinking": {"type": "enabled", "budget_tokens": 8}});
        assert_eq!(variables(enabled), json!({"enable_thinking": true, "thinking_budget": 8}));
        let effort = json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}});
        assert_eq!(variables(effort), json!({"enable_thinking": true, "reasoning_effort": "max"}));
        let own = json!({"chat_template_kwargs": {"enable_thinking": true}});
        assert_eq!(variables(own), json!({"enable_thinking": true}));
        let hidden = json!({"thinking": {"type": "enabled", "budget_tokens": 8, "display": "omitted"}});
        assert!(!ask(hidden).unwrap().1.thoughts);
    }

    #[test]
    fn tools_and_forms_are_taken() {
        let tool = json!({"name": "weather", "description": "d", "input_schema": {"type": "object"}, "strict": true});
        let chosen = |choice: Value| {
            let tools = chat(json!({"tools": [tool], "tool_choice": choice})).tools.unwrap();
            (tools.choice, tools.parallel)
        };
        assert_eq!(chosen(json!({"type": "auto"})), (ToolChoice::Auto, true));
        let any = json!({"type": "any", "disable_parallel_tool_use": true});
        assert_eq!(chosen(any), (ToolChoice::Required, false));
        let named = json!({"type": "tool", "name": "weather"});
        assert_eq!(chosen(named), (ToolChoice::Named("weather".into()), true));
        assert_eq!(chosen(json!({"type": "none"})), (ToolChoice::None, true));
        let schema = json!({"type": "object"});
        let format = json!({"type": "json_schema", "schema": schema});
        let wanted = Some(Grammar::JsonSchema(schema));
        assert_eq!(ask(json!({"output_config": {"format": format}})).unwrap().0.format, wanted);
        assert_eq!(ask(json!({"output_format": format})).unwrap().0.format, wanted);
        let (ask, wanted) = ask(json!({"stop_sequences": ["a"], "top_k": 4, "seed": 3})).unwrap();
        assert_eq!((ask.max_tokens, ask.seed, ask.sampling.top_k), (Some(9), Some(3), Some(4)));
        assert_eq!((ask.stop, wanted.stops), (vec!["a".to_owned()], vec!["a".to_owned()]));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let said = |role: &str, block: Value| json!({"messages": [{"role": role, "content": [block]}]});
        for (fields, param) in [
            (json!({"messages": []}), "messages"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"messages": [{"role": "user", "content": []}]}), "messages[0].content"),
            (said("user", json!({"type": "image", "source": {}})), "messages[0].content[0]"),
            (said("assistant", json!({"type": "redacted_thinking", "data": "x"})), "messages[0].content[0]"),
            (
                said("user", json!({"type": "tool_use", "id": "a", "name": "b", "input": {}})),
                "messages[0].content[0]",
            ),
            (
                said("user", json!({"type": "tool_result", "tool_use_id": "a"})),
                "messages[0].content[0].tool_use_id",
            ),
            (said("user", json!({"type": "text"})), "messages[0].content[0].text"),
            (json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}), "tools[0].type"),
            (json!({"tools": [{"name": "a"}]}), "tools[0].input_schema"),
            (json!({"tools": [{"name": "a b", "input_schema": {}}]}), "tools[0]"),
            (json!({"tool_choice": {"type": "any"}}), "tool_choice"),
            (json!({"thinking": {"type": "enabled", "budget_tokens": 9}}), "thinking.budget_tokens"),
        ] {
            let error = ask(fields.clone()).map(|_| ()).unwrap_err();
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)), "{fields}");
        }
    }
}
