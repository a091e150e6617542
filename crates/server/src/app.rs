//! What all handlers share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::pool::Pool;

/// Handle on everything that handlers need.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

struct Shared {
    pool: Arc<Pool>,
    ledger: Ledger,
    metrics: Arc<Metrics>,
    limits: Limits,
    started: Instant,
    /// Whether requests without a key are served.
    open: bool,
    /// Whether only requests to a name of this very machine are served.
    loopback: bool,
    /// Whether every answer's digest is recorded.
    digests: bool,
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
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 8 << 20,
            body_time: Duration::from_secs(30),
            head_time: Duration::from_secs(15),
            stall_time: Duration::from_secs(60),
        }
    }
}
