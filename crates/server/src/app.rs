//! What all handlers share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, watch};

use crate::error::ApiError;
use crate::history::History;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::video::Videos;

/// Handle on everything that handlers need.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

/// See [`App`].
pub(crate) struct Shared {
    pub(crate) pool: Arc<Pool>,
    /// There even where no model makes videos: every call says so then.
    pub(crate) videos: Arc<Videos>,
    pub(crate) ledger: Ledger,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) history: History,
    pub(crate) limits: Limits,
    pub(crate) started: Instant,
    /// Whether requests need no key while there are none.
    pub(crate) open: bool,
    /// Whether there has been a key: from then on everyone needs one.
    pub(crate) had_keys: AtomicBool,
    /// Permits to prepare requests: texts, templates and grammars take processors that answers need.
    pub(crate) preparing: Arc<Semaphore>,
    /// Whether only requests to a name of this very machine are served.
    pub(crate) loopback: bool,
    /// Whether every answer's digest is recorded.
    pub(crate) digests: bool,
    pub(crate) closing: watch::Sender<Closing>,
    /// A clone for each request under way: when all are dropped, none is.
    pub(crate) under_way: watch::Sender<()>,
}

/// Whether the server is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Closing {
    /// It is not.
    Open,
    /// Nobody is let in any more.
    Draining,
    /// Answers under way end now.
    Cancelling,
}

/// What one request may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Until a body has arrived.
    pub body_time: Duration,
    /// Until the head of a request has arrived.
    pub head_time: Duration,
    /// For how long a client may read nothing of what it is sent.
    pub stall_time: Duration,
    /// Connections at a time; others wait to be accepted.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 8 << 20,
            body_time: Duration::from_secs(30),
            head_time: Duration::from_secs(15),
            stall_time: Duration::from_secs(60),
            connections: 1024,
        }
    }
}

impl App {
    pub(crate) fn new(shared: Shared) -> App {
        App(Arc::new(shared))
    }

    /// Refuses what would begin now if the server is about to end.
    pub(crate) fn check_open(&self) -> Result<(), ApiError> {
        match *self.closing.borrow() {
            Closing::Open => Ok(()),
            _ => Err(ApiError::unavailable("the server is about to end", 5)),
        }
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
