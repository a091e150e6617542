//! What can go wrong with the database, and what to do about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An error of the database. Its text is meant for the person who runs the server.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be opened or created.
    #[error("cannot open the database {}: {why}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },

    /// The file holds something else.
    #[error("{} is no database of Wushi ({what}); name another file with --database", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },

    /// A later version has written it.
    #[error(
        "the database {} has schema {found}, this program knows up to {known}: use the newer wushi that wrote it, \
         or another file with --database",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The last one that this program knows.
        known: i64,
    },

    /// The file or its folder may not be written.
    #[error(
        "the database {} cannot be written: give this user the right to write the file and its folder, \
         or name another file with --database",
        path.display()
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },

    /// No room on the disk.
    #[error("the disk of the database {} is full: free some room", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },

    /// Another process holds the lock and does not let go.
    #[error(
        "the database {} is locked by another process, which has not finished for {seconds} s: find and end it",
        path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },

    /// What is in the file cannot be true.
    #[error("the database {} is damaged ({what}): put a backup in its place", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },

    /// SQLite says something else.
    #[error("the database {}: {why}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        why: Arc<rusqlite::Error>,
    },

    /// A key of this name is there.
    #[error("there is a key `{name}` already: choose another name, or remove it with `wushi key rm {name}`")]
    KeyExists {
        /// The name.
        name: String,
    },

    /// No key of this name is there.
    #[error("there is no key `{name}`; `wushi key list` shows those that are there")]
    NoKey {
        /// The name.
        name: String,
    },

    /// A name that would not be told apart or would not stay on its line.
    #[error("`{}` is no name for a key: {why}", name.escape_default())]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },

    /// No record has this id.
    #[error("the database {} has no record `{}`", path.display(), id.escape_default())]
    NoRecord {
        /// The file.
        path: PathBuf,
        /// The id.
        id: String,
    },

    /// A record with this id is there.
    #[error("a record `{}` is there already, and ids are given once", id.escape_default())]
    RecordExists {
        /// The id.
        id: String,
    },

    /// No random numbers, no thread.
    #[error("the system gives no {what}: {why}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What it says.
        why: String,
    },

    /// The writing thread has ended, as it does only when the store is dropped or has panicked.
    #[error("the database {} is closed: start the server again", path.display())]
    Closed {
        /// The file.
        path: PathBuf,
    },
}

/// How long a lock of another process is waited for. A writer holds it for milliseconds.
pub(super) const BUSY_SECONDS: u64 = 15;

impl StoreError {
    /// What SQLite's error means for the file at `path`.
    pub(super) fn sqlite(path: &Path, error: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode;
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => {
                StoreError::Foreign { path, what: "it is not an SQLite file at all" }
            }
            Some(ErrorCode::CannotOpen) => StoreError::Open { path, why: error.to_string() },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreError::ReadOnly { path },
            Some(ErrorCode::DiskFull) => StoreError::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::Busy { path, seconds: BUSY_SECONDS }
            }
            Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged { path, what: error.to_string() },
            _ => StoreError::Sqlite { path, why: Arc::new(error) },
        }
    }
}

/// Whether a unique column had the value already.
pub(super) fn is_duplicate(error: &rusqlite::Error) -> bool {
    let unique = [rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE, rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY];
    error.sqlite_error().is_some_and(|error| unique.contains(&error.extended_code))
}
