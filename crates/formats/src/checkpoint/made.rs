//! How a tensor is made from bytes in files.

use std::borrow::Cow;
use std::ops::Range;

use half::f16;
use wushi_graph::DType;

use super::float8::{self, Float8};
use crate::mapped::Mapped;

/// A run of bytes in one of a checkpoint's files.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) file: usize,
    pub(crate) range: Range<usize>,
}

/// What a tensor is made of.
#[derive(Clone, Debug)]
pub(crate) enum Made {
    /// Pieces one after the other, then changed.
    Stored { pieces: Vec<Piece>, change: Change },
    /// Floats of eight bits, each row times its scale, or all times one: they become BF16.
    Scaled { piece: Piece, format: Float8, scales: Vec<f32> },
    /// F32 values that are in no file.
    Computed(Vec<f32>),
}

/// What is done to the pieces, in this order. Nothing to most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Change {
    /// Rows of so many heads go from two halves to adjacent pairs.
    pub(crate) pair_heads: Option<usize>,
    /// Elements of this type become F32, plus a number.
    pub(crate) to_f32: Option<(DType, f32)>,
}

impl Made {
    pub(crate) fn stored(piece: Piece) -> Made {
        Made::Stored { pieces: vec![piece], change: Change::default() }
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        match self {
            Made::Stored { pieces, .. } => pieces,
            Made::Scaled { piece, .. } => std::slice::from_ref(piece),
            Made::Computed(_) => &[],
        }
    }

    /// The bytes of a tensor of this shape that is made this way, or what is wrong with it.
    pub(crate) fn bytes<'a>(&self, files: &'a [Mapped], shape: &[usize]) -> Result<Cow<'a, [u8]>, String> {
        let (pieces, change) = match self {
            Made::Stored { pieces, change } => (pieces, change),
            Made::Scaled { piece, format, scales } => {
                return float8::to_bf16(slice(files, piece), *format, scales).map(Cow::Owned);
            }
            Made::Computed(values) => {
                return Ok(Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect()));
            }
        };
        let mut bytes = match pieces.as_slice() {
            [piece] => Cow::Borrowed(slice(files, piece)),
            pieces => pieces.iter().map(|piece| slice(files, piece)).collect::<Vec<_>>().concat().into(),
        };
        if let Some(heads) = change.pair_heads {
            bytes = pair_heads(&bytes, shape.first().copied().unwrap_or(1), heads).into();
        }
        if let Some((dtype, plus)) = change.to_f32 {
            bytes = to_f32(&bytes, dtype, plus).into();
        }
        Ok(bytes)
    }

    /// Feeds what determines the bytes to a digest, of each piece at most `sample` bytes.
    pub(crate) fn identify(&self, files: &[Mapped], sample: usize, feed: &mut dyn FnMut(&[u8])) {
        match self {
            Made::Stored { pieces, change } => {
                if *change != Change::default() {
                    feed(format!("{change:?}\n").as_bytes());
                }
                for piece in pieces {
                    let bytes = slice(files, piece);
                    feed(bytes.get(..sample).unwrap_or(bytes));
                }
            }
            Made::Scaled { piece, format, scales } => {
                feed(format!("{format:?}\n").as_bytes());
                scales.iter().for_each(|scale| feed(&scale.to_le_bytes()));
                let bytes = slice(files, piece);
                feed(bytes.get(..sample).unwrap_or(bytes));
            }
            Made::Computed(values) => values.iter().for_each(|value| feed(&value.to_le_bytes())),
        }
    }
}

/// A piece's bytes; the readers have checked that they are there.
fn slice<'a>(files: &'a [Mapped], piece: &Piece) -> &'a [u8] {
    files.get(piece.file).and_then(|file| file.as_slice().get(piece.range.clone())).unwrap_or_default()
}

/// Within each head, row `j` of the first half and row `j` of the second become neighbours.
///
/// `transformers` rotates element `j` of a head with element `j + half`, GGUF's `llama` element `2j` with `2j + 1`.
fn pair_heads(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let (row, dim) = (bytes.len() / rows.max(1), rows / heads.max(1));
    let half = dim / 2;
    let mut out = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact((row * dim).max(1)) {
        for place in 0..dim {
            let from = place % 2 * half + place / 2;
            out.extend_from_slice(&head[from * row..][..row]);
        }
    }
    out
}

fn to_f32(bytes: &[u8], dtype: DType, plus: f32) -> Vec<u8> {
    let values: Vec<f32> = match dtype {
        DType::BF16 => {
            let pairs = bytes.as_chunks::<2>().0.iter();
            pairs.map(|&pair| f32::from_bits(u32::from(u16::from_le_bytes(pair)) << 16)).collect()
        }
        DType::F16 => {
            bytes.as_chunks::<2>().0.iter().map(|&pair| f16::from_le_bytes(pair).to_f32()).collect()
        }
        _ => bytes.as_chunks::<4>().0.iter().map(|&four| f32::from_le_bytes(four)).collect(),
    };
    // Not `+ 0.0`, which would turn -0 into 0.
    let changed = values.into_iter().map(|value| if plus == 0.0 { value } else { value + plus });
    changed.flat_map(f32::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_become_pairs() {
        // Two heads of four rows of one byte.
        assert_eq!(pair_heads(&[0, 1, 2, 3, 4, 5, 6, 7], 8, 2), [0, 2, 1, 3, 4, 6, 5, 7]);
        // One head of four rows of two bytes.
        assert_eq!(pair_heads(&[0, 0, 1, 1, 2, 2, 3, 3], 4, 1), [0, 0, 2, 2, 1, 1, 3, 3]);
    }

    #[test]
    fn elements_widen_exactly() {
        let floats = |bytes: Vec<u8>| -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect()
        };
        assert_eq!(floats(to_f32(&[0x80, 0x3f, 0, 0xc0], DType::BF16, 0.0)), [1.0, -2.0]);
        assert_eq!(floats(to_f32(&[0, 0x3c, 0, 0x80], DType::F16, 1.0)), [2.0, 1.0]);
        assert_eq!(to_f32(&(-0.0f32).to_le_bytes(), DType::F32, 0.0), (-0.0f32).to_le_bytes());
    }
}
