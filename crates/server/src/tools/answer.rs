//! An answer taken apart as it comes: what is thought, what is said, what is called.

use super::elements::ElementReader;
use super::json::{CallReader, Event, Step};
use super::{Shape, ThinkFormat, Tool, ToolFormat};

/// A piece of an answer. Texts and fragments of one kind that follow each other belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// What the model thinks (`reasoning_content`).
    Thought(String),
    /// What it says (`content`).
    Text(String),
    /// It calls a function.
    Call {
        /// Which call of this answer, from 0.
        index: usize,
        /// The function, which is one of the tools.
        name: String,
    },
    /// More of a call's arguments, a JSON text in fragments.
    Arguments {
        /// Of which call.
        index: usize,
        /// What comes next of it.
        fragment: String,
    },
}

/// Splits an answer, whose text comes in pieces cut anywhere.
///
/// Marks never show; text is held back only while it may become one, whitespace until it is clear that no mark follows.
/// What begins as a call and is none is text after all. The engine must spell marks that are control tokens (see
/// [`AnswerParser::marks`]).
#[derive(Clone, Debug)]
pub struct AnswerParser {
    think: Option<ThinkFormat>,
    tools: Option<ToolFormat>,
    called: Vec<Tool>,
    state: State,
    /// Text that has come and is not yet understood.
    held: String,
    calls: usize,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing has been said: thoughts may come, or a call without a mark.
    Start {
        /// Whether whitespace at this place means nothing.
        trim: bool,
    },
    Thinking {
        /// Whether anything has been thought.
        begun: bool,
    },
    Text {
        /// Whether whitespace at this place means nothing.
        trim: bool,
    },
    Call(Box<CallReader>),
    Elements(Box<ElementReader>),
}

impl AnswerParser {
    /// `open` says that the prompt has opened thoughts already ([`ThinkFormat::is_open`]).
    pub fn new(
        think: Option<&ThinkFormat>,
        open: bool,
        tools: Option<(&ToolFormat, &[Tool])>,
    ) -> AnswerParser {
        let state = if think.is_some() && open {
            State::Thinking { begun: false }
        } else {
            State::Start { trim: false }
        };
        AnswerParser {
            think: think.cloned(),
            tools: tools.map(|(format, _)| format.clone()),
            called: tools.map_or(&[][..], |(_, tools)| tools).to_vec(),
            state,
            held: String::new(),
            calls: 0,
            pieces: Vec::new(),
        }
    }

    /// Texts that the parser must see even where they are control tokens: their ids go into the engine's request.
    pub fn marks(think: Option<&ThinkFormat>, tools: Option<&ToolFormat>) -> Vec<String> {
        let thoughts = think.iter().flat_map(|format| format.markers());
        let calls = tools.iter().flat_map(|format| format.markers());
        thoughts.chain(calls).map(str::to_owned).collect()
    }

    /// How many calls have begun.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Takes in more of the answer.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        while self.step() {}
        std::mem::take(&mut self.pieces)
    }

    /// The answer has ended; gives what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.state, State::Text { trim: true }) {
            State::Start { trim } | State::Text { trim } => {
                if !(trim && held.trim().is_empty()) {
                    self.say(held);
                }
            }
            State::Thinking { .. } => self.think(held),
            State::Call(reader) => {
                if let Some(text) = reader.into_text() {
                    self.say(text + &held);
                }
            }
            State::Elements(reader) => {
                if let Some(text) = reader.into_text() {
                    self.say(text + &held);
                }
            }
        }
        std::mem::take(&mut self.pieces)
    }

    fn say(&mut self, text: String) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(before)) => before.push_str(&text),
            _ => self.pieces.push(Piece::Text(text)),
        }
    }

    fn think(&mut self, text: String) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Thought(before)) => before.push_str(&text),
            _ => self.pieces.push(Piece::Thought(text)),
        }
    }

    fn skip_blank(&mut self) {
        let blank = self.held.len() - self.held.trim_start().len();
        self.held.drain(..blank);
    }

    /// Understands some of what is held. Whether there is more to do.
    fn step(&mut self) -> bool {
        match &mut self.state {
            State::Start { trim } => {
                let trim = *trim;
                self.step_start(trim)
            }
            State::Thinking { begun } => {
                let begun = *begun;
                self.step_thinking(begun)
            }
            State::Text { trim } => {
                let trim = *trim;
                self.step_text(trim)
            }
            State::Call(_) | State::Elements(_) => self.step_call(),
        }
    }

    fn step_start(&mut self, trim: bool) -> bool {
        if trim {
            self.skip_blank();
        }
        let blank = self.held.len() - self.held.trim_start().len();
        if blank > MAX_BLANK {
            self.state = State::Text { trim };
            return true;
        }
        let rest = &self.held[blank..];
        if let Some(format) = &self.think {
            if let Some(thought) = rest.strip_prefix(&format.begin) {
                self.held = thought.to_owned();
                self.state = State::Thinking { begun: false };
                return true;
            }
            if format.begin.starts_with(rest) {
                return false;
            }
        }
        if rest.is_empty() {
            return false;
        }
        let tools = self.tools.as_ref().filter(|format| format.bare);
        match tools.map_or(Unmarked::No, |_| unmarked(rest)) {
            Unmarked::Perhaps => return false,
            Unmarked::Yes { prefix, fenced } => {
                let mark = self.held[..blank + prefix].to_owned();
                self.held.drain(..blank + prefix);
                let mut format = tools.cloned().unwrap_or_else(ToolFormat::tagged);
                if fenced {
                    format.end = FENCE.to_owned();
                }
                self.state = State::Call(Box::new(CallReader::new(format, &self.called, mark, true)));
            }
            Unmarked::No => self.state = State::Text { trim },
        }
        true
    }

    fn step_thinking(&mut self, begun: bool) -> bool {
        if !begun {
            self.skip_blank();
        }
        let Some(format) = &self.think else { return false };
        let (end, found) = split(&self.held, &format.end);
        let (thought, length) = (self.held[..end].to_owned(), format.end.len());
        let begun = begun || !thought.is_empty();
        match found {
            Some(at) => {
                self.held.drain(..at + length);
                // What follows is the start of an answer like any other, but for thoughts.
                self.think = None;
                self.skip_blank();
                self.state = match self.tools.as_ref().is_some_and(|format| format.bare) {
                    true => State::Start { trim: true },
                    false => State::Text { trim: true },
                };
            }
            None => {
                self.held.drain(..end);
                self.state = State::Thinking { begun };
            }
        }
        self.think(thought);
        found.is_some()
    }

    fn step_text(&mut self, trim: bool) -> bool {
        if trim {
            self.skip_blank();
            if self.held.is_empty() {
                return false;
            }
        }
        let Some(format) = &self.tools else {
            let text = std::mem::take(&mut self.held);
            self.state = State::Text { trim: trim && text.is_empty() };
            self.say(text);
            return false;
        };
        let (end, found) = split(&self.held, &format.begin);
        let text = self.held[..end].to_owned();
        match found {
            Some(at) => {
                let mark = self.held[end..at + format.begin.len()].to_owned();
                self.held.drain(..at + format.begin.len());
                self.state = match format.shape {
                    Shape::Elements => {
                        State::Elements(Box::new(ElementReader::new(&self.called, &format.end, mark)))
                    }
                    _ => State::Call(Box::new(CallReader::new(format.clone(), &self.called, mark, false))),
                };
            }
            None => {
                self.held.drain(..end);
                self.state = State::Text { trim: trim && text.is_empty() };
            }
        }
        self.say(text);
        found.is_some()
    }

    fn step_call(&mut self) -> bool {
        let (calls, pieces) = (&mut self.calls, &mut self.pieces);
        let mut sink = |event| match event {
            Event::Name(name) => {
                pieces.push(Piece::Call { index: *calls, name });
                *calls += 1;
            }
            // A function's arguments come after its name.
            Event::Arguments(fragment) => {
                pieces.push(Piece::Arguments { index: calls.saturating_sub(1), fragment });
            }
        };
        let (used, step) = match &mut self.state {
            State::Call(reader) => reader.read(&self.held, &mut sink),
            State::Elements(reader) => reader.read(&self.held, &mut sink),
            _ => return false,
        };
        self.held.drain(..used);
        match step {
            Step::More => return false,
            Step::Done => self.state = State::Text { trim: true },
            Step::Failed => {
                let raw = match &mut self.state {
                    State::Call(reader) => reader.take_raw(),
                    State::Elements(reader) => reader.take_raw(),
                    _ => String::new(),
                };
                self.state = State::Text { trim: false };
                self.say(raw);
            }
        }
        true
    }
}

/// The most whitespace that is held back, in bytes.
const MAX_BLANK: usize = 256;

/// Around a block of code.
const FENCE: &str = "```";

/// Whether an answer begins as a call without its mark.
enum Unmarked {
    No,
    /// It is too short to tell.
    Perhaps,
    /// With so much in front of the object, which may be a block of code.
    Yes {
        prefix: usize,
        fenced: bool,
    },
}

fn unmarked(text: &str) -> Unmarked {
    if text.starts_with('{') {
        return Unmarked::Yes { prefix: 0, fenced: false };
    }
    for opening in ["```json", FENCE] {
        if opening.starts_with(text) {
            return Unmarked::Perhaps;
        }
        let Some(inner) = text.strip_prefix(opening) else { continue };
        match inner.trim_start().chars().next() {
            None => return Unmarked::Perhaps,
            Some('{') => {
                return Unmarked::Yes { prefix: text.len() - inner.trim_start().len(), fenced: true };
            }
            Some(_) => {}
        }
    }
    Unmarked::No
}

/// Where text ends that is certain to be text, and where the mark is if it is there. Whitespace in front of a mark, or of
/// what may become one, is not certain.
fn split(held: &str, mark: &str) -> (usize, Option<usize>) {
    let found = held.find(mark);
    let until = found.unwrap_or_else(|| {
        let starts = held.char_indices().map(|(at, _)| at);
        let near = held.len().saturating_sub(mark.len());
        starts.filter(|&at| at >= near).find(|&at| mark.starts_with(&held[at..])).unwrap_or(held.len())
    });
    let blank =
        held[..until].char_indices().rev().take_while(|(at, c)| c.is_whitespace() && until - at <= MAX_BLANK);
    (blank.last().map_or(until, |(at, _)| at), found)
}
