//! Spaces as the `tokenizers` library shows them to a unigram model, where that is not as SentencePiece does.

use crate::error::excerpt;
use crate::{FormatError, Metadata};

use super::{REPLACED_KEY, SPACES_KEY};

const MARK: char = '▁';

/// What becomes of spaces before they are marked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spaces {
    /// Nothing: each is a word of its own, also at the ends.
    Kept,
    /// Runs are one.
    Joined,
    /// White space only parts words, each of which is marked.
    Dropped,
}

/// Every space is marked, and a word begins at every mark.
pub(super) struct Marked {
    spaces: Spaces,
    replaced: Option<(String, String)>,
}

impl Marked {
    pub(super) fn read(metadata: &Metadata) -> Result<Option<Marked>, FormatError> {
        let spaces = match metadata.str(SPACES_KEY)? {
            None => return Ok(None),
            Some("joined") => Spaces::Joined,
            Some("kept") => Spaces::Kept,
            Some("dropped") => Spaces::Dropped,
            Some(other) => {
                return Err(FormatError::UnsupportedTokenizer {
                    key: SPACES_KEY,
                    found: excerpt(other),
                    supported: "joined, kept, dropped".to_owned(),
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
        Ok(Some(Marked { spaces, replaced }))
    }

    /// The words of a text, each with the mark it begins with; the first is given one if `is_prefixed` says so of the
    /// marked text.
    pub(super) fn words(&self, text: &str, is_prefixed: impl FnOnce(&str) -> bool) -> Vec<String> {
        let text = match &self.replaced {
            Some((from, to)) => text.replace(from, to),
            None => text.to_owned(),
        };
        let mut words = Vec::new();
        match self.spaces {
            Spaces::Kept => cut(text, is_prefixed, &mut words),
            Spaces::Joined => {
                let mut joined = String::with_capacity(text.len());
                for c in text.chars() {
                    if c != ' ' || !joined.ends_with(' ') {
                        joined.push(c);
                    }
                }
                cut(joined, is_prefixed, &mut words);
            }
            Spaces::Dropped => {
                text.split_whitespace()
                    .for_each(|word| cut(word.to_owned(), |word| !word.starts_with(MARK), &mut words));
            }
        }
        words
    }
}

/// Marks the spaces of a text, and its beginning if that is to be, and cuts it there.
fn cut(text: String, is_prefixed: impl FnOnce(&str) -> bool, words: &mut Vec<String>) {
    let mut marked = text.replace(' ', "▁");
    if marked.is_empty() {
        return;
    }
    if is_prefixed(&marked) {
        marked.insert(0, MARK);
    }
    let mut is_first = true;
    for c in marked.chars() {
        match words.last_mut().filter(|_| !is_first && c != MARK) {
            Some(word) => word.push(c),
            None => words.push(c.to_string()),
        }
        is_first = false;
    }
}
