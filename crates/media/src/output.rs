//! A file or a folder that appears when it is finished: it is made beside its place, under a name of its own, and renamed.
//! What is dropped before is removed.

use crate::{Format, MediaError};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile, TempDir};

/// The folder that something is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What an unfinished file or folder is called: hidden, beside its place, and recognisable.
fn unfinished<T>(
    path: &Path,
    make: impl FnOnce(&Builder<'_, '_>, &Path) -> io::Result<T>,
) -> Result<T, MediaError> {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(".part");
    let folder = parent(path);
    make(&builder, folder).map_err(|error| {
        // The operating system speaks of the unfinished one, which nobody asked for.
        let kind = error.kind();
        let source = match kind {
            io::ErrorKind::NotFound => {
                io::Error::new(kind, format!("there is no folder {}", folder.display()))
            }
            _ => error.raw_os_error().map_or_else(|| io::Error::from(kind), io::Error::from_raw_os_error),
        };
        MediaError::write(path, source)
    })
}

/// A file in the making.
pub(crate) struct OutputFile {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

impl OutputFile {
    /// Begins a file. What is there under its name stays until [`Self::finish`].
    pub(crate) fn create(path: &Path, format: Format) -> Result<Self, MediaError> {
        // A device would give way to a file of its name.
        if let Some(is) = fs::metadata(path).ok().and_then(|there| match there.file_type() {
            kind if kind.is_file() => None,
            kind if kind.is_dir() => Some("folder"),
            _ => Some("device"),
        }) {
            return Err(MediaError::WrongKind {
                path: path.to_path_buf(),
                is,
                format: format.name(),
                makes: "file",
            });
        }
        let file = unfinished(path, |builder, folder| {
            // As for any other file: the user's mask decides.
            let mut builder = builder.clone();
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            builder.tempfile_in(folder)
        })?;
        Ok(Self { path: path.to_path_buf(), writer: BufWriter::new(file) })
    }

    /// A nameless file beside it, which vanishes however the process ends.
    pub(crate) fn scratch(&self) -> Result<File, MediaError> {
        tempfile::tempfile_in(parent(&self.path)).map_err(|error| self.error(error))
    }

    /// The file itself, for a library that keeps what it writes to. Nothing may be buffered here meanwhile.
    pub(crate) fn handle(&self) -> Result<BufWriter<File>, MediaError> {
        let file = self.writer.get_ref().as_file().try_clone();
        Ok(BufWriter::new(file.map_err(|error| self.error(error))?))
    }

    /// An error about this file.
    pub(crate) fn error(&self, source: io::Error) -> MediaError {
        MediaError::write(&self.path, source)
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place, complete on the disk, and gives its length.
    pub(crate) fn finish(self) -> Result<u64, MediaError> {
        let Self { path, writer } = self;
        let error = |source| MediaError::write(&path, source);
        let file = writer.into_inner().map_err(|broken| error(broken.into_error()))?;
        file.as_file().sync_all().map_err(error)?;
        let bytes = file.as_file().metadata().map_err(error)?.len();
        file.persist(&path).map_err(|failed| error(failed.error))?;
        Ok(bytes)
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Seek for OutputFile {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.writer.seek(to)
    }
}

/// A folder of numbered pictures in the making.
pub(crate) struct OutputFolder {
    path: PathBuf,
    folder: TempDir,
}

/// Whether a file is one that this crate puts into a folder: at least six digits and `.png`.
fn is_frame(name: &str) -> bool {
    let digits = name.strip_suffix(".png").unwrap_or("");
    digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a folder may take this place: nothing is there, or nothing but frames.
fn replaceable(path: &Path, format: Format) -> Result<bool, MediaError> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => {}
        Ok(_) => {
            let path = path.to_path_buf();
            return Err(MediaError::WrongKind { path, is: "file", format: format.name(), makes: "folder" });
        }
        // If more is wrong than that nothing is there, making the unfinished folder meets it too.
        Err(_) => return Ok(false),
    }
    let entries = fs::read_dir(path).map_err(|error| MediaError::write(path, error))?;
    for entry in entries {
        let name = entry.map_err(|error| MediaError::write(path, error))?.file_name();
        let name = name.to_string_lossy();
        if !is_frame(&name) {
            return Err(MediaError::NotOurs { path: path.to_path_buf(), found: name.into_owned() });
        }
    }
    Ok(true)
}

impl OutputFolder {
    /// Begins a folder. One with frames of an earlier run stays until [`Self::finish`].
    pub(crate) fn create(path: &Path, format: Format) -> Result<Self, MediaError> {
        replaceable(path, format)?;
        let folder = unfinished(path, |builder, folder| builder.tempdir_in(folder))?;
        Ok(Self { path: path.to_path_buf(), folder })
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> io::Result<BufWriter<File>> {
        Ok(BufWriter::new(File::create_new(self.folder.path().join(name))?))
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place.
    pub(crate) fn finish(self, format: Format) -> Result<(), MediaError> {
        let error = |source| MediaError::write(&self.path, source);
        // Looked at again: hours may have passed.
        if replaceable(&self.path, format)? {
            // A folder cannot replace one with files in it, so the old one steps aside, and back if need be.
            let aside = unfinished(&self.path, |builder, folder| builder.tempdir_in(folder))?;
            let old = aside.path().join("old");
            fs::rename(&self.path, &old).map_err(error)?;
            if let Err(failed) = fs::rename(self.folder.path(), &self.path) {
                fs::rename(&old, &self.path).map_err(error)?;
                return Err(error(failed));
            }
        } else {
            fs::rename(self.folder.path(), &self.path).map_err(error)?;
        }
        // Nothing is left to remove under its old name.
        let _ = self.folder.keep();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_recognised() {
        assert!(is_frame("000001.png") && is_frame("1234567.png"));
        for other in
            ["00001.png", "000001.PNG", "000001", "00001a.png", ".png", "notes.txt", "000001.png.bak"]
        {
            assert!(!is_frame(other), "{other}");
        }
    }

    #[test]
    fn a_name_without_a_folder_is_in_the_current_one() {
        assert_eq!(parent(Path::new("a.mp4")), Path::new("."));
        assert_eq!(parent(Path::new("b/a.mp4")), Path::new("b"));
    }
}
