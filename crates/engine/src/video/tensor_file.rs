//! A safetensors file of one F32 tensor, written as its elements come and read whole.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use wushi_formats::safetensors::{NewTensor, Safetensors, header};

use super::VideoError;

/// A file on its way: it appears under its name, whole, when [`TensorFile::finish`] renames it. Dropped before that,
/// it leaves nothing behind.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    part: Part,
    file: BufWriter<File>,
    /// Elements that are still to come.
    left: usize,
}

/// The file until it is whole; removed when dropped.
#[derive(Debug)]
struct Part(Option<PathBuf>);

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Nobody can be told here, and the name says what the file is.
            let _ = fs::remove_file(path);
        }
    }
}

impl TensorFile {
    /// Begins a file with the tensor `name` of `shape` (outermost first) and further entries.
    pub fn create(
        path: &Path,
        name: &str,
        shape: &[usize],
        metadata: &[(&str, &str)],
    ) -> Result<TensorFile, VideoError> {
        let head = header(&[NewTensor { name, type_name: "F32", shape }], metadata)?;
        // `header` has found the bytes of all elements to be countable.
        let left = shape.iter().product();
        let part = beside(path);
        let file = OpenOptions::new().write(true).create_new(true).open(&part);
        let file = BufWriter::with_capacity(1 << 18, file.map_err(VideoError::io("create", &part))?);
        let mut made = TensorFile { path: path.to_owned(), part: Part(Some(part)), file, left };
        made.file.write_all(&head).map_err(VideoError::io("write", &made.path))?;
        Ok(made)
    }

    /// Writes the next elements.
    ///
    /// Panics when there are more than the shape has.
    pub fn write(&mut self, values: &[f32]) -> Result<(), VideoError> {
        self.left = self.left.checked_sub(values.len()).expect("no more elements than the shape has");
        let mut bytes = [0u8; 4096];
        for values in values.chunks(bytes.len() / 4) {
            for (place, value) in bytes.chunks_exact_mut(4).zip(values) {
                place.copy_from_slice(&value.to_le_bytes());
            }
            let written = self.file.write_all(&bytes[..4 * values.len()]);
            written.map_err(VideoError::io("write", &self.path))?;
        }
        Ok(())
    }

    /// Shows the whole file under its name, in place of what was there. It is on the disk itself by then.
    ///
    /// Panics when elements are missing.
    pub fn finish(mut self) -> Result<(), VideoError> {
        assert_eq!(self.left, 0, "all elements are written");
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.map_err(VideoError::io("write", &self.path))?;
        if let Some(part) = &self.part.0 {
            fs::rename(part, &self.path).map_err(VideoError::io("write", &self.path))?;
        }
        self.part.0 = None;
        Ok(())
    }
}

/// A name of its own in the same folder, so that a rename stays within one file system.
fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}-{number}.part", std::process::id()))
}

/// A file of one tensor that has been read.
pub(super) struct Read {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
    pub(super) file: Safetensors,
}

/// Reads the F32 tensor `name`, whose elements must all be finite.
pub(super) fn read(path: &Path, name: &str) -> Result<Read, VideoError> {
    let file = Safetensors::open(path)?;
    let bad = |problem: String| VideoError::BadTensor { path: path.to_owned(), problem };
    let Some(tensor) = file.tensors().iter().find(|tensor| tensor.name == name) else {
        let names: Vec<&str> = file.tensors().iter().take(4).map(|tensor| tensor.name.as_str()).collect();
        let others = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        return Err(bad(format!("there is no tensor `{name}` in it (it has {others})")));
    };
    if tensor.type_name != "F32" {
        return Err(bad(format!("tensor `{name}` is {}, expected F32", tensor.type_name)));
    }
    let bytes = file.tensor_bytes(tensor).as_chunks::<4>().0;
    let values: Vec<f32> = bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(bad(format!("element {index} of tensor `{name}` is {}", values[index])));
    }
    let shape = tensor.shape.clone();
    Ok(Read { shape, values, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("video.safetensors");
        let values: Vec<f32> = (0..6000).map(|i| i as f32 / 7.0).collect();
        let mut file = TensorFile::create(&path, "video", &[1, 2, 3000], &[("seed", "7")]).unwrap();
        file.write(&values[..5000]).unwrap();
        assert!(!path.exists());
        file.write(&values[5000..]).unwrap();
        file.finish().unwrap();
        let found = read(&path, "video").unwrap();
        assert_eq!((found.shape, found.values), (vec![1, 2, 3000], values));
        assert_eq!(found.file.metadata("seed"), Some("7"));

        drop(TensorFile::create(&path, "video", &[4], &[]).unwrap());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["video.safetensors"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let told = |name: &str| read(&path, name).err().unwrap().to_string();
        assert!(told("latents").contains("x.safetensors"));
        let mut file = TensorFile::create(&path, "video", &[2], &[]).unwrap();
        file.write(&[1.0, f32::NAN]).unwrap();
        file.finish().unwrap();
        assert!(told("latents").ends_with("there is no tensor `latents` in it (it has video)"));
        assert!(told("video").ends_with("element 1 of tensor `video` is NaN"));
        let nowhere = folder.path().join("no/such/folder/x");
        let error = TensorFile::create(&nowhere, "video", &[2], &[]).unwrap_err();
        assert!(error.to_string().starts_with("could not create"), "{error}");
        fs::write(&path, header(&[NewTensor { name: "a", type_name: "I8", shape: &[0] }], &[]).unwrap())
            .unwrap();
        assert!(told("a").ends_with("tensor `a` is I8, expected F32"));
    }
}
