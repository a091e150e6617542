//! What ties a request's two ends together: the client's, which cancels and asks for its place in the queue,
//! and the engine's, which reports.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::constraint::panic_message;
use crate::engine::Shared;
use crate::event::Event;
use crate::{EngineError, EngineOptions};

/// The place of a request that waits no more.
const NO_PLACE: usize = usize::MAX;

/// What both ends see.
#[derive(Debug)]
struct Link {
    cancelled: AtomicBool,
    /// Requests before this one in the queue.
    place: AtomicUsize,
}

impl Link {
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// A client's hold on its request. Dropping it cancels the request, which means nothing once it has ended.
#[derive(Debug)]
pub struct Ticket(Arc<Link>);

impl Ticket {
    /// Asks the engine to end the answer; it does so before its next step, with
    /// [`FinishReason::Cancelled`](crate::FinishReason::Cancelled).
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// A handle that can cancel from elsewhere.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.0.clone())
    }

    /// How many requests are before this one in the queue: 0 is next. `None` once it has begun or ended; one
    /// that lost its pages to an older request and is to go on later has begun.
    pub fn queue_position(&self) -> Option<usize> {
        Some(self.0.place.load(Ordering::Relaxed)).filter(|&place| place != NO_PLACE)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Cancels the request whose [`Ticket`] it was taken from.
#[derive(Clone, Debug)]
pub struct Canceller(Arc<Link>);

impl Canceller {
    /// See [`Ticket::cancel`].
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

/// How many requests have not begun, of how many that may be.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: AtomicUsize,
    limit: Option<usize>,
}

impl Queue {
    pub(crate) fn new(options: &EngineOptions) -> Self {
        Queue { waiting: AtomicUsize::new(0), limit: options.max_waiting }
    }

    /// Counts one more, unless there are too many. Returns how many there were.
    fn enter(&self) -> Result<usize, EngineError> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let one_more = |waiting: usize| (waiting < limit).then(|| waiting + 1);
        let entered = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered.map_err(|waiting| EngineError::QueueFull { waiting, limit })
    }

    fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place in the queue. Requests that belong together, as several answers to one question do, may share one: it is free
/// again when all of them have begun, and no handle on it is left.
#[derive(Clone)]
pub struct Place(Arc<Held>);

struct Held {
    shared: Arc<Shared>,
    /// How many there were before it.
    before: usize,
}

impl Place {
    /// A place, if there is one.
    pub(crate) fn take(shared: Arc<Shared>) -> Result<Place, EngineError> {
        let before = shared.queue.enter()?;
        Ok(Place(Arc::new(Held { shared, before })))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.queue.leave();
    }
}

/// What a request's events are handed to.
pub(crate) type Sink = Box<dyn FnMut(Event) + Send>;

/// The engine's end. However it goes, the client gets one last event: if none was reported by the time this
/// is dropped, it says why the engine is gone.
pub(crate) struct Client {
    /// `None` once the last event was reported, or if the sink panicked.
    sink: Option<Sink>,
    link: Arc<Link>,
    shared: Arc<Shared>,
    /// While it counts as waiting.
    queued: Option<Place>,
}

impl Client {
    /// Both ends of a request at this place.
    pub(crate) fn new(place: &Place, sink: Sink) -> (Client, Ticket) {
        let before = AtomicUsize::new(place.0.before);
        let link = Arc::new(Link { cancelled: AtomicBool::new(false), place: before });
        let (shared, queued) = (place.0.shared.clone(), Some(place.clone()));
        (Client { sink: Some(sink), link: link.clone(), shared, queued }, Ticket(link))
    }

    /// Whether the client wants no more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.link.cancelled.load(Ordering::Relaxed)
    }

    /// Notes how many requests are before this one, if it has not begun.
    pub(crate) fn set_place(&self, place: usize) {
        if self.queued.is_some() {
            self.link.place.store(place, Ordering::Relaxed);
        }
    }

    /// Notes that the request waits no more.
    pub(crate) fn begin(&mut self) {
        if self.queued.take().is_some() {
            self.link.place.store(NO_PLACE, Ordering::Relaxed);
        }
    }

    /// Reports an event. A sink that panics gets no other, and its request is cancelled.
    pub(crate) fn report(&mut self, event: Event) {
        let is_last = matches!(event, Event::Finished(_) | Event::Failed(_));
        if is_last {
            // Whoever sees the last event finds the place free.
            self.begin();
        }
        let Some(sink) = &mut self.sink else { return };
        let panic = catch_unwind(AssertUnwindSafe(|| sink(event)));
        if let Err(panic) = &panic {
            tracing::error!(message = panic_message(&**panic), "what a request's events go to panicked");
            self.link.cancel();
        }
        if is_last || panic.is_err() {
            self.sink = None;
        }
    }

    /// Drops the engine's end of a request that was never queued, without an event.
    pub(crate) fn refuse(mut self) {
        self.sink = None;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.report(Event::Failed(self.shared.ended()));
        self.begin();
    }
}
