//! Models by name: loaded when first asked for, unloaded, the longest unused first, when memory runs out.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use tokio::sync::Notify;
use wushi_engine::load::{self, LoadOptions, LoadPlan, LoadedModel, Size};
use wushi_engine::{Engine, Stats};

use crate::constraint::Compiler;
use crate::error::{ApiError, NOT_LOADED};
use crate::speech::Style;
use crate::store::Loading;

/// A model that may be asked for.
#[derive(Clone, Debug)]
pub struct ServedModel {
    /// What requests call it.
    pub name: String,
    /// How it is loaded.
    pub load: LoadOptions,
    /// SHA-256 of its file in hexadecimal, once it is known.
    pub digest: Arc<OnceLock<String>>,
    /// What records say of how it was loaded; what only loading shows is filled in then.
    pub loading: Loading,
}

/// After a model could not be loaded, for how long nobody tries again.
const PAUSE: Duration = Duration::from_secs(10);
/// How long loading waits for a model in use to make room.
const PATIENCE: Duration = Duration::from_secs(120);
/// For how long nobody may have used a model that goes to make room for a video.
const QUIET: Duration = Duration::from_secs(10);
/// How often those who wait for memory look again.
const LOOK: Duration = Duration::from_millis(500);

/// All models that may be asked for.
pub(crate) struct Pool {
    entries: Vec<Arc<ModelEntry>>,
    /// Names of models that give no text.
    videos: Vec<String>,
    /// Bytes that all loaded models may take together.
    budget: Option<u64>,
    /// What the machine had when the first model was loaded.
    machine: OnceLock<u64>,
    /// Whoever loads holds this; those who wait for it are served in order.
    loading: tokio::sync::Mutex<()>,
    /// Told whenever a model is no longer in use.
    idle: Arc<Notify>,
    /// Bytes that the video being made takes.
    reserved: AtomicU64,
    /// Told when those are wanted for text.
    wanted: Notify,
}

/// Memory for a video, until this is dropped.
pub(crate) struct Room {
    pool: Arc<Pool>,
    bytes: u64,
}

impl Room {
    /// Waits until a model that gives text needs the memory: a video can go on later, a person waits now.
    pub(crate) async fn wanted(&self) {
        self.pool.wanted.notified().await;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.pool.reserved.fetch_sub(self.bytes, Ordering::SeqCst);
        self.pool.idle.notify_waiters();
    }
}

/// One of the models.
pub(crate) struct ModelEntry {
    served: ServedModel,
    /// When its file was last changed, in seconds since 1970.
    pub(crate) created: u64,
    state: Mutex<State>,
    /// Share of the weights that have been read, as the bits of an F64.
    progress: AtomicU64,
    in_use: AtomicUsize,
    last_used: Mutex<Instant>,
    idle: Arc<Notify>,
}

enum State {
    Unloaded,
    Loading,
    Ready(Arc<Running>),
    /// Waits for its last request, to make room.
    Draining(Arc<Running>),
    Failed {
        why: String,
        /// Until then nobody tries again, unless the file has changed.
        until: Instant,
        modified: Option<SystemTime>,
    },
}

/// A model in memory.
pub(crate) struct Running {
    pub(crate) model: LoadedModel,
    /// Tokens of the longest sequence.
    pub(crate) context: usize,
    /// Identifies weights, quantisation and arithmetic.
    pub(crate) fingerprint: [u8; 32],
    pub(crate) loading: Loading,
    pub(crate) memory: Memory,
    /// How it writes thoughts and calls, as its template tells.
    pub(crate) style: Style,
    compiler: OnceLock<Result<Compiler, String>>,
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Memory {
    /// Of the weights.
    pub(crate) weights: u64,
    /// Of keys and values.
    pub(crate) cache: u64,
    /// Of everything else.
    pub(crate) buffers: u64,
}

impl Memory {
    fn total(self) -> u64 {
        self.weights + self.cache + self.buffers
    }
}

/// What people see of a model.
pub(crate) struct Condition {
    /// `unloaded`, `loading`, `ready` or `failed`.
    pub(crate) state: &'static str,
    /// Share of the weights read while loading.
    pub(crate) progress: Option<f64>,
    pub(crate) running: Option<Arc<Running>>,
    pub(crate) failure: Option<String>,
}

/// A model in use: it stays loaded until all its leases are dropped.
pub(crate) struct Lease {
    entry: Arc<ModelEntry>,
    running: Arc<Running>,
}

impl Pool {
    pub(crate) fn new(models: Vec<ServedModel>, videos: Vec<String>, budget: Option<u64>) -> Pool {
        let idle = Arc::new(Notify::new());
        let entries = models.into_iter().enumerate().map(|(place, served)| {
            // The first is loaded at once: before that, the server is not ready.
            let state = if place == 0 { State::Loading } else { State::Unloaded };
            Arc::new(ModelEntry {
                created: changed(&served.load.path),
                served,
                state: Mutex::new(state),
                progress: AtomicU64::new(0),
                in_use: AtomicUsize::new(0),
                last_used: Mutex::new(Instant::now()),
                idle: idle.clone(),
            })
        });
        Pool {
            entries: entries.collect(),
            videos,
            budget,
            machine: OnceLock::new(),
            loading: tokio::sync::Mutex::new(()),
            idle,
            reserved: AtomicU64::new(0),
            wanted: Notify::new(),
        }
    }

    /// All models.
    pub(crate) fn entries(&self) -> &[Arc<ModelEntry>] {
        &self.entries
    }

    /// Bytes that loaded models may take together.
    pub(crate) fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// The model of this name.
    pub(crate) fn find(&self, name: &str) -> Result<&Arc<ModelEntry>, ApiError> {
        self.entries.iter().find(|entry| entry.served.name == name).ok_or_else(|| {
            if self.videos.iter().any(|video| video == name) {
                let message = format!("`{name}` makes videos and gives no text: POST /v1/videos takes it");
                return ApiError::parameter("model", message);
            }
            let names: Vec<&str> = self.entries.iter().map(|entry| entry.name()).collect();
            let message = match (names.is_empty(), name) {
                (true, _) => "no model that gives text is served here".to_owned(),
                (_, name) => format!("there is no model `{name}` here; there are: {}", names.join(", ")),
            };
            ApiError { status: StatusCode::NOT_FOUND, ..ApiError::parameter("model", message) }
                .code("model_not_found")
        })
    }

    /// The model of this name, or the first if there is none.
    pub(crate) fn find_or_first(&self, name: Option<&str>) -> Result<&Arc<ModelEntry>, ApiError> {
        match (name, self.entries.first()) {
            (None | Some(""), Some(first)) => Ok(first),
            (name, _) => self.find(name.unwrap_or_default()),
        }
    }

    /// This model, loaded if it is not: that may take a while. Loading goes on if the caller gives up.
    pub(crate) async fn acquire(self: &Arc<Self>, entry: &Arc<ModelEntry>) -> Result<Lease, ApiError> {
        if let Some(lease) = entry.lease() {
            return Ok(lease);
        }
        if let State::Failed { why, until, modified: then } = &*entry.state()
            && *until > Instant::now()
            && *then == modified(&entry.served.load.path)
        {
            return Err(not_loaded(why));
        }
        let (pool, entry) = (self.clone(), entry.clone());
        let loaded = tokio::spawn(async move {
            let _turn = pool.loading.lock().await;
            // Someone before may have loaded it.
            match entry.lease() {
                Some(lease) => Ok(lease),
                None => pool.load(&entry).await,
            }
        });
        loaded.await.unwrap_or_else(|error| Err(ApiError::internal(format!("loading broke off: {error}"))))
    }

    /// Loads a model, making room for it first. Only one at a time does this.
    async fn load(&self, entry: &Arc<ModelEntry>) -> Result<Lease, ApiError> {
        entry.progress.store(0, Ordering::Relaxed);
        entry.set(State::Loading);
        match self.plan_and_load(entry).await {
            Ok(running) => {
                entry.in_use.fetch_add(1, Ordering::SeqCst);
                entry.set(State::Ready(running.clone()));
                Ok(Lease { entry: entry.clone(), running })
            }
            Err(message) => {
                tracing::error!(model = entry.name(), %message, "not loaded");
                let error = not_loaded(&message);
                let modified = modified(&entry.served.load.path);
                entry.set(State::Failed { why: message, until: Instant::now() + PAUSE, modified });
                Err(error)
            }
        }
    }

    async fn plan_and_load(&self, entry: &Arc<ModelEntry>) -> Result<Arc<Running>, String> {
        loop {
            let mut options = entry.served.load.clone();
            if let Some(budget) = self.budget.or(self.machine.get().copied()) {
                options.memory = Some(budget.saturating_sub(self.taken()));
            }
            let planned = blocking(move || load::plan(&options)).await?;
            match planned {
                Ok(plan) => {
                    if let Some(available) = plan.available() {
                        // Pages of keys and values that no sequence has touched yet look like free memory to the next.
                        self.machine.get_or_init(|| available);
                    }
                    let entry = entry.clone();
                    return blocking(move || Running::load(plan, &entry)).await?.map(Arc::new);
                }
                // Where unloading all others would not help, they stay.
                Err(load::LoadError::TooLittleMemory { plan, available, .. })
                    if plan.total() as u64 <= available.saturating_add(self.taken()) =>
                {
                    self.make_room().await?;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Bytes that loaded models take, and the video that is being made.
    pub(crate) fn taken(&self) -> u64 {
        let running = self.entries.iter().filter_map(|entry| entry.condition().running);
        running.map(|running| running.memory.total()).sum::<u64>() + self.reserved.load(Ordering::SeqCst)
    }

    /// Bytes that may be taken in all, where something limits them; `available` says what the machine has left.
    pub(crate) fn limit(&self, available: impl FnOnce() -> Option<u64>) -> Option<u64> {
        self.budget.or(self.machine.get().copied()).or_else(|| {
            let available = available()?;
            Some(*self.machine.get_or_init(|| available.saturating_add(self.taken())))
        })
    }

    /// Waits until there are so many bytes for a video, within `limit`. Models that nobody has used for a while go, those in
    /// use stay. What is more than the limit never comes to be.
    pub(crate) async fn reserve(self: &Arc<Self>, bytes: u64, limit: Option<u64>) -> Room {
        loop {
            let told = self.idle.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            // In a task of its own: whoever does not wait for it any more must not leave it while a model is half gone, with
            // the next one planned as if its memory were there.
            let pool = self.clone();
            let tried = tokio::spawn(async move { pool.try_reserve(bytes, limit).await }).await;
            if let Ok(Some(room)) = tried {
                return room;
            }
            // Models become quiet without anybody saying so.
            let _ = tokio::time::timeout(LOOK, told).await;
        }
    }

    async fn try_reserve(self: &Arc<Self>, bytes: u64, limit: Option<u64>) -> Option<Room> {
        let _turn = self.loading.lock().await;
        while limit.is_some_and(|limit| self.taken().saturating_add(bytes) > limit) {
            let quiet = |entry: &&Arc<ModelEntry>| {
                entry.in_use.load(Ordering::SeqCst) == 0 && entry.last_used().elapsed() >= QUIET
            };
            let loaded = self.entries.iter().filter(|entry| entry.is_ready()).filter(quiet);
            let victim = loaded.min_by_key(|entry| entry.last_used())?;
            victim.drain();
            // Someone may have come in between.
            if victim.in_use.load(Ordering::SeqCst) > 0 {
                victim.stay();
                return None;
            }
            if let Err(error) = self.unload(victim, "for a video").await {
                tracing::error!(model = victim.name(), %error, "not unloaded");
                return None;
            }
        }
        self.reserved.fetch_add(bytes, Ordering::SeqCst);
        Some(Room { pool: self.clone(), bytes })
    }

    /// Waits until the video that is being made has given its memory back.
    async fn take_from_video(&self) -> Result<(), String> {
        let given = async {
            while self.reserved.load(Ordering::SeqCst) > 0 {
                self.wanted.notify_waiters();
                let _ = tokio::time::timeout(LOOK / 10, self.idle.notified()).await;
            }
        };
        tokio::time::timeout(PATIENCE, given)
            .await
            .map_err(|_| "a video that is being made does not give back the memory it needs".to_owned())
    }

    async fn unload(&self, victim: &Arc<ModelEntry>, why: &str) -> Result<(), String> {
        tracing::info!(model = victim.name(), "unloaded to make room {why}");
        let before = std::mem::replace(&mut *victim.state(), State::Unloaded);
        blocking(move || unload(before)).await
    }

    /// Unloads a model: the one that has been idle the longest; or else stops the video that is being made; or else unloads
    /// the one that was asked the longest ago, when its last request is done.
    async fn make_room(&self) -> Result<(), String> {
        let loaded = self.entries.iter().filter(|entry| entry.is_ready());
        let victim = loaded.min_by_key(|entry| (entry.in_use.load(Ordering::SeqCst) > 0, entry.last_used()));
        let busy = victim.is_none_or(|victim| victim.in_use.load(Ordering::SeqCst) > 0);
        if busy && self.reserved.load(Ordering::SeqCst) > 0 {
            return self.take_from_video().await;
        }
        let Some(victim) = victim else { return Err("other programs take the memory it needs".to_owned()) };
        victim.drain();
        let unused = async {
            loop {
                let told = self.idle.notified();
                if victim.in_use.load(Ordering::SeqCst) == 0 {
                    break;
                }
                told.await;
            }
        };
        if tokio::time::timeout(PATIENCE, unused).await.is_err() {
            victim.stay();
            return Err("the models that take the memory it needs are all in use".to_owned());
        }
        self.unload(victim, "for another").await
    }
}

/// Frees a model's memory: stopping an engine waits for its thread, and gigabytes take a moment.
fn unload(state: State) {
    if let State::Draining(running) = &state {
        // Whoever only looks at it is done in a moment.
        while Arc::strong_count(running) > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    drop(state);
}

/// What is wrong with a file stays wrong: nobody is told to try again.
fn not_loaded(why: &str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why).code(NOT_LOADED)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("loading broke off: {error}"))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// When a file was last changed, in seconds since 1970; 0 where nobody knows.
fn changed(path: &Path) -> u64 {
    let since = modified(path).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |duration| duration.as_secs())
}

impl ModelEntry {
    /// What requests call it.
    pub(crate) fn name(&self) -> &str {
        &self.served.name
    }

    /// SHA-256 of its file, where it is known.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.served.digest.get().map(String::as_str)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state() = state;
    }

    fn last_used(&self) -> Instant {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A use of it, if it is loaded and to stay.
    fn lease(self: &Arc<Self>) -> Option<Lease> {
        let state = self.state();
        let State::Ready(running) = &*state else { return None };
        // Within the lock, so that nobody unloads it in between.
        self.in_use.fetch_add(1, Ordering::SeqCst);
        Some(Lease { entry: self.clone(), running: running.clone() })
    }

    /// Whether requests are answered at once.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.state(), State::Ready(_))
    }

    /// Takes [`ModelEntry::drain`] back.
    fn stay(&self) {
        let mut state = self.state();
        if let State::Draining(running) = &*state {
            *state = State::Ready(running.clone());
        }
    }

    fn drain(&self) {
        let mut state = self.state();
        if let State::Ready(running) = &*state {
            *state = State::Draining(running.clone());
        }
    }

    /// How it stands.
    pub(crate) fn condition(&self) -> Condition {
        let (name, running, failure) = match &*self.state() {
            State::Unloaded => ("unloaded", None, None),
            State::Loading => ("loading", None, None),
            State::Ready(running) | State::Draining(running) => ("ready", Some(running.clone()), None),
            State::Failed { why, .. } => ("failed", None, Some(why.clone())),
        };
        let progress = (name == "loading").then(|| f64::from_bits(self.progress.load(Ordering::Relaxed)));
        Condition { state: name, progress, running, failure }
    }
}

impl Running {
    fn load(plan: LoadPlan, entry: &ModelEntry) -> Result<Running, String> {
        let (context, memory) = (plan.executor().context, plan.memory());
        let memory = Memory {
            weights: memory.weights as u64,
            cache: memory.cache as u64,
            buffers: memory.arena as u64,
        };
        let fingerprint = plan.fingerprint();
        let loading = Loading {
            context: context as u64,
            arithmetic: load::ARITHMETIC_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..entry.served.loading.clone()
        };
        let started = Instant::now();
        let report = |share: f64| entry.progress.store(share.to_bits(), Ordering::Relaxed);
        let model = plan.load_any(&report).map_err(|error| error.to_string())?;
        let style = Style::of(&model);
        tracing::info!(
            model = entry.name(),
            memory = %Size(memory.total()),
            seconds = started.elapsed().as_secs_f64(),
            "loaded"
        );
        Ok(Running { model, context, fingerprint, loading, memory, style, compiler: OnceLock::new() })
    }

    /// The fingerprint in hexadecimal.
    pub(crate) fn fingerprint_text(&self) -> String {
        blake3::Hash::from(self.fingerprint).to_hex().to_string()
    }

    /// `text` or `embedding`: what it gives.
    pub(crate) fn kind(&self) -> &'static str {
        if self.model.pooling.is_some() { "embedding" } else { "text" }
    }

    /// Counts of its engine.
    pub(crate) fn stats(&self) -> Stats {
        self.model.engine.stats()
    }
}

impl Lease {
    /// What requests call the model.
    pub(crate) fn name(&self) -> &str {
        self.entry.name()
    }

    pub(crate) fn entry(&self) -> &ModelEntry {
        &self.entry
    }

    /// Its engine has failed: others load it again.
    pub(crate) fn give_up(&self) {
        let mut state = self.entry.state();
        if let State::Ready(running) | State::Draining(running) = &*state
            && Arc::ptr_eq(running, &self.running)
        {
            tracing::error!(model = self.name(), "its engine has failed");
            *state = State::Failed {
                why: "its engine has failed".to_owned(),
                until: Instant::now(),
                modified: None,
            };
        }
    }

    /// The model, if it gives text.
    pub(crate) fn text(&self) -> Result<&LoadedModel, ApiError> {
        match self.running.model.pooling {
            None => Ok(&self.running.model),
            Some(_) => {
                let message = format!("`{}` is an embedding model: it gives no text", self.name());
                Err(ApiError::parameter("model", message))
            }
        }
    }

    /// What runs it, if it gives text.
    pub(crate) fn engine(&self) -> Result<&Engine, ApiError> {
        Ok(&self.text()?.engine)
    }

    /// What makes constraints for it, made when first wanted.
    pub(crate) fn compiler(&self) -> Result<&Compiler, ApiError> {
        let tokenizer = &self.text()?.tokenizer;
        let made =
            self.running.compiler.get_or_init(|| Compiler::new(tokenizer).map_err(|error| error.to_string()));
        made.as_ref().map_err(ApiError::internal)
    }
}

impl std::ops::Deref for Lease {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Clone for Lease {
    fn clone(&self) -> Lease {
        self.entry.in_use.fetch_add(1, Ordering::SeqCst);
        Lease { entry: self.entry.clone(), running: self.running.clone() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.entry.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if self.entry.in_use.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.entry.idle.notify_waiters();
        }
    }
}
