//! Records in the database.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use super::error::{StoreError, is_duplicate};
use super::record::{AuditRecord, Digest, Status, Text};
use super::{Store, day};

const COLUMNS: &str = "id, time, key, endpoint, model, model_digest, fingerprint, loading, parameters, prompts, choices, \
                       cached_tokens, queue_ms, ttft_ms, total_ms, status, error, text";

/// Appends a record, and adds it to the usage of its key and day; gives the day's tokens of this key.
pub(super) fn insert(connection: &Connection, record: &AuditRecord) -> rusqlite::Result<u64> {
    let json = |value: Result<String, serde_json::Error>| {
        value.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
    };
    let (status, error) = match &record.status {
        Status::Ok => ("ok", None),
        Status::Cancelled => ("cancelled", None),
        Status::Failed(error) => ("failed", Some(error)),
    };
    let insert = format!(
        "INSERT INTO audit ({COLUMNS}, prompt_tokens, completion_tokens)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    connection.prepare_cached(&insert)?.execute(params![
        record.id,
        number(record.time),
        record.key,
        record.endpoint,
        record.model,
        record.model_digest,
        record.fingerprint.to_string(),
        json(serde_json::to_string(&record.loading))?,
        json(serde_json::to_string(&record.parameters))?,
        json(serde_json::to_string(&record.prompts))?,
        json(serde_json::to_string(&record.choices))?,
        number(record.cached_tokens),
        number(record.queue_ms),
        record.ttft_ms.map(number),
        number(record.total_ms),
        status,
        error,
        record.text.as_ref().map(Text::to_bytes),
        number(record.prompt_tokens()),
        number(record.completion_tokens()),
    ])?;
    let upsert = "INSERT INTO usage (day, key, requests, prompt_tokens, cached_tokens, completion_tokens)
                  VALUES (?, ?, 1, ?, ?, ?)
                  ON CONFLICT (day, ifnull(key, '')) DO UPDATE SET
                      requests = requests + 1,
                      prompt_tokens = prompt_tokens + excluded.prompt_tokens,
                      cached_tokens = cached_tokens + excluded.cached_tokens,
                      completion_tokens = completion_tokens + excluded.completion_tokens
                  RETURNING prompt_tokens + completion_tokens";
    connection.prepare_cached(upsert)?.query_row(
        params![
            number(ended_on(record)),
            record.key,
            number(record.prompt_tokens()),
            number(record.cached_tokens),
            number(record.completion_tokens()),
        ],
        |row| row.get(0),
    )
}

/// The day that a request's tokens count for.
pub(super) fn ended_on(record: &AuditRecord) -> u64 {
    day(record.time.saturating_add(record.total_ms))
}

/// SQLite has no numbers beyond; nothing counted here reaches them.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What an error of [`insert`] says of its record.
pub(super) fn insert_error(
    store: &std::path::Path,
    record: &AuditRecord,
    error: rusqlite::Error,
) -> StoreError {
    if is_duplicate(&error) {
        return StoreError::RecordExists { id: record.id.clone() };
    }
    StoreError::sqlite(store, error)
}

/// A row of [`COLUMNS`]; the inner error says what is wrong with it.
fn record(row: &Row<'_>) -> rusqlite::Result<Result<AuditRecord, String>> {
    let id: String = row.get(0)?;
    let text: Option<Vec<u8>> = row.get(17)?;
    let (status, error): (String, Option<String>) = (row.get(15)?, row.get(16)?);
    let column = |index| row.get::<_, String>(index);
    let (fingerprint, loading) = (column(6)?, column(7)?);
    let (parameters, prompts, choices) = (column(8)?, column(9)?, column(10)?);
    let rest = AuditRecordRow {
        time: row.get(1)?,
        key: row.get(2)?,
        endpoint: row.get(3)?,
        model: row.get(4)?,
        model_digest: row.get(5)?,
        cached_tokens: row.get(11)?,
        queue_ms: row.get(12)?,
        ttft_ms: row.get(13)?,
        total_ms: row.get(14)?,
    };
    let read = || -> Result<AuditRecord, String> {
        let AuditRecordRow { time, key, endpoint, model, model_digest, .. } = rest;
        Ok(AuditRecord {
            time,
            key,
            endpoint,
            model,
            model_digest,
            cached_tokens: rest.cached_tokens,
            queue_ms: rest.queue_ms,
            ttft_ms: rest.ttft_ms,
            total_ms: rest.total_ms,
            fingerprint: fingerprint.parse::<Digest>()?,
            loading: from_json("loading", &loading)?,
            parameters: from_json("parameters", &parameters)?,
            prompts: from_json("prompts", &prompts)?,
            choices: from_json("choices", &choices)?,
            status: match (status.as_str(), error) {
                ("ok", None) => Status::Ok,
                ("cancelled", None) => Status::Cancelled,
                ("failed", Some(error)) => Status::Failed(error),
                (other, _) => return Err(format!("status `{}`", other.escape_default())),
            },
            text: match text {
                None => None,
                Some(bytes) => Some(Text::from_bytes(&bytes).ok_or("text that cannot be read")?),
            },
            id: id.clone(),
        })
    };
    Ok(read().map_err(|what| format!("record `{}`: {what}", id.escape_default())))
}

/// The columns that need no reading.
struct AuditRecordRow {
    time: u64,
    key: Option<String>,
    endpoint: String,
    model: String,
    model_digest: Option<String>,
    cached_tokens: u64,
    queue_ms: u64,
    ttft_ms: Option<u64>,
    total_ms: u64,
}

fn from_json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("column {column}: {error}"))
}

impl Store {
    /// The record with this id.
    ///
    /// # Errors
    /// There is none, or it cannot be read; the database's.
    pub fn get(&self, id: &str) -> Result<AuditRecord, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM audit WHERE id = ?");
        let found = self.reader().query_row(&select, [id], record).optional();
        match found.map_err(|error| self.sqlite(error))? {
            None => Err(StoreError::NoRecord { path: self.path.clone(), id: id.to_owned() }),
            Some(Ok(record)) => Ok(record),
            Some(Err(what)) => Err(StoreError::Damaged { path: self.path.clone(), what }),
        }
    }

    /// The latest records, at most `limit`, the latest first; with `before`, those that were written before the record with
    /// this id.
    ///
    /// # Errors
    /// There is no record `before`, or one cannot be read; the database's.
    pub fn list(&self, limit: usize, before: Option<&str>) -> Result<Vec<AuditRecord>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let below: i64 = match before {
            None => i64::MAX,
            Some(id) => {
                let select = "SELECT number FROM audit WHERE id = ?";
                let number = self.reader().query_row(select, [id], |row| row.get(0)).optional();
                number
                    .map_err(|error| self.sqlite(error))?
                    .ok_or_else(|| StoreError::NoRecord { path: self.path.clone(), id: id.to_owned() })?
            }
        };
        let select = format!("SELECT {COLUMNS} FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?");
        let rows = self.rows(&select, [below, limit], record)?;
        rows.into_iter()
            .map(|row| row.map_err(|what| StoreError::Damaged { path: self.path.clone(), what }))
            .collect()
    }
}
