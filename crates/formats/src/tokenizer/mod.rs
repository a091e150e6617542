//! Tokenizers as GGUF files carry them: `tokenizer.ggml.model` names the kind, one file here for each.
//!
//! What they share is here: text is cut at special tokens, the rest becomes ids by the kind's own algorithm, and ids
//! become bytes again. Where the `tokenizers` crate would read a large vocabulary slowly, or leave a text whole,
//! silently, where a pattern's limit is exceeded, the work is done here instead.

use std::ops::Range;

use tokenizers::{NormalizedString, Normalizer};

use crate::error::excerpt;
use crate::gguf::StringArray;
use crate::{FormatError, Metadata};

mod alphabet;
mod bpe;
mod charsmap;
pub mod huggingface;
mod infill;
mod literal;
mod merge;
mod pre;
mod sentencepiece;
mod spaces;
mod special;
pub(crate) mod spiece;
mod unigram;
mod vocabulary;
mod wordpiece;

use bpe::Bpe;
pub use infill::Infill;
use literal::Guarded;
use pre::PreTokenizer;
use sentencepiece::SentencePiece;
use special::{Defaults, Kind, SpecialIds, SpecialTokens, Stripping};
use unigram::Unigram;
use vocabulary::Vocabulary;
use wordpiece::WordPiece;

/// Longer texts are refused: places in them must fit 32 bits, with markers of three bytes for each space.
const MAX_INPUT: usize = 1 << 29;

/// What llama.cpp's converters write below `tokenizer.`, read here or without effect on ids, and what is written here
/// for what `tokenizer.json` says and those have no key for.
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
    "ggml.precompiled_charsmap",
    "ggml.normalizer.lowercase",
    "ggml.normalizer.strip_accents",
    "huggingface.json",
    "chat_template",
    "chat_template.",
    "chat_templates",
    "wushi.normalizer",
    "wushi.replaced",
    "wushi.space_prefix",
    "wushi.spaces",
    "wushi.strip_left",
    "wushi.strip_right",
];

/// Where SentencePiece puts a space in front, if not as llama.cpp does.
const SPACE_PREFIX_KEY: &str = "tokenizer.wushi.space_prefix";
/// What is done to text before everything else: `nfc` or `nfkc`, Unicode's composed forms.
const NORMALIZER_KEY: &str = "tokenizer.wushi.normalizer";
/// Whether a unigram model sees spaces as the `tokenizers` library shows them rather than as SentencePiece does:
/// `kept`, `joined` or `dropped`.
const SPACES_KEY: &str = "tokenizer.wushi.spaces";
/// A text, and what a unigram model sees in its place.
const REPLACED_KEY: &str = "tokenizer.wushi.replaced";

/// Turns text into token ids and back.
///
/// Ids are those of the file. What has no token is the unknown token where the vocabulary has one; bytes without a token
/// in a byte-level vocabulary (some lack a few control characters) are left out of the ids, as the reference
/// implementations do.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    model: Model,
    /// Control and user-defined tokens.
    all_special: SpecialTokens,
    /// User-defined tokens only.
    user_defined: SpecialTokens,
    stripping: Stripping,
    composition: Option<Composition>,
    special: SpecialIds,
    infill: Option<Infill>,
    /// What every token stands for, one after the other.
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`.
    ends: Vec<u32>,
}

/// Unicode's composed forms.
#[derive(Clone, Copy)]
enum Composition {
    Nfc,
    Nfkc,
}

/// How the text between special tokens becomes ids.
enum Model {
    Bpe(Bpe),
    SentencePiece(SentencePiece),
    WordPiece(WordPiece),
    Unigram(Unigram),
}

/// The values of `tokenizer.ggml.model` that are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ModelKind {
    /// `gpt2`, and `gemma4` with characters for bytes.
    Bpe,
    /// `llama`.
    SentencePiece,
    /// `bert`.
    WordPiece,
    /// `t5`.
    Unigram,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Builds the tokenizer that the metadata describes (`tokenizer.ggml.*`).
    ///
    /// # Errors
    /// An unsupported `tokenizer.ggml.model` or `tokenizer.ggml.pre`, missing or ill-typed keys, and a vocabulary
    /// that contradicts itself: duplicate tokens, merges of unknown tokens, ids out of range.
    pub fn from_gguf(metadata: &Metadata) -> Result<Tokenizer, FormatError> {
        metadata.refuse_unknown("tokenizer.", KNOWN_KEYS)?;
        let (kind, pre) = kind_and_pre(metadata)?;
        let tokens = Vocabulary::tokens(metadata)?;
        let special = SpecialIds::read(metadata, tokens, &defaults(kind, pre))?;
        let over_bytes = kind == ModelKind::Bpe && pre.over_bytes;
        let infill = Infill::read(metadata, tokens)?;
        let signs = special.end_of_generation.iter().copied().chain(infill.iter().flat_map(Infill::ids));
        let kinds = kinds(metadata, tokens, signs, over_bytes)?;
        let vocabulary = Vocabulary::new(tokens, kinds)?;
        let model = match kind {
            ModelKind::Bpe => {
                let merges = metadata.require_str_array("tokenizer.ggml.merges")?;
                Model::Bpe(Bpe::new(&vocabulary, merges, pre)?)
            }
            ModelKind::SentencePiece => {
                Model::SentencePiece(SentencePiece::new(&vocabulary, metadata, special.unknown)?)
            }
            ModelKind::WordPiece => Model::WordPiece(WordPiece::new(metadata, special.unknown)?),
            ModelKind::Unigram => Model::Unigram(Unigram::new(&vocabulary, metadata, special.unknown)?),
        };
        let (bytes, ends) = token_bytes(&vocabulary, over_bytes);
        Ok(Tokenizer {
            all_special: SpecialTokens::new(&vocabulary, &[Kind::Control, Kind::UserDefined])?,
            user_defined: SpecialTokens::new(&vocabulary, &[Kind::UserDefined])?,
            stripping: Stripping::read(metadata, &vocabulary)?,
            composition: composition(metadata)?,
            vocabulary,
            model,
            special,
            infill,
            bytes,
            ends,
        })
    }

    /// The ids of a text.
    ///
    /// `add_special` puts in front and behind what the model's prompts have there (BOS and EOS, or BERT's CLS and SEP);
    /// leave it off for a rendered chat template, which writes its own. `parse_special` recognises control tokens by
    /// their text; leave it off for text from strangers, which then cannot end a turn or begin another.
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
        self.encode_around(text, add_special, special.find(text))
    }

    /// The ids of a text that strangers wrote parts of, such as a rendered chat template.
    ///
    /// As [`Tokenizer::encode`] with control tokens recognised by their text, except where a name lies within the
    /// `literal` parts (byte ranges, in any order), be it with one byte: it is text there. Nothing else changes at their
    /// borders; where no control token is spelled in them, the ids are those of the whole text.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn encode_guarded(
        &self,
        text: &str,
        add_special: bool,
        literal: &[Range<usize>],
    ) -> Result<Vec<u32>, FormatError> {
        let special = Guarded::new(text, literal, &self.all_special, &self.user_defined);
        self.encode_around(text, add_special, special)
    }

    /// Where the names of control tokens stand in a text.
    pub fn control_names(&self, text: &str) -> Vec<Range<usize>> {
        let found = self.all_special.find(text).filter(|&(_, id)| self.is_control(id));
        found.map(|(place, _)| place).collect()
    }

    /// The ids of a text in which special tokens were found.
    fn encode_around(
        &self,
        text: &str,
        add_special: bool,
        special: impl Iterator<Item = (Range<usize>, u32)>,
    ) -> Result<Vec<u32>, FormatError> {
        if text.len() > MAX_INPUT {
            return Err(FormatError::Tokenize(format!(
                "{} bytes; at most {MAX_INPUT} are supported",
                text.len()
            )));
        }
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        ids.extend(self.special.first.filter(|_| add_special));
        let mut start = 0;
        for (place, id) in special {
            let place = self.stripping.widen(text, place, id);
            if place.start > start {
                self.encode_plain(&text[start..place.start], start == 0, &mut ids)?;
            }
            ids.push(id);
            start = place.end.max(start);
        }
        if start < text.len() {
            self.encode_plain(&text[start..], start == 0, &mut ids)?;
        }
        ids.extend(self.special.last.filter(|_| add_special));
        Ok(ids)
    }

    /// Appends the ids of a text without special tokens, which is the start of the whole or stands behind such a token.
    fn encode_plain(&self, text: &str, at_start: bool, ids: &mut Vec<u32>) -> Result<(), FormatError> {
        let composed;
        let text = match self.composition.filter(|_| !text.is_ascii()) {
            Some(composition) => {
                let mut normalized = NormalizedString::from(text);
                let done = match composition {
                    Composition::Nfc => tokenizers::normalizers::NFC.normalize(&mut normalized),
                    Composition::Nfkc => tokenizers::normalizers::NFKC.normalize(&mut normalized),
                };
                done.map_err(|error| FormatError::Tokenize(error.to_string()))?;
                composed = normalized;
                composed.get()
            }
            None => text,
        };
        match &self.model {
            Model::Bpe(model) => model.encode(&self.vocabulary, text, ids),
            Model::SentencePiece(model) => {
                model.encode(&self.vocabulary, text, at_start, ids);
                Ok(())
            }
            Model::WordPiece(model) => model.encode(&self.vocabulary, text, ids),
            Model::Unigram(model) => {
                model.encode(&self.vocabulary, text, at_start, ids);
                Ok(())
            }
        }
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
        self.vocabulary.kind(id) == Some(Kind::Control)
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
        self.vocabulary.len()
    }

    /// Beginning of sequence.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Whether prompts of this model begin with BOS.
    pub fn adds_bos(&self) -> bool {
        self.special.first.is_some()
    }

    /// Tokens that end an answer, ascending.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.special.end_of_generation
    }

    /// The tokens around a gap to fill in, for models that were trained to.
    pub fn infill(&self) -> Option<Infill> {
        self.infill
    }
}

/// The algorithm, and for byte pair encoding how words are cut.
fn kind_and_pre(metadata: &Metadata) -> Result<(ModelKind, &'static PreTokenizer), FormatError> {
    let model = metadata.require_str("tokenizer.ggml.model")?;
    let kind = match model {
        "gpt2" | "gemma4" => ModelKind::Bpe,
        "llama" => ModelKind::SentencePiece,
        "bert" => ModelKind::WordPiece,
        "t5" => ModelKind::Unigram,
        other => {
            return Err(FormatError::UnsupportedTokenizer {
                key: "tokenizer.ggml.model",
                found: excerpt(other),
                supported:
                    "gpt2 (byte-level BPE), llama (SentencePiece BPE), gemma4 (BPE with byte fallback), \
                            bert (WordPiece), t5 (unigram)"
                        .to_owned(),
            });
        }
    };
    let pre = match metadata.str("tokenizer.ggml.pre")? {
        _ if model == "gemma4" => "gemma4",
        Some(name) if kind == ModelKind::Bpe => name,
        None if kind == ModelKind::Bpe => {
            tracing::warn!(
                "the file does not say how its tokenizer cuts words (tokenizer.ggml.pre), so `default` is taken"
            );
            "default"
        }
        _ => "default",
    };
    Ok((kind, PreTokenizer::named(pre)?))
}

fn unknown_space_prefix(found: &str) -> FormatError {
    FormatError::UnsupportedTokenizer {
        key: SPACE_PREFIX_KEY,
        found: excerpt(found),
        supported: "segments-unless-space, start-unless-space".to_owned(),
    }
}

/// What llama.cpp takes where a file says nothing.
fn defaults(kind: ModelKind, pre: &PreTokenizer) -> Defaults {
    let none = Defaults {
        bos: None,
        eos: None,
        unknown: None,
        separator: None,
        add_bos: false,
        add_eos: false,
        enclose: false,
    };
    match kind {
        ModelKind::Bpe => Defaults { add_bos: pre.add_bos, ..none },
        ModelKind::SentencePiece => {
            Defaults { bos: Some(1), eos: Some(2), unknown: Some(0), add_bos: true, ..none }
        }
        ModelKind::WordPiece => {
            Defaults { bos: Some(101), unknown: Some(100), separator: Some(102), enclose: true, ..none }
        }
        ModelKind::Unigram => Defaults { eos: Some(1), unknown: Some(2), add_eos: true, ..none },
    }
}

/// Whether and how text is composed first.
fn composition(metadata: &Metadata) -> Result<Option<Composition>, FormatError> {
    match metadata.str(NORMALIZER_KEY)? {
        None => Ok(None),
        Some("nfc") => Ok(Some(Composition::Nfc)),
        Some("nfkc") => Ok(Some(Composition::Nfkc)),
        Some(other) => Err(FormatError::UnsupportedTokenizer {
            key: NORMALIZER_KEY,
            found: excerpt(other),
            supported: "nfc, nfkc".to_owned(),
        }),
    }
}

/// The kind of every token.
fn kinds(
    metadata: &Metadata,
    tokens: &StringArray,
    signs: impl Iterator<Item = u32>,
    over_bytes: bool,
) -> Result<Vec<Kind>, FormatError> {
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
    if over_bytes {
        // There, bytes are spelled like all else.
        for kind in kinds.iter_mut().filter(|kind| **kind == Kind::Byte) {
            *kind = Kind::Text;
        }
    }
    // Some files declare the end of a turn as plain text, which must not be shown to people either, or the tokens around
    // a gap, which strangers could then spell.
    for id in signs {
        kinds[id as usize] = Kind::Control;
    }
    Ok(kinds)
}

/// What every token stands for, and where each ends.
fn token_bytes(vocabulary: &Vocabulary, over_bytes: bool) -> (Vec<u8>, Vec<u32>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(vocabulary.len()));
    for (_, text, kind) in vocabulary.iter() {
        match (kind, vocabulary::byte_of(text)) {
            (Kind::Text | Kind::Unused, _) if over_bytes => alphabet::decode(text, &mut bytes),
            (Kind::Text | Kind::Unused | Kind::UserDefined, _) if !over_bytes => {
                bytes.extend_from_slice(text.replace('▁', " ").as_bytes());
            }
            (Kind::Byte, Some(byte)) => bytes.push(byte),
            _ => bytes.extend_from_slice(text.as_bytes()),
        }
        ends.push(bytes.len() as u32);
    }
    (bytes, ends)
}
