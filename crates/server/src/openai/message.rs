//! Messages as they come in, and how they reach a template.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wushi_formats::{Content, Message};

use crate::body::TextOrList;
use crate::error::ApiError;

/// One turn of a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ChatMessage {
    /// Who speaks.
    pub(crate) role: Role,
    /// What is said.
    #[serde(default)]
    pub(crate) content: Option<MessageContent>,
    /// A name of who speaks.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// The calls an assistant made.
    #[serde(default)]
    pub(crate) tool_calls: Option<Vec<ToolCall>>,
    /// Which call a tool's message answers.
    #[serde(default)]
    pub(crate) tool_call_id: Option<String>,
    /// What an assistant thought.
    #[serde(default, alias = "reasoning")]
    pub(crate) reasoning_content: Option<String>,
    /// An assistant's refusal: part of what it said.
    #[serde(default)]
    pub(crate) refusal: Option<String>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Instructions.
    System,
    /// Instructions, by their newer name.
    Developer,
    /// A person.
    User,
    /// The model.
    Assistant,
    /// What a tool gave back.
    Tool,
}

/// A text, or parts of one.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, from = "TextOrList<ContentPart>")]
pub(crate) enum MessageContent {
    /// A text.
    Text(String),
    /// Parts, of which only texts can be used.
    Parts(Vec<ContentPart>),
}

impl From<TextOrList<ContentPart>> for MessageContent {
    fn from(either: TextOrList<ContentPart>) -> MessageContent {
        match either {
            TextOrList::Text(text) => MessageContent::Text(text),
            TextOrList::List(list) => MessageContent::Parts(list),
        }
    }
}

/// A part of a message.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ContentPart {
    /// `text`; others need a model with eyes or ears.
    #[serde(rename = "type")]
    kind: String,
    /// The text.
    #[serde(default)]
    text: Option<String>,
    /// A refusal of an earlier answer.
    #[serde(default)]
    refusal: Option<String>,
}

/// A call of a tool.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ToolCall {
    /// Its name, which the tool's message repeats.
    pub(crate) id: String,
    /// `function`.
    #[serde(rename = "type", default = "function")]
    pub(crate) kind: String,
    /// What is called.
    pub(crate) function: CalledFunction,
}

/// What is called.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct CalledFunction {
    /// The function.
    pub(crate) name: String,
    /// Its arguments, as JSON in a string.
    pub(crate) arguments: String,
}

fn function() -> String {
    "function".to_owned()
}

impl MessageContent {
    /// The text, parts joined by line breaks.
    pub(crate) fn text(self, place: &str) -> Result<String, ApiError> {
        let parts = match self {
            MessageContent::Text(text) => return Ok(text),
            MessageContent::Parts(parts) => parts,
        };
        let texts = parts.into_iter().enumerate().map(|(index, part)| {
            match (part.kind.as_str(), part.text, part.refusal) {
                (
                    "text" | "input_text" | "output_text" | "reasoning_text" | "summary_text",
                    Some(text),
                    _,
                )
                | ("refusal", _, Some(text)) => Ok(text),
                (kind, ..) => {
                    let param = format!("{place}.content[{index}]");
                    let message =
                        format!("{param}: a part of type `{kind}` cannot be used, only texts (`text`)");
                    Err(ApiError::parameter(param, message))
                }
            }
        });
        Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
    }
}

/// The conversation as templates know it.
pub(crate) fn conversation(messages: Vec<ChatMessage>) -> Result<Vec<Message>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::parameter("messages", "messages is empty: at least one is needed"));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| convert(message, &format!("messages[{index}]")))
        .collect()
}

fn convert(message: ChatMessage, place: &str) -> Result<Message, ApiError> {
    let role = match message.role {
        // Templates know instructions by one name.
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut extra = Map::new();
    if let Some(name) = message.name {
        extra.insert("name".into(), name.into());
    }
    if let Some(id) = message.tool_call_id {
        extra.insert("tool_call_id".into(), id.into());
    }
    if let Some(reasoning) = message.reasoning_content.filter(|_| message.role == Role::Assistant) {
        extra.insert("reasoning_content".into(), reasoning.into());
    }
    let calls = message.tool_calls.unwrap_or_default();
    if !calls.is_empty() {
        if message.role != Role::Assistant {
            let param = format!("{place}.tool_calls");
            return Err(ApiError::parameter(&param, format!("{param}: only an assistant calls tools")));
        }
        extra.insert("tool_calls".into(), calls.into_iter().map(call).collect());
    }
    let content = match (message.content, message.refusal) {
        (Some(content), _) => Content::Text(content.text(place)?),
        (None, Some(refusal)) => Content::Text(refusal),
        // Templates add texts together, which nothing but a text survives.
        (None, None) if message.role == Role::Assistant => Content::Text(String::new()),
        (None, None) => {
            let param = format!("{place}.content");
            return Err(ApiError::parameter(&param, format!("{param} is missing")));
        }
    };
    Ok(Message { role: role.to_owned(), content, extra })
}

/// A call for a template: its arguments as an object, as `transformers` has them, wherever they are one.
fn call(call: ToolCall) -> Value {
    let arguments = match serde_json::from_str(&call.function.arguments) {
        Ok(Value::Object(arguments)) => Value::Object(arguments),
        _ => Value::String(call.function.arguments),
    };
    serde_json::json!({
        "id": call.id,
        "type": call.kind,
        "function": { "name": call.function.name, "arguments": arguments },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn converted(message: Value) -> Result<Message, ApiError> {
        let message: ChatMessage = serde_json::from_value(message).expect("a message");
        Ok(conversation(vec![message])?.remove(0))
    }

    #[test]
    fn parts_become_a_text_and_pictures_are_refused() {
        let parts = json!({"role": "user", "content": [
            {"type": "text", "text": "a"}, {"type": "text", "text": "b"},
        ]});
        assert_eq!(converted(parts).unwrap(), Message::new("user", "a\nb"));
        let picture = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]});
        let error = converted(picture).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("messages[0].content[0]"));
    }

    #[test]
    fn calls_reach_templates_with_arguments_as_objects() {
        let call = json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
            {"id": "2", "type": "function", "function": {"name": "f", "arguments": "no JSON"}},
        ]});
        let message = converted(call).unwrap();
        assert_eq!(message.content.as_text(), Some(""));
        assert_eq!(message.extra["tool_calls"][0]["function"]["arguments"], json!({"x": 1}));
        assert_eq!(message.extra["tool_calls"][1]["function"]["arguments"], json!("no JSON"));
        let stray = json!({"role": "user", "content": "", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}},
        ]});
        assert!(converted(stray).is_err());
    }

    #[test]
    fn what_is_missing_is_said() {
        assert_eq!(conversation(Vec::new()).unwrap_err().param.as_deref(), Some("messages"));
        assert!(converted(json!({"role": "user"})).is_err());
        assert_eq!(converted(json!({"role": "developer", "content": "x"})).unwrap().role, "system");
    }
}
