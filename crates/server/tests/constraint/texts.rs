//! Regular expressions, grammars, thoughts in front of an answer, and the end of an answer.

use fancy_regex::Regex;
use serde_json::json;
use wushi_server::constraint::Grammar;
use wushi_server::tools::ThinkFormat;

use crate::walk::{Model, VOCABULARIES};

fn think() -> ThinkFormat {
    ThinkFormat { begin: "<think>".to_owned(), end: "</think>".to_owned() }
}

#[test]
fn random_answers_match_their_regular_expression() {
    for name in VOCABULARIES {
        let model = Model::new(name);
        for pattern in [
            r"[a-z]{2,5}-\d+",
            r"(yes|no|maybe)( not)?",
            r"\w+@\w+\.(com|org)",
            "[^x]{3}",
            "(?i)hello",
            "🔵{1,3}é?",
        ] {
            let whole = Regex::new(&format!(r"\A(?:{pattern})\z")).unwrap();
            for seed in 0..6 {
                let text = model.walk(&Grammar::Regex(pattern.to_owned()), seed);
                assert!(whole.is_match(&text).unwrap(), "{name}: {pattern}: {text:?}");
            }
        }
    }
}

#[test]
fn expressions_may_be_anchored() {
    let model = Model::smollm2();
    let anchored = Grammar::Regex("^[ab]{2}$".to_owned());
    assert!(
        model.accepts(&anchored, "ab")
            && !model.accepts(&anchored, "abc")
            && !model.accepts(&anchored, "xab")
    );
}

#[test]
fn a_grammar_of_ones_own() {
    let model = Model::smollm2();
    let sums = Grammar::Lark("start: NUMBER (\" + \" NUMBER)*\nNUMBER: /[1-9][0-9]*/".to_owned());
    assert!(
        model.accepts(&sums, "1 + 20 + 3") && !model.accepts(&sums, "1 +") && !model.accepts(&sums, "1 + 02")
    );
}

#[test]
fn thoughts_are_free_and_the_answer_is_not() {
    let model = Model::smollm2();
    let answer = || {
        Grammar::JsonSchema(
            json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}),
        )
    };
    let closed = answer().after_thinking(Some(&think()), false);
    assert!(model.accepts(&closed, r#"{"a": 1}"#));
    assert!(model.accepts(&closed, "<think>\nIs it {1}?\n</think>\n\n{\"a\": 1}"));
    assert!(!model.accepts(&closed, "<think>\nIs it {1}?"));
    assert!(!model.accepts(&closed, "Hm {\"a\": 1}"));
    let open = answer().after_thinking(Some(&think()), true);
    assert!(model.accepts(&open, "It is 1.</think>\n{\"a\": 1}") && !model.accepts(&open, r#"{"a": 1}"#));
    assert_eq!(answer().after_thinking(None, true), answer());
}

#[test]
fn every_token_that_ends_an_answer_ends_this_one() {
    for name in VOCABULARIES {
        let model = Model::new(name);
        let ends = model.tokenizer.end_of_generation();
        let mut constraint = model.compiler.compile(&Grammar::Regex("(ab)+".to_owned())).unwrap();
        let first = model.allowed(constraint.as_mut());
        assert!(ends.iter().all(|end| !first.contains(end)), "nothing has been said");
        model.say(constraint.as_mut(), "abab");
        let then = model.allowed(constraint.as_mut());
        assert!(ends.iter().all(|end| then.contains(end)), "{name}");
        constraint.accept(ends[ends.len() - 1]).unwrap();
        // Nothing but an end comes after it.
        assert_eq!(model.allowed(constraint.as_mut()), ends);
    }
}

#[test]
fn compilers_are_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<wushi_server::constraint::Compiler>();
}
