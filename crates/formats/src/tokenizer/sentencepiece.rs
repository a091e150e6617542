//! SentencePiece's byte pair encoding (Kudo & Richardson 2018), as Llama, Mistral and Gemma use it: neighbours merge
//! whenever they make a token, the one with the best score first. Spaces are written `▁`, and a character without a
//! token becomes the tokens of its bytes.

use crate::{FormatError, Metadata};

use super::merge::{Merger, NONE};
use super::vocabulary::{self, Vocabulary};

/// Where a space is put in front that the text does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// Nowhere.
    Never,
    /// At the beginning and after each special token.
    Segments,
    /// The same, unless there is a space.
    SegmentsUnlessSpace,
    /// At the very beginning, unless there is a space.
    StartUnlessSpace,
}

impl Prefix {
    /// `add_space_prefix` tells the first two apart; files made from `tokenizer.json` know the others too.
    fn read(metadata: &Metadata) -> Result<Prefix, FormatError> {
        if !metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) {
            return Ok(Prefix::Never);
        }
        match metadata.str(super::SPACE_PREFIX_KEY)? {
            None => Ok(Prefix::Segments),
            Some("segments-unless-space") => Ok(Prefix::SegmentsUnlessSpace),
            Some("start-unless-space") => Ok(Prefix::StartUnlessSpace),
            Some(other) => Err(super::unknown_space_prefix(other)),
        }
    }

    /// Whether it does for a text at the start, or behind a special token.
    fn applies(self, text: &str, at_start: bool) -> bool {
        let is_spaced = text.starts_with([' ', '▁']);
        match self {
            Prefix::Never => false,
            Prefix::Segments => true,
            Prefix::SegmentsUnlessSpace => !is_spaced,
            Prefix::StartUnlessSpace => at_start && !is_spaced,
        }
    }
}

/// Scores, and what becomes of characters without a token.
pub(super) struct SentencePiece {
    /// For each token, lower is earlier.
    keys: Vec<u32>,
    bytes: Box<[Option<u32>; 256]>,
    unknown: Option<u32>,
    prefix: Prefix,
}

impl SentencePiece {
    /// Reads scores and settings.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        metadata: &Metadata,
        unknown: Option<u32>,
    ) -> Result<SentencePiece, FormatError> {
        let scores = vocabulary::scores(metadata, vocabulary.len())?;
        Ok(SentencePiece {
            keys: scores.into_iter().map(|score| !ordered(score)).collect(),
            bytes: Box::new(vocabulary.byte_tokens()),
            unknown,
            prefix: Prefix::read(metadata)?,
        })
    }

    /// Appends the ids of a piece of text between special tokens.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, at_start: bool, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let space = if self.prefix.applies(text, at_start) { "▁" } else { "" };
        let text = format!("{space}{}", text.replace(' ', "▁"));
        let mut merger = Merger::default();
        for (at, c) in text.char_indices() {
            merger.push(at, c.len_utf8(), vocabulary.id(&text[at..at + c.len_utf8()]));
        }
        let find = |left: &super::merge::Symbol, right: &super::merge::Symbol| {
            let id = vocabulary.id(&text[left.start as usize..(right.start + right.len) as usize])?;
            Some((self.keys[id as usize], id))
        };
        for symbol in merger.run(find) {
            if symbol.id != NONE {
                ids.push(symbol.id);
                continue;
            }
            let bytes = &text.as_bytes()[symbol.start as usize..][..symbol.len as usize];
            if bytes.iter().all(|&byte| self.bytes[usize::from(byte)].is_some()) {
                ids.extend(bytes.iter().filter_map(|&byte| self.bytes[usize::from(byte)]));
            } else {
                ids.extend(self.unknown);
            }
        }
    }
}

/// An integer that is ordered as the number is.
fn ordered(score: f32) -> u32 {
    // Both zeros are one score.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

#[cfg(test)]
mod tests {
    use super::ordered;

    #[test]
    fn order_is_that_of_the_numbers() {
        let scores = [f32::MIN, -1e9, -2.0, -1.5, -1e-40, 0.0, 1e-40, 1.0, f32::MAX];
        assert!(scores.windows(2).all(|pair| ordered(pair[0]) < ordered(pair[1])));
        assert_eq!(ordered(-0.0), ordered(0.0));
    }
}
