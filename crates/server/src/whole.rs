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

/// One complete answer.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprobs: Vec<Logprob>,
    pub(crate) ended: Option<Ended>,
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

    fn add(&mut self, delta: Delta) {
        self.tokens.extend(delta.tokens);
        self.logprobs.extend(delta.logprobs);
        for piece in delta.pieces {
            match piece {
                Piece::Text(text) => self.text.push_str(&text),
                Piece::Reasoning(text) => self.reasoning.push_str(&text),
                Piece::Call { id, name, .. } => self.calls.push(Call { id, name, arguments: String::new() }),
                Piece::Arguments { index, fragment } => {
                    if let Some(call) = self.calls.get_mut(index) {
                        call.arguments.push_str(&fragment);
                    }
                }
            }
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
