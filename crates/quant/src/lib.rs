//! Storage types: blocks of bytes to numbers and back.
//!
//! What the blocks of every [`DType`] stand for is said here once; the layouts are ggml's (`ggml-common.h`, MIT).
//! This crate knows no file, no model and no instruction set.

mod decode;
mod encode;
mod error;
mod policy;

pub use error::QuantError;
pub use policy::storage;
use wushi_graph::DType;

/// The 16 values of [`DType::IQ4_NL`] and [`DType::IQ4_XS`].
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The 16 values of [`DType::MXFP4`], doubled so that they are integers.
pub const MXFP4_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The greatest exponent of [`DType::MXFP4`] with which every value is finite.
const MXFP4_EXPONENT_MAX: u8 = 252;

/// Half of `2^(exponent - 127)`: the scale of doubled [`DType::MXFP4`] values. Below the smallest normal number it
/// is zero, so that no arithmetic meets denormals; 255 is no number.
pub fn mxfp4_scale(exponent: u8) -> f32 {
    match exponent {
        0 | 1 => 0.0,
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(exponent - 1) << 23),
    }
}

/// The exact values of whole blocks, such as a row or several.
pub fn dequantize(dtype: DType, blocks: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; blocks.len() / dtype.block_bytes() * dtype.block_elements()];
    dequantize_into(dtype, blocks, &mut values);
    values
}

/// [`dequantize`] into memory that is there.
///
/// # Panics
/// If `values` is not as long as the blocks say.
pub fn dequantize_into(dtype: DType, blocks: &[u8], values: &mut [f32]) {
    assert_eq!(
        dtype.bytes_of(values.len()),
        Some(blocks.len()),
        "{} values in {} bytes of {dtype}",
        values.len(),
        blocks.len()
    );
    let decode = decode::block(dtype);
    for (block, values) in
        blocks.chunks_exact(dtype.block_bytes()).zip(values.chunks_exact_mut(dtype.block_elements()))
    {
        decode(block, values);
    }
}

/// Whole blocks of numbers, such as a row or several, in a storage type: the same blocks on every machine.
///
/// Blocks are independent of each other, so that callers split rows over threads as they like.
///
/// # Errors
/// If a value is not finite, or beyond what the type holds.
///
/// # Panics
/// If the values are no whole blocks.
pub fn quantize(dtype: DType, values: &[f32]) -> Result<Vec<u8>, QuantError> {
    let bytes = dtype.bytes_of(values.len());
    let mut blocks = vec![0; bytes.unwrap_or_else(|| panic!("{} values of {dtype}", values.len()))];
    quantize_into(dtype, values, &mut blocks)?;
    Ok(blocks)
}

/// [`quantize`] into memory that is there.
///
/// # Errors
/// As [`quantize`].
///
/// # Panics
/// If `blocks` is not as long as the values say.
pub fn quantize_into(dtype: DType, values: &[f32], blocks: &mut [u8]) -> Result<(), QuantError> {
    assert_eq!(
        dtype.bytes_of(values.len()),
        Some(blocks.len()),
        "{} values to {} bytes of {dtype}",
        values.len(),
        blocks.len()
    );
    error::check(dtype, values)?;
    let encode = encode::block(dtype);
    for (block, values) in
        blocks.chunks_exact_mut(dtype.block_bytes()).zip(values.chunks_exact(dtype.block_elements()))
    {
        encode(values, block);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `gguf` package gives denormal numbers here.
    #[test]
    fn the_smallest_scales_of_mxfp4_are_zero() {
        let block = |exponent: u8| [&[exponent][..], &[0x77; 16]].concat();
        assert_eq!(dequantize(DType::MXFP4, &block(0)), [0.0; 32]);
        assert_eq!(dequantize(DType::MXFP4, &block(1)), [0.0; 32]);
        assert_eq!(dequantize(DType::MXFP4, &block(2)), [12.0 * f32::MIN_POSITIVE; 32]);
        assert!(dequantize(DType::MXFP4, &block(255)).iter().all(|x| x.is_nan()));
    }
}
