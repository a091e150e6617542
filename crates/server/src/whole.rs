//! An answer that is told when it is complete.

use wushi_engine::Logprob;

use crate::answer::{Answers, Delta, Ended, News, Reason, Summary};
use crate::error::ApiError;
use crate::speech::Piece;

/// All answers to a request.
pub(crate) struct Whole {
    pub(crate) choices: Vec<Said>,
    /// The scores of each prompt, where they were asked for.
    pub(crate) prompts: Vec<Vec<Logprob>>,
    pub(crate) summary: Summary,
}

/// One answer, as far as it has come.
#[derive(Default)]
pub(crate) struct Said {
    /// What was thought, said and called, in order; neighbours differ in kind, but for calls.
    pub(crate) parts: Vec<Part>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprobs: Vec<Logprob>,
    pub(crate) ended: Option<Ended>,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    /// What is said, and the log-probabilities that came with it.
    Text { text: String, logprobs: Vec<Logprob> },
    /// What is thought.
    Reasoning(String),
    /// A function is called.
    Call(Call),
}

/// A call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

impl Said {
    pub(crate) fn reason(&self) -> Reason {
        self.ended.as_ref().map_or(Reason::Cancelled, |ended| ended.reason)
    }

    /// All that was said.
    pub(crate) fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// All that was thought.
    pub(crate) fn reasoning(&self) -> String {
        let thoughts = self.parts.iter().filter_map(|part| match part {
            Part::Reasoning(text) => Some(text.as_str()),
            _ => None,
        });
        thoughts.collect()
    }

    /// All that was called.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.parts.iter().filter_map(|part| match part {
            Part::Call(call) => Some(call),
            _ => None,
        })
    }

    fn add(&mut self, delta: Delta) {
        self.tokens.extend(delta.tokens);
        let mut with_text = delta.logprobs.clone();
        self.logprobs.extend(delta.logprobs);
        for piece in delta.pieces {
            let with_this =
                if matches!(piece, Piece::Text(_)) { std::mem::take(&mut with_text) } else { Vec::new() };
            self.take(piece, with_this);
        }
    }

    /// Takes in a piece, and the log-probabilities if it is text. It belongs to the last part then, which may be new.
    pub(crate) fn take(&mut self, piece: Piece, more: Vec<Logprob>) {
        match (piece, self.parts.last_mut()) {
            (Piece::Text(piece), Some(Part::Text { text, logprobs })) => {
                text.push_str(&piece);
                logprobs.extend(more);
            }
            (Piece::Text(text), _) => self.parts.push(Part::Text { text, logprobs: more }),
            (Piece::Reasoning(piece), Some(Part::Reasoning(text))) => text.push_str(&piece),
            (Piece::Reasoning(text), _) => self.parts.push(Part::Reasoning(text)),
            (Piece::Call { id, name, .. }, _) => {
                self.parts.push(Part::Call(Call { id, name, arguments: String::new() }));
            }
            // A call's arguments follow it at once.
            (Piece::Arguments { fragment, .. }, Some(Part::Call(call))) => {
                call.arguments.push_str(&fragment);
            }
            (Piece::Arguments { .. }, _) => {}
        }
    }
}

/// Waits for the whole of a request's answers.
pub(crate) async fn collect(mut answers: Answers) -> Result<Whole, ApiError> {
    let (mut choices, mut prompts): (Vec<Said>, Vec<Vec<Logprob>>) = (Vec::new(), Vec::new());
    while let Some(news) = answers.next().await {
        match news {
            News::Queued(_) => {}
            News::Prompt { prompt, scores } => *entry(&mut prompts, prompt) = scores,
            News::Delta(delta) => entry(&mut choices, delta.choice as usize).add(delta),
            News::Ended(ended) => {
                let choice = ended.choice as usize;
                entry(&mut choices, choice).ended = Some(ended);
            }
            News::Done(summary) => return Ok(Whole { choices, prompts, summary: *summary }),
            News::Failed(error) => return Err(error),
        }
    }
    Err(ApiError::internal("the answer broke off"))
}

fn entry<T: Default>(list: &mut Vec<T>, index: usize) -> &mut T {
    if list.len() <= index {
        list.resize_with(index + 1, T::default);
    }
    &mut list[index]
}
