//! How much a key may ask for.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::StoreError;
use super::keys::Key;
use super::{DAY_MS, Store, day};

/// The time that `requests_per_minute` speaks of.
const MINUTE_MS: u64 = 60_000;

/// How old the day's tokens may be that other processes have added.
const FRESH: Duration = Duration::from_secs(1);

/// How much a key may ask for; `None` is any amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests within any 60 seconds. Counted in memory: a restart forgets them.
    pub requests_per_minute: Option<u32>,
    /// Tokens of prompts and answers, those from the prefix cache included, of requests that ended on one day (UTC). Of a
    /// video its prompt's count, those of the negative prompt do not.
    /// Kept in the database. Requests under way count when they end: those that run when the limit is reached are
    /// finished, so that as many as may run at once can go beyond it.
    pub tokens_per_day: Option<u64>,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// This many requests a minute.
    RequestsPerMinute(u32),
    /// This many tokens a day.
    TokensPerDay(u64),
}

/// A request that a key may not make now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this key may {what}; try again in {} s", seconds_up(*retry_after))]
pub struct Limited {
    /// The limit.
    pub what: Limit,
    /// When it may be made.
    pub retry_after: Duration,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::RequestsPerMinute(limit) => write!(f, "make {limit} requests a minute"),
            Limit::TokensPerDay(limit) => write!(f, "use {limit} tokens a day, counted from midnight UTC"),
        }
    }
}

/// Whole seconds that are certainly enough.
fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl Limited {
    /// For the header `Retry-After`: at least 1.
    pub fn retry_after_seconds(&self) -> u64 {
        seconds_up(self.retry_after).max(1)
    }
}

/// What was counted for the keys that have limits; shared with the writing thread.
#[derive(Default)]
pub(super) struct Counters(Mutex<HashMap<Arc<str>, Counter>>);

#[derive(Default)]
struct Counter {
    /// When the requests of the last minute came.
    requests: VecDeque<u64>,
    /// The day that the tokens are of.
    day: u64,
    /// As the database says.
    committed: u64,
    /// Given to the writing thread, not yet in the database.
    pending: u64,
    /// When `committed` was read.
    read: Option<Instant>,
}

impl Counter {
    /// Begins a new day.
    fn turn_to(&mut self, day: u64) {
        if day > self.day {
            *self = Counter { requests: std::mem::take(&mut self.requests), day, ..Counter::default() };
        }
    }
}

impl Counters {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Counter>> {
        // Numbers are whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens that a request used, before they are in the database.
    pub(super) fn pending(&self, key: &str, day: u64, tokens: u64) {
        if let Some(counter) = self.lock().get_mut(key) {
            counter.turn_to(day);
            if counter.day == day {
                counter.pending += tokens;
            }
        }
    }

    /// They are in the database now, which says that the day has `total`.
    pub(super) fn committed(&self, key: &str, day: u64, tokens: u64, total: u64) {
        if let Some(counter) = self.lock().get_mut(key).filter(|counter| counter.day == day) {
            counter.pending = counter.pending.saturating_sub(tokens);
            counter.committed = counter.committed.max(total);
        }
    }
}

impl Store {
    /// Whether the key may make a request at `now` (milliseconds since 1970-01-01 UTC, see [`unix_ms`](super::unix_ms));
    /// counts it if so. The inner error says when it may.
    ///
    /// # Errors
    /// The outer error is the database's.
    pub fn admit(&self, key: &Key, now: u64) -> Result<Result<(), Limited>, StoreError> {
        let Limits { requests_per_minute, tokens_per_day } = key.limits;
        if requests_per_minute.is_none() && tokens_per_day.is_none() {
            return Ok(Ok(()));
        }
        let today = day(now);
        if tokens_per_day.is_some() {
            self.read_tokens(key, today)?;
        }
        let mut counters = self.counters.lock();
        let counter = counters.entry(Arc::clone(&key.id)).or_default();
        counter.turn_to(today);
        if let Some(limit) = tokens_per_day
            && counter.committed.saturating_add(counter.pending) >= limit
        {
            let retry_after = Duration::from_millis(DAY_MS - now % DAY_MS);
            return Ok(Err(Limited { what: Limit::TokensPerDay(limit), retry_after }));
        }
        if let Some(limit) = requests_per_minute {
            if let Err(retry_after) = within_a_minute(&mut counter.requests, limit, now) {
                return Ok(Err(Limited { what: Limit::RequestsPerMinute(limit), retry_after }));
            }
            counter.requests.push_back(now);
        }
        Ok(Ok(()))
    }

    /// Reads the tokens of the day if that was not done lately.
    fn read_tokens(&self, key: &Key, today: u64) -> Result<(), StoreError> {
        let known = |counter: &Counter| {
            counter.day == today && counter.read.is_some_and(|read| read.elapsed() < FRESH)
        };
        let begun = Instant::now();
        {
            let mut counters = self.counters.lock();
            let counter = counters.entry(Arc::clone(&key.id)).or_default();
            counter.turn_to(today);
            if known(counter) {
                return Ok(());
            }
        }
        // Without the lock: what the writing thread commits meanwhile raises the number further, and the greater counts.
        let total = self.key_table().tokens_of(&key.id, today).map_err(|error| self.sqlite(error))?;
        let mut counters = self.counters.lock();
        if let Some(counter) = counters.get_mut(&key.id).filter(|counter| counter.day == today) {
            counter.committed = counter.committed.max(total);
            counter.read = Some(begun);
        }
        Ok(())
    }
}

/// Whether fewer than `limit` requests came in the minute before `now`; else, in how long that will be so.
fn within_a_minute(requests: &mut VecDeque<u64>, limit: u32, now: u64) -> Result<(), Duration> {
    // A clock that was set back would leave requests of the future, which would block for long.
    while requests.back().is_some_and(|&at| at > now) {
        requests.pop_back();
    }
    while requests.front().is_some_and(|&at| at + MINUTE_MS <= now) {
        requests.pop_front();
    }
    let over = (requests.len() + 1).saturating_sub(limit as usize);
    match over.checked_sub(1) {
        None => Ok(()),
        // A limit of 0 never has room.
        Some(index) => {
            Err(Duration::from_millis(requests.get(index).map_or(MINUTE_MS, |&at| at + MINUTE_MS - now)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_limit_in_any_minute() {
        let mut requests = VecDeque::new();
        let mut come = |now| {
            let result = within_a_minute(&mut requests, 2, now);
            if result.is_ok() {
                requests.push_back(now);
            }
            result.map_err(|after| after.as_millis())
        };
        assert_eq!(come(100_000), Ok(()));
        assert_eq!(come(130_000), Ok(()));
        assert_eq!(come(130_000), Err(30_000));
        assert_eq!(come(159_999), Err(1));
        assert_eq!(come(160_000), Ok(()));
        assert_eq!(come(160_001), Err(29_999));
        // The clock was set back.
        assert_eq!(come(131_000), Ok(()));
        assert_eq!(come(131_001), Err(58_999));
    }

    #[test]
    fn a_limit_of_nothing() {
        assert_eq!(within_a_minute(&mut VecDeque::new(), 0, 5), Err(Duration::from_secs(60)));
    }
}
