//! What operators look at: health, readiness, metrics, status.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use wushi_engine::Stats;

use crate::app::App;
use crate::error::{ApiError, ErrorBody};
use crate::history::Series;
use crate::metrics::Gauge;
use crate::pool::Memory;
use crate::store::unix_ms;
use crate::video::Videos;

/// How the process is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// Whether the process is alive
#[utoipa::path(
    get, path = "/health", tag = "Server",
    responses((status = 200, description = "It is", body = Health))
)]
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether requests can be served
#[utoipa::path(
    get, path = "/ready", tag = "Server",
    responses((status = 200, description = "They can", body = Health),
              (status = 503, description = "Not now: the server is about to end, or its first model failed to load", body = ErrorBody))
)]
pub(crate) async fn ready(State(app): State<App>) -> Result<Json<Health>, ApiError> {
    app.check_open()?;
    let first = app.pool.entries().first().map(|entry| entry.condition());
    match first {
        Some(condition) if condition.state == "failed" => {
            Err(ApiError::unavailable(condition.failure.unwrap_or_default(), 30))
        }
        Some(condition) if condition.state == "loading" => {
            Err(ApiError::unavailable("the model is being loaded", 1))
        }
        _ => Ok(Json(Health { status: "ready" })),
    }
}

/// Counts in Prometheus' text format
#[utoipa::path(
    get, path = "/metrics", tag = "Server",
    responses((status = 200, description = "The counts", body = String, content_type = "text/plain"),
              (status = "4XX", description = "What was wrong", body = ErrorBody))
)]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let stats: Vec<(String, Stats)> = app
        .pool
        .entries()
        .iter()
        .filter_map(|entry| Some((entry.name().to_owned(), entry.condition().running?.stats())))
        .collect();
    let gauge = |name, kind, about, value: fn(&Stats) -> f64| Gauge {
        name,
        kind,
        about,
        values: stats.iter().map(|(model, stats)| (model.clone(), value(stats))).collect(),
    };
    let gauges = [
        gauge("wushi_requests_running", "gauge", "Sequences that take part in steps", |stats| {
            stats.running as f64
        }),
        gauge("wushi_requests_waiting", "gauge", "Sequences that wait for a place", |stats| {
            stats.waiting as f64
        }),
        gauge("wushi_kv_pages_used", "gauge", "Pages of keys and values that sequences hold", |stats| {
            stats.pages_used as f64
        }),
        gauge("wushi_kv_pages_cached", "gauge", "Pages kept for later prompts", |stats| {
            stats.pages_cached as f64
        }),
        gauge("wushi_kv_pages", "gauge", "Pages of keys and values", |stats| pages(stats) as f64),
        gauge("wushi_kv_used_ratio", "gauge", "Share of the pages that sequences hold", |stats| {
            stats.pages_used as f64 / pages(stats).max(1) as f64
        }),
        gauge("wushi_steps_total", "counter", "Steps computed since the model was loaded", |stats| {
            stats.steps as f64
        }),
        gauge(
            "wushi_computed_tokens_total",
            "counter",
            "Tokens computed since the model was loaded",
            |stats| stats.computed_tokens as f64,
        ),
        gauge(
            "wushi_preemptions_total",
            "counter",
            "Sequences that lost their pages to older ones",
            |stats| stats.preemptions as f64,
        ),
        gauge("wushi_guessed_tokens_total", "counter", "Tokens guessed ahead", |stats| {
            stats.guessed_tokens as f64
        }),
        gauge("wushi_guessed_right_tokens_total", "counter", "Tokens guessed ahead that came", |stats| {
            stats.accepted_tokens as f64
        }),
    ];
    let text = app.metrics.text(&gauges, &app.videos.counts());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn pages(stats: &Stats) -> usize {
    stats.pages_used + stats.pages_cached + stats.pages_free
}

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    version: &'static str,
    uptime_s: u64,
    memory: MemoryStatus,
    models: Vec<ModelStatus>,
    videos: VideosStatus,
    /// Of the last 30 days.
    usage: Vec<UsageStatus>,
    history: Series,
}

/// Bytes of all loaded models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemoryStatus {
    used: u64,
    /// The most they may take; null if that is what the machine has.
    #[schema(required)]
    budget: Option<u64>,
}

/// How a model is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelStatus {
    name: String,
    state: &'static str,
    #[schema(required)]
    progress: Option<f64>,
    #[schema(required)]
    failure: Option<String>,
    #[schema(required)]
    context: Option<usize>,
    #[schema(required)]
    memory: Option<Memory>,
    #[schema(required)]
    pages: Option<Pages>,
    running: usize,
    waiting: usize,
    #[schema(required)]
    dtype: Option<String>,
    #[schema(required)]
    parameters: Option<u64>,
    #[schema(required)]
    fingerprint: Option<String>,
}

/// Pages of keys and values.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pages {
    total: usize,
    used: usize,
    cached: usize,
}

/// The jobs that make videos, of all keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VideosStatus {
    /// The models that make them.
    models: Vec<String>,
    queued: usize,
    running: usize,
    /// Whether the next one waits for memory.
    waiting_for_memory: bool,
    /// Since the server started, as all that follow.
    completed: u64,
    failed: u64,
    cancelled: u64,
    /// Of a step of denoising; null before the first.
    #[schema(required)]
    seconds_per_step: Option<f64>,
    disk: DiskStatus,
}

/// Bytes of all files of videos.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiskStatus {
    used: u64,
    /// The most they may take.
    budget: u64,
}

impl VideosStatus {
    fn new(videos: &Videos) -> VideosStatus {
        let counts = videos.counts();
        VideosStatus {
            models: videos.models().iter().map(|model| model.name.clone()).collect(),
            queued: counts.queued,
            running: counts.running,
            waiting_for_memory: counts.waiting_for_memory,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            seconds_per_step: (counts.steps > 0).then(|| counts.step_seconds / counts.steps as f64),
            disk: DiskStatus { used: counts.disk_bytes, budget: counts.disk_budget },
        }
    }
}

/// What a key used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageStatus {
    /// Its name; null for requests without a key.
    #[schema(required)]
    key: Option<String>,
    requests: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    completion_tokens: u64,
}

/// How the server is: models, usage, the last minutes
#[utoipa::path(
    get, path = "/status", tag = "Server",
    responses((status = 200, description = "All of it", body = Status),
              (status = "4XX", description = "What was wrong", body = ErrorBody),
              (status = "5XX", description = "What went wrong", body = ErrorBody))
)]
pub(crate) async fn status(State(app): State<App>) -> Result<Json<Status>, ApiError> {
    let models = app.pool.entries().iter().map(|entry| {
        let condition = entry.condition();
        let running = condition.running.as_deref();
        let stats = running.map(|running| running.stats());
        ModelStatus {
            name: entry.name().to_owned(),
            state: condition.state,
            progress: condition.progress,
            failure: condition.failure.clone(),
            context: running.map(|running| running.context),
            memory: running.map(|running| running.memory),
            pages: stats.as_ref().map(|stats| Pages {
                total: pages(stats),
                used: stats.pages_used,
                cached: stats.pages_cached,
            }),
            running: stats.as_ref().map_or(0, |stats| stats.running),
            waiting: stats.as_ref().map_or(0, |stats| stats.waiting),
            dtype: running.map(|running| running.model.info.dtype.clone()),
            parameters: running.map(|running| running.model.info.parameters),
            fingerprint: running.map(|running| running.fingerprint_text()),
        }
    });
    let since = crate::store::day(unix_ms()).saturating_sub(29);
    let usage =
        tokio::task::block_in_place(|| app.ledger.store().usage_by_key(since))?.into_iter().map(|usage| {
            UsageStatus {
                key: usage.name,
                requests: usage.requests,
                prompt_tokens: usage.prompt_tokens,
                cached_tokens: usage.cached_tokens,
                completion_tokens: usage.completion_tokens,
            }
        });
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: app.started.elapsed().as_secs(),
        memory: MemoryStatus { used: app.pool.taken(), budget: app.pool.budget() },
        models: models.collect(),
        videos: VideosStatus::new(&app.videos),
        usage: usage.collect(),
        history: app.history.series(),
    }))
}
