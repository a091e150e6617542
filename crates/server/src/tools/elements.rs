//! Calls as elements, one for each argument, read as they come.

use serde_json::Value;

use super::Tool;
use super::format::is_plain_text;
use super::json::{Event, Step};

const FUNCTION: &str = "<function=";
const PARAMETER: &str = "<parameter=";
const PARAMETER_ENDS: &str = "</parameter>";
const FUNCTION_ENDS: &str = "</function>";

/// Names and keys are shorter than this.
const MAX_NAME: usize = 256;

/// Reads what follows the mark of a call.
#[derive(Clone, Debug)]
pub(super) struct ElementReader {
    tools: Vec<Tool>,
    end: String,
    place: Place,
    /// All since the mark, until it is certain that this is a call.
    raw: String,
    /// Which of the tools is called.
    tool: usize,
    arguments: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A function.
    Open,
    /// A parameter, or the end of the function.
    Parameters,
    /// A plain text, whose first character may be a line break that is none of its own.
    Text { begun: bool },
    /// JSON, or what stands for it.
    Json,
    /// Another function, or the end.
    Behind,
}

type Sink<'a> = &'a mut dyn FnMut(Event);

/// How many bytes were understood, and how it stands if it does not simply go on.
type Read = (usize, Option<Step>);

const MORE: Read = (0, Some(Step::More));
const FAILED: Read = (0, Some(Step::Failed));

impl ElementReader {
    /// `mark` is what has been read of the call so far.
    pub(super) fn new(tools: &[Tool], end: &str, mark: String) -> ElementReader {
        let (tools, end) = (tools.to_vec(), end.to_owned());
        ElementReader { tools, end, place: Place::Open, raw: mark, tool: 0, arguments: 0 }
    }

    /// What was read as a call and is none, once the answer ends.
    pub(super) fn into_text(self) -> Option<String> {
        (self.place == Place::Open).then_some(self.raw)
    }

    /// What was read and is no call.
    pub(super) fn take_raw(&mut self) -> String {
        std::mem::take(&mut self.raw)
    }

    /// Reads on; gives how many bytes were understood.
    pub(super) fn read(&mut self, text: &str, sink: Sink<'_>) -> (usize, Step) {
        let mut used = 0;
        loop {
            let rest = &text[used..];
            let blank = match self.place {
                Place::Text { .. } | Place::Json => 0,
                _ => rest.len() - rest.trim_start().len(),
            };
            if blank > 0 && self.place == Place::Open {
                self.raw.push_str(&rest[..blank]);
            }
            used += blank;
            let rest = &text[used..];
            if rest.is_empty() {
                return (used, Step::More);
            }
            let (length, step) = match self.place {
                Place::Open => self.open(rest, sink),
                Place::Parameters => self.parameters(rest, sink),
                Place::Text { begun } => self.text(rest, begun, sink),
                Place::Json => self.json(rest, sink),
                Place::Behind => self.behind(rest),
            };
            used += length;
            if let Some(step) = step {
                return (used, step);
            }
        }
    }

    fn open(&mut self, rest: &str, sink: Sink<'_>) -> Read {
        let name = match tagged(rest, FUNCTION) {
            Tag::Is(name) => name,
            Tag::Perhaps => return MORE,
            Tag::Not => return FAILED,
        };
        let Some(tool) = self.tools.iter().position(|tool| tool.name == name) else { return FAILED };
        (self.tool, self.arguments, self.place) = (tool, 0, Place::Parameters);
        self.raw.clear();
        sink(Event::Name(name.to_owned()));
        sink(Event::Arguments("{".to_owned()));
        (FUNCTION.len() + name.len() + 1, None)
    }

    fn parameters(&mut self, rest: &str, sink: Sink<'_>) -> Read {
        if rest.starts_with(FUNCTION_ENDS) {
            sink(Event::Arguments("}".to_owned()));
            self.place = Place::Behind;
            return (FUNCTION_ENDS.len(), None);
        }
        let key = match tagged(rest, PARAMETER) {
            Tag::Is(key) => key,
            Tag::Perhaps => return MORE,
            Tag::Not if FUNCTION_ENDS.starts_with(rest) => return MORE,
            Tag::Not => return FAILED,
        };
        let schema = self.tools[self.tool].parameters.pointer("/properties").and_then(|all| all.get(key));
        let is_text = schema.is_some_and(is_plain_text);
        let comma = if self.arguments > 0 { ", " } else { "" };
        let quote = if is_text { "\"" } else { "" };
        sink(Event::Arguments(format!("{comma}{}: {quote}", Value::from(key))));
        self.arguments += 1;
        self.place = if is_text { Place::Text { begun: false } } else { Place::Json };
        (PARAMETER.len() + key.len() + 1, None)
    }

    /// A plain text goes out as it comes.
    fn text(&mut self, rest: &str, begun: bool, sink: Sink<'_>) -> Read {
        // A line break behind the mark, and one in front of the next, are the form's.
        if !begun {
            self.place = Place::Text { begun: true };
            return (usize::from(rest.starts_with('\n')), None);
        }
        let found = rest.find(PARAMETER_ENDS);
        let until = found.unwrap_or_else(|| {
            let starts = rest.char_indices().map(|(at, _)| at);
            starts.into_iter().find(|&at| PARAMETER_ENDS.starts_with(&rest[at..])).unwrap_or(rest.len())
        });
        let certain = rest[..until].strip_suffix('\n').map_or(until, str::len);
        let quoted = Value::from(&rest[..certain]).to_string();
        let inner = &quoted[1..quoted.len() - 1];
        match found {
            Some(at) => {
                sink(Event::Arguments(format!("{inner}\"")));
                self.place = Place::Parameters;
                (at + PARAMETER_ENDS.len(), None)
            }
            None => {
                if !inner.is_empty() {
                    sink(Event::Arguments(inner.to_owned()));
                }
                (certain, Some(Step::More))
            }
        }
    }

    /// JSON goes out whole; what is none is a text.
    fn json(&mut self, rest: &str, sink: Sink<'_>) -> Read {
        let Some(at) = rest.find(PARAMETER_ENDS) else { return MORE };
        let text = rest[..at].trim();
        let value = match serde_json::from_str::<Value>(text) {
            Ok(_) => text.to_owned(),
            Err(_) => Value::from(text).to_string(),
        };
        sink(Event::Arguments(value));
        self.place = Place::Parameters;
        (at + PARAMETER_ENDS.len(), None)
    }

    fn behind(&mut self, rest: &str) -> Read {
        if rest.starts_with(&self.end) {
            return (self.end.len(), Some(Step::Done));
        }
        if rest.starts_with(FUNCTION) {
            self.place = Place::Open;
            return (0, None);
        }
        if self.end.starts_with(rest) || FUNCTION.starts_with(rest) {
            return MORE;
        }
        (0, Some(Step::Done))
    }
}

/// Whether a tag with a name begins a text.
enum Tag<'a> {
    Is(&'a str),
    Perhaps,
    Not,
}

fn tagged<'a>(text: &'a str, tag: &str) -> Tag<'a> {
    match text.strip_prefix(tag) {
        Some(rest) => match rest.find('>') {
            Some(end) if end <= MAX_NAME => Tag::Is(&rest[..end]),
            None if rest.len() <= MAX_NAME => Tag::Perhaps,
            _ => Tag::Not,
        },
        None if tag.starts_with(text) => Tag::Perhaps,
        None => Tag::Not,
    }
}
