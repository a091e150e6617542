//! Keys, usage and the records of requests, in one SQLite file.
//!
//! ```text
//! keys.rs     who may ask: made, listed, removed, and checked without touching the disk
//! limits.rs   how much a key may ask for
//! usage.rs    tokens by key and day
//! videos.rs   jobs that make videos
//! record.rs   what is kept of a request, as data
//! audit.rs    records in the database
//! writer.rs   the thread that writes them, many in one transaction
//! schema.rs   opening, migrations
//! ```
//!
//! Several processes may use the file at once: `wushi key` works beside a server. Killing any of them at any instant loses
//! nothing that a caller was told to be written, and leaves a file that opens: SQLite's write-ahead log with
//! `synchronous=FULL` (see `schema.rs`) promises this even for a loss of power.
//!
//! Everything here blocks, for microseconds where nothing is read from the disk, and knows nothing of asynchronous code.

mod audit;
mod error;
mod keys;
mod limits;
mod record;
mod schema;
mod usage;
mod videos;
mod writer;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Params, Row};

pub use error::StoreError;
pub use keys::{Key, KeyInfo, NewKey, check_key_name};
pub use limits::{Limit, Limited, Limits};
pub use record::{
    AuditRecord, Choice, ConstraintRecord, Digest, EmbeddingRecord, Ending, Exact, Loading, Parameters,
    Prompt, SamplingRecord, Status, Text, VideoRecord,
};
pub use usage::Usage;
pub use videos::{VideoEnd, VideoRow, VideoSettings, VideoState};

use keys::KeyTable;
use limits::Counters;
use writer::Writer;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// The database. Shared by reference or in an `Arc`.
pub struct Store {
    path: PathBuf,
    /// For all that is not hot: lists, records, changes of keys.
    reader: Mutex<Connection>,
    /// Of its own, so that no list keeps a request waiting.
    keys: Mutex<KeyTable>,
    counters: Arc<Counters>,
    writer: Writer,
    /// Rows that cannot be read and were told of, each once.
    damaged: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database, and creates it (with its folder) if it is not there, readable for this user only.
    ///
    /// # Errors
    /// A file that cannot be opened or written, that is no database of ours, or that a later version has written.
    pub fn open(path: impl AsRef<Path>) -> Result<Store, StoreError> {
        let path = path.as_ref();
        let reader = schema::open(path)?;
        let counters = Arc::new(Counters::default());
        let writer = Writer::start(path.to_owned(), schema::open(path)?, Arc::clone(&counters))?;
        let keys = KeyTable::new(schema::open(path)?)?;
        Ok(Store {
            path: path.to_owned(),
            reader: Mutex::new(reader),
            keys: Mutex::new(keys),
            counters,
            writer,
            damaged: Mutex::default(),
        })
    }

    /// [`Store::open`] if there is a file, and `None` otherwise: looking creates nothing.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Option<Store>, StoreError> {
        let path = path.as_ref();
        match path.try_exists() {
            Ok(true) => Store::open(path).map(Some),
            Ok(false) => Ok(None),
            Err(error) => Err(StoreError::Open { path: path.to_owned(), why: error.to_string() }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A fact that was noted before.
    ///
    /// # Errors
    /// The database's.
    pub fn fact(&self, name: &str) -> Result<Option<String>, StoreError> {
        let found = self.rows("SELECT value FROM facts WHERE name = ?", [name], |row| row.get(0))?;
        Ok(found.into_iter().next())
    }

    /// Notes a fact, in place of what was noted before.
    ///
    /// # Errors
    /// The database's.
    pub fn note_fact(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let insert = "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.reader().execute(insert, [name, value]).map(drop).map_err(|error| self.sqlite(error))
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic broke off was rolled back when it was dropped.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key_table(&self) -> MutexGuard<'_, KeyTable> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sqlite(&self, error: rusqlite::Error) -> StoreError {
        StoreError::sqlite(&self.path, error)
    }

    /// All rows of a query.
    fn rows<T>(
        &self,
        query: &str,
        values: impl Params,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = || -> rusqlite::Result<Vec<T>> {
            self.reader().prepare(query)?.query_map(values, read)?.collect()
        };
        rows().map_err(|error| self.sqlite(error))
    }
}

/// Now, in milliseconds since 1970-01-01 UTC.
pub fn unix_ms() -> u64 {
    // A clock before 1970 is set wrongly, and 0 is as good as any other time then.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// The day of a time in milliseconds since 1970-01-01 UTC: days since then.
pub fn day(time: u64) -> u64 {
    time / DAY_MS
}
