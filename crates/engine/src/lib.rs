//! A running model: sequences, KV pages, scheduler, samplers.
//!
//! An [`Engine`] drives an [`Executor`](wushi_graph::Executor) on its own thread. A [`Request`] goes in, a
//! [`Generation`] comes back: an iterator over [`Event`]s. The life of a token:
//!
//! 1. `request`: token ids, sampling, limits and seed are checked and become a sequence (`sequence`).
//! 2. `scheduler`: the sequence is admitted when its `pages` suffice, reusing those whose prefix hash matches;
//!    each step takes the decodes first, then chunks of prompts, then what `speculate` guesses.
//! 3. `worker`: a step is schedule, run, `postprocess`.
//! 4. `sampler`: a token is chosen from a row of logits, with a random number from `philox`; `softmax` has
//!    the sums and the log-probabilities.
//! 5. `detokenize`: bytes become text, stop strings are found; an event goes to the stream.
//!
//! An answer depends on the model, the tokens, the sampling settings and the seed only: not on the other
//! requests, the size of chunks, the prefix cache, guessed tokens or a lack of pages.

mod constraint;
pub mod convert;
mod detokenize;
mod embed;
mod engine;
mod error;
mod event;
mod link;
pub mod load;
mod memory;
mod pages;
mod philox;
mod pool;
mod postprocess;
mod progress;
mod request;
mod retyped;
mod sampler;
mod scheduler;
mod sequence;
mod softmax;
mod speculate;
mod stats;
pub mod video;
mod vocabulary;
mod weights;
mod worker;

pub use constraint::Constraint;
pub use embed::{Embedder, normalise};
pub use engine::{Embedding, Engine, EngineOptions, Generation, Output};
pub use error::EngineError;
pub use event::{Event, FinishReason, Finished, Logprob, Timings, Token, Usage};
pub use link::{Canceller, Place, Ticket};
pub use request::{MAX_STOP_STRINGS, Request, Sampling};
pub use stats::Stats;
pub use vocabulary::Vocabulary;
pub use weights::Weights;
pub use wushi_cpu::Team;
pub use wushi_models::Pooling;
