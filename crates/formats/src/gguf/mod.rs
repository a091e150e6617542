//! GGUF files (versions 2 and 3, little-endian), mapped into memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::{Mmap, UncheckedAdvice};
use wushi_graph::{DType, TensorView, WeightSource};

use crate::FormatError;

mod metadata;
mod parse;
mod types;
mod write;

pub use metadata::{Array, Metadata, StringArray, Value};
pub use types::GgmlType;
pub use write::Writer;

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

impl TensorInfo {
    /// Number of elements: the product of the shape, which the reader has checked for overflow.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a file holds of one storage type.
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

/// An open GGUF file, its header read and checked.
#[derive(Debug)]
pub struct Gguf {
    bytes: Bytes,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl Gguf {
    /// Maps the file and reads its header. Errors name the file.
    ///
    /// Tensors of unsupported types are listed, not refused; see [`Gguf::check_supported`].
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf, FormatError> {
        let path = path.as_ref();
        let io = |source| FormatError::Io { path: path.to_owned(), source };
        let in_file = |error| FormatError::InFile { path: path.to_owned(), error: Box::new(error) };
        // Asked before opening, because opening a pipe waits for its writer.
        let about = fs::metadata(path).map_err(io)?;
        if about.is_dir() {
            return Err(in_file(FormatError::NotGguf("it is a directory; name the file in it")));
        }
        if !about.is_file() {
            return Err(io(io::Error::new(io::ErrorKind::Unsupported, "not a regular file")));
        }
        if about.len() == 0 {
            return Err(in_file(FormatError::NotGguf("it is empty")));
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: a private, read-only mapping. It stays sound as long as nobody shortens or rewrites the file in
        // place while it is mapped, which no reader of files can rule out; Wushi itself only ever puts whole files
        // into its store by renaming, so that an old mapping keeps the old file.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Gguf::read(Bytes::Mapped(map)).map_err(in_file)
    }

    /// Reads a file that is already in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Gguf, FormatError> {
        Gguf::read(Bytes::Owned(bytes))
    }

    fn read(bytes: Bytes) -> Result<Gguf, FormatError> {
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
            total.bytes += tensor.range.len() as u64;
        }
        totals.sort_by_key(|total| (std::cmp::Reverse(total.elements), total.ggml_type));
        totals
    }

    /// Refuses a file that can be listed but not run, naming the first tensor in the way.
    pub fn check_supported(&self) -> Result<(), FormatError> {
        match self.metadata.u32("split.count")? {
            None | Some(0 | 1) => {}
            Some(parts) => return Err(FormatError::Split(parts)),
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
}

impl WeightSource for Gguf {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let tensor = self.tensor_info(name)?;
        Some(TensorView { dtype: tensor.dtype?, shape: &tensor.shape, bytes: self.tensor_bytes(tensor) })
    }

    fn release(&self, name: &str) {
        // A multiple of every page size in use (4, 16 and 64 KiB), so that only whole pages of this tensor go.
        const WHOLE_PAGES: usize = 64 << 10;
        let (Bytes::Mapped(map), Some(tensor)) = (&self.bytes, self.tensor_info(name)) else { return };
        let start = tensor.range.start.next_multiple_of(WHOLE_PAGES);
        let end = tensor.range.end / WHOLE_PAGES * WHOLE_PAGES;
        if start >= end {
            return;
        }
        // SAFETY: the mapping is private, read-only and backed by a file, and nothing was ever written to it: pages
        // dropped here are read from the file again when touched, with the same contents, so that views which are
        // still alive stay valid.
        let dropped = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        if let Err(error) = dropped {
            tracing::debug!(tensor = name, %error, "the pages of a copied tensor stay in memory");
        }
    }
}
