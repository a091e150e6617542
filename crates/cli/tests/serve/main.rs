//! The real binary as a server, over HTTP: the same bits whatever happens around a request, and an end to everything.

mod ending;
mod keys;
mod large;
mod limits;
mod pool;
mod rough;
mod same_bits;
mod surface;
mod video_jobs;
mod video_kept;
mod video_storm;
mod videos;

#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};

use support::http::Client;
use support::server::Server;
use support::{smollm2, tiny};

/// Quick to load and to run.
fn tiny_model() -> String {
    format!("tiny={}", tiny("llama-tiny-q4_1.gguf"))
}

/// A model that takes its time.
fn real_model() -> String {
    format!("smollm2={}", smollm2().display())
}

/// A server of the tiny model, ready.
fn tiny_server(args: &[&str]) -> (Server, Client) {
    let model = tiny_model();
    ready(Server::start(&[&[model.as_str()], args].concat()))
}

/// A server of the real model, ready.
fn real_server(args: &[&str]) -> (Server, Client) {
    let model = real_model();
    ready(Server::start(&[&[model.as_str(), "--threads", "2"], args].concat()))
}

fn ready(server: Server) -> (Server, Client) {
    let client = Client::new(&server.address);
    client.wait_until_ready();
    (server, client)
}

/// A conversation of one message.
fn chat(prompt: &str, settings: Value) -> Value {
    let mut request = json!({ "messages": [{ "role": "user", "content": prompt }], "temperature": 0 });
    let (request_map, settings) = (request.as_object_mut().expect("an object"), settings);
    request_map.extend(settings.as_object().expect("an object").clone());
    request
}

/// An answer of the real model that takes longer than any test: it may not say that it is done.
fn endless(settings: Value) -> Value {
    let mut request = chat("Count from one to a thousand.", settings);
    request["logit_bias"] = json!({ "2": -100 });
    request
}

const CHAT: &str = "/v1/chat/completions";
