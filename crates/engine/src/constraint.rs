//! What a request may demand of its answer's form.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::EngineError;

/// Which tokens may come next, as a grammar or a schema says. Called on the engine's thread, which waits.
pub trait Constraint: Send {
    /// Writes the tokens that may come next: bit `id % 32` of word `id / 32`. `mask` has
    /// `vocab.div_ceil(32)` words, all zero on entry. If it stays so the answer ends with
    /// [`EngineError::NoCandidate`].
    fn allowed(&mut self, mask: &mut [u32]) -> Result<(), String>;

    /// Notes the token that was chosen, stop tokens included. Every token is final: none is taken back.
    fn accept(&mut self, token: u32) -> Result<(), String>;
}

/// A request's constraint, whose mistakes are those of its request alone.
pub(crate) struct Guard(Box<dyn Constraint>);

impl Guard {
    pub(crate) fn new(constraint: Box<dyn Constraint>) -> Self {
        Guard(constraint)
    }

    /// Fills `mask` for a vocabulary of `vocab` tokens.
    pub(crate) fn allowed(&mut self, mask: &mut Vec<u32>, vocab: usize) -> Result<(), EngineError> {
        mask.clear();
        mask.resize(vocab.div_ceil(32), 0);
        guarded(|| self.0.allowed(mask))
    }

    pub(crate) fn accept(&mut self, token: u32) -> Result<(), EngineError> {
        guarded(|| self.0.accept(token))
    }
}

/// A panic is an error like another. The constraint is not called again after either.
fn guarded(call: impl FnOnce() -> Result<(), String>) -> Result<(), EngineError> {
    let result = catch_unwind(AssertUnwindSafe(call));
    let result = result.unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_message(&*panic))));
    result.map_err(EngineError::Constraint)
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
