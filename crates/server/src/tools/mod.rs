//! Calls of tools: how models write them, how they are read as they come, and the grammar that keeps to their schemas.
//!
//! How a model writes calls is recognised from its chat template ([`ToolFormat::of_template`]); models whose template
//! knows of no tools are told in our own words ([`explain`]). [`AnswerParser`] splits an answer into what was thought, what
//! is said and what is called, piece by piece; [`tool_grammar`] says what may be written.

mod answer;
mod elements;
mod format;
mod grammar;
mod json;
mod plain;
mod thinking;

pub use answer::{AnswerParser, Piece};
pub(crate) use format::is_plain_text;
pub use format::{Shape, ToolFormat};
pub use grammar::{ToolChoice, ToolGrammar, tool_grammar};
pub use plain::{explain, plain_messages};
pub use thinking::ThinkFormat;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::constraint::ConstraintError;

/// More functions in one request are refused, as OpenAI does.
pub const MAX_TOOLS: usize = 128;

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name: 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments, an object.
    pub parameters: Value,
}

impl Tool {
    /// A function without a description; arguments are an object without properties if `parameters` is `None`.
    ///
    /// # Errors
    /// A name that is none.
    pub fn new(name: &str, parameters: Option<Value>) -> Result<Tool, ConstraintError> {
        if !is_tool_name(name) {
            let shown: String = name.chars().take(80).collect();
            return Err(ConstraintError::Invalid {
                what: "a function's name",
                problem: format!("`{shown}` is not 1 to 64 of a-z, A-Z, 0-9, `_` and `-`"),
            });
        }
        let nothing = || serde_json::json!({"type": "object", "properties": {}});
        Ok(Tool { name: name.to_owned(), description: None, parameters: parameters.unwrap_or_else(nothing) })
    }
}

/// Whether this may be the name of a function.
pub fn is_tool_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(is_allowed)
}
