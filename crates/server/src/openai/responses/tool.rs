//! Tools and forms of answers, as the Responses API writes them: without the wrapping of chat completions.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ask::Tools;
use crate::constraint::Grammar;
use crate::error::ApiError;
use crate::tools;

use super::super::tool::ToolMode;

/// A function the model may call.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ResponsesTool {
    /// `function`.
    #[serde(rename = "type")]
    kind: String,
    /// Its name: letters, digits, `_` and `-`.
    #[schema(required, max_length = 64, pattern = "^[a-zA-Z0-9_-]{1,64}$")]
    name: Option<String>,
    /// What it is for.
    description: Option<String>,
    /// JSON schema of its arguments.
    parameters: Option<Map<String, Value>>,
    /// Arguments always follow the schema; so this changes nothing.
    strict: Option<bool>,
}

/// Whether, and what, the model calls.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ResponsesToolChoice {
    /// `none`, `auto` or `required`.
    Mode(ToolMode),
    /// This function, or one of these.
    Named(NamedChoice),
}

/// Which functions may or must be called.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct NamedChoice {
    /// `function` or `allowed_tools`.
    #[serde(rename = "type")]
    kind: String,
    /// Of `function`: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Of `allowed_tools`: `auto` or `required`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<ToolMode>,
    /// Of `allowed_tools`: which ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<AllowedTool>>,
}

/// A function that may be called.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct AllowedTool {
    /// `function`.
    #[serde(rename = "type")]
    kind: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl Default for ResponsesToolChoice {
    fn default() -> ResponsesToolChoice {
        ResponsesToolChoice::Mode(ToolMode::Auto)
    }
}

impl ResponsesTool {
    fn convert(&self, place: usize) -> Result<tools::Tool, ApiError> {
        if self.kind != "function" {
            let message =
                format!("tools[{place}]: a tool of type `{}` cannot be used, only functions", self.kind);
            return Err(ApiError::parameter(format!("tools[{place}].type"), message));
        }
        let name = self.name.as_deref().ok_or_else(|| {
            let param = format!("tools[{place}].name");
            ApiError::parameter(&param, format!("{param} is missing"))
        })?;
        let about =
            |error| ApiError::parameter(format!("tools[{place}]"), format!("tools[{place}]: {error}"));
        let mut tool = tools::Tool::new(name, self.parameters.clone().map(Value::Object)).map_err(about)?;
        tool.description = self.description.clone();
        Ok(tool)
    }
}

/// What a request says of tools; `None` if there are none.
pub(crate) fn tools(
    offered: &[ResponsesTool],
    choice: &ResponsesToolChoice,
    parallel: bool,
) -> Result<Option<Tools>, ApiError> {
    let converted = offered.iter().enumerate().map(|(place, tool)| tool.convert(place));
    let mut tools: Vec<tools::Tool> = converted.collect::<Result<_, _>>()?;
    let choice = match choice {
        ResponsesToolChoice::Mode(mode) => of_mode(*mode),
        ResponsesToolChoice::Named(named) => match (named.kind.as_str(), &named.name, &named.tools) {
            ("function", Some(name), _) => tools::ToolChoice::Named(name.clone()),
            ("allowed_tools", _, Some(allowed)) => {
                keep(&mut tools, allowed)?;
                of_mode(named.mode.unwrap_or(ToolMode::Auto))
            }
            ("function", ..) => {
                return Err(ApiError::parameter("tool_choice.name", "tool_choice.name is missing"));
            }
            ("allowed_tools", ..) => {
                return Err(ApiError::parameter("tool_choice.tools", "tool_choice.tools is missing"));
            }
            (kind, ..) => {
                let message =
                    format!("tool_choice: type `{kind}` cannot be used, only `function` and `allowed_tools`");
                return Err(ApiError::parameter("tool_choice", message));
            }
        },
    };
    if tools.is_empty() {
        return match choice {
            tools::ToolChoice::None | tools::ToolChoice::Auto => Ok(None),
            _ => Err(ApiError::parameter("tool_choice", "tool_choice wants a call, but there are no tools")),
        };
    }
    Tools::new(tools, choice, parallel).map(Some)
}

/// Leaves the tools that may be called.
fn keep(tools: &mut Vec<tools::Tool>, allowed: &[AllowedTool]) -> Result<(), ApiError> {
    for (index, tool) in allowed.iter().enumerate() {
        let is_known = |name: &String| tools.iter().any(|known| known.name == *name);
        if tool.kind != "function" || !tool.name.as_ref().is_some_and(is_known) {
            let param = format!("tool_choice.tools[{index}]");
            let message = format!("{param} is none of the functions in tools");
            return Err(ApiError::parameter(param, message));
        }
    }
    tools.retain(|known| allowed.iter().any(|tool| tool.name.as_ref() == Some(&known.name)));
    Ok(())
}

fn of_mode(mode: ToolMode) -> tools::ToolChoice {
    match mode {
        ToolMode::None => tools::ToolChoice::None,
        ToolMode::Auto => tools::ToolChoice::Auto,
        ToolMode::Required => tools::ToolChoice::Required,
    }
}

/// What the answer's text must look like.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextConfig {
    /// Its form.
    #[serde(default)]
    format: TextFormat,
    /// Accepted and not used: `low`, `medium` or `high`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verbosity: Option<String>,
}

/// A form of texts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum TextFormat {
    /// Anything.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// What it is called.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// What it is for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// The schema.
        schema: Map<String, Value>,
        /// Answers always follow the schema; so this changes nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strict: Option<bool>,
    },
    /// Text that matches a regular expression as a whole.
    Regex {
        /// The expression.
        pattern: String,
    },
    /// Text of a context-free grammar.
    Grammar {
        /// The grammar, as `llguidance` writes them.
        grammar: String,
    },
}

impl TextConfig {
    /// `None` if anything will do.
    pub(crate) fn grammar(&self) -> Option<Grammar> {
        match &self.format {
            TextFormat::Text => None,
            TextFormat::JsonObject => Some(Grammar::JsonObject),
            TextFormat::JsonSchema { schema, .. } => Some(Grammar::JsonSchema(schema.clone().into())),
            TextFormat::Regex { pattern } => Some(Grammar::Regex(pattern.clone())),
            TextFormat::Grammar { grammar } => Some(Grammar::Lark(grammar.clone())),
        }
    }
}
