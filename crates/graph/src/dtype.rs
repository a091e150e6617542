//! Storage types of weights: how many elements a block holds and how many bytes it takes.

use std::fmt;

/// How a tensor's elements are stored.
///
/// Block layouts are those of ggml (`ggml-common.h`, MIT), which GGUF files use:
/// a block covers consecutive elements of one row (the input dimension of a matrix).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    BF16,
    /// 32 elements: F16 scale `d`, 16 bytes of nibbles; `x = d * (q - 8)`.
    Q4_0,
    /// 32 elements: F16 scale `d`, F16 minimum `m`, 16 bytes of nibbles; `x = d * q + m`.
    Q4_1,
    /// 32 elements: F16 scale `d`, 32 signed bytes; `x = d * q`.
    Q8_0,
}

impl DType {
    /// Every storage type, in the order of declaration.
    pub const ALL: &'static [DType] =
        &[DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q8_0];

    /// Elements in one block (1 for the unquantised types).
    pub const fn block_elements(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 => 1,
            DType::Q4_0 | DType::Q4_1 | DType::Q8_0 => 32,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q8_0 => 34,
        }
    }

    /// Bytes of `elements` consecutive elements, or `None` if they are no whole number of blocks or overflow.
    pub const fn bytes_of(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// The name used in files and on the command line, e.g. `Q4_1`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::Q4_0 => "Q4_0",
            DType::Q4_1 => "Q4_1",
            DType::Q8_0 => "Q8_0",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_blocks_only() {
        assert_eq!(DType::Q4_1.bytes_of(64), Some(40));
        assert_eq!(DType::Q8_0.bytes_of(33), None);
        assert_eq!(DType::F32.bytes_of(usize::MAX), None);
        assert_eq!(DType::F16.bytes_of(3), Some(6));
    }
}
