//! What `tokenizer.json` does to text before the model sees it, told apart by its structure.

use serde_json::Value;

use crate::FormatError;
use crate::error::excerpt;

use super::super::pre::PreTokenizer;

/// The pattern of the `ByteLevel` pre-tokenizer (GPT-2's).
const BYTE_LEVEL: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The refusal of a part of the file, in its own words.
pub(super) fn unsupported(key: &'static str, part: &Value, supported: &str) -> FormatError {
    FormatError::UnsupportedTokenizer {
        key,
        found: excerpt(&part.to_string()),
        supported: supported.to_owned(),
    }
}

pub(super) fn kind(part: &Value) -> &str {
    part.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn flag(part: &Value, name: &str, default: bool) -> bool {
    part.get(name).and_then(Value::as_bool).unwrap_or(default)
}

/// The parts of a sequence, or the one part there is, or none. Sequences in sequences are flattened.
pub(super) fn parts<'a>(part: &'a Value, list: &str) -> Vec<&'a Value> {
    // The recursion is bounded by the JSON reader's own limit on depth.
    match kind(part) {
        _ if part.is_null() => Vec::new(),
        "Sequence" => {
            let inner = part.get(list).and_then(Value::as_array);
            inner.into_iter().flatten().flat_map(|part| parts(part, list)).collect()
        }
        _ => vec![part],
    }
}

/// Whether words are spelled in bytes: the last thing done to them.
pub(super) fn is_byte_level(pre_tokenizer: &Value) -> bool {
    parts(pre_tokenizer, "pretokenizers").iter().any(|part| kind(part) == "ByteLevel")
}

/// The name in GGUF files of a byte-level pre-tokenizer.
pub(super) fn byte_level_name(
    pre_tokenizer: &Value,
    ignore_merges: bool,
) -> Result<&'static str, FormatError> {
    let refused = || FormatError::UnsupportedTokenizer {
        key: "tokenizer.json's pre_tokenizer",
        found: excerpt(&pre_tokenizer.to_string()),
        supported: format!("those that GGUF files call {}", PreTokenizer::names()),
    };
    let mut patterns = Vec::new();
    for part in parts(pre_tokenizer, "pretokenizers") {
        match kind(part) {
            "ByteLevel" if flag(part, "add_prefix_space", true) => return Err(refused()),
            "ByteLevel" if flag(part, "use_regex", true) => patterns.push(BYTE_LEVEL.to_owned()),
            "ByteLevel" => {}
            "Digits" if flag(part, "individual_digits", false) => patterns.push(r"\p{N}".to_owned()),
            "Digits" => patterns.push(r"\p{N}+".to_owned()),
            "Punctuation" if part.get("behavior").and_then(Value::as_str) == Some("Contiguous") => {
                patterns.push(r"[\p{P}\$\+<=>\^~\|`]+".to_owned());
            }
            "Split" => patterns.push(split_pattern(part).ok_or_else(refused)?),
            _ => return Err(refused()),
        }
    }
    // Falcon cuts runs of digits once more; its three at a time come to the same.
    let patterns: Vec<_> = patterns.iter().map(|pattern| plain(pattern)).collect();
    let drop_digits = patterns.len() == 4 && patterns[2] == r"\p{N}+";
    let patterns: Vec<_> = patterns
        .into_iter()
        .enumerate()
        .filter(|&(place, _)| !(drop_digits && place == 2))
        .map(|(_, pattern)| pattern)
        .collect();
    PreTokenizer::name_of(&patterns, ignore_merges, plain).ok_or_else(refused)
}

/// The pattern of a `Split` that keeps matches and the rest.
fn split_pattern(part: &Value) -> Option<String> {
    let pattern = part.get("pattern")?.get("Regex")?.as_str()?;
    let behavior = part.get("behavior")?.as_str()?;
    match (behavior, flag(part, "invert", false)) {
        ("Isolated", _) => Some(pattern.to_owned()),
        // Patterns that match all there is leave nothing to remove.
        ("Removed", true) if pattern.ends_with(r"|\s+") => Some(pattern.to_owned()),
        _ => None,
    }
}

/// A pattern with characters for their escapes and escapes for line breaks: files write it either way.
fn plain(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let escape = rest.strip_prefix(r"\u{").and_then(|after| after.split_once('}'));
        let escaped = escape.and_then(|(code, after)| {
            Some((u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?, after))
        });
        rest = match escaped {
            Some((c, after)) => {
                out.push(c);
                after
            }
            None => {
                match c {
                    '\r' => out.push_str(r"\r"),
                    '\n' => out.push_str(r"\n"),
                    c => out.push(c),
                }
                &rest[c.len_utf8()..]
            }
        };
    }
    out
}

/// Whether text is put into composed form (NFC) first, which is all that byte-level tokenizers do.
pub(super) fn composes(normalizer: &Value) -> Result<bool, FormatError> {
    match parts(normalizer, "normalizers")[..] {
        [] => Ok(false),
        [part] if kind(part) == "NFC" => Ok(true),
        _ => Err(unsupported("tokenizer.json's normalizer", normalizer, "none, NFC (with byte-level BPE)")),
    }
}

/// Where SentencePiece's BPE puts a space in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpacePrefix {
    Never,
    /// In every text between special tokens.
    Segments,
    SegmentsUnlessSpace,
    StartUnlessSpace,
}

fn is_space_to_mark(part: &Value) -> bool {
    kind(part) == "Replace"
        && part.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str) == Some(" ")
        && part.get("content").and_then(Value::as_str) == Some("▁")
}

/// The settings of SentencePiece's BPE.
pub(super) fn sentencepiece_prefix(
    normalizer: &Value,
    pre_tokenizer: &Value,
) -> Result<SpacePrefix, FormatError> {
    let marks_spaces = match parts(normalizer, "normalizers")[..] {
        [] => false,
        [replace] if is_space_to_mark(replace) => true,
        [prepend, replace]
            if kind(prepend) == "Prepend"
                && prepend.get("prepend").and_then(Value::as_str) == Some("▁")
                && is_space_to_mark(replace)
                && pre_tokenizer.is_null() =>
        {
            return Ok(SpacePrefix::Segments);
        }
        _ => {
            let supported = "none, Replace \" \" by \"▁\", the same after Prepend \"▁\" (with byte fallback)";
            return Err(unsupported("tokenizer.json's normalizer", normalizer, supported));
        }
    };
    match parts(pre_tokenizer, "pretokenizers")[..] {
        [] if marks_spaces => Ok(SpacePrefix::Never),
        // Gemma cuts at spaces, of which its normalizer has left none.
        [split] if marks_spaces && is_space_split(split) => Ok(SpacePrefix::Never),
        [metaspace] if !marks_spaces && !flag(metaspace, "split", true) => match scheme(metaspace) {
            Some("never") => Ok(SpacePrefix::Never),
            Some("first") => Ok(SpacePrefix::StartUnlessSpace),
            Some("always") => Ok(SpacePrefix::SegmentsUnlessSpace),
            _ => Err(unsupported_pre(pre_tokenizer)),
        },
        _ => Err(unsupported_pre(pre_tokenizer)),
    }
}

fn is_space_split(part: &Value) -> bool {
    let pattern = part.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str);
    kind(part) == "Split" && pattern == Some(" ")
}

fn unsupported_pre(pre_tokenizer: &Value) -> FormatError {
    let supported = "none, Metaspace with `▁` that does not split (with byte fallback)";
    unsupported("tokenizer.json's pre_tokenizer", pre_tokenizer, supported)
}

/// Where a `Metaspace` puts its mark in front; nothing if it is none, or its mark is another.
fn scheme(part: &Value) -> Option<&str> {
    if kind(part) != "Metaspace" || part.get("replacement").and_then(Value::as_str) != Some("▁") {
        return None;
    }
    match part.get("prepend_scheme").and_then(Value::as_str) {
        None if flag(part, "add_prefix_space", true) => Some("always"),
        None => Some("never"),
        scheme => scheme,
    }
}

/// What a unigram tokenizer does to text.
pub(super) struct UnigramSteps {
    /// The table of replacements.
    pub(super) charsmap: Option<String>,
    /// Unicode's composed form, before everything else.
    pub(super) composes: Option<&'static str>,
    /// A text with another in its place.
    pub(super) replaced: Option<(String, String)>,
    /// Where a space is put in front.
    pub(super) prefix: SpacePrefix,
    /// If spaces are not handled as SentencePiece does: `joined`, `kept` or `dropped`.
    pub(super) spaces: Option<&'static str>,
}

/// The steps of a unigram tokenizer, which handles spaces as SentencePiece does, or marks each of them.
pub(super) fn unigram_settings(
    normalizer: &Value,
    pre_tokenizer: &Value,
) -> Result<UnigramSteps, FormatError> {
    let refused_normalizer = || {
        let supported = "Precompiled, NFC or NFKC or none, then Replace of one text, Strip on the right, Replace \" {2,}\" (with Unigram)";
        unsupported("tokenizer.json's normalizer", normalizer, supported)
    };
    let mut steps = parts(normalizer, "normalizers");
    let mut take = |wanted: &dyn Fn(&Value) -> bool| match steps.first() {
        Some(&first) if wanted(first) => Some(steps.remove(0)),
        _ => None,
    };
    let composes = match take(&|part| matches!(kind(part), "NFC" | "NFKC")).map(kind) {
        Some("NFC") => Some("nfc"),
        Some(_) => Some("nfkc"),
        None => None,
    };
    let charsmap = take(&|part| kind(part) == "Precompiled").map(|part| {
        let table = part.get("precompiled_charsmap").and_then(Value::as_str);
        table.map(str::to_owned).ok_or_else(refused_normalizer)
    });
    let charsmap = charsmap.transpose()?;
    let text = |part: &Value| {
        let from = part.get("pattern")?.get("String")?.as_str().filter(|from| !from.is_empty())?;
        Some((from.to_owned(), part.get("content")?.as_str()?.to_owned())).filter(|_| kind(part) == "Replace")
    };
    let replaced = take(&|part| text(part).is_some()).and_then(text);
    let strips = take(&|part| {
        kind(part) == "Strip" && flag(part, "strip_right", false) && !flag(part, "strip_left", false)
    });
    let joins = take(&|part| {
        let pattern = part.get("pattern").and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str);
        kind(part) == "Replace" && pattern == Some(" {2,}")
    });
    let (stripped, joined) = (strips.is_some(), joins.is_some());
    if !steps.is_empty() || stripped && !joined {
        return Err(refused_normalizer());
    }
    let plain = composes.is_none() && replaced.is_none();
    let (metaspace, spaces) = match parts(pre_tokenizer, "pretokenizers")[..] {
        [metaspace] if stripped && plain => (metaspace, None),
        [split, metaspace] if kind(split) == "WhitespaceSplit" && charsmap.is_some() && plain => {
            (metaspace, None)
        }
        [split, metaspace] if kind(split) == "WhitespaceSplit" && !stripped => (metaspace, Some("dropped")),
        [metaspace] if !stripped && flag(metaspace, "split", true) => {
            (metaspace, Some(if joined { "joined" } else { "kept" }))
        }
        _ => (&Value::Null, None),
    };
    let prefix = match scheme(metaspace) {
        Some("always") => SpacePrefix::SegmentsUnlessSpace,
        // Behind WhitespaceSplit, every word would be the first.
        Some("first") if stripped || spaces.is_some() => SpacePrefix::StartUnlessSpace,
        _ => {
            let supported = "Metaspace that puts `▁` in front, alone or after WhitespaceSplit (with Unigram)";
            return Err(unsupported("tokenizer.json's pre_tokenizer", pre_tokenizer, supported));
        }
    };
    Ok(UnigramSteps { charsmap, composes, replaced, prefix, spaces })
}

/// Lower case, and accents removed if it says so, of a BERT normalizer.
pub(super) fn bert_settings(
    normalizer: &Value,
    pre_tokenizer: &Value,
) -> Result<(bool, Option<bool>), FormatError> {
    let is_bert = kind(normalizer) == "BertNormalizer"
        && flag(normalizer, "clean_text", true)
        && flag(normalizer, "handle_chinese_chars", true);
    if !is_bert {
        return Err(unsupported(
            "tokenizer.json's normalizer",
            normalizer,
            "BertNormalizer (with WordPiece)",
        ));
    }
    if kind(pre_tokenizer) != "BertPreTokenizer" {
        let supported = "BertPreTokenizer (with WordPiece)";
        return Err(unsupported("tokenizer.json's pre_tokenizer", pre_tokenizer, supported));
    }
    let strips_accents = normalizer.get("strip_accents").and_then(Value::as_bool);
    Ok((flag(normalizer, "lowercase", true), strips_accents))
}

/// Texts of the tokens put in front and behind.
pub(super) struct Enclosure {
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
}

/// What the post-processor adds to a text.
pub(super) fn enclosure(post_processor: &Value) -> Result<Enclosure, FormatError> {
    let refused = || {
        let supported = "none, ByteLevel, BertProcessing, RobertaProcessing, TemplateProcessing with at most one token on each side";
        unsupported("tokenizer.json's post_processor", post_processor, supported)
    };
    let mut enclosure = Enclosure { first: None, last: None };
    for part in parts(post_processor, "processors") {
        match kind(part) {
            "ByteLevel" => {}
            "BertProcessing" | "RobertaProcessing" => {
                let token = |name: &str| part.get(name)?.get(0)?.as_str().map(str::to_owned);
                (enclosure.first, enclosure.last) = (token("cls"), token("sep"));
            }
            "TemplateProcessing" => {
                let steps = part.get("single").and_then(Value::as_array).ok_or_else(refused)?;
                let token = |step: &Value| step.get("SpecialToken")?.get("id")?.as_str().map(str::to_owned);
                let place =
                    steps.iter().position(|step| step.get("Sequence").is_some()).ok_or_else(refused)?;
                let (before, after) = (&steps[..place], &steps[place + 1..]);
                if before.len() > 1 || after.len() > 1 {
                    return Err(refused());
                }
                enclosure.first = before.first().map(|step| token(step).ok_or_else(refused)).transpose()?;
                enclosure.last = after.first().map(|step| token(step).ok_or_else(refused)).transpose()?;
            }
            _ => return Err(refused()),
        }
    }
    Ok(enclosure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_compare_by_what_they_mean() {
        assert_eq!(plain(r"[\r\n\u{4e00}-\u{9fa5}]\u{x}"), plain("[\r\n一-龥]\\u{x}"));
    }

    #[test]
    fn byte_level_families_are_known_by_their_structure() {
        let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false});
        assert_eq!(byte_level_name(&byte_level, false).unwrap(), "gpt-2");
        let smollm = serde_json::json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true}, byte_level,
        ]});
        assert_eq!(byte_level_name(&smollm, false).unwrap(), "smollm");
        let error =
            byte_level_name(&serde_json::json!({"type": "Whitespace"}), false).unwrap_err().to_string();
        assert!(error.contains("Whitespace") && error.contains("smollm"), "{error}");
    }
}
