//! Files mapped into memory.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};

/// A file's bytes: mapped, or in memory already.
#[derive(Debug)]
pub(crate) struct Mapped {
    path: Option<PathBuf>,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Mapped {
    /// Maps a regular file; an empty one has no bytes.
    pub(crate) fn open(path: &Path) -> io::Result<Mapped> {
        // Asked before opening, because opening a pipe waits for its writer.
        let about = fs::metadata(path)?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "not a regular file"));
        }
        let bytes = if about.len() == 0 {
            Bytes::Owned(Vec::new())
        } else {
            let file = File::open(path)?;
            // SAFETY: a private, read-only mapping. It stays sound as long as nobody shortens or rewrites the file in
            // place while it is mapped, which no reader of files can rule out; Wushi itself only ever puts whole files
            // into its store by renaming, so that an old mapping keeps the old file.
            Bytes::Mapped(unsafe { Mmap::map(&file) }?)
        };
        Ok(Mapped { path: Some(path.to_owned()), bytes })
    }

    /// Takes bytes that are in memory.
    pub(crate) fn owned(bytes: Vec<u8>) -> Mapped {
        Mapped { path: None, bytes: Bytes::Owned(bytes) }
    }

    /// Where the file is, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Lets the whole pages of a range leave memory; they are read again when touched.
    pub(crate) fn release(&self, range: &Range<usize>) {
        // A multiple of every page size in use (4, 16 and 64 KiB), so that only whole pages of this range go.
        const WHOLE_PAGES: usize = 64 << 10;
        let Bytes::Mapped(map) = &self.bytes else { return };
        let start = range.start.next_multiple_of(WHOLE_PAGES);
        let end = range.end / WHOLE_PAGES * WHOLE_PAGES;
        if start >= end {
            return;
        }
        // SAFETY: the mapping is private, read-only and backed by a file, and nothing was ever written to it: pages
        // dropped here are read from the file again when touched, with the same contents, so that views which are
        // still alive stay valid.
        let dropped = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        if let Err(error) = dropped {
            tracing::debug!(?range, %error, "pages that were copied stay in memory");
        }
    }
}
