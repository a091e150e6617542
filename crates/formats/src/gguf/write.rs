//! Writing GGUF files (version 3).

use std::borrow::Cow;
use std::io::{self, Write};

use super::GgmlType;
use super::metadata::{Array, Metadata, Value};
use super::parse::DEFAULT_ALIGNMENT;
use crate::FormatError;

/// Collects metadata and tensors, then writes them.
///
/// Tensors are aligned to `general.alignment` if the metadata has it (a power of two), else to 32 bytes.
#[derive(Clone, Debug, Default)]
pub struct Writer<'a> {
    metadata: Metadata,
    tensors: Vec<Tensor<'a>>,
}

#[derive(Clone, Debug)]
struct Tensor<'a> {
    name: String,
    ggml_type: GgmlType,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Writer<'a> {
    /// Without metadata and tensors.
    pub fn new() -> Writer<'a> {
        Writer::default()
    }

    /// Sets a metadata entry.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        self.metadata.set(key, value);
        self
    }

    /// Adds a tensor. `shape` has the outermost dimension first; `bytes` is what the file shall hold.
    ///
    /// Refuses bytes whose length does not match type and shape (where the type's block size is known).
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        ggml_type: impl Into<GgmlType>,
        shape: &[usize],
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<&mut Self, FormatError> {
        let (name, ggml_type, bytes) = (name.into(), ggml_type.into(), bytes.into());
        let elements = shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
        let fits = match (elements, ggml_type.block()) {
            (Some(n), Some((block, size))) => {
                n.is_multiple_of(block) && (n / block).checked_mul(size) == Some(bytes.len())
            }
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !fits {
            let problem = format!("{} bytes do not hold {shape:?} elements of {ggml_type}", bytes.len());
            return Err(FormatError::BadShape { tensor: name, problem });
        }
        self.tensors.push(Tensor { name, ggml_type, shape: shape.to_vec(), bytes });
        Ok(self)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of `out`, and [`io::ErrorKind::InvalidInput`] if `general.alignment` is no power of two.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let alignment = alignment(&self.metadata).map_err(invalid)?;
        let tensors = self.tensors.iter().map(|tensor| Row {
            name: &tensor.name,
            ggml_type: tensor.ggml_type,
            shape: &tensor.shape,
            bytes: tensor.bytes.len(),
        });
        out.write_all(&header(&self.metadata, alignment, tensors))?;
        for tensor in &self.tensors {
            out.write_all(&tensor.bytes)?;
            pad(out, tensor.bytes.len(), alignment)?;
        }
        Ok(())
    }

    /// The file as bytes in memory.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)?;
        Ok(bytes)
    }
}

/// Writes a file tensor by tensor: first what they are, then the bytes of each in the same order.
#[derive(Debug)]
pub struct Stream<W> {
    out: W,
    alignment: usize,
    /// Names and lengths of the tensors to come, the next one last.
    expected: Vec<(String, usize)>,
}

/// Name, type and shape of a tensor, outermost dimension first.
pub type Outline = (String, GgmlType, Vec<usize>);

impl<W: Write> Stream<W> {
    /// Writes metadata and tensor table. Gives how many bytes that were.
    ///
    /// # Errors
    /// Those of `out`, and [`io::ErrorKind::InvalidInput`] for what [`Stream::file_size`] refuses.
    pub fn begin(mut out: W, metadata: &Metadata, tensors: &[Outline]) -> io::Result<(Stream<W>, u64)> {
        let alignment = alignment(metadata).map_err(invalid)?;
        let lengths = lengths(tensors).map_err(invalid)?;
        let header = header(metadata, alignment, rows(tensors, &lengths));
        out.write_all(&header)?;
        let mut expected: Vec<(String, usize)> =
            tensors.iter().zip(lengths).map(|((name, ..), length)| (name.clone(), length)).collect();
        expected.reverse();
        Ok((Stream { out, alignment, expected }, header.len() as u64))
    }

    /// Writes the bytes of the next tensor. Gives how many bytes that were, with those up to the next.
    ///
    /// # Errors
    /// Those of `out`, and [`io::ErrorKind::InvalidInput`] if the bytes are not as many as the tensor has.
    pub fn tensor(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let (name, length) = self.expected.pop().unwrap_or_default();
        if length != bytes.len() {
            let problem = format!("{} bytes where {length} were announced", bytes.len());
            return Err(invalid(FormatError::BadShape { tensor: name, problem }));
        }
        self.out.write_all(bytes)?;
        pad(&mut self.out, length, self.alignment)?;
        Ok(length.next_multiple_of(self.alignment) as u64)
    }

    /// Gives back what was written to.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if a tensor that was announced has not come.
    pub fn finish(self) -> io::Result<W> {
        match self.expected.last() {
            None => Ok(self.out),
            Some((name, _)) => Err(invalid(FormatError::MissingTensor(name.clone()))),
        }
    }
}

impl Stream<()> {
    /// Bytes of a file of these.
    ///
    /// # Errors
    /// A type whose blocks have no known size or do not fit the shape, an alignment that is none.
    pub fn file_size(metadata: &Metadata, tensors: &[Outline]) -> Result<u64, FormatError> {
        let alignment = alignment(metadata)?;
        let lengths = lengths(tensors)?;
        let header = header(metadata, alignment, rows(tensors, &lengths)).len();
        Ok(lengths.iter().map(|length| length.next_multiple_of(alignment) as u64).sum::<u64>()
            + header as u64)
    }
}

fn lengths(tensors: &[Outline]) -> Result<Vec<usize>, FormatError> {
    let length = |(name, ggml_type, shape): &Outline| {
        let elements = shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
        let length = elements.zip(ggml_type.block()).and_then(|(elements, (block, size))| {
            if !elements.is_multiple_of(block) {
                return None;
            }
            (elements / block).checked_mul(size)
        });
        length.ok_or_else(|| {
            let problem = format!("{shape:?} elements cannot be written as {ggml_type}");
            FormatError::BadShape { tensor: name.clone(), problem }
        })
    };
    tensors.iter().map(length).collect()
}

fn rows<'a>(tensors: &'a [Outline], lengths: &'a [usize]) -> impl ExactSizeIterator<Item = Row<'a>> {
    tensors.iter().zip(lengths).map(|((name, ggml_type, shape), &bytes)| Row {
        name,
        ggml_type: *ggml_type,
        shape,
        bytes,
    })
}

/// One row of the tensor table.
struct Row<'a> {
    name: &'a str,
    ggml_type: GgmlType,
    shape: &'a [usize],
    bytes: usize,
}

/// Everything up to the first tensor's bytes.
fn header<'a>(
    metadata: &Metadata,
    alignment: usize,
    tensors: impl ExactSizeIterator<Item = Row<'a>>,
) -> Vec<u8> {
    let mut header = b"GGUF\x03\0\0\0".to_vec();
    put_len(&mut header, tensors.len());
    put_len(&mut header, metadata.len());
    for (key, value) in metadata.iter() {
        put_entry(&mut header, key, value);
    }
    let mut offset = 0;
    for tensor in tensors {
        put_string(&mut header, tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        for &dimension in tensor.shape.iter().rev() {
            put_len(&mut header, dimension);
        }
        header.extend(tensor.ggml_type.0.to_le_bytes());
        put_len(&mut header, offset);
        offset += tensor.bytes.next_multiple_of(alignment);
    }
    header.resize(header.len().next_multiple_of(alignment), 0);
    header
}

fn alignment(metadata: &Metadata) -> Result<usize, FormatError> {
    let alignment = metadata.u32("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    match alignment.is_power_of_two() {
        true => Ok(alignment as usize),
        false => Err(FormatError::BadAlignment(alignment)),
    }
}

fn invalid(error: FormatError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// What is missing behind `length` bytes up to the next tensor.
fn pad(out: &mut impl Write, length: usize, alignment: usize) -> io::Result<()> {
    let padding = length.next_multiple_of(alignment) - length;
    io::copy(&mut io::Read::take(io::repeat(0), padding as u64), out).map(|_| ())
}

fn put_len(out: &mut Vec<u8>, length: usize) {
    out.extend((length as u64).to_le_bytes());
}

/// A metadata entry.
pub(crate) fn put_entry(out: &mut Vec<u8>, key: &str, value: &Value) {
    put_string(out, key);
    put_value(out, value);
}

fn put_string(out: &mut Vec<u8>, string: &str) {
    put_len(out, string.len());
    out.extend(string.as_bytes());
}

/// A value with its type in front. The numbers are those of `enum gguf_type`.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(v) => put(0, &v.to_le_bytes()),
        Value::I8(v) => put(1, &v.to_le_bytes()),
        Value::U16(v) => put(2, &v.to_le_bytes()),
        Value::I16(v) => put(3, &v.to_le_bytes()),
        Value::U32(v) => put(4, &v.to_le_bytes()),
        Value::I32(v) => put(5, &v.to_le_bytes()),
        Value::F32(v) => put(6, &v.to_le_bytes()),
        Value::Bool(v) => put(7, &[u8::from(*v)]),
        Value::String(v) => {
            put(8, &[]);
            put_string(out, v);
        }
        Value::Array(v) => {
            put(9, &[]);
            put_array(out, v);
        }
        Value::U64(v) => put(10, &v.to_le_bytes()),
        Value::I64(v) => put(11, &v.to_le_bytes()),
        Value::F64(v) => put(12, &v.to_le_bytes()),
    }
}

/// Element type, count, elements.
fn put_array(out: &mut Vec<u8>, array: &Array) {
    fn numbers<T: Copy, const N: usize>(out: &mut Vec<u8>, values: &[T], to: fn(T) -> [u8; N]) {
        for &value in values {
            out.extend(to(value));
        }
    }
    let kind: u32 = match array {
        Array::U8(_) => 0,
        Array::I8(_) => 1,
        Array::U16(_) => 2,
        Array::I16(_) => 3,
        Array::U32(_) => 4,
        Array::I32(_) => 5,
        Array::F32(_) => 6,
        Array::Bool(_) => 7,
        Array::Strings(_) => 8,
        Array::Arrays(_) => 9,
        Array::U64(_) => 10,
        Array::I64(_) => 11,
        Array::F64(_) => 12,
    };
    out.extend(kind.to_le_bytes());
    put_len(out, array.len());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => numbers(out, v, i8::to_le_bytes),
        Array::U16(v) => numbers(out, v, u16::to_le_bytes),
        Array::I16(v) => numbers(out, v, i16::to_le_bytes),
        Array::U32(v) => numbers(out, v, u32::to_le_bytes),
        Array::I32(v) => numbers(out, v, i32::to_le_bytes),
        Array::U64(v) => numbers(out, v, u64::to_le_bytes),
        Array::I64(v) => numbers(out, v, i64::to_le_bytes),
        Array::F32(v) => numbers(out, v, f32::to_le_bytes),
        Array::F64(v) => numbers(out, v, f64::to_le_bytes),
        Array::Bool(v) => out.extend(v.iter().map(|&truth| u8::from(truth))),
        Array::Strings(v) => v.iter().for_each(|string| put_string(out, string)),
        Array::Arrays(v) => v.iter().for_each(|array| put_array(out, array)),
    }
}
