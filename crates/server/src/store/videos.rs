//! Jobs that make videos, as rows.

use std::sync::PoisonError;

use rusqlite::{Params, Row, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use wushi_engine::video::{Rounding, SamplerKind, Settings, Spacing, Wanted};
use wushi_media::Format;

use super::audit::{ended_on, insert, number};
use super::error::{StoreError, is_duplicate};
use super::record::AuditRecord;
use super::{Store, unix_ms};

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
///
/// Rows of older versions lack what came later: whatever is added here has a `#[serde(default)]` that says what they meant.
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
    /// The file's format.
    pub format: Format,
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

impl VideoRow {
    /// A job that waits, of no key, of which nothing is planned.
    pub fn queued(
        id: String,
        model: String,
        prompt: String,
        settings: VideoSettings,
        format: Format,
    ) -> VideoRow {
        VideoRow {
            id,
            key: None,
            model,
            prompt,
            settings,
            changes: Vec::new(),
            format,
            estimate: None,
            room: 0,
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
        }
    }
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
    // Numbers that are none of ours are the row's fault, not the query's.
    Ok(read(row).unwrap_or_else(|error| Err(error.to_string())))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<VideoRow, String>> {
    let id: String = row.get(0)?;
    let (settings, changes, state): (String, String, String) = (row.get(4)?, row.get(5)?, row.get(9)?);
    let (code, error): (Option<String>, Option<String>) = (row.get(16)?, row.get(17)?);
    let bad = |what: String| format!("video `{}`: {what}", id.escape_default());
    let settings = serde_json::from_str(&settings).map_err(|error| bad(format!("column settings: {error}")));
    let changes = serde_json::from_str(&changes).map_err(|error| bad(format!("column changes: {error}")));
    let state = VideoState::named(&state).ok_or_else(|| bad(format!("state `{}`", state.escape_default())));
    let format: Result<Format, String> =
        row.get::<_, String>(6)?.parse().map_err(|error: wushi_media::MediaError| bad(error.to_string()));
    let (settings, changes, state, format) = match (settings, changes, state, format) {
        (Ok(settings), Ok(changes), Ok(state), Ok(format)) => (settings, changes, state, format),
        (Err(what), ..) | (_, Err(what), ..) | (_, _, Err(what), _) | (.., Err(what)) => {
            return Ok(Err(what));
        }
    };
    Ok(Ok(VideoRow {
        key: row.get(1)?,
        model: row.get(2)?,
        prompt: row.get(3)?,
        settings,
        changes,
        format,
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
            video.format.name(),
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
        let found = self.rows(&select, params![id, number(now)], video)?.pop();
        found.transpose().map_err(|what| StoreError::Damaged { path: self.path.clone(), what })
    }

    /// At most `limit` jobs of a key (`None`: submitted without one) that have not expired by `now`, by age; with `after`
    /// those behind it. Rows that cannot be read are left out, here and in all that gives many.
    ///
    /// # Errors
    /// The database's.
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
    /// The database's.
    pub fn videos_in(&self, states: &[VideoState]) -> Result<Vec<VideoRow>, StoreError> {
        // Names of states are words.
        let names: Vec<String> = states.iter().map(|state| format!("'{}'", state.name())).collect();
        let select =
            format!("SELECT {COLUMNS} FROM videos WHERE state IN ({}) ORDER BY number", names.join(", "));
        self.video_rows(&select, [])
    }

    /// All jobs by name with their states, `None` of one that this program does not know: rows that cannot be read are there
    /// as well.
    ///
    /// # Errors
    /// The database's.
    pub fn video_states(&self) -> Result<Vec<(String, Option<VideoState>)>, StoreError> {
        self.rows("SELECT id, state FROM videos", [], |row| {
            Ok((row.get(0)?, VideoState::named(&row.get::<_, String>(1)?)))
        })
    }

    /// Finished jobs that expire by `now`, by name.
    ///
    /// # Errors
    /// The database's.
    pub fn expired_videos(&self, now: u64) -> Result<Vec<String>, StoreError> {
        let select = "SELECT id FROM videos WHERE state IN ('completed', 'failed') AND expires <= ?";
        self.rows(select, [number(now)], |row| row.get(0))
    }

    /// Queued jobs of keys that were revoked, by name.
    ///
    /// # Errors
    /// The database's.
    pub fn orphaned_videos(&self) -> Result<Vec<String>, StoreError> {
        let select = "SELECT id FROM videos WHERE state = 'queued'
                      AND key IN (SELECT id FROM keys WHERE revoked IS NOT NULL)";
        self.rows(select, [], |row| row.get(0))
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

    /// A job that is being made got further; what is saved of it comes to so much.
    ///
    /// # Errors
    /// The database's.
    pub fn advance_video(&self, id: &str, progress: f64) -> Result<(), StoreError> {
        let update = "UPDATE videos SET progress = max(progress, ?), starts = 1
                      WHERE id = ? AND state = 'in_progress'";
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

    /// The end of a job that has none yet, and its record, in one transaction; whether it had none. A job that is gone stays
    /// so.
    ///
    /// # Errors
    /// The database's.
    pub fn end_video(
        &self,
        id: &str,
        end: &VideoEnd,
        record: Option<&AuditRecord>,
    ) -> Result<bool, StoreError> {
        let (code, error) = end.error.clone().unzip();
        let state = if code.is_some() { VideoState::Failed } else { VideoState::Completed };
        let update = "UPDATE videos SET state = ?, ended = ?, expires = ?, error_code = ?, error = ?, frames_digest = ?,
                      fingerprint = ?, seconds = ?, bytes = ?, progress = iif(? IS NULL, 100, progress)
                      WHERE id = ? AND state IN ('queued', 'in_progress')";
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
        self.recorded_change(record, |transaction| Ok(transaction.execute(update, values)? > 0))
    }

    /// Removes a job that has no end, with its record in the same transaction; whether there was one. `record` is that of a
    /// job that was begun: of one that never was, no token counts.
    ///
    /// # Errors
    /// The database's.
    pub fn cancel_video(&self, id: &str, record: Option<&AuditRecord>) -> Result<bool, StoreError> {
        let begun = "SELECT started IS NOT NULL FROM videos WHERE id = ?";
        let begun = self.rows(begun, [id], |row| row.get(0))?.into_iter().next().unwrap_or(false);
        let mut record = record.cloned();
        if let Some(record) = record.as_mut().filter(|_| !begun) {
            record.prompts.iter_mut().for_each(|prompt| prompt.tokens = 0);
        }
        let delete = "DELETE FROM videos WHERE id = ? AND state IN ('queued', 'in_progress')";
        self.recorded_change(record.as_ref(), |transaction| Ok(transaction.execute(delete, [id])? > 0))
    }

    /// A change and the record of it, in one transaction: no record where nothing changed.
    fn recorded_change(
        &self,
        record: Option<&AuditRecord>,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<bool>,
    ) -> Result<bool, StoreError> {
        // They count before anybody can see that the job has ended.
        let counted = record.and_then(|record| Some((record, record.key.as_deref()?)));
        let tokens = record.map_or(0, |record| record.prompt_tokens() + record.completion_tokens());
        if let Some((record, key)) = counted {
            self.counters.pending(key, ended_on(record), tokens);
        }
        let mut connection = self.reader();
        let write = || {
            let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let changed = change(&transaction)?;
            let mut total = 0;
            if let Some(record) = record.filter(|_| changed) {
                // Ids are given once: a record that is there is this one.
                let inserting = transaction.savepoint()?;
                match insert(&inserting, record) {
                    Ok(tokens) => {
                        total = tokens;
                        inserting.commit()?;
                    }
                    Err(error) if is_duplicate(&error) => {
                        tracing::warn!(id = record.id, "its record is there already");
                    }
                    Err(error) => return Err(error),
                }
            }
            transaction.commit()?;
            Ok((changed, total))
        };
        let written = write();
        if let Some((record, key)) = counted {
            // If nothing was written they do not count any more.
            let total = written.as_ref().map_or(0, |(_, total)| *total);
            self.counters.committed(key, ended_on(record), tokens, total);
        }
        written.map(|(changed, _)| changed).map_err(|error| self.sqlite(error))
    }

    /// Finished jobs, those that ended first at the beginning.
    ///
    /// # Errors
    /// The database's.
    pub fn finished_videos(&self) -> Result<Vec<VideoRow>, StoreError> {
        let select = format!(
            "SELECT {COLUMNS} FROM videos WHERE state IN ('completed', 'failed') ORDER BY ended, number"
        );
        self.video_rows(&select, [])
    }

    /// What a failed job had saved is there no more.
    ///
    /// # Errors
    /// The database's.
    pub fn forget_saved(&self, id: &str) -> Result<(), StoreError> {
        self.change_videos("UPDATE videos SET bytes = 0 WHERE id = ? AND state = 'failed'", [id]).map(drop)
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

    /// Rows that can be read. One that cannot must not take all others with it: it is told of once.
    fn video_rows(&self, select: &str, values: impl Params) -> Result<Vec<VideoRow>, StoreError> {
        let rows = self.rows(select, values, video)?;
        let readable = |row: Result<VideoRow, String>| {
            let tell = |what: String| {
                let mut told = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
                if !told.contains(&what) {
                    tracing::error!("{}: left out, as it cannot be read: {what}", self.path.display());
                    told.insert(what);
                }
            };
            row.map_err(tell).ok()
        };
        Ok(rows.into_iter().filter_map(readable).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    fn settings() -> VideoSettings {
        VideoSettings {
            width: 832,
            height: 480,
            frames: 81,
            fps: 16,
            steps: 50,
            shift: 3.1,
            guidance: 5.3,
            guidance_low: Some(4.7),
            boundary: Some(0.9),
            negative: "blurry".to_owned(),
            sampler: "unipc".to_owned(),
            spacing: "training".to_owned(),
            timesteps: "floor".to_owned(),
            seed: u64::MAX,
        }
    }

    fn row(id: &str, key: Option<&str>) -> VideoRow {
        let prompt = "a \"red\" fox\n雪".to_owned();
        VideoRow {
            key: key.map(str::to_owned),
            changes: vec!["one".to_owned(), "two".to_owned()],
            estimate: Some(1.5),
            room: 1000,
            created: 1_700_000_000_000,
            ..VideoRow::queued(id.to_owned(), "wan".to_owned(), prompt, settings(), Format::Mp4)
        }
    }

    fn end(error: Option<(String, String)>) -> VideoEnd {
        VideoEnd {
            ended: 20,
            expires: 30,
            error,
            frames_digest: Some("d".to_owned()),
            fingerprint: Some("f".to_owned()),
            seconds: Some(2.5),
            bytes: 77,
        }
    }

    fn ids(rows: Vec<VideoRow>) -> Vec<String> {
        rows.into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn a_job_comes_back_as_it_was_given() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("server.sqlite");
        let store = Store::open(&path).unwrap();
        store.add_video(&row("a", None)).unwrap();
        assert!(matches!(store.add_video(&row("a", None)), Err(StoreError::RecordExists { .. })));
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.video("a", 0).unwrap(), Some(row("a", None)));
        assert_eq!(store.video("b", 0).unwrap(), None);
        let wanted = settings().wanted().unwrap();
        assert_eq!((wanted.size, wanted.boundary, wanted.seed), (Some((832, 480)), Some(0.9), u64::MAX));
        let unknown = VideoSettings { sampler: "x".to_owned(), ..settings() };
        assert!(unknown.wanted().unwrap_err().contains("sampler"));
        store.change_videos("UPDATE videos SET state = 'x'", []).unwrap();
        assert!(matches!(store.video("a", 0), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_job_is_begun_put_back_and_ended() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Store::open(folder.path().join("server.sqlite")).unwrap();
        for id in ["a", "b", "c"] {
            store.add_video(&row(id, None)).unwrap();
        }
        let get = |id: &str| store.video(id, 0).unwrap().unwrap();
        assert!(store.begin_video("a", 7).unwrap() && !store.begin_video("a", 8).unwrap());
        assert!(!store.begin_video("gone", 8).unwrap());
        store.requeue_video("a").unwrap();
        assert_eq!((get("a").state, get("a").starts, get("a").started), (VideoState::Queued, 0, Some(7)));
        // Processes that end without a word have begun it, so often.
        for starts in 1..4 {
            assert!(store.begin_video("a", 9).unwrap());
            assert_eq!((get("a").starts, get("a").started), (starts, Some(7)));
            assert_eq!(store.requeue_videos().unwrap(), 1);
        }
        assert!(store.begin_video("a", 9).unwrap());
        store.advance_video("a", 12.5).unwrap();
        store.advance_video("a", 10.0).unwrap();
        assert_eq!((get("a").starts, get("a").progress), (1, 12.5));
        assert!(store.end_video("a", &end(None), None).unwrap());
        // Written once: whoever did not hear of it may try again.
        assert!(!store.end_video("a", &end(Some(("code".to_owned(), "late".to_owned()))), None).unwrap());
        store.advance_video("a", 99.0).unwrap();
        assert!(store.begin_video("b", 9).unwrap());
        store.end_video("b", &end(Some(("code".to_owned(), "why".to_owned()))), None).unwrap();
        let (a, b) = (get("a"), get("b"));
        assert_eq!((a.state, a.progress, a.bytes, a.ended), (VideoState::Completed, 100.0, 77, Some(20)));
        assert_eq!((a.frames_digest.as_deref(), a.seconds), (Some("d"), Some(2.5)));
        assert_eq!((b.state, b.progress), (VideoState::Failed, 0.0));
        assert_eq!(b.error, Some(("code".to_owned(), "why".to_owned())));
        assert_eq!(ids(store.finished_videos().unwrap()), ["a", "b"]);
        assert_eq!(ids(store.videos_in(&[VideoState::Queued, VideoState::InProgress]).unwrap()), ["c"]);
        assert!(store.remove_video("c").unwrap() && !store.remove_video("c").unwrap());
        // One that is gone stays so.
        assert!(!store.end_video("c", &end(None), None).unwrap());
        assert_eq!(store.video("c", 0).unwrap(), None);
        // Expired.
        assert_eq!(store.video("a", 30).unwrap(), None);
        assert_eq!(store.expired_videos(30).unwrap(), ["a", "b"]);
        assert!(store.expired_videos(29).unwrap().is_empty());
    }

    #[test]
    fn one_row_that_cannot_be_read_is_left_out() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Store::open(folder.path().join("server.sqlite")).unwrap();
        for (id, damage) in [
            ("a", ""),
            ("b", "settings = '{}'"),
            ("c", "format = 'x'"),
            ("d", "room = -1"),
            ("e", "state = 'x'"),
        ] {
            store.add_video(&row(id, None)).unwrap();
            if !damage.is_empty() {
                store.change_videos(&format!("UPDATE videos SET {damage} WHERE id = ?"), [id]).unwrap();
                assert!(matches!(store.video(id, 0), Err(StoreError::Damaged { .. })), "{damage}");
            }
        }
        assert_eq!(ids(store.videos(None, None, 10, false, 0).unwrap()), ["a"]);
        assert_eq!(ids(store.videos_in(&[VideoState::Queued]).unwrap()), ["a"]);
        let states = store.video_states().unwrap();
        assert_eq!(states.len(), 5);
        assert_eq!(states.iter().filter(|(_, state)| *state == Some(VideoState::Queued)).count(), 4);
    }

    #[test]
    fn jobs_of_a_revoked_key_are_found() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Store::open(folder.path().join("server.sqlite")).unwrap();
        let key = store.add_key("alice", Limits::default()).unwrap().id;
        store.add_video(&row("hers", Some(&key))).unwrap();
        store.add_video(&row("nobodys", None)).unwrap();
        assert!(store.orphaned_videos().unwrap().is_empty());
        store.remove_key("alice").unwrap();
        assert_eq!(store.orphaned_videos().unwrap(), ["hers"]);
        assert!(store.cancel_video("hers", None).unwrap() && !store.cancel_video("hers", None).unwrap());
        assert!(store.orphaned_videos().unwrap().is_empty());
    }

    #[test]
    fn lists_are_of_one_key_and_go_on_behind_any_job() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = Store::open(folder.path().join("server.sqlite")).unwrap();
        let key = store.add_key("alice", Limits::default()).unwrap().id;
        for id in ["a", "b", "c", "d"] {
            store.add_video(&row(id, None)).unwrap();
        }
        store.add_video(&row("hers", Some(&key))).unwrap();
        let list = |key: Option<&str>, after: Option<&str>, limit, newest_first| {
            ids(store.videos(key, after, limit, newest_first, 0).unwrap())
        };
        assert_eq!(list(None, None, 10, false), ["a", "b", "c", "d"]);
        assert_eq!(list(None, None, 2, true), ["d", "c"]);
        assert_eq!(list(None, Some("c"), 10, true), ["b", "a"]);
        assert_eq!(list(None, Some("c"), 10, false), ["d"]);
        assert_eq!(list(Some(&key), None, 10, true), ["hers"]);
        assert!(list(Some("nobody"), None, 10, true).is_empty());
    }
}
