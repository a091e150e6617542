//! Wushi over HTTP: OpenAI's and Anthropic's APIs, a page to talk to, keys, audit.
//!
//! Wire types live here alone and are converted by hand; everything below this crate is plain Rust. The way of a request:
//!
//! 1. `listen` accepts the connection, `router` finds the handler, `auth` lets it in.
//! 2. `body` reads it within limits; a dialect (`openai`, `anthropic`) turns it into an `ask`, which knows of no API.
//! 3. `pool` loads its model if need be; `prepare` renders, tokenises and compiles what the answer must look like.
//! 4. `answer` submits it to the engine and follows it in a task of its own, `speech` tells text, thoughts and calls apart.
//! 5. The dialect tells the answer, whole or as it comes (`sse`); the `ledger` has its record before the last word.

mod answer;
mod anthropic;
mod app;
mod ask;
mod auth;
mod body;
pub mod constraint;
mod embed;
mod error;
mod handlers;
mod history;
mod ids;
mod ledger;
mod listen;
mod metrics;
mod openai;
mod page;
mod pool;
mod prepare;
pub mod replay;
mod router;
mod service;
mod speech;
mod sse;
pub mod store;
mod strict;
#[cfg(test)]
mod told;
pub mod tools;
mod turns;
mod unread;
mod video;
mod whole;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use app::{App, Closing, Shared};
use history::History;
use ledger::Ledger;
use metrics::Metrics;
use pool::Pool;
use store::{Store, StoreError, unix_ms};
use video::Videos;

pub use app::Limits;
pub use pool::ServedModel;
pub use video::{ServedVideo, VideoOptions};

/// Requests that are prepared at a time.
const PREPARING: usize = 4;

/// How often records that are too old are removed.
const PRUNING: Duration = Duration::from_secs(3600);

/// How long answers that have been told to end may take for it.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// What is served, and to whom.
pub struct Options {
    /// Where to listen.
    pub address: IpAddr,
    /// 0 takes any port that is free.
    pub port: u16,
    /// What may be asked for; the first is loaded at once and taken where a request names none.
    pub models: Vec<ServedModel>,
    /// Models that make videos.
    pub videos: Vec<ServedVideo>,
    /// Where videos are kept, and for how long.
    pub video: VideoOptions,
    /// Bytes that all loaded models may take together; what the machine has if `None`.
    pub memory: Option<u64>,
    /// Keys, usage and records.
    pub store: Store,
    /// Whether every answer's digest is recorded.
    pub digests: bool,
    /// Whether records keep texts, as token ids.
    pub text: bool,
    /// Whether others than this machine are served without keys.
    pub without_keys: bool,
    /// How long records are kept; `None`: for good.
    pub keep_records: Option<Duration>,
    /// How long answers under way may go on after the server was told to end.
    pub drain: Duration,
    /// What one request may take.
    pub limits: Limits,
}

/// Why the server cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Nothing to serve.
    #[error("no model to serve: name one")]
    NoModel,
    /// Two models of one name.
    #[error("two models have the name `{0}`")]
    SameName(String),
    /// Anyone could use it.
    #[error(
        "{0} is not this machine alone, and there is no key: make one (wushi key add NAME), or say that none is wanted \
         (--without-keys)"
    )]
    Unguarded(IpAddr),
    /// The port is taken, or not ours to take.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The first model cannot be loaded.
    #[error("{0}")]
    NotLoaded(String),
    /// Videos cannot be kept.
    #[error("{0}")]
    Videos(String),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A server that listens, but does not answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: App,
    drain: Duration,
    keep_records: Option<Duration>,
}

impl Server {
    /// Begins to listen.
    ///
    /// # Errors
    /// No model, an address that cannot be listened on, or that others than this machine reach though there is no key.
    pub async fn bind(options: Options) -> Result<Server, ServeError> {
        let texts = options.models.iter().map(|model| model.name.as_str());
        let videos = options.videos.iter().map(|model| model.name.as_str());
        let names: Vec<&str> = texts.chain(videos.clone()).collect();
        if let Some(twice) =
            names.iter().enumerate().find_map(|(index, name)| names[..index].contains(name).then_some(name))
        {
            return Err(ServeError::SameName((*twice).to_owned()));
        }
        if names.is_empty() {
            return Err(ServeError::NoModel);
        }
        let loopback = options.address.is_loopback();
        if !loopback && !options.without_keys && !options.store.has_keys()? {
            return Err(ServeError::Unguarded(options.address));
        }
        let wanted = SocketAddr::new(options.address, options.port);
        let failed = |error| ServeError::Listen { address: wanted, error };
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let metrics = Metrics::new(options.models.iter().map(|model| model.name.clone()));
        let videos = videos.map(str::to_owned).collect();
        let pool = Arc::new(Pool::new(options.models, videos, options.memory));
        let store = Arc::new(options.store);
        let recorder = video::recorder(options.text);
        let videos = Videos::open(options.videos, options.video, store.clone(), pool.clone(), recorder);
        let videos = videos.map_err(ServeError::Videos)?;
        let app = App::new(Shared {
            pool,
            videos,
            ledger: Ledger::new(store, options.text),
            metrics: Arc::new(metrics),
            history: History::default(),
            limits: options.limits,
            started: Instant::now(),
            open: loopback || options.without_keys,
            had_keys: AtomicBool::new(false),
            preparing: Arc::new(Semaphore::new(PREPARING)),
            loopback,
            digests: options.digests,
            closing: watch::Sender::new(Closing::Open),
            under_way: watch::Sender::new(()),
        });
        Ok(Server { listener, address, app, drain: options.drain, keep_records: options.keep_records })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then lets nobody in, waits for the answers under way, ends those that take too long, and returns
    /// when every record is written.
    ///
    /// # Errors
    /// The first model cannot be loaded.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Server { listener, app, drain, keep_records, .. } = self;
        let background = tokio::spawn(watch_over(app.clone()));
        let pruning = tokio::spawn(prune(app.clone(), keep_records));
        let tidying = tokio::spawn(app.videos.clone().keep_tidy());
        let making = tokio::spawn(app.videos.clone().run(app.closing.subscribe()));
        let mut failed = None;
        let first = first_model(&app);
        let stop = async {
            tokio::pin!(stop, first);
            tokio::select! {
                () = &mut stop => {}
                // Whoever started the server learns of it at once.
                error = &mut first => match error {
                    Err(error) => failed = Some(error),
                    Ok(()) => stop.await,
                },
            }
        };
        let limits = app.limits.clone();
        let graceful = listen::accept(listener, router::router(app.clone()), &limits, stop).await;
        tracing::info!("no more requests; waiting for the answers under way");
        app.closing.send_replace(Closing::Draining);
        let closing = tokio::spawn(graceful.shutdown());
        if timeout(drain, app.under_way.closed()).await.is_err() {
            tracing::warn!("answers still under way are ended");
        }
        app.closing.send_replace(Closing::Cancelling);
        if timeout(LAST_STEPS, async { (app.under_way.closed().await, closing.await) }).await.is_err() {
            tracing::warn!("some connections did not end");
        }
        // Stopped when nobody was let in any more; what it was at is back in the queue.
        if timeout(LAST_STEPS, making).await.is_err() {
            tracing::warn!(
                "the video being made did not stop; it goes on from what is saved at the next start"
            );
        }
        background.abort();
        pruning.abort();
        tidying.abort();
        failed.map_or(Ok(()), Err)
    }
}

/// Loads the first model.
async fn first_model(app: &App) -> Result<(), ServeError> {
    let Some(first) = app.pool.entries().first() else { return Ok(()) };
    app.pool.acquire(first).await.map(drop).map_err(|error| ServeError::NotLoaded(error.message))
}

/// Removes records that are too old.
async fn prune(app: App, keep: Option<Duration>) {
    let Some(keep) = keep else { return };
    let mut clock = tokio::time::interval(PRUNING);
    loop {
        clock.tick().await;
        let store = app.ledger.store().clone();
        let before = unix_ms().saturating_sub(keep.as_millis() as u64);
        match handlers::blocking(move || Ok(store.prune(before)?)).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "removed records"),
            Err(error) => tracing::error!(message = error.message, "records could not be removed"),
        }
    }
}

/// Samples what the page plots.
async fn watch_over(app: App) {
    let mut clock = tokio::time::interval(history::INTERVAL);
    loop {
        clock.tick().await;
        app.history.sample(&app.pool, &app.metrics);
    }
}
