//! Prompts against what Python's ftfy and html make of them (`tools/prompt_goldens.py`).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use wushi_formats::pipeline::prompt::clean;

#[derive(Deserialize)]
struct Case {
    text: String,
    clean: String,
}

#[test]
fn prompts_are_cleaned_as_the_references_clean_them() {
    // Another file of them, made with a larger count, can be named to be checked as well.
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prompts.json");
    for path in [Some(committed), std::env::var_os("WUSHI_PROMPTS").map(PathBuf::from)].into_iter().flatten()
    {
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(cases.len() > 300);
        let mut differences = Vec::new();
        for Case { text, clean: expected } in &cases {
            let found = clean(text).unwrap();
            if found != *expected {
                differences.push(format!("{text:?}\n  {found:?}, but should be\n  {expected:?}"));
            }
        }
        assert!(
            differences.is_empty(),
            "{} of {} differ\n{}",
            differences.len(),
            cases.len(),
            differences[..differences.len().min(30)].join("\n")
        );
    }
}

#[test]
fn prompts_of_no_sense_are_refused_or_cleaned_in_time() {
    assert!(clean(&"a".repeat(70_000)).unwrap_err().to_string().contains("70000 bytes"));
    for unit in ["&amp;", "Ã\u{a0}", "Ã ", "â€", "&", "\u{1b}[", "Æ\u{bf}", "ﬃ", "ð\u{9f}\u{98}", "\r"]
    {
        let text = unit.repeat(60_000 / unit.len());
        clean(&text).unwrap();
    }
    let nested = "&".to_owned() + &"amp;".repeat(2_000);
    assert_eq!(clean(&nested).unwrap(), "&");
}
