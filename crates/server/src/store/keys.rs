//! Keys: who may ask, and how much.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};
use subtle::ConstantTimeEq;

use super::error::{StoreError, is_duplicate};
use super::limits::Limits;
use super::{Store, unix_ms};

/// How old the copy of the keys in memory may be.
const FRESH: Duration = Duration::from_millis(250);

/// Characters of a public id and of the random part of a secret, in hexadecimal.
const ID: usize = 16;
const RANDOM: usize = 64;

/// A key that was just made. Its secret is nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The public id.
    pub id: String,
    /// What a client sends.
    pub secret: String,
}

/// Without the secret, which must not end up in a log.
impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A key that has been shown to be valid. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The public id, which usage and records refer to.
    pub id: Arc<str>,
    /// What its owner is called.
    pub name: Arc<str>,
    /// How much it may ask for.
    pub limits: Limits,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The public id.
    pub id: String,
    /// What its owner is called. A removed key's name can be given again.
    pub name: String,
    /// How much it may ask for.
    pub limits: Limits,
    /// When it was made, in milliseconds since 1970-01-01 UTC.
    pub created: u64,
    /// When it was removed.
    pub revoked: Option<u64>,
}

/// The keys that are valid, in memory.
pub(super) struct KeyTable {
    pub(super) connection: Connection,
    version: Option<i64>,
    /// When it was last known to be what the file says; `None` after a change of our own.
    checked: Option<Instant>,
    keys: HashMap<Arc<str>, Entry>,
    /// What unknown ids are compared with, so that they cost the same.
    nobody: [u8; 32],
}

struct Entry {
    key: Key,
    salt: [u8; 32],
    hash: [u8; 32],
}

impl Store {
    /// Makes a key.
    ///
    /// # Errors
    /// A name that is taken, empty, longer than 64 characters or not on one line; the database's.
    pub fn add_key(&self, name: &str, limits: Limits) -> Result<NewKey, StoreError> {
        check_key_name(name)?;
        let (id, random, salt) = (random::<{ ID / 2 }>()?, random::<{ RANDOM / 2 }>()?, random::<32>()?);
        let id = hex(&id);
        let secret = format!("wk-{id}-{}", hex(&random));
        let insert = "INSERT INTO keys (id, name, salt, hash, requests_per_minute, tokens_per_day, created)
                      VALUES (?, ?, ?, ?, ?, ?, ?)";
        let hash = digest(&salt, &secret);
        let tokens = limits.tokens_per_day.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        let values = params![id, name, salt, hash, limits.requests_per_minute, tokens, unix_ms() as i64];
        match self.reader().execute(insert, values) {
            Ok(_) => {
                self.key_table().checked = None;
                Ok(NewKey { id, secret })
            }
            Err(error) if is_duplicate(&error) => Err(StoreError::KeyExists { name: name.to_owned() }),
            Err(error) => Err(self.sqlite(error)),
        }
    }

    /// Revokes the key of this name. Its usage and its records stay, and its name can be given again.
    ///
    /// # Errors
    /// There is none; the database's.
    pub fn remove_key(&self, name: &str) -> Result<KeyInfo, StoreError> {
        let update = "UPDATE keys SET revoked = ? WHERE name = ? AND revoked IS NULL
                      RETURNING id, name, requests_per_minute, tokens_per_day, created, revoked";
        let removed = self.reader().query_row(update, params![unix_ms() as i64, name], key_info).optional();
        self.key_table().checked = None;
        removed
            .map_err(|error| self.sqlite(error))?
            .ok_or_else(|| StoreError::NoKey { name: name.to_owned() })
    }

    /// All keys by name and age, those removed included.
    ///
    /// # Errors
    /// The database's.
    pub fn keys(&self) -> Result<Vec<KeyInfo>, StoreError> {
        let select = "SELECT id, name, requests_per_minute, tokens_per_day, created, revoked FROM keys
                      ORDER BY name, created, id";
        self.rows(select, [], key_info)
    }

    /// Whether any key is valid.
    ///
    /// # Errors
    /// The database's.
    pub fn has_keys(&self) -> Result<bool, StoreError> {
        let mut table = self.key_table();
        table.refresh().map_err(|error| self.sqlite(error))?;
        Ok(!table.keys.is_empty())
    }

    /// Whose secret this is, if it is one. Costs a hash; the file is looked at only every 250 ms, so that a key removed
    /// by another process is refused at most that much later.
    ///
    /// # Errors
    /// The database's: nobody is let in then.
    pub fn authenticate(&self, secret: &str) -> Result<Option<Key>, StoreError> {
        let Some(id) = public_id(secret) else { return Ok(None) };
        let mut table = self.key_table();
        table.refresh().map_err(|error| self.sqlite(error))?;
        // An id that nobody has costs the same as a wrong secret.
        let (key, salt, hash) = match table.keys.get(id) {
            Some(entry) => (Some(&entry.key), &entry.salt, &entry.hash),
            None => (None, &table.nobody, &table.nobody),
        };
        let same = bool::from(digest(salt, secret).ct_eq(hash));
        Ok(key.filter(|_| same).cloned())
    }
}

impl KeyTable {
    pub(super) fn new(connection: Connection) -> Result<KeyTable, StoreError> {
        Ok(KeyTable { connection, version: None, checked: None, keys: HashMap::new(), nobody: random()? })
    }

    /// Makes sure that the copy is not older than [`FRESH`].
    fn refresh(&mut self) -> rusqlite::Result<()> {
        if self.checked.is_some_and(|checked| checked.elapsed() < FRESH) {
            return Ok(());
        }
        let now = Instant::now();
        let transaction = self.connection.transaction()?;
        let version = transaction
            .prepare_cached("SELECT version FROM keys_version")?
            .query_row([], |row| row.get::<_, i64>(0))?;
        if self.version != Some(version) {
            let select = "SELECT id, name, requests_per_minute, tokens_per_day, salt, hash FROM keys
                          WHERE revoked IS NULL";
            let mut keys = HashMap::new();
            for entry in transaction.prepare_cached(select)?.query_map([], entry)? {
                let entry = entry?;
                keys.insert(Arc::clone(&entry.key.id), entry);
            }
            self.keys = keys;
            self.version = Some(version);
        }
        transaction.commit()?;
        self.checked = Some(now);
        Ok(())
    }
}

/// What is stored of a secret. A secret has 256 random bits, so no hash could be searched for it, however quick; what is
/// slow on purpose (argon2) protects passwords, which can be guessed, and would only cost every request milliseconds.
fn digest(salt: &[u8; 32], secret: &str) -> [u8; 32] {
    *blake3::keyed_hash(salt, secret.as_bytes()).as_bytes()
}

/// The public id within a secret of the right form.
fn public_id(secret: &str) -> Option<&str> {
    let (id, random) = secret.strip_prefix("wk-")?.split_once('-')?;
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    (hex(id, ID) && hex(random, RANDOM)).then_some(id)
}

/// Whether a key can be called so.
///
/// # Errors
/// A name that is empty, longer than 64 characters or not on one line.
pub fn check_key_name(name: &str) -> Result<(), StoreError> {
    let bad = |why| Err(StoreError::BadName { name: name.to_owned(), why });
    match name {
        "" => bad("it is empty"),
        _ if name.trim() != name => bad("it begins or ends with a space"),
        _ if name.chars().count() > 64 => bad("it has more than 64 characters"),
        _ if name.chars().any(char::is_control) => bad("it has control characters"),
        _ => Ok(()),
    }
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| StoreError::System { what: "random numbers", why: error.to_string() })?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// From the columns `requests_per_minute`, `tokens_per_day`.
fn limits(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Limits> {
    Ok(Limits { requests_per_minute: row.get(first)?, tokens_per_day: row.get(first + 1)? })
}

fn key_info(row: &rusqlite::Row<'_>) -> rusqlite::Result<KeyInfo> {
    Ok(KeyInfo {
        id: row.get(0)?,
        name: row.get(1)?,
        limits: limits(row, 2)?,
        created: row.get(4)?,
        revoked: row.get(5)?,
    })
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    let key = Key { id: row.get(0)?, name: row.get(1)?, limits: limits(row, 2)? };
    Ok(Entry { key, salt: row.get(4)?, hash: row.get(5)? })
}
