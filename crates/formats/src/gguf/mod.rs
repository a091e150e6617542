//! GGUF files (versions 2 and 3, little-endian), mapped into memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::Path;

use wushi_graph::DType;

use crate::FormatError;
use crate::mapped::Mapped;

mod metadata;
mod parse;
mod types;
mod write;

pub use metadata::{Array, Metadata, StringArray, Value};
pub use types::{GgmlType, file_type};
pub(crate) use write::put_entry;
pub use write::{Outline, Stream, Writer};

/// One row of a file's tensor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name in the file, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// The file's own number of the storage type; displays as its name.
    pub ggml_type: GgmlType,
    /// The storage type, if it is supported.
    pub dtype: Option<DType>,
    /// Outermost dimension first (the reverse of the file's `ne`); the last one is contiguous.
    pub shape: Vec<usize>,
    /// The tensor's bytes in the file; empty if nobody knows the size of its type's blocks.
    pub range: Range<usize>,
}

/// An open GGUF file, its header read and checked.
#[derive(Debug)]
pub struct Gguf {
    bytes: Mapped,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl Gguf {
    /// Maps the file and reads its header. Errors name the file.
    ///
    /// Tensors of unsupported types are listed, not refused; see [`crate::Checkpoint::check_supported`].
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf, FormatError> {
        let path = path.as_ref();
        let in_file = |error| FormatError::InFile { path: path.to_owned(), error: Box::new(error) };
        if path.is_dir() {
            return Err(in_file(FormatError::NotGguf("it is a directory; name the file in it")));
        }
        let bytes = Mapped::open(path).map_err(|source| FormatError::Io { path: path.to_owned(), source })?;
        Gguf::read(bytes).map_err(in_file)
    }

    /// Reads a file that is already in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Gguf, FormatError> {
        Gguf::read(Mapped::owned(bytes))
    }

    pub(crate) fn read(bytes: Mapped) -> Result<Gguf, FormatError> {
        let header = parse::parse(bytes.as_slice())?;
        let mut by_name = HashMap::with_capacity(header.tensors.len());
        for (index, tensor) in header.tensors.iter().enumerate() {
            match by_name.entry(tensor.name.clone()) {
                Entry::Vacant(vacant) => vacant.insert(index),
                Entry::Occupied(taken) => return Err(FormatError::DuplicateTensor(taken.key().clone())),
            };
        }
        Ok(Gguf {
            bytes,
            version: header.version,
            metadata: header.metadata,
            tensors: header.tensors,
            by_name,
        })
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes in the file.
    pub fn file_size(&self) -> u64 {
        self.bytes.as_slice().len() as u64
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name, whether its type is supported or not.
    pub fn tensor_info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.by_name.get(name)?)
    }

    /// A tensor's bytes as the file holds them.
    pub fn tensor_bytes(&self, tensor: &TensorInfo) -> &[u8] {
        self.bytes.as_slice().get(tensor.range.clone()).unwrap_or_default()
    }

    /// The mapping, the metadata and the tensor table.
    pub(crate) fn into_parts(self) -> (Mapped, Metadata, Vec<TensorInfo>) {
        (self.bytes, self.metadata, self.tensors)
    }
}
