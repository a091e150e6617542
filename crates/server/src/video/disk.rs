//! Room on the disk: which folder is ours, what goes to make room, what expires.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::StatusCode;
use wushi_engine::load::Size;
use wushi_media::Format;

use super::files::Files;
use super::{VideoState, Videos};
use crate::error::ApiError;
use crate::ids;
use crate::store::{VideoRow, unix_ms};

/// How often what has expired is removed.
const TIDYING: Duration = Duration::from_secs(600);
/// What the database calls the mark of its folder.
const MARK: &str = "videos_folder";

/// Why a folder without a mark is not that of a database.
enum Mismatch {
    /// It has none of the database's videos.
    Gone,
    /// It has videos of another.
    Unknown,
}

impl Videos {
    /// Whether folder and database belong together; where `mark`, makes it so if nothing speaks against it. The error says
    /// what does.
    pub(super) fn pair(&self, mark: bool) -> Result<(), String> {
        let folder = self.files.folder().display();
        let lost = |error: &dyn std::fmt::Display| format!("the folder of videos {folder}: {error}");
        let found = self.files.mark().map_err(|error| lost(&error))?;
        let known = self.store.fact(MARK).map_err(|error| error.to_string())?;
        match (&known, &found) {
            (Some(known), Some(found)) if known == found => return Ok(()),
            (_, Some(_)) => {
                return Err(format!(
                    "{folder} has the videos of another database than {}: name another folder with --videos, or that \
                     database with --database",
                    self.store.path().display()
                ));
            }
            _ => {}
        }
        match self.mismatch().map_err(|error| lost(&error.message))? {
            None => {}
            Some(Mismatch::Unknown) => {
                return Err(format!(
                    "{folder} has videos that the database {} knows nothing of: name another folder with --videos, or move \
                     them away",
                    self.store.path().display()
                ));
            }
            Some(Mismatch::Gone) => {
                let mark = known.map_or_else(|| ids::response_id("").map_err(|error| error.message), Ok)?;
                self.store.note_fact(MARK, &mark).map_err(|error| error.to_string())?;
                return Err(format!(
                    "{folder} has none of the videos that the database tells of: mount its disk, or name the folder they \
                     are in with --videos; if they are gone for good, run `echo {mark} > {folder}/{}` and start again",
                    Files::OWNER
                ));
            }
        }
        if mark {
            let mark = known.map_or_else(|| ids::response_id("").map_err(|error| error.message), Ok)?;
            // The database first: a mark that it does not know would be somebody else's.
            self.store.note_fact(MARK, &mark).map_err(|error| error.to_string())?;
            self.files.set_mark(&mark).map_err(|error| lost(&error))?;
        }
        Ok(())
    }

    /// Why a folder without a mark cannot be that of the database.
    fn mismatch(&self) -> Result<Option<Mismatch>, ApiError> {
        let rows = self.store.finished_videos()?;
        let completed = rows.iter().filter(|row| row.state == VideoState::Completed);
        let (there, gone): (Vec<_>, Vec<_>) =
            completed.partition(|row| self.files.video(&row.id, row.format).is_file());
        let known: HashMap<String, _> = self.store.video_states()?.into_iter().collect();
        let jobs = self.files.jobs();
        Ok(if there.is_empty() && !gone.is_empty() {
            Some(Mismatch::Gone)
        } else if !jobs.is_empty() && !jobs.iter().any(|id| known.contains_key(id)) {
            Some(Mismatch::Unknown)
        } else {
            None
        })
    }

    /// What a process that was killed has left behind.
    pub(super) fn recover(&self) -> Result<(), ApiError> {
        match self.store.requeue_videos()? {
            0 => {}
            count => tracing::info!(count, "videos go on that were being made when the server ended"),
        }
        // By name and state alone: what cannot be read keeps its files.
        let states: HashMap<String, Option<VideoState>> = self.store.video_states()?.into_iter().collect();
        self.files.tidy(|id| states.get(id).copied());
        for row in self.store.finished_videos()? {
            if let (Some(seconds), Some(estimate)) = (row.seconds, row.estimate) {
                self.learn(&row.model, seconds, estimate);
            }
        }
        self.expire()?;
        self.recount();
        Ok(())
    }

    /// Removes finished videos until there is room for `more` bytes of this key; where there cannot be, it is refused and
    /// nothing is removed. Whoever adds a job holds `adding` meanwhile.
    pub(super) fn make_room_for(&self, more: u64, key: Option<&str>) -> Result<(), ApiError> {
        let unfinished = self.store.videos_in(&[VideoState::Queued, VideoState::InProgress])?;
        let promised: u64 = unfinished.iter().map(|row| row.room).sum();
        // What they have written is not on the disk's free part any more.
        let unwritten: u64 =
            unfinished.iter().map(|row| row.room.saturating_sub(self.files.bytes(&row.id))).sum();
        let finished = self.store.finished_videos()?;
        let taken = finished.iter().map(|row| row.bytes).sum::<u64>().saturating_add(promised);
        let over = taken.saturating_add(more).saturating_sub(self.options.disk);
        let left = self.files.left();
        let lacking = left.map_or(0, |left| more.saturating_add(unwritten).saturating_sub(left));
        let old = in_order(&finished, key, None);
        if let Some(victims) = sufficient(&old, over.max(lacking)) {
            return victims.iter().try_for_each(|row| self.let_go(row));
        }
        let message = match (sufficient(&old, over), left) {
            (Some(_), Some(left)) => format!(
                "no room for another video: it may need {}, the disk has {} left, and those that wait may need {} of it",
                Size(more),
                Size(left),
                Size(unwritten)
            ),
            _ => format!(
                "no room for another video: it may need {}, and those that wait take {} of the {} that videos may take",
                Size(more),
                Size(promised),
                Size(self.options.disk)
            ),
        };
        Err(ApiError::new(StatusCode::INSUFFICIENT_STORAGE, message).code("insufficient_storage"))
    }

    /// Removes the oldest finished videos but this one while all take more than they may.
    pub(super) fn keep_within(&self, except: &str) -> Result<(), ApiError> {
        let unfinished = self.store.videos_in(&[VideoState::Queued, VideoState::InProgress])?;
        let finished = self.store.finished_videos()?;
        let taken = unfinished.iter().map(|row| row.room).chain(finished.iter().map(|row| row.bytes));
        let over = taken.fold(0, u64::saturating_add).saturating_sub(self.options.disk);
        let made = finished.iter().find(|row| row.id == except).and_then(|row| row.key.as_deref());
        match sufficient(&in_order(&finished, made, Some(except)), over) {
            Some(victims) => victims.iter().try_for_each(|row| self.let_go(row)),
            None => {
                tracing::warn!("videos take {} more than they may (--video-disk)", Size(over));
                Ok(())
            }
        }
    }

    /// Removes a finished video; of one that failed, what it had saved: why it failed may still be asked.
    fn let_go(&self, row: &VideoRow) -> Result<(), ApiError> {
        tracing::info!(video = row.id, "removed to make room on the disk");
        if row.state == VideoState::Failed {
            self.store.forget_saved(&row.id)?;
            self.files.remove(&row.id);
            return Ok(());
        }
        self.erase(&row.id).map(drop)
    }

    /// Removes what has expired.
    pub(super) fn expire(&self) -> Result<(), ApiError> {
        let expired = self.store.expired_videos(unix_ms())?;
        if expired.is_empty() {
            return Ok(());
        }
        // Another server that makes videos sees to it.
        let Some(_held) = self.files.hold() else { return Ok(()) };
        for id in expired {
            tracing::info!(video = id, "expired");
            self.erase(&id)?;
        }
        Ok(())
    }

    /// Removes what expires, until it is dropped.
    pub(crate) async fn keep_tidy(self: Arc<Videos>) {
        if !self.paired {
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

    /// Gives a job what one of the same request, which failed, has saved.
    pub(super) fn inherit(&self, row: &VideoRow) -> Result<(), ApiError> {
        let same = |other: &&VideoRow| {
            other.state == VideoState::Failed
                && other.bytes > 0
                && (&other.key, &other.model, &other.prompt, &other.settings)
                    == (&row.key, &row.model, &row.prompt, &row.settings)
        };
        for other in self.store.finished_videos()?.iter().rev().filter(same) {
            match self.files.pass_on(&other.id, &row.id) {
                Ok(passed) => {
                    self.store.forget_saved(&other.id)?;
                    if passed {
                        tracing::info!(video = row.id, from = other.id, "has what a failed one had saved");
                        return Ok(());
                    }
                }
                Err(error) => {
                    tracing::warn!(video = row.id, %error, "what a failed one had saved is not used")
                }
            }
        }
        Ok(())
    }
}

/// Finished jobs that take room, in the order in which they go: first those of the key that needs it, and of these what failed
/// ones have saved, then by age.
fn in_order<'a>(finished: &'a [VideoRow], key: Option<&str>, except: Option<&str>) -> Vec<&'a VideoRow> {
    let mut old: Vec<&VideoRow> =
        finished.iter().filter(|row| row.bytes > 0 && except != Some(row.id.as_str())).collect();
    // Stable: those that ended first are first.
    old.sort_by_key(|row| (row.key.as_deref() != key, row.state != VideoState::Failed));
    old
}

/// The first of them that take so many bytes together; `None` if all do not.
fn sufficient<'a>(old: &[&'a VideoRow], needed: u64) -> Option<Vec<&'a VideoRow>> {
    let mut freed: u64 = 0;
    let victims: Vec<&VideoRow> = old
        .iter()
        .take_while(|row| {
            let wanted = freed < needed;
            freed = if wanted { freed.saturating_add(row.bytes) } else { freed };
            wanted
        })
        .copied()
        .collect();
    (freed >= needed).then_some(victims)
}

/// Bytes that a video of so many pixels, all frames together, may come to. An estimate that is seldom too low.
pub(super) fn room(format: Format, pixels: u64) -> u64 {
    let bytes = match format {
        // Compressed frames lie there twice when the file is completed.
        Format::Mp4 => pixels / 2,
        Format::Gif => pixels,
        _ => 3 * pixels,
    };
    bytes.saturating_add(1 << 16)
}

#[cfg(test)]
mod tests {
    use super::super::object::tests::row;
    use super::*;

    #[test]
    fn those_of_the_key_that_needs_room_go_first_and_none_where_all_do_not_suffice() {
        let old = |id: &str, key: Option<&str>, state, bytes| VideoRow {
            id: id.to_owned(),
            key: key.map(str::to_owned),
            state,
            bytes,
            ..row()
        };
        let rows = [
            old("a", Some("hers"), VideoState::Completed, 5),
            old("b", Some("his"), VideoState::Completed, 5),
            old("c", Some("his"), VideoState::Completed, 5),
            old("d", Some("his"), VideoState::Failed, 5),
            old("e", Some("hers"), VideoState::Failed, 0),
        ];
        let ids = |key: &str, except, needed| {
            let victims = sufficient(&in_order(&rows, Some(key), except), needed)?;
            Some(victims.iter().map(|row| row.id.as_str()).collect::<String>())
        };
        assert_eq!(ids("his", None, 0).as_deref(), Some(""));
        assert_eq!(ids("his", None, 1).as_deref(), Some("d"));
        assert_eq!(ids("his", None, 11).as_deref(), Some("dbc"));
        assert_eq!(ids("his", Some("b"), 11).as_deref(), Some("dca"));
        assert_eq!(ids("hers", None, 6).as_deref(), Some("ad"));
        assert_eq!(ids("hers", None, 20).as_deref(), Some("adbc"));
        assert_eq!(ids("hers", None, 21), None);
        assert_eq!(ids("hers", Some("a"), 16), None);
    }
}
