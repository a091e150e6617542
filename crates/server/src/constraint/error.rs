//! Why a grammar is refused.

/// A grammar that cannot be honoured; every message is one line for the one who sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// A part of a JSON schema that would have to be ignored, or cannot be met.
    #[error("JSON schema, {at}: {problem}")]
    Schema {
        /// Where, as a JSON pointer into what was sent; `the root` for all of it.
        at: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A grammar that is too large, or takes too long to prepare.
    #[error("{what} is too large: {problem}")]
    TooLarge {
        /// What: a schema, a regular expression, a grammar.
        what: &'static str,
        /// How large, and how large it may be.
        problem: String,
    },
    /// A grammar or regular expression that is not understood.
    #[error("{what} cannot be used: {problem}")]
    Invalid {
        /// What: a schema, a regular expression, a grammar.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The model lacks what is needed.
    #[error("this model cannot be constrained: {0}")]
    Model(String),
}

impl ConstraintError {
    /// A problem at a place of a schema.
    pub(super) fn schema(at: &str, problem: impl Into<String>) -> ConstraintError {
        let at = if at.is_empty() { "the root".to_owned() } else { format!("at {at}") };
        ConstraintError::Schema { at, problem: problem.into() }
    }
}
