//! The folder that models are kept in.

use crate::partial::{Partial, hex, sha256_of, write_json};
use crate::{CATALOGUE, HubError, ModelRef, Progress};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A folder of models. Any number of processes may use it at once.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// Feeds a digest.
struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// [`HubError::Io`].
pub fn sha256(path: &Path) -> Result<String, HubError> {
    let mut hash = Sha256::new();
    File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut HashWriter(&mut hash)))
        .map_err(|error| HubError::io("read", path, error))?;
    Ok(hex(&hash.finalize()))
}

/// A model in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredModel {
    /// What it is called: a short name, `hf:org/repo`, `hf:org/repo/file`, or an address.
    pub name: String,
    /// What a reader opens: the file, the first of several parts, or the folder.
    pub path: PathBuf,
    /// Bytes of all files.
    pub bytes: u64,
    /// SHA-256 of the file, lower-case hexadecimal; of several files that of what `sha256sum` says of them.
    pub sha256: String,
    /// All files, by name.
    pub files: Vec<StoredFile>,
    /// The model's own folder.
    folder: PathBuf,
    /// Where it was fetched from.
    pub source: String,
    /// SPDX identifier of its licence, if the catalogue knows it.
    pub licence: Option<String>,
    /// When it was fetched, in seconds since 1970-01-01 UTC.
    pub fetched: u64,
    /// Whether it can be used.
    pub state: State,
}

/// A file of a model in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its name, with the folders in the model's own that it is in.
    #[serde(rename = "file")]
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// Whether a stored model can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The files are there and have their lengths.
    Sound,
    /// What is wrong, in a few words. Pulling the model again repairs it, removing it removes what is left.
    Damaged(String),
}

/// What is known of a model, kept beside its files.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    source: String,
    licence: Option<String>,
    fetched: u64,
    /// The file, if there is one.
    #[serde(flatten)]
    file: Option<StoredFile>,
    /// The files, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    files: Vec<StoredFile>,
}

/// Begins with a dot, as no model's file does (see [`plain`]).
const RECORD: &str = ".wushi.json";

impl Store {
    /// The store in this folder. Nothing is created before the first pull.
    ///
    /// # Errors
    /// [`HubError::Io`] if the path is relative and the current folder cannot be found.
    pub fn open(root: impl AsRef<Path>) -> Result<Store, HubError> {
        let root = root.as_ref();
        let root = std::path::absolute(root).map_err(|error| HubError::io("find", root, error))?;
        Ok(Store { root })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    /// Every model that was fetched, damaged ones included, by name.
    ///
    /// # Errors
    /// [`HubError::Io`] if the folder is there and cannot be read.
    pub fn list(&self) -> Result<Vec<StoredModel>, HubError> {
        let folder = self.models();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(HubError::io("read", &folder, error)),
        };
        let folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        // One that another process removes meanwhile is simply not there.
        let mut found: Vec<StoredModel> = folders.filter_map(|path| read_model(&path)).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The file of a model, if it is on this disk and sound. Nothing is fetched.
    pub fn find(&self, model: &ModelRef) -> Option<PathBuf> {
        match model {
            ModelRef::Path(path) => (path.is_file() || path.is_dir()).then(|| path.clone()),
            _ => self.find_stored(model).map(|stored| stored.path),
        }
    }

    /// Reads a stored model's files anew and compares their digests with the recorded ones. `Some(false)`: one has
    /// changed since it was fetched. `None`: it is not in the store.
    ///
    /// # Errors
    /// [`HubError::Io`].
    pub fn verify(&self, model: &ModelRef) -> Result<Option<bool>, HubError> {
        let Some(stored) = self.find_stored(model) else { return Ok(None) };
        for recorded in &stored.files {
            let path = stored.folder.join(&recorded.name);
            if sha256(&path)? != recorded.sha256 {
                return Ok(Some(false));
            }
        }
        Ok(Some(true))
    }

    pub(crate) fn find_stored(&self, model: &ModelRef) -> Option<StoredModel> {
        let stored = read_model(&self.models().join(key(model)))?;
        let current = match model {
            // Another file may have got the name since.
            ModelRef::Catalogue(entry) => entry.sha256 == stored.sha256,
            _ => stored.name == model.to_string(),
        };
        (current && stored.state == State::Sound).then_some(stored)
    }

    /// Removes a model by its name as [`Store::list`] gives it, together with what an interrupted pull of it left.
    /// Returns how many bytes were freed. Processes that have the file open keep it.
    ///
    /// # Errors
    /// [`HubError::NotStored`] if there is nothing of that name, [`HubError::Busy`] if it is just being fetched,
    /// [`HubError::Io`].
    pub fn remove(&self, name: &str) -> Result<u64, HubError> {
        let stored = self.list()?;
        let mut freed = None;
        if let Some(model) = stored.iter().find(|model| model.name == name) {
            let lengths = model.files.iter().map(|file| fs::metadata(model.folder.join(&file.name)));
            let bytes = lengths.flatten().filter(|meta| meta.is_file()).map(|meta| meta.len()).sum();
            self.discard(&model.folder)?;
            freed = Some(bytes);
        }
        match self.remove_partial(name) {
            Ok(Some(bytes)) => freed = Some(freed.unwrap_or(0) + bytes),
            // The pull that goes on is its owner's affair, if the model itself is gone as asked.
            Err(HubError::Busy { .. }) if freed.is_some() => {}
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        freed.ok_or_else(|| HubError::NotStored {
            name: name.to_owned(),
            present: stored.into_iter().map(|model| model.name).collect(),
        })
    }

    /// Removes what interrupted pulls of `name` left. Returns its bytes, `None` if there was nothing.
    fn remove_partial(&self, name: &str) -> Result<Option<u64>, HubError> {
        let mut freed = None;
        for key in self.partial_keys(name) {
            let partial = Partial::new(&self.partials(), &key);
            // Of several files each has a key that begins with that of the pull.
            let of_pull = key.split('-').next().unwrap_or(&key);
            let left: Vec<PathBuf> = ["part", "json", "pip", "stage"]
                .map(|end| partial.path().with_extension(end))
                .into_iter()
                .filter(|path| path.symlink_metadata().is_ok())
                .collect();
            if left.is_empty() {
                continue;
            }
            let lock = self.lock_file(of_pull)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(HubError::Busy { name: name.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(HubError::io("lock", partial.path(), error)),
            }
            for path in left {
                freed = Some(freed.unwrap_or(0) + size_of(&path));
                remove_all(&path)?;
            }
        }
        Ok(freed)
    }

    /// The keys under which there may be partial files of `name`.
    fn partial_keys(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.partials()).into_iter().flatten().flatten();
        let origins = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"));
        let recorded = origins.filter_map(|path| {
            let key = path.file_stem()?.to_str()?;
            let origin = Partial::new(&self.partials(), key).origin()?;
            (origin.name == name).then(|| key.to_owned())
        });
        // A package client records nothing before it is through.
        let known = CATALOGUE.iter().filter(|entry| entry.name == name).map(|entry| entry.sha256.to_owned());
        let mut keys: Vec<String> = recorded.chain(known).collect();
        // The place where several files are put together is called by the pull's own key.
        keys.extend(keys.clone().iter().filter_map(|key| Some(key.split_once('-')?.0.to_owned())));
        keys.sort();
        keys.dedup();
        keys
    }

    /// Takes a model's folder out of sight in one step, then removes it.
    fn discard(&self, folder: &Path) -> Result<(), HubError> {
        create(&self.partials())?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let trash = self.partials().join(format!("{name}.removed-{}-{}", std::process::id(), nanos()));
        match fs::rename(folder, &trash) {
            Ok(()) => fs::remove_dir_all(&trash).map_err(|error| HubError::io("remove", &trash, error)),
            // Someone else was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(HubError::io("remove", folder, error)),
        }
    }

    fn lock_file(&self, key: &str) -> Result<File, HubError> {
        let path = self.partials().join(format!("{key}.lock"));
        // The file stays: a lock on a file that another process may remove protects nothing.
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| HubError::io("open", &path, error))
    }

    /// Waits until no other process fetches into `key`; the lock lasts as long as the file that is returned, and ends with
    /// the process however that ends.
    pub(crate) fn lock(&self, key: &str, name: &str, progress: &dyn Progress) -> Result<File, HubError> {
        create(&self.models())?;
        create(&self.partials())?;
        let file = self.lock_file(key)?;
        let failed = |error| HubError::io("lock", &self.partials().join(format!("{key}.lock")), error);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.message(&format!("another process is fetching {name}; waiting for it"));
                file.lock().map_err(failed)?;
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        self.sweep();
        Ok(file)
    }

    /// Removes what processes left that were killed while removing a model.
    fn sweep(&self) {
        for entry in fs::read_dir(self.partials()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(".removed-") {
                // Its remover may be at it right now, which is as good.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Puts back whole files that a process was killed with just before it could show them. Needs the lock of `key`.
    pub(crate) fn recover<'a>(
        &self,
        key: &str,
        files: impl Iterator<Item = (&'a str, &'a Partial)>,
    ) -> Result<(), HubError> {
        let stage = self.stage(key);
        for (name, partial) in files {
            let file = stage.join(name);
            if file.is_file() && !partial.path().exists() {
                fs::rename(&file, partial.path()).map_err(|error| HubError::io("move", &file, error))?;
            }
        }
        match fs::remove_dir_all(&stage) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(HubError::io("remove", &stage, error))
            }
            _ => Ok(()),
        }
    }

    fn stage(&self, key: &str) -> PathBuf {
        self.partials().join(format!("{key}.stage"))
    }

    /// Makes verified partial files a model of the store, visible from one moment to the next. Needs the lock of `key`.
    pub(crate) fn publish(
        &self,
        key: &str,
        partials: &[Partial],
        mut files: Vec<StoredFile>,
        model: &Publication<'_>,
    ) -> Result<StoredModel, HubError> {
        let stage = self.stage(key);
        create(&stage)?;
        for (partial, file) in partials.iter().zip(&files) {
            let path = stage.join(&file.name);
            let folder = path.parent().unwrap_or(&stage);
            create(folder)?;
            fs::rename(partial.path(), &path).map_err(|error| HubError::io("move", partial.path(), error))?;
            sync_folder(folder)?;
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let (file, files) = if files.len() == 1 { (files.pop(), files) } else { (None, files) };
        let record = Record {
            name: model.reference.to_string(),
            source: model.source.to_owned(),
            licence: model.licence.map(str::to_owned),
            fetched: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            file,
            files,
        };
        write_json(&stage.join(RECORD), &record)?;
        sync_folder(&stage)?;
        let home = self.models().join(self::key(model.reference));
        if home.exists() {
            // Damaged, or of an older catalogue: otherwise nothing would have been fetched.
            self.discard(&home)?;
        }
        fs::rename(&stage, &home).map_err(|error| HubError::io("move", &stage, error))?;
        sync_folder(&self.models())?;
        for partial in partials {
            partial.clear()?;
        }
        Ok(stored(&home, record))
    }
}

/// What is recorded of a model besides what its bytes say.
pub(crate) struct Publication<'a> {
    pub(crate) reference: &'a ModelRef,
    pub(crate) source: &'a str,
    pub(crate) licence: Option<&'a str>,
}

/// The folder of a model in the store: its short name, or for others a readable beginning and a digest of the whole
/// name, which is safe on every file system and unique even where case does not count.
fn key(model: &ModelRef) -> String {
    if let ModelRef::Catalogue(entry) = model {
        return entry.name.to_owned();
    }
    let name = model.to_string();
    let digest = sha256_of(&name);
    format!("{}-{}", plain(&name, 80), digest.get(..12).unwrap_or(&digest))
}

/// A name without anything that a file system or a shell might take amiss.
pub(crate) fn plain(name: &str, limit: usize) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    // From the end, where names differ.
    let skip = name.chars().count().saturating_sub(limit);
    let text: String = name.chars().skip(skip).map(safe).collect();
    match text.trim_start_matches(['.', '-']) {
        "" => "model".to_owned(),
        text => text.to_owned(),
    }
}

/// Reads a model's folder; `None` if there is no such folder.
fn read_model(folder: &Path) -> Option<StoredModel> {
    if !folder.is_dir() {
        return None;
    }
    let damaged = |why: String| StoredModel {
        name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path: folder.join("?"),
        bytes: 0,
        sha256: String::new(),
        files: Vec::new(),
        folder: folder.to_path_buf(),
        source: String::new(),
        licence: None,
        fetched: 0,
        state: State::Damaged(why),
    };
    let text = match fs::read(folder.join(RECORD)) {
        Ok(text) => text,
        Err(error) => return Some(damaged(format!("{RECORD}: {error}"))),
    };
    let record: Record = match serde_json::from_slice(&text) {
        Ok(record) => record,
        Err(error) => return Some(damaged(format!("{RECORD}: {error}"))),
    };
    if record.file.is_none() && record.files.is_empty() {
        return Some(damaged(format!("{RECORD}: it names no file")));
    }
    // The record must not lead out of its folder.
    let mut names = record.file.iter().chain(&record.files).map(|file| Path::new(&file.name));
    let within = |name: &Path| name.components().all(|part| matches!(part, Component::Normal(_)));
    if names.any(|name| name.as_os_str().is_empty() || !within(name)) {
        return Some(damaged(format!("{RECORD}: `file` is no file name")));
    }
    Some(stored(folder, record))
}

/// What a sound record says, and whether the files agree.
fn stored(folder: &Path, record: Record) -> StoredModel {
    let files: Vec<StoredFile> = record.file.into_iter().chain(record.files).collect();
    let state = files.iter().find_map(|file| damage(folder, file, files.len() > 1));
    let (path, sha256) = match files.as_slice() {
        [only] => (folder.join(&only.name), only.sha256.clone()),
        several => {
            let lines: String =
                several.iter().map(|file| format!("{}  {}\n", file.sha256, file.name)).collect();
            // Parts of one file are opened by the first of them, other files by the folder that all are in.
            let first = several.first().map(|file| Path::new(&file.name)).unwrap_or(Path::new(""));
            let gguf = first.extension().is_some_and(|end| end == "gguf");
            let within = if gguf { Some(first.as_os_str()) } else { first.iter().next() };
            (folder.join(within.unwrap_or_default()), sha256_of(&lines))
        }
    };
    StoredModel {
        name: record.name,
        path,
        bytes: files.iter().map(|file| file.bytes).fold(0, u64::saturating_add),
        sha256,
        files,
        folder: folder.to_path_buf(),
        source: record.source,
        licence: record.licence,
        fetched: record.fetched,
        state: state.map_or(State::Sound, State::Damaged),
    }
}

/// What is wrong with a file, if anything; named if there are others.
fn damage(folder: &Path, file: &StoredFile, named: bool) -> Option<String> {
    let what = if named { file.name.as_str() } else { "the file" };
    match fs::metadata(folder.join(&file.name)) {
        Ok(meta) if meta.is_file() && meta.len() == file.bytes => None,
        Ok(meta) if meta.is_file() => {
            Some(format!("{what} has {} bytes instead of {}", meta.len(), file.bytes))
        }
        Ok(_) => Some(format!("in place of {what} is something else")),
        Err(_) => Some(format!("{what} is gone")),
    }
}

fn create(folder: &Path) -> Result<(), HubError> {
    fs::create_dir_all(folder).map_err(|error| HubError::io("create", folder, error))
}

/// Brings a folder's entries to the disk, where folders can be opened for it.
fn sync_folder(folder: &Path) -> Result<(), HubError> {
    if cfg!(unix) {
        File::open(folder)
            .and_then(|file| file.sync_all())
            .map_err(|error| HubError::io("write", folder, error))?;
    }
    Ok(())
}

/// Removes a file, or a folder with all that is in it; what is not there is as good as removed.
pub(crate) fn remove_all(path: &Path) -> Result<(), HubError> {
    let folder = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    match if folder { fs::remove_dir_all(path) } else { fs::remove_file(path) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HubError::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Bytes of a file, or of all files below a folder. Another process may be changing it: what vanishes meanwhile does not
/// count.
pub(crate) fn size_of(path: &Path) -> u64 {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size_of(&entry.path())).sum()
        }
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}

fn nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos())
}

/// Whether `needed` more bytes fit on the disk of `folder`.
pub(crate) fn check_room(folder: &Path, needed: u64) -> Result<(), HubError> {
    match fs4::available_space(folder) {
        Ok(available) if available < needed => Err(HubError::NoSpace {
            path: folder.to_path_buf(),
            needed: Some(needed),
            available: Some(available),
        }),
        Ok(_) => Ok(()),
        // Some file systems do not say; a full disk is then noticed when it is full.
        Err(error) => {
            tracing::debug!("free space of {}: {error}", folder.display());
            Ok(())
        }
    }
}
