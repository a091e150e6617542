//! WordPiece (Schuster & Nakajima 2012) as BERT uses it: text is cleaned and cut at spaces, punctuation and Chinese
//! characters, and each word is the longest token that begins it, then the longest that goes on, or unknown.
//!
//! GGUF files mark the tokens that begin a word (`▁word`, `ing`) where BERT's own mark those that go on (`word`, `##ing`).

use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use crate::{FormatError, Metadata};

use super::vocabulary::Vocabulary;

/// Longer words are unknown (`max_input_chars_per_word` of BERT).
const MAX_CHARS: usize = 100;

/// How text is cleaned.
pub(super) struct WordPiece {
    normalizer: BertNormalizer,
    unknown: Option<u32>,
}

impl WordPiece {
    /// Reads the settings: lower case without accents unless the file says otherwise.
    pub(super) fn new(metadata: &Metadata, unknown: Option<u32>) -> Result<WordPiece, FormatError> {
        let lowercase = metadata.bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
        let strip_accents = metadata.bool("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
        Ok(WordPiece { normalizer: BertNormalizer::new(true, true, Some(strip_accents), lowercase), unknown })
    }

    /// Appends the ids of a text.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), FormatError> {
        let failed = |error: tokenizers::Error| FormatError::Tokenize(error.to_string());
        let mut normalized = NormalizedString::from(text);
        self.normalizer.normalize(&mut normalized).map_err(failed)?;
        let mut pieces = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut pieces).map_err(failed)?;
        for (word, ..) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            self.encode_word(vocabulary, word, ids);
        }
        Ok(())
    }

    fn encode_word(&self, vocabulary: &Vocabulary, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        let marked = format!("▁{word}");
        let mut rest = marked.as_str();
        if word.chars().count() > MAX_CHARS {
            ids.extend(self.unknown);
            return;
        }
        while !rest.is_empty() {
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
            let longest = ends
                .filter(|&end| end <= vocabulary.longest())
                .find_map(|end| vocabulary.id(&rest[..end]).map(|id| (end, id)));
            let Some((end, id)) = longest else {
                ids.truncate(before);
                ids.extend(self.unknown);
                return;
            };
            ids.push(id);
            rest = &rest[end..];
        }
    }
}
