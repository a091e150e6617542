//! Tools for models whose chat template knows of none: told in our own words, in a system message.

use std::fmt::Write as _;

use serde_json::{Value, json};
use wushi_formats::{Content, Message};

use super::{Tool, ToolFormat};

/// What a model is told of its tools; calls are then written as [`ToolFormat::tagged`].
pub fn explain(tools: &[Tool]) -> String {
    let ToolFormat { begin, end, .. } = ToolFormat::tagged();
    let mut text = String::from("You can call functions. These are the functions, one JSON object a line:\n");
    for tool in tools {
        let line = json!({
            "name": tool.name,
            "description": tool.description.as_deref().unwrap_or_default(),
            "parameters": tool.parameters,
        });
        let _ = writeln!(text, "{line}");
    }
    let _ = write!(
        text,
        "To call one, answer with its name and its arguments as JSON, in this form and with nothing after it:\n\
         {begin}\n{{\"name\": \"the function\", \"arguments\": {{}}}}\n{end}\n\
         What it gives back comes in the next message. If no function is needed, answer in plain words."
    );
    text
}

/// A conversation for a template that knows of no tools: they are explained in front, earlier calls are written out, and
/// what they gave comes as the user's word.
pub fn plain_messages(messages: &[Message], tools: &[Tool]) -> Vec<Message> {
    let mut plain: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    for message in messages {
        let (role, text) = match message.role.as_str() {
            "tool" | "function" => {
                ("user", format!("<tool_response>\n{}\n</tool_response>", said(&message.content)))
            }
            role => (role, with_calls(message)),
        };
        let is_result = message.role != role;
        // Results of several calls are one turn, as turns alternate.
        if is_result
            && let Some(Message { role: before, content: Content::Text(earlier), .. }) = plain.last_mut()
            && before == "user"
            && earlier.ends_with("</tool_response>")
        {
            let _ = write!(earlier, "\n{text}");
            continue;
        }
        let mut message = message.clone();
        message.role = role.to_owned();
        for key in ["tool_calls", "tool_call_id", "name"] {
            message.extra.shift_remove(key);
        }
        let is_parts = matches!(message.content, Content::Parts(_));
        if is_result || !is_parts {
            message.content = Content::Text(text);
        }
        plain.push(message);
    }
    if tools.is_empty() {
        return plain;
    }
    match plain.first_mut() {
        Some(Message { role, content: Content::Text(text), .. }) if role == "system" => {
            let _ = write!(text, "\n\n{}", explain(tools));
        }
        _ => plain.insert(0, Message::new("system", explain(tools))),
    }
    plain
}

/// The text of a message.
fn said(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
            texts.collect::<Vec<_>>().join("\n")
        }
        Content::Null | Content::Absent => String::new(),
    }
}

/// A message's text and the calls in it.
fn with_calls(message: &Message) -> String {
    let mut text = said(&message.content);
    let ToolFormat { begin, end, .. } = ToolFormat::tagged();
    let calls = message.extra.get("tool_calls").and_then(Value::as_array);
    for call in calls.into_iter().flatten() {
        let function = call.get("function").unwrap_or(call);
        let arguments = match function.get("arguments") {
            // As text over HTTP, as a value where a template wants it so.
            Some(Value::String(text)) => {
                serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()))
            }
            Some(value) => value.clone(),
            None => json!({}),
        };
        let call = json!({"name": function.get("name").cloned().unwrap_or_default(), "arguments": arguments});
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{separator}{begin}\n{call}\n{end}");
    }
    text
}
