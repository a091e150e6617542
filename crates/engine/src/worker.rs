//! The engine's thread: takes in requests and runs steps until nothing is left to do, then sleeps.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, PoisonError};

use wushi_graph::Executor;

use crate::engine::Shared;
use crate::event::{Event, FinishReason};
use crate::postprocess::Postprocessor;
use crate::scheduler::{Plan, Scheduler};
use crate::sequence::Sequence;
use crate::stats::Stats;
use crate::{EngineError, EngineOptions, Vocabulary};

/// Everything the thread owns.
pub(crate) struct Worker {
    executor: Box<dyn Executor>,
    scheduler: Scheduler,
    plan: Plan,
    postprocessor: Postprocessor,
    stats: Stats,
    shared: Arc<Shared>,
}

impl Worker {
    pub(crate) fn new(
        executor: Box<dyn Executor>,
        vocabulary: Arc<dyn Vocabulary>,
        options: &EngineOptions,
        shared: Arc<Shared>,
    ) -> Self {
        let is_whole = executor.states().is_some_and(|states| states.whole);
        Worker {
            scheduler: Scheduler::new(executor.info(), is_whole, options),
            plan: Plan::default(),
            postprocessor: Postprocessor::new(vocabulary, &*executor),
            stats: Stats::empty(executor.info().pages),
            executor,
            shared,
        }
    }

    /// Works until the engine is dropped.
    pub(crate) fn work(&mut self, inbox: &Receiver<Sequence>) {
        while self.receive(inbox) {
            self.step();
        }
        let stopped = self.scheduler.remove_where(|_| true);
        self.end(
            stopped.into_iter().map(|sequence| (sequence, Event::Failed(EngineError::Stopped))).collect(),
        );
    }

    /// Queues what has been submitted, waiting for it if there is nothing else to do. False once the engine
    /// is gone.
    fn receive(&mut self, inbox: &Receiver<Sequence>) -> bool {
        if self.scheduler.is_idle() {
            match inbox.recv() {
                Ok(sequence) => self.scheduler.submit(sequence),
                Err(_) => return false,
            }
        }
        loop {
            match inbox.try_recv() {
                Ok(sequence) => self.scheduler.submit(sequence),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn step(&mut self) {
        self.end_cancelled();
        self.scheduler.schedule(&mut self.plan);
        if self.plan.batch.tokens.is_empty() {
            // Alone, every request fits; so only with no request is there nothing to run. Else it would spin.
            assert!(self.scheduler.is_idle(), "requests are waiting, but none can run");
            return;
        }
        let computed = self.executor.run(&self.plan.batch);
        let ended = self.postprocessor.postprocess(&mut self.scheduler, &self.plan, computed);
        self.stats.steps += 1;
        self.stats.computed_tokens += self.plan.batch.tokens.len() as u64;
        self.end(ended);
    }

    fn end_cancelled(&mut self) {
        if !self.scheduler.any(Sequence::is_cancelled) {
            return;
        }
        let cancelled = self.scheduler.remove_where(Sequence::is_cancelled);
        let with_event = |mut sequence: Sequence| {
            let event = sequence.finished(FinishReason::Cancelled);
            (sequence, event)
        };
        self.end(cancelled.into_iter().map(with_event).collect());
    }

    /// Publishes the counts, then the last events: whoever sees one finds the pages free.
    fn end(&mut self, ended: Vec<(Sequence, Event)>) {
        self.scheduler.count(&mut self.stats);
        self.stats.completion_tokens = self.postprocessor.generated();
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.stats);
        for (mut sequence, event) in ended {
            tracing::debug!(tokens = sequence.tokens.len(), ?event, "ended");
            sequence.report(event);
        }
    }
}
