//! Tools and forms of answers as they come in.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::ask::Tools;
use crate::constraint::Grammar;
use crate::error::ApiError;
use crate::tools;

/// A function the model may call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct Tool {
    /// `function`.
    #[serde(rename = "type")]
    kind: String,
    /// The function.
    function: Function,
}

/// A function.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Function {
    /// Its name: letters, digits, `_` and `-`.
    #[schema(max_length = 64, pattern = "^[a-zA-Z0-9_-]{1,64}$")]
    name: String,
    /// What it is for.
    description: Option<String>,
    /// JSON schema of its arguments.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// Arguments always follow the schema; so this changes nothing.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

/// Whether, and what, the model calls.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected none, auto, required, or a function by name")]
pub(crate) enum ToolChoice {
    /// `none`, `auto` or `required`.
    Mode(ToolMode),
    /// This function.
    Function(NamedTool),
}

/// Whether the model calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToolMode {
    /// It does not.
    None,
    /// It decides.
    Auto,
    /// It does.
    Required,
}

/// A function that must be called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct NamedTool {
    /// `function`.
    #[serde(rename = "type")]
    kind: String,
    /// The function.
    function: FunctionName,
}

/// A function's name.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct FunctionName {
    /// Its name.
    name: String,
}

impl Tool {
    fn convert(self, place: usize) -> Result<tools::Tool, ApiError> {
        if self.kind != "function" {
            let message =
                format!("tools[{place}]: a tool of type `{}` cannot be used, only functions", self.kind);
            return Err(ApiError::parameter(format!("tools[{place}].type"), message));
        }
        let about = |error: crate::constraint::ConstraintError| {
            ApiError::parameter(format!("tools[{place}].function"), format!("tools[{place}]: {error}"))
        };
        let mut tool = tools::Tool::new(&self.function.name, self.function.parameters).map_err(about)?;
        tool.description = self.function.description;
        Ok(tool)
    }
}

/// What a request says of tools; `None` if there are none.
pub(crate) fn tools(
    tools: Option<Vec<Tool>>,
    choice: Option<ToolChoice>,
    parallel: Option<bool>,
) -> Result<Option<Tools>, ApiError> {
    let tools = tools.unwrap_or_default();
    if tools.is_empty() {
        return match choice {
            None | Some(ToolChoice::Mode(ToolMode::None | ToolMode::Auto)) => Ok(None),
            Some(_) => {
                Err(ApiError::parameter("tool_choice", "tool_choice wants a call, but there are no tools"))
            }
        };
    }
    let tools = tools.into_iter().enumerate().map(|(place, tool)| tool.convert(place));
    let tools: Vec<tools::Tool> = tools.collect::<Result<_, _>>()?;
    let choice = match choice {
        None | Some(ToolChoice::Mode(ToolMode::Auto)) => tools::ToolChoice::Auto,
        Some(ToolChoice::Mode(ToolMode::None)) => tools::ToolChoice::None,
        Some(ToolChoice::Mode(ToolMode::Required)) => tools::ToolChoice::Required,
        Some(ToolChoice::Function(named)) if named.kind == "function" => {
            tools::ToolChoice::Named(named.function.name)
        }
        Some(ToolChoice::Function(named)) => {
            let message = format!("tool_choice: type `{}` is unknown, expected `function`", named.kind);
            return Err(ApiError::parameter("tool_choice", message));
        }
    };
    Tools::new(tools, choice, parallel.unwrap_or(true)).map(Some)
}

/// A function as templates know it.
pub(crate) fn for_template(tool: &tools::Tool) -> Value {
    let mut function = json!({ "name": tool.name, "parameters": tool.parameters });
    if let Some(description) = &tool.description {
        function = json!({ "name": tool.name, "description": description, "parameters": tool.parameters });
    }
    json!({ "type": "function", "function": function })
}

/// What the answer must look like.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    /// Anything.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// The schema.
        json_schema: JsonSchema,
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

/// A named schema.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct JsonSchema {
    /// What it is called.
    #[serde(rename = "name")]
    _name: Option<String>,
    /// What it is for.
    #[serde(rename = "description")]
    _description: Option<String>,
    /// The schema.
    #[schema(value_type = Object)]
    schema: Option<Value>,
    /// Answers always follow the schema; so this changes nothing.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

impl ResponseFormat {
    /// `None` if anything will do.
    pub(crate) fn grammar(self) -> Result<Option<Grammar>, ApiError> {
        Ok(Some(match self {
            ResponseFormat::Text => return Ok(None),
            ResponseFormat::JsonObject => Grammar::JsonObject,
            ResponseFormat::JsonSchema { json_schema } => match json_schema.schema {
                Some(schema) => Grammar::JsonSchema(schema),
                None => {
                    let param = "response_format.json_schema.schema";
                    return Err(ApiError::parameter(param, format!("{param} is missing")));
                }
            },
            ResponseFormat::Regex { pattern } => Grammar::Regex(pattern),
            ResponseFormat::Grammar { grammar } => Grammar::Lark(grammar),
        }))
    }
}
