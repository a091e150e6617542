//! The same bits, whatever computes them.

use crate::support::{Sandbox, tiny};

/// The digest of all logits an answer was sampled from.
fn digest(flags: &[&str]) -> String {
    let (model, text) = (tiny(), "The rain in Spain, on and on: it is there. ".repeat(12));
    let args = ["run", &model, &text, "-n", "20", "--json"];
    let answer = Sandbox::new().with("WUSHI_SEED", "11").json(&[&args[..], flags].concat());
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 300);
    answer["logits_digest"].as_str().unwrap().to_owned()
}

#[test]
fn threads_chunks_and_instruction_sets_do_not_show() {
    let reference = digest(&["--threads", "1", "--isa", "portable", "--prefill-chunk", "1"]);
    for threads in ["1", "2", "3"] {
        assert_eq!(digest(&["--threads", threads]), reference, "{threads} threads");
    }
    for chunk in ["7", "64", "1000"] {
        assert_eq!(digest(&["--prefill-chunk", chunk]), reference, "chunks of {chunk}");
    }
    for set in wushi_cpu::InstructionSet::available() {
        assert_eq!(digest(&["--isa", set.name()]), reference, "{set}");
    }
}

#[test]
fn guessed_tokens_do_not_show() {
    // Greedily, so small a model soon repeats itself, and guesses are right.
    for temperature in ["0", "0.7"] {
        let with = |speculate| digest(&["--temperature", temperature, "--speculate", speculate]);
        assert_eq!(with("true"), with("false"), "at {temperature}");
    }
}

#[test]
fn the_seed_and_the_cache_type_do_show() {
    let reference = digest(&[]);
    assert_ne!(digest(&["--seed", "12"]), reference);
    assert_ne!(digest(&["--cache", "f32"]), reference);
}

#[test]
fn the_fingerprint_is_of_what_determines_logits() {
    let fingerprint = |model: &str, flags: &[&str]| {
        let path = crate::support::fixture(&format!("models/{model}.gguf"));
        let args = ["run", &path, "hi", "-n", "1", "--json"];
        Sandbox::new().json(&[&args[..], flags].concat())["fingerprint"].as_str().unwrap().to_owned()
    };
    let reference = fingerprint("llama-tiny-q4_1", &[]);
    assert_eq!(
        fingerprint("llama-tiny-q4_1", &["--threads", "1", "--isa", "portable", "--ctx", "99"]),
        reference
    );
    assert_ne!(fingerprint("llama-tiny-q4_1", &["--cache", "f32"]), reference);
    assert_ne!(fingerprint("llama-tiny-q4_0", &[]), reference);
}
