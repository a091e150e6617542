//! `wushi perplexity`.

use crate::support::{Sandbox, expected, fixture};

/// Largest relative deviation from the reference in double precision, with exact keys and values: single precision for
/// unquantised weights, activations rounded to eight bits for the others.
const MODELS: [(&str, f64); 4] = [
    ("llama-tiny-f32", 1e-5),
    ("llama3-tiny-f16", 1e-5),
    ("llama-tiny-q8_0", 2e-3),
    ("llama-tiny-q4_1", 2e-3),
];

#[test]
fn values_are_the_references() {
    for (model, bound) in MODELS {
        let reference = &expected(model)["perplexity"];
        let (path, file) =
            (fixture(&format!("models/{model}.gguf")), fixture(reference["file"].as_str().unwrap()));
        let ctx = reference["ctx"].to_string();
        let args = ["perplexity", &path, &file, "--ctx", &ctx, "--cache", "f32", "--json"];
        let measured = Sandbox::new().json(&args);
        assert_eq!(measured["tokens"], reference["scored"], "{model}");
        let (found, wanted) =
            (measured["perplexity"].as_f64().unwrap(), reference["perplexity"].as_f64().unwrap());
        assert!((found / wanted - 1.0).abs() < bound, "{model}: {found} instead of {wanted}");
    }
}

#[test]
fn windows_and_threads() {
    let (model, file) = (fixture("models/llama-tiny-q4_1.gguf"), fixture("text/english.txt"));
    let measure = |flags: &[&str]| {
        let args = ["perplexity", &model, &file, "--json", "--ctx", "101"];
        Sandbox::new().json(&[&args[..], flags].concat())
    };
    let one = measure(&["--threads", "1", "--isa", "portable"]);
    let (windows, ctx) = (one["windows"].as_u64().unwrap(), one["ctx"].as_u64().unwrap());
    // Of 101 tokens, number 50 is the first whose logits count, and number 100 the last that is predicted.
    assert_eq!((ctx, one["tokens"].as_u64()), (101, Some(windows * 50)));
    assert_eq!(measure(&["--threads", "2", "--prefill-chunk", "13"])["perplexity"], one["perplexity"]);
}

#[test]
fn texts_that_cannot_be_measured() {
    let (sandbox, model) = (Sandbox::new(), fixture("models/llama-tiny-q4_1.gguf"));
    let short = sandbox.write("short.txt", "Too short.").display().to_string();
    let error = sandbox.run(&["perplexity", &model, &short, "-q"]).error(1);
    assert!(error.contains("a window takes 512"), "{error}");
    let binary = sandbox.write("binary.txt", b"ab\xffcd").display().to_string();
    let error = sandbox.run(&["perplexity", &model, &binary, "-q"]).error(1);
    assert!(error.contains("UTF-8") && error.contains("byte 2"), "{error}");
    let error = sandbox.run(&["perplexity", &model, "none.txt", "-q"]).error(1);
    assert!(error.contains("none.txt"), "{error}");
    let error = sandbox.run(&["perplexity", &model, &short, "--ctx", "4000", "-q"]).error(1);
    assert!(error.contains("4000") && error.contains("2048"), "{error}");
}
