//! Tokenizers against ids made with Hugging Face's `tokenizers` (`tools/tokenizer_goldens.py`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use wushi_formats::gguf::{StringArray, Value};
use wushi_formats::{ChatTemplate, FormatError, Gguf, Metadata, Tokenizer};

#[derive(Deserialize)]
struct Case {
    text: String,
    /// Ids with control tokens recognised.
    special: Vec<u32>,
    /// Ids with control tokens taken as text.
    plain: Vec<u32>,
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A vocabulary of some thousand tokens of SmolLM2's.
fn trimmed() -> Metadata {
    Gguf::open(fixture("trimmed.gguf")).unwrap().metadata().clone()
}

fn goldens() -> BTreeMap<String, Vec<Case>> {
    serde_json::from_slice(&std::fs::read(fixture("trimmed_tokens.json")).unwrap()).unwrap()
}

fn with(key: &str, value: impl Into<Value>) -> Result<Tokenizer, FormatError> {
    let mut metadata = trimmed();
    metadata.set(key, value);
    Tokenizer::from_gguf(&metadata)
}

fn refusal(key: &str, value: impl Into<Value>) -> String {
    with(key, value).unwrap_err().to_string()
}

#[test]
fn ids_equal_the_reference_for_every_kind_of_text() {
    let goldens = goldens();
    assert!(goldens.len() >= 6);
    for (pre, cases) in goldens {
        let tokenizer = with("tokenizer.ggml.pre", pre.as_str()).unwrap();
        for case in cases {
            let special = tokenizer.encode(&case.text, false, true).unwrap();
            assert_eq!(special, case.special, "{pre}: {:?} with control tokens", case.text);
            let plain = tokenizer.encode(&case.text, false, false).unwrap();
            assert_eq!(plain, case.plain, "{pre}: {:?}", case.text);
        }
    }
}

#[test]
fn decoding_gives_the_text_back_and_prefixes_break_inside_characters() {
    let tokenizer = Tokenizer::from_gguf(&trimmed()).unwrap();
    let mut broken = 0;
    for case in goldens().remove("smollm").unwrap() {
        let bytes: Vec<u8> = case.plain.iter().flat_map(|&id| tokenizer.token_bytes(id)).copied().collect();
        assert_eq!(bytes, case.text.as_bytes(), "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.plain, true), case.text);
        // Whatever prefix a stream has reached: its bytes are a prefix of the text's, whole characters or not.
        let mut reached = Vec::new();
        for (count, &id) in case.plain.iter().enumerate() {
            reached.extend_from_slice(tokenizer.token_bytes(id));
            assert!(case.text.as_bytes().starts_with(&reached));
            if std::str::from_utf8(&reached).is_err() {
                broken += 1;
                assert!(tokenizer.decode(&case.plain[..=count], true).ends_with('\u{fffd}'));
            }
        }
    }
    assert!(broken > 100, "the texts should break inside characters, but only {broken} prefixes do");
}

#[test]
fn control_tokens_are_recognised_only_where_asked_for() {
    let tokenizer = Tokenizer::from_gguf(&trimmed()).unwrap();
    let (start, end) = (tokenizer.bos().unwrap(), tokenizer.eos().unwrap());
    assert!(tokenizer.is_control(start) && tokenizer.is_control(end));
    let ids = tokenizer.encode("<|im_start|>user<|im_end|>", false, true).unwrap();
    assert_eq!((ids[0], ids[ids.len() - 1]), (start, end));
    let ids = tokenizer.encode("<|im_start|>user<|im_end|>", false, false).unwrap();
    assert!(ids.iter().all(|&id| !tokenizer.is_control(id)));
    assert_eq!(tokenizer.decode(&[start, end], true), "");
    assert_eq!(tokenizer.decode(&[start, end], false), "<|im_start|><|im_end|>");
}

#[test]
fn user_defined_tokens_are_always_whole() {
    let metadata = trimmed();
    let mut tokens: StringArray = metadata.require_str_array("tokenizer.ggml.tokens").unwrap().clone();
    let mut types = metadata.require_i32_array("tokenizer.ggml.token_type").unwrap();
    for text in ["<think>", "<think> more"] {
        tokens.push(text);
        types.push(4);
    }
    let think = tokens.len() as u32 - 2;
    let mut metadata = trimmed();
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set("tokenizer.ggml.token_type", types);
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    assert_eq!(tokenizer.encode("<think>", false, false).unwrap(), [think]);
    assert_eq!(tokenizer.encode("<think> more", false, false).unwrap(), [think + 1], "the longest wins");
    assert!(!tokenizer.is_control(think));
    assert_eq!(tokenizer.decode(&[think], true), "<think>");
}

#[test]
fn bos_and_eos_are_added_where_the_file_says_so() {
    let tokenizer = Tokenizer::from_gguf(&trimmed()).unwrap();
    let (bos, eos) = (tokenizer.bos().unwrap(), tokenizer.eos().unwrap());
    let plain = tokenizer.encode("Hi", true, false).unwrap();
    assert_ne!(plain[0], bos);
    let with_bos = with("tokenizer.ggml.add_bos_token", true).unwrap();
    assert!(with_bos.adds_bos());
    assert_eq!(with_bos.encode("Hi", true, false).unwrap(), [&[bos], &plain[..]].concat());
    assert_eq!(with_bos.encode("Hi", false, false).unwrap(), plain);
    assert_eq!(with_bos.encode("", true, false).unwrap(), [bos]);
    let with_eos = with("tokenizer.ggml.add_eos_token", true).unwrap();
    assert_eq!(with_eos.encode("Hi", true, false).unwrap(), [&plain[..], &[eos]].concat());
}

#[test]
fn answers_end_at_declared_tokens_and_at_well_known_ones() {
    let tokenizer = Tokenizer::from_gguf(&trimmed()).unwrap();
    let endings: Vec<_> =
        tokenizer.end_of_generation().iter().map(|&id| tokenizer.decode(&[id], false)).collect();
    assert_eq!(endings, ["<|endoftext|>", "<|im_end|>", "<reponame>"]);
    let tokenizer = with("tokenizer.ggml.eot_token_id", 5u32).unwrap();
    assert!(tokenizer.end_of_generation().contains(&5) && tokenizer.is_control(5));
}

#[test]
fn ids_outside_the_vocabulary_stand_for_nothing() {
    let tokenizer = Tokenizer::from_gguf(&trimmed()).unwrap();
    let outside = tokenizer.vocab_size() as u32;
    assert_eq!(tokenizer.token_bytes(outside), b"");
    assert_eq!(tokenizer.decode(&[outside, u32::MAX], false), "");
    assert!(!tokenizer.is_control(u32::MAX));
}

#[test]
fn contradictory_vocabularies_are_refused_with_a_reason() {
    let merges = |list: &[&str]| list.iter().collect::<StringArray>();
    let key = "tokenizer.ggml.merges";
    assert!(refusal(key, merges(&["Ġ t", "Ġ xyzzyq"])).contains("xyzzyq"));
    assert!(refusal(key, merges(&["Ġ t", "nospace"])).contains("merge 1 is `nospace`"));
    assert!(refusal(key, merges(&["", "Ġ t"])).contains("merge 0"));
    let long = format!("{} {}", "a".repeat(5000), "b".repeat(5000));
    assert!(refusal(key, merges(&[&long])).contains("longer than any token"));

    let mut tokens = trimmed().require_str_array("tokenizer.ggml.tokens").unwrap().clone();
    let types = trimmed().require_i32_array("tokenizer.ggml.token_type").unwrap();
    assert!(refusal("tokenizer.ggml.token_type", types[1..].to_vec()).contains("token types for"));
    let mut unknown = types.clone();
    unknown[7] = 99;
    assert!(refusal("tokenizer.ggml.token_type", unknown).contains("token 7 has the unknown type 99"));
    tokens.push("the");
    let mut metadata = trimmed();
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set("tokenizer.ggml.token_type", [types, vec![1]].concat());
    let error = Tokenizer::from_gguf(&metadata).unwrap_err().to_string();
    assert!(error.contains("are both `the`"), "{error}");

    assert!(
        refusal("tokenizer.ggml.eos_token_id", 1_000_000u32)
            .contains("eos_token_id is 1000000, but there are")
    );
    assert!(
        refusal("tokenizer.ggml.model", "rwkv").contains("`rwkv`, which is not supported; supported: gpt2")
    );
    assert!(
        refusal("tokenizer.ggml.pre", "klingon")
            .contains("`klingon`, which is not supported; supported: gpt-2")
    );
    assert!(refusal("tokenizer.ggml.tokens", 3u8).contains("should be an array of strings"));
    assert!(Tokenizer::from_gguf(&Metadata::new()).unwrap_err().to_string().contains("tokenizer.ggml.model"));
}

#[test]
fn a_tokenizer_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let tokenizer = Tokenizer::from_gguf(&trimmed()).unwrap();
    shared(&tokenizer);
    shared(&ChatTemplate::from_gguf(&trimmed()).unwrap().unwrap());
}
