//! Several models, loaded when they are asked for, unloaded when memory runs out.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::http::Client;
use super::support::server::{PATIENCE, Server};
use super::support::tiny;
use super::{CHAT, chat, ready, real_model, tiny_model};

fn state(client: &Client, model: &str) -> Value {
    client.get(&format!("/v1/models/{model}")).ok()["state"].clone()
}

fn digest(client: &Client, model: &str) -> Value {
    let settings = json!({ "model": model, "max_tokens": 8, "logits_digest": true });
    client.post(CHAT, &chat("hello", settings)).ok()["wushi"]["logits_digests"].clone()
}

#[test]
fn a_model_is_loaded_while_its_first_request_waits() {
    let (tiny, real) = (tiny_model(), real_model());
    let (_server, client) = ready(Server::start(&[&tiny, &real]));
    assert_eq!((state(&client, "tiny"), state(&client, "smollm2")), (json!("ready"), json!("unloaded")));
    let request = json!({ "model": "smollm2", "max_tokens": 2, "stream": true });
    let mut stream = client.stream(CHAT, &chat("hello", request.clone()));
    // Told as comments, so that clients need not know.
    let first = stream.line().expect("a line");
    assert!(first.starts_with(": loading "), "{first}");
    assert!(stream.events().last().expect("events")["choices"][0]["finish_reason"].is_string());
    assert_eq!(state(&client, "smollm2"), "ready");
    let mut stream = client.stream(CHAT, &chat("hello", request));
    assert!(!stream.line().expect("a line").starts_with(": loading"));
}

#[test]
fn the_longest_unused_makes_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["first", "second", "third"];
    let models = names.map(|name| {
        let path = folder.path().join(format!("{name}.gguf"));
        fs::copy(tiny("llama-tiny-q4_1.gguf"), &path).expect("copied");
        format!("{name}={}", path.display())
    });
    let [first, second, third] = models.each_ref().map(String::as_str);
    // With less memory there would be room for fewer contexts, so that more models find a place; a single model would
    // have larger steps.
    let one_context = ["--ctx", "1024", "--kv-tokens", "1024"];
    let needed = {
        let (_server, client) = ready(Server::start(&[&[first, second], &one_context[..]].concat()));
        client.get("/status").ok()["memory"]["used"].as_u64().expect("bytes")
    };
    // Room for two of them.
    let memory = (needed * 5 / 2).to_string();
    let arguments = [first, second, third, "--memory", &memory];
    let (_server, client) = ready(Server::start(&[&arguments, &one_context[..]].concat()));
    let before = digest(&client, "first");
    assert_eq!(digest(&client, "second"), before);
    assert_eq!(
        names.map(|name| state(&client, name)),
        ["ready", "ready", "unloaded"].map(|state| json!(state))
    );
    digest(&client, "first");
    digest(&client, "third");
    assert_eq!(
        names.map(|name| state(&client, name)),
        ["ready", "unloaded", "ready"].map(|state| json!(state))
    );
    assert!(client.get("/status").ok()["memory"]["used"].as_u64().expect("bytes") <= needed * 5 / 2);

    // Everyone is served, whatever has to go and come for it.
    thread::scope(|scope| {
        let asks: Vec<_> = (0..12)
            .map(|number| {
                let client = &client;
                scope.spawn(move || digest(client, names[number % 3]))
            })
            .collect();
        for ask in asks {
            assert_eq!(ask.join().expect("an answer"), before);
        }
    });
}

#[test]
fn what_cannot_be_loaded_is_an_error_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broken.gguf");
    let bytes = fs::read(tiny("llama-tiny-q4_1.gguf")).expect("a fixture");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    let (tiny, broken) = (tiny_model(), format!("broken={}", path.display()));
    let (_server, client) = ready(Server::start(&[&tiny, &broken]));
    let refused = client.post(CHAT, &chat("hello", json!({ "model": "broken" })));
    assert_eq!(refused.error(503)["code"], "model_not_loaded");
    // What is wrong with a file stays wrong: clients need not try again.
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let shown = client.get("/v1/models/broken").ok();
    assert_eq!(shown["state"], "failed");
    assert!(shown["failure"].is_string());
    let mut stream = chat("hello", json!({ "model": "broken", "stream": true }));
    let last = client.stream(CHAT, &stream).events().pop().expect("an event");
    assert_eq!(last["error"]["code"], "model_not_loaded");
    stream["model"] = "tiny".into();
    assert!(client.stream(CHAT, &stream).events().len() > 1);
    // Once it is whole it is served, though nobody tries again at once.
    fs::write(&path, &bytes).expect("written");
    let request = chat("hello", json!({ "model": "broken", "max_tokens": 1 }));
    let begin = Instant::now();
    while client.post(CHAT, &request).status != 200 {
        assert!(begin.elapsed() < PATIENCE, "never tried again");
        thread::sleep(Duration::from_millis(200));
    }
}
