//! Jobs that make videos, as rows.

use rusqlite::{Params, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use wushi_engine::video::{Rounding, SamplerKind, Settings, Spacing, Wanted};

use super::Store;
use super::audit::{ended_on, insert, insert_error, number};
use super::error::{StoreError, is_duplicate};
use super::record::AuditRecord;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoState {
    /// It waits for its turn.
    Queued,
    /// It is being made.
    InProgress,
    /// Its file is there.
    Completed,
    /// It will never be there.
    Failed,
}

impl VideoState {
    /// All of them.
    const ALL: [VideoState; 4] =
        [VideoState::Queued, VideoState::InProgress, VideoState::Completed, VideoState::Failed];

    /// As clients read it: `queued`, `in_progress`, `completed` or `failed`.
    pub fn name(self) -> &'static str {
        match self {
            VideoState::Queued => "queued",
            VideoState::InProgress => "in_progress",
            VideoState::Completed => "completed",
            VideoState::Failed => "failed",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<VideoState> {
        VideoState::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing will happen any more.
    pub fn is_final(self) -> bool {
        matches!(self, VideoState::Completed | VideoState::Failed)
    }
}

/// Everything that decides what a video of a model becomes, the prompt aside: all numbers, whatever the model's defaults
/// come to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoSettings {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Frames.
    pub frames: usize,
    /// Frames a second.
    pub fps: u32,
    /// Steps of denoising.
    pub steps: usize,
    /// How far noise levels are shifted towards noise.
    pub shift: f32,
    /// Of the first denoiser, or of the only one.
    pub guidance: f32,
    /// Of the second denoiser; `None` where there is one.
    pub guidance_low: Option<f32>,
    /// Where the second denoiser takes over; `None` where there is one.
    pub boundary: Option<f32>,
    /// What the video shall not be.
    pub negative: String,
    /// `unipc` or `euler`.
    pub sampler: String,
    /// `training`, `whole` or `twice-shifted`.
    pub spacing: String,
    /// `floor` or `exact`.
    pub timesteps: String,
    /// Of the noise.
    pub seed: u64,
}

impl VideoSettings {
    /// What a request with these settings would be resolved to again. `two`: whether the model has two denoisers.
    pub fn of(settings: &Settings, two: bool) -> VideoSettings {
        VideoSettings {
            width: settings.width,
            height: settings.height,
            frames: settings.frames,
            fps: settings.fps,
            steps: settings.steps,
            shift: settings.shift,
            guidance: settings.guidance,
            guidance_low: two.then_some(settings.guidance_low),
            boundary: settings.boundary,
            negative: settings.negative.clone(),
            sampler: settings.sampler.name().to_owned(),
            spacing: match settings.spacing {
                Spacing::Training => "training",
                Spacing::Whole => "whole",
                Spacing::TwiceShifted => "twice-shifted",
            }
            .to_owned(),
            timesteps: match settings.rounding {
                Rounding::Floor => "floor",
                Rounding::Exact => "exact",
            }
            .to_owned(),
            seed: settings.seed,
        }
    }

    /// The request that is resolved to these settings.
    ///
    /// # Errors
    /// A name that this program does not know.
    pub fn wanted(&self) -> Result<Wanted, String> {
        let sampler: SamplerKind =
            self.sampler.parse().map_err(|error: wushi_engine::video::VideoError| error.to_string())?;
        let spacing = match self.spacing.as_str() {
            "training" => Spacing::Training,
            "whole" => Spacing::Whole,
            "twice-shifted" => Spacing::TwiceShifted,
            other => return Err(format!("spacing `{}`", other.escape_default())),
        };
        let rounding = match self.timesteps.as_str() {
            "floor" => Rounding::Floor,
            "exact" => Rounding::Exact,
            other => return Err(format!("timesteps `{}`", other.escape_default())),
        };
        Ok(Wanted {
            size: Some((self.width, self.height)),
            frames: Some(self.frames),
            fps: Some(self.fps),
            steps: Some(self.steps),
            shift: Some(self.shift),
            guidance: Some(self.guidance),
            guidance_low: self.guidance_low,
            negative: Some(self.negative.clone()),
            sampler: Some(sampler),
            spacing: Some(spacing),
            rounding: Some(rounding),
            boundary: self.boundary,
            seed: self.seed,
        })
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoRow {
    /// Its name.
    pub id: String,
    /// The id of the key that it was submitted with.
    pub key: Option<String>,
    /// The model's name.
    pub model: String,
    /// What the video shall show.
    pub prompt: String,
    /// Everything else that it follows from.
    pub settings: VideoSettings,
    /// What is not done as asked, for people.
    pub changes: Vec<String>,
    /// The name of the file's format.
    pub format: String,
    /// How many seconds it was thought to take.
    pub estimate: Option<f64>,
    /// Bytes of the disk that it may need until it is done.
    pub room: u64,
    /// Where it stands.
    pub state: VideoState,
    /// 0 to 100, as of what is saved.
    pub progress: f64,
    /// How often it was begun since it last got further.
    pub starts: u32,
    /// When it was submitted; times are milliseconds since 1970.
    pub created: u64,
    /// When it was first begun.
    pub started: Option<u64>,
    /// When it was completed or failed.
    pub ended: Option<u64>,
    /// When it is removed.
    pub expires: Option<u64>,
    /// A code for programs, and why it failed.
    pub error: Option<(String, String)>,
    /// BLAKE3 over the frames.
    pub frames_digest: Option<String>,
    /// What weights and arithmetic it was made with.
    pub fingerprint: Option<String>,
    /// How many seconds it took, if it was made in one go.
    pub seconds: Option<f64>,
    /// Bytes of the finished file.
    pub bytes: u64,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoEnd {
    /// When, in milliseconds since 1970.
    pub ended: u64,
    /// When it is removed.
    pub expires: u64,
    /// A code and why, if it failed.
    pub error: Option<(String, String)>,
    /// See [`VideoRow::frames_digest`].
    pub frames_digest: Option<String>,
    /// See [`VideoRow::fingerprint`].
    pub fingerprint: Option<String>,
    /// See [`VideoRow::seconds`].
    pub seconds: Option<f64>,
    /// See [`VideoRow::bytes`].
    pub bytes: u64,
}

const COLUMNS: &str = "id, key, model, prompt, settings, changes, format, estimate, room, state, progress, starts, created, \
                       started, ended, expires, error_code, error, frames_digest, fingerprint, seconds, bytes";

/// A row of [`COLUMNS`]; the inner error says what is wrong with it.
fn video(row: &Row<'_>) -> rusqlite::Result<Result<VideoRow, String>> {
    let id: String = row.get(0)?;
    let (settings, changes, state): (String, String, String) = (row.get(4)?, row.get(5)?, row.get(9)?);
    let (code, error): (Option<String>, Option<String>) = (row.get(16)?, row.get(17)?);
    let bad = |what: String| format!("video `{}`: {what}", id.escape_default());
    let settings = serde_json::from_str(&settings).map_err(|error| bad(format!("column settings: {error}")));
    let changes = serde_json::from_str(&changes).map_err(|error| bad(format!("column changes: {error}")));
    let state = VideoState::named(&state).ok_or_else(|| bad(format!("state `{}`", state.escape_default())));
    let (settings, changes, state) = match (settings, changes, state) {
        (Ok(settings), Ok(changes), Ok(state)) => (settings, changes, state),
        (Err(what), ..) | (_, Err(what), _) | (.., Err(what)) => return Ok(Err(what)),
    };
    Ok(Ok(VideoRow {
        key: row.get(1)?,
        model: row.get(2)?,
        prompt: row.get(3)?,
        settings,
        changes,
        format: row.get(6)?,
        estimate: row.get(7)?,
        room: row.get(8)?,
        state,
        progress: row.get(10)?,
        starts: row.get(11)?,
        created: row.get(12)?,
        started: row.get(13)?,
        ended: row.get(14)?,
        expires: row.get(15)?,
        error: code.zip(error),
        frames_digest: row.get(18)?,
        fingerprint: row.get(19)?,
        seconds: row.get(20)?,
        bytes: row.get(21)?,
        id,
    }))
}

impl Store {
    /// Adds a job, which is on the disk when this returns.
    ///
    /// # Errors
    /// One of this name is there; the database's.
    pub fn add_video(&self, video: &VideoRow) -> Result<(), StoreError> {
        let json = |value: Result<String, serde_json::Error>| {
            let failed = |error: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
            value.map_err(failed).map_err(|error| self.sqlite(error))
        };
        let (code, error) = video.error.clone().unzip();
        let insert = format!(
            "INSERT INTO videos ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        );
        let values = params![
            video.id,
            video.key,
            video.model,
            video.prompt,
            json(serde_json::to_string(&video.settings))?,
            json(serde_json::to_string(&video.changes))?,
            video.format,
            video.estimate,
            number(video.room),
            video.state.name(),
            video.progress,
            video.starts,
            number(video.created),
            video.started.map(number),
            video.ended.map(number),
            video.expires.map(number),
            code,
            error,
            video.frames_digest,
            video.fingerprint,
            video.seconds,
            number(video.bytes),
        ];
        self.reader().execute(&insert, values).map_err(|error| match is_duplicate(&error) {
            true => StoreError::RecordExists { id: video.id.clone() },
            false => self.sqlite(error),
        })?;
        Ok(())
    }

    /// The job of this name, if it is there and has not expired by `now`.
    ///
    /// # Errors
    /// The row cannot be read; the database's.
    pub fn video(&self, id: &str, now: u64) -> Result<Option<VideoRow>, StoreError> {
        let select =
            format!("SELECT {COLUMNS} FROM videos WHERE id = ? AND (expires IS NULL OR expires > ?)");
        Ok(self.video_rows(&select, params![id, number(now)])?.pop())
    }

    /// At most `limit` jobs of a key (`None`: submitted without one) that have not expired by `now`, by age; with `after`
    /// those behind it.
    ///
    /// # Errors
    /// A row cannot be read; the database's.
    pub fn videos(
        &self,
        key: Option<&str>,
        after: Option<&str>,
        limit: usize,
        newest_first: bool,
        now: u64,
    ) -> Result<Vec<VideoRow>, StoreError> {
        let (behind, order) = if newest_first { ("<", "DESC") } else { (">", "ASC") };
        let select = format!(
            "SELECT {COLUMNS} FROM videos WHERE key IS ?1 AND (expires IS NULL OR expires > ?2)
             AND (?3 IS NULL OR number {behind} (SELECT number FROM videos WHERE id = ?3))
             ORDER BY number {order} LIMIT ?4"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.video_rows(&select, params![key, number(now), after, limit])
    }

    /// Jobs of these states, in the order of their coming.
    ///
    /// # Errors
    /// A row cannot be read; the database's.
    pub fn videos_in(&self, states: [VideoState; 2]) -> Result<Vec<VideoRow>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM videos WHERE state IN (?, ?) ORDER BY number");
        self.video_rows(&select, states.map(VideoState::name))
    }

    /// Whether the queued job of this name is begun now: not if it is gone or not queued.
    ///
    /// # Errors
    /// The database's.
    pub fn begin_video(&self, id: &str, now: u64) -> Result<bool, StoreError> {
        let update =
            "UPDATE videos SET state = 'in_progress', started = ifnull(started, ?), starts = starts + 1
                      WHERE id = ? AND state = 'queued'";
        self.change_videos(update, params![number(now), id]).map(|changed| changed > 0)
    }

    /// What is saved of a job that is being made comes to so much.
    ///
    /// # Errors
    /// The database's.
    pub fn advance_video(&self, id: &str, progress: f64) -> Result<(), StoreError> {
        let update = "UPDATE videos SET progress = max(progress, ?), starts = 1 WHERE id = ?";
        self.change_videos(update, params![progress, id]).map(drop)
    }

    /// Puts a job that was being made back in its place, as if it had not been begun this time.
    ///
    /// # Errors
    /// The database's.
    pub fn requeue_video(&self, id: &str) -> Result<(), StoreError> {
        let update = "UPDATE videos SET state = 'queued', starts = max(starts - 1, 0)
                      WHERE id = ? AND state = 'in_progress'";
        self.change_videos(update, [id]).map(drop)
    }

    /// Puts back what a process that has ended was making, and says how many that were.
    ///
    /// # Errors
    /// The database's.
    pub fn requeue_videos(&self) -> Result<usize, StoreError> {
        self.change_videos("UPDATE videos SET state = 'queued' WHERE state = 'in_progress'", [])
    }

    /// The end of a job and its record, in one transaction. A job that is gone stays so.
    ///
    /// # Errors
    /// The record is there already; the database's.
    pub fn end_video(
        &self,
        id: &str,
        end: &VideoEnd,
        record: Option<&AuditRecord>,
    ) -> Result<(), StoreError> {
        let (code, error) = end.error.clone().unzip();
        let state = if code.is_some() { VideoState::Failed } else { VideoState::Completed };
        let update = "UPDATE videos SET state = ?, ended = ?, expires = ?, error_code = ?, error = ?, frames_digest = ?,
                      fingerprint = ?, seconds = ?, bytes = ?, progress = iif(? IS NULL, 100, progress) WHERE id = ?";
        let values = params![
            state.name(),
            number(end.ended),
            number(end.expires),
            code,
            error,
            end.frames_digest,
            end.fingerprint,
            end.seconds,
            number(end.bytes),
            code,
            id,
        ];
        // They count before anybody can see that the job has ended.
        let counted = record.and_then(|record| Some((record, record.key.as_deref()?)));
        let tokens = record.map_or(0, |record| record.prompt_tokens() + record.completion_tokens());
        if let Some((record, key)) = counted {
            self.counters.pending(key, ended_on(record), tokens);
        }
        let mut connection = self.reader();
        let mut write = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(update, values)?;
            let total = record.map(|record| insert(&transaction, record)).transpose()?;
            transaction.commit()?;
            Ok(total.unwrap_or_default())
        };
        let written = write();
        if let Some((record, key)) = counted {
            // If it failed they do not count any more.
            self.counters.committed(key, ended_on(record), tokens, *written.as_ref().unwrap_or(&0));
        }
        written.map(drop).map_err(|error| match record {
            Some(record) => insert_error(&self.path, record, error),
            None => self.sqlite(error),
        })
    }

    /// Finished jobs, those that ended first at the beginning.
    ///
    /// # Errors
    /// A row cannot be read; the database's.
    pub fn finished_videos(&self) -> Result<Vec<VideoRow>, StoreError> {
        let select = format!(
            "SELECT {COLUMNS} FROM videos WHERE state IN ('completed', 'failed') ORDER BY ended, number"
        );
        self.video_rows(&select, [])
    }

    /// Removes a job; whether it was there.
    ///
    /// # Errors
    /// The database's.
    pub fn remove_video(&self, id: &str) -> Result<bool, StoreError> {
        self.change_videos("DELETE FROM videos WHERE id = ?", [id]).map(|changed| changed > 0)
    }

    fn change_videos(&self, change: &str, values: impl Params) -> Result<usize, StoreError> {
        self.reader().execute(change, values).map_err(|error| self.sqlite(error))
    }

    fn video_rows(&self, select: &str, values: impl Params) -> Result<Vec<VideoRow>, StoreError> {
        let rows = self.rows(select, values, video)?;
        rows.into_iter()
            .map(|row| row.map_err(|what| StoreError::Damaged { path: self.path.clone(), what }))
            .collect()
    }
}
