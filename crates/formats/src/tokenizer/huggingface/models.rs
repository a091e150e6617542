//! Vocabulary, merges and scores of each kind of model.

use std::collections::HashSet;

use crate::error::excerpt;
use crate::gguf::{Array, StringArray};
use crate::{FormatError, Metadata};

use super::super::vocabulary::byte_of;
use super::json::{TokenizerJson, Vocab};
use super::steps::{self, Enclosure, SpacePrefix};
use super::{NORMALIZER_KEY, SPACE_PREFIX_KEY, Table, invalid, token_type, unsupported_model};

/// Scores that llama.cpp's converter gives to tokens without one, and to places without a token.
const ADDED_SCORE: f32 = -1000.0;
const UNUSED_SCORE: f32 = -10000.0;

/// Byte-level BPE (`gpt2`).
pub(super) fn byte_level(
    json: &TokenizerJson,
    table: &mut Table,
    metadata: &mut Metadata,
) -> Result<(), FormatError> {
    metadata.set("tokenizer.ggml.model", "gpt2");
    let pre = steps::byte_level_name(&json.pre_tokenizer, json.model.ignore_merges)?;
    metadata.set("tokenizer.ggml.pre", pre);
    if steps::composes(&json.normalizer)? {
        metadata.set(NORMALIZER_KEY, "nfc");
    }
    let mut merges = StringArray::default();
    for merge in &json.model.merges {
        for part in [&merge.0, &merge.1] {
            if part.contains(' ') || table.id(part).is_none() {
                let what = format!("tokenizer.json merges `{}`, which is no token", excerpt(part));
                return Err(invalid(what));
            }
        }
        merges.push(&format!("{} {}", merge.0, merge.1));
    }
    metadata.set("tokenizer.ggml.merges", merges);
    Ok(())
}

/// SentencePiece's BPE: the order of merges becomes scores (`llama`). Where it cannot, the merges themselves are written
/// if no space is put in front, as such files have none (`gemma4`).
pub(super) fn sentencepiece(
    json: &TokenizerJson,
    table: &mut Table,
    metadata: &mut Metadata,
) -> Result<(), FormatError> {
    if !json.model.byte_fallback {
        return Err(unsupported_model("BPE over characters without byte fallback"));
    }
    let prefix = steps::sentencepiece_prefix(&json.normalizer, &json.pre_tokenizer)?;
    metadata.set("tokenizer.ggml.add_space_prefix", prefix != SpacePrefix::Never);
    write_prefix(prefix, metadata);
    for (text, kind) in table.texts.iter().zip(&mut table.types) {
        if *kind == token_type::NORMAL && byte_of(text).is_some() {
            *kind = token_type::BYTE;
        }
    }
    match scores_of_merges(json, table)? {
        Ok(scores) => {
            metadata.set("tokenizer.ggml.model", "llama");
            metadata.set("tokenizer.ggml.pre", "default");
            metadata.set("tokenizer.ggml.scores", scores);
        }
        Err(_) if prefix == SpacePrefix::Never && !json.model.ignore_merges && breaks_at_lines(json) => {
            metadata.set("tokenizer.ggml.model", "gemma4");
            let merges = json.model.merges.iter().map(|merge| format!("{} {}", merge.0, merge.1));
            metadata.set("tokenizer.ggml.merges", merges.collect::<StringArray>());
        }
        Err(why) => {
            return Err(FormatError::UnsupportedTokenizer {
                key: "tokenizer.json's model",
                found: excerpt(&format!("BPE with byte fallback that is not SentencePiece's: {why}")),
                supported:
                    "merges that are every pair of tokens that makes a token, in the order of a score, or \
                            any merges where no space is put in front"
                        .to_owned(),
            });
        }
    }
    Ok(())
}

/// Whether no merge joins a line feed with anything else, or has a space: then text can be cut at line feeds first.
fn breaks_at_lines(json: &TokenizerJson) -> bool {
    let is_apart = |text: &str| !text.contains('\n') || text.bytes().all(|byte| byte == b'\n');
    json.model.merges.iter().all(|merge| {
        let joined = format!("{}{}", merge.0, merge.1);
        is_apart(&joined) && !joined.contains(' ')
    })
}

fn write_prefix(prefix: SpacePrefix, metadata: &mut Metadata) {
    match prefix {
        SpacePrefix::Never | SpacePrefix::Segments => {}
        SpacePrefix::SegmentsUnlessSpace => metadata.set(SPACE_PREFIX_KEY, "segments-unless-space"),
        SpacePrefix::StartUnlessSpace => metadata.set(SPACE_PREFIX_KEY, "start-unless-space"),
    }
}

/// A score for each token, such that merging whatever makes a token, the best score first, does what the list of merges
/// does; or why there are none. Lists that were made from SentencePiece's scores allow this: they have every pair that
/// makes a token, and all pairs of one token in a row.
fn scores_of_merges(json: &TokenizerJson, table: &Table) -> Result<Result<Vec<f32>, String>, FormatError> {
    if json.model.ignore_merges {
        return Ok(Err("it has ignore_merges".to_owned()));
    }
    let mut ranks: Vec<Option<u32>> = vec![None; table.texts.len()];
    let mut pairs = HashSet::with_capacity(json.model.merges.len());
    let (mut last, mut rank) = (None, 0);
    for merge in &json.model.merges {
        let joined = format!("{}{}", merge.0, merge.1);
        let id = |text: &str| {
            table.id(text).ok_or_else(|| {
                invalid(format!("tokenizer.json merges to or from `{}`, which is no token", excerpt(text)))
            })
        };
        let (left, right, made) = (id(&merge.0)?, id(&merge.1)?, id(&joined)?);
        pairs.insert((left, right));
        if last != Some(made) {
            rank += 1;
            if ranks[made as usize].is_some() {
                return Ok(Err(format!("`{joined}` is made at two places of the list")));
            }
            ranks[made as usize] = Some(rank);
            last = Some(made);
        }
    }
    for (text, _) in table.texts.iter().zip(&table.types).filter(|&(_, &kind)| kind == token_type::NORMAL) {
        for (cut, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(cut);
            let part =
                |text: &str| table.id(text).filter(|&id| table.types[id as usize] == token_type::NORMAL);
            let (Some(first), Some(second)) = (part(left), part(right)) else { continue };
            if !pairs.contains(&(first, second)) {
                return Ok(Err(format!("it does not merge `{left}` and `{right}`")));
            }
        }
    }
    let score = |(rank, &kind): (&Option<u32>, &i32)| match (rank, kind) {
        (_, token_type::UNUSED) => UNUSED_SCORE,
        (_, token_type::CONTROL | token_type::USER_DEFINED) => ADDED_SCORE,
        (Some(rank), _) => -(*rank as f32),
        // Single characters, which nothing merges into, and bytes.
        (None, _) => 0.0,
    };
    Ok(Ok(ranks.iter().zip(&table.types).map(score).collect()))
}

/// BERT's WordPiece (`bert`): GGUF files mark the beginnings of words, not what goes on.
pub(super) fn wordpiece(
    json: &TokenizerJson,
    table: &mut Table,
    enclosure: &Enclosure,
    metadata: &mut Metadata,
) -> Result<(), FormatError> {
    let prefix = json.model.continuing_subword_prefix.as_deref().unwrap_or("##");
    if prefix != "##" || json.model.max_input_chars_per_word.is_some_and(|chars| chars != 100) {
        return Err(unsupported_model(
            "WordPiece with another prefix than ## or another limit than 100 characters",
        ));
    }
    if enclosure.first.is_none() || enclosure.last.is_none() {
        return Err(unsupported_model("WordPiece whose texts are not enclosed by two tokens (CLS and SEP)"));
    }
    let (lowercase, strips_accents) = steps::bert_settings(&json.normalizer, &json.pre_tokenizer)?;
    metadata.set("tokenizer.ggml.model", "bert");
    metadata.set("tokenizer.ggml.pre", "default");
    metadata.set("tokenizer.ggml.normalizer.lowercase", lowercase);
    if let Some(strips_accents) = strips_accents {
        metadata.set("tokenizer.ggml.normalizer.strip_accents", strips_accents);
    }
    for (text, _) in table.texts.iter_mut().zip(&table.types).filter(|&(_, &kind)| kind == token_type::NORMAL)
    {
        *text = match text.strip_prefix("##") {
            Some(rest) if !rest.is_empty() => rest.to_owned(),
            _ => format!("▁{text}"),
        };
    }
    Ok(())
}

/// A unigram model (`t5`).
pub(super) fn unigram(
    json: &TokenizerJson,
    table: &mut Table,
    metadata: &mut Metadata,
) -> Result<(), FormatError> {
    let Vocab::Scores(tokens) = &json.model.vocab else {
        return Err(invalid("tokenizer.json has a unigram model without scores".to_owned()));
    };
    if json.model.byte_fallback {
        return Err(unsupported_model("Unigram with byte fallback"));
    }
    let unknown = json.model.unk_id.filter(|&id| (id as usize) < tokens.len());
    let Some(unknown) = unknown else {
        return Err(unsupported_model("Unigram without a token for what is unknown"));
    };
    table.types[unknown as usize] = token_type::UNKNOWN;
    let (charsmap, prefix) = steps::unigram_settings(&json.normalizer, &json.pre_tokenizer)?;
    write_prefix(prefix, metadata);
    metadata.set("tokenizer.ggml.model", "t5");
    metadata.set("tokenizer.ggml.pre", "default");
    metadata.set("tokenizer.ggml.add_space_prefix", true);
    metadata.set("tokenizer.ggml.remove_extra_whitespaces", true);
    metadata.set("tokenizer.ggml.unknown_token_id", unknown);
    if let Some(charsmap) = charsmap {
        let bytes = base64(&charsmap).ok_or_else(|| {
            invalid("tokenizer.json has a precompiled_charsmap that is not in Base64".to_owned())
        })?;
        metadata.set("tokenizer.ggml.precompiled_charsmap", crate::gguf::Value::Array(Array::U8(bytes)));
    }
    let mut scores: Vec<f32> = tokens.iter().map(|&(_, score)| score as f32).collect();
    scores.resize(table.texts.len(), UNUSED_SCORE);
    metadata.set("tokenizer.ggml.scores", scores);
    Ok(())
}

/// The bytes of a text in Base64 (RFC 4648) with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    if text.len() % 4 != 0 {
        return None;
    }
    let padding = text.bytes().rev().take_while(|&byte| byte == b'=').count();
    let digits = text.as_bytes().get(..text.len() - padding).filter(|_| padding <= 2)?;
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for &byte in group {
            bits = bits << 6 | u32::from(digit(byte)?);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(base64("+/8="), Some(vec![0xfb, 0xff]));
        for bad in ["Zg=", "Z===", "Zm 9", "====", "é"] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }
}
