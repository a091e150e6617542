//! What goes into a response: texts, and items of all that happened before.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use wushi_formats::Message;

use crate::body::TextOrList;
use crate::error::ApiError;
use crate::turns::Turns;

use super::super::message::{MessageContent, Role};

/// A text, or what happened so far.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, from = "TextOrList<InputItem>")]
pub(crate) enum Input {
    /// What the user says.
    Text(String),
    /// Messages, thoughts, calls of functions and what they gave.
    Items(Vec<InputItem>),
}

impl From<TextOrList<InputItem>> for Input {
    fn from(either: TextOrList<InputItem>) -> Input {
        match either {
            TextOrList::Text(text) => Input::Text(text),
            TextOrList::List(list) => Input::Items(list),
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct InputItem {
    /// `message` (also if absent), `reasoning`, `function_call` or `function_call_output`.
    #[serde(rename = "type", default)]
    kind: Option<String>,
    /// Of a message: who speaks.
    #[serde(default)]
    role: Option<Role>,
    /// Of a message: what is said. Of reasoning: what was thought.
    #[serde(default)]
    content: Option<MessageContent>,
    /// Of reasoning that has no content: what was thought, in short.
    #[serde(default)]
    summary: Option<MessageContent>,
    /// Of a call: its name, which its output repeats.
    #[serde(default)]
    call_id: Option<String>,
    /// Of a call: the function.
    #[serde(default)]
    name: Option<String>,
    /// Of a call: the arguments, as JSON in a string.
    #[serde(default)]
    arguments: Option<String>,
    /// Of a call's output: what the function gave.
    #[serde(default)]
    output: Option<MessageContent>,
}

/// The conversation as templates know it.
pub(crate) fn conversation(
    instructions: Option<&str>,
    input: Option<Input>,
) -> Result<Vec<Message>, ApiError> {
    let mut turns = Turns::default();
    if let Some(instructions) = instructions {
        turns.say("system", instructions.to_owned());
    }
    match input {
        Some(Input::Text(text)) => turns.say("user", text),
        Some(Input::Items(items)) if !items.is_empty() => {
            for (index, item) in items.into_iter().enumerate() {
                item.add(&mut turns, &format!("input[{index}]"))?;
            }
        }
        _ => return Err(ApiError::parameter("input", "input is empty: a text or an item is needed")),
    }
    Ok(turns.into_messages())
}

impl InputItem {
    fn add(self, turns: &mut Turns, place: &str) -> Result<(), ApiError> {
        let kind = self.kind.as_deref().unwrap_or("message");
        match kind {
            "message" => self.add_message(turns, place),
            "reasoning" => {
                // Thoughts that another server has sealed cannot be read; the conversation goes on without them.
                for thoughts in [self.content, self.summary].into_iter().flatten() {
                    let text = thoughts.text(place)?;
                    if !text.is_empty() {
                        turns.think(&text);
                        break;
                    }
                }
                Ok(())
            }
            "function_call" => {
                let id = needed(self.call_id, place, "call_id")?;
                let name = needed(self.name, place, "name")?;
                let arguments = needed(self.arguments, place, "arguments")?;
                let arguments = match serde_json::from_str(&arguments) {
                    Ok(Value::Object(arguments)) => Value::Object(arguments),
                    _ => Value::String(arguments),
                };
                turns.call(id, &name, arguments);
                Ok(())
            }
            "function_call_output" => {
                let id = needed(self.call_id, place, "call_id")?;
                let output = needed(self.output, place, "output")?.text(place)?;
                if turns.result(&id, output) {
                    return Ok(());
                }
                let param = format!("{place}.call_id");
                let message = format!("{param}: there is no function_call `{id}` before this output");
                Err(ApiError::parameter(param, message))
            }
            "item_reference" => {
                let message =
                    format!("{place}: nothing is stored here to refer to: send the items themselves");
                Err(ApiError::parameter(place, message))
            }
            kind => {
                let param = format!("{place}.type");
                let message = format!(
                    "{param}: an item of type `{kind}` cannot be used, only message, reasoning, function_call and \
                     function_call_output"
                );
                Err(ApiError::parameter(param, message))
            }
        }
    }

    fn add_message(self, turns: &mut Turns, place: &str) -> Result<(), ApiError> {
        let role = needed(self.role, place, "role")?;
        let text = needed(self.content, place, "content")?.text(place)?;
        match role {
            // Many templates take one system message, in front.
            Role::System | Role::Developer => turns.join("system", text, "\n\n"),
            Role::User => turns.say("user", text),
            Role::Assistant => turns.speak(&text),
            Role::Tool => {
                let param = format!("{place}.role");
                let message = format!("{param}: what a tool gave is an item of type function_call_output");
                return Err(ApiError::parameter(param, message));
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
