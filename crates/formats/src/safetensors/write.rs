//! What comes before the tensors of a file that is being written.

use serde_json::{Map, Value, json};

use super::{MAX_HEADER, TYPES};
use crate::FormatError;

/// A tensor that a file will have.
#[derive(Clone, Copy, Debug)]
pub struct NewTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// The element type as the format says it, e.g. `F32`.
    pub type_name: &'a str,
    /// Outermost dimension first.
    pub shape: &'a [usize],
}

/// The beginning of a file: the header's length and the header, a multiple of eight bytes. The tensors' elements
/// follow, little-endian, in the order given, and end the file.
pub fn header(tensors: &[NewTensor<'_>], metadata: &[(&str, &str)]) -> Result<Vec<u8>, FormatError> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        let said: Map<String, Value> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        entries.insert("__metadata__".to_owned(), Value::Object(said));
    }
    let mut end = 0usize;
    for tensor in tensors {
        let start = end;
        end = bytes(tensor).and_then(|bytes| start.checked_add(bytes)).ok_or_else(|| {
            let problem = format!("{:?} elements of {} cannot be written", tensor.shape, tensor.type_name);
            FormatError::BadShape { tensor: tensor.name.to_owned(), problem }
        })?;
        let described =
            json!({ "dtype": tensor.type_name, "shape": tensor.shape, "data_offsets": [start, end] });
        if entries.insert(tensor.name.to_owned(), described).is_some() {
            return Err(FormatError::DuplicateTensor(tensor.name.to_owned()));
        }
    }
    let mut text = Value::Object(entries).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    if text.len() as u64 > MAX_HEADER {
        return Err(FormatError::BadSafetensors(format!(
            "its header would have {} bytes, more than readers accept",
            text.len()
        )));
    }
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(text.as_bytes());
    Ok(file)
}

/// Bytes of all elements; `None` for a type that is not known, or too many.
fn bytes(tensor: &NewTensor<'_>) -> Option<usize> {
    let (_, bits, _) = TYPES.iter().find(|(name, ..)| *name == tensor.type_name)?;
    let elements = tensor.shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))?;
    Some(elements.checked_mul(*bits)?.div_ceil(8))
}

#[cfg(test)]
mod tests {
    use super::super::Safetensors;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let tensors = [
            NewTensor { name: "a \"quoted\" name", type_name: "F32", shape: &[2, 3] },
            NewTensor { name: "b", type_name: "I64", shape: &[] },
        ];
        let mut file = header(&tensors, &[("prompt", "a\nb"), ("step", "4")]).unwrap();
        assert_eq!(file.len() % 8, 0);
        file.extend((0u8..32).collect::<Vec<_>>());
        let read = Safetensors::from_bytes(file).unwrap();
        assert_eq!(read.metadata("prompt"), Some("a\nb"));
        assert_eq!(read.metadata("step"), Some("4"));
        assert_eq!(read.metadata("else"), None);
        let shapes: Vec<_> = read.tensors().iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
        assert_eq!(shapes, [("a \"quoted\" name", &[2, 3][..]), ("b", &[][..])]);
        assert_eq!(read.tensor_bytes(&read.tensors()[1]), &[24, 25, 26, 27, 28, 29, 30, 31]);
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let huge = NewTensor { name: "a", type_name: "F32", shape: &[usize::MAX, 2] };
        assert!(header(&[huge], &[]).unwrap_err().to_string().contains("cannot be written"));
        let unknown = NewTensor { name: "a", type_name: "F7", shape: &[1] };
        assert!(header(&[unknown], &[]).is_err());
        let twice = NewTensor { name: "a", type_name: "F32", shape: &[1] };
        assert!(matches!(header(&[twice, twice], &[]), Err(FormatError::DuplicateTensor(_))));
    }
}
