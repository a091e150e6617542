//! What may be written where tools may be called.

use serde::{Deserialize, Serialize};

use super::{MAX_TOOLS, Tool, ToolFormat};
use crate::constraint::{ConstraintError, Grammar};

/// Whether tools are called, as OpenAI's `tool_choice` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// Not at all.
    None,
    /// As the model likes.
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// Calls of tools whose arguments follow their schemas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolGrammar {
    /// How calls are written.
    pub format: ToolFormat,
    /// The tools that may be called.
    pub tools: Vec<Tool>,
    /// Whether there is a call in any case.
    pub required: bool,
    /// Whether there may be more than one.
    pub parallel: bool,
    /// What an answer without a call must look like; any text if `None`.
    pub otherwise: Option<Grammar>,
}

/// The grammar of an answer that may call tools; `None` if it is any text, as with `tool_choice: none`.
///
/// # Errors
/// A choice of a tool there is not, a name twice, no tools where one is required, or more than [`MAX_TOOLS`].
pub fn tool_grammar(
    format: &ToolFormat,
    tools: &[Tool],
    choice: &ToolChoice,
    parallel: bool,
) -> Result<Option<Grammar>, ConstraintError> {
    let invalid = |problem: String| Err(ConstraintError::Invalid { what: "`tools`", problem });
    if tools.len() > MAX_TOOLS {
        return invalid(format!("{} functions; at most {MAX_TOOLS} are supported", tools.len()));
    }
    if let Some(twice) =
        (1..tools.len()).find(|&at| tools[..at].iter().any(|tool| tool.name == tools[at].name))
    {
        return invalid(format!("two functions are named `{}`", tools[twice].name));
    }
    let (tools, required) = match choice {
        ToolChoice::None => return Ok(None),
        ToolChoice::Auto if tools.is_empty() => return Ok(None),
        ToolChoice::Auto => (tools.to_vec(), false),
        ToolChoice::Required if tools.is_empty() => {
            return invalid("`tool_choice` requires a call, and there are no tools".to_owned());
        }
        ToolChoice::Required => (tools.to_vec(), true),
        ToolChoice::Named(name) => match tools.iter().find(|tool| tool.name == *name) {
            Some(tool) => (vec![tool.clone()], true),
            None => {
                let shown: String = name.chars().take(80).collect();
                return invalid(format!("`tool_choice` names `{shown}`, which is not among the tools"));
            }
        },
    };
    // One function by name is one call of it.
    let parallel = parallel && !matches!(choice, ToolChoice::Named(_));
    let grammar = ToolGrammar { format: format.clone(), tools, required, parallel, otherwise: None };
    Ok(Some(Grammar::Tools(Box::new(grammar))))
}
