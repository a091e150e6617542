//! The files of a folder, on a disk or in memory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::FormatError;
use crate::mapped::Mapped;

/// Longer than any file of JSON or text that a model comes with.
const MAX_TEXT: u64 = 256 << 20;

#[derive(Debug)]
pub(crate) enum Files {
    Disk(PathBuf),
    Memory(BTreeMap<String, Vec<u8>>),
}

impl Files {
    /// For messages, and to tell people what they opened.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Files::Disk(path) => Some(path),
            Files::Memory(_) => None,
        }
    }

    /// The names in the folder, in order.
    pub(crate) fn names(&self) -> Result<Vec<String>, FormatError> {
        let folder = match self {
            Files::Disk(path) => path,
            Files::Memory(files) => return Ok(files.keys().cloned().collect()),
        };
        let io = |source| FormatError::Io { path: folder.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(io)? {
            // Names that are no text are none that a model's files have.
            names.extend(entry.map_err(io)?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// Whether there is such a file. Links are followed: caches are made of them.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Files::Disk(path) => path.join(name).is_file(),
            Files::Memory(files) => files.contains_key(name),
        }
    }

    /// A small file's bytes.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, FormatError> {
        if !self.has(name) {
            return Ok(None);
        }
        let path = match self {
            Files::Disk(path) => path.join(name),
            Files::Memory(files) => return Ok(files.get(name).cloned()),
        };
        let io = |source| FormatError::Io { path: path.clone(), source };
        let length = fs::metadata(&path).map_err(io)?.len();
        if length > MAX_TEXT {
            let problem = format!("it has {length} bytes; at most {MAX_TEXT} are read");
            return Err(FormatError::BadJson { file: name.to_owned(), problem });
        }
        fs::read(&path).map(Some).map_err(io)
    }

    /// A large file's bytes.
    pub(crate) fn map(&self, name: &str) -> Result<Mapped, FormatError> {
        match self {
            Files::Disk(path) => {
                let path = path.join(name);
                Mapped::open(&path).map_err(|source| FormatError::Io { path, source })
            }
            Files::Memory(files) => match files.get(name) {
                Some(bytes) => Ok(Mapped::owned(bytes.clone())),
                None => Err(FormatError::Io { path: name.into(), source: io::ErrorKind::NotFound.into() }),
            },
        }
    }
}
