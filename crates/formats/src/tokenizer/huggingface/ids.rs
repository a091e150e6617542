//! Ids with a meaning: BOS, EOS and others, and which of them texts are enclosed by.

use serde_json::Value;

use crate::error::excerpt;
use crate::{FormatError, Metadata};

use super::json::TokenizerJson;
use super::steps::Enclosure;
use super::{Table, TokenizerFiles, invalid, model_kind};

/// Names in `tokenizer_config.json` and in GGUF files, the misspelled one included.
const NAMES: [(&str, &str); 7] = [
    ("bos_token", "bos"),
    ("eos_token", "eos"),
    ("unk_token", "unknown"),
    ("sep_token", "seperator"),
    ("pad_token", "padding"),
    ("cls_token", "cls"),
    ("mask_token", "mask"),
];

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}_token_id")
}

/// Writes all of them.
pub(super) fn write(
    files: &TokenizerFiles<'_>,
    json: &TokenizerJson,
    table: &Table,
    enclosure: &Enclosure,
    metadata: &mut Metadata,
) -> Result<(), FormatError> {
    for (name, written) in NAMES {
        let said = |file: Option<&Value>| {
            let token = file?.get(name)?;
            token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
        };
        let text = said(files.tokenizer_config).or_else(|| said(files.special_tokens_map));
        // Names of tokens that a vocabulary does not have are leftovers of another's.
        if let Some(id) = text.and_then(|text| table.id(&text)) {
            metadata.set(key(written), id);
        }
    }
    if let Some(id) = json.model.unk_token.as_ref().and_then(|text| table.id(text)) {
        metadata.set(key("unknown"), id);
    }
    let id_of = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => table.id(text).map(Some).ok_or_else(|| {
            invalid(format!("tokenizer.json encloses texts by `{}`, which is no token", excerpt(text)))
        }),
    };
    let (first, last) = (id_of(&enclosure.first)?, id_of(&enclosure.last)?);
    if model_kind(json) == "WordPiece" {
        for (name, id) in [("cls", first), ("bos", first), ("seperator", last)] {
            if let Some(id) = id {
                metadata.set(key(name), id);
            }
        }
        write_endings(files, metadata)
    } else {
        write_endings(files, metadata)?;
        write_enclosing(files, "bos", first, metadata)?;
        write_enclosing(files, "eos", last, metadata)
    }
}

/// Whether texts begin with BOS, or end with EOS: as the configuration says, else as the post-processor does.
fn write_enclosing(
    files: &TokenizerFiles<'_>,
    name: &str,
    token: Option<u32>,
    metadata: &mut Metadata,
) -> Result<(), FormatError> {
    let named = metadata.u32(&key(name))?;
    match (token, named) {
        (Some(token), None) => metadata.set(key(name), token),
        // Embedding models put another token behind a text than the one that ends their base's answers; both do.
        (Some(token), Some(named)) if token != named && name == "eos" => {
            metadata.set(key(name), token);
            if metadata.u32(&key("eot"))?.is_none() {
                metadata.set(key("eot"), named);
            }
        }
        (Some(token), Some(named)) if token != named => {
            return Err(FormatError::UnsupportedTokenizer {
                key: "tokenizer.json's post_processor",
                found: format!("token {token} put where {name} ({named}) belongs"),
                supported: "BOS in front".to_owned(),
            });
        }
        _ => {}
    }
    let add = format!("add_{name}_token");
    let configured = files.tokenizer_config.and_then(|config| config.get(&add)).and_then(Value::as_bool);
    let adds = configured.unwrap_or(token.is_some()) && (token.is_some() || named.is_some());
    metadata.set(format!("tokenizer.ggml.{add}"), adds);
    Ok(())
}

/// Tokens that end an answer beyond EOS: GGUF files have two more places for such, and those that everyone knows by
/// their text need none.
fn write_endings(files: &TokenizerFiles<'_>, metadata: &mut Metadata) -> Result<(), FormatError> {
    let endings = files.generation_config.and_then(|config| config.get("eos_token_id"));
    let listed = match endings {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(ids)) => ids.iter().collect(),
        Some(id) => vec![id],
    };
    let mut free = ["eos", "eot", "eom"].into_iter();
    let mut written: Vec<u32> = metadata.u32(&key("eos"))?.into_iter().collect();
    if !written.is_empty() {
        free.next();
    }
    for id in listed {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| {
            invalid(format!(
                "generation_config.json has the eos_token_id {}",
                excerpt(&endings_text(endings))
            ))
        })?;
        if written.contains(&id) {
            continue;
        }
        let Some(name) = free.next() else {
            return Err(invalid(format!(
                "generation_config.json has more tokens that end an answer ({}) than a GGUF file can name",
                excerpt(&endings_text(endings))
            )));
        };
        metadata.set(key(name), id);
        written.push(id);
    }
    Ok(())
}

fn endings_text(endings: Option<&Value>) -> String {
    endings.map(Value::to_string).unwrap_or_default()
}
