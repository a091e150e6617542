//! Vocabulary, merges and scores of each kind of model.

use std::collections::{HashMap, HashSet};

use crate::error::excerpt;
use crate::gguf::{Array, StringArray};
use crate::{FormatError, Metadata};

use super::super::vocabulary::byte_of;
use super::json::{TokenizerJson, Vocab};
use super::steps::{self, Enclosure, SpacePrefix, UnigramSteps};
use super::{
    NORMALIZER_KEY, REPLACED_KEY, SPACE_PREFIX_KEY, SPACES_KEY, Table, invalid, token_type, unsupported_model,
};

/// Scores that llama.cpp's converter gives to tokens without one, and to places without a token.
const ADDED_SCORE: f32 = -1000.0;
const UNUSED_SCORE: f32 = -10000.0;

/// SentencePiece's tokens are far shorter; looking at all parts of one takes time in proportion.
const MAX_TOKEN: usize = 512;

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
        let parts = [merge.0.clone(), merge.1.clone(), format!("{}{}", merge.0, merge.1)];
        let mut is_control = false;
        for part in &parts {
            let id = table.id(part).filter(|_| !part.contains(' ')).ok_or_else(|| {
                invalid(format!("tokenizer.json merges to or from `{}`, which is no token", excerpt(part)))
            })?;
            is_control |= matches!(table.types[id as usize], token_type::CONTROL | token_type::UNKNOWN);
        }
        // No text may merge into a control token.
        if !is_control {
            merges.push(&format!("{} {}", merge.0, merge.1));
        }
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
    let merges = merge_ids(json, table)?;
    let scores = scores_of_merges(json, table, &merges);
    let can_write_merges =
        prefix == SpacePrefix::Never && !json.model.ignore_merges && breaks_at_lines(table, &merges);
    match scores {
        Scores::Exact(scores) => write_scores(scores, metadata),
        _ if can_write_merges => {
            metadata.set("tokenizer.ggml.model", "gemma4");
            let text = |id: u32| &table.texts[id as usize];
            let merges = merges.iter().map(|&[left, right, _]| format!("{} {}", text(left), text(right)));
            metadata.set("tokenizer.ggml.merges", merges.collect::<StringArray>());
        }
        Scores::Tied(scores) => write_scores(scores, metadata),
        Scores::None(why) => {
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
fn breaks_at_lines(table: &Table, merges: &[[u32; 3]]) -> bool {
    merges.iter().all(|&[.., made]| {
        let text = &table.texts[made as usize];
        !text.contains(' ') && (!text.contains('\n') || text.bytes().all(|byte| byte == b'\n'))
    })
}

fn write_scores(scores: Vec<f32>, metadata: &mut Metadata) {
    metadata.set("tokenizer.ggml.model", "llama");
    metadata.set("tokenizer.ggml.pre", "default");
    metadata.set("tokenizer.ggml.scores", scores);
}

fn write_prefix(prefix: SpacePrefix, metadata: &mut Metadata) {
    match prefix {
        SpacePrefix::Never | SpacePrefix::Segments => {}
        SpacePrefix::SegmentsUnlessSpace => metadata.set(SPACE_PREFIX_KEY, "segments-unless-space"),
        SpacePrefix::StartUnlessSpace => metadata.set(SPACE_PREFIX_KEY, "start-unless-space"),
    }
}

/// Scores for tokens, such that merging whatever makes a token, the best score first, does what the list of merges does.
enum Scores {
    /// One for each token.
    Exact(Vec<f32>),
    /// Some tokens have the same, as those of Llama 2 for runs of spaces do; SentencePiece then merges the leftmost.
    Tied(Vec<f32>),
    /// There are none, and why.
    None(String),
}

/// The merges as ids, without those of tokens that text becomes in another way.
fn merge_ids(json: &TokenizerJson, table: &Table) -> Result<Vec<[u32; 3]>, FormatError> {
    let mut merges = Vec::with_capacity(json.model.merges.len());
    let mut joined = String::new();
    for merge in &json.model.merges {
        joined.clear();
        joined.extend([merge.0.as_str(), merge.1.as_str()]);
        let id = |text: &str| {
            table.id(text).ok_or_else(|| {
                invalid(format!("tokenizer.json merges to or from `{}`, which is no token", excerpt(text)))
            })
        };
        let ids = [id(&merge.0)?, id(&merge.1)?, id(&joined)?];
        if ids.iter().all(|&id| table.types[id as usize] == token_type::NORMAL) {
            merges.push(ids);
        }
    }
    Ok(merges)
}

/// Lists that were made from SentencePiece's scores have every pair that makes a token, and all pairs of one token in a
/// row; where tokens have the same score, those of all of them, by length.
fn scores_of_merges(json: &TokenizerJson, table: &Table, merges: &[[u32; 3]]) -> Scores {
    if json.model.ignore_merges {
        return Scores::None("it has ignore_merges".to_owned());
    }
    if let Some(text) = table.texts.iter().find(|text| text.len() > MAX_TOKEN) {
        return Scores::None(format!("a token has {} bytes", text.len()));
    }
    if let Some((left, right)) = missing_pair(table, merges) {
        return Scores::None(format!("it does not merge `{left}` and `{right}`"));
    }
    let mut last = HashMap::with_capacity(merges.len());
    for (rank, [.., made]) in merges.iter().enumerate() {
        last.insert(*made, rank);
    }
    let mut groups: Vec<Option<u32>> = vec![None; table.texts.len()];
    let (mut group, mut start, mut end, mut is_tied) = (0, 0, 0, false);
    for (rank, [.., made]) in merges.iter().enumerate() {
        end = end.max(last[made]);
        groups[*made as usize] = Some(group);
        if rank < end {
            continue;
        }
        let members = &merges[start..=rank];
        if members.iter().any(|[.., other]| other != made) {
            if !is_by_length(table, members) {
                let text = &table.texts[*made as usize];
                return Scores::None(format!("`{text}` is made at several places of the list"));
            }
            is_tied = true;
        }
        (group, start) = (group + 1, rank + 1);
    }
    let score = |(group, &kind): (&Option<u32>, &i32)| match (group, kind) {
        (_, token_type::UNUSED) => UNUSED_SCORE,
        (_, token_type::CONTROL | token_type::USER_DEFINED) => ADDED_SCORE,
        (Some(group), _) => -(*group as f32),
        // Single characters, which nothing merges into, and bytes.
        (None, _) => 0.0,
    };
    let scores = groups.iter().zip(&table.types).map(score).collect();
    if is_tied { Scores::Tied(scores) } else { Scores::Exact(scores) }
}

/// Two tokens that make a third and are not merged.
fn missing_pair<'a>(table: &'a Table, merges: &[[u32; 3]]) -> Option<(&'a str, &'a str)> {
    let pairs: HashSet<(u32, u32)> = merges.iter().map(|&[left, right, _]| (left, right)).collect();
    let is_normal = |id: &u32| table.types[*id as usize] == token_type::NORMAL;
    let normal = |text: &str| table.id(text).filter(is_normal);
    for (text, _) in table.texts.iter().zip(&table.types).filter(|&(_, &kind)| kind == token_type::NORMAL) {
        for (cut, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(cut);
            let (Some(first), Some(second)) = (normal(left), normal(right)) else { continue };
            if !pairs.contains(&(first, second)) {
                return Some((left, right));
            }
        }
    }
    None
}

/// Whether the merges are in the order of their parts' lengths, which is how converters order those of one score.
fn is_by_length(table: &Table, merges: &[[u32; 3]]) -> bool {
    let chars = |id: u32| table.texts[id as usize].chars().count();
    let lengths = |[left, right, _]: &[u32; 3]| (chars(*left), chars(*right));
    merges.is_sorted_by_key(lengths) || merges.iter().rev().is_sorted_by_key(lengths)
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
    let UnigramSteps { charsmap, prefix, composes, replaced, spaces } =
        steps::unigram_settings(&json.normalizer, &json.pre_tokenizer)?;
    write_prefix(prefix, metadata);
    if let Some(form) = composes {
        metadata.set(NORMALIZER_KEY, form);
    }
    if let Some((from, to)) = replaced {
        metadata.set(REPLACED_KEY, [from, to].iter().collect::<StringArray>());
    }
    if let Some(spaces) = spaces {
        metadata.set(SPACES_KEY, spaces);
    }
    metadata.set("tokenizer.ggml.model", "t5");
    metadata.set("tokenizer.ggml.pre", "default");
    metadata.set("tokenizer.ggml.add_space_prefix", true);
    metadata.set("tokenizer.ggml.remove_extra_whitespaces", spaces != Some("kept"));
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
    if !text.len().is_multiple_of(4) {
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
