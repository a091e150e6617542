//! Jobs as others see them.

use axum::http::StatusCode;
use wushi_media::FrameRate;

use super::files::is_id;
use super::waits::WAITING_FOR_MEMORY;
use super::{Owner, Variant, VideoJob, VideoState, Videos};
use crate::error::ApiError;
use crate::store::{VideoEnd, VideoRow, unix_ms};

impl Videos {
    /// Jobs that are not finished, in order; the one whose turn it is comes first.
    pub(super) fn queue(&self) -> Result<Vec<VideoRow>, ApiError> {
        let mut rows = self.store.videos_in(&[VideoState::Queued, VideoState::InProgress])?;
        // Jobs of models that are not served here any more keep nobody waiting.
        rows.retain(|row| self.models().iter().any(|model| model.name == row.model));
        Ok(rows)
    }

    /// Seconds until the first `count` jobs of the queue are done.
    pub(super) fn seconds_before(&self, queue: &[VideoRow], count: usize) -> Option<f64> {
        queue.iter().take(count).try_fold(0.0, |sum, row| Some(sum + self.seconds_of(row)?))
    }

    /// Seconds that a job takes from now on, once it is its turn.
    fn seconds_of(&self, row: &VideoRow) -> Option<f64> {
        match self.live_as(&row.id).and_then(|live| live.look()) {
            Some(look) => look.seconds_left,
            None => Some(row.estimate? * self.pace(&row.model) * (1.0 - row.progress / 100.0)),
        }
    }

    pub(super) fn owned(&self, id: &str, owner: &Owner) -> Result<VideoRow, ApiError> {
        let found = if is_id(id) { self.store.video(id, unix_ms())? } else { None };
        found.filter(|row| row.key == owner.key).ok_or_else(|| no_video(id))
    }

    /// A job as others see it.
    pub(super) fn job(&self, row: VideoRow, queue: &[VideoRow]) -> VideoJob {
        let place = queue.iter().position(|other| other.id == row.id);
        let live = self.live_as(&row.id);
        let look = live.as_ref().and_then(|live| live.look());
        let mut job = seen(&row);
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
                    (true, _) => Some(WAITING_FOR_MEMORY),
                    (false, None) => Some("waiting for its model to be served"),
                    (false, Some(_)) => self.waits.stage(&row.id),
                };
            }
            _ => {}
        }
        job
    }
}

pub(super) fn not_there(message: impl Into<String>, code: &'static str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, message).code(code)
}

pub(super) fn missing(row: &VideoRow, variant: Variant) -> String {
    match (row.state, variant) {
        (_, Variant::Video) => {
            format!("this video is not finished: it is {}", row.state.name().replace('_', " "))
        }
        _ => "no frame of this video is decoded yet".to_owned(),
    }
}

pub(super) fn no_video(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    not_there(format!("there is no video `{}`", id.escape_default()), "video_not_found")
}

/// A job as its row has it.
fn seen(row: &VideoRow) -> VideoJob {
    let (frames, fps) = (row.settings.frames as u64, f64::from(row.settings.fps));
    // A rate that cannot be written was never accepted.
    let seconds = FrameRate::nearest(fps).map_or(frames as f64 / fps.max(1.0), |rate| rate.seconds(frames));
    let completed = row.state == VideoState::Completed;
    VideoJob {
        id: row.id.clone(),
        model: row.model.clone(),
        state: row.state,
        progress: row.progress,
        created: row.created / 1000,
        completed: row.ended.map(|ms| ms / 1000),
        expires: row.expires.map(|ms| ms / 1000),
        prompt: row.prompt.clone(),
        changes: row.changes.clone(),
        format: row.format,
        error: row.error.clone(),
        frames_digest: row.frames_digest.clone(),
        bytes: row.bytes,
        seconds_of_video: seconds,
        queue_position: None,
        eta_seconds: None,
        stage: None,
        steps_done: if completed { row.settings.steps } else { 0 },
        frames_done: if completed { row.settings.frames } else { 0 },
        settings: row.settings.clone(),
    }
}

/// A job as it is once it has ended.
pub(super) fn recorded(row: &VideoRow, end: &VideoEnd) -> VideoJob {
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

/// A job as it is when it is cancelled.
pub(super) fn cancelled(row: &VideoRow) -> VideoJob {
    VideoJob { error: None, ..seen(&VideoRow { state: VideoState::InProgress, ..row.clone() }) }
}
