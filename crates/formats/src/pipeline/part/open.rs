//! Opening a part, whatever its files are.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::super::Object;
use super::{Part, PartTensor, in_file, scales};
use crate::checkpoint::{Checkpoint, Made, Piece};
use crate::error::excerpt;
use crate::huggingface::files::Files;
use crate::huggingface::{CONFIG, indexed, json};
use crate::mapped::Mapped;
use crate::safetensors::Safetensors;
use crate::{FormatError, Gguf, Metadata, PipelineError};

/// Names of files with weights before `.safetensors`, as libraries write them: models of language, and the others.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
/// Files that may hold a part.
const WEIGHTS: [&str; 5] = [".safetensors", ".gguf", ".pth", ".pt", ".bin"];
/// GGUF files that have a tensor with other dimensions than it has say which below this key.
const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";

/// Whether a file of safetensors has the name that libraries give to weights, or to one of several files of them.
pub(in crate::pipeline) fn is_usual(name: &str) -> bool {
    let rest = STEMS.iter().find_map(|stem| name.strip_prefix(stem));
    rest.is_some_and(|rest| rest.starts_with(['.', '-']) && rest.ends_with(".safetensors"))
}

impl Part {
    /// Opens a folder or a file.
    ///
    /// A folder has weights, and `config.json` if there is one: safetensors, in several files if there is an index, or
    /// one file alone of safetensors, GGUF or PyTorch. A file is what its bytes say, whatever its name; `config.json`
    /// beside it belongs to it if it has the name that libraries give to weights.
    ///
    /// # Errors
    /// Files that are missing, damaged or of another kind, and several that could be meant. They name the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Part, FormatError> {
        let path = path.as_ref();
        if path.is_dir() {
            return open_folder(path).map_err(|error| in_file(path, error));
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // One of several files brings the others.
        if is_usual(name) && name.contains("-of-") {
            let index = index_name(&Files::Disk(folder.to_owned()).names()?).is_some();
            return if index { Part::open(folder) } else { Err(in_file(folder, no_index(folder))) };
        }
        let mut part = open_file(path).map_err(|error| in_file(path, error))?;
        if is_usual(name) {
            part.config = config(&Files::Disk(folder.to_owned())).map_err(|error| in_file(folder, error))?;
        }
        Ok(part)
    }

    /// Reads a file that is in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Part, FormatError> {
        read(Path::new(""), Mapped::owned(bytes))
    }
}

/// `config.json`, an object, if it is there.
fn config(files: &Files) -> Result<Option<Arc<Object>>, FormatError> {
    object(files, CONFIG).map(|config| config.map(Arc::new))
}

/// A file of JSON that must be an object, if it is there.
pub(in crate::pipeline) fn object(files: &Files, name: &str) -> Result<Option<Object>, FormatError> {
    match json(files, name)? {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(FormatError::BadJson { file: name.to_owned(), problem: "it is no object".to_owned() }),
    }
}

fn open_folder(folder: &Path) -> Result<Part, FormatError> {
    let files = Files::Disk(folder.to_owned());
    let names = files.names()?;
    let config = config(&files)?;
    let mut part = match index_name(&names) {
        Some(index) => open_indexed(folder, &files, index)?,
        None => {
            let mut part = open_file(&folder.join(lone_file(folder, &names)?))?;
            part.path = folder.to_owned();
            part
        }
    };
    part.config = config;
    Ok(part)
}

/// The index of a folder whose weights are in several files, unless there is one with all of them.
fn index_name(names: &[String]) -> Option<&str> {
    STEMS.iter().find_map(|stem| {
        let whole = format!("{stem}.safetensors");
        let index = format!("{stem}.safetensors.index.json");
        let is_whole = names.contains(&whole);
        names.iter().find(|name| **name == index && !is_whole).map(String::as_str)
    })
}

/// The one file of a folder that has weights.
fn lone_file<'a>(folder: &Path, names: &'a [String]) -> Result<&'a str, FormatError> {
    let usual = STEMS.map(|stem| format!("{stem}.safetensors"));
    if let Some(name) = names.iter().find(|name| usual.contains(name)) {
        return Ok(name);
    }
    // Of the kinds of files in order, so that one converted does not make a folder ambiguous.
    for kind in WEIGHTS {
        let found: Vec<&str> = names.iter().map(String::as_str).filter(|name| name.ends_with(kind)).collect();
        match found[..] {
            [] => {}
            [name] => return Ok(name),
            ref several if several.iter().all(|name| name.contains("-of-")) => return Err(no_index(folder)),
            ref several => {
                return Err(PipelineError::ManyParts {
                    part: "weights",
                    found: excerpt(&several.join(", ")),
                    place: folder.to_owned(),
                    advice: "name the file itself".to_owned(),
                }
                .into());
            }
        }
    }
    Err(PipelineError::MissingPart {
        part: "file with weights",
        looked: format!("{}, their indices, and files that end in {}", usual.join(", "), WEIGHTS.join(", ")),
        place: folder.to_owned(),
        advice: "the download may not be complete".to_owned(),
    }
    .into())
}

/// What to say of weights in several files without the index that says which is in which.
fn no_index(folder: &Path) -> FormatError {
    let looked = STEMS.map(|stem| format!("{stem}.safetensors.index.json")).join(" or ");
    let advice = "the download may not be complete".to_owned();
    PipelineError::MissingPart { part: "index of the weights", looked, place: folder.to_owned(), advice }
        .into()
}

fn open_indexed(folder: &Path, files: &Files, index: &str) -> Result<Part, FormatError> {
    let (names, entries) = indexed(files, index)?.unwrap_or_default();
    let (mut mapped, mut tensors) = (Vec::new(), Vec::new());
    for (place, name) in names.iter().enumerate() {
        let file = Safetensors::read(files.map(name)?).map_err(|error| in_file(&folder.join(name), error))?;
        let (bytes, stored) = file.into_parts();
        mapped.push(bytes);
        tensors.extend(stored.into_iter().map(|tensor| (place, tensor)));
    }
    let part = scales::assemble(folder, mapped, tensors)?;
    for (tensor, file) in entries {
        // Scales are no tensors of the part any more, but files are where they were.
        let place = names.iter().position(|name| *name == file);
        let found = part.by_name.get(&tensor).and_then(|&at| part.made[at].pieces().first());
        if found.is_some_and(|piece| Some(piece.file) != place)
            || found.is_none() && !scales::is_beside(&tensor)
        {
            let problem = format!("tensor `{}` is not in {file}, where it should be", excerpt(&tensor));
            return Err(FormatError::BadJson { file: index.to_owned(), problem });
        }
    }
    Ok(part)
}

fn open_file(path: &Path) -> Result<Part, FormatError> {
    let bytes = Mapped::open(path).map_err(|source| FormatError::Io { path: path.to_owned(), source })?;
    read(path, bytes)
}

/// A file's tensors, the kind of file told by its first bytes.
fn read(path: &Path, bytes: Mapped) -> Result<Part, FormatError> {
    let start = bytes.as_slice();
    if start.starts_with(b"GGUF") {
        let checkpoint = match bytes.path() {
            // One of several files brings the others.
            Some(path) => Checkpoint::open_gguf(path)?,
            None => Checkpoint::from_gguf(Gguf::read(bytes)?),
        };
        return from_gguf(path, checkpoint);
    }
    if crate::torch::is_checkpoint(start) {
        let (bytes, stored) = crate::torch::read(bytes)?;
        return scales::assemble(path, vec![bytes], stored.into_iter().map(|tensor| (0, tensor)).collect());
    }
    let (bytes, stored) = Safetensors::read(bytes)?.into_parts();
    scales::assemble(path, vec![bytes], stored.into_iter().map(|tensor| (0, tensor)).collect())
}

fn from_gguf(path: &Path, checkpoint: Checkpoint) -> Result<Part, FormatError> {
    let (files, metadata, tensors, made) = checkpoint.into_parts();
    let mut named: Vec<(PartTensor, Made)> = Vec::with_capacity(tensors.len());
    let mut shapes = Vec::new();
    for (tensor, made) in tensors.into_iter().zip(made) {
        if let Some(shape) = original_shape(&metadata, &tensor.name)? {
            shapes.push((tensor.name.clone(), shape));
        }
        let stored = tensor.ggml_type.to_string();
        named
            .push((PartTensor { name: tensor.name, stored, dtype: tensor.dtype, shape: tensor.shape }, made));
    }
    let mut part = Part::assemble(path, metadata, files, named)?;
    for (name, shape) in shapes {
        part.view_as(&name, &shape)?;
    }
    Ok(part)
}

/// The shape a tensor had before it was flattened, if the file says so.
fn original_shape(metadata: &Metadata, tensor: &str) -> Result<Option<Vec<usize>>, FormatError> {
    let key = format!("{ORIGINAL_SHAPE}{tensor}");
    let Some(sizes) = metadata.i32_array(&key)? else { return Ok(None) };
    let shape: Option<Vec<usize>> = sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
    match shape {
        Some(shape) => Ok(Some(shape)),
        None => Err(FormatError::InvalidValue { key, problem: format!("the impossible shape {sizes:?}") }),
    }
}

/// A tensor of a file, and in which of the part's files it is.
pub(super) type Stored = (usize, crate::safetensors::StoredTensor);

/// A tensor that is its bytes.
pub(super) fn plain((file, tensor): Stored) -> (PartTensor, Made) {
    let made = Made::stored(Piece { file, range: tensor.range });
    let part =
        PartTensor { name: tensor.name, stored: tensor.type_name, dtype: tensor.dtype, shape: tensor.shape };
    (part, made)
}
