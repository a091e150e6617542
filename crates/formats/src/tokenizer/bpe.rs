//! Byte pair encoding (Sennrich et al. 2016; over bytes: Radford et al. 2019): a word's parts merge in the order of a list.
//!
//! The list makes both kinds of it: over bytes, each written as a character (`alphabet`), or over characters with `▁`
//! for a space, where one without a token becomes its bytes (`gemma4`).
//!
//! The `tokenizers` crate has this too, but takes several times longer to read a large vocabulary, which is most of what
//! opening a model costs.

use foldhash::HashMap;

use crate::FormatError;
use crate::error::excerpt;
use crate::gguf::StringArray;

use super::alphabet;
use super::merge::{Merger, NONE};
use super::pre::{PreTokenizer, Splitter};
use super::vocabulary::Vocabulary;

/// What words are made of before anything is merged.
enum Alphabet {
    /// The token of each byte.
    Bytes(Box<[Option<u32>; 256]>),
    /// Characters, and the tokens of the bytes of those that have none.
    Characters(Box<[Option<u32>; 256]>),
}

/// A list of merges and the way words are cut.
pub(super) struct Bpe {
    splitter: Splitter,
    alphabet: Alphabet,
    /// What two tokens merge into, and when.
    merges: HashMap<(u32, u32), Merge>,
    /// Whether a word that is a token is that token, however its pairs would merge.
    ignore_merges: bool,
}

#[derive(Clone, Copy)]
struct Merge {
    rank: u32,
    id: u32,
}

impl Bpe {
    /// Reads the list; a merge of or into what is no token is refused.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        merges: &StringArray,
        pre: &PreTokenizer,
    ) -> Result<Bpe, FormatError> {
        let alphabet = if pre.over_bytes {
            let mut bytes = [None; 256];
            for (byte, id) in bytes.iter_mut().enumerate() {
                *id = vocabulary.id(alphabet::char_of(byte as u8).encode_utf8(&mut [0; 4]));
            }
            Alphabet::Bytes(Box::new(bytes))
        } else {
            Alphabet::Characters(Box::new(vocabulary.byte_tokens()))
        };
        Ok(Bpe {
            splitter: pre.splitter(),
            alphabet,
            merges: read_merges(vocabulary, merges)?,
            ignore_merges: pre.ignore_merges,
        })
    }

    /// Appends the ids of a text.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), FormatError> {
        let mut merger = Merger::default();
        match &self.alphabet {
            Alphabet::Bytes(tokens) => {
                let mut word = String::new();
                for piece in self.splitter.split(text)? {
                    if self.ignore_merges {
                        word.clear();
                        alphabet::encode(piece, &mut word);
                        if let Some(id) = vocabulary.id(&word) {
                            ids.push(id);
                            continue;
                        }
                    }
                    self.encode_bytes(piece, tokens, &mut merger, ids);
                }
            }
            Alphabet::Characters(bytes) => {
                let text = text.replace(' ', "▁");
                for piece in self.splitter.split(&text)? {
                    self.encode_characters(vocabulary, piece, bytes, &mut merger, ids);
                }
            }
        }
        Ok(())
    }

    fn encode_bytes(&self, word: &str, tokens: &[Option<u32>; 256], merger: &mut Merger, ids: &mut Vec<u32>) {
        merger.clear();
        for (at, byte) in word.bytes().enumerate() {
            merger.push(at, 1, tokens[usize::from(byte)]);
        }
        let left = merger.run(|left, right| self.find(left.id, right.id));
        ids.extend(left.map(|symbol| symbol.id).filter(|&id| id != NONE));
    }

    fn encode_characters(
        &self,
        vocabulary: &Vocabulary,
        word: &str,
        bytes: &[Option<u32>; 256],
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) {
        // Line feeds are never merged, but runs of them may be tokens.
        if self.ignore_merges || word.bytes().all(|byte| byte == b'\n') {
            if let Some(id) = vocabulary.id(word) {
                ids.push(id);
                return;
            }
        }
        merger.clear();
        for (at, c) in word.char_indices() {
            merger.push(at, c.len_utf8(), vocabulary.id(&word[at..at + c.len_utf8()]));
        }
        for symbol in merger.run(|left, right| self.find(left.id, right.id)) {
            if symbol.id != NONE {
                ids.push(symbol.id);
                continue;
            }
            let text = &word.as_bytes()[symbol.start as usize..][..symbol.len as usize];
            ids.extend(text.iter().filter_map(|&byte| bytes[usize::from(byte)]));
        }
    }

    fn find(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        // Pieces without a token are in no merge.
        self.merges.get(&(left, right)).map(|merge| (merge.rank, merge.id))
    }
}

fn read_merges(
    vocabulary: &Vocabulary,
    merges: &StringArray,
) -> Result<HashMap<(u32, u32), Merge>, FormatError> {
    let invalid = FormatError::InvalidVocabulary;
    let mut table = HashMap::with_capacity_and_hasher(merges.len(), Default::default());
    let mut joined = String::new();
    for (rank, merge) in merges.iter().enumerate() {
        // The first part is at least one character, so that a space can be one.
        let space = merge.bytes().skip(1).position(|byte| byte == b' ').map(|at| at + 1);
        let Some((left, right)) = space.map(|at| (&merge[..at], &merge[at + 1..])) else {
            return Err(invalid(format!("merge {rank} is `{}`, which is no pair", excerpt(merge))));
        };
        if left.len() + right.len() > vocabulary.longest() {
            return Err(invalid(format!("merge {rank} (`{}`) is longer than any token", excerpt(merge))));
        }
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let id = |text: &str| {
            vocabulary.id(text).ok_or_else(|| {
                invalid(format!(
                    "merge {rank} (`{}`) needs `{}`, which is no token",
                    excerpt(merge),
                    excerpt(text)
                ))
            })
        };
        let pair = (id(left)?, id(right)?);
        let id = id(&joined)?;
        table.entry(pair).or_insert(Merge { rank: rank as u32, id });
    }
    Ok(table)
}
