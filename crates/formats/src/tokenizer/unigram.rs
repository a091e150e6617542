//! A unigram language model (Kudo 2018), as T5 and XLM-R use it: of all ways to cut the text into tokens, the one whose
//! log-probabilities have the largest sum.

use crate::gguf::{Array, Value};
use crate::{FormatError, Metadata};

use super::charsmap::CharsMap;
use super::spaces::Marked;
use super::special::Kind;
use super::vocabulary::{self, Vocabulary};

/// A character without a token costs this much more than the rarest token (SentencePiece's `kUnkPenalty`).
const UNKNOWN_PENALTY: f64 = 10.0;
/// SentencePiece's own limit is far lower; the search takes time in proportion.
const MAX_TOKEN: usize = 4096;

/// Where the first word of a text is marked as one without a space in front.
#[derive(Clone, Copy)]
enum Prefix {
    /// Wherever a text begins.
    Words,
    /// There too, unless it begins with the mark.
    UnlessSpace,
    /// At the very beginning, and not behind a special token, under the same condition.
    StartUnlessSpace,
}

impl Prefix {
    fn read(metadata: &Metadata) -> Result<Prefix, FormatError> {
        match metadata.str(super::SPACE_PREFIX_KEY)? {
            None => Ok(Prefix::Words),
            Some("segments-unless-space") => Ok(Prefix::UnlessSpace),
            Some("start-unless-space") => Ok(Prefix::StartUnlessSpace),
            Some(other) => Err(super::unknown_space_prefix(other)),
        }
    }
}

/// Scores, normalisation, and the tokens in order.
pub(super) struct Unigram {
    scores: Vec<f32>,
    /// Tokens that text may become, in the order of their texts: those that begin alike are neighbours.
    sorted: Vec<u32>,
    /// Where in `sorted` the tokens of each first byte begin.
    first: Box<[u32; 257]>,
    charsmap: CharsMap,
    add_space_prefix: bool,
    prefix: Prefix,
    remove_extra_whitespaces: bool,
    /// Where spaces are not as SentencePiece sees them.
    marked: Option<Marked>,
    unknown: u32,
    unknown_score: f64,
}

/// The best way to cut the text up to some place: its last token, where that begins, and the sum of scores.
#[derive(Clone, Copy)]
struct Best {
    id: u32,
    start: u32,
    score: f64,
}

impl Unigram {
    /// Reads scores and normalisation, and sorts the tokens.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        metadata: &Metadata,
        unknown: Option<u32>,
    ) -> Result<Unigram, FormatError> {
        let invalid = |problem: String| FormatError::InvalidVocabulary(problem);
        let scores = vocabulary::scores(metadata, vocabulary.len())?;
        let unknown = unknown
            .ok_or_else(|| invalid("a unigram vocabulary needs a token for what is unknown".to_owned()))?;
        if vocabulary.longest() > MAX_TOKEN {
            let problem =
                format!("a token of {} bytes; at most {MAX_TOKEN} are supported", vocabulary.longest());
            return Err(invalid(problem));
        }
        let mut sorted: Vec<u32> = vocabulary
            .iter()
            .filter(|(_, text, kind)| kind.is_spelled() && !text.is_empty())
            .map(|(id, ..)| id)
            .collect();
        sorted.sort_unstable_by_key(|&id| vocabulary.text(id));
        let mut first = Box::new([0; 257]);
        for byte in 0..=256usize {
            let begins_before = |&id: &u32| usize::from(vocabulary.text(id).as_bytes()[0]) < byte;
            first[byte] = sorted.partition_point(begins_before) as u32;
        }
        let normal = vocabulary.iter().filter(|&(.., kind)| kind == Kind::Text);
        let lowest = normal.map(|(id, ..)| scores[id as usize]).fold(f32::MAX, f32::min);
        Ok(Unigram {
            sorted,
            first,
            charsmap: CharsMap::new(&charsmap_bytes(metadata)?)?,
            add_space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
            prefix: Prefix::read(metadata)?,
            remove_extra_whitespaces: metadata
                .bool("tokenizer.ggml.remove_extra_whitespaces")?
                .unwrap_or(false),
            marked: Marked::read(metadata)?,
            unknown,
            unknown_score: f64::from(lowest) - UNKNOWN_PENALTY,
            scores,
        })
    }

    /// Appends the ids of a text.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, at_start: bool, ids: &mut Vec<u32>) {
        let may_prefix = match self.prefix {
            Prefix::Words => true,
            Prefix::UnlessSpace => !text.starts_with('▁'),
            Prefix::StartUnlessSpace => at_start && !text.starts_with('▁'),
        };
        let Some(marked) = &self.marked else {
            let text = self.normalize(text, may_prefix);
            self.encode_word(vocabulary, &text, ids);
            return;
        };
        for word in marked.words(&self.mapped(text), |text| match self.prefix {
            Prefix::Words | Prefix::UnlessSpace => !text.starts_with('▁'),
            Prefix::StartUnlessSpace => at_start && !text.starts_with('▁'),
        }) {
            self.encode_word(vocabulary, &word, ids);
        }
    }

    /// Appends the ids of a text that is as the model sees it.
    fn encode_word(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<u32>) {
        let none = Best { id: self.unknown, start: 0, score: f64::NEG_INFINITY };
        let mut best = vec![none; text.len() + 1];
        best[0].score = 0.0;
        for (start, c) in text.char_indices() {
            let mut reach = |end: usize, id: u32, score: f64| {
                let score = best[start].score + score;
                if score > best[end].score {
                    best[end] = Best { id, start: start as u32, score };
                }
            };
            let mut has_character = false;
            self.each_token(vocabulary, &text.as_bytes()[start..], |len, id| {
                has_character |= len == c.len_utf8();
                let is_certain = vocabulary.kind(id) == Some(Kind::UserDefined);
                let score = if is_certain { 0.0 } else { f64::from(self.scores[id as usize]) };
                reach(start + len, id, score);
            });
            if !has_character {
                reach(start + c.len_utf8(), self.unknown, self.unknown_score);
            }
        }
        let before = ids.len();
        let mut end = text.len();
        while end > 0 {
            let Best { id, start, .. } = best[end];
            // Unknown characters in a row are one token.
            if id != self.unknown || ids[before..].last() != Some(&id) {
                ids.push(id);
            }
            end = start as usize;
        }
        ids[before..].reverse();
    }

    /// The text with characters replaced by the table.
    fn mapped(&self, text: &str) -> String {
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(c) = rest.chars().next() {
            let (consumed, replacement) =
                self.charsmap.prefix(rest).unwrap_or((c.len_utf8(), &rest[..c.len_utf8()]));
            out.push_str(replacement);
            rest = &rest[consumed..];
        }
        out
    }

    /// Tells of every token that the text begins with, the shortest first.
    fn each_token(&self, vocabulary: &Vocabulary, text: &[u8], mut tell: impl FnMut(usize, u32)) {
        let Some(&byte) = text.first() else { return };
        let range = |at: usize| self.first[at] as usize;
        let mut tokens = &self.sorted[range(usize::from(byte))..range(usize::from(byte) + 1)];
        let bytes = |id: u32| vocabulary.text(id).as_bytes();
        for len in 1..=text.len() {
            let Some(&id) = tokens.first() else { return };
            // The shortest of those that begin alike is the first.
            if bytes(id).len() == len {
                tell(len, id);
                tokens = &tokens[1..];
            }
            let Some(next) = text.get(len) else { return };
            let from = tokens.partition_point(|&id| bytes(id)[len] < *next);
            let to = tokens[from..].partition_point(|&id| bytes(id)[len] == *next);
            tokens = &tokens[from..from + to];
        }
    }

    /// The text as the model was trained to see it: characters replaced by the table, spaces as `▁`, one in front.
    /// Unless told to, not even by way of beginning a word, where the text has no space.
    fn normalize(&self, text: &str, may_prefix: bool) -> String {
        const SPACE: char = '▁';
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        let mut may_mark = may_prefix;
        let (mut rest, mut is_prefixed, mut in_word) = (text, false, false);
        while let Some(c) = rest.chars().next() {
            let (consumed, replacement) =
                self.charsmap.prefix(rest).unwrap_or((c.len_utf8(), &rest[..c.len_utf8()]));
            for c in replacement.chars() {
                if c == ' ' {
                    (in_word, may_mark) = (false, true);
                    if !self.remove_extra_whitespaces {
                        out.push(SPACE);
                    }
                    continue;
                }
                if !in_word {
                    in_word = true;
                    let is_marked = self.remove_extra_whitespaces || (self.add_space_prefix && !is_prefixed);
                    if may_mark && is_marked {
                        out.push(SPACE);
                        is_prefixed = true;
                    }
                }
                out.push(c);
            }
            rest = &rest[consumed..];
        }
        out
    }
}

/// The bytes of the normalisation table; files have them as signed or unsigned.
fn charsmap_bytes(metadata: &Metadata) -> Result<Vec<u8>, FormatError> {
    let key = "tokenizer.ggml.precompiled_charsmap";
    match metadata.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(Array::U8(bytes))) => Ok(bytes.clone()),
        Some(Value::Array(Array::I8(bytes))) => Ok(bytes.iter().map(|&byte| byte as u8).collect()),
        Some(other) => Err(FormatError::WrongType {
            key: key.to_owned(),
            expected: "an array of bytes",
            found: other.describe(),
        }),
    }
}
