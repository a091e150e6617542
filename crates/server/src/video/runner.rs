//! Makes one video at a time, the oldest job first, beside text.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wushi_engine::video::{
    Follow, Frame, Identity, Job, Limit, Made, PartError, Progress, PromptCache, Ready, Save, Saved,
    Settings, Start, VideoError, VideoModel, Watch, load_saved, make,
};
use wushi_formats::FormatError;
use wushi_media::Encoder;

use super::files::{Files, write_picture};
use super::jobs::Next;
use super::outlook::media_settings;
use super::progress::{Meter, Phase, Weights};
use super::record::fingerprint;
use super::seen::recorded;
use super::waits::{WAITING_FOR_DISK, WAITING_FOR_MEMORY};
use super::{ServedVideo, VideoState, Videos};
use crate::app::Closing;
use crate::error::ApiError;
use crate::handlers::blocking;
use crate::pool::Room;
use crate::store::{VideoEnd, VideoRow, unix_ms};

/// A job that was begun so often without anything saved of it ends the server each time.
const MAX_STARTS: u32 = 10;
/// Seconds of denoising that may be lost when nothing is said about it.
const UNSAVED: f64 = 10.0;
/// The least time between two pictures of the newest frame, and between two notes of progress in the database.
const PICTURES: Duration = Duration::from_secs(1);
const NOTES: Duration = Duration::from_secs(5);
/// How often the end of a job is tried to be written where the database cannot be.
const AGAIN: Duration = Duration::from_secs(5);

/// The job whose turn it is.
pub(super) struct Live {
    pub(super) id: String,
    /// When it was begun this time, in milliseconds since 1970; 0: it was not.
    begun: AtomicU64,
    follow: Arc<Follow>,
    /// Once it is being made.
    meter: Mutex<Option<Meter>>,
    stop: watch::Sender<Option<Why>>,
    ended: watch::Sender<bool>,
}

/// Why a job is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It was deleted.
    Deleted,
    /// The server ends.
    Closing,
    /// Text needs its memory.
    Memory,
}

/// How far the job is.
pub(super) struct Look {
    pub(super) percent: f64,
    pub(super) phase: Phase,
    pub(super) seconds_left: Option<f64>,
    pub(super) steps_done: usize,
    pub(super) frames_done: usize,
}

impl Live {
    pub(super) fn new(id: &str) -> Live {
        Live {
            id: id.to_owned(),
            begun: AtomicU64::new(0),
            follow: Arc::default(),
            meter: Mutex::new(None),
            stop: watch::Sender::new(None),
            ended: watch::Sender::new(false),
        }
    }

    /// Ends it within a moment.
    pub(super) fn stop(&self, why: Why) {
        self.stop.send_if_modified(|stop| {
            // Nothing is written of a job that is gone, or when the server ends: that counts more.
            let replaced = stop.is_none() || (*stop == Some(Why::Memory) && why != Why::Memory);
            if replaced {
                *stop = Some(why);
            }
            replaced
        });
        self.follow.stop();
    }

    /// Waits until nobody cares what becomes of it in this process.
    async fn given_up(&self) {
        let given_up = |stop: &Option<Why>| matches!(stop, Some(Why::Closing | Why::Deleted));
        let _ = self.stop.subscribe().wait_for(given_up).await;
    }

    /// Waits until nothing of it is done any more.
    pub(super) async fn ended(&self) {
        // The sender lives as long as this.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    async fn stopped(&self) {
        let _ = self.stop.subscribe().wait_for(Option::is_some).await;
    }

    fn meter(&self) -> MutexGuard<'_, Option<Meter>> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while it waits for memory.
    pub(super) fn look(&self) -> Option<Look> {
        let share = self.follow.share();
        let mut meter = self.meter();
        let meter = meter.as_mut()?;
        Some(Look {
            percent: meter.percent(share),
            phase: meter.phase(),
            seconds_left: meter.seconds_left(share),
            steps_done: meter.steps_done(),
            frames_done: meter.frames_done(),
        })
    }
}

/// Why a job was not completed.
enum Broken {
    /// It was stopped, or is gone.
    Stopped,
    /// It can be made another time: the disk, the memory or the database is in the way.
    NotNow { stage: &'static str, why: String },
    /// It can never be made.
    Failed { code: &'static str, why: String },
}

impl From<VideoError> for Broken {
    fn from(error: VideoError) -> Broken {
        match error {
            VideoError::Stopped { .. } => Broken::Stopped,
            VideoError::TooLittleMemory { .. } => not_now(WAITING_FOR_MEMORY, error),
            error if is_passing(&error) => not_now(WAITING_FOR_DISK, error),
            error => failed("video_failed", error),
        }
    }
}

/// Whether the operating system refused something about a file: that may be otherwise later, unlike what is in the file.
fn is_passing(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
    }
    match (error.downcast_ref::<VideoError>(), error.downcast_ref::<FormatError>()) {
        // Its text is theirs, and so is its source.
        (Some(VideoError::Format(error)), _) => is_passing(error),
        (Some(VideoError::Model(error)), _) => is_passing(error),
        (_, Some(FormatError::InFile { error, .. })) => is_passing(error.as_ref()),
        _ => error.source().is_some_and(is_passing),
    }
}

fn not_now(stage: &'static str, why: impl ToString) -> Broken {
    Broken::NotNow { stage, why: why.to_string() }
}

fn failed(code: &'static str, why: impl ToString) -> Broken {
    Broken::Failed { code, why: why.to_string() }
}

/// A video that is there.
struct Done {
    made: Made,
    /// Whether nothing of it had been made before.
    whole: bool,
    bytes: u64,
}

impl Videos {
    /// Makes videos until the server ends; what it is at then goes back into the queue.
    pub(crate) async fn run(self: Arc<Videos>, closing: watch::Receiver<Closing>) {
        let closed = || *closing.borrow() != Closing::Open;
        while !closed() {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let mut closing = closing.clone();
            let next = match blocking(self.clone().asking(|videos| videos.next())).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(error.message, "the next video cannot be found");
                    Next { row: None, again: Some(Instant::now() + AGAIN) }
                }
            };
            let Some(row) = next.row else {
                let again = async {
                    match next.again {
                        Some(again) => tokio::time::sleep_until(again.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = woken => {}
                    () = again => {}
                    _ = closing.wait_for(|closing| *closing != Closing::Open) => {}
                }
                continue;
            };
            let live = Arc::new(Live::new(&row.id));
            *self.live() = Some(live.clone());
            let stopping = async {
                let _ = closing.wait_for(|closing| *closing != Closing::Open).await;
                live.stop(Why::Closing);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = self.make_next(&live, &row) => {}
                () = stopping => {}
            }
            *self.live() = None;
            live.ended.send_replace(true);
            self.tell();
        }
    }

    /// One job, from its turn to its end.
    async fn make_next(self: &Arc<Videos>, live: &Arc<Live>, row: &VideoRow) {
        let end = match self.attempt(live, row).await {
            Ok(done) => {
                tracing::info!(video = row.id, frames = done.made.frames_digest, "completed");
                self.counters.completed.fetch_add(1, Ordering::Relaxed);
                let Made { text_seconds, denoise_seconds, decode_seconds, .. } = done.made;
                let seconds = text_seconds + denoise_seconds + decode_seconds;
                VideoEnd {
                    frames_digest: Some(done.made.frames_digest),
                    seconds: done.whole.then_some(seconds),
                    bytes: done.bytes,
                    ..self.end_of(row)
                }
            }
            Err(Broken::Failed { code, why }) => {
                tracing::error!(video = row.id, why, "failed");
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                VideoEnd { error: Some((code.to_owned(), why)), ..self.end_of(row) }
            }
            Err(Broken::NotNow { stage, why }) => {
                let pause = self.waits.add(&row.id, stage, Instant::now());
                tracing::warn!(video = row.id, why, ?pause, "it cannot be made now, and is tried again");
                return self.written(live, row, |videos, row| Ok(videos.store.requeue_video(&row.id)?)).await;
            }
            Err(Broken::Stopped) => {
                let why = *live.stop.borrow();
                tracing::info!(video = row.id, ?why, "stopped");
                if why != Some(Why::Deleted) {
                    self.written(live, row, |videos, row| Ok(videos.store.requeue_video(&row.id)?)).await;
                }
                return;
            }
        };
        self.waits.remove(&row.id);
        let begun = live.begun.load(Ordering::Relaxed);
        self.written(live, row, move |videos, row| videos.end(row, begun, &end)).await;
    }

    /// Writes what became of a job into the database, however long that cannot be done.
    async fn written(
        self: &Arc<Videos>,
        live: &Live,
        row: &VideoRow,
        write: impl Fn(&Videos, &VideoRow) -> Result<(), ApiError> + Send + Sync + 'static,
    ) {
        let write = Arc::new(write);
        loop {
            let (videos, row, write) = (self.clone(), row.clone(), write.clone());
            match blocking(move || write(&videos, &row)).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(video = live.id, error.message, "what became of it cannot be written");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                // At the next start it is found in progress, and goes on from what is saved.
                () = live.given_up() => return,
            }
        }
    }

    fn end_of(&self, row: &VideoRow) -> VideoEnd {
        let now = unix_ms();
        let model = self.models().iter().find(|model| model.name == row.model);
        VideoEnd {
            ended: now,
            expires: now.saturating_add(self.options.keep.as_millis() as u64),
            error: None,
            frames_digest: None,
            fingerprint: model.map(|model| fingerprint(&model.networks).to_string()),
            seconds: None,
            bytes: 0,
        }
    }

    /// Writes the end of a job with its record, once; then removes the files that it has no use for.
    fn end(&self, row: &VideoRow, begun: u64, end: &VideoEnd) -> Result<(), ApiError> {
        let begun = if begun > 0 { begun } else { row.started.unwrap_or(end.ended) };
        let failed = end.error.is_some();
        // What a failed one had saved takes room until it expires.
        let bytes = if failed { self.files.saved_bytes(&row.id) } else { end.bytes };
        let end = VideoEnd { bytes, ..end.clone() };
        let record = self.record(row, &recorded(row, &end), begun, end.ended);
        let ended = self.store.end_video(&row.id, &end, record.as_ref())?;
        // It has its end: whatever else goes wrong is no reason to write it again.
        if let (true, Some(seconds), Some(estimate)) = (ended, end.seconds, row.estimate) {
            self.learn(&row.model, seconds, estimate);
        }
        let state = if failed { VideoState::Failed } else { VideoState::Completed };
        self.files.settle(&row.id, state);
        if let Err(error) = self.keep_within(&row.id) {
            tracing::error!(error.message, "older videos are not removed to make room");
        }
        self.recount();
        Ok(())
    }

    async fn attempt(self: &Arc<Videos>, live: &Arc<Live>, row: &VideoRow) -> Result<Done, Broken> {
        let planning = {
            let (videos, row) = (self.clone(), row.clone());
            blocking(move || Ok(videos.decide(&row)))
        };
        let task = planning.await.map_err(|error| failed("video_failed", error.message))??;
        if row.starts >= MAX_STARTS && task.start == Start::Noise {
            let why = format!(
                "the server ended {} times while this video was being made, without ever getting further; its log may say why",
                row.starts
            );
            return Err(failed("video_failed", why));
        }
        let room = tokio::select! {
            room = self.pool.reserve(task.peak, task.limit.map(|limit| limit.bytes)) => room,
            () = live.stopped() => return Err(Broken::Stopped),
        };
        let begun = {
            let id = row.id.clone();
            blocking(self.clone().asking(move |videos| Ok(videos.store.begin_video(&id, unix_ms())?)))
        };
        match begun.await {
            Ok(true) => {}
            // Deleted in the last moment.
            Ok(false) => return Err(Broken::Stopped),
            Err(error) => return Err(not_now(WAITING_FOR_DISK, error.message)),
        }
        live.begun.store(unix_ms(), Ordering::Relaxed);
        let pace = self.pace(&row.model);
        let mut meter = Meter::new(task.weights, pace, &task.settings, task.model.networks.model());
        match &task.start {
            Start::Between(saved) => meter.resume(Some(saved.steps())),
            Start::Denoised(_) => meter.resume(None),
            _ => {}
        }
        *live.meter() = Some(meter);
        self.tell();
        let making = {
            let (videos, live, row) = (self.clone(), live.clone(), row.clone());
            tokio::task::spawn_blocking(move || {
                Making { videos: &videos, live: &live, row: &row, task: &task }.run()
            })
        };
        let done = with_room(live, room, making).await;
        // From here on it is not made any more: what others see is the database's.
        *live.meter() = None;
        done
    }

    /// What it takes to make a video, or the rest of it.
    fn decide(&self, row: &VideoRow) -> Result<Task, Broken> {
        let model =
            self.find(Some(&row.model)).map_err(|error| failed("model_not_found", error.message))?.clone();
        let networks = &model.networks;
        let wanted = row.settings.wanted().map_err(|what| failed("video_failed", what))?;
        let (settings, _) = Settings::resolve(&wanted, networks.model())?;
        let identity = Identity::new(networks.latents_digest(), &row.prompt, &settings, None);
        let start = self.saved(row, &identity, &settings, networks.model())?;
        let cache = PromptCache::new(&self.files.prompts(), networks.encoder_digest());
        let has = |prompt: &str| cache.get(prompt, networks.model()).is_some();
        let guided = settings.forwards(networks.model())?.into_iter().sum::<usize>() > settings.steps;
        let ready = Ready {
            states: has(&row.prompt) && (!guided || has(&settings.negative)),
            steps: match &start {
                Start::Between(saved) => saved.steps(),
                _ => 0,
            },
            latents: matches!(start, Start::Denoised(_)),
        };
        let limit = self.limit(&model);
        // What is done already needs no memory, but is part of the job.
        let peak = networks.plan_within(&settings, ready, limit)?.peak();
        let whole = networks.plan_within(&settings, Ready::default(), None)?;
        let weights = Weights::new(&whole, self.rates(&model));
        Ok(Task { model, settings, identity, start, peak, limit, weights })
    }

    /// Where an earlier run has come to.
    fn saved(
        &self,
        row: &VideoRow,
        identity: &Identity,
        settings: &Settings,
        model: &VideoModel,
    ) -> Result<Start, Broken> {
        let path = self.files.state(&row.id);
        let exists = || path.try_exists().map_err(|error| not_now(WAITING_FOR_DISK, error));
        if !exists()?
            && let Err(error) = self.inherit(row)
        {
            tracing::warn!(video = row.id, error.message, "whether something is saved of it is not known");
        }
        if !exists()? {
            return Ok(Start::Noise);
        }
        let start = match load_saved(&path, identity, settings, model) {
            Ok(Saved::Steps(saved)) => Start::Between(saved),
            Ok(Saved::Denoised(latents)) => Start::Denoised(latents),
            // Hours of work are not given up because a file cannot be opened just now.
            Err(error) if is_passing(&error) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(video = row.id, %error, "begins anew");
                return Ok(Start::Noise);
            }
        };
        tracing::info!(video = row.id, "goes on from what is saved");
        Ok(start)
    }
}

/// Waits for a video. Where text needs its memory, it is stopped.
async fn with_room(
    live: &Live,
    room: Room,
    making: tokio::task::JoinHandle<Result<Done, Broken>>,
) -> Result<Done, Broken> {
    let wanted = async {
        room.wanted().await;
        live.stop(Why::Memory);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = making => done.unwrap_or_else(|error| {
            let text = error.try_into_panic().ok().and_then(|panic| {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                text.or_else(|| panic.downcast_ref::<String>().cloned())
            });
            let text = text.map_or_else(String::new, |text| format!(": {text}"));
            Err(failed("video_failed", format!("making it broke off by an error of this program{text}")))
        }),
        () = wanted => Err(Broken::Stopped),
    }
}

/// A job that is decided in all respects.
struct Task {
    model: ServedVideo,
    settings: Settings,
    identity: Identity,
    start: Start,
    /// Bytes of the greediest stage that is left.
    peak: u64,
    limit: Option<Limit>,
    weights: Weights,
}

/// The making of a video, on a thread of its own.
struct Making<'a> {
    videos: &'a Videos,
    live: &'a Live,
    row: &'a VideoRow,
    task: &'a Task,
}

impl Making<'_> {
    fn run(&self) -> Result<Done, Broken> {
        let Making { videos, live, row, task } = self;
        let (files, id, networks) = (&videos.files, row.id.as_str(), &task.model.networks);
        let io = |error: io::Error| {
            not_now(WAITING_FOR_DISK, format!("{}: {error}", files.folder().join(id).display()))
        };
        files.prepare(id).map_err(io)?;
        let state = files.state(id);
        let cache = PromptCache::new(&files.prompts(), networks.encoder_digest());
        let mut notes = Notes { files, encoder: None, pictured: None, noted: None, decoded: false };
        let notes = std::cell::RefCell::new(&mut notes);
        let made = make(
            Job {
                model: networks.model(),
                settings: &task.settings,
                prompt: &row.prompt,
                start: task.start.clone(),
                cache: Some(&cache),
                save: Some(Save { path: &state, identity: &task.identity, every: Some(self.every()) }),
                save_frames: None,
            },
            &mut networks.parts(&task.settings, &live.follow),
            Watch {
                progress: &mut |progress| self.progress(&progress, &mut notes.borrow_mut()),
                frame: &mut |frame| self.frame(&frame, &mut notes.borrow_mut()),
                follow: &live.follow,
            },
        )?;
        let encoder = notes.borrow_mut().encoder.take();
        let encoder = encoder.ok_or_else(|| failed("video_failed", "the model gave no frame"))?;
        encoder.finish().map_err(|error| match is_passing(&error) {
            true => not_now(WAITING_FOR_DISK, error),
            false => failed("video_failed", error),
        })?;
        files.flush(id).map_err(io)?;
        let bytes = std::fs::metadata(files.video(id, row.format)).map_err(io)?.len();
        Ok(Done { made, whole: task.start == Start::Noise, bytes })
    }

    /// After how many steps what is done is saved.
    fn every(&self) -> usize {
        self.videos.options.save_steps.unwrap_or_else(|| {
            let steps = self.task.settings.steps;
            let seconds =
                self.task.weights.denoising().map(|seconds| seconds * self.videos.pace(&self.row.model));
            seconds.map_or(1, |seconds| (UNSAVED * steps as f64 / seconds) as usize).clamp(1, MAX_UNSAVED)
        })
    }

    fn progress(&self, progress: &Progress, notes: &mut Notes<'_>) {
        let counters = &self.videos.counters;
        match progress {
            Progress::Step { seconds, .. } => counters.step(*seconds),
            Progress::Frame { seconds, .. } => counters.frame(*seconds),
            Progress::Saved(_) => self.videos.waits.remove(&self.row.id),
            _ => {}
        }
        let share = self.live.follow.share();
        let kept = {
            let mut meter = self.live.meter();
            let Some(meter) = meter.as_mut() else { return };
            meter.tell(progress, share);
            meter.kept()
        };
        // What ends the server after that is not what the job begins with.
        let further = match progress {
            Progress::Saved(_) | Progress::Text { cached: false, .. } => true,
            Progress::Frame { .. } => {
                if !std::mem::replace(&mut notes.decoded, true) {
                    notes.noted = None;
                }
                true
            }
            _ => false,
        };
        if further && notes.noted.is_none_or(|noted| noted.elapsed() >= NOTES) {
            notes.noted = Some(Instant::now());
            // What is saved is saved all the same.
            if let Err(error) = self.videos.store.advance_video(&self.row.id, kept) {
                tracing::warn!(video = self.row.id, %error, "progress is not noted");
            }
        }
    }

    fn frame(&self, frame: &Frame<'_>, notes: &mut Notes<'_>) -> Result<(), PartError> {
        let Making { row, task, .. } = self;
        let encoder = match &mut notes.encoder {
            Some(encoder) => encoder,
            none => {
                let path = notes.files.video(&row.id, row.format);
                none.insert(Encoder::create(&path, row.format, media_settings(&task.settings)?)?)
            }
        };
        encoder.push(frame.rgb)?;
        let size = (task.settings.width, task.settings.height);
        let pictured = |result: std::io::Result<()>| {
            if let Err(error) = result {
                tracing::warn!(video = row.id, %error, "a picture of a frame is not written");
            }
        };
        if frame.index == 0 {
            pictured(write_picture(&notes.files.thumbnail(&row.id), frame.rgb, size, true));
        }
        if notes.pictured.is_none_or(|last| last.elapsed() >= PICTURES) {
            pictured(write_picture(&notes.files.latest(&row.id), frame.rgb, size, false));
            notes.pictured = Some(Instant::now());
        }
        Ok(())
    }
}

/// The most steps between two that are saved, however quick they are.
const MAX_UNSAVED: usize = 20;

/// What comes to be while a video is made.
struct Notes<'a> {
    files: &'a Files,
    encoder: Option<Encoder>,
    pictured: Option<Instant>,
    noted: Option<Instant>,
    /// Whether there was a frame.
    decoded: bool,
}
