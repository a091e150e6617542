//! Storage types of weights: how many elements a block holds and how many bytes it takes.

use std::fmt;

/// How a tensor's elements are stored.
///
/// Block layouts are those of ggml (`ggml-common.h`, MIT), which GGUF files use:
/// a block covers consecutive elements of one row (the input dimension of a matrix).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types, reason = "the names that files and people use")]
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
    /// 32 elements: F16 scale `d`, 32 fifth bits, 16 bytes of nibbles; `x = d * (q - 16)`.
    Q5_0,
    /// 32 elements: F16 scale `d`, F16 minimum `m`, 32 fifth bits, 16 bytes of nibbles; `x = d * q + m`.
    Q5_1,
    /// 32 elements: F16 scale `d`, 32 signed bytes; `x = d * q`.
    Q8_0,
    /// 256 elements in groups of 16: 2-bit quants, 4-bit scales and minima, F16 `d` and `dmin`;
    /// `x = d * scale * q - dmin * min`.
    Q2_K,
    /// 256 elements in groups of 16: 3-bit quants, 6-bit scales, F16 `d`; `x = d * (scale - 32) * (q - 4)`.
    Q3_K,
    /// 256 elements in groups of 32: 4-bit quants, 6-bit scales and minima, F16 `d` and `dmin`;
    /// `x = d * scale * q - dmin * min`.
    Q4_K,
    /// [`DType::Q4_K`] with a fifth bit.
    Q5_K,
    /// 256 elements in groups of 16: 6-bit quants, signed 8-bit scales, F16 `d`; `x = d * scale * (q - 32)`.
    Q6_K,
    /// 32 elements: F16 scale `d`, nibbles that index a table of 16 signed bytes; `x = d * table[q]`.
    IQ4_NL,
    /// 256 elements in groups of 32 with 6-bit scales; `x = d * (scale - 32) * table[q]`.
    IQ4_XS,
    /// 32 elements: a power of two as scale (E8M0), nibbles in E2M1 (Open Compute MX, 2023).
    MXFP4,
}

impl DType {
    /// Every storage type, in the order of declaration.
    pub const ALL: &'static [DType] = &[
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q2_K,
        DType::Q3_K,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
        DType::IQ4_NL,
        DType::IQ4_XS,
        DType::MXFP4,
    ];

    /// Elements in one block (1 for the unquantised types).
    pub const fn block_elements(self) -> usize {
        use DType::*;
        match self {
            F32 | F16 | BF16 => 1,
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4_NL | MXFP4 => 32,
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | IQ4_XS => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q4_0 | DType::IQ4_NL => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q8_0 => 34,
            DType::Q2_K => 84,
            DType::Q3_K => 110,
            DType::Q4_K => 144,
            DType::Q5_K => 176,
            DType::Q6_K => 210,
            DType::IQ4_XS => 136,
            DType::MXFP4 => 17,
        }
    }

    /// Bytes of `elements` consecutive elements, or `None` if they are no whole number of blocks or overflow.
    pub const fn bytes_of(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// Whether elements are stored one by one rather than in blocks with shared scales.
    pub const fn is_plain(self) -> bool {
        self.block_elements() == 1
    }

    /// The name used in files and on the command line, e.g. `Q4_1`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::Q4_0 => "Q4_0",
            DType::Q4_1 => "Q4_1",
            DType::Q5_0 => "Q5_0",
            DType::Q5_1 => "Q5_1",
            DType::Q8_0 => "Q8_0",
            DType::Q2_K => "Q2_K",
            DType::Q3_K => "Q3_K",
            DType::Q4_K => "Q4_K",
            DType::Q5_K => "Q5_K",
            DType::Q6_K => "Q6_K",
            DType::IQ4_NL => "IQ4_NL",
            DType::IQ4_XS => "IQ4_XS",
            DType::MXFP4 => "MXFP4",
        }
    }

    /// The type of this name, in upper or lower case.
    pub fn named(name: &str) -> Option<DType> {
        Self::ALL.iter().copied().find(|dtype| dtype.name().eq_ignore_ascii_case(name))
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
        assert_eq!(DType::Q4_K.bytes_of(512), Some(288));
    }

    #[test]
    fn every_type_is_found_by_its_name() {
        for &dtype in DType::ALL {
            assert_eq!(DType::named(&dtype.name().to_lowercase()), Some(dtype));
        }
        assert_eq!(DType::named("Q9_9"), None);
    }
}
