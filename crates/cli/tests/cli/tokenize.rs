//! `wushi tokenize`.

use crate::support::{Sandbox, expected, tiny};

#[test]
fn ids_are_the_references() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    for case in expected("llama-tiny-q4_1")["texts"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let tokens = sandbox.json(&["tokenize", &model, "--json", "--", text]);
        assert_eq!(tokens["ids"], case["ids"], "{text:?}");
        let pieces = tokens["pieces"].as_array().unwrap();
        assert_eq!(pieces.len(), case["ids"].as_array().unwrap().len());
        if text.is_ascii() {
            let whole: String = pieces.iter().map(|piece| piece.as_str().unwrap()).collect();
            assert_eq!(whole, text);
        }
    }
}

#[test]
fn special_tokens_can_be_plain_text() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let count = |flags: &[&str]| {
        let tokens = sandbox.json(&[&["tokenize", &model, "<|im_end|>", "--json"], flags].concat());
        tokens["ids"].as_array().unwrap().len()
    };
    assert_eq!(count(&[]), 1);
    assert!(count(&["--no-special"]) > 1);
}

#[test]
fn stdin_and_people_are_served_too() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let piped = sandbox.pipe(&["tokenize", &model, "--json"], "the end\n").json();
    assert_eq!(piped["ids"].as_array().unwrap().len(), 5);
    let table = sandbox.run(&["tokenize", &model, "the end"]).ok().stdout;
    assert!(table.starts_with("ID   PIECE\n") && table.contains("\"nd\""), "{table}");
    assert_eq!(sandbox.run(&["tokenize", &model, ""]).ok().stdout, "");
}
