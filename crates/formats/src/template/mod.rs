//! Chat templates: from messages to the prompt a model was trained on.
//!
//! A template is a Jinja program that came with the weights; it is rendered the way `transformers` renders it
//! (`apply_chat_template`), and trusted with nothing: work, memory and recursion are bounded, and there is no clock,
//! file or network in its reach.

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use fancy_regex::Regex;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::error::excerpt;
use crate::{FormatError, Metadata};

mod compat;
mod json;
mod prompt;
mod python;

pub use prompt::ChatPrompt;

/// Steps of work, each an instruction or 64 bytes of text, that one rendering may take. A thousand messages need about
/// a third; memory stays below 64 MiB.
const FUEL: u64 = 1_000_000;
/// Address space for the stack of a rendering. A template can nest a value within itself hundreds of thousands of
/// times before its fuel is gone, and dropping or printing that takes up to 430 bytes of stack for each. This is twice
/// what the worst of them took; memory is only used for what is reached.
const STACK: usize = 512 << 20;
/// No template in circulation comes near.
const MAX_SOURCE: usize = 1 << 20;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`; the template decides which it knows.
    pub role: String,
    /// What is said.
    #[serde(default, skip_serializing_if = "Content::is_absent")]
    pub content: Content,
    /// Whatever else the template looks at: `tool_calls`, `name`, `reasoning_content`.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// What is said in a turn. Templates tell these apart (`message.content is string`), so they reach them as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts in order, such as `{"type": "text", "text": "…"}` or `{"type": "image"}`.
    Parts(Vec<serde_json::Value>),
    /// `null`, as beside a tool call.
    Null,
    /// Not even that.
    #[default]
    #[serde(skip)]
    Absent,
}

impl Content {
    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    fn is_absent(&self) -> bool {
        matches!(self, Content::Absent)
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Content {
        Content::Text(text.to_owned())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Content {
        Content::Text(text)
    }
}

impl Message {
    /// A turn with nothing but a role and a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: Content::Text(content.into()), extra: serde_json::Map::new() }
    }
}

/// What a template sees besides the messages.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// Whether the prompt ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Text of BOS, as `bos_token`; undefined in the template if there is none.
    pub bos_token: Option<String>,
    /// Text of EOS, as `eos_token`; undefined in the template if there is none.
    pub eos_token: Option<String>,
    /// JSON schemas of functions the model may call, as `tools`; `none` in the template if empty.
    pub tools: Vec<serde_json::Value>,
    /// The time that `strftime_now` tells, in UTC. Without one the function is not defined, for which templates that
    /// use it have a fixed date: a prompt that reads the clock could not be made again.
    pub now: Option<SystemTime>,
    /// Further variables by name, such as `enable_thinking`; they win over those above.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// A compiled chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
}

/// Under this name the only template of the environment goes, and messages call it so.
const NAME: &str = "chat template";

/// What `raise_exception` leaves in an error's chain.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl ChatTemplate {
    /// Compiles a template.
    pub fn new(source: &str) -> Result<ChatTemplate, FormatError> {
        if source.len() > MAX_SOURCE {
            return Err(FormatError::TemplateSyntax(format!(
                "{} bytes; no template is that long",
                source.len()
            )));
        }
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax.map_err(|error| FormatError::TemplateSyntax(error.to_string()))?;
        let mut environment = Environment::new();
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        compat::install(&mut environment);
        environment.set_formatter(python::format);
        environment.add_filter("string", python::string);
        environment.set_fuel(Some(FUEL));
        environment.set_debug(false);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
        });
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| FormatError::TemplateSyntax(excerpt(&error.to_string())))?;
        Ok(ChatTemplate { environment, source: source.to_owned() })
    }

    /// The template in a file's metadata (`tokenizer.chat_template`), if it has one.
    pub fn from_gguf(metadata: &Metadata) -> Result<Option<ChatTemplate>, FormatError> {
        metadata.str("tokenizer.chat_template")?.map(ChatTemplate::new).transpose()
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for a conversation. It contains the special tokens' texts; tokenize it with `add_special` off and
    /// `parse_special` on.
    ///
    /// # Errors
    /// [`FormatError::TemplateRefused`] in the template's own words if it rejects the messages, and
    /// [`FormatError::TemplateRender`] if it fails or exceeds its limits.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, FormatError> {
        let context = context(messages, options);
        let work = || {
            let template = self.environment.get_template(NAME).map_err(failure)?;
            template.render(context).map_err(failure)
        };
        let failed = |what: String| FormatError::TemplateRender(what);
        thread::scope(|scope| {
            let thread = thread::Builder::new().name(NAME.to_owned()).stack_size(STACK);
            let rendering =
                thread.spawn_scoped(scope, work).map_err(|error| failed(format!("no thread: {error}")))?;
            rendering.join().unwrap_or_else(|_| Err(failed("the template engine gave up".to_owned())))
        })
    }
}

/// The variables as `transformers` sets them.
fn context(messages: &[Message], options: &RenderOptions) -> Value {
    let serde = |value: &serde_json::Value| Value::from(minijinja::value::Serde(value));
    let tools = if options.tools.is_empty() {
        Value::from(())
    } else {
        options.tools.iter().map(serde).collect::<Value>()
    };
    let mut variables = vec![
        ("messages", Value::from(minijinja::value::Serde(messages))),
        ("add_generation_prompt", Value::from(options.add_generation_prompt)),
        ("tools", tools),
        ("documents", Value::from(())),
    ];
    variables.extend(options.bos_token.as_ref().map(|text| ("bos_token", Value::from(text))));
    variables.extend(options.eos_token.as_ref().map(|text| ("eos_token", Value::from(text))));
    variables.extend(options.now.map(|now| ("strftime_now", Value::from_function(strftime(now)))));
    variables.extend(options.variables.iter().map(|(name, value)| (name.as_str(), serde(value))));
    Value::from_pairs(variables)
}

/// `strftime_now(format)` at a given time.
fn strftime(now: SystemTime) -> impl Fn(String) -> Result<String, Error> + Send + Sync + 'static {
    move |format: String| {
        let bad = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {what}"));
        let seconds = now.duration_since(UNIX_EPOCH).map_err(|_| bad("the time is before 1970"))?.as_secs();
        let time =
            i64::try_from(seconds).ok().and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
        let time = time.ok_or_else(|| bad("the time is too far ahead"))?;
        let mut text = String::new();
        write!(text, "{}", time.naive_utc().format(&format)).map_err(|_| bad("unknown format"))?;
        Ok(text)
    }
}

/// The template with `{% generation %} … {% endgeneration %}`, which mark what a model should learn from and print
/// nothing, turned into something every Jinja knows.
fn without_generation_tags(source: &str) -> String {
    static TAGS: LazyLock<[(Regex, &str); 2]> = LazyLock::new(|| {
        // The patterns are constants, and tests use both.
        let tag = |pattern| Regex::new(pattern).expect("a constant pattern is valid");
        [
            (tag(r"\{%([-+]?)\s*generation\s*([-+]?)%\}"), "{%$1 if true $2%}"),
            (tag(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}"), "{%$1 endif $2%}"),
        ]
    });
    TAGS.iter().fold(source.to_owned(), |text, (tag, instead)| tag.replace_all(&text, *instead).into_owned())
}

fn failure(error: Error) -> FormatError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return FormatError::TemplateRefused(excerpt(message));
        }
        cause = inner.source();
    }
    FormatError::TemplateRender(excerpt(&error.to_string()))
}

#[cfg(test)]
mod tests;
