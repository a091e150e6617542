//! Tokenizers in Hugging Face's files (`tokenizer.json` and those beside it), written as the metadata that GGUF files
//! carry, so that one [`Tokenizer`](super::Tokenizer) serves both and other programs read a converted file.
//!
//! Keys and conventions are those of llama.cpp's converter. What `tokenizer.json` says and those have no key for goes
//! below `tokenizer.wushi.`; what neither can say is refused by name.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::excerpt;
use crate::gguf::StringArray;
use crate::{FormatError, Metadata};

use super::special::{STRIP_LEFT_KEY, STRIP_RIGHT_KEY};
use super::{NORMALIZER_KEY, REPLACED_KEY, SPACE_PREFIX_KEY, SPACES_KEY};

mod ids;
mod json;
mod models;
mod steps;

use json::{AddedToken, TokenizerJson, Vocab};

/// How many rows of an embedding may have no token: models round their vocabulary up, none doubles it.
const MAX_UNUSED: usize = 1 << 16;

/// Numbers of `tokenizer.ggml.token_type`.
pub(super) mod token_type {
    pub(in crate::tokenizer) const NORMAL: i32 = 1;
    pub(in crate::tokenizer) const UNKNOWN: i32 = 2;
    pub(in crate::tokenizer) const CONTROL: i32 = 3;
    pub(in crate::tokenizer) const USER_DEFINED: i32 = 4;
    pub(in crate::tokenizer) const UNUSED: i32 = 5;
    pub(in crate::tokenizer) const BYTE: i32 = 6;
}

/// The files of a model's folder that concern its tokenizer.
#[derive(Clone, Copy, Debug)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`.
    pub tokenizer_json: &'a [u8],
    /// `tokenizer_config.json`: which tokens are BOS, EOS and so on, and often the chat template.
    pub tokenizer_config: Option<&'a Value>,
    /// `special_tokens_map.json`, asked for what `tokenizer_config.json` leaves out.
    pub special_tokens_map: Option<&'a Value>,
    /// `generation_config.json`: all tokens that end an answer.
    pub generation_config: Option<&'a Value>,
    /// `chat_template.jinja`, which wins over a template in `tokenizer_config.json`.
    pub chat_template: Option<&'a str>,
    /// Rows of the model's embedding; the vocabulary is filled up to it.
    pub vocab_size: usize,
}

/// Adds `tokenizer.ggml.*` and `tokenizer.chat_template` to the metadata.
///
/// # Errors
/// Files that are not what they should be, and parts of a tokenizer that are not supported, with what is.
pub fn import(files: &TokenizerFiles<'_>, metadata: &mut Metadata) -> Result<(), FormatError> {
    let json: TokenizerJson = serde_json::from_slice(files.tokenizer_json)
        .map_err(|error| invalid(format!("tokenizer.json: {}", excerpt(&error.to_string()))))?;
    let mut table = Table::read(&json, files.vocab_size)?;
    let enclosure = steps::enclosure(&json.post_processor)?;
    let unknown_prefix = json.model.continuing_subword_prefix.as_deref().unwrap_or_default();
    match model_kind(&json) {
        "BPE"
            if !unknown_prefix.is_empty()
                || json.model.end_of_word_suffix.as_ref().is_some_and(|s| !s.is_empty()) =>
        {
            return Err(unsupported_model("BPE with continuing_subword_prefix or end_of_word_suffix"));
        }
        "BPE" if steps::is_byte_level(&json.pre_tokenizer) => {
            models::byte_level(&json, &mut table, metadata)?
        }
        "BPE" => models::sentencepiece(&json, &mut table, metadata)?,
        "WordPiece" => models::wordpiece(&json, &mut table, &enclosure, metadata)?,
        "Unigram" => models::unigram(&json, &mut table, metadata)?,
        other => return Err(unsupported_model(other)),
    }
    let strips = |wanted: fn(&AddedToken) -> bool| -> Vec<u32> {
        json.added_tokens.iter().filter(|token| wanted(token)).map(|token| token.id).collect()
    };
    for (key, ids) in [(STRIP_LEFT_KEY, strips(|t| t.lstrip)), (STRIP_RIGHT_KEY, strips(|t| t.rstrip))] {
        if !ids.is_empty() {
            metadata.set(key, ids);
        }
    }
    ids::write(files, &json, &table, &enclosure, metadata)?;
    metadata.set("tokenizer.ggml.tokens", table.texts.iter().collect::<StringArray>());
    metadata.set("tokenizer.ggml.token_type", table.types);
    write_templates(files, metadata)
}

fn invalid(problem: String) -> FormatError {
    FormatError::InvalidVocabulary(problem)
}

fn unsupported_model(found: &str) -> FormatError {
    FormatError::UnsupportedTokenizer {
        key: "tokenizer.json's model",
        found: excerpt(found),
        supported: "BPE over bytes, BPE with byte fallback as SentencePiece has it, WordPiece, Unigram"
            .to_owned(),
    }
}

/// The algorithm's name; the oldest files leave it to be guessed.
fn model_kind(json: &TokenizerJson) -> &str {
    match (&json.model.kind, &json.model.vocab) {
        (Some(kind), _) => kind,
        (None, Vocab::Scores(_)) => "Unigram",
        (None, Vocab::Ids(_)) if json.model.max_input_chars_per_word.is_some() => "WordPiece",
        (None, Vocab::Ids(_)) => "BPE",
    }
}

/// The vocabulary by id.
struct Table {
    texts: Vec<String>,
    types: Vec<i32>,
    /// As in the file, before texts are written in GGUF's way.
    ids: HashMap<String, u32>,
}

impl Table {
    /// All tokens; places that have none are `[PADn]`, unused.
    fn read(json: &TokenizerJson, vocab_size: usize) -> Result<Table, FormatError> {
        let count = json.added_tokens.len()
            + match &json.model.vocab {
                Vocab::Ids(tokens) => tokens.len(),
                Vocab::Scores(tokens) => tokens.len(),
            };
        if vocab_size > count * 2 + MAX_UNUSED {
            let problem = format!("the model has {vocab_size} tokens, tokenizer.json only {count}");
            return Err(invalid(problem));
        }
        let mut texts: Vec<Option<&str>> = vec![None; vocab_size];
        let mut ids = HashMap::with_capacity(vocab_size);
        let mut place = |text, id: u32| match texts.get_mut(id as usize) {
            None => Err(invalid(format!(
                "tokenizer.json gives `{}` the id {id}, but the model has {vocab_size} tokens",
                excerpt(text)
            ))),
            Some(Some(other)) if *other != text => Err(invalid(format!(
                "tokenizer.json gives `{}` and `{}` one id, {id}",
                excerpt(other),
                excerpt(text)
            ))),
            Some(slot) => {
                *slot = Some(text);
                match ids.insert(text.to_owned(), id) {
                    Some(other) if other != id => Err(invalid(format!(
                        "tokenizer.json gives `{}` two ids, {other} and {id}",
                        excerpt(text)
                    ))),
                    _ => Ok(()),
                }
            }
        };
        match &json.model.vocab {
            Vocab::Ids(tokens) => tokens.iter().try_for_each(|(text, id)| place(text.as_str(), *id))?,
            Vocab::Scores(tokens) => {
                tokens.iter().zip(0u32..).try_for_each(|((text, _), id)| place(text.as_str(), id))?;
            }
        }
        // Some vocabularies have tokens of pictures that the text model has no row for.
        let added = || json.added_tokens.iter().filter(|token| (token.id as usize) < vocab_size);
        for token in json.added_tokens.iter().filter(|token| token.id as usize >= vocab_size) {
            tracing::warn!(
                token = token.content,
                id = token.id,
                "the model has no such token: it is left out"
            );
        }
        added().try_for_each(|token| place(token.content.as_str(), token.id))?;
        let mut types: Vec<i32> = texts
            .iter()
            .map(|text| if text.is_some() { token_type::NORMAL } else { token_type::UNUSED })
            .collect();
        let mut texts: Vec<String> = texts
            .iter()
            .enumerate()
            .map(|(id, text)| text.map_or_else(|| format!("[PAD{id}]"), str::to_owned))
            .collect();
        for token in added() {
            if token.single_word {
                let what = format!("`{}` as a single word", token.content);
                return Err(FormatError::UnsupportedTokenizer {
                    key: "tokenizer.json's added_tokens",
                    found: excerpt(&what),
                    supported: "added tokens that match within words (single_word: false)".to_owned(),
                });
            }
            let index = token.id as usize;
            if token.special || looks_special(&token.content) {
                types[index] = token_type::CONTROL;
            } else {
                types[index] = token_type::USER_DEFINED;
                // These are matched before spaces are marked.
                texts[index] = token.content.replace('▁', " ");
            }
        }
        if let Some(&id) = json.model.unk_token.as_ref().and_then(|text| ids.get(text)) {
            types[id as usize] = token_type::UNKNOWN;
        }
        Ok(Table { texts, types, ids })
    }

    fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }
}

/// Tokens that models add as plain ones though they are signs to the machine (the list is llama.cpp's).
fn looks_special(text: &str) -> bool {
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || text.starts_with("<|") && text.ends_with("|>")
        || text.starts_with("<｜") && text.ends_with("｜>")
        || text.starts_with("<unused") && text.ends_with('>')
}

/// The chat template, and those with a name beside it.
fn write_templates(files: &TokenizerFiles<'_>, metadata: &mut Metadata) -> Result<(), FormatError> {
    let key = "tokenizer.chat_template";
    let configured = files.tokenizer_config.and_then(|config| config.get("chat_template"));
    if let Some(Value::Array(templates)) = configured {
        let mut names = StringArray::default();
        for template in templates {
            let part = |name: &str| template.get(name).and_then(Value::as_str);
            let (Some(name), Some(source)) = (part("name"), part("template")) else {
                return Err(FormatError::TemplateSyntax("a template without name or text".to_owned()));
            };
            if name == "default" {
                metadata.set(key, source);
            } else if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                metadata.set(format!("{key}.{name}"), source);
                names.push(name);
            } else {
                return Err(FormatError::TemplateSyntax(format!("a template is called `{}`", excerpt(name))));
            }
        }
        if !names.is_empty() {
            metadata.set("tokenizer.chat_templates", names);
        }
    }
    if let Some(source) = files.chat_template.or(configured.and_then(Value::as_str)) {
        metadata.set(key, source);
    }
    Ok(())
}
