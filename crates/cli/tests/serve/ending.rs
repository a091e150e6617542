//! Clients that leave, and servers that end.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::support::http::Client;
use super::{CHAT, chat, endless, real_server, tiny_server};

/// Waits until nothing is held any more: of so many answers, none has come to its end.
fn becomes_free(client: &Client, answers: usize) {
    client.wait_for("wushi_requests_running", 0.0);
    client.wait_for("wushi_requests_waiting", 0.0);
    client.wait_for("wushi_kv_pages_used", 0.0);
    client.wait_for("wushi_requests_total{model=\"smollm2\",outcome=\"cancelled\"}", answers as f64);
    assert_eq!(client.metric("wushi_requests_total"), answers as f64);
}

#[test]
fn who_leaves_frees_the_sequence() {
    let (_server, client) = real_server(&["--sequences", "2"]);
    let mut streams: Vec<_> =
        (0..3).map(|seed| client.stream(CHAT, &endless(json!({ "stream": true, "seed": seed })))).collect();
    for stream in &mut streams[..2] {
        for _ in 0..3 {
            assert!(stream.event().is_some());
        }
    }
    client.wait_for("wushi_requests_running", 2.0);
    client.wait_for("wushi_requests_waiting", 1.0);
    assert!(client.metric("wushi_kv_pages_used") > 0.0);
    // One that waits, then those that run.
    drop(streams.pop());
    client.wait_for("wushi_requests_waiting", 0.0);
    drop(streams.pop());
    client.wait_for("wushi_requests_running", 1.0);
    drop(streams);
    becomes_free(&client, 3);
    let ended = client.metric("wushi_steps_total");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(client.metric("wushi_steps_total"), ended);
}

#[test]
fn who_leaves_while_nothing_has_been_said_is_noticed() {
    let (_server, client) = real_server(&[]);
    let body = endless(json!({})).to_string();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    client.leave_after(&[head, body].concat(), || {
        client.wait_for("wushi_requests_running", 1.0);
    });
    becomes_free(&client, 1);
}

#[test]
fn sigterm_waits_for_answers_and_lets_nobody_in() {
    // Long enough that the first is under way when the second is, whatever else the machine does.
    let (mut server, client) = real_server(&["--drain", "600"]);
    let mut stream = client.stream(CHAT, &endless(json!({ "stream": true, "max_tokens": 400 })));
    assert!(stream.event().is_some());
    let whole = thread::spawn({
        let client = client.clone();
        move || client.post(CHAT, &endless(json!({ "max_tokens": 400 }))).ok()
    });
    client.wait_for("wushi_requests_running", 2.0);
    server.terminate();
    // It has heard when it does not let anybody in any more.
    let refused = loop {
        match client.try_post(CHAT, &chat("hello", json!({ "max_tokens": 1 }))) {
            Some(answer) if answer.status == 200 => {}
            refused => break refused,
        }
    };
    if let Some(answer) = refused {
        answer.error(503);
    }
    let last = stream.events().pop().expect("events");
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    let whole = whole.join().expect("an answer");
    assert_eq!(whole["usage"]["completion_tokens"], 400);
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn answers_that_take_too_long_are_ended_with_an_error() {
    let (mut server, client) = real_server(&["--drain", "0"]);
    let mut stream = client.stream(CHAT, &endless(json!({ "stream": true })));
    assert!(stream.event().is_some());
    let whole = thread::spawn({
        let client = client.clone();
        move || client.post(CHAT, &endless(json!({})))
    });
    client.wait_for("wushi_requests_running", 2.0);
    server.terminate();
    let last = stream.events().pop().expect("events");
    assert_eq!(last["error"]["type"], "server_error", "{last}");
    whole.join().expect("an answer").error(503);
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn an_idle_server_ends_at_once() {
    let (mut server, client) = tiny_server(&[]);
    client.post(CHAT, &chat("hello", json!({ "max_tokens": 2 }))).ok();
    // A connection that is kept open and asks nothing.
    let silent = client.connect();
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    drop(silent);
}
