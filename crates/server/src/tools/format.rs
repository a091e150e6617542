//! How models write calls.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a model writes calls of tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolFormat {
    /// In front of a call, or of all of them where they are one list.
    pub begin: String,
    /// Behind it; empty if nothing is.
    pub end: String,
    /// What is between.
    pub shape: Shape,
    /// Whether an answer that begins as a call of one of the tools, without `begin`, is one. Small models leave the mark
    /// out, and some write the call as a block of code.
    pub bare: bool,
    /// The key of the function's name.
    pub name: String,
    /// The key of its arguments.
    pub arguments: String,
}

/// What a call is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// One JSON object: name and arguments.
    Object,
    /// A JSON array of such objects.
    List,
    /// The name, this text, and the arguments as a JSON object.
    Named(String),
    /// `<function=name>` with a `<parameter=key>` for each argument, in which plain texts stand as they are.
    Elements,
}

impl ToolFormat {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`, which small models also learn from being told.
    pub fn tagged() -> ToolFormat {
        ToolFormat {
            begin: "<tool_call>".to_owned(),
            end: "</tool_call>".to_owned(),
            shape: Shape::Object,
            bare: true,
            name: "name".to_owned(),
            arguments: "arguments".to_owned(),
        }
    }

    /// How a model with this chat template writes calls; `None` if the template knows of no tools, or writes calls in a
    /// way that is not read here. Such a model is told of its tools by [`explain`](super::explain).
    pub fn of_template(source: &str) -> Option<ToolFormat> {
        if !source.contains("tools") {
            return None;
        }
        let marked = |begin: &str, end: &str, shape: Shape| {
            let (begin, end) = (begin.to_owned(), end.to_owned());
            let bare = shape == Shape::Object;
            Some(ToolFormat { begin, end, shape, bare, ..ToolFormat::tagged() })
        };
        let has = |text: &str| source.contains(text);
        if has("[TOOL_CALLS]") {
            return match has("[ARGS]") {
                true => marked("[TOOL_CALLS]", "", Shape::Named("[ARGS]".to_owned())),
                false => marked("[TOOL_CALLS]", "", Shape::List),
            };
        }
        for (begin, end) in [("<tool_calls>", "</tool_calls>"), ("<TOOLCALL>", "</TOOLCALL>")] {
            if has(&format!("{begin}[")) {
                return marked(begin, end, Shape::List);
            }
        }
        if has("<|START_ACTION|>[") && has("tool_name") {
            let format = marked("<|START_ACTION|>", "<|END_ACTION|>", Shape::List)?;
            let (name, arguments) = ("tool_name".to_owned(), "parameters".to_owned());
            return Some(ToolFormat { name, arguments, ..format });
        }
        if has("<tool_call>") && has("<function=") && has("<parameter=") {
            return marked("<tool_call>", "</tool_call>", Shape::Elements);
        }
        // Where something else than such an object follows the mark, it is not read.
        if is_followed_by_name(source, "<tool_call>") {
            return marked("<tool_call>", "</tool_call>", Shape::Object);
        }
        if has("<|tool_call|>") {
            let end = if has("<|/tool_call|>") { "<|/tool_call|>" } else { "" };
            return marked("<|tool_call|>", end, Shape::List);
        }
        if has("functools[") {
            return marked("functools", "", Shape::List);
        }
        if (has("<|python_tag|>") || has("\"parameters\": dictionary of")) && !has("<function=") {
            return Some(ToolFormat {
                begin: "<|python_tag|>".to_owned(),
                end: String::new(),
                arguments: "parameters".to_owned(),
                ..ToolFormat::tagged()
            });
        }
        None
    }

    /// Texts that must reach the parser even where they are control tokens.
    pub fn markers(&self) -> Vec<&str> {
        let between = match &self.shape {
            Shape::Named(between) => between.as_str(),
            Shape::Object | Shape::List | Shape::Elements => "",
        };
        [self.begin.as_str(), self.end.as_str(), between]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect()
    }
}

/// Whether a template writes a JSON object with a name behind a mark, however it quotes and breaks its lines.
fn is_followed_by_name(source: &str, mark: &str) -> bool {
    source.match_indices(mark).any(|(at, _)| {
        let behind: String = source[at + mark.len()..].chars().take(60).filter(|c| *c != '\\').collect();
        behind.contains('{') && behind.contains("\"name\"")
    })
}

/// Whether an argument is written as it is between its marks, rather than as JSON: a text of which nothing is demanded but
/// to be one of some.
pub(crate) fn is_plain_text(schema: &Value) -> bool {
    let Some(map) = schema.as_object() else { return false };
    let choices = map.get("enum").and_then(Value::as_array);
    let demands = ["pattern", "format", "minLength", "maxLength", "const", "$ref", "anyOf", "oneOf", "allOf"];
    let is_text = match (map.get("type"), choices) {
        (Some(name), None) => name == "string",
        (name, Some(choices)) => {
            name.is_none_or(|name| name == "string") && choices.iter().all(Value::is_string)
        }
        (None, None) => false,
    };
    is_text && !demands.iter().any(|key| map.contains_key(*key))
}
