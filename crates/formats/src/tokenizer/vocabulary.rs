//! A vocabulary: texts, what each is for, and the way from a text to its id.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use crate::error::excerpt;
use crate::gguf::StringArray;
use crate::{FormatError, Metadata};

use super::special::Kind;

/// More tokens, and more bytes of them, than any model has; ids and positions thus fit 32 bits with room to spare.
const MAX_TOKENS: usize = 1 << 24;
const MAX_TEXT: usize = 1 << 28;

/// The tokens of a file.
pub(super) struct Vocabulary {
    tokens: StringArray,
    kinds: Vec<Kind>,
    /// Ids by the hash of their text. Only what text may become is in it: no control tokens, which a stranger could
    /// otherwise spell, and no byte tokens.
    ids: HashTable<u32>,
    /// Drawn anew for each vocabulary, so that no file can be made to collide.
    hasher: RandomState,
    longest: usize,
}

impl Vocabulary {
    /// Reads `tokenizer.ggml.tokens`.
    pub(super) fn tokens(metadata: &Metadata) -> Result<&StringArray, FormatError> {
        let tokens = metadata.require_str_array("tokenizer.ggml.tokens")?;
        if tokens.len() > MAX_TOKENS || tokens.text_len() > MAX_TEXT {
            let problem =
                format!("{} tokens of {} bytes; no model has that many", tokens.len(), tokens.text_len());
            return Err(FormatError::InvalidVocabulary(problem));
        }
        Ok(tokens)
    }

    /// Indexes the tokens; two of one text are refused, as which of them a text becomes would be chance.
    pub(super) fn new(tokens: &StringArray, kinds: Vec<Kind>) -> Result<Vocabulary, FormatError> {
        let tokens = tokens.clone();
        let hasher = RandomState::default();
        let mut ids = HashTable::with_capacity(tokens.len());
        let mut longest = 0;
        for ((text, kind), id) in tokens.iter().zip(&kinds).zip(0u32..) {
            if text.is_empty() || !kind.is_spelled() {
                continue;
            }
            longest = longest.max(text.len());
            let entry = ids.entry(
                hasher.hash_one(text),
                |&other: &u32| tokens.get(other as usize) == Some(text),
                |&other: &u32| hasher.hash_one(tokens.get(other as usize).unwrap_or_default()),
            );
            match entry {
                hashbrown::hash_table::Entry::Vacant(vacant) => {
                    vacant.insert(id);
                }
                hashbrown::hash_table::Entry::Occupied(first) => {
                    let problem = format!("tokens {} and {id} are both `{}`", first.get(), excerpt(text));
                    return Err(FormatError::InvalidVocabulary(problem));
                }
            }
        }
        Ok(Vocabulary { tokens, kinds, ids, hasher, longest })
    }

    /// The token of this text, if text may become it.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        if text.len() > self.longest {
            return None;
        }
        let hash = self.hasher.hash_one(text);
        self.ids.find(hash, |&id| self.tokens.get(id as usize) == Some(text)).copied()
    }

    /// A token's text; empty for an id there is not.
    pub(super) fn text(&self, id: u32) -> &str {
        self.tokens.get(id as usize).unwrap_or_default()
    }

    /// What the token is for.
    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// All tokens, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str, Kind)> {
        (0u32..).zip(self.tokens.iter()).zip(&self.kinds).map(|((id, text), &kind)| (id, text, kind))
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Bytes of the longest token that text may become.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The tokens that stand for single bytes: those of the kind, written `<0x41>`.
    pub(super) fn byte_tokens(&self) -> [Option<u32>; 256] {
        let mut ids = [None; 256];
        for (id, text, _) in self.iter().filter(|&(_, _, kind)| kind == Kind::Byte) {
            if let Some(byte) = byte_of(text) {
                ids[usize::from(byte)].get_or_insert(id);
            }
        }
        ids
    }
}

/// The byte that `<0x41>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// The array at `key`, one finite number for each token.
pub(super) fn scores(metadata: &Metadata, tokens: usize) -> Result<Vec<f32>, FormatError> {
    let key = "tokenizer.ggml.scores";
    let scores = metadata.require_f32_array(key)?;
    if scores.len() != tokens {
        let problem = format!("{} scores for {tokens} tokens", scores.len());
        return Err(FormatError::InvalidVocabulary(problem));
    }
    match scores.iter().position(|score| !score.is_finite()) {
        Some(id) => {
            let problem = format!("the score of token {id} is {}, which is no number to compare", scores[id]);
            Err(FormatError::InvalidVocabulary(problem))
        }
        None => Ok(scores),
    }
}
