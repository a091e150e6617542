//! Videos as durable jobs: what handlers ask for, and what they are told.
//!
//! ```text
//! jobs.rs      what may be asked of jobs: submitted, seen, listed, deleted, waited for
//! outlook.rs   what a request would take
//! seen.rs      jobs as others see them
//! runner.rs    makes one video at a time, the oldest job first
//! waits.rs     jobs that cannot be made at the moment
//! progress.rs  how far a job is, and how long it will take
//! files.rs     what lies on the disk: saved steps, videos, pictures
//! disk.rs      which folder is ours, what goes to make room, what expires
//!
//! router.rs    paths, and handlers.rs: what they do
//! request.rs   what a client asks for, read with form.rs and number.rs
//! object.rs    what it is told of jobs, plan.rs: of what a video would take
//! content.rs   files it is sent, with range.rs: which part of them
//! record.rs    what is kept of a job for an audit, and replay.rs: made again from it
//! ```
//!
//! A job is a row of the database (`store/videos.rs`) from the moment its client is told of it. What lies beside the
//! database can be made again from the row: killing the process at any instant loses time alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wushi_engine::video::{VideoNetworks, Wanted};
use wushi_media::Format;

use crate::store::AuditRecord;

mod content;
mod disk;
mod files;
mod form;
pub(crate) mod handlers;
mod jobs;
mod number;
mod object;
mod outlook;
mod plan;
mod progress;
mod range;
mod record;
mod replay;
mod request;
mod router;
mod runner;
mod seen;
mod waits;

pub(crate) use crate::store::{VideoSettings, VideoState};
pub(crate) use jobs::Videos;
pub(crate) use record::recorder;
pub use replay::replay_video;
pub(crate) use router::router;

/// A model that makes videos.
#[derive(Clone)]
pub struct ServedVideo {
    /// What requests call it.
    pub name: String,
    /// Its networks, opened. Their options say nothing of memory: the server decides what a job may take.
    pub networks: Arc<VideoNetworks>,
    /// What it was called on the command line, so that it means the same in another folder.
    pub reference: String,
    /// When its files were last changed, in seconds since 1970.
    pub created: u64,
}

/// Where videos are kept, and for how long.
#[derive(Clone, Debug)]
pub struct VideoOptions {
    /// The folder of their files.
    pub folder: PathBuf,
    /// How long a video is kept after it was made.
    pub keep: Duration,
    /// Bytes that all files may take; the oldest finished videos go first.
    pub disk: u64,
    /// After how many steps of denoising what is done is saved; about every 10 seconds if `None`.
    pub save_steps: Option<usize>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct VideoRequest {
    /// Which model; the server's first one that makes videos if absent.
    pub(crate) model: Option<String>,
    pub(crate) prompt: String,
    /// With a seed in any case: whoever reads the request draws one if it has none.
    pub(crate) wanted: Wanted,
    /// Not [`Format::PngDir`].
    pub(crate) format: Format,
}

/// Whose jobs: those of another key do not exist for a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The key's id; `None` where no key was needed.
    pub(crate) key: Option<String>,
}

/// A job as it stands.
#[derive(Clone, Debug)]
pub(crate) struct VideoJob {
    /// `video_` and 32 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) state: VideoState,
    /// 0 to 100; never less than before while the job runs.
    pub(crate) progress: f64,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// When it was completed or failed.
    pub(crate) completed: Option<u64>,
    pub(crate) expires: Option<u64>,
    pub(crate) prompt: String,
    pub(crate) settings: VideoSettings,
    /// What is not done as asked, for people.
    pub(crate) changes: Vec<String>,
    pub(crate) format: Format,
    /// A code for programs, and why it failed.
    pub(crate) error: Option<(String, String)>,
    /// BLAKE3 over the frames, once it is completed.
    pub(crate) frames_digest: Option<String>,
    /// Of the video's file; 0 until it is completed.
    pub(crate) bytes: u64,
    /// How long the video lasts.
    pub(crate) seconds_of_video: f64,
    /// Jobs before it that wait, plus one if one is running; `None` unless it is queued. 0: it is next.
    pub(crate) queue_position: Option<usize>,
    /// Until it is completed, those before it included; `None` where nobody knows.
    pub(crate) eta_seconds: Option<f64>,
    /// `text`, `denoising` or `decoding`, while it runs; before, what it waits for.
    pub(crate) stage: Option<&'static str>,
    pub(crate) steps_done: usize,
    pub(crate) frames_done: usize,
}

/// What a request would take.
#[derive(Clone, Debug)]
pub(crate) struct Outlook {
    /// The model's name, in full where the request named none.
    pub(crate) model: String,
    pub(crate) settings: VideoSettings,
    /// What would not be done as asked, for people.
    pub(crate) changes: Vec<String>,
    pub(crate) stages: Vec<OutlookStage>,
    /// Bytes of the greediest stage.
    pub(crate) peak_bytes: u64,
    /// What there is, idle models unloaded.
    pub(crate) limit_bytes: Option<u64>,
    pub(crate) fits: bool,
    /// Why it does not fit, and what would.
    pub(crate) reason: Option<String>,
    /// All stages together, corrected by what was measured.
    pub(crate) seconds: Option<f64>,
    /// Until it would begin.
    pub(crate) starts_in_seconds: Option<f64>,
    /// Jobs before it.
    pub(crate) queue_position: usize,
    /// Which matrices have another type than was wanted when the server was started.
    pub(crate) instead: Option<String>,
    pub(crate) seconds_of_video: f64,
}

/// A stage of an [`Outlook`].
#[derive(Clone, Debug)]
pub(crate) struct OutlookStage {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
    pub(crate) seconds: Option<f64>,
}

/// Which file of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// The video.
    Video,
    /// Its first frame, as WebP; there as soon as that is decoded.
    Thumbnail,
    /// The newest decoded frame of a running job, as WebP.
    Latest,
}

/// A file that is there.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) path: PathBuf,
    pub(crate) media_type: &'static str,
    /// What it may be called where it is saved.
    pub(crate) name: String,
}

/// Counts for operators; totals are since the server started.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct VideoCounts {
    pub(crate) queued: usize,
    pub(crate) running: usize,
    /// Whether the next job waits for memory.
    pub(crate) waiting_for_memory: bool,
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// Deleted before they were finished.
    pub(crate) cancelled: u64,
    /// Steps of denoising, and how long they took together.
    pub(crate) steps: u64,
    pub(crate) step_seconds: f64,
    /// Frames decoded, and how long they took together.
    pub(crate) frames: u64,
    pub(crate) frame_seconds: f64,
    /// Bytes of all files.
    pub(crate) disk_bytes: u64,
    /// The most they may take.
    pub(crate) disk_budget: u64,
}

/// A job that has just ended, for its record.
pub(crate) struct Ending<'a> {
    pub(crate) job: &'a VideoJob,
    /// The id of the key that submitted it.
    pub(crate) key: Option<&'a str>,
    pub(crate) model: &'a ServedVideo,
    /// Milliseconds since 1970 when it was submitted, and until it began and ended.
    pub(crate) created_ms: u64,
    pub(crate) queue_ms: u64,
    pub(crate) total_ms: u64,
}

/// Makes the record of a job that has ended; written in one transaction with its end.
pub(crate) type Recorder = Box<dyn Fn(&Ending<'_>) -> Option<AuditRecord> + Send + Sync>;
