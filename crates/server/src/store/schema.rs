//! Opening the file, and bringing its tables to the form that this program knows.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::error::{BUSY_SECONDS, StoreError};

/// Marks the file as ours, for us and for file(1): "Wush".
const APPLICATION: i64 = 0x5775_7368;

/// What brings the schema from each version to the next. Files in circulation hold every one of them: never change one,
/// append.
const MIGRATIONS: &[&str] = &[
    // Times are milliseconds since 1970-01-01 UTC, days are days since then, digests are 32 bytes.
    "CREATE TABLE keys (
        id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        salt BLOB NOT NULL,
        hash BLOB NOT NULL,
        requests_per_minute INTEGER,
        tokens_per_day INTEGER,
        created INTEGER NOT NULL,
        revoked INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX keys_name ON keys (name) WHERE revoked IS NULL;
    -- Whoever changes a key, every process sees by this one number that its copy is stale.
    CREATE TABLE keys_version (version INTEGER NOT NULL) STRICT;
    INSERT INTO keys_version VALUES (0);
    CREATE TRIGGER keys_added AFTER INSERT ON keys BEGIN UPDATE keys_version SET version = version + 1; END;
    CREATE TRIGGER keys_changed AFTER UPDATE ON keys BEGIN UPDATE keys_version SET version = version + 1; END;
    CREATE TRIGGER keys_gone AFTER DELETE ON keys BEGIN UPDATE keys_version SET version = version + 1; END;
    -- No key: requests of a server without keys.
    CREATE TABLE usage (
        day INTEGER NOT NULL,
        key TEXT REFERENCES keys (id),
        requests INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX usage_day_key ON usage (day, ifnull(key, ''));
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        time INTEGER NOT NULL,
        key TEXT REFERENCES keys (id),
        endpoint TEXT NOT NULL,
        model TEXT NOT NULL,
        model_digest TEXT,
        fingerprint TEXT NOT NULL,
        loading TEXT NOT NULL,
        parameters TEXT NOT NULL,
        prompts TEXT NOT NULL,
        choices TEXT NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        queue_ms INTEGER NOT NULL,
        ttft_ms INTEGER,
        total_ms INTEGER NOT NULL,
        status TEXT NOT NULL,
        error TEXT,
        text BLOB
    ) STRICT;
    CREATE INDEX audit_time ON audit (time);",
    // Jobs that make videos, in the order of their coming. `starts` counts how often one was begun since it last got further.
    "CREATE TABLE videos (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        key TEXT REFERENCES keys (id),
        model TEXT NOT NULL,
        prompt TEXT NOT NULL,
        settings TEXT NOT NULL,
        changes TEXT NOT NULL,
        format TEXT NOT NULL,
        estimate REAL,
        room INTEGER NOT NULL,
        state TEXT NOT NULL,
        progress REAL NOT NULL,
        starts INTEGER NOT NULL,
        created INTEGER NOT NULL,
        started INTEGER,
        ended INTEGER,
        expires INTEGER,
        error_code TEXT,
        error TEXT,
        frames_digest TEXT,
        fingerprint TEXT,
        seconds REAL,
        bytes INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX videos_state ON videos (state, number);",
    // Single facts about the database itself; `videos_folder`: the mark of the folder that its videos lie in.
    "CREATE TABLE facts (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX videos_key ON videos (key, number);",
];

/// A connection to a file of the newest schema, which is created if it is not there.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    create(path)?;
    retried(|| {
        // Without the flag that makes a file name an address: `file:` may be the beginning of a name.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(BUSY_SECONDS))?;
        // Before anything is changed: the file may be somebody else's.
        let version = match check(&connection, path)? {
            Ok(version) => version,
            Err(error) => return Ok(Err(error)),
        };
        // SQLite would be content to read.
        if connection.is_readonly("main")? {
            return Ok(Err(StoreError::ReadOnly { path: path.to_owned() }));
        }
        configure(&connection)?;
        // The usual case takes no lock.
        if version == MIGRATIONS.len() {
            return Ok(Ok(connection));
        }
        let migrated = migrate(&mut connection, path)?;
        Ok(migrated.map(|()| connection))
    })
    .map_err(|error| StoreError::sqlite(path, error))?
}

/// Creates an empty file that only this user may read, and the folder it is in, before SQLite would make one that all may
/// read. Its companions (`-wal`, `-shm`) get the file's permissions from SQLite.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::ReadOnly { path: path.to_owned() }
        }
        _ => StoreError::Open { path: path.to_owned(), why: error.to_string() },
    };
    if path.is_dir() {
        return Err(StoreError::Foreign { path: path.to_owned(), what: "it is a folder" });
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    match private(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    }
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Opening can meet another process that creates, recovers or closes the same file, and SQLite does not wait in all of
/// these cases by itself.
fn retried<T>(mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(BUSY_SECONDS);
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // WAL: readers never wait for the writer, nor it for them. What a killed process had committed is in the log, and the
    // next one to open the file finds it there.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A commit returns when it is on the disk: it outlives not only the process but also the machine's power. Its price, a
    // flush of the disk, is paid by the writing thread once for all records that came meanwhile, not by requests.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Records that retention removes are overwritten, since they may hold what people wrote.
    connection.pragma_update(None, "secure_delete", true)?;
    // After a burst the log shrinks again.
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    Ok(())
}

/// The schema's version, 0 of a new file. The outer error is SQLite's, the inner one says that the file is not for us.
fn check(connection: &Connection, path: &Path) -> rusqlite::Result<Result<usize, StoreError>> {
    // One statement, that is, one moment: another process may be creating the tables.
    let query = "SELECT (SELECT application_id FROM pragma_application_id),
                        (SELECT user_version FROM pragma_user_version),
                        (SELECT count(*) FROM sqlite_schema)";
    let found: (i64, i64, i64) =
        connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let (application, version, _) = found;
    let (path, known) = (path.to_owned(), MIGRATIONS.len());
    Ok(if application != APPLICATION && found != (0, 0, 0) {
        Err(StoreError::Foreign { path, what: "it is an SQLite file of another program" })
    } else {
        match usize::try_from(version) {
            Ok(version) if version <= known => Ok(version),
            Ok(_) => Err(StoreError::Newer { path, found: version, known: known as i64 }),
            Err(_) => Err(StoreError::Damaged { path, what: format!("schema {version}") }),
        }
    })
}

fn migrate(connection: &mut Connection, path: &Path) -> rusqlite::Result<Result<(), StoreError>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    let version = match check(&transaction, path)? {
        Ok(version) => version,
        Err(error) => return Ok(Err(error)),
    };
    for migration in &MIGRATIONS[version..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()?;
    Ok(Ok(()))
}
