//! Tokens by key and day.

use super::Store;
use super::audit::number;
use super::error::StoreError;
use super::keys::KeyTable;

/// What one key used on one day, or over several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Days since 1970-01-01, UTC; of several days the last.
    pub day: u64,
    /// The key's public id; `None`: requests of a server without keys.
    pub key: Option<String>,
    /// The key's name.
    pub name: Option<String>,
    /// Requests that ended, in whichever way.
    pub requests: u64,
    /// Tokens of prompts, those from the prefix cache included.
    pub prompt_tokens: u64,
    /// Of these, how many were found in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
}

impl Store {
    /// What each key used on each day from `first` on, the latest day first.
    ///
    /// # Errors
    /// The database's.
    pub fn usage(&self, first: u64) -> Result<Vec<Usage>, StoreError> {
        let select = "SELECT day, key, name, requests, prompt_tokens, cached_tokens, completion_tokens
                      FROM usage LEFT JOIN keys ON keys.id = usage.key
                      WHERE day >= ? ORDER BY day DESC, name, key";
        self.rows(select, [number(first)], usage)
    }

    /// What each key used from day `first` on, in one sum.
    ///
    /// # Errors
    /// The database's.
    pub fn usage_by_key(&self, first: u64) -> Result<Vec<Usage>, StoreError> {
        let select = "SELECT max(day), key, name, sum(requests), sum(prompt_tokens), sum(cached_tokens),
                             sum(completion_tokens)
                      FROM usage LEFT JOIN keys ON keys.id = usage.key
                      WHERE day >= ? GROUP BY key ORDER BY name, key";
        self.rows(select, [number(first)], usage)
    }
}

impl KeyTable {
    /// Tokens of a key on a day.
    pub(super) fn tokens_of(&self, key: &str, day: u64) -> rusqlite::Result<u64> {
        let select = "SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) FROM usage
                      WHERE day = ? AND ifnull(key, '') = ?";
        self.connection.prepare_cached(select)?.query_row((number(day), key), |row| row.get(0))
    }
}

fn usage(row: &rusqlite::Row<'_>) -> rusqlite::Result<Usage> {
    Ok(Usage {
        day: row.get(0)?,
        key: row.get(1)?,
        name: row.get(2)?,
        requests: row.get(3)?,
        prompt_tokens: row.get(4)?,
        cached_tokens: row.get(5)?,
        completion_tokens: row.get(6)?,
    })
}
