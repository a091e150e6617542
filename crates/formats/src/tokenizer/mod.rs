//! Byte-level BPE tokenizers as GGUF files carry them.
//!
//! Text is cut at special tokens, the rest into words (`pre`), a word's bytes are written in the alphabet of
//! byte-level BPE (`alphabet`), and the `tokenizers` crate merges them. Cutting is done here rather than with that
//! crate's pre-tokenizers because those leave a text whole, silently, where a pattern's limit is exceeded.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use crate::error::excerpt;
use crate::gguf::StringArray;
use crate::{FormatError, Metadata};

mod alphabet;
mod pre;
mod special;

use pre::{PreTokenizer, Splitter};
use special::Kind;

/// More tokens, and more bytes of them, than any model has; ids and positions thus fit 32 bits with room to spare.
const MAX_TOKENS: usize = 1 << 24;
const MAX_TEXT: usize = 1 << 28;

/// Turns text into token ids and back.
///
/// Ids are those of the file. Bytes without a token of their own (some vocabularies lack a few control characters)
/// are left out of the ids, as the reference implementations do.
pub struct Tokenizer {
    bpe: BPE,
    splitter: Splitter,
    /// Control and user-defined tokens.
    all_special: SpecialTokens,
    /// User-defined tokens only.
    user_defined: SpecialTokens,
    /// What every token stands for, one after the other.
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    end_of_generation: Vec<u32>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("add_bos", &self.add_bos)
            .field("add_eos", &self.add_eos)
            .field("end_of_generation", &self.end_of_generation)
            .finish_non_exhaustive()
    }
}

/// Finds tokens that are matched in the text before it is cut into words: the leftmost, the longest of those.
struct SpecialTokens {
    matcher: AhoCorasick,
    ids: Vec<u32>,
}

impl SpecialTokens {
    fn new(tokens: &StringArray, ids: Vec<u32>) -> Result<SpecialTokens, FormatError> {
        let texts = ids.iter().filter_map(|&id| tokens.get(id as usize));
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // A table of all transitions could outgrow memory on a hostile file; this kind stays in proportion to it.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(texts)
            .map_err(|error| FormatError::InvalidVocabulary(format!("special tokens: {error}")))?;
        Ok(SpecialTokens { matcher, ids })
    }
}

/// What llama.cpp's converters write below `tokenizer.`: read here, or without effect on byte-level BPE.
const KNOWN_KEYS: &[&str] = &[
    "ggml.model",
    "ggml.pre",
    "ggml.tokens",
    "ggml.token_type",
    "ggml.token_type_count",
    "ggml.scores",
    "ggml.merges",
    "ggml.added_tokens",
    "ggml.bos_token_id",
    "ggml.eos_token_id",
    "ggml.eot_token_id",
    "ggml.eom_token_id",
    "ggml.unknown_token_id",
    "ggml.seperator_token_id",
    "ggml.separator_token_id",
    "ggml.padding_token_id",
    "ggml.cls_token_id",
    "ggml.mask_token_id",
    "ggml.prefix_token_id",
    "ggml.suffix_token_id",
    "ggml.middle_token_id",
    "ggml.fim_pre_token_id",
    "ggml.fim_suf_token_id",
    "ggml.fim_mid_token_id",
    "ggml.fim_pad_token_id",
    "ggml.fim_rep_token_id",
    "ggml.fim_sep_token_id",
    "ggml.add_bos_token",
    "ggml.add_eos_token",
    "ggml.add_sep_token",
    "ggml.add_space_prefix",
    "ggml.remove_extra_whitespaces",
    "huggingface.json",
    "chat_template",
    "chat_template.",
    "chat_templates",
];

impl Tokenizer {
    /// Builds the tokenizer that the metadata describes (`tokenizer.ggml.*`).
    ///
    /// # Errors
    /// An unsupported `tokenizer.ggml.model` or `tokenizer.ggml.pre`, missing or ill-typed keys, and a vocabulary
    /// that contradicts itself: duplicate tokens, merges of unknown tokens, ids out of range.
    pub fn from_gguf(metadata: &Metadata) -> Result<Tokenizer, FormatError> {
        metadata.refuse_unknown("tokenizer.", KNOWN_KEYS)?;
        let model = metadata.require_str("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(FormatError::UnsupportedTokenizer {
                key: "tokenizer.ggml.model",
                found: excerpt(model),
                supported: "gpt2 (byte-level BPE)".to_owned(),
            });
        }
        let pre = PreTokenizer::named(metadata.require_str("tokenizer.ggml.pre")?)?;
        let tokens = metadata.require_str_array("tokenizer.ggml.tokens")?;
        if tokens.len() > MAX_TOKENS || tokens.text_len() > MAX_TEXT {
            let problem =
                format!("{} tokens of {} bytes; no model has that many", tokens.len(), tokens.text_len());
            return Err(FormatError::InvalidVocabulary(problem));
        }
        let special = SpecialIds::read(metadata, tokens, pre)?;
        let kinds = kinds(metadata, tokens, &special.end_of_generation)?;
        let bpe =
            bpe(tokens, &kinds, metadata.require_str_array("tokenizer.ggml.merges")?, pre.ignore_merges)?;
        let of_kind = |wanted: &[Kind]| {
            let is_wanted = |&id: &u32| {
                wanted.contains(&kinds[id as usize])
                    && tokens.get(id as usize).is_some_and(|text| !text.is_empty())
            };
            SpecialTokens::new(tokens, (0..kinds.len() as u32).filter(is_wanted).collect())
        };
        let all_special = of_kind(&[Kind::Control, Kind::UserDefined])?;
        let user_defined = of_kind(&[Kind::UserDefined])?;
        let (bytes, ends) = token_bytes(tokens, &kinds);
        Ok(Tokenizer {
            bpe,
            splitter: pre.splitter(),
            all_special,
            user_defined,
            bytes,
            ends,
            kinds,
            bos: special.bos,
            eos: special.eos,
            add_bos: special.add_bos,
            add_eos: special.add_eos,
            end_of_generation: special.end_of_generation,
        })
    }

    /// The ids of a text.
    ///
    /// `add_special` puts BOS in front (and EOS behind) if the model's prompts have it; leave it off for a rendered
    /// chat template, which writes its own. `parse_special` recognises control tokens by their text; leave it off for
    /// text from strangers, which then cannot end a turn or begin another.
    ///
    /// # Errors
    /// A text that exceeds the splitter's limits, such as a million spaces in a row.
    pub fn encode(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, FormatError> {
        let special = if parse_special { &self.all_special } else { &self.user_defined };
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        if add_special && self.add_bos {
            ids.extend(self.bos);
        }
        let mut start = 0;
        for found in special.matcher.find_iter(text) {
            self.encode_plain(&text[start..found.start()], &mut ids)?;
            ids.push(special.ids[found.pattern().as_usize()]);
            start = found.end();
        }
        self.encode_plain(&text[start..], &mut ids)?;
        if add_special && self.add_eos {
            ids.extend(self.eos);
        }
        Ok(ids)
    }

    /// Appends the ids of a text without special tokens.
    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), FormatError> {
        let mut word = String::new();
        for piece in self.splitter.split(text)? {
            word.clear();
            alphabet::encode(piece, &mut word);
            let tokens =
                self.bpe.tokenize(&word).map_err(|error| FormatError::Tokenize(error.to_string()))?;
            ids.extend(tokens.iter().map(|token| token.id));
        }
        Ok(())
    }

    /// Exactly the bytes a token stands for, which need not be whole characters; a control token's are its name.
    /// Empty for an id the vocabulary does not have (models may have more logits than tokens).
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        let index = id as usize;
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..end as usize]
    }

    /// Whether the token is a sign to the machine rather than text for people.
    pub fn is_control(&self, id: u32) -> bool {
        self.kinds.get(id as usize) == Some(&Kind::Control)
    }

    /// The text of a whole answer; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_control: bool) -> String {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids.iter().filter(|&&id| !(skip_control && self.is_control(id))) {
            bytes.extend_from_slice(self.token_bytes(id));
        }
        match String::from_utf8_lossy(&bytes) {
            std::borrow::Cow::Borrowed(text) => text.to_owned(),
            std::borrow::Cow::Owned(text) => text,
        }
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.kinds.len()
    }

    /// Beginning of sequence.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether prompts of this model begin with BOS.
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// Tokens that end an answer, ascending.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.end_of_generation
    }
}

/// Ids with a meaning.
struct SpecialIds {
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    end_of_generation: Vec<u32>,
}

impl SpecialIds {
    fn read(
        metadata: &Metadata,
        tokens: &StringArray,
        pre: &PreTokenizer,
    ) -> Result<SpecialIds, FormatError> {
        let id = |key: &str| match metadata.u32(key)? {
            Some(id) if id as usize >= tokens.len() => {
                let problem = format!("{key} is {id}, but there are {} tokens", tokens.len());
                Err(FormatError::InvalidVocabulary(problem))
            }
            id => Ok(id),
        };
        let (bos, eos) = (id("tokenizer.ggml.bos_token_id")?, id("tokenizer.ggml.eos_token_id")?);
        let adds = |key: &str, default: bool, token: Option<u32>| match metadata.bool(key)? {
            Some(true) if token.is_none() => {
                Err(FormatError::InvalidVocabulary(format!("{key} is set, but there is no such token")))
            }
            said => Ok(said.unwrap_or(default && token.is_some())),
        };
        let mut end_of_generation = Vec::new();
        for key in special::ENDING_KEYS {
            end_of_generation.extend(id(key)?);
        }
        let by_text =
            tokens.iter().zip(0u32..).filter(|(text, _)| special::is_ending(text)).map(|(_, id)| id);
        end_of_generation.extend(by_text);
        end_of_generation.sort_unstable();
        end_of_generation.dedup();
        // Harmony and its like end a message, not the answer, with `<|end|>`.
        let has = |text: &str| tokens.iter().any(|token| token == text);
        if (has("<|return|>") && has("<|call|>")) || (has("<|flush|>") && has("<|calls|>")) {
            end_of_generation.retain(|&id| tokens.get(id as usize) != Some("<|end|>"));
        }
        Ok(SpecialIds {
            bos,
            eos,
            add_bos: adds("tokenizer.ggml.add_bos_token", pre.add_bos, bos)?,
            add_eos: adds("tokenizer.ggml.add_eos_token", false, eos)?,
            end_of_generation,
        })
    }
}

/// The kind of every token.
fn kinds(metadata: &Metadata, tokens: &StringArray, endings: &[u32]) -> Result<Vec<Kind>, FormatError> {
    let mut kinds = match metadata.i32_array("tokenizer.ggml.token_type")? {
        None => vec![Kind::Text; tokens.len()],
        Some(numbers) if numbers.len() != tokens.len() => {
            let problem = format!("{} token types for {} tokens", numbers.len(), tokens.len());
            return Err(FormatError::InvalidVocabulary(problem));
        }
        Some(numbers) => {
            let kind = |(id, &number): (usize, &i32)| {
                Kind::from_number(number).ok_or_else(|| {
                    FormatError::InvalidVocabulary(format!("token {id} has the unknown type {number}"))
                })
            };
            numbers.iter().enumerate().map(kind).collect::<Result<Vec<_>, _>>()?
        }
    };
    // Some files declare the end of a turn as plain text, which must not be shown to people either.
    for &id in endings {
        kinds[id as usize] = Kind::Control;
    }
    Ok(kinds)
}

/// What every token stands for, and where each ends.
fn token_bytes(tokens: &StringArray, kinds: &[Kind]) -> (Vec<u8>, Vec<u32>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(tokens.len()));
    for (text, kind) in tokens.iter().zip(kinds) {
        match kind {
            Kind::Text => alphabet::decode(text, &mut bytes),
            Kind::Control | Kind::UserDefined => bytes.extend(text.as_bytes()),
        }
        ends.push(bytes.len() as u32);
    }
    (bytes, ends)
}

/// The merging model. Control tokens are left out of it, so that no text can merge into one.
fn bpe(
    tokens: &StringArray,
    kinds: &[Kind],
    merges: &StringArray,
    ignore_merges: bool,
) -> Result<BPE, FormatError> {
    let invalid = FormatError::InvalidVocabulary;
    let mut vocab = Vocab::with_capacity(tokens.len());
    let mut longest = 0;
    for ((text, kind), id) in tokens.iter().zip(kinds).zip(0u32..) {
        if text.is_empty() || *kind == Kind::Control {
            continue;
        }
        longest = longest.max(text.len());
        if let Some(first) = vocab.insert(text.to_owned(), id) {
            return Err(invalid(format!("tokens {first} and {id} are both `{}`", excerpt(text))));
        }
    }
    let mut pairs = Merges::with_capacity(merges.len());
    for (rank, merge) in merges.iter().enumerate() {
        // The first part is at least one character, so that a space can be one.
        let space = merge.char_indices().skip(1).find(|&(_, c)| c == ' ').map(|(at, _)| at);
        let Some((left, right)) = space.map(|at| (&merge[..at], &merge[at + 1..])) else {
            return Err(invalid(format!("merge {rank} is `{}`, which is no pair", excerpt(merge))));
        };
        // The builder's buffer holds the longest token, no more.
        if left.len() + right.len() > longest {
            return Err(invalid(format!("merge {rank} (`{}`) is longer than any token", excerpt(merge))));
        }
        pairs.push((left.to_owned(), right.to_owned()));
    }
    BPE::builder()
        .vocab_and_merges(vocab, pairs)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(|error| invalid(format!("merges: {}", excerpt(&error.to_string()))))
}
