//! What is wrong is said in a few lines, with the numbers.

use crate::support::{Sandbox, fixture, tiny};

#[test]
fn empty_prompts() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    for args in
        [&["run", &model, ""][..], &["run", &model, " \n"], &["run", &model], &["run", &model, "", "--raw"]]
    {
        assert!(sandbox.run(args).error(1).contains("nothing to answer: the prompt is empty"), "{args:?}");
    }
}

#[test]
fn a_prompt_longer_than_the_context() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let text = "hello ".repeat(100);
    let error = sandbox.run(&["run", &model, &text, "--ctx", "100", "-q"]).error(1);
    assert!(error.contains("the context holds 100"), "{error}");
}

#[test]
fn a_context_longer_than_the_model_was_trained_for() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let error = sandbox.run(&["run", &model, "hello", "--ctx", "2049"]).error(1);
    assert!(error.contains("2049") && error.contains("2048"), "{error}");
}

#[test]
fn too_little_memory() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = ["run", &model, "hello", "-n", "1", "-q", "--memory"];
    let error = sandbox.run(&[&args[..], &["1k"]].concat()).error(1);
    assert!(error.contains("not enough memory") && error.contains("1.0 kB are allowed"), "{error}");
    let error = sandbox.run(&[&args[..], &["1M"]].concat()).error(1);
    let fits = error.split("a context of ").last().unwrap().split(' ').next().unwrap();
    assert!(error.contains("would fit") && fits.parse::<usize>().is_ok_and(|n| n > 0 && n < 2048), "{error}");
    // What is said to fit does, and what is said not to fit is not far from it.
    let with = |ctx: usize| sandbox.run(&[&args[..], &["1M", "--ctx", &ctx.to_string()]].concat());
    let fits: usize = fits.parse().unwrap();
    with(fits).ok();
    with(fits + 200).error(1);
}

#[test]
fn files_that_are_no_models() {
    let sandbox = Sandbox::new();
    let empty = sandbox.write("empty.gguf", "");
    let text = sandbox.write("text.gguf", "This is no model but a text.");
    std::fs::create_dir(sandbox.path("folder")).unwrap();
    let error = |model: &str| sandbox.run(&["run", model, "hello"]).error(1);
    assert!(error("folder").contains("no config.json"));
    assert!(error(&empty.display().to_string()).contains("empty"));
    assert!(error(&text.display().to_string()).contains("not a GGUF file"));
    assert!(error("./none.gguf").contains("none.gguf"));
    assert!(error("smollm3").contains("smollm2"), "the names that exist are listed");
    assert!(error("hf:org/repo").contains("which of its files"));
    assert!(error("What is this?").contains("wushi run smollm2 \"What is this?\""));
}

#[test]
fn an_unsupported_architecture_is_named_with_the_supported_ones() {
    let sandbox = Sandbox::new();
    let mut bytes = std::fs::read(tiny()).unwrap();
    let key = b"general.architecture";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 12;
    assert_eq!(&bytes[at..at + 5], b"llama");
    bytes[at..at + 5].copy_from_slice(b"lemma");
    let path = sandbox.write("lemma.gguf", bytes).display().to_string();
    let error = sandbox.run(&["run", &path, "hello"]).error(1);
    assert!(error.contains("lemma") && error.contains("llama"), "{error}");
    // It can still be looked at, and says why it does not run.
    let report = sandbox.json(&["inspect", &path, "--json"]);
    assert_eq!(
        (report["architecture"].as_str(), report["supported"].as_bool()),
        (Some("lemma"), Some(false))
    );
    assert!(report["unsupported_because"].as_str().unwrap().contains("lemma"));
    assert!(sandbox.run(&["inspect", &path, "--schedule", "-q"]).stderr.contains("lemma"));
}

#[test]
fn an_unsupported_type_is_named_with_the_supported_ones() {
    let sandbox = Sandbox::new();
    let mut bytes = std::fs::read(tiny()).unwrap();
    let name = b"blk.0.attn_q.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    // Then follow the number of dimensions, two dimensions and the type; Q4_1 is 3.
    let at = at + 4 + 2 * 8;
    assert_eq!(&bytes[at..at + 4], &3u32.to_le_bytes());
    bytes[at..at + 4].copy_from_slice(&500u32.to_le_bytes());
    let path = sandbox.write("type.gguf", bytes).display().to_string();
    let error = sandbox.run(&["run", &path, "hello"]).error(1);
    assert!(
        error.contains("blk.0.attn_q.weight") && error.contains("500") && error.contains("Q4_1"),
        "{error}"
    );
}

#[test]
fn tensors_that_are_missing_or_not_known_are_named() {
    let sandbox = Sandbox::new();
    let gguf = wushi_formats::Gguf::open(tiny()).unwrap();
    let name = "blk.1.ffn_up.weight";
    // The file without the tensor, or with another name for it.
    let error = |other: Option<&str>| {
        let mut writer = wushi_formats::gguf::Writer::new();
        for (key, value) in gguf.metadata().iter() {
            writer.set(key, value.clone());
        }
        for tensor in gguf.tensors() {
            let name = if tensor.name == name { other } else { Some(tensor.name.as_str()) };
            if let Some(name) = name {
                writer.tensor(name, tensor.ggml_type, &tensor.shape, gguf.tensor_bytes(tensor)).unwrap();
            }
        }
        let path = sandbox.write("changed.gguf", writer.to_bytes().unwrap()).display().to_string();
        sandbox.run(&["run", &path, "hello"]).error(1)
    };
    assert!(error(None).contains(name), "{}", error(None));
    let strange = Some("blk.1.ffn_upper.weight");
    assert!(error(strange).contains("`blk.1.ffn_upper.weight`"), "{}", error(strange));
}

#[test]
fn bad_values_of_flags_are_usage_errors() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let flags = [
        ["--threads", "0"],
        ["--threads", "many"],
        ["--temperature", "-1"],
        ["--temperature", "nan"],
        ["--top-p", "0"],
        ["--top-k", "-1"],
        ["--seed", "-5"],
        ["--max-tokens", "0"],
        ["--cache", "q8"],
        ["--isa", "sse9"],
        ["--memory", "much"],
        ["--logit-bias", "5"],
        ["--presence-penalty", "3"],
    ];
    for [flag, value] in flags {
        let error = sandbox.run(&["run", &model, "hello", flag, value]).error(2);
        assert!(error.contains(flag) && error.contains(value), "{error}");
    }
    for rows in ["0", "513", "99999999999"] {
        let error = sandbox.run(&["inspect", &model, "--schedule", "--rows", rows]).error(2);
        assert!(error.contains("from 1 to 512"), "{error}");
    }
    let error = sandbox.run(&["run", &model, "hello", "--logit-bias", "999999=1", "-q"]).error(1);
    assert!(error.contains("999999") && error.contains("291"), "{error}");
}

#[test]
fn what_does_not_go_together() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let error = sandbox.run(&["run", &model, "hi", "--raw", "--system", "Be kind.", "-q"]).error(1);
    assert!(error.contains("chat template"), "{error}");
    assert!(sandbox.run(&["inspect", &model, "--rows", "4"]).error(2).contains("--schedule"));
    assert!(sandbox.run(&["run", &model, "hi", "--stop", "", "-q"]).error(1).contains("stop string"));
    let file = fixture("text/english.txt");
    assert!(sandbox.run(&["perplexity", &model, &file, "--ctx", "2"]).error(1).contains("too short"));
}
