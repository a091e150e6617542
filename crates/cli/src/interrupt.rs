//! Ctrl-C: the first one ends the answer under way, the next one, or one without an answer, the process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use wushi_engine::Canceller;

/// What the shell reports of a process that was interrupted: 128 + SIGINT.
pub(crate) const EXIT_CODE: u8 = 130;

/// Catches the signal from now on. A signal belongs to the whole process, so there is one of these.
#[derive(Clone, Default)]
pub(crate) struct Interrupts(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The answer under way.
    answer: Option<Canceller>,
    /// Whether it has been told to end.
    cancelled: bool,
    /// A file that must not outlive the process.
    temporary: Option<PathBuf>,
    /// What is told to end instead.
    told: Option<Box<dyn Fn() + Send>>,
}

impl Interrupts {
    /// Installs the handler.
    pub(crate) fn install() -> Result<Interrupts> {
        let interrupts = Interrupts::default();
        let handled = interrupts.clone();
        ctrlc::set_handler(move || handled.signal()).context("cannot catch Ctrl-C")?;
        Ok(interrupts)
    }

    /// Until the guard is dropped, the first signal ends this answer instead of the process.
    pub(crate) fn guard(&self, answer: Canceller) -> Guard<'_> {
        *self.state() = State { answer: Some(answer), ..State::default() };
        Guard(self)
    }

    /// Until the guard is dropped, a signal removes this file before it ends the process.
    pub(crate) fn leave_behind(&self, temporary: PathBuf) -> Guard<'_> {
        *self.state() = State { temporary: Some(temporary), ..State::default() };
        Guard(self)
    }

    /// Until the guard is dropped, the first signal calls this instead of ending the process.
    pub(crate) fn tell(&self, told: impl Fn() + Send + 'static) -> Guard<'_> {
        *self.state() = State { told: Some(Box::new(told)), ..State::default() };
        Guard(self)
    }

    fn signal(&self) {
        let mut state = self.state();
        match (&state.answer, &state.told) {
            (Some(answer), _) if !state.cancelled => answer.cancel(),
            (_, Some(told)) if !state.cancelled => told(),
            _ => {
                if let Some(temporary) = state.temporary.take() {
                    let _ = std::fs::remove_file(temporary);
                }
                std::process::exit(EXIT_CODE.into())
            }
        }
        state.cancelled = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Interrupts::guard`].
pub(crate) struct Guard<'a>(&'a Interrupts);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        *self.0.state() = State::default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use wushi_engine::{Engine, EngineOptions, FinishReason, Request, Vocabulary};
    use wushi_graph::{Batch, Computed, ExecError, Executor, ExecutorInfo};

    use super::*;

    /// Takes its time, so that an answer of a million tokens never ends by itself.
    struct Slow(ExecutorInfo);

    impl Executor for Slow {
        fn info(&self) -> &ExecutorInfo {
            &self.0
        }

        fn run(&mut self, batch: &Batch) -> Result<Computed<'_>, ExecError> {
            std::thread::sleep(Duration::from_millis(1));
            let logits = &[0.0, 1.0][..2 * batch.logit_rows.len()];
            Ok(Computed { logits, states: &[] })
        }
    }

    struct NoText;

    impl Vocabulary for NoText {
        fn token_bytes(&self, _: u32) -> &[u8] {
            b""
        }

        fn is_control(&self, _: u32) -> bool {
            false
        }
    }

    #[test]
    fn the_signal_ends_the_answer_and_not_the_process() {
        let context = 1 << 20;
        let info = ExecutorInfo {
            vocab: 2,
            page_tokens: 32,
            pages: context / 32,
            max_rows: 1,
            max_logit_rows: 1,
            context,
        };
        let engine = Engine::start(Box::new(Slow(info)), Arc::new(NoText), EngineOptions::default()).unwrap();
        let interrupts = Interrupts::default();
        let mut generation = engine.submit(Request::new(vec![0])).unwrap();
        let guard = interrupts.guard(generation.canceller());
        generation.next();
        interrupts.signal();
        assert!(interrupts.state().cancelled);
        assert_eq!(generation.finish().unwrap().reason, FinishReason::Cancelled);
        drop(guard);
        let state = interrupts.state();
        assert!(state.answer.is_none() && !state.cancelled, "the next answer has a signal of its own");
    }
}
