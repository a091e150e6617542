//! Queues and sizes that end, and requests that are none.

use serde_json::json;

use super::{CHAT, chat, endless, real_server, tiny_server};

#[test]
fn a_full_queue_refuses() {
    let (_server, client) = real_server(&["--sequences", "1", "--queue", "1"]);
    let mut first = client.stream(CHAT, &endless(json!({ "stream": true })));
    assert!(first.event().is_some());
    let mut second = client.stream(CHAT, &chat("hello", json!({ "stream": true, "max_tokens": 2 })));
    // Who waits is told.
    assert_eq!(second.line().as_deref(), Some(": queue 0"));
    let third = client.post(CHAT, &chat("hello", json!({ "max_tokens": 1 })));
    let error = third.error(429);
    assert_eq!((&error["type"], &error["code"]), (&json!("rate_limit_error"), &json!("queue_full")));
    assert!(third.header("retry-after").expect("a time").parse::<u64>().expect("seconds") >= 1);
    // So are several answers of which one has no place, and none of them stays behind.
    client.post(CHAT, &chat("hello", json!({ "max_tokens": 1, "n": 3 }))).error(429);
    client.wait_for("wushi_requests_waiting", 1.0);
    drop(first);
    let last = second.events().pop().expect("events");
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    client.post(CHAT, &chat("hello", json!({ "max_tokens": 1 }))).ok();
    assert!(client.get("/metrics").body.contains("wushi_refusals_total{status=\"429\"} 2"));
}

#[test]
fn bodies_end_somewhere() {
    let (_server, client) = tiny_server(&["--max-body", "4k"]);
    let long = chat(&"word ".repeat(2000), json!({}));
    let refused = client.post(CHAT, &long);
    assert!(refused.error(413)["message"].as_str().expect("text").contains("4000"));
    // What was not read is in the way of another request.
    assert_eq!(refused.header("connection"), Some("close"));
    // As well if it says nothing of its length.
    let chunks: String = (0..8).map(|_| format!("400\r\n{}\r\n", " ".repeat(1024))).collect();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let answer = client.raw(format!("{head}{chunks}0\r\n\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let kept = client.post(CHAT, &chat("hello", json!({ "max_tokens": 1 })));
    assert_eq!((kept.status, kept.header("connection")), (200, None), "{}", kept.body);
}

#[test]
fn bodies_that_are_none_are_refused() {
    let (_server, client) = tiny_server(&[]);
    let deep = format!("{{\"messages\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let mut invalid = chat("hello", json!({})).to_string().into_bytes();
    let place = invalid.windows(5).position(|window| window == b"hello").expect("the prompt");
    invalid[place] = 0xff;
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"[]",
        b"null",
        // The fields' values without their names.
        b"[\"tiny\", [[\"user\", \"hello\"]]]",
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}",
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]} and more",
        deep.as_bytes(),
        &invalid,
    ];
    for path in [CHAT, "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize"] {
        for body in bodies {
            let answer = client.post_bytes(path, body);
            assert_eq!(answer.error(400)["type"], "invalid_request_error", "{path}");
        }
    }
    client.post(CHAT, &chat("hello", json!({ "max_tokens": 1 }))).ok();
}

#[test]
fn requests_that_are_no_http_end_their_connection_alone() {
    let (_server, client) = tiny_server(&[]);
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = "y".repeat(300_000);
    for request in [
        "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\nconnection: close\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: banana\r\n\r\n".to_owned(),
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"),
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"),
    ] {
        let answer = client.raw(request.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{request:.80}: {answer}");
    }
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn contexts_end_somewhere() {
    let (_server, client) = tiny_server(&["--ctx", "64"]);
    let too_long = client.post(CHAT, &chat(&"hello ".repeat(200), json!({})));
    assert_eq!(too_long.error(400)["code"], "context_length_exceeded");
    // What is left of the context is the longest answer.
    let answer = client.post(CHAT, &chat("hi", json!({ "logit_bias": { "0": -100, "2": -100 } }))).ok();
    assert_eq!(answer["usage"]["total_tokens"], 64, "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}
