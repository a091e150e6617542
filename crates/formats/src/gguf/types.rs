//! Every tensor type ggml has numbered, supported or not.

use std::fmt;

use wushi_graph::DType;

/// A tensor type as the file numbers it (`enum ggml_type`); any number can occur in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GgmlType(pub u32);

struct Entry {
    id: u32,
    name: &'static str,
    /// Elements and bytes of a block; `None` for types that no longer exist.
    block: Option<(usize, usize)>,
    dtype: Option<DType>,
}

const fn known(id: u32, name: &'static str, elements: usize, bytes: usize) -> Entry {
    Entry { id, name, block: Some((elements, bytes)), dtype: None }
}

const fn removed(id: u32, name: &'static str) -> Entry {
    Entry { id, name, block: None, dtype: None }
}

const fn supported(id: u32, dtype: DType) -> Entry {
    let block = Some((dtype.block_elements(), dtype.block_bytes()));
    Entry { id, name: dtype.name(), block, dtype: Some(dtype) }
}

/// `enum ggml_type` of ggml.h with the block sizes of ggml-common.h (MIT), ascending.
const TYPES: &[Entry] = &[
    supported(0, DType::F32),
    supported(1, DType::F16),
    supported(2, DType::Q4_0),
    supported(3, DType::Q4_1),
    removed(4, "Q4_2"),
    removed(5, "Q4_3"),
    supported(6, DType::Q5_0),
    supported(7, DType::Q5_1),
    supported(8, DType::Q8_0),
    known(9, "Q8_1", 32, 36),
    supported(10, DType::Q2_K),
    supported(11, DType::Q3_K),
    supported(12, DType::Q4_K),
    supported(13, DType::Q5_K),
    supported(14, DType::Q6_K),
    known(15, "Q8_K", 256, 292),
    known(16, "IQ2_XXS", 256, 66),
    known(17, "IQ2_XS", 256, 74),
    known(18, "IQ3_XXS", 256, 98),
    known(19, "IQ1_S", 256, 50),
    supported(20, DType::IQ4_NL),
    known(21, "IQ3_S", 256, 110),
    known(22, "IQ2_S", 256, 82),
    supported(23, DType::IQ4_XS),
    known(24, "I8", 1, 1),
    known(25, "I16", 1, 2),
    known(26, "I32", 1, 4),
    known(27, "I64", 1, 8),
    known(28, "F64", 1, 8),
    known(29, "IQ1_M", 256, 56),
    supported(30, DType::BF16),
    removed(31, "Q4_0_4_4"),
    removed(32, "Q4_0_4_8"),
    removed(33, "Q4_0_8_8"),
    known(34, "TQ1_0", 256, 54),
    known(35, "TQ2_0", 256, 66),
    removed(36, "IQ4_NL_4_4"),
    removed(37, "IQ4_NL_4_8"),
    removed(38, "IQ4_NL_8_8"),
    supported(39, DType::MXFP4),
    known(40, "NVFP4", 64, 36),
    known(41, "Q1_0", 128, 18),
    known(42, "Q2_0", 64, 18),
];

impl GgmlType {
    fn entry(self) -> Option<&'static Entry> {
        // Ids are dense, so an entry's place is its id; a test holds the table to that.
        TYPES.get(usize::try_from(self.0).ok()?)
    }

    /// Elements and bytes of one block, if this type is known and still exists.
    pub fn block(self) -> Option<(usize, usize)> {
        self.entry()?.block
    }

    /// The storage type the executors know it as, if they do.
    pub fn dtype(self) -> Option<DType> {
        self.entry()?.dtype
    }

    /// Names of the supported types, for messages: `F32, F16, …`.
    pub fn supported_names() -> String {
        let names: Vec<_> = TYPES.iter().filter(|t| t.dtype.is_some()).map(|t| t.name).collect();
        names.join(", ")
    }
}

impl From<DType> for GgmlType {
    /// The file's number of a storage type.
    ///
    /// # Panics
    /// If a `DType` was added to the graph but not to the table above; a test goes through all of them.
    fn from(dtype: DType) -> Self {
        let entry = TYPES.iter().find(|t| t.dtype == Some(dtype));
        GgmlType(entry.expect("every DType has a ggml number").id)
    }
}

/// `general.file_type` of a file whose matrices are mostly of one type: `enum llama_ftype` of llama.cpp's `llama.h`
/// (MIT), of which the small mixtures stand for the K-quants.
pub fn file_type(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::Q5_0 => 8,
        DType::Q5_1 => 9,
        DType::Q2_K => 10,
        DType::Q3_K => 11,
        DType::Q4_K => 14,
        DType::Q5_K => 16,
        DType::Q6_K => 18,
        DType::IQ4_NL => 25,
        DType::IQ4_XS => 30,
        DType::BF16 => 32,
        DType::MXFP4 => 38,
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry() {
            Some(entry) => f.pad(entry.name),
            None => f.pad(&format!("unknown ggml type {}", self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_dense_and_covers_every_dtype() {
        for (place, entry) in TYPES.iter().enumerate() {
            assert_eq!(place as u32, entry.id, "{}", entry.name);
        }
        for &dtype in DType::ALL {
            assert_eq!(GgmlType::from(dtype).dtype(), Some(dtype));
        }
        assert_eq!(GgmlType::from(DType::BF16).0, 30);
    }

    #[test]
    fn unknown_numbers_have_a_name_for_messages() {
        assert_eq!(GgmlType(12).to_string(), "Q4_K");
        assert_eq!(GgmlType(u32::MAX).to_string(), "unknown ggml type 4294967295");
        assert_eq!(GgmlType(999).block(), None);
    }
}
