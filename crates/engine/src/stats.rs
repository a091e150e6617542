//! Counts for whoever watches an engine.

/// A snapshot of an engine after its latest step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that hold pages and take part in steps.
    pub running: usize,
    /// Sequences that wait for pages or a place.
    pub waiting: usize,
    /// Pages that running sequences hold.
    pub pages_used: usize,
    /// Pages that none holds, kept because a later prompt may begin like them.
    pub pages_cached: usize,
    /// Pages without contents.
    pub pages_free: usize,
    /// Steps run.
    pub steps: u64,
    /// Tokens computed, prompt and answer, those computed again after a preemption and wrong guesses included.
    pub computed_tokens: u64,
    /// Prompt tokens found in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// How often a sequence lost its pages to an older one.
    pub preemptions: u64,
    /// Tokens that were guessed and tried.
    pub guessed_tokens: u64,
    /// Of these, how many were right: steps saved.
    pub accepted_tokens: u64,
}

impl Stats {
    /// Of an engine that has not run yet.
    pub(crate) fn empty(pages: usize) -> Self {
        Stats {
            running: 0,
            waiting: 0,
            pages_used: 0,
            pages_cached: 0,
            pages_free: pages,
            steps: 0,
            computed_tokens: 0,
            cached_tokens: 0,
            completion_tokens: 0,
            preemptions: 0,
            guessed_tokens: 0,
            accepted_tokens: 0,
        }
    }
}
