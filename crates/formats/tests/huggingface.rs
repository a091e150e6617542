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
    assert_eq!(entries.len(), 11);
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
