//! How a model speaks: where its template puts tools, how it marks thoughts and calls, and what therefore may be written.

use serde_json::Value;
use wushi_engine::load::LoadedModel;
use wushi_formats::Message;

use crate::ask::{Chat, Tools};
use crate::constraint::Grammar;
use crate::error::ApiError;
use crate::ids;
use crate::openai::tool::for_template;
use crate::tools::{
    self, AnswerParser, ThinkFormat, ToolChoice, ToolFormat, ToolGrammar, plain_messages, tool_grammar,
};

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// What is said.
    Text(String),
    /// What is thought.
    Reasoning(String),
    /// A function is called.
    Call { index: usize, id: String, name: String },
    /// More of a call's arguments.
    Arguments { index: usize, fragment: String },
}

/// How a model speaks, as its template tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Style {
    think: Option<ThinkFormat>,
    /// How it writes calls, if its template knows of tools.
    tools: Option<ToolFormat>,
    /// Ids of control tokens whose names the parser must see.
    marks: Vec<u32>,
}

/// Where a conversation's tools are explained.
struct Written<'a> {
    format: ToolFormat,
    tools: &'a Tools,
    /// In our words, as the template has none.
    plain: bool,
}

impl Style {
    pub(crate) fn of(model: &LoadedModel) -> Style {
        let source = model.template.as_ref().map_or("", |template| template.source());
        let (think, tools) = (ThinkFormat::of_template(source), ToolFormat::of_template(source));
        let tagged = ToolFormat::tagged();
        let marks = AnswerParser::marks(think.as_ref(), Some(tools.as_ref().unwrap_or(&tagged)));
        let marks = marks.iter().filter_map(|mark| control_token(model, mark)).collect();
        Style { think, tools, marks }
    }

    /// Control tokens whose names belong to the answer.
    pub(crate) fn marks(&self) -> &[u32] {
        &self.marks
    }

    /// The tools of a conversation, if any may be called or were.
    fn written<'a>(&self, chat: &'a Chat) -> Option<Written<'a>> {
        let tools = chat.tools.as_ref()?;
        let (format, plain) = match &self.tools {
            Some(format) => (format.clone(), false),
            None => (ToolFormat::tagged(), true),
        };
        Some(Written { format, tools, plain })
    }

    /// The messages as the template can take them.
    pub(crate) fn messages(&self, chat: &Chat) -> Vec<Message> {
        if self.tools.is_some() {
            return chat.messages.clone();
        }
        let offered = chat.tools.as_ref().filter(|tools| tools.choice != ToolChoice::None);
        plain_messages(&chat.messages, offered.map_or(&[][..], |tools| &tools.tools))
    }

    /// The tools as the template can take them.
    pub(crate) fn tools(&self, chat: &Chat) -> Vec<Value> {
        match self.written(chat) {
            Some(Written { tools, plain: false, .. }) if tools.choice != ToolChoice::None => {
                tools.tools.iter().map(for_template).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether the prompt has opened a thought.
    fn is_open(&self, prompt: &str) -> bool {
        self.think.as_ref().is_some_and(|format| format.is_open(prompt))
    }

    /// How an answer to `prompt` is understood.
    pub(crate) fn speech(&self, chat: &Chat, prompt: &str) -> Speech {
        let written = self.written(chat).filter(|written| written.tools.choice != ToolChoice::None);
        let tools = written.as_ref().map(|written| (&written.format, written.tools.tools.as_slice()));
        let parser = AnswerParser::new(self.think.as_ref(), self.is_open(prompt), tools);
        Speech { parser: Some(parser), calls: Vec::new(), reasoning_tokens: 0 }
    }

    /// What may be written in answer to `prompt`.
    pub(crate) fn grammar(
        &self,
        chat: &Chat,
        format: Option<&Grammar>,
        prompt: &str,
    ) -> Result<Option<Grammar>, ApiError> {
        let answer = match self.written(chat) {
            Some(Written { format: written, tools, .. }) => {
                let grammar = tool_grammar(&written, &tools.tools, &tools.choice, tools.parallel);
                match grammar.map_err(|error| ApiError::parameter("tools", error.to_string()))? {
                    Some(Grammar::Tools(calls)) => {
                        Some(Grammar::Tools(Box::new(ToolGrammar { otherwise: format.cloned(), ..*calls })))
                    }
                    other => other.or_else(|| format.cloned()),
                }
            }
            None => format.cloned(),
        };
        Ok(answer.map(|answer| answer.after_thinking(self.think.as_ref(), self.is_open(prompt))))
    }
}

/// The control token of this name.
fn control_token(model: &LoadedModel, name: &str) -> Option<u32> {
    let ids = model.tokenizer.encode(name, false, true).ok()?;
    match ids[..] {
        [id] if model.tokenizer.is_control(id) => Some(id),
        _ => None,
    }
}

/// An answer taken apart as it comes.
#[derive(Clone, Debug)]
pub(crate) struct Speech {
    /// `None` where all is text.
    parser: Option<AnswerParser>,
    /// Names of the calls so far.
    calls: Vec<String>,
    reasoning_tokens: usize,
}

impl Speech {
    /// Of an answer that is text and nothing else.
    pub(crate) fn plain() -> Speech {
        Speech { parser: None, calls: Vec::new(), reasoning_tokens: 0 }
    }

    /// Takes in a token's text.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        let pieces = match &mut self.parser {
            None => return plain(text),
            Some(parser) => parser.push(text),
        };
        self.reasoning_tokens += usize::from(matches!(pieces.last(), Some(tools::Piece::Thought(_))));
        pieces.into_iter().map(|piece| self.name(piece)).collect()
    }

    /// Takes in the last of the text.
    pub(crate) fn finish(&mut self, tail: &str) -> Vec<Piece> {
        let Some(parser) = &mut self.parser else { return plain(tail) };
        let mut pieces = parser.push(tail);
        pieces.extend(parser.finish());
        pieces.into_iter().map(|piece| self.name(piece)).collect()
    }

    /// Whether anything was called.
    pub(crate) fn called(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Tokens that were thought.
    pub(crate) fn reasoning_tokens(&self) -> usize {
        self.reasoning_tokens
    }

    /// Gives calls the ids by which their results will be known.
    fn name(&mut self, piece: tools::Piece) -> Piece {
        match piece {
            tools::Piece::Thought(text) => Piece::Reasoning(text),
            tools::Piece::Text(text) => Piece::Text(text),
            tools::Piece::Call { index, name } => {
                // Without the system's random numbers the server has not come this far.
                let id = ids::call_id().unwrap_or_else(|_| format!("call_{index}"));
                self.calls.push(id.clone());
                Piece::Call { index, id, name }
            }
            tools::Piece::Arguments { index, fragment } => Piece::Arguments { index, fragment },
        }
    }
}

fn plain(text: &str) -> Vec<Piece> {
    if text.is_empty() { Vec::new() } else { vec![Piece::Text(text.to_owned())] }
}
