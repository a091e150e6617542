//! Tokenizers in Hugging Face's files against the ids that `tokenizers` gives (`tools/huggingface_goldens.py`).

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use wushi_formats::tokenizer::huggingface::{TokenizerFiles, import};
use wushi_formats::{FormatError, Metadata, Tokenizer};

#[derive(Deserialize)]
struct Entry {
    name: String,
    tokenizer_json: String,
    tokenizer_config: Value,
    vocab_size: usize,
    /// What texts are enclosed by.
    first: Vec<u32>,
    last: Vec<u32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn entries() -> Vec<Entry> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/huggingface_tokenizers.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn entry(name: &str) -> Entry {
    entries().into_iter().find(|entry| entry.name == name).unwrap()
}

impl Entry {
    fn files(&self) -> TokenizerFiles<'_> {
        TokenizerFiles {
            tokenizer_json: self.tokenizer_json.as_bytes(),
            tokenizer_config: Some(&self.tokenizer_config),
            special_tokens_map: None,
            generation_config: None,
            chat_template: None,
            vocab_size: self.vocab_size,
        }
    }

    fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        import(&self.files(), &mut metadata).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        metadata
    }

    /// What is said of the file with another value at a place of `tokenizer.json`.
    fn refusal(&self, pointer: &str, value: Value) -> String {
        let mut json: Value = serde_json::from_str(&self.tokenizer_json).unwrap();
        *json.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        let text = json.to_string();
        let files = TokenizerFiles { tokenizer_json: text.as_bytes(), ..self.files() };
        import(&files, &mut Metadata::new()).expect_err(pointer).to_string()
    }
}

#[test]
fn ids_are_those_of_tokenizers() {
    let entries = entries();
    assert_eq!(entries.len(), 14);
    let mut differences = Vec::new();
    for entry in entries {
        let tokenizer = Tokenizer::from_gguf(&entry.metadata()).unwrap();
        assert_eq!(tokenizer.vocab_size(), entry.vocab_size);
        for case in entry.cases {
            let enclosed = [&entry.first[..], &case.ids, &entry.last].concat();
            for (enclosed, expected) in [(false, case.ids), (true, enclosed)] {
                let ids = tokenizer.encode(&case.text, enclosed, true).unwrap();
                if ids != expected {
                    let text = &case.text;
                    differences
                        .push(format!("{}: {text:?}: {ids:?}, but should be {expected:?}", entry.name));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn metadata_is_what_llama_cpps_converter_writes() {
    let qwen = entry("like Qwen").metadata();
    assert_eq!(qwen.require_str("tokenizer.ggml.model").unwrap(), "gpt2");
    assert_eq!(qwen.require_str("tokenizer.ggml.pre").unwrap(), "qwen2");
    let (tokens, types) = (
        qwen.require_str_array("tokenizer.ggml.tokens").unwrap(),
        qwen.require_i32_array("tokenizer.ggml.token_type").unwrap(),
    );
    let kind = |text: &str| types[tokens.iter().position(|token| token == text).unwrap()];
    assert_eq!([kind("<|im_end|>"), kind("<think>"), kind("Ġ")], [3, 4, 1]);
    // Five rows of the embedding have no token.
    let last = tokens.len() - 1;
    assert_eq!((tokens.get(last), types[last]), (Some(format!("[PAD{last}]").as_str()), 5));
    assert!(!qwen.require_bool("tokenizer.ggml.add_bos_token").unwrap());
    assert!(qwen.get("tokenizer.ggml.bos_token_id").is_none());

    let llama = entry("like Llama 2").metadata();
    assert_eq!(llama.require_str("tokenizer.ggml.model").unwrap(), "llama");
    assert!(llama.require_bool("tokenizer.ggml.add_space_prefix").unwrap());
    let types = llama.require_i32_array("tokenizer.ggml.token_type").unwrap();
    assert_eq!(types[..4], [2, 3, 3, 6]);
    assert_eq!(types.iter().filter(|&&kind| kind == 6).count(), 256);
    assert_eq!(entry("like Gemma 4").metadata().require_str("tokenizer.ggml.model").unwrap(), "gemma4");

    let bert = entry("like BERT").metadata();
    let tokens = bert.require_str_array("tokenizer.ggml.tokens").unwrap();
    assert!(tokens.iter().all(|token| !token.starts_with("##")));
    assert_eq!(bert.require_u32("tokenizer.ggml.seperator_token_id").unwrap(), 3);
    assert!(
        !entry("like BERT, cased").metadata().require_bool("tokenizer.ggml.normalizer.lowercase").unwrap()
    );
    assert!(entry("like T5").metadata().get("tokenizer.ggml.precompiled_charsmap").is_some());
}

#[test]
fn endings_and_templates_come_from_the_files_beside_it() {
    let entry = entry("like Qwen");
    let id = |text: &str| {
        let tokenizer = Tokenizer::from_gguf(&entry.metadata()).unwrap();
        tokenizer.encode(text, false, true).unwrap()[0]
    };
    let (end, text_end, other) = (id("<|im_end|>"), id("<|endoftext|>"), id("<think>"));
    let import_with = |generation: Value, config: Value, chat_template| {
        let files = TokenizerFiles {
            generation_config: Some(&generation),
            tokenizer_config: Some(&config),
            chat_template,
            ..entry.files()
        };
        let mut metadata = Metadata::new();
        import(&files, &mut metadata).map(|()| metadata)
    };
    let config = json!({"eos_token": "<|im_end|>", "chat_template": "A"});
    let metadata =
        import_with(json!({"eos_token_id": [end, text_end, other]}), config.clone(), None).unwrap();
    assert_eq!(metadata.require_u32("tokenizer.ggml.eos_token_id").unwrap(), end);
    assert_eq!(metadata.require_str("tokenizer.chat_template").unwrap(), "A");
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    assert!([end, text_end, other].iter().all(|id| tokenizer.end_of_generation().contains(id)));
    let error = import_with(json!({"eos_token_id": [end, 5, 6, 7]}), config, None).unwrap_err().to_string();
    assert!(error.contains("more tokens that end an answer"), "{error}");

    let config = json!({"chat_template": [
        {"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"},
    ]});
    let metadata = import_with(json!({"eos_token_id": end}), config.clone(), None).unwrap();
    assert_eq!(metadata.require_u32("tokenizer.ggml.eos_token_id").unwrap(), end);
    assert_eq!(metadata.require_str("tokenizer.chat_template").unwrap(), "D");
    assert_eq!(metadata.require_str("tokenizer.chat_template.tool_use").unwrap(), "T");
    let metadata = import_with(Value::Null, config, Some("J")).unwrap();
    assert_eq!(metadata.require_str("tokenizer.chat_template").unwrap(), "J");
}

#[test]
fn what_is_not_supported_is_refused_by_name_with_what_is() {
    let (qwen, llama, bert, t5) =
        (entry("like Qwen"), entry("like Mistral"), entry("like BERT"), entry("like T5"));
    let said = |text: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    };
    let first = "/pre_tokenizer/pretokenizers/0";
    said(qwen.refusal(first, json!({"type": "Whitespace"})), &["Whitespace", "qwen2, "]);
    let split = "/pre_tokenizer/pretokenizers/0/pattern/Regex";
    said(
        qwen.refusal(split, json!("\\w+")),
        &["pre_tokenizer is", "\\w+", "supported: those that GGUF", "smollm"],
    );
    said(qwen.refusal("/normalizer", json!({"type": "Lowercase"})), &["Lowercase", "supported: none, NFC"]);
    said(qwen.refusal("/model/type", json!("WordLevel")), &["`WordLevel`", "Unigram"]);
    said(qwen.refusal("/model/end_of_word_suffix", json!("</w>")), &["end_of_word_suffix"]);
    said(qwen.refusal("/added_tokens/0/single_word", json!(true)), &["single word", "<|endoftext|>"]);
    said(qwen.refusal("/post_processor", json!({"type": "Weird"})), &["Weird", "TemplateProcessing"]);
    said(qwen.refusal("/model/merges/0", json!(["q", "zzz"])), &["`zzz`, which is no token"]);
    said(llama.refusal("/model/byte_fallback", json!(false)), &["without byte fallback"]);
    said(llama.refusal("/model/merges", json!([])), &["it does not merge"]);
    said(llama.refusal("/model/ignore_merges", json!(true)), &["ignore_merges"]);
    said(llama.refusal("/pre_tokenizer/split", json!(true)), &["Metaspace", "does not split"]);
    said(bert.refusal("/normalizer/clean_text", json!(false)), &["BertNormalizer"]);
    said(bert.refusal("/model/max_input_chars_per_word", json!(50)), &["100 characters"]);
    said(bert.refusal("/post_processor", Value::Null), &["not enclosed"]);
    said(t5.refusal("/model/byte_fallback", json!(true)), &["Unigram with byte fallback"]);
    said(t5.refusal("/pre_tokenizer", Value::Null), &["Unigram"]);
    said(t5.refusal("/model/unk_id", Value::Null), &["unknown"]);

    let files = TokenizerFiles { vocab_size: 10, ..qwen.files() };
    let error = import(&files, &mut Metadata::new()).unwrap_err();
    assert!(matches!(error, FormatError::InvalidVocabulary(_)), "{error}");
    said(error.to_string(), &["but the model has 10 tokens"]);
    let files = TokenizerFiles { tokenizer_json: b"{", ..qwen.files() };
    said(import(&files, &mut Metadata::new()).unwrap_err().to_string(), &["tokenizer.json: "]);
}
