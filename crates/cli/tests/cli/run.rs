//! `wushi run` with a prompt.

use crate::support::{Sandbox, expected, fixture, tiny};

#[test]
fn json_has_every_field() {
    let model = tiny();
    let args = ["run", &model, "hello there", "--max-tokens", "7", "--seed", "5", "--json"];
    let answer = Sandbox::new().json(&args);
    assert_eq!(answer["model"], model.as_str());
    assert_eq!(answer["seed"], 5);
    assert_eq!(answer["usage"]["completion_tokens"], answer["token_ids"].as_array().unwrap().len());
    assert_eq!(answer["usage"]["cached_tokens"], 0);
    assert!(answer["text"].is_string());
    assert!(["stop", "length"].contains(&answer["finish_reason"].as_str().unwrap()));
    for timing in ["load_s", "ttft_s", "prefill_tokens_per_s"] {
        assert!(answer["timings"][timing].as_f64().unwrap() > 0.0, "{timing}");
    }
    for digest in ["logits_digest", "fingerprint"] {
        let digest = answer[digest].as_str().unwrap();
        assert!(digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()), "{digest}");
    }
}

#[test]
fn the_chat_template_makes_the_prompt() {
    let chat = &expected("llama-tiny-q4_1")["chat"];
    let text = chat["messages"][0]["content"].as_str().unwrap();
    let usage = |args: &[&str]| {
        let mut all = vec!["run", "--json", "-n", "1"];
        all.extend(args);
        Sandbox::new().json(&all)["usage"]["prompt_tokens"].as_u64().unwrap() as usize
    };
    let model = tiny();
    assert_eq!(usage(&[&model, text]), chat["ids"].as_array().unwrap().len());
    let raw = usage(&[&model, text, "--raw"]);
    assert!(raw < text.len() + 2);
    assert!(usage(&[&model, text, "--system", "Answer in rhymes, please, and at great length."]) > raw);
}

#[test]
fn the_answer_goes_to_stdout_and_the_rest_to_stderr() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = ["run", &model, "hello", "-n", "6", "--seed", "3"];
    let text = sandbox.json(&[&args[..], &["--json"]].concat())["text"].as_str().unwrap().to_owned();
    let spoken = sandbox.run(&args).ok();
    assert_eq!(spoken.stdout, format!("{}\n", text.trim_end_matches('\n')));
    assert!(spoken.stderr.contains("seed 3") && spoken.stderr.contains("tokens/s"), "{}", spoken.stderr);
    assert!(spoken.stderr.contains("memory: "), "the plan is printed: {}", spoken.stderr);
    let quiet = sandbox.run(&[&args[..], &["--quiet"]].concat()).ok();
    assert_eq!((quiet.stdout, quiet.stderr.as_str()), (spoken.stdout, ""));
}

#[test]
fn a_prompt_on_stdin_is_the_same_as_an_argument() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = ["run", &model, "--json", "-n", "4", "--temperature", "0"];
    let piped = sandbox.pipe(&args, "hello there\n").json();
    let given = sandbox.json(&["run", &model, "hello there", "--json", "-n", "4", "--temperature", "0"]);
    assert_eq!(piped["logits_digest"], given["logits_digest"]);
    assert_eq!(piped["token_ids"], given["token_ids"]);
}

#[test]
fn a_drawn_seed_is_reported_and_gives_the_answer_again() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let drawn = sandbox.json(&["run", &model, "hello", "-n", "12", "--json"]);
    let seed = drawn["seed"].as_u64().unwrap().to_string();
    let again = sandbox.json(&["run", &model, "hello", "-n", "12", "--json", "--seed", &seed]);
    for field in ["text", "token_ids", "logits_digest", "finish_reason"] {
        assert_eq!(drawn[field], again[field], "{field}");
    }
}

#[test]
fn sampling_flags_reach_the_sampler() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let ids = |flags: &[&str]| {
        let args = ["run", &model, "hello", "-n", "8", "--seed", "1", "--json"];
        let answer = sandbox.json(&[&args[..], flags].concat());
        answer["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect::<Vec<_>>()
    };
    let greedy = ids(&["--temperature", "0"]);
    assert_eq!(ids(&["--temperature", "5", "--top-k", "1"]), greedy);
    assert_eq!(ids(&["--temperature", "5", "--top-p", "0.000001"]), greedy);
    assert_eq!(ids(&["--temperature", "5", "--min-p", "1"]), greedy);
    assert_ne!(ids(&["--temperature", "5"]), greedy);
    let ban = format!("{}=-inf", greedy[0]);
    assert!(!ids(&["--temperature", "0", "--logit-bias", &ban]).contains(&greedy[0]));
    let want = "77=100";
    assert_eq!(ids(&["--temperature", "0", "--logit-bias", want]), [77; 8]);
    let varied = ids(&[
        "--temperature",
        "0",
        "--logit-bias",
        want,
        "--frequency-penalty",
        "2",
        "--presence-penalty",
        "2",
    ]);
    assert_eq!(varied, [77; 8], "a bias of 100 outweighs penalties of 16");
    assert_ne!(ids(&["--temperature", "0", "--repetition-penalty", "100"]), greedy);
}

#[test]
fn limits_and_stop_strings_end_the_answer() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    // Token 54 is the letter T: with this bias, the answer has nothing else.
    let letter = sandbox.json(&["tokenize", &model, "T", "--json"])["ids"][0].as_u64().unwrap();
    let bias = format!("{letter}=100");
    let args = ["run", &model, "hello", "--temperature", "0", "--logit-bias", &bias, "--json"];
    let long = sandbox.json(&[&args[..], &["-n", "5"]].concat());
    assert_eq!((long["text"].as_str(), long["finish_reason"].as_str()), (Some("TTTTT"), Some("length")));
    let stopped = sandbox.json(&[&args[..], &["-n", "50", "--stop", "xyz", "--stop", "TTT"]].concat());
    assert_eq!((stopped["text"].as_str(), stopped["finish_reason"].as_str()), (Some(""), Some("stop")));
    let context = sandbox.json(&[&args[..], &["--ctx", "64"]].concat());
    let tokens = |what: &str| context["usage"][what].as_u64().unwrap();
    assert_eq!(tokens("prompt_tokens") + tokens("completion_tokens"), 64);
    assert_eq!(context["finish_reason"], "length");
}

#[test]
fn other_models_answer_too() {
    for model in
        ["llama-tiny-f32", "llama-tiny-q4_0", "llama-tiny-q8_0", "llama3-tiny-f16", "llama3-tiny-bf16"]
    {
        let path = fixture(&format!("models/{model}.gguf"));
        let answer =
            Sandbox::new().json(&["run", &path, "hi", "--raw", "-n", "3", "--json", "--temperature", "0"]);
        assert_eq!(answer["token_ids"].as_array().unwrap().len(), 3, "{model}");
    }
}
