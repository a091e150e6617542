//! A model's metadata and tensors, whatever files they are in.
//!
//! Metadata has GGUF's keys and tensors have GGUF's names, also where the files are no GGUF: then every tensor has a
//! recipe that says from which bytes of which file it is made, and how. Most are the bytes themselves.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use wushi_graph::{DType, ReadError, TensorDesc, WeightSource};

use crate::FormatError;
use crate::gguf::{self, GgmlType, Gguf, Metadata};
use crate::mapped::Mapped;

mod float8;
mod made;
mod recipe;
mod shards;

pub use recipe::Recipe;

pub(crate) use float8::Float8;
pub(crate) use made::{Change, Made, Piece};
pub(crate) use recipe::Source;

/// A tensor of a checkpoint, as a model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Canonical name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// GGUF's number of the storage type; displays as its name.
    pub ggml_type: GgmlType,
    /// The storage type, if it is supported.
    pub dtype: Option<DType>,
    /// Outermost dimension first; the last one is contiguous.
    pub shape: Vec<usize>,
    /// Bytes it takes; 0 if nobody knows the size of its type's blocks.
    pub bytes: usize,
}

impl TensorInfo {
    /// Number of elements: the product of the shape, which the reader has checked for overflow.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a checkpoint holds of one storage type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeTotal {
    /// The storage type.
    pub ggml_type: GgmlType,
    /// How many tensors have it.
    pub tensors: usize,
    /// Elements in all of them.
    pub elements: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// What a checkpoint's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Container {
    /// GGUF of this version.
    Gguf(u32),
    /// safetensors.
    Safetensors,
}

/// An open checkpoint, its headers read and checked.
#[derive(Debug)]
pub struct Checkpoint {
    metadata: Metadata,
    container: Container,
    files: Vec<Mapped>,
    tensors: Vec<TensorInfo>,
    /// How each of `tensors` is made.
    made: Vec<Made>,
    by_name: HashMap<String, usize>,
}

impl Checkpoint {
    /// Opens a GGUF file, with all other parts of the model if it is one of several (`…-00001-of-00003.gguf`).
    ///
    /// Tensors of unsupported types are listed, not refused; see [`Checkpoint::check_supported`].
    ///
    /// # Errors
    /// A file that cannot be read or is damaged, a part that is missing or belongs to another model. They name the file.
    pub fn open_gguf(path: impl AsRef<Path>) -> Result<Checkpoint, FormatError> {
        let path = path.as_ref();
        let first = Gguf::open(path)?;
        let in_file = |error| FormatError::InFile { path: path.to_owned(), error: Box::new(error) };
        match shards::count(&first).map_err(in_file)? {
            None => Ok(Checkpoint::from_gguf(first)),
            Some(parts) => Checkpoint::join(shards::open(path, parts)?).map_err(in_file),
        }
    }

    /// A file that is open, or in memory.
    pub fn from_gguf(file: Gguf) -> Checkpoint {
        let container = Container::Gguf(file.version());
        let (mapped, metadata, tensors) = file.into_parts();
        let mut checkpoint = Checkpoint::empty(metadata, container);
        checkpoint.files.push(mapped);
        for tensor in tensors {
            // One file has no name twice: its reader saw to that.
            checkpoint.index(&tensor.name);
            checkpoint.push_stored(tensor, 0);
        }
        checkpoint
    }

    /// All parts of a model, in order.
    fn join(parts: Vec<Gguf>) -> Result<Checkpoint, FormatError> {
        let mut joined = None::<Checkpoint>;
        for part in parts {
            let Some(joined) = &mut joined else {
                joined = Some(Checkpoint::from_gguf(part));
                continue;
            };
            let (mapped, _, tensors) = part.into_parts();
            let file = joined.files.len();
            joined.files.push(mapped);
            for tensor in tensors {
                if !joined.index(&tensor.name) {
                    return Err(FormatError::DuplicateTensor(tensor.name));
                }
                joined.push_stored(tensor, file);
            }
        }
        let mut joined = joined.unwrap_or_else(|| Checkpoint::empty(Metadata::new(), Container::Gguf(3)));
        // What said that there are parts is no longer true of the whole.
        joined.metadata.remove_below("split.");
        Ok(joined)
    }

    /// Tensors and how they are made, of files whose readers have checked them.
    pub(crate) fn assemble(
        metadata: Metadata,
        container: Container,
        files: Vec<Mapped>,
        tensors: Vec<(TensorInfo, Made)>,
    ) -> Result<Checkpoint, FormatError> {
        let mut checkpoint = Checkpoint { files, ..Checkpoint::empty(metadata, container) };
        for (tensor, made) in tensors {
            if !checkpoint.index(&tensor.name) {
                return Err(FormatError::DuplicateTensor(tensor.name));
            }
            checkpoint.tensors.push(tensor);
            checkpoint.made.push(made);
        }
        Ok(checkpoint)
    }

    fn empty(metadata: Metadata, container: Container) -> Checkpoint {
        Checkpoint {
            metadata,
            container,
            files: Vec::new(),
            tensors: Vec::new(),
            made: Vec::new(),
            by_name: HashMap::new(),
        }
    }

    /// Gives a name to the next tensor, unless it is taken.
    fn index(&mut self, name: &str) -> bool {
        match self.by_name.entry(name.to_owned()) {
            Entry::Vacant(vacant) => {
                vacant.insert(self.tensors.len());
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    fn push_stored(&mut self, tensor: gguf::TensorInfo, file: usize) {
        let gguf::TensorInfo { name, ggml_type, dtype, shape, range } = tensor;
        self.tensors.push(TensorInfo { name, ggml_type, dtype, shape, bytes: range.len() });
        self.made.push(Made::stored(Piece { file, range }));
    }

    /// Files, metadata, and the tensors with how they are made.
    pub(crate) fn into_parts(self) -> (Vec<Mapped>, Metadata, Vec<TensorInfo>, Vec<Made>) {
        (self.files, self.metadata, self.tensors, self.made)
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What the files are.
    pub fn container(&self) -> Container {
        self.container
    }

    /// The files that hold the tensors, with their sizes in bytes; none if the checkpoint was read from memory.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.files.iter().filter_map(|file| Some((file.path()?, file.as_slice().len() as u64)))
    }

    /// Bytes of all files that hold tensors.
    pub fn file_size(&self) -> u64 {
        self.files.iter().map(|file| file.as_slice().len() as u64).sum()
    }

    /// All tensors, in the order of the files.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name, whether its type is supported or not.
    pub fn tensor_info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.by_name.get(name)?)
    }

    /// Elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.elements() as u64).fold(0, u64::saturating_add)
    }

    /// Totals by storage type, the one with the most elements first.
    pub fn types(&self) -> Vec<TypeTotal> {
        let mut totals: Vec<TypeTotal> = Vec::new();
        for tensor in &self.tensors {
            let ggml_type = tensor.ggml_type;
            let place = totals.iter().position(|total| total.ggml_type == ggml_type).unwrap_or_else(|| {
                totals.push(TypeTotal { ggml_type, tensors: 0, elements: 0, bytes: 0 });
                totals.len() - 1
            });
            let total = &mut totals[place];
            total.tensors += 1;
            total.elements = total.elements.saturating_add(tensor.elements() as u64);
            total.bytes = total.bytes.saturating_add(tensor.bytes as u64);
        }
        totals.sort_by_key(|total| (std::cmp::Reverse(total.elements), total.ggml_type));
        totals
    }

    /// Refuses what can be listed but not run, naming the first tensor in the way.
    pub fn check_supported(&self) -> Result<(), FormatError> {
        if let Some(parts) = self.metadata.u32("split.count")?.filter(|&parts| parts > 1) {
            return Err(FormatError::Shards { parts, problem: "the others are not at hand".to_owned() });
        }
        match self.tensors.iter().find(|tensor| tensor.dtype.is_none()) {
            None => Ok(()),
            Some(tensor) => Err(FormatError::UnsupportedType {
                tensor: tensor.name.clone(),
                found: tensor.ggml_type.to_string(),
                supported: GgmlType::supported_names(),
            }),
        }
    }

    /// Feeds everything that tells this checkpoint from others to a digest, at the cost of a few pages: the metadata,
    /// the tensors' names, types and shapes, and the first 4 KiB of whatever bytes each is made of. Into how many files
    /// a model is cut makes no difference.
    pub fn identify(&self, feed: &mut dyn FnMut(&[u8])) {
        const SAMPLE: usize = 4096;
        let mut entry = Vec::new();
        for (key, value) in self.metadata.iter() {
            entry.clear();
            gguf::put_entry(&mut entry, key, value);
            feed(&entry);
        }
        for (tensor, made) in self.tensors.iter().zip(&self.made) {
            feed(format!("\n{} {} {:?}\n", tensor.name, tensor.ggml_type, tensor.shape).as_bytes());
            made.identify(&self.files, SAMPLE, feed);
        }
    }
}

impl WeightSource for Checkpoint {
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>> {
        let tensor = self.tensor_info(name)?;
        Some(TensorDesc { dtype: tensor.dtype?, shape: &tensor.shape })
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        let place = *self.by_name.get(name).ok_or_else(|| ReadError::missing(name))?;
        self.made[place]
            .bytes(&self.files, &self.tensors[place].shape)
            .map_err(|problem| ReadError { name: name.to_owned(), problem })
    }

    fn release(&self, name: &str) {
        let Some(&place) = self.by_name.get(name) else { return };
        for piece in self.made[place].pieces() {
            self.files[piece.file].release(&piece.range);
        }
    }
}
