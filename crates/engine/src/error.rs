//! What can go wrong between a request and its answer.

use std::sync::Arc;

use wushi_graph::ExecError;

/// Why a request was refused, or why its answer broke off.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// There is nothing to continue.
    #[error("the prompt is empty: give at least one token (a BOS token will do)")]
    EmptyPrompt,

    /// The prompt, with room for one token of the answer if one is wanted, exceeds the context.
    #[error(
        "the prompt has {prompt} tokens and the answer needs at least {answer}, but the context holds {context}: \
         shorten the prompt or load the model with a larger context"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// 1 if an answer was wanted, 0 if `max_tokens` is zero.
        answer: usize,
        /// Tokens the model was loaded for.
        context: usize,
    },

    /// The prompt fits the context but not the memory set aside for keys and values.
    #[error(
        "the prompt needs {needed} pages of keys and values ({page_tokens} tokens each), but only {pages} exist: \
         shorten the prompt or give the cache more memory"
    )]
    TooFewPages {
        /// Pages the prompt and one token of the answer need.
        needed: usize,
        /// Pages there are.
        pages: usize,
        /// Tokens a page holds.
        page_tokens: usize,
    },

    /// A token id outside the vocabulary.
    #[error("{place}: token id {id} is not below the vocabulary size {vocab}")]
    UnknownToken {
        /// Which part of the request names it.
        place: &'static str,
        /// The id.
        id: u32,
        /// Logits per row.
        vocab: usize,
    },

    /// A number out of its range, or NaN.
    #[error("{name} is {value}, expected {expected}")]
    OutOfRange {
        /// The field.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },

    /// A stop string that would match everywhere.
    #[error("stop string number {index} is empty")]
    EmptyStopString {
        /// Which one, from 0.
        index: usize,
    },

    /// More stop strings than are searched for.
    #[error("{count} stop strings were given, at most {limit} are possible")]
    TooManyStopStrings {
        /// How many were given.
        count: usize,
        /// How many are possible.
        limit: usize,
    },

    /// The model produced NaN or an infinity: the weights are damaged or overflow.
    #[error("the logits at position {position} are not finite: token {token} has {value}")]
    NonFiniteLogit {
        /// Position in the sequence of the token they were computed from.
        position: usize,
        /// The first token id concerned.
        token: u32,
        /// Its logit.
        value: f32,
    },

    /// An embedding model was asked for text.
    #[error("this is an embedding model: it gives no text")]
    NoText,

    /// The model's states cannot be asked for.
    #[error("this model gives no embeddings: it does not say which of its values are a token's state")]
    NoStates,

    /// A state, and so an embedding, has NaN or an infinity.
    #[error("an element of the embedding is {value}: the weights are damaged or overflow")]
    NonFiniteEmbedding {
        /// The element.
        value: f32,
    },

    /// The constraint and the logit bias ban every token.
    #[error(
        "no token is left to choose from at position {position}: the logit bias or the constraint bans all of them"
    )]
    NoCandidate {
        /// Position in the sequence of the token that was to be chosen.
        position: usize,
    },

    /// The constraint could not say which tokens may come next.
    #[error("the answer could not be held to its form: {0}")]
    Constraint(String),

    /// Too many requests wait already.
    #[error("the queue is full: {waiting} of {limit} places are taken; try again later")]
    QueueFull {
        /// Requests that have not begun.
        waiting: usize,
        /// How many may wait.
        limit: usize,
    },

    /// The executor refused the step.
    #[error("the step could not be computed: {0}")]
    Executor(Arc<ExecError>),

    /// The executor returned another number of logits than was asked for.
    #[error("the executor returned {found} logits where {expected} were asked for")]
    LogitCount {
        /// Logits asked for.
        expected: usize,
        /// Logits returned.
        found: usize,
    },

    /// The executor returned another number of elements of states than was asked for.
    #[error("the executor returned {found} elements of states where {expected} were asked for")]
    StateCount {
        /// Elements asked for.
        expected: usize,
        /// Elements returned.
        found: usize,
    },

    /// A size of the executor or an option that no engine can work with.
    #[error("{name} is zero, expected at least 1")]
    ZeroSize {
        /// Which one.
        name: &'static str,
    },

    /// The operating system gave no thread.
    #[error("the engine's thread could not be started: {0}")]
    Thread(String),

    /// The engine was dropped before the answer was complete.
    #[error("the engine has been stopped")]
    Stopped,

    /// The engine's thread panicked: a bug in Wushi.
    #[error("the engine's thread panicked: {0}")]
    Panicked(String),
}
