//! Files in the safetensors format, mapped into memory.
//!
//! `u64` length of the header, little-endian; the header, a JSON object of `{dtype, shape, data_offsets}` by tensor
//! name; the tensors' bytes, without gap or overlap.

mod write;

pub use write::{NewTensor, header};

use std::fmt;
use std::ops::Range;
use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use wushi_graph::DType;

use crate::FormatError;
use crate::error::{excerpt, stranger};
use crate::mapped::Mapped;

/// The longest header that the format's own library reads.
const MAX_HEADER: u64 = 100_000_000;
/// More dimensions than any tensor has.
const MAX_DIMENSIONS: usize = 16;
/// Longer names than any file has; keeps messages about them readable.
const MAX_NAME: usize = 1024;

/// Element types the format knows, with their bits, and what they are here.
const TYPES: &[(&str, usize, Option<DType>)] = &[
    ("F32", 32, Some(DType::F32)),
    ("F16", 16, Some(DType::F16)),
    ("BF16", 16, Some(DType::BF16)),
    ("F64", 64, None),
    ("C64", 64, None),
    ("I64", 64, None),
    ("U64", 64, None),
    ("I32", 32, None),
    ("U32", 32, None),
    ("I16", 16, None),
    ("U16", 16, None),
    ("I8", 8, None),
    ("U8", 8, None),
    ("BOOL", 8, None),
    ("F8_E4M3", 8, None),
    ("F8_E4M3FN", 8, None),
    ("float8_e4m3fn", 8, None),
    ("F8_E5M2", 8, None),
    ("float8_e5m2", 8, None),
    ("F8_E8M0", 8, None),
    ("F6_E2M3", 6, None),
    ("F6_E3M2", 6, None),
    ("F4", 4, None),
];

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// The tensor's name in the file.
    pub name: String,
    /// The element type as the file says it, e.g. `BF16`.
    pub type_name: String,
    /// The storage type, if it is supported.
    pub dtype: Option<DType>,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// The tensor's bytes in the file.
    pub range: Range<usize>,
}

/// An open file, its header read and checked.
#[derive(Debug)]
pub struct Safetensors {
    bytes: Mapped,
    tensors: Vec<StoredTensor>,
    metadata: Map<String, Value>,
}

impl Safetensors {
    /// Maps the file and reads its header. Errors name the file.
    pub fn open(path: &Path) -> Result<Safetensors, FormatError> {
        let bytes = Mapped::open(path).map_err(|source| FormatError::Io { path: path.to_owned(), source })?;
        Safetensors::read(bytes)
            .map_err(|error| FormatError::InFile { path: path.to_owned(), error: Box::new(error) })
    }

    /// Reads a file that is already in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Safetensors, FormatError> {
        Safetensors::read(Mapped::owned(bytes))
    }

    pub(crate) fn read(bytes: Mapped) -> Result<Safetensors, FormatError> {
        let (tensors, metadata) = parse(bytes.as_slice())?;
        Ok(Safetensors { bytes, tensors, metadata })
    }

    /// All tensors, in the order of their bytes.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// A tensor's bytes.
    pub fn tensor_bytes(&self, tensor: &StoredTensor) -> &[u8] {
        self.bytes.as_slice().get(tensor.range.clone()).unwrap_or_default()
    }

    /// What the file says under `key` besides its tensors, if that is text.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.as_str()
    }

    pub(crate) fn into_parts(self) -> (Mapped, Vec<StoredTensor>) {
        (self.bytes, self.tensors)
    }
}

/// What the header says of one tensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header: as a map, but no name may come twice, which a map would not notice.
struct Header {
    tensors: IndexMap<String, Described>,
    /// What `__metadata__` says: text by key, in files that keep to the format.
    metadata: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tensors = IndexMap::new();
                let mut metadata = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if let Value::Object(said) = map.next_value()? {
                            metadata = said;
                        }
                        continue;
                    }
                    let described = map.next_value()?;
                    if let indexmap::map::Entry::Vacant(vacant) = tensors.entry(name) {
                        vacant.insert(described);
                    } else {
                        return Err(serde::de::Error::custom("a tensor appears twice"));
                    }
                }
                Ok(Header { tensors, metadata })
            }
        }
        deserializer.deserialize_map(Names)
    }
}

fn parse(file: &[u8]) -> Result<(Vec<StoredTensor>, Map<String, Value>), FormatError> {
    let bad = |problem: String| FormatError::BadSafetensors(problem);
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(bad(guess(file).to_owned()));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().filter(|_| length <= MAX_HEADER);
    let Some((header, data)) = header.and_then(|length| rest.split_at_checked(length)) else {
        return Err(bad(guess(file).to_owned()));
    };
    if !header.starts_with(b"{") {
        return Err(bad(guess(file).to_owned()));
    }
    let Header { tensors: described, metadata } = serde_json::from_slice(header)
        .map_err(|error| bad(format!("its header is damaged: {}", excerpt(&error.to_string()))))?;
    let start = 8 + header.len();
    let mut tensors: Vec<StoredTensor> = described
        .into_iter()
        .map(|(name, tensor)| stored(name, tensor, start, data.len()))
        .collect::<Result<_, _>>()?;
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    // Tensors lie one after the other, so a damaged offset leaves an overlap or a gap.
    let mut end = start;
    for tensor in &tensors {
        if tensor.range.start != end {
            let what =
                if tensor.range.start < end { "overlap another tensor's" } else { "leave a gap before them" };
            return Err(FormatError::BadOffset {
                tensor: tensor.name.clone(),
                problem: format!("its bytes {what}"),
            });
        }
        end = tensor.range.end;
    }
    match end == file.len() {
        true => Ok((tensors, metadata)),
        false => Err(bad(format!("{} bytes behind the last tensor belong to none", file.len() - end))),
    }
}

fn stored(name: String, tensor: Described, start: usize, data: usize) -> Result<StoredTensor, FormatError> {
    if name.len() > MAX_NAME {
        return Err(FormatError::BadName(format!("a tensor's name has {} bytes", name.len())));
    }
    let shown = excerpt(&name);
    let bad_shape = |problem: String| FormatError::BadShape { tensor: shown.clone(), problem };
    let sizes: Option<Vec<usize>> = tensor.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
    let elements =
        sizes.as_ref().and_then(|s| s.iter().try_fold(1usize, |product, &d| product.checked_mul(d)));
    let (Some(shape), Some(elements), true) = (sizes, elements, tensor.shape.len() <= MAX_DIMENSIONS) else {
        return Err(bad_shape("impossible shape".to_owned()));
    };
    let (from, to) = tensor.data_offsets;
    let range = usize::try_from(from)
        .ok()
        .zip(usize::try_from(to).ok())
        .filter(|(from, to)| from <= to && *to <= data);
    let Some((from, to)) = range else {
        let problem = format!(
            "offsets {from} to {to} reach past the end of the file, which has {data} bytes of tensors"
        );
        return Err(FormatError::BadOffset { tensor: shown, problem });
    };
    let known = TYPES.iter().find(|(type_name, ..)| *type_name == tensor.dtype);
    if let Some((_, bits, _)) = known {
        // The length of a type that nobody here knows cannot be checked; such a tensor is never read.
        if elements.checked_mul(*bits).map(|bits| bits.div_ceil(8)) != Some(to - from) {
            let problem = format!("{} bytes do not hold {shape:?} elements of {}", to - from, tensor.dtype);
            return Err(bad_shape(problem));
        }
    }
    let dtype = known.and_then(|(.., dtype)| *dtype);
    Ok(StoredTensor {
        name,
        type_name: excerpt(&tensor.dtype),
        dtype,
        shape,
        range: start + from..start + to,
    })
}

/// What the beginning of a file that is no safetensors looks like.
fn guess(file: &[u8]) -> &'static str {
    if let Some(stranger) = stranger(file) {
        stranger
    } else if file.starts_with(b"GGUF") {
        "it is a GGUF file"
    } else if file.get(8) == Some(&b'{') {
        "it ends inside its header; it is truncated or damaged"
    } else {
        "it does not begin with a header"
    }
}
