//! What an answer must look like.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ConstraintError;
use crate::tools::{ThinkFormat, ToolGrammar};

/// What an answer must look like, said without reference to a model's tokens: it can be stored, and used again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a schema. What the schema asks for is honoured or refused; objects that list their properties
    /// get no others unless the schema says so.
    JsonSchema(Value),
    /// Text that matches a regular expression as a whole.
    Regex(String),
    /// Text of a context-free grammar, as `llguidance` writes them. Control tokens, `%json` and `%llguidance` are refused.
    Lark(String),
    /// Calls of tools, or text in their place; see [`tool_grammar`](crate::tools::tool_grammar).
    Tools(Box<ToolGrammar>),
    /// What the model thinks, which is free, and then an answer.
    Thinking {
        /// How thoughts are marked.
        format: ThinkFormat,
        /// Whether the prompt has opened them already; otherwise the model may.
        open: bool,
        /// The answer after them.
        answer: Box<Grammar>,
    },
}

impl Grammar {
    /// What sort of grammar it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Grammar::JsonObject => "json_object",
            Grammar::JsonSchema(_) => "json_schema",
            Grammar::Regex(_) => "regex",
            Grammar::Lark(_) => "lark",
            Grammar::Tools(_) => "tools",
            Grammar::Thinking { answer, .. } => answer.kind(),
        }
    }

    /// The one text that stands for this grammar, to be stored.
    pub fn to_text(&self) -> String {
        // Strings, maps with string keys and numbers that came from JSON: nothing that JSON lacks.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Grammar::to_text`] wrote.
    pub fn from_text(text: &str) -> Result<Grammar, ConstraintError> {
        serde_json::from_str(text).map_err(|error| ConstraintError::Invalid {
            what: "a stored grammar",
            problem: error.to_string(),
        })
    }

    /// The answer, after whatever is thought first.
    pub fn after_thinking(self, format: Option<&ThinkFormat>, open: bool) -> Grammar {
        match format {
            Some(format) => Grammar::Thinking { format: format.clone(), open, answer: Box::new(self) },
            None => self,
        }
    }
}
