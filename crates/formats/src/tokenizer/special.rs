//! Tokens that are more than text: what kind each is, and which end an answer.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

use crate::gguf::StringArray;
use crate::{FormatError, Metadata};

use super::vocabulary::Vocabulary;

/// What a token is for (`tokenizer.ggml.token_type`; `enum llama_token_type` of llama.cpp).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, reached by merging.
    Text,
    /// A place in the vocabulary that nothing was made of.
    Unused,
    /// Stands for a role, a turn's end and so on; recognised in prompts only where that is asked for.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// A byte of a character that has no token, written `<0x41>`.
    Byte,
}

impl Kind {
    /// From the file's number; `None` if there is no such kind.
    pub(super) fn from_number(number: i32) -> Option<Kind> {
        match number {
            // Undefined, normal.
            0 | 1 => Some(Kind::Text),
            // Unknown, control.
            2 | 3 => Some(Kind::Control),
            4 => Some(Kind::UserDefined),
            5 => Some(Kind::Unused),
            6 => Some(Kind::Byte),
            _ => None,
        }
    }

    /// Whether text may become the token by being spelled like it.
    pub(super) fn is_spelled(self) -> bool {
        matches!(self, Kind::Text | Kind::Unused | Kind::UserDefined)
    }
}

/// Metadata keys of tokens that end an answer, besides the end of sequence.
const ENDING_KEYS: &[&str] = &[
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

/// Texts of tokens that end an answer whatever the file says: many files declare one of several, or the wrong one.
/// The list is llama.cpp's, `</s>` and `<eos>` aside, which are also plain mark-up and must be declared.
const ENDING_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<reponame>",
    "<|file_sep|>",
];

/// Whether a token of this text ends an answer.
fn is_ending(text: &str) -> bool {
    // Quick for the 50,000 that do not: all of the list are bracketed.
    matches!(text.as_bytes(), [b'<' | b'[' | b'_', .., b'>' | b']']) && ENDING_TEXTS.contains(&text)
}

/// Finds tokens that are matched in the text before anything else: the leftmost, the longest of those.
pub(super) struct SpecialTokens {
    matcher: AhoCorasick,
    ids: Vec<u32>,
}

impl SpecialTokens {
    /// Of the tokens of the given kinds.
    pub(super) fn new(vocabulary: &Vocabulary, kinds: &[Kind]) -> Result<SpecialTokens, FormatError> {
        let (mut ids, mut texts) = (Vec::new(), Vec::new());
        for (id, text, kind) in vocabulary.iter() {
            if kinds.contains(&kind) && !text.is_empty() {
                ids.push(id);
                texts.push(text);
            }
        }
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // A table of all transitions could outgrow memory on a hostile file; this kind stays in proportion to it.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(texts)
            .map_err(|error| FormatError::InvalidVocabulary(format!("special tokens: {error}")))?;
        Ok(SpecialTokens { matcher, ids })
    }

    /// Where the tokens are in a text, and which.
    pub(super) fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (Range<usize>, u32)> + 'a {
        self.matcher.find_iter(text).map(|found| (found.range(), self.ids[found.pattern().as_usize()]))
    }

    /// The first of the tokens that lie wholly within a part of a text; other bytes make no difference.
    pub(super) fn find_in(&self, text: &str, part: Range<usize>) -> Option<(Range<usize>, u32)> {
        let found = self.matcher.find(Input::new(text).range(part))?;
        Some((found.range(), self.ids[found.pattern().as_usize()]))
    }
}

/// Special tokens that take the spaces beside them along (`lstrip` and `rstrip` of `tokenizers`), ascending.
pub(super) struct Stripping {
    left: Vec<u32>,
    right: Vec<u32>,
}

/// Ids of such tokens, in files made from `tokenizer.json`.
pub(super) const STRIP_LEFT_KEY: &str = "tokenizer.wushi.strip_left";
pub(super) const STRIP_RIGHT_KEY: &str = "tokenizer.wushi.strip_right";

/// Phi-3's and Phi-3.5's. llama.cpp knows these models by their name, which files made from them often lack.
const STRIPPING_MARKS: &[&str] = &["<|placeholder1|>", "<|placeholder6|>", "<|assistant|>", "<|end|>"];

impl Stripping {
    /// What the file says. Where it says nothing, one vocabulary whose tokens all strip is known by those it has.
    pub(super) fn read(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Stripping, FormatError> {
        let ids = |key: &str| {
            let mut ids = metadata.u32_array(key)?.unwrap_or_default();
            ids.sort_unstable();
            Ok::<_, FormatError>(ids)
        };
        let mut right = ids(STRIP_RIGHT_KEY)?;
        if metadata.get(STRIP_RIGHT_KEY).is_none() && vocabulary.has_special(STRIPPING_MARKS) {
            let strips = |text: &str, kind: Kind| {
                matches!(kind, Kind::Control | Kind::UserDefined)
                    && !["<unk>", "<s>", "<|endoftext|>"].contains(&text)
            };
            right =
                vocabulary.iter().filter(|&(_, text, kind)| strips(text, kind)).map(|(id, ..)| id).collect();
        }
        Ok(Stripping { left: ids(STRIP_LEFT_KEY)?, right })
    }

    /// The place of a token in a text with the spaces it takes along.
    pub(super) fn widen(&self, text: &str, place: Range<usize>, id: u32) -> Range<usize> {
        let mut wide = place.clone();
        if self.left.binary_search(&id).is_ok() {
            wide.start = text[..place.start].trim_end().len();
        }
        if self.right.binary_search(&id).is_ok() {
            wide.end = text.len() - text[place.end..].trim_start().len();
        }
        wide
    }
}

/// Ids with a meaning.
#[derive(Debug)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    /// What a prompt begins with.
    pub(super) first: Option<u32>,
    /// What a prompt ends with.
    pub(super) last: Option<u32>,
    pub(super) end_of_generation: Vec<u32>,
}

/// What holds where a file does not say (llama.cpp's defaults of each kind of tokenizer).
pub(super) struct Defaults {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) separator: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    /// Whether prompts stand between the first token and the separator, whatever the file says (BERT).
    pub(super) enclose: bool,
}

/// The id at `key`, which must be one of so many tokens.
pub(super) fn id_at(metadata: &Metadata, key: &str, tokens: usize) -> Result<Option<u32>, FormatError> {
    match metadata.u32(key)? {
        Some(id) if id as usize >= tokens => {
            let problem = format!("{key} is {id}, but there are {tokens} tokens");
            Err(FormatError::InvalidVocabulary(problem))
        }
        id => Ok(id),
    }
}

impl SpecialIds {
    /// Reads the ids and checks them against the vocabulary.
    pub(super) fn read(
        metadata: &Metadata,
        tokens: &StringArray,
        defaults: &Defaults,
    ) -> Result<SpecialIds, FormatError> {
        let invalid = FormatError::InvalidVocabulary;
        let id = |key: &str| id_at(metadata, key, tokens.len());
        let or = |id: Option<u32>, default: Option<u32>| {
            id.or(default.filter(|&default| (default as usize) < tokens.len()))
        };
        let bos = match id("tokenizer.ggml.bos_token_id")? {
            None if defaults.enclose => id("tokenizer.ggml.cls_token_id")?,
            bos => bos,
        };
        let (bos, eos) = (or(bos, defaults.bos), or(id("tokenizer.ggml.eos_token_id")?, defaults.eos));
        let adds = |key: &str, default: bool, token: Option<u32>| match metadata.bool(key)? {
            Some(true) if token.is_none() => {
                Err(invalid(format!("{key} is set, but there is no such token")))
            }
            said => Ok(token.filter(|_| said.unwrap_or(default))),
        };
        let (first, last) = if defaults.enclose {
            // The first key is how llama.cpp spells it.
            let separator = match id("tokenizer.ggml.seperator_token_id")? {
                None => id("tokenizer.ggml.separator_token_id")?,
                separator => separator,
            };
            (bos, or(separator, defaults.separator))
        } else {
            (
                adds("tokenizer.ggml.add_bos_token", defaults.add_bos, bos)?,
                adds("tokenizer.ggml.add_eos_token", defaults.add_eos, eos)?,
            )
        };
        let unknown = or(id("tokenizer.ggml.unknown_token_id")?, defaults.unknown);
        let mut end_of_generation: Vec<u32> = eos.into_iter().collect();
        for key in ENDING_KEYS {
            end_of_generation.extend(id(key)?);
        }
        add_endings_by_text(tokens, &mut end_of_generation);
        Ok(SpecialIds { bos, eos, unknown, first, last, end_of_generation })
    }
}

/// Adds the tokens that end an answer by their text, and puts them in order.
fn add_endings_by_text(tokens: &StringArray, endings: &mut Vec<u32>) {
    let (mut returns, mut calls, mut call_lists, mut flushes) = (false, false, false, false);
    for (text, id) in tokens.iter().zip(0u32..) {
        if !is_ending(text) {
            continue;
        }
        endings.push(id);
        returns |= text == "<|return|>";
        calls |= text == "<|call|>";
        call_lists |= text == "<|calls|>";
        flushes |= text == "<|flush|>";
    }
    endings.sort_unstable();
    endings.dedup();
    // Harmony and its like end a message, not the answer, with `<|end|>`.
    if (returns && calls) || (flushes && call_lists) {
        endings.retain(|&id| tokens.get(id as usize) != Some("<|end|>"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_check_misses_none() {
        for text in ENDING_TEXTS {
            assert!(is_ending(text), "{text}");
        }
        assert!(!is_ending("</s>") && !is_ending("") && !is_ending("<"));
    }
}
