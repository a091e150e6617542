//! The tensors of a dictionary that was unpickled.

use std::collections::HashSet;

use super::bad;
use super::pickle::{Heap, Value};
use crate::FormatError;
use crate::error::excerpt;

/// Dictionaries that programs put around the one with the tensors.
const AROUND: [&str; 2] = ["state_dict", "model"];

/// A tensor by its name, not yet placed in the file.
pub(super) struct Tensor<'a> {
    pub(super) name: &'a str,
    pub(super) key: &'a str,
    /// Place in the table of types.
    pub(super) dtype: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// All tensors of the dictionary, in its order. Numbers and texts beside them are passed over.
pub(super) fn tensors<'a>(heap: &Heap<'a>) -> Result<Vec<Tensor<'a>>, FormatError> {
    let Some(Value::Dict(outer)) = heap.result else {
        return Err(bad("it holds no dictionary of tensors; save the model's state_dict()"));
    };
    let found = named(heap, outer)?;
    if !found.is_empty() {
        return Ok(found);
    }
    let inner = heap.dicts[outer].iter().find_map(|&(key, value)| match (key, value) {
        (Value::Text(key), Value::Dict(dict)) if AROUND.contains(&key) => Some(dict),
        _ => None,
    });
    let found = inner.map(|inner| named(heap, inner)).transpose()?.unwrap_or_default();
    if found.is_empty() {
        let keys = heap.dicts[outer].iter().filter_map(|(key, _)| match key {
            Value::Text(key) => Some(*key),
            _ => None,
        });
        let keys = excerpt(&keys.take(20).collect::<Vec<_>>().join(", "));
        return Err(bad(format!("no tensors in its dictionary, which has the keys: {keys}")));
    }
    Ok(found)
}

fn named<'a>(heap: &Heap<'a>, dict: usize) -> Result<Vec<Tensor<'a>>, FormatError> {
    let (mut found, mut names) = (Vec::new(), HashSet::new());
    for &(key, value) in &heap.dicts[dict] {
        let Value::Tensor(tensor) = value else { continue };
        let Value::Text(name) = key else { return Err(bad("a tensor's name is no text")) };
        if name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(FormatError::BadName(format!("a tensor is called {}", excerpt(name))));
        }
        // Said here, or a small file could make much of one name and one tensor.
        if !names.insert(name) {
            return Err(FormatError::DuplicateTensor(excerpt(name)));
        }
        let tensor = &heap.tensors[tensor];
        found.push(Tensor {
            name,
            key: tensor.key,
            dtype: tensor.dtype,
            offset: tensor.offset,
            shape: tensor.shape.clone(),
            strides: tensor.strides.clone(),
        });
    }
    Ok(found)
}

/// Longer names than any file has; keeps messages about them readable.
const MAX_NAME: usize = 1024;
