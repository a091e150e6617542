//! What cannot be quantised.

use half::{bf16, f16};
use wushi_graph::DType;

use crate::{MXFP4_EXPONENT_MAX, mxfp4_scale};

/// Why numbers cannot be stored in a type.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum QuantError {
    /// An infinity or no number.
    #[error(
        "value {index} is {value}, which no quantised weight can be: the tensor it comes from is damaged"
    )]
    NotFinite {
        /// Which of the values.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A number beyond the greatest one of the type.
    #[error(
        "value {index} is {value:e}, but {dtype} holds ±{limit:e} at most: store this tensor as BF16 or F32"
    )]
    TooLarge {
        /// Which of the values.
        index: usize,
        /// The value.
        value: f32,
        /// The type.
        dtype: DType,
        /// What its values' magnitudes may be.
        limit: f32,
    },
}

/// The greatest magnitude that a type takes. Scales in F16 could carry some formats' quants further, but a weight that
/// large is no weight, and with one limit for all no scale can overflow.
fn limit(dtype: DType) -> f32 {
    match dtype {
        DType::F32 => f32::MAX,
        DType::BF16 => bf16::MAX.to_f32(),
        // The greatest level times the greatest scale with which it is finite.
        DType::MXFP4 => 12.0 * mxfp4_scale(MXFP4_EXPONENT_MAX),
        _ => f16::MAX.to_f32(),
    }
}

/// The first value that cannot be stored, if there is one.
pub(crate) fn check(dtype: DType, values: &[f32]) -> Result<(), QuantError> {
    let limit = limit(dtype);
    // False for NaN.
    let fits = |x: &f32| x.abs() <= limit;
    match values.iter().position(|x| !fits(x)) {
        None => Ok(()),
        Some(index) if values[index].is_finite() => {
            Err(QuantError::TooLarge { index, value: values[index], dtype, limit })
        }
        Some(index) => Err(QuantError::NotFinite { index, value: values[index] }),
    }
}
