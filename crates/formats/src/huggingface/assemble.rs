//! From a folder's tensors and recipes to a checkpoint.

use std::collections::HashSet;

use wushi_graph::DType;

use super::{Folder, InFile};
use crate::checkpoint::{Change, Checkpoint, Container, Made, Piece, Recipe, Source, TensorInfo};
use crate::error::excerpt;
use crate::{FormatError, Metadata};

/// Tensors that a folder may have and no model needs: they follow from the configuration.
const DERIVED: [&str; 3] = [".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias"];

pub(super) fn assemble(
    folder: Folder,
    metadata: Metadata,
    recipes: Vec<(String, Recipe)>,
) -> Result<Checkpoint, FormatError> {
    let mut used: HashSet<&str> = folder.ignored.iter().map(String::as_str).collect();
    let mut tensors = Vec::with_capacity(recipes.len());
    for (name, recipe) in &recipes {
        used.extend(recipe.source.tensors().iter().map(String::as_str));
        tensors.push(make(&folder, name, recipe)?);
    }
    let unused = folder
        .tensor_names()
        .find(|name| !used.contains(name) && !DERIVED.iter().any(|end| name.ends_with(end)));
    if let Some(name) = unused {
        return Err(FormatError::UnusedTensor(excerpt(name)));
    }
    Checkpoint::assemble(metadata, Container::Safetensors, folder.weights, tensors)
}

/// Tensors that have been found.
struct Found {
    dtype: DType,
    shape: Vec<usize>,
    pieces: Vec<Piece>,
}

fn make(folder: &Folder, name: &str, recipe: &Recipe) -> Result<(TensorInfo, Made), FormatError> {
    let bad = |problem: String| FormatError::BadShape { tensor: name.to_owned(), problem };
    let found = match &recipe.source {
        Source::Computed { values, shape } => {
            assert_eq!(
                values.len(),
                shape.iter().product::<usize>(),
                "{name}: as many values as the shape says"
            );
            let info =
                info(name, DType::F32, shape.clone()).ok_or_else(|| bad("impossible shape".to_owned()))?;
            return Ok((info, Made::Computed(values.clone())));
        }
        Source::Tensor(tensor) => find(folder, tensor)?,
        Source::Stacked(tensors) => stack(folder, name, tensors)?,
    };
    if let Some(heads) = recipe.pair_heads {
        let rows = found.shape[0];
        if heads == 0 || !rows.is_multiple_of(heads) || !(rows / heads).is_multiple_of(2) {
            return Err(bad(format!("{rows} rows are no {heads} heads of even length")));
        }
    }
    let widened = recipe.plus_one || keeps_f32(name, &found.shape);
    let plus = if recipe.plus_one { 1.0 } else { 0.0 };
    let unchanged = !widened || found.dtype == DType::F32 && !recipe.plus_one;
    let change =
        Change { pair_heads: recipe.pair_heads, to_f32: (!unchanged).then_some((found.dtype, plus)) };
    let dtype = if widened { DType::F32 } else { found.dtype };
    let info = info(name, dtype, found.shape).ok_or_else(|| bad("impossible shape".to_owned()))?;
    Ok((info, Made::Stored { pieces: found.pieces, change }))
}

fn info(name: &str, dtype: DType, shape: Vec<usize>) -> Option<TensorInfo> {
    let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let bytes = dtype.bytes_of(elements.filter(|&elements| elements > 0)?)?;
    Some(TensorInfo { name: name.to_owned(), ggml_type: dtype.into(), dtype: Some(dtype), shape, bytes })
}

/// Whether llama.cpp's converter writes this tensor as F32 whatever it is stored as (`prepare_tensors` of its
/// `conversion/base.py`), so that a converted file holds what the folder gives.
fn keeps_f32(name: &str, shape: &[usize]) -> bool {
    let always = ["_norm.weight", ".ffn_gate_inp.weight", "position_embd.weight", "token_types.weight"];
    shape.len() <= 1 || !name.ends_with(".weight") || always.iter().any(|end| name.ends_with(end))
}

/// Tensors of one type and shape, along a new first dimension.
fn stack(folder: &Folder, name: &str, tensors: &[String]) -> Result<Found, FormatError> {
    let bad = |problem: String| FormatError::BadShape { tensor: name.to_owned(), problem };
    let mut whole = None::<Found>;
    for tensor in tensors {
        let found = find(folder, tensor)?;
        let Some(whole) = &mut whole else {
            whole = Some(found);
            continue;
        };
        if found.dtype != whole.dtype {
            let (one, other) = (whole.dtype, found.dtype);
            return Err(bad(format!("its parts are stored as {one} and {other}; they must be of one type")));
        }
        if found.shape != whole.shape {
            let (one, other) = (&whole.shape, &found.shape);
            return Err(bad(format!(
                "its parts have shapes {one:?} and {other:?}, which do not fit together"
            )));
        }
        whole.pieces.extend(found.pieces);
    }
    let mut whole = whole.ok_or_else(|| bad("it has no parts".to_owned()))?;
    whole.shape.insert(0, tensors.len());
    Ok(whole)
}

fn find(folder: &Folder, name: &str) -> Result<Found, FormatError> {
    let place = *folder.by_name.get(name).ok_or_else(|| FormatError::MissingTensor(excerpt(name)))?;
    let InFile { file, tensor } = &folder.tensors[place];
    let Some(dtype) = tensor.dtype else {
        return Err(FormatError::UnsupportedType {
            tensor: excerpt(&tensor.name),
            found: tensor.type_name.clone(),
            supported: "F32, F16, BF16".to_owned(),
        });
    };
    let shape = tensor.shape.clone();
    if shape.is_empty() || shape.contains(&0) {
        let problem = format!("{shape:?} elements; it must have some");
        return Err(FormatError::BadShape { tensor: excerpt(&tensor.name), problem });
    }
    let piece = Piece { file: *file, range: tensor.range.clone() };
    Ok(Found { dtype, shape, pieces: vec![piece] })
}
