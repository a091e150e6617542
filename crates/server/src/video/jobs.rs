//! What may be asked of jobs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::{Notify, watch};
use wushi_engine::video::{Limit, Rates, Ready, Settings, VideoError, kept_bytes};
use wushi_media::{Format, FrameRate, MediaError};

use super::files::{self, Files, is_id};
use super::progress::Weights;
use super::runner::{Live, Why};
use super::{
    Outlook, OutlookStage, Owner, Recorder, ServedVideo, Stored, Variant, VideoCounts, VideoJob,
    VideoOptions, VideoRequest, VideoSettings, VideoState,
};
use crate::error::ApiError;
use crate::handlers::blocking;
use crate::ids;
use crate::pool::Pool;
use crate::store::{Store, VideoEnd, VideoRow, unix_ms};

/// The most jobs that wait.
const MAX_QUEUED: usize = 256;
/// How often what has expired is removed.
const TIDYING: Duration = Duration::from_secs(600);

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
    /// When that was begun this time, in milliseconds since 1970; 0: it was not.
    begun: AtomicU64,
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
    disk: AtomicU64,
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
    /// job.
    pub(crate) fn open(
        models: Vec<ServedVideo>,
        options: VideoOptions,
        store: Arc<Store>,
        pool: Arc<Pool>,
        recorder: Recorder,
    ) -> Result<Arc<Videos>, String> {
        let files = Files::open(&options.folder, !models.is_empty())
            .map_err(|error| format!("the folder of videos {}: {error}", options.folder.display()))?;
        if !models.is_empty() && !files.is_ours() {
            return Err(format!(
                "another server makes videos in {}: end it, or name another folder with --videos and another database with \
                 --database",
                options.folder.display()
            ));
        }
        let videos = Videos {
            speeds: models.iter().map(|_| Speed::default()).collect(),
            models,
            options,
            store,
            pool,
            recorder,
            files,
            live: Mutex::new(None),
            begun: AtomicU64::new(0),
            adding: Mutex::new(()),
            wake: Notify::new(),
            changed: watch::Sender::new(()),
            counters: Counters::default(),
        };
        if videos.files.is_ours() {
            videos.recover().map_err(|error| error.message)?;
        }
        Ok(Arc::new(videos))
    }

    /// What a process that was killed has left behind.
    fn recover(&self) -> Result<(), ApiError> {
        match self.store.requeue_videos()? {
            0 => {}
            count => tracing::info!(count, "videos go on that were being made when the server ended"),
        }
        let unfinished = self.store.videos_in([VideoState::Queued, VideoState::InProgress])?;
        let finished = self.store.finished_videos()?;
        let states: std::collections::HashMap<&str, VideoState> =
            unfinished.iter().chain(&finished).map(|row| (row.id.as_str(), row.state)).collect();
        self.files.tidy(|id| states.get(id).copied());
        for row in &finished {
            if let (Some(seconds), Some(estimate)) = (row.seconds, row.estimate) {
                self.learn(&row.model, seconds / estimate.max(1e-3));
            }
            if row.state == VideoState::Completed && !self.files.video(&row.id, format(row)?).is_file() {
                self.lost(row)?;
            }
        }
        self.expire()?;
        self.recount();
        Ok(())
    }

    /// A video whose file is gone.
    fn lost(&self, row: &VideoRow) -> Result<(), ApiError> {
        let why = "its file is gone from the server's disk; the same request with the same seed makes the same frames";
        let end = VideoEnd {
            ended: row.ended.unwrap_or(row.created),
            expires: row.expires.unwrap_or(row.created),
            error: Some(("file_lost".to_owned(), why.to_owned())),
            frames_digest: row.frames_digest.clone(),
            fingerprint: row.fingerprint.clone(),
            seconds: row.seconds,
            bytes: 0,
        };
        tracing::warn!(video = row.id, "its file is gone");
        self.files.remove(&row.id);
        Ok(self.store.end_video(&row.id, &end, None)?)
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

    /// A job of this model took so much longer than planned.
    pub(super) fn learn(&self, model: &str, pace: f64) {
        let Some(speed) = self.speed(model) else { return };
        let before = f64::from_bits(speed.pace.load(Ordering::Relaxed));
        let now = if before > 0.0 { 0.5 * (before + pace) } else { pace };
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
    fn live_as(&self, id: &str) -> Option<Arc<Live>> {
        self.live().as_ref().filter(|live| live.id == id).cloned()
    }

    /// When the job whose turn it is was begun, in milliseconds since 1970.
    pub(super) fn begun(&self) -> Option<u64> {
        Some(self.begun.load(Ordering::Relaxed)).filter(|begun| *begun > 0)
    }

    pub(super) fn set_begun(&self, time: u64) {
        self.begun.store(time, Ordering::Relaxed);
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

    async fn ask<T: Send + 'static>(
        self: &Arc<Videos>,
        ask: impl FnOnce(&Videos) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        blocking(self.clone().asking(ask)).await
    }

    /// The oldest job that can be made here.
    pub(super) fn next(&self) -> Result<Option<VideoRow>, ApiError> {
        let rows = self.store.videos_in([VideoState::Queued, VideoState::Queued])?;
        Ok(rows.into_iter().find(|row| self.models.iter().any(|model| model.name == row.model)))
    }

    /// What a request would take; nothing is stored. What can never fit is told, not refused.
    pub(crate) async fn outlook(self: &Arc<Videos>, request: &VideoRequest) -> Result<Outlook, ApiError> {
        let request = request.clone();
        self.ask(move |videos| videos.plan(&request).map(|(outlook, _)| outlook)).await
    }

    /// The outlook of a request, and bytes of the disk that it may need.
    fn plan(&self, request: &VideoRequest) -> Result<(Outlook, u64), ApiError> {
        let model = self.find(request.model.as_deref())?;
        let networks = &model.networks;
        let two = networks.model().boundary.is_some();
        if request.wanted.guidance_low.is_some() && !two {
            let message =
                "a second guidance is for models with two denoisers, and this one has one: leave it out";
            return Err(ApiError::parameter("guidance_scale_2", message));
        }
        let (settings, changes) = Settings::resolve(&request.wanted, networks.model()).map_err(refused)?;
        let media = media_settings(&settings).map_err(refused_media)?;
        media.check(request.format).map_err(refused_media)?;
        let limit = self.limit(model);
        let plan = networks.plan_within(&settings, Ready::default(), None).map_err(refused)?;
        let fits = limit.is_none_or(|limit| plan.peak() <= limit.bytes);
        let reason = match fits {
            true => None,
            false => {
                networks.plan_within(&settings, Ready::default(), limit).err().map(|error| error.to_string())
            }
        };
        let rates = self.rates(model);
        let pace = self.pace(&model.name);
        let weights = Weights::new(&plan, rates);
        let queue = self.queue()?;
        let pixels = (settings.width * settings.height * settings.frames) as u64;
        let room = files::room(request.format, pixels).saturating_add(2 * kept_bytes(&settings));
        let stage = |stage: &wushi_engine::video::Stage| OutlookStage {
            name: stage.name,
            bytes: stage.memory.total(),
            seconds: rates.map(|rates| pace * stage.seconds(rates)),
        };
        let outlook = Outlook {
            model: model.name.clone(),
            settings: VideoSettings::of(&settings, two),
            changes: changes.iter().map(ToString::to_string).collect(),
            stages: plan.stages.iter().map(stage).collect(),
            peak_bytes: plan.peak(),
            limit_bytes: limit.map(|limit| limit.bytes),
            fits,
            reason,
            seconds: weights.seconds().map(|seconds| pace * seconds),
            starts_in_seconds: self.seconds_before(&queue, queue.len()),
            queue_position: queue.len(),
            instead: networks.instead().map_err(refused)?,
            seconds_of_video: media.rate.seconds(settings.frames as u64),
        };
        Ok((outlook, room))
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
        let row = VideoRow {
            id: ids::response_id(files::PREFIX)?,
            key: owner.key,
            model: outlook.model,
            prompt: request.prompt,
            settings: outlook.settings,
            changes: outlook.changes,
            format: request.format.name().to_owned(),
            // As planned: what is measured corrects it wherever it is told.
            estimate: outlook.seconds.map(|seconds| seconds / pace),
            room,
            state: VideoState::Queued,
            progress: 0.0,
            starts: 0,
            created: unix_ms(),
            started: None,
            ended: None,
            expires: None,
            error: None,
            frames_digest: None,
            fingerprint: None,
            seconds: None,
            bytes: 0,
        };
        let _one = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let queued = self.queue()?.len();
        if queued >= MAX_QUEUED {
            let message = format!("{queued} videos wait already: try again when some are done");
            return Err(ApiError::too_many(message, "queue_full", 60));
        }
        self.expire()?;
        self.make_disk_room(room, None)?;
        self.store.add_video(&row)?;
        let queue = self.queue()?;
        self.job(row, &queue)
    }

    /// Removes finished videos, the oldest first, until there is room for `more` bytes; never `except`.
    pub(super) fn make_disk_room(&self, more: u64, except: Option<&str>) -> Result<(), ApiError> {
        let unfinished = self.store.videos_in([VideoState::Queued, VideoState::InProgress])?;
        let finished = self.store.finished_videos()?;
        let promised: u64 = unfinished.iter().map(|row| row.room).sum();
        let mut taken = finished.iter().map(|row| row.bytes).sum::<u64>().saturating_add(promised);
        let mut old = finished.iter().filter(|row| row.bytes > 0 && except != Some(row.id.as_str()));
        let full = |taken: u64| taken.saturating_add(more) > self.options.disk;
        while full(taken) || (more > 0 && self.files.left().is_some_and(|left| left < more)) {
            let Some(row) = old.next() else { break };
            tracing::info!(video = row.id, "removed to make room on the disk");
            self.erase(&row.id)?;
            taken = taken.saturating_sub(row.bytes);
        }
        if more == 0 {
            return Ok(());
        }
        let size = |bytes| wushi_engine::load::Size(bytes);
        let message = match self.files.left() {
            _ if full(taken) => format!(
                "no room for another video: it may need {}, and those that wait take {} of the {} that videos may take",
                size(more),
                size(taken),
                size(self.options.disk)
            ),
            Some(left) if left < more => {
                format!(
                    "no room for another video: it may need {}, and the disk has {} left",
                    size(more),
                    size(left)
                )
            }
            _ => return Ok(()),
        };
        Err(ApiError::new(StatusCode::INSUFFICIENT_STORAGE, message).code("insufficient_storage"))
    }

    /// Removes what has expired.
    fn expire(&self) -> Result<(), ApiError> {
        let now = unix_ms();
        let finished = self.store.finished_videos()?;
        for row in finished.iter().filter(|row| row.expires.is_some_and(|expires| expires <= now)) {
            tracing::info!(video = row.id, "expired");
            self.erase(&row.id)?;
        }
        Ok(())
    }

    /// Removes what expires, until it is dropped.
    pub(crate) async fn keep_tidy(self: Arc<Videos>) {
        if !self.files.is_ours() {
            return;
        }
        let mut clock = tokio::time::interval(TIDYING);
        loop {
            clock.tick().await;
            let tidied = self.ask(|videos| {
                videos.expire()?;
                videos.recount();
                Ok(())
            });
            if let Err(error) = tidied.await {
                tracing::error!(error.message, "videos that have expired are not removed");
            }
        }
    }

    /// Removes a job that nobody works on; first the row, so that none is without its file.
    fn erase(&self, id: &str) -> Result<bool, ApiError> {
        let there = self.store.remove_video(id)?;
        self.files.remove(id);
        Ok(there)
    }

    pub(super) fn recount(&self) {
        self.counters.disk.store(self.files.all_bytes(), Ordering::Relaxed);
    }

    /// Jobs that are not finished, in order; the one whose turn it is comes first.
    fn queue(&self) -> Result<Vec<VideoRow>, ApiError> {
        let mut rows = self.store.videos_in([VideoState::Queued, VideoState::InProgress])?;
        // Jobs of models that are not served here any more keep nobody waiting.
        rows.retain(|row| self.models.iter().any(|model| model.name == row.model));
        Ok(rows)
    }

    /// Seconds until the first `count` jobs of the queue are done.
    fn seconds_before(&self, queue: &[VideoRow], count: usize) -> Option<f64> {
        queue.iter().take(count).try_fold(0.0, |sum, row| Some(sum + self.seconds_of(row)?))
    }

    /// Seconds that a job takes from now on, once it is its turn.
    fn seconds_of(&self, row: &VideoRow) -> Option<f64> {
        match self.live_as(&row.id).and_then(|live| live.look()) {
            Some(look) => look.seconds_left,
            None => Some(row.estimate? * self.pace(&row.model) * (1.0 - row.progress / 100.0)),
        }
    }

    fn owned(&self, id: &str, owner: &Owner) -> Result<VideoRow, ApiError> {
        let found = if is_id(id) { self.store.video(id, unix_ms())? } else { None };
        found.filter(|row| row.key == owner.key).ok_or_else(|| no_video(id))
    }

    /// A job as others see it.
    fn job(&self, row: VideoRow, queue: &[VideoRow]) -> Result<VideoJob, ApiError> {
        let place = queue.iter().position(|other| other.id == row.id);
        let live = self.live_as(&row.id);
        let look = live.as_ref().and_then(|live| live.look());
        let mut job = seen(&row)?;
        if let Some(place) = place {
            job.eta_seconds =
                self.seconds_before(queue, place).and_then(|before| Some(before + self.seconds_of(&row)?));
        }
        match (row.state, &look) {
            (VideoState::InProgress, Some(look)) => {
                job.progress = look.percent.max(row.progress.min(99.9));
                job.stage = Some(look.phase.name());
                (job.steps_done, job.frames_done) = (look.steps_done, look.frames_done);
            }
            (VideoState::Queued, _) => {
                job.queue_position = place;
                job.stage = match (live.is_some(), place) {
                    (true, _) => Some("waiting for memory"),
                    (false, None) => Some("waiting for its model to be served"),
                    (false, Some(_)) => None,
                };
            }
            _ => {}
        }
        Ok(job)
    }

    /// The job of this id.
    pub(crate) async fn get(self: &Arc<Videos>, id: &str, owner: &Owner) -> Result<VideoJob, ApiError> {
        let (id, owner) = (id.to_owned(), owner.clone());
        self.ask(move |videos| videos.job(videos.owned(&id, &owner)?, &videos.queue()?)).await
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
            let jobs = rows.into_iter().map(|row| videos.job(row, &queue)).collect::<Result<_, _>>()?;
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
        let row = {
            let (id, owner) = (id.to_owned(), owner.clone());
            self.ask(move |videos| {
                let row = videos.owned(&id, &owner)?;
                if !row.state.is_final() && !videos.files.is_ours() {
                    let message = "another server makes this video: delete it there";
                    return Err(ApiError::new(StatusCode::CONFLICT, message));
                }
                // The row first: whoever would begin the job now finds none.
                match videos.store.remove_video(&id)? {
                    true => Ok(row),
                    false => Err(no_video(&id)),
                }
            })
        }
        .await?;
        if let Some(live) = self.live_as(id) {
            live.stop(Why::Deleted);
            live.ended().await;
        }
        if !row.state.is_final() {
            self.counters.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        self.tell();
        let id = id.to_owned();
        self.ask(move |videos| {
            videos.files.remove(&id);
            videos.recount();
            Ok(())
        })
        .await
    }

    /// Waits until a job is completed or has failed. Not waiting any more cancels nothing.
    pub(crate) async fn finished(self: &Arc<Videos>, id: &str, owner: &Owner) -> Result<VideoJob, ApiError> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let job = self.get(id, owner).await?;
            if job.state.is_final() {
                return Ok(job);
            }
            // The sender lives as long as this.
            let _ = changed.changed().await;
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
            let format = format(&row)?;
            let (path, media_type, name) = match variant {
                Variant::Video => {
                    let name = files::video_name(format).replace("video", &id);
                    (videos.files.video(&id, format), files::media_type(format), name)
                }
                Variant::Thumbnail => (videos.files.thumbnail(&id), "image/webp", format!("{id}.webp")),
                Variant::Latest => (videos.files.latest(&id), "image/webp", format!("{id}-latest.webp")),
            };
            let ready = variant != Variant::Video || row.state == VideoState::Completed;
            match (ready && path.is_file(), &row.error) {
                (true, _) => Ok(Stored { path, media_type, name }),
                (false, Some((_, why))) => {
                    Err(not_there(format!("this video failed: {why}"), "video_failed"))
                }
                (false, None) => Err(not_there(missing(&row, variant), "video_not_ready")),
            }
        })
        .await
    }

    /// Counts for operators. Looks into the database, for a moment.
    pub(crate) fn counts(&self) -> VideoCounts {
        let rows = self.store.videos_in([VideoState::Queued, VideoState::InProgress]).unwrap_or_default();
        let running = rows.iter().filter(|row| row.state == VideoState::InProgress).count();
        let live = self.live().clone();
        let counters = &self.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        VideoCounts {
            queued: rows.len() - running,
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

fn not_there(message: String, code: &'static str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, message).code(code)
}

fn missing(row: &VideoRow, variant: Variant) -> String {
    match (row.state, variant) {
        (VideoState::Completed, Variant::Latest) => {
            "this video is finished: ask for the video itself, or its thumbnail".to_owned()
        }
        (_, Variant::Video) => {
            format!("this video is not finished: it is {}", row.state.name().replace('_', " "))
        }
        _ => "no frame of this video is decoded yet".to_owned(),
    }
}

fn no_video(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    not_there(format!("there is no video `{}`", id.escape_default()), "video_not_found")
}

/// Identifies weights and arithmetic.
pub(super) fn fingerprint(model: &ServedVideo) -> String {
    let both = format!("{} {}", model.networks.latents_digest(), model.networks.decoder_digest());
    blake3::hash(both.as_bytes()).to_hex().to_string()
}

fn format(row: &VideoRow) -> Result<Format, ApiError> {
    row.format.parse().map_err(|error: MediaError| ApiError::internal(error.to_string()))
}

/// What is encoded.
pub(super) fn media_settings(settings: &Settings) -> Result<wushi_media::Settings, MediaError> {
    // No side comes near 32 bits, as `Settings::resolve` has it.
    let (width, height) = (settings.width as u32, settings.height as u32);
    Ok(wushi_media::Settings { width, height, rate: FrameRate::nearest(f64::from(settings.fps))? })
}

/// A job as its row has it.
fn seen(row: &VideoRow) -> Result<VideoJob, ApiError> {
    let rate = FrameRate::nearest(f64::from(row.settings.fps))
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let completed = row.state == VideoState::Completed;
    Ok(VideoJob {
        id: row.id.clone(),
        model: row.model.clone(),
        state: row.state,
        progress: row.progress,
        created: row.created / 1000,
        completed: row.ended.map(|ms| ms / 1000),
        expires: row.expires.map(|ms| ms / 1000),
        prompt: row.prompt.clone(),
        changes: row.changes.clone(),
        format: format(row)?,
        error: row.error.clone(),
        frames_digest: row.frames_digest.clone(),
        bytes: row.bytes,
        seconds_of_video: rate.seconds(row.settings.frames as u64),
        queue_position: None,
        eta_seconds: None,
        stage: None,
        steps_done: if completed { row.settings.steps } else { 0 },
        frames_done: if completed { row.settings.frames } else { 0 },
        settings: row.settings.clone(),
    })
}

/// A job as it is once it has ended.
pub(super) fn recorded(row: &VideoRow, end: &VideoEnd) -> Result<VideoJob, ApiError> {
    let state = if end.error.is_some() { VideoState::Failed } else { VideoState::Completed };
    seen(&VideoRow {
        state,
        progress: if state == VideoState::Completed { 100.0 } else { row.progress },
        ended: Some(end.ended),
        expires: Some(end.expires),
        error: end.error.clone(),
        frames_digest: end.frames_digest.clone(),
        fingerprint: end.fingerprint.clone(),
        bytes: end.bytes,
        ..row.clone()
    })
}

/// What cannot be asked of a model, with the field that it was about.
fn refused(error: VideoError) -> ApiError {
    let message = error.to_string();
    match error {
        VideoError::OutOfRange { name, .. } => {
            let field = match name {
                "the width" => "width",
                "the height" => "height",
                "the number of frames" => "num_frames",
                "the number of frames a second" => "fps",
                "the number of steps" => "num_inference_steps",
                "the flow shift" => "flow_shift",
                "the guidance" => "guidance_scale",
                "the boundary between two denoisers" => "boundary_ratio",
                _ => return ApiError::invalid(message),
            };
            ApiError::parameter(field, message)
        }
        _ => ApiError::internal(message),
    }
}

fn refused_media(error: MediaError) -> ApiError {
    let message = error.to_string();
    match error {
        MediaError::Size { .. } => ApiError::parameter("size", message),
        MediaError::FrameRate { .. } | MediaError::TooFast { .. } => ApiError::parameter("fps", message),
        _ => ApiError::invalid(message),
    }
}
