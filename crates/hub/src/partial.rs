//! Bytes on their way into the store, and the digest that grows with them.

use crate::HubError;
use crate::store::remove_all;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The file a model arrives in. Only the holder of the model's lock touches it.
pub(crate) struct Partial {
    part: PathBuf,
    origin: PathBuf,
}

/// Where the bytes of a partial file came from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The model, as in [`crate::StoredModel::name`].
    pub(crate) name: String,
    /// The address they came from, or the name of another kind of source.
    pub(crate) from: String,
    /// The server's strong validator for them, if it gave one.
    pub(crate) etag: Option<String>,
}

/// What is expected of a file, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The model, as in [`crate::StoredModel::name`].
    pub(crate) name: &'a str,
    /// Its length.
    pub(crate) bytes: Option<u64>,
    /// Its SHA-256 in lower-case hexadecimal.
    pub(crate) sha256: Option<&'a str>,
}

/// A file that arrived whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl Partial {
    /// The partial file called `key` in `folder`, which need not exist yet.
    pub(crate) fn new(folder: &Path, key: &str) -> Partial {
        let named = |end: &str| folder.join(format!("{key}.{end}"));
        Partial { part: named("part"), origin: named("json") }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.part
    }

    /// The folder of all partial files.
    pub(crate) fn folder(&self) -> &Path {
        self.part.parent().unwrap_or(Path::new("."))
    }

    /// Where the bytes came from; `None` if nothing readable says so.
    pub(crate) fn origin(&self) -> Option<Origin> {
        serde_json::from_slice(&fs::read(&self.origin).ok()?).ok()
    }

    /// How many of the bytes that are here a download from `from` can go on from.
    ///
    /// Without a digest to check the whole by, only a validator of that very address tells that the file there is still
    /// the same.
    pub(crate) fn resumable(&self, from: &str, wanted: &Wanted<'_>) -> u64 {
        let len = fs::metadata(&self.part).map_or(0, |meta| meta.len());
        let same = self.origin().is_some_and(|origin| origin.from == from && origin.etag.is_some());
        let fits = wanted.bytes.is_none_or(|bytes| len <= bytes);
        if fits && (same || wanted.sha256.is_some()) { len } else { 0 }
    }

    /// Starts from nothing, with bytes that come from `origin`.
    pub(crate) fn begin(&self, origin: &Origin) -> Result<Writer, HubError> {
        // Emptied before the origin is written: bytes must never be taken for another origin's.
        let file = File::create(&self.part).map_err(|error| HubError::io("create", &self.part, error))?;
        write_json(&self.origin, origin)?;
        Ok(Writer { file, path: self.part.clone(), hash: Sha256::new(), len: 0 })
    }

    /// Goes on from the bytes that are here.
    pub(crate) fn resume(&self) -> Result<Writer, HubError> {
        let failed = |doing| move |error| HubError::io(doing, &self.part, error);
        let mut file = OpenOptions::new().read(true).append(true).open(&self.part).map_err(failed("open"))?;
        let mut hash = Sha256::new();
        let mut len = 0;
        let mut buffer = vec![0; CHUNK];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    let read = buffer.get(..n).unwrap_or_default();
                    hash.update(read);
                    len += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read")(error)),
            }
        }
        Ok(Writer { file, path: self.part.clone(), hash, len })
    }

    /// Removes the bytes and what is known about them.
    pub(crate) fn clear(&self) -> Result<(), HubError> {
        remove_all(&self.part)?;
        remove_all(&self.origin)
    }
}

/// How many bytes are read at once.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Appends to a partial file.
pub(crate) struct Writer {
    file: File,
    path: PathBuf,
    hash: Sha256,
    len: u64,
}

impl Writer {
    /// Bytes in the file, those from earlier included.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(|error| HubError::io("write", &self.path, error))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Brings everything to the disk itself, so that a later rename cannot show a file whose bytes a power cut took.
    pub(crate) fn finish(self) -> Result<Arrived, HubError> {
        self.file.sync_all().map_err(|error| HubError::io("write", &self.path, error))?;
        Ok(Arrived { bytes: self.len, sha256: hex(&self.hash.finalize()) })
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of a text.
pub(crate) fn sha256_of(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// Writes a small JSON file and brings it to the disk.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), HubError> {
    let write = || {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        let mut file = File::create(path)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    write().map_err(|error| HubError::io("write", path, error))
}
