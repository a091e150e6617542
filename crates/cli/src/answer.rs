//! An answer as it comes: streamed to stdout, and summed up at its end.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use wushi_engine::{Event, FinishReason, Finished, Generation, Timings, Usage};

use crate::interrupt::Interrupts;
use crate::output;

/// A complete answer.
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) token_ids: Vec<u32>,
    pub(crate) finished: Finished,
}

/// Waits for an answer, which Ctrl-C ends early; `stream` writes it to stdout meanwhile, with a line break at its end.
pub(crate) fn receive(generation: Generation, interrupts: &Interrupts, stream: bool) -> Result<Answer> {
    let _guard = interrupts.guard(generation.canceller());
    let (mut text, mut token_ids) = (String::new(), Vec::new());
    let mut show = |piece: &str| -> Result<()> {
        text.push_str(piece);
        if stream && !piece.is_empty() { output::text(piece) } else { Ok(()) }
    };
    let mut ended = Err(wushi_engine::EngineError::Stopped);
    for event in generation {
        match event {
            Event::Prompt(_) | Event::Embedding(_) => {}
            Event::Token(token) => {
                token_ids.push(token.id);
                show(&token.text)?;
            }
            Event::Finished(finished) => {
                show(&finished.tail)?;
                ended = Ok(finished);
            }
            Event::Failed(error) => ended = Err(error),
        }
    }
    if stream && !text.is_empty() && !text.ends_with('\n') {
        output::text("\n")?;
    }
    Ok(Answer { text, token_ids, finished: ended? })
}

impl Answer {
    /// Why it ended, as scripts know it from other tools.
    pub(crate) fn reason(&self) -> &'static str {
        match self.finished.reason {
            FinishReason::StopToken(_) | FinishReason::StopString(_) => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }

    /// Whether Ctrl-C ended it.
    pub(crate) fn cancelled(&self) -> bool {
        self.finished.reason == FinishReason::Cancelled
    }

    /// Tokens and speeds in one line.
    pub(crate) fn summary(&self) -> String {
        let Finished { usage, timings, .. } = &self.finished;
        let speed = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!(" at {rate:.1} tokens/s"));
        let cached = match usage.cached_tokens {
            0 => String::new(),
            cached => format!(" ({cached} cached)"),
        };
        let cut = match self.finished.reason {
            FinishReason::Length => " (cut off: the limit of tokens is reached)",
            _ => "",
        };
        format!(
            "{} prompt tokens{cached}{}, {} answered{cut}{}, the first after {:.2} s",
            usage.prompt_tokens,
            speed(prefill_rate(usage, timings)),
            usage.completion_tokens,
            speed(decode_rate(usage, timings)),
            timings.ttft.as_secs_f64(),
        )
    }
}

/// Tokens of a request, for scripts.
#[derive(Serialize)]
pub(crate) struct UsageJson {
    prompt_tokens: usize,
    cached_tokens: usize,
    completion_tokens: usize,
}

impl From<&Usage> for UsageJson {
    fn from(usage: &Usage) -> UsageJson {
        UsageJson {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            completion_tokens: usage.completion_tokens,
        }
    }
}

/// Prompt tokens computed per second; `None` if there were none.
pub(crate) fn prefill_rate(usage: &Usage, timings: &Timings) -> Option<f64> {
    rate(usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens), timings.prefill)
}

/// Tokens per second after the first; `None` if there were none.
pub(crate) fn decode_rate(usage: &Usage, timings: &Timings) -> Option<f64> {
    rate(usage.completion_tokens.saturating_sub(1), timings.decode)
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}
