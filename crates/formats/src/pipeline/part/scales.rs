//! Floats of eight bits with their scales.
//!
//! Files of the Comfy kind have, beside `NAME.weight`, its scale as `NAME.scale_weight` or `NAME.weight_scale`, one
//! number or one for each row; the scale that inputs would have, which is of no use here; and a tensor `scaled_fp8`,
//! whose type says what the others have.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use half::{bf16, f16};
use wushi_graph::DType;

use super::open::{Stored, plain};
use super::{Part, PartTensor};
use crate::checkpoint::{Float8, Made, Piece};
use crate::error::excerpt;
use crate::mapped::Mapped;
use crate::safetensors::StoredTensor;
use crate::{FormatError, Metadata, PipelineError};

const MARK: &str = "scaled_fp8";
/// What stands instead of `.weight` in the name of a scale.
const SCALES: [&str; 2] = [".scale_weight", ".weight_scale"];
const INPUT_SCALES: [&str; 2] = [".scale_input", ".input_scale"];

/// Whether a tensor is none of a network's but says something of others.
pub(super) fn is_beside(name: &str) -> bool {
    name == MARK
        || name.strip_suffix(MARK).is_some_and(|before| before.ends_with('.'))
        || SCALES.iter().chain(&INPUT_SCALES).any(|end| name.ends_with(end))
}

/// A part of the tensors of files of safetensors or PyTorch.
pub(super) fn assemble(path: &Path, files: Vec<Mapped>, stored: Vec<Stored>) -> Result<Part, FormatError> {
    let is_scaled = |(_, tensor): &Stored| Float8::named(&tensor.type_name).is_some();
    if !stored.iter().any(is_scaled) {
        let tensors = stored.into_iter().map(plain).collect();
        return Part::assemble(path, Metadata::new(), files, tensors);
    }
    let by_name: HashMap<&str, &Stored> =
        stored.iter().map(|stored| (stored.1.name.as_str(), stored)).collect();
    let mut tensors = Vec::with_capacity(stored.len());
    let mut used = HashSet::new();
    for stored in stored.iter().filter(|stored| !is_beside(&stored.1.name)) {
        let stem = stored.1.name.strip_suffix(".weight").unwrap_or(&stored.1.name);
        let scale = SCALES.iter().find_map(|end| by_name.get(format!("{stem}{end}").as_str()));
        used.extend(scale.map(|scale| scale.1.name.as_str()));
        let scale = scale.map(|scale| numbers(&files, scale, &stored.1)).transpose()?;
        tensors.push(match Float8::named(&stored.1.type_name) {
            Some(format) => scaled(stored, format, scale.unwrap_or_else(|| vec![1.0])),
            None if scale.is_none_or(|scale| scale.iter().all(|&scale| scale == 1.0)) => {
                plain(stored.clone())
            }
            None => {
                let found = format!("{stem}, which is stored as {}", stored.1.type_name);
                return Err(FormatError::UnusedTensor(excerpt(&format!("the scale of {found}"))));
            }
        });
    }
    let is_unused = |name: &&str| SCALES.iter().any(|end| name.ends_with(end)) && !used.contains(*name);
    match by_name.keys().copied().filter(is_unused).min() {
        Some(name) => Err(FormatError::UnusedTensor(excerpt(name))),
        None => Part::assemble(path, Metadata::new(), files, tensors),
    }
}

/// A tensor of eight-bit floats, which is read as BF16.
fn scaled((file, tensor): &Stored, format: Float8, scales: Vec<f32>) -> (PartTensor, Made) {
    let piece = Piece { file: *file, range: tensor.range.clone() };
    let part = PartTensor {
        name: tensor.name.clone(),
        stored: tensor.type_name.clone(),
        dtype: Some(DType::BF16),
        shape: tensor.shape.clone(),
    };
    (part, Made::Scaled { piece, format, scales })
}

/// The numbers of a scale: one, or one for each row of what it scales.
fn numbers(files: &[Mapped], scale: &Stored, scaled: &StoredTensor) -> Result<Vec<f32>, FormatError> {
    let (file, tensor) = scale;
    let rows = scaled.shape.first().copied().unwrap_or(1);
    let bad = |problem: String| {
        FormatError::from(PipelineError::BadScale {
            scale: excerpt(&tensor.name),
            tensor: excerpt(&scaled.name),
            expected: format!("one number or {rows}, all finite"),
            problem,
        })
    };
    let count: usize = tensor.shape.iter().product();
    // Of rows: a column of numbers, or a list.
    let is_column = tensor.shape.first() == Some(&rows) || count == 1;
    if count != 1 && (count != rows || !is_column) {
        return Err(bad(format!("it has shape {:?}", tensor.shape)));
    }
    let bytes =
        files.get(*file).and_then(|file| file.as_slice().get(tensor.range.clone())).unwrap_or_default();
    let numbers: Vec<f32> = match tensor.dtype {
        Some(DType::F32) => bytes.as_chunks::<4>().0.iter().map(|&four| f32::from_le_bytes(four)).collect(),
        Some(DType::F16) => {
            bytes.as_chunks::<2>().0.iter().map(|&two| f16::from_le_bytes(two).to_f32()).collect()
        }
        Some(DType::BF16) => {
            bytes.as_chunks::<2>().0.iter().map(|&two| bf16::from_le_bytes(two).to_f32()).collect()
        }
        _ => return Err(bad(format!("it is stored as {}", tensor.type_name))),
    };
    match numbers.iter().find(|number| !number.is_finite()) {
        Some(number) => Err(bad(format!("it holds {number}"))),
        None => Ok(numbers),
    }
}
