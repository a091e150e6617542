//! Structured output: which tokens may come next, so that an answer is what was asked for.
//!
//! [`Grammar`] says what is wanted, apart from any model; [`Compiler`] knows one model's tokens and turns a grammar into
//! the [`Constraint`](wushi_engine::Constraint) that the engine asks before each token. The work is done by `llguidance`,
//! which would skip much of what it does not know in a schema; so `schema` first rewrites it in the words that are
//! honoured to the letter, and refuses the rest.

mod compiler;
mod error;
mod grammar;
mod matcher;
mod parts;
mod schema;
mod vocabulary;

pub use compiler::Compiler;
pub use error::ConstraintError;
pub use grammar::Grammar;
