//! What an engine reports while it answers.

use std::time::Duration;

use crate::EngineError;

/// One report about a request. The last is `Finished` or `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The scores of the prompt's tokens from `score_from` on, in order; sent once, before the first token,
    /// if they were asked for.
    Prompt(Vec<Logprob>),
    /// The embedding of a text, not normalised; sent once, if that was asked for, by [`Engine::embed_with`](crate::Engine::embed_with).
    Embedding(Vec<f32>),
    /// One generated token. A stop token is one too, with no text of its own.
    Token(Token),
    /// The answer is complete.
    Finished(Finished),
    /// The answer broke off.
    Failed(EngineError),
}

/// One generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that became certain with it: empty while a UTF-8 sequence is incomplete or what came so far
    /// may be the beginning of a stop string, then with what had been held back in front.
    pub text: String,
    /// If `top_logprobs` was asked for.
    pub logprob: Option<Logprob>,
    /// When it was chosen, counted from the request's submission.
    pub at: Duration,
}

/// A token's natural-log probability under the softmax of the raw logits: before bias, penalties and
/// temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprob {
    /// The token.
    pub id: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The most probable tokens with theirs, in descending order, ties by ascending id; as many as
    /// `top_logprobs` says.
    pub top: Vec<(u32, f32)>,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Why.
    pub reason: FinishReason,
    /// Text still held back when the answer ended: the last piece of it.
    pub tail: String,
    /// Tokens.
    pub usage: Usage,
    /// Durations.
    pub timings: Timings,
    /// BLAKE3 of all logits rows that were sampled from, in order, as F32 little-endian, before bias,
    /// penalties and temperature; if `digest` was asked for.
    pub logits_digest: Option<[u8; 32]>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// This stop token was chosen.
    StopToken(u32),
    /// The stop string of this index came up.
    StopString(usize),
    /// `max_tokens` or the end of the context was reached.
    Length,
    /// The request was cancelled.
    Cancelled,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Of these, how many were found in the prefix cache instead of computed.
    pub cached_tokens: usize,
    /// Generated, a stop token included.
    pub completion_tokens: usize,
}

/// Durations of a request, as measured on the engine's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to admission.
    pub queue: Duration,
    /// From submission to the first token; to the end if there was none.
    pub ttft: Duration,
    /// From admission to the first token (to the end if there was none): `prompt_tokens - cached_tokens`
    /// tokens were computed in it.
    pub prefill: Duration,
    /// From the first token to the last: `completion_tokens - 1` steps, fewer where guessed tokens were right.
    pub decode: Duration,
}
