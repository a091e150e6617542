//! What a run and those who watch it share.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Tells a run to stop, and how far it is. May be looked at from any thread.
#[derive(Debug, Default)]
pub struct Follow {
    stop: AtomicBool,
    /// Bits of an F32.
    share: AtomicU32,
}

impl Follow {
    /// Ends the run that is going on, and all that follow, within some tens of milliseconds.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether [`Follow::stop`] was called.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Which share of its work the run has done: from 0 to 1, for each run anew.
    pub fn share(&self) -> f32 {
        f32::from_bits(self.share.load(Ordering::Relaxed))
    }

    pub(crate) fn set_share(&self, share: f32) {
        self.share.store(share.to_bits(), Ordering::Relaxed);
    }
}
