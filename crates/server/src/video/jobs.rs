//! What may be asked of jobs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::{Notify, watch};
use wushi_engine::video::{Limit, Rates};

use super::files::{self, Files};
use super::runner::{Live, Why};
use super::seen::{cancelled, missing, no_video, not_there};
use super::waits::{Waits, pause};
use super::{
    Ending, Owner, Recorder, ServedVideo, Stored, Variant, VideoCounts, VideoJob, VideoOptions, VideoRequest,
    VideoState,
};
use crate::error::ApiError;
use crate::handlers::blocking;
use crate::ids;
use crate::pool::Pool;
use crate::store::{AuditRecord, Store, VideoRow, unix_ms};

/// Planned seconds of a job that tells as much of a model's pace as all before it.
const TELLING: f64 = 60.0;
/// The most jobs that wait.
const MAX_QUEUED: usize = 256;
/// A job that was begun so often without getting further may be what ends the server.
const SUSPECT: u32 = 3;
/// How often, and after how long each, who waits for a video looks again where the database cannot be read.
const LOOKS: u32 = 30;
const LOOK: Duration = Duration::from_secs(2);
/// What is said of a file that should be there.
const LOST: &str =
    "this file is gone from the server's disk; the same request with the same seed makes the same frames";

/// Which job is next.
pub(super) struct Next {
    pub(super) row: Option<VideoRow>,
    /// When a job that is left alone for now is none any more.
    pub(super) again: Option<Instant>,
}

/// All jobs, and the models that make them.
pub(crate) struct Videos {
    models: Vec<ServedVideo>,
    /// What is known of each model's speed.
    speeds: Vec<Speed>,
    pub(super) options: VideoOptions,
    pub(super) store: Arc<Store>,
    pub(super) pool: Arc<Pool>,
    pub(super) recorder: Recorder,
    pub(super) files: Files,
    /// The job whose turn it is.
    live: Mutex<Option<Arc<Live>>>,
    /// Jobs that cannot be made at the moment.
    pub(super) waits: Waits,
    /// Whether folder and database belong together.
    pub(super) paired: bool,
    /// When this process began.
    opened: Instant,
    /// Whoever adds a job holds this, so that two do not take the same room.
    adding: Mutex<()>,
    /// There is a new job.
    pub(super) wake: Notify,
    /// Some job stands differently than before.
    changed: watch::Sender<()>,
    pub(super) counters: Counters,
}

#[derive(Default)]
struct Speed {
    rates: OnceLock<Option<Rates>>,
    /// How much longer than planned jobs take, as the bits of an F64; 0: nobody knows.
    pace: AtomicU64,
}

/// See [`VideoCounts`].
#[derive(Default)]
pub(super) struct Counters {
    submitted: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) failed: AtomicU64,
    cancelled: AtomicU64,
    steps: AtomicU64,
    step_us: AtomicU64,
    frames: AtomicU64,
    frame_us: AtomicU64,
    pub(super) disk: AtomicU64,
}

impl Counters {
    pub(super) fn step(&self, seconds: f64) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.step_us.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }

    pub(super) fn frame(&self, seconds: f64) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.frame_us.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }
}

impl Videos {
    /// Opens the folder, puts back into the queue what was being made when the server ended, and removes what belongs to no
    /// job. Where no videos are made, nothing is made or changed, and a folder that is not the database's is only told of.
    pub(crate) fn open(
        models: Vec<ServedVideo>,
        options: VideoOptions,
        store: Arc<Store>,
        pool: Arc<Pool>,
        recorder: Recorder,
    ) -> Result<Arc<Videos>, String> {
        let mut files = Files::new(&options.folder, store.path());
        let makes = !models.is_empty();
        if makes {
            let taken = files.take();
            if !taken
                .map_err(|error| format!("the folder of videos {}: {error}", options.folder.display()))?
            {
                return Err(format!(
                    "another server makes videos in {} or with the database {}: end it, or name another folder with \
                     --videos and another database with --database",
                    options.folder.display(),
                    store.path().display()
                ));
            }
        }
        let mut videos = Videos {
            speeds: models.iter().map(|_| Speed::default()).collect(),
            models,
            options,
            store,
            pool,
            recorder,
            files,
            live: Mutex::new(None),
            waits: Waits::default(),
            paired: true,
            opened: Instant::now(),
            adding: Mutex::new(()),
            wake: Notify::new(),
            changed: watch::Sender::new(()),
            counters: Counters::default(),
        };
        match videos.pair(makes) {
            Ok(()) => {}
            Err(why) if makes => return Err(why),
            Err(why) => {
                tracing::warn!("videos that were made are not there: {why}");
                videos.paired = false;
            }
        }
        if makes {
            videos.recover().map_err(|error| error.message)?;
        }
        Ok(Arc::new(videos))
    }

    /// The models that make videos.
    pub(crate) fn models(&self) -> &[ServedVideo] {
        &self.models
    }

    /// The model of this name, or the first if there is none.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<&ServedVideo, ApiError> {
        let name = name.filter(|name| !name.is_empty());
        let found = match name {
            None => self.models.first(),
            Some(name) => self.models.iter().find(|model| model.name == name),
        };
        found.ok_or_else(|| {
            let name = name.unwrap_or_default();
            let names: Vec<&str> = self.models.iter().map(|model| model.name.as_str()).collect();
            if self.pool.entries().iter().any(|entry| entry.name() == name) {
                let message = format!("`{name}` gives no videos; there are: {}", names.join(", "));
                return ApiError::parameter("model", message);
            }
            let message = match names[..] {
                [] => "no model that makes videos is served here".to_owned(),
                _ => format!(
                    "there is no model `{name}` that makes videos here; there are: {}",
                    names.join(", ")
                ),
            };
            ApiError { status: StatusCode::NOT_FOUND, ..ApiError::parameter("model", message) }
                .code("model_not_found")
        })
    }

    fn speed(&self, model: &str) -> Option<&Speed> {
        self.speeds.iter().zip(&self.models).find(|(_, served)| served.name == model).map(|(speed, _)| speed)
    }

    /// What the machine does in a second with this model; measured once.
    pub(super) fn rates(&self, model: &ServedVideo) -> Option<&Rates> {
        let measure = || {
            let rates = model.networks.rates();
            rates.map_err(|error| tracing::warn!(%error, "how long videos take is not known")).ok()
        };
        self.speed(&model.name)?.rates.get_or_init(measure).as_ref()
    }

    /// How much longer than planned jobs of this model take.
    pub(super) fn pace(&self, model: &str) -> f64 {
        match self.speed(model).map(|speed| f64::from_bits(speed.pace.load(Ordering::Relaxed))) {
            Some(pace) if pace > 0.0 => pace,
            _ => 1.0,
        }
    }

    /// A job of this model took so many seconds instead of those planned. One of a few seconds, most of which were spent on
    /// what no plan counts, says little of those that take hours.
    pub(super) fn learn(&self, model: &str, seconds: f64, planned: f64) {
        let Some(speed) = self.speed(model) else { return };
        let now = (seconds + TELLING * self.pace(model)) / (planned + TELLING);
        if now.is_finite() && now > 0.0 {
            speed.pace.store(now.to_bits(), Ordering::Relaxed);
        }
    }

    /// What a job may take.
    pub(super) fn limit(&self, model: &ServedVideo) -> Option<Limit> {
        let bytes = self.pool.limit(|| model.networks.limit().map(|limit| limit.bytes))?;
        Some(Limit { bytes, budget: self.pool.budget().is_some() })
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Option<Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The live job, if it is this one.
    pub(super) fn live_as(&self, id: &str) -> Option<Arc<Live>> {
        self.live().as_ref().filter(|live| live.id == id).cloned()
    }

    /// Some job stands differently.
    pub(super) fn tell(&self) {
        self.changed.send_replace(());
    }

    /// Something to be done with these jobs where it may block.
    pub(super) fn asking<T>(
        self: Arc<Videos>,
        ask: impl FnOnce(&Videos) -> Result<T, ApiError> + Send + 'static,
    ) -> impl FnOnce() -> Result<T, ApiError> + Send + 'static {
        move || ask(&self)
    }

    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Videos>,
        ask: impl FnOnce(&Videos) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        blocking(self.clone().asking(ask)).await
    }

    /// The oldest job that can be made here now, and when there may be another.
    pub(super) fn next(&self) -> Result<Next, ApiError> {
        for id in self.store.orphaned_videos()? {
            tracing::warn!(video = id, "cancelled, as its key was revoked");
            match self.store.video(&id, 0) {
                Ok(Some(row)) => drop(self.remove(&row)?),
                Ok(None) => {}
                // Nobody can say what it was.
                Err(_) => drop(self.store.cancel_video(&id, None)?),
            }
            self.files.remove(&id);
        }
        let (mut again, now) = (None, Instant::now());
        for row in self.store.videos_in(&[VideoState::Queued])? {
            if !self.models.iter().any(|model| model.name == row.model) {
                continue;
            }
            // What may have ended the server is left alone for a while.
            let quiet = row.starts.checked_sub(SUSPECT).map(|times| self.opened + pause(times));
            let until = self.waits.until(&row.id, now).max(quiet.filter(|quiet| *quiet > now));
            match until {
                None => return Ok(Next { row: Some(row), again: None }),
                Some(until) => again = Some(again.map_or(until, |again: Instant| again.min(until))),
            }
        }
        Ok(Next { row: None, again })
    }

    /// A new job, which is on the disk when this returns.
    pub(crate) async fn submit(
        self: &Arc<Videos>,
        request: VideoRequest,
        owner: Owner,
    ) -> Result<VideoJob, ApiError> {
        let job = self.ask(move |videos| videos.add(request, owner)).await?;
        self.counters.submitted.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
        self.tell();
        Ok(job)
    }

    fn add(&self, request: VideoRequest, owner: Owner) -> Result<VideoJob, ApiError> {
        let (outlook, room) = self.plan(&request)?;
        if let Some(reason) = outlook.reason {
            return Err(ApiError::invalid(reason).code("insufficient_memory"));
        }
        let pace = self.pace(&outlook.model);
        let id = ids::response_id(files::PREFIX)?;
        let row = VideoRow {
            key: owner.key,
            changes: outlook.changes,
            // As planned: what is measured corrects it wherever it is told.
            estimate: outlook.seconds.map(|seconds| seconds / pace),
            room,
            ..VideoRow::queued(id, outlook.model, request.prompt, outlook.settings, request.format)
        };
        let _one = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let queued = self.queue()?.len();
        if queued >= MAX_QUEUED {
            let message = format!("{queued} videos wait already: try again when some are done");
            return Err(ApiError::too_many(message, "queue_full", 60));
        }
        self.expire()?;
        self.make_room_for(room, row.key.as_deref())?;
        self.store.add_video(&row)?;
        let queue = self.queue()?;
        Ok(self.job(row, &queue))
    }

    /// The job of this id.
    pub(crate) async fn get(self: &Arc<Videos>, id: &str, owner: &Owner) -> Result<VideoJob, ApiError> {
        let (id, owner) = (id.to_owned(), owner.clone());
        self.ask(move |videos| Ok(videos.job(videos.owned(&id, &owner)?, &videos.queue()?))).await
    }

    /// Jobs, and whether there are more.
    pub(crate) async fn list(
        self: &Arc<Videos>,
        after: Option<&str>,
        limit: usize,
        newest_first: bool,
        owner: &Owner,
    ) -> Result<(Vec<VideoJob>, bool), ApiError> {
        let (after, owner) = (after.map(str::to_owned), owner.clone());
        self.ask(move |videos| {
            if let Some(after) = &after {
                videos.owned(after, &owner).map_err(|error| ApiError {
                    status: StatusCode::BAD_REQUEST,
                    param: Some("after".to_owned()),
                    ..error
                })?;
            }
            let more = limit.saturating_add(1);
            let (key, after) = (owner.key.as_deref(), after.as_deref());
            let mut rows = videos.store.videos(key, after, more, newest_first, unix_ms())?;
            let more = rows.len() > limit;
            rows.truncate(limit);
            let queue = videos.queue()?;
            let jobs = rows.into_iter().map(|row| videos.job(row, &queue)).collect();
            Ok((jobs, more))
        })
        .await
    }

    /// Cancels a job that is not finished; removes it with its files. Once begun it goes on though nobody waits.
    pub(crate) async fn delete(self: &Arc<Videos>, id: &str, owner: &Owner) -> Result<(), ApiError> {
        let (videos, id, owner) = (self.clone(), id.to_owned(), owner.clone());
        let deleting = tokio::spawn(async move { videos.cancel(&id, &owner).await });
        deleting.await.unwrap_or_else(|error| Err(ApiError::internal(format!("deleting broke off: {error}"))))
    }

    async fn cancel(self: &Arc<Videos>, id: &str, owner: &Owner) -> Result<(), ApiError> {
        let (gone, owner) = (id.to_owned(), owner.clone());
        self.ask(move |videos| {
            let row = videos.owned(&gone, &owner)?;
            let held = videos.files.hold();
            if !row.state.is_final() && held.is_none() {
                let message = "another server makes this video: delete it there";
                return Err(ApiError::new(StatusCode::CONFLICT, message));
            }
            // The row first: whoever would begin the job now finds none.
            match videos.remove(&row)? {
                true => Ok(()),
                false => Err(no_video(&gone)),
            }
        })
        .await?;
        if let Some(live) = self.live_as(id) {
            live.stop(Why::Deleted);
            live.ended().await;
        }
        self.waits.remove(id);
        self.tell();
        let id = id.to_owned();
        self.ask(move |videos| {
            videos.files.remove(&id);
            videos.recount();
            Ok(())
        })
        .await
    }

    /// Removes a job's row, whatever became of the job meanwhile; with a record if that was nothing yet. Whether it was
    /// there.
    fn remove(&self, row: &VideoRow) -> Result<bool, ApiError> {
        if !row.state.is_final() {
            let begun = row.started.unwrap_or_else(unix_ms);
            let record = self.record(row, &cancelled(row), begun, unix_ms());
            if self.store.cancel_video(&row.id, record.as_ref())? {
                self.counters.cancelled.fetch_add(1, Ordering::Relaxed);
                return Ok(true);
            }
        }
        Ok(self.store.remove_video(&row.id)?)
    }

    /// The record of a job that has ended; none of a model that is not served any more.
    pub(super) fn record(
        &self,
        row: &VideoRow,
        job: &VideoJob,
        begun: u64,
        ended: u64,
    ) -> Option<AuditRecord> {
        let model = self.models.iter().find(|model| model.name == row.model)?;
        (self.recorder)(&Ending {
            job,
            key: row.key.as_deref(),
            model,
            created_ms: row.created,
            queue_ms: begun.saturating_sub(row.created),
            total_ms: ended.saturating_sub(row.created),
        })
    }

    /// Waits until a job is completed or has failed. Not waiting any more cancels nothing.
    pub(crate) async fn finished(self: &Arc<Videos>, id: &str, owner: &Owner) -> Result<VideoJob, ApiError> {
        let mut changed = self.changed.subscribe();
        let mut missed = 0;
        loop {
            changed.mark_unchanged();
            match self.get(id, owner).await {
                Ok(job) if job.state.is_final() => return Ok(job),
                Ok(_) => {
                    missed = 0;
                    // The sender lives as long as this.
                    let _ = changed.changed().await;
                }
                // A database that cannot be read for a moment is no reason to give a video up.
                Err(error) if error.status.is_server_error() && missed < LOOKS => {
                    missed += 1;
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A file of a job: 404 with code `video_not_ready` while it is not there.
    pub(crate) async fn file(
        self: &Arc<Videos>,
        id: &str,
        variant: Variant,
        owner: &Owner,
    ) -> Result<Stored, ApiError> {
        let (id, owner) = (id.to_owned(), owner.clone());
        self.ask(move |videos| {
            let row = videos.owned(&id, &owner)?;
            let format = row.format;
            let (path, media_type, name) = match variant {
                Variant::Video => {
                    let name = files::video_name(format).replace("video", &id);
                    (videos.files.video(&id, format), files::media_type(format), name)
                }
                Variant::Thumbnail => (videos.files.thumbnail(&id), "image/webp", format!("{id}.webp")),
                // Asked for just when the last frame came.
                Variant::Latest if row.state == VideoState::Completed => {
                    (videos.files.thumbnail(&id), "image/webp", format!("{id}.webp"))
                }
                Variant::Latest => (videos.files.latest(&id), "image/webp", format!("{id}-latest.webp")),
            };
            let ready = variant != Variant::Video || row.state == VideoState::Completed;
            match (ready && path.is_file(), &row.error) {
                (true, _) => Ok(Stored { path, media_type, name }),
                (false, Some((_, why))) => {
                    Err(not_there(format!("this video failed: {why}"), "video_failed"))
                }
                (false, None) if row.state == VideoState::Completed => {
                    tracing::warn!(video = id, "{} is gone", path.display());
                    Err(not_there(LOST, "file_lost"))
                }
                (false, None) => Err(not_there(missing(&row, variant), "video_not_ready")),
            }
        })
        .await
    }

    /// Counts for operators. Looks into the database, for a moment.
    pub(crate) fn counts(&self) -> VideoCounts {
        let states = self.store.video_states().unwrap_or_default();
        let count = |wanted| states.iter().filter(|(_, state)| *state == Some(wanted)).count();
        let (queued, running) = (count(VideoState::Queued), count(VideoState::InProgress));
        let live = self.live().clone();
        let counters = &self.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        VideoCounts {
            queued,
            running,
            waiting_for_memory: live.is_some_and(|live| live.look().is_none()) && running == 0,
            submitted: count(&counters.submitted),
            completed: count(&counters.completed),
            failed: count(&counters.failed),
            cancelled: count(&counters.cancelled),
            steps: count(&counters.steps),
            step_seconds: count(&counters.step_us) as f64 / 1e6,
            frames: count(&counters.frames),
            frame_seconds: count(&counters.frame_us) as f64 / 1e6,
            disk_bytes: count(&counters.disk),
            disk_budget: self.options.disk,
        }
    }
}
