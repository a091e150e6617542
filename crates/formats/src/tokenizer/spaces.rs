//! Spaces as the `tokenizers` library shows them to a unigram model, where that is not as SentencePiece does.

use crate::error::excerpt;
use crate::{FormatError, Metadata};

use super::{REPLACED_KEY, SPACES_KEY};

const MARK: char = '▁';

/// Every space is marked, and a word begins at every mark: none is dropped at an end, and runs are one word each space.
pub(super) struct Marked {
    /// Runs of spaces are one first.
    joined: bool,
    replaced: Option<(String, String)>,
}

impl Marked {
    pub(super) fn read(metadata: &Metadata) -> Result<Option<Marked>, FormatError> {
        let joined = match metadata.str(SPACES_KEY)? {
            None => return Ok(None),
            Some("joined") => true,
            Some("kept") => false,
            Some(other) => {
                return Err(FormatError::UnsupportedTokenizer {
                    key: SPACES_KEY,
                    found: excerpt(other),
                    supported: "joined, kept".to_owned(),
                });
            }
        };
        let replaced = match metadata.str_array(REPLACED_KEY)? {
            None => None,
            Some(pair) => match (pair.len(), pair.get(0), pair.get(1)) {
                (2, Some(from), Some(to)) if !from.is_empty() => Some((from.to_owned(), to.to_owned())),
                _ => {
                    let problem = "no text with another in its place".to_owned();
                    return Err(FormatError::InvalidValue { key: REPLACED_KEY.to_owned(), problem });
                }
            },
        };
        Ok(Some(Marked { joined, replaced }))
    }

    /// The words of a text, each with the mark it begins with; the first is given one if `is_prefixed` says so of the
    /// marked text.
    pub(super) fn words(&self, text: &str, is_prefixed: impl FnOnce(&str) -> bool) -> Vec<String> {
        let mut marked = String::with_capacity(text.len() + text.len() / 2);
        let replaced = match &self.replaced {
            Some((from, to)) => text.replace(from, to),
            None => text.to_owned(),
        };
        for c in replaced.chars() {
            match c {
                ' ' if self.joined && marked.ends_with(' ') => {}
                c => marked.push(c),
            }
        }
        let mut marked = marked.replace(' ', "▁");
        if marked.is_empty() {
            return Vec::new();
        }
        if is_prefixed(&marked) {
            marked.insert(0, MARK);
        }
        let mut words: Vec<String> = Vec::new();
        for c in marked.chars() {
            match words.last_mut() {
                Some(word) if c != MARK => word.push(c),
                _ => words.push(c.to_string()),
            }
        }
        words
    }
}
