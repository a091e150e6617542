//! PyTorch's checkpoints (`torch.save`, since version 1.6): a zip archive whose entries are stored as they are, one of
//! them a pickle that says what the others hold.
//!
//! A pickle is a program. Here it is read as the few instructions that a dictionary of tensors takes, none of which
//! runs anything; whatever else it says is refused by name.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use wushi_graph::DType;
use zip::{CompressionMethod, ZipArchive};

use crate::FormatError;
use crate::error::excerpt;
use crate::mapped::Mapped;
use crate::safetensors::StoredTensor;

mod pickle;
mod state;

/// More entries than any checkpoint has tensors.
const MAX_ENTRIES: usize = 1 << 20;
/// Longer than the pickle of any dictionary of tensors.
const MAX_PICKLE: usize = 64 << 20;
/// Where the pickle of the oldest kind begins: protocol 2, then a magic number as a long integer.
const LEGACY: [u8; 5] = [0x80, 0x02, 0x8a, 0x0a, 0x6c];

/// Element types of storages, their bytes, how safetensors calls them, and what they are here.
const TYPES: &[(&str, &str, usize, &str, Option<DType>)] = &[
    ("FloatStorage", "float32", 4, "F32", Some(DType::F32)),
    ("HalfStorage", "float16", 2, "F16", Some(DType::F16)),
    ("BFloat16Storage", "bfloat16", 2, "BF16", Some(DType::BF16)),
    ("DoubleStorage", "float64", 8, "F64", None),
    ("LongStorage", "int64", 8, "I64", None),
    ("IntStorage", "int32", 4, "I32", None),
    ("ShortStorage", "int16", 2, "I16", None),
    ("CharStorage", "int8", 1, "I8", None),
    ("ByteStorage", "uint8", 1, "U8", None),
    ("BoolStorage", "bool", 1, "BOOL", None),
    ("", "float8_e4m3fn", 1, "F8_E4M3", None),
    ("", "float8_e5m2", 1, "F8_E5M2", None),
];

/// Whether a file begins like a checkpoint, be it one that cannot be read.
pub(crate) fn is_checkpoint(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04") || file.starts_with(&LEGACY)
}

/// A checkpoint's tensors, in the order of its dictionary, with their places in the file.
pub(crate) fn read(bytes: Mapped) -> Result<(Mapped, Vec<StoredTensor>), FormatError> {
    let tensors = tensors(bytes.as_slice())?;
    Ok((bytes, tensors))
}

fn bad(problem: impl Into<String>) -> FormatError {
    FormatError::BadTorch(problem.into())
}

/// An archive's entries by what stands behind the name of their common folder.
struct Archive<'a> {
    file: &'a [u8],
    entries: HashMap<String, Range<usize>>,
}

impl Archive<'_> {
    fn open(file: &[u8]) -> Result<Archive<'_>, FormatError> {
        if file.starts_with(&LEGACY) {
            return Err(bad(
                "it is of the kind from before PyTorch 1.6, without zip; load it with PyTorch and save it again, or convert it to safetensors",
            ));
        }
        let mut zip = ZipArchive::new(Cursor::new(file)).map_err(|error| {
            bad(format!("its directory cannot be read ({error}); it is truncated or damaged"))
        })?;
        if zip.len() > MAX_ENTRIES {
            return Err(bad(format!("{} entries; at most {MAX_ENTRIES} make sense", zip.len())));
        }
        let mut entries = HashMap::new();
        for index in 0..zip.len() {
            let damaged = |error| bad(format!("entry {index} cannot be read ({error}); the file is damaged"));
            let entry = zip.by_index_raw(index).map_err(damaged)?;
            let path = entry.name().map_err(damaged)?.into_owned();
            let shown = excerpt(&path);
            if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
                return Err(bad(format!(
                    "entry `{shown}` is compressed, which PyTorch does not do; is this another kind of archive?"
                )));
            }
            let range = entry.data_start().and_then(|start| {
                let start = usize::try_from(start).ok()?;
                let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
                (end <= file.len() && entry.size() == entry.compressed_size()).then_some(start..end)
            });
            let Some(range) = range else {
                return Err(bad(format!(
                    "entry `{shown}` reaches past the end of the file; it is truncated"
                )));
            };
            // All lie in one folder, named after the file it was saved as.
            let name = path.split_once('/').map_or(path.as_str(), |(_, name)| name);
            if entries.insert(name.to_owned(), range).is_some() {
                return Err(bad(format!("entry `{shown}` is there twice")));
            }
        }
        Ok(Archive { file, entries })
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.file.get(self.entries.get(name)?.clone())
    }
}

fn tensors(file: &[u8]) -> Result<Vec<StoredTensor>, FormatError> {
    let archive = Archive::open(file)?;
    let pickle = archive
        .bytes("data.pkl")
        .ok_or_else(|| bad("it has no data.pkl: it is another kind of zip archive"))?;
    if archive.entries.contains_key("constants.pkl") {
        return Err(bad("it is a program (TorchScript), not a dictionary of tensors; save its state_dict()"));
    }
    if archive.bytes("byteorder").is_some_and(|order| order.trim_ascii() != b"little") {
        return Err(bad("it was written on a big-endian machine; save it again on another"));
    }
    if pickle.len() > MAX_PICKLE {
        return Err(bad(format!("its data.pkl has {} bytes; at most {MAX_PICKLE} make sense", pickle.len())));
    }
    let found = state::tensors(&pickle::read(pickle)?)?;
    found.into_iter().map(|tensor| place(&archive, tensor)).collect()
}

/// Where a tensor's elements lie in the file.
fn place(archive: &Archive<'_>, tensor: state::Tensor<'_>) -> Result<StoredTensor, FormatError> {
    let shown = excerpt(tensor.name);
    let bad_shape = |problem: String| FormatError::BadShape { tensor: shown.clone(), problem };
    let bad_offset = |problem: String| FormatError::BadOffset { tensor: shown.clone(), problem };
    let entry = archive.entries.get(&format!("data/{}", tensor.key)).cloned();
    let entry = entry
        .ok_or_else(|| bad_offset(format!("its storage `{}` is not in the file", excerpt(tensor.key))))?;
    let (_, _, size, type_name, dtype) = TYPES[tensor.dtype];
    let elements = tensor.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let elements = elements.ok_or_else(|| bad_shape("impossible shape".to_owned()))?;
    let mut expected = 1usize;
    for (&size, &stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
        if size != 1 && stride != expected && elements != 0 {
            return Err(bad_shape(format!(
                "its elements do not lie in order (strides {:?} of shape {:?}); make it contiguous and save it again",
                tensor.strides, tensor.shape
            )));
        }
        expected = expected.saturating_mul(size);
    }
    let range = tensor.offset.checked_mul(size).and_then(|from| {
        let start = entry.start.checked_add(from)?;
        let end = start.checked_add(elements.checked_mul(size)?)?;
        (end <= entry.end).then_some(start..end)
    });
    let range = range.ok_or_else(|| {
        bad_offset(format!(
            "its {elements} elements from {} on reach past the end of its storage, which has {} bytes",
            tensor.offset,
            entry.len()
        ))
    })?;
    Ok(StoredTensor {
        name: tensor.name.to_owned(),
        type_name: type_name.to_owned(),
        dtype,
        shape: tensor.shape,
        range,
    })
}
