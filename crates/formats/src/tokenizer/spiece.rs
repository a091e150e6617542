//! SentencePiece's own file (`spiece.model`, `tokenizer.model`): a message in the wire format of Protocol Buffers, as
//! `sentencepiece_model.proto` (Apache-2.0) numbers its fields. Unigram models are read, as llama.cpp's converter would
//! write them.

use crate::gguf::{Array, StringArray, Value};
use crate::{FormatError, Metadata};

use super::huggingface::token_type;

/// `ModelProto`.
const PIECES: u64 = 1;
const TRAINER: u64 = 2;
const NORMALIZER: u64 = 3;
/// How many rows of an embedding may have no token.
const MAX_UNUSED: usize = 1 << 16;
/// Scores that llama.cpp's converter gives to places without a token.
const UNUSED_SCORE: f32 = -10000.0;

/// A field's value.
#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Bits(u32),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(self) -> Result<&'a [u8], FormatError> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            _ => Err(damaged("a field has another type than it should")),
        }
    }
}

/// The fields of a message, in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.field())
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Field<'a>), FormatError> {
        let tag = self.number()?;
        let field = match tag & 7 {
            0 => Field::Number(self.number()?),
            1 => {
                self.take(8)?;
                Field::Number(0)
            }
            2 => {
                let length = self.number()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Bits(u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default())),
            other => return Err(damaged(&format!("a field of wire type {other}"))),
        };
        Ok((tag >> 3, field))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], FormatError> {
        let split = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = split.ok_or_else(|| damaged("it ends inside a field"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, FormatError> {
        let mut number = 0;
        for place in 0..10 {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged("a number of more than ten bytes"))
    }
}

fn damaged(problem: &str) -> FormatError {
    FormatError::InvalidVocabulary(format!("not a SentencePiece model: {problem}"))
}

/// Adds `tokenizer.ggml.*` to the metadata. `vocabulary` is the number of rows of the embedding.
pub(crate) fn import(bytes: &[u8], vocabulary: usize, metadata: &mut Metadata) -> Result<(), FormatError> {
    let (mut tokens, mut scores, mut types) = (StringArray::default(), Vec::new(), Vec::new());
    metadata.set("tokenizer.ggml.model", "t5");
    metadata.set("tokenizer.ggml.pre", "default");
    for field in Fields(bytes) {
        match field? {
            (PIECES, piece) => {
                let (text, score, kind) = read_piece(piece.bytes()?)?;
                tokens.push(text);
                scores.push(score);
                types.push(kind);
            }
            (TRAINER, trainer) => read_trainer(trainer.bytes()?, metadata)?,
            (NORMALIZER, normalizer) => read_normalizer(normalizer.bytes()?, metadata)?,
            _ => {}
        }
    }
    let count = tokens.len();
    if count == 0 {
        return Err(damaged("it has no tokens"));
    }
    if count > vocabulary || vocabulary > count * 2 + MAX_UNUSED {
        return Err(FormatError::InvalidVocabulary(format!(
            "{count} tokens for a model that has {vocabulary}"
        )));
    }
    for id in count..vocabulary {
        tokens.push(&format!("[PAD{id}]"));
    }
    scores.resize(vocabulary, UNUSED_SCORE);
    types.resize(vocabulary, token_type::UNUSED);
    if let (Some(unknown), None) = (
        types.iter().position(|&kind| kind == token_type::UNKNOWN),
        metadata.u32("tokenizer.ggml.unknown_token_id")?,
    ) {
        metadata.set("tokenizer.ggml.unknown_token_id", unknown as u32);
    }
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set("tokenizer.ggml.scores", scores);
    metadata.set("tokenizer.ggml.token_type", types);
    metadata.set("tokenizer.ggml.add_bos_token", false);
    metadata.set("tokenizer.ggml.add_eos_token", true);
    Ok(())
}

fn read_piece(bytes: &[u8]) -> Result<(&str, f32, i32), FormatError> {
    let (mut text, mut score, mut kind) = ("", 0.0, token_type::NORMAL);
    for field in Fields(bytes) {
        match field? {
            (1, piece) => {
                text = std::str::from_utf8(piece.bytes()?)
                    .map_err(|_| FormatError::InvalidUtf8("a token".to_owned()))?;
            }
            (2, Field::Bits(bits)) => score = f32::from_bits(bits),
            // The numbers are those that GGUF files have.
            (3, Field::Number(number @ 1..=6)) => kind = number as i32,
            (3, _) => return Err(damaged("a token of an unknown kind")),
            _ => {}
        }
    }
    Ok((text, score, kind))
}

fn read_trainer(bytes: &[u8], metadata: &mut Metadata) -> Result<(), FormatError> {
    // What holds where nothing is said.
    let mut ids = [("unknown", Some(0)), ("bos", Some(1)), ("eos", Some(2)), ("padding", None)];
    for field in Fields(bytes) {
        match field? {
            // 1 is Unigram, and what is meant where nothing is said.
            (3, Field::Number(number)) if number != 1 => {
                return Err(FormatError::UnsupportedTokenizer {
                    key: "model_type",
                    found: number.to_string(),
                    supported: "1 (unigram)".to_owned(),
                });
            }
            // A negative number is none.
            (place @ 40..=43, Field::Number(number)) => {
                ids[place as usize - 40].1 = u32::try_from(number).ok()
            }
            _ => {}
        }
    }
    for (name, id) in ids {
        if let Some(id) = id {
            metadata.set(format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    Ok(())
}

fn read_normalizer(bytes: &[u8], metadata: &mut Metadata) -> Result<(), FormatError> {
    let (mut prefix, mut removes) = (true, true);
    for field in Fields(bytes) {
        match field? {
            (2, table) => {
                let table = table.bytes()?.to_vec();
                metadata.set("tokenizer.ggml.precompiled_charsmap", Value::Array(Array::U8(table)));
            }
            (3, Field::Number(number)) => prefix = number != 0,
            (4, Field::Number(number)) => removes = number != 0,
            (5, Field::Number(0)) => {
                return Err(FormatError::UnsupportedTokenizer {
                    key: "escape_whitespaces",
                    found: "false".to_owned(),
                    supported: "true".to_owned(),
                });
            }
            _ => {}
        }
    }
    metadata.set("tokenizer.ggml.add_space_prefix", prefix);
    metadata.set("tokenizer.ggml.remove_extra_whitespaces", removes);
    Ok(())
}
