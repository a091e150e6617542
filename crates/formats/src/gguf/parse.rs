//! The header of a GGUF file: counts, metadata, tensor table.
//!
//! Layout as in ggml's `docs/gguf.md`, little-endian:
//! `"GGUF"`, `u32` version, `u64` tensors, `u64` entries, the entries (key, type, value), the tensor table (name,
//! `u32` dimensions, `u64` each, `u32` type, `u64` offset), padding to the alignment, the tensors' bytes.

use super::metadata::{Array, Metadata, StringArray, Value};
use super::{GgmlType, TensorInfo};
use crate::FormatError;
use crate::error::{excerpt, stranger};

/// Arrays of arrays may nest this deep; no known file nests at all.
const MAX_NESTING: usize = 4;
/// Twice ggml's limit (`GGML_MAX_DIMS`): files of networks that see time have convolutions of five dimensions.
const MAX_DIMENSIONS: u32 = 8;
/// Where tensors are aligned if the file does not say (`GGUF_DEFAULT_ALIGNMENT`).
pub(super) const DEFAULT_ALIGNMENT: u32 = 32;
/// Longer keys and names than any file has; keeps messages about them readable.
const MAX_NAME: usize = 1024;
/// The fewest bytes an entry takes: empty key, type, one-byte value.
const MIN_ENTRY: u64 = 8 + 4 + 1;
/// The fewest bytes a tensor takes in the table: empty name, no dimension, type, offset.
const MIN_TENSOR: u64 = 8 + 4 + 4 + 8;

/// What a header says.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
}

/// Reads the header of a whole file and checks every tensor's place against the file's length.
pub(super) fn parse(file: &[u8]) -> Result<Header, FormatError> {
    let mut cursor = Cursor { rest: file };
    let version = preamble(&mut cursor)?;
    let tensor_count = cursor.count("tensor table", MIN_TENSOR)?;
    let entry_count = cursor.count("metadata", MIN_ENTRY)?;

    let mut metadata = Metadata::new();
    for _ in 0..entry_count {
        let key = cursor.name("a metadata key")?;
        let value = cursor.value(&key)?;
        metadata.insert_new(key, value)?;
    }
    let alignment = metadata.u32("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > 1 << 30 {
        return Err(FormatError::BadAlignment(alignment));
    }

    let mut tensors = Vec::new();
    for _ in 0..tensor_count {
        tensors.push(cursor.tensor()?);
    }
    let header_bytes = file.len() - cursor.rest.len();
    place(&mut tensors, header_bytes.next_multiple_of(alignment as usize), alignment as usize, file.len())?;
    Ok(Header { version, metadata, tensors })
}

/// Magic and version.
fn preamble(cursor: &mut Cursor<'_>) -> Result<u32, FormatError> {
    let file = cursor.rest;
    if !file.starts_with(b"GGUF") {
        return Err(FormatError::NotGguf(guess(file)));
    }
    cursor.take(4, "the magic number")?;
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        swapped if (1..=3).contains(&swapped.swap_bytes()) => Err(FormatError::BigEndian),
        other => Err(FormatError::UnsupportedVersion(other)),
    }
}

/// What the beginning of a file that is no GGUF looks like.
fn guess(file: &[u8]) -> &'static str {
    if let Some(stranger) = stranger(file) {
        stranger
    } else if file.get(8) == Some(&b'{') {
        "it looks like safetensors; name the folder that it is in"
    } else {
        "it does not begin with `GGUF`"
    }
}

/// Turns each tensor's offset into its range in the file, or says why it cannot lie there.
///
/// Tensors lie one after the other with nothing but padding between them, so a damaged shape, type or offset leaves
/// an overlap or a gap. Behind a tensor of unknown size, a gap is allowed.
fn place(
    tensors: &mut [TensorInfo],
    data: usize,
    alignment: usize,
    file_len: usize,
) -> Result<(), FormatError> {
    let bad = |tensor: &TensorInfo, problem: String| {
        Err(FormatError::BadOffset { tensor: tensor.name.clone(), problem })
    };
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| tensors[i].range.start);
    let (mut earliest, mut exact, mut before) = (data, true, String::new());
    for i in order {
        let tensor = &mut tensors[i];
        let offset = tensor.range.start;
        if !offset.is_multiple_of(alignment) {
            return bad(tensor, format!("offset {offset} is not aligned to {alignment} bytes"));
        }
        let length = tensor.range.len();
        let range = data.checked_add(offset).and_then(|start| Some(start..start.checked_add(length)?));
        let Some(range) = range.filter(|range| range.end <= file_len) else {
            return bad(
                tensor,
                format!(
                    "its {length} bytes at offset {offset} reach past the end of the file ({file_len} bytes)"
                ),
            );
        };
        if range.start < earliest {
            return bad(tensor, format!("offset {offset} lies inside tensor `{before}`"));
        }
        if range.start > earliest && exact {
            return bad(tensor, format!("there is a gap of {} bytes before it", range.start - earliest));
        }
        earliest = range.end.next_multiple_of(alignment);
        exact = tensor.ggml_type.block().is_some();
        tensor.range = range;
        before.clone_from(&tensor.name);
    }
    Ok(())
}

/// Reads forward through a file that may end anywhere.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: u64, what: &str) -> Result<&'a [u8], FormatError> {
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((taken, rest)) = split else { return Err(self.truncated(what, length)) };
        self.rest = rest;
        Ok(taken)
    }

    fn truncated(&self, what: &str, needs: u64) -> FormatError {
        FormatError::Truncated { what: what.to_owned(), needs, has: self.rest.len() as u64 }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FormatError> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(self.truncated(what, N as u64));
        };
        self.rest = rest;
        Ok(*taken)
    }

    fn u32(&mut self, what: &str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of items of at least `min_bytes` each, refused unless the rest of the file could hold them.
    fn count(&mut self, what: &str, min_bytes: u64) -> Result<usize, FormatError> {
        let count = self.u64(what)?;
        let needs = count.saturating_mul(min_bytes);
        if needs > self.rest.len() as u64 {
            return Err(self.truncated(what, needs));
        }
        // It fits: `needs` is at most the length of a slice.
        Ok(count as usize)
    }

    fn string(&mut self, what: &str) -> Result<&'a str, FormatError> {
        let length = self.u64(what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|_| FormatError::InvalidUtf8(what.to_owned()))
    }

    /// A string that messages can show as it is.
    fn name(&mut self, what: &str) -> Result<String, FormatError> {
        let name = self.string(what)?;
        if name.len() > MAX_NAME {
            return Err(FormatError::BadName(format!(
                "{what} has {} bytes; at most {MAX_NAME} make sense",
                name.len()
            )));
        }
        if name.contains(char::is_control) {
            return Err(FormatError::BadName(format!("{what} has control characters: {}", excerpt(name))));
        }
        Ok(name.to_owned())
    }

    fn value(&mut self, key: &str) -> Result<Value, FormatError> {
        let what = &format!("the value of metadata key `{key}`");
        let kind = self.u32(what)?;
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.array(what)?)),
            1 => Value::I8(i8::from_le_bytes(self.array(what)?)),
            2 => Value::U16(u16::from_le_bytes(self.array(what)?)),
            3 => Value::I16(i16::from_le_bytes(self.array(what)?)),
            4 => Value::U32(u32::from_le_bytes(self.array(what)?)),
            5 => Value::I32(i32::from_le_bytes(self.array(what)?)),
            6 => Value::F32(f32::from_le_bytes(self.array(what)?)),
            7 => Value::Bool(truth(self.array(what)?, key)?),
            8 => Value::String(self.string(what)?.to_owned()),
            9 => Value::Array(self.values(key, what, 1)?),
            10 => Value::U64(u64::from_le_bytes(self.array(what)?)),
            11 => Value::I64(i64::from_le_bytes(self.array(what)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(what)?)),
            other => return Err(unknown_type(key, other)),
        })
    }

    fn values(&mut self, key: &str, what: &str, depth: usize) -> Result<Array, FormatError> {
        let kind = self.u32(what)?;
        Ok(match kind {
            0 => Array::U8(self.numbers(what, u8::from_le_bytes)?),
            1 => Array::I8(self.numbers(what, i8::from_le_bytes)?),
            2 => Array::U16(self.numbers(what, u16::from_le_bytes)?),
            3 => Array::I16(self.numbers(what, i16::from_le_bytes)?),
            4 => Array::U32(self.numbers(what, u32::from_le_bytes)?),
            5 => Array::I32(self.numbers(what, i32::from_le_bytes)?),
            6 => Array::F32(self.numbers(what, f32::from_le_bytes)?),
            7 => {
                let count = self.count(what, 1)?;
                let bytes = self.take(count as u64, what)?;
                Array::Bool(bytes.iter().map(|&byte| truth([byte], key)).collect::<Result<_, _>>()?)
            }
            8 => Array::Strings(self.strings(what)?),
            9 => {
                if depth == MAX_NESTING {
                    let problem = format!("arrays nested more than {MAX_NESTING} deep");
                    return Err(FormatError::InvalidValue { key: key.to_owned(), problem });
                }
                let count = self.count(what, 4 + 8)?;
                Array::Arrays(
                    (0..count).map(|_| self.values(key, what, depth + 1)).collect::<Result<_, _>>()?,
                )
            }
            10 => Array::U64(self.numbers(what, u64::from_le_bytes)?),
            11 => Array::I64(self.numbers(what, i64::from_le_bytes)?),
            12 => Array::F64(self.numbers(what, f64::from_le_bytes)?),
            other => return Err(unknown_type(key, other)),
        })
    }

    fn numbers<T, const N: usize>(
        &mut self,
        what: &str,
        from: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, FormatError> {
        let count = self.count(what, N as u64)?;
        let bytes = self.take((count * N) as u64, what)?;
        Ok(bytes.as_chunks().0.iter().map(|&chunk| from(chunk)).collect())
    }

    fn strings(&mut self, what: &str) -> Result<StringArray, FormatError> {
        let count = self.count(what, 8)?;
        let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(count));
        for _ in 0..count {
            let length = self.u64(what)?;
            text.extend_from_slice(self.take(length, what)?);
            ends.push(text.len());
        }
        text.shrink_to_fit();
        StringArray::from_bytes(text, ends)
            .map_err(|i| FormatError::InvalidUtf8(format!("string {i} of {what}")))
    }

    /// A row of the tensor table. Its range begins at 0 plus its offset until [`place`] moves it.
    fn tensor(&mut self) -> Result<TensorInfo, FormatError> {
        let name = self.name("a tensor's name")?;
        let what = &format!("the description of tensor `{name}`");
        let dimensions = self.u32(what)?;
        if dimensions > MAX_DIMENSIONS {
            let problem = format!("{dimensions} dimensions; at most {MAX_DIMENSIONS} are possible");
            return Err(FormatError::BadShape { tensor: name, problem });
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(self.u64(what)?);
        }
        shape.reverse();
        let ggml_type = GgmlType(self.u32(what)?);
        let offset = self.u64(what)?;
        let (shape, length) = measure(&name, &shape, ggml_type)?;
        let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(length)?));
        let Some(range) = range else {
            let problem = format!("offset {offset} is absurd");
            return Err(FormatError::BadOffset { tensor: name, problem });
        };
        Ok(TensorInfo { name, ggml_type, dtype: ggml_type.dtype(), shape, range })
    }
}

/// A tensor's shape (outermost first) in `usize` and its length in bytes, 0 if the type's size is unknown.
fn measure(name: &str, shape: &[u64], ggml_type: GgmlType) -> Result<(Vec<usize>, usize), FormatError> {
    let bad = |problem: String| Err(FormatError::BadShape { tensor: name.to_owned(), problem });
    let sizes: Option<Vec<usize>> =
        shape.iter().map(|&d| usize::try_from(d).ok().filter(|&d| d > 0)).collect();
    let elements =
        sizes.as_ref().and_then(|s| s.iter().try_fold(1usize, |product, &d| product.checked_mul(d)));
    let (Some(sizes), Some(elements)) = (sizes, elements) else {
        return bad(format!("impossible shape {shape:?}"));
    };
    let Some((block_elements, block_bytes)) = ggml_type.block() else { return Ok((sizes, 0)) };
    let row = sizes.last().copied().unwrap_or(1);
    if !row.is_multiple_of(block_elements) {
        return bad(format!(
            "rows of {row} elements are no whole number of {ggml_type} blocks of {block_elements}"
        ));
    }
    match (elements / block_elements).checked_mul(block_bytes) {
        Some(length) => Ok((sizes, length)),
        None => bad(format!("impossible shape {shape:?}")),
    }
}

fn truth([byte]: [u8; 1], key: &str) -> Result<bool, FormatError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => {
            let problem = format!("a truth value of {other}, neither 0 nor 1");
            Err(FormatError::InvalidValue { key: key.to_owned(), problem })
        }
    }
}

fn unknown_type(key: &str, kind: u32) -> FormatError {
    FormatError::InvalidValue { key: key.to_owned(), problem: format!("the unknown value type {kind}") }
}
