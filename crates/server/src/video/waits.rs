//! Jobs that cannot be made at the moment: each is tried again, after longer and longer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What clients are told of a job that waits.
pub(super) const WAITING_FOR_MEMORY: &str = "waiting for memory";
pub(super) const WAITING_FOR_DISK: &str = "waiting for disk";

/// The first pause, doubled until it is the last.
const FIRST: Duration = Duration::from_secs(5);
const LAST: Duration = Duration::from_secs(600);

/// Which jobs wait for what.
#[derive(Default)]
pub(super) struct Waits(Mutex<HashMap<String, Wait>>);

#[derive(Clone, Copy, Debug)]
struct Wait {
    stage: &'static str,
    /// How often it could not be made in a row.
    times: u32,
    until: Instant,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Wait>> {
        // It is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job cannot be made for the want of what `stage` says; for how long it is left alone now.
    pub(super) fn add(&self, id: &str, stage: &'static str, now: Instant) -> Duration {
        let mut waits = self.lock();
        let times = waits.get(id).map_or(0, |wait| wait.times.saturating_add(1));
        let pause = pause(times);
        waits.insert(id.to_owned(), Wait { stage, times, until: now + pause });
        pause
    }

    /// It gets on, or is gone.
    pub(super) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// What it waits for.
    pub(super) fn stage(&self, id: &str) -> Option<&'static str> {
        self.lock().get(id).map(|wait| wait.stage)
    }

    /// Until when it is left alone, if it is.
    pub(super) fn until(&self, id: &str, now: Instant) -> Option<Instant> {
        self.lock().get(id).map(|wait| wait.until).filter(|until| *until > now)
    }
}

/// How long a job is left alone that could not be made so often before.
pub(super) fn pause(times: u32) -> Duration {
    LAST.min(FIRST.saturating_mul(1 << times.min(20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_the_job_gets_on() {
        let (waits, now) = (Waits::default(), Instant::now());
        let add = || waits.add("a", WAITING_FOR_DISK, now).as_secs();
        assert_eq!([add(), add(), add()], [5, 10, 20]);
        assert_eq!(std::array::from_fn::<u64, 20, _>(|_| add())[19], 600);
        assert_eq!((waits.stage("a"), waits.stage("b")), (Some(WAITING_FOR_DISK), None));
        assert_eq!(waits.until("a", now), Some(now + LAST));
        // It waits, but is tried.
        assert_eq!((waits.until("a", now + LAST), waits.stage("a")), (None, Some(WAITING_FOR_DISK)));
        waits.remove("a");
        assert_eq!(waits.stage("a"), None);
        assert_eq!(add(), 5);
    }
}
