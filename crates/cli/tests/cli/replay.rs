//! `wushi serve`, then `wushi replay`: every bit again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Child;

use serde_json::{Value, json};
use wushi_server::store::{Digest, Ending, Status, Store};

use crate::support::{Outcome, Sandbox, fixture, tiny};

/// A server that ends with the test.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(sandbox: &Sandbox, args: &[&str]) -> Served {
        let model = format!("tiny={}", tiny());
        let mut child =
            sandbox.command(&[&["serve", &model, "--port", "0", "-q"][..], args].concat()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_start_matches("http://").to_owned();
        assert!(!address.is_empty(), "{}", Outcome::of(child).stderr);
        Served { child, address }
    }

    /// The text of a response that must succeed.
    fn post(&self, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        response
    }

    /// The id of a response.
    fn id(&self, path: &str, body: &Value) -> String {
        let response = self.post(path, body);
        response.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chat() -> Value {
    json!({
        "model": "tiny",
        "messages": [{ "role": "user", "content": "What is a river?" }],
        "temperature": 0.8,
        "top_p": 0.95,
        "logit_bias": { "7": -100, "9": 1.5 },
        "stop": ["zzz"],
        "max_tokens": 12,
        "n": 2,
    })
}

/// Everything agrees, to the last bit.
fn all_agrees(sandbox: &Sandbox, args: &[&str]) -> Value {
    let verdict = sandbox.json(&[&["replay", "--json"][..], args].concat());
    assert_eq!((&verdict["equal"], &verdict["every_bit"]), (&true.into(), &true.into()), "{verdict}");
    let checks = verdict["checks"].as_array().unwrap();
    assert!(checks.len() >= 3 && checks.iter().all(|check| check["equal"] == true));
    verdict
}

/// Something differs; gives what.
fn differs(sandbox: &Sandbox, args: &[&str]) -> Vec<String> {
    let outcome = sandbox.run(&[&["replay", "--json"][..], args].concat());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let verdict: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.stderr));
    let checks = verdict["checks"].as_array().unwrap().iter().filter(|check| check["equal"] == false);
    checks.map(|check| check["what"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_chat_from_its_ids_and_from_its_request() {
    let sandbox = Sandbox::new();
    let served = Served::start(&sandbox, &["--audit", "--audit-text"]);
    let id = served.id("/v1/chat/completions", &chat());
    // Beside the running server, on another number of threads and another instruction set.
    let verdict = all_agrees(&sandbox, &[&id]);
    let checks = verdict["checks"].as_array().unwrap();
    for what in ["fingerprint", "prompt", "answer 0: token ids", "answer 1: end", "answer 1: logits"] {
        assert!(checks.iter().any(|check| check["what"] == what), "{what}: {verdict}");
    }
    all_agrees(&sandbox, &[&id, "--threads", "3", "--isa", "portable", "--prefill-chunk", "1"]);
    drop(served);

    let request = sandbox.write("request.json", chat().to_string());
    let request = request.to_str().unwrap();
    let verdict = all_agrees(&sandbox, &[&id, "--request", request]);
    assert!(verdict["checks"].as_array().unwrap().iter().any(|check| check["what"] == "parameters"));

    // Another request is no replay.
    for (name, value, what) in [
        ("temperature", json!(0.9), &["temperature"][..]),
        ("seed", json!(1), &["seed"]),
        ("stop", json!(["yyy"]), &["stop_strings"]),
        ("messages", json!([{ "role": "user", "content": "What is a lake?" }]), &["prompt"]),
        ("response_format", json!({ "type": "json_object" }), &["constraint"]),
    ] {
        let mut other = chat();
        other[name] = value;
        sandbox.write("request.json", other.to_string());
        assert_eq!(differs(&sandbox, &[&id, "--request", request]), what);
    }
    sandbox.write("request.json", "{\"messages\": 7}");
    assert!(sandbox.run(&["replay", &id, "--request", request, "-q"]).error(1).contains("messages"));

    let told = sandbox.run(&["replay", &id, "-q"]).ok().stdout;
    assert!(told.contains("fingerprint") && told.contains(&format!("{id}: every bit agrees")), "{told}");
}

#[test]
fn requests_of_every_kind() {
    let sandbox = Sandbox::new();
    let served = Served::start(&sandbox, &["--audit", "--audit-text"]);
    let several = json!({ "prompt": ["Once upon", "The end"], "n": 2, "max_tokens": 6, "temperature": 1, "seed": 5, "stream": true });
    let shaped = json!({ "prompt": "Say:", "max_tokens": 40, "response_format": { "type": "regex", "pattern": "[ab]{3}c" } });
    let vectors = json!({ "input": ["a river", "a lake"] });
    let response = json!({ "input": "What is a river?", "max_output_tokens": 9, "stream": true });
    let message = json!({
        "messages": [{ "role": "user", "content": "What is a river?" }], "max_tokens": 9, "temperature": 1,
    });
    for (path, body) in [
        ("/v1/messages", message),
        ("/v1/completions", several),
        ("/v1/completions", shaped),
        ("/v1/embeddings", vectors),
        ("/v1/responses", response),
    ] {
        let id = served.id(path, &body);
        all_agrees(&sandbox, &[&id]);
        let request = sandbox.write("request.json", body.to_string());
        all_agrees(&sandbox, &[&id, "--request", request.to_str().unwrap()]);
    }
}

#[test]
fn what_was_not_recorded_is_said() {
    let sandbox = Sandbox::new();
    let served = Served::start(&sandbox, &[]);
    let id = served.id("/v1/chat/completions", &chat());
    let error = sandbox.run(&["replay", &id, "-q"]).error(1);
    assert!(error.contains("--audit-text") && error.contains("--request"), "{error}");
    let request = sandbox.write("request.json", chat().to_string());
    let told = sandbox.run(&["replay", &id, "--request", request.to_str().unwrap()]).ok();
    assert!(
        told.stdout.contains("not every bit was recorded") && told.stdout.contains("--audit"),
        "{}",
        told.stdout
    );
    assert!(sandbox.run(&["replay", "chatcmpl-0"]).error(1).contains("no record `chatcmpl-0`"));
    let error = sandbox.run(&["replay", &id, "--quant", "q4_k"]).error(1);
    assert!(error.contains("--quant"), "{error}");
    assert!(Sandbox::new().run(&["replay", &id]).error(1).contains("there is no database"));
}

#[test]
fn a_single_bit_is_seen() {
    let sandbox = Sandbox::new();
    let served = Served::start(&sandbox, &["--audit", "--audit-text"]);
    let mut request = chat();
    request["n"] = 1.into();
    request["max_tokens"] = 5.into();
    request["seed"] = 1.into();
    // Without the tokens that end an answer of this model.
    request["logit_bias"] = json!({ "0": -100, "2": -100 });
    let id = served.id("/v1/chat/completions", &request);
    drop(served);
    let store = Store::open(sandbox.path("home").join("server.sqlite")).unwrap();
    let original = store.get(&id).unwrap();
    assert_eq!(original.choices[0].completion_tokens, 5);

    let mut other = original.clone();
    other.id = "other-logits".to_owned();
    other.choices[0].digest.as_mut().unwrap().0[31] ^= 1;
    store.record_and_wait(other).unwrap();
    assert_eq!(differs(&sandbox, &["other-logits"]), ["answer: logits"]);

    let mut other = original.clone();
    other.id = "other-seed".to_owned();
    other.parameters.seed ^= 1;
    store.record_and_wait(other).unwrap();
    assert!(differs(&sandbox, &["other-seed"]).contains(&"answer: token ids".to_owned()));

    let mut other = original.clone();
    other.id = "other-model".to_owned();
    other.fingerprint = Digest::of_text("another");
    other.loading.arithmetic = 0;
    store.record_and_wait(other).unwrap();
    assert_eq!(differs(&sandbox, &["other-model"]), ["fingerprint"]);
    let told = sandbox.run(&["replay", "other-model", "-q"]).stdout;
    assert!(told.contains("arithmetic was 0, is 2") && told.contains("1 of 6 differ"), "{told}");
    let moved = fixture("models/llama-tiny-q8_0.gguf");
    assert!(differs(&sandbox, &[&id, "--model", &moved]).contains(&"fingerprint".to_owned()));

    // A client that went away after five tokens.
    let mut cut = original.clone();
    cut.id = "cut-off".to_owned();
    cut.parameters.max_tokens = None;
    cut.choices[0].ending = Some(Ending::Cancelled);
    cut.status = Status::Cancelled;
    store.record_and_wait(cut).unwrap();
    all_agrees(&sandbox, &["cut-off"]);

    let mut gone = original;
    gone.id = "gone".to_owned();
    gone.loading.reference = sandbox.path("gone.gguf").display().to_string();
    store.record_and_wait(gone).unwrap();
    let error = sandbox.run(&["replay", "gone", "-q"]).error(1);
    assert!(error.contains("gone.gguf") && error.contains("--model"), "{error}");
    all_agrees(&sandbox, &["gone", "--model", &tiny()]);
}
