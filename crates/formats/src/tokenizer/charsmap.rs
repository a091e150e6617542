//! The table by which SentencePiece normalises text (`precompiled_charsmap`): a trie of prefixes, each with what stands
//! in its place.
//!
//! The bytes are those of SentencePiece's model files: the length of the trie, a double array of 32-bit units as
//! Darts-clone lays them out, then the replacements, each ended by a zero byte.

use crate::FormatError;

/// A table that was read.
pub(super) struct CharsMap {
    units: Vec<u32>,
    replacements: String,
}

impl CharsMap {
    /// Reads a table; none at all changes nothing.
    pub(super) fn new(bytes: &[u8]) -> Result<CharsMap, FormatError> {
        let invalid = |problem: &str| {
            FormatError::InvalidVocabulary(format!("tokenizer.ggml.precompiled_charsmap {problem}"))
        };
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
            if bytes.is_empty() {
                return Ok(CharsMap { units: Vec::new(), replacements: String::new() });
            }
            return Err(invalid("ends within its first four bytes"));
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length % 4 != 0 || length > rest.len() {
            return Err(invalid(&format!("has {} bytes, but its trie takes {length}", rest.len())));
        }
        let (trie, replacements) = rest.split_at(length);
        let units = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements =
            std::str::from_utf8(replacements).map_err(|_| invalid("has replacements that are no text"))?;
        Ok(CharsMap { units, replacements: replacements.to_owned() })
    }

    /// The longest prefix of a text that has a replacement: its bytes, and what stands in its place. Where the table
    /// points outside itself it has none.
    pub(super) fn prefix(&self, text: &str) -> Option<(usize, &str)> {
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let mut node = offset(*self.units.first()?);
        let mut longest = None;
        for (at, byte) in text.bytes().enumerate() {
            node ^= u32::from(byte);
            let Some(&unit) = self.units.get(node as usize) else { break };
            // Of a leaf the highest bit is set, so that it is no child.
            if byte == 0 || unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            node ^= offset(unit);
            let has_leaf = unit >> 8 & 1 == 1;
            if has_leaf && text.is_char_boundary(at + 1) {
                let leaf = self.units.get(node as usize).map(|leaf| (leaf & !(1 << 31)) as usize);
                let replacement = leaf.and_then(|start| self.replacements.get(start..));
                let replacement = replacement.and_then(|text| text.split_once('\0'));
                longest = replacement.map(|(replacement, _)| (at + 1, replacement)).or(longest);
            }
        }
        longest
    }
}
