//! Requests for many things at once, and what streams say at their end.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::server::PATIENCE;
use super::{CHAT, chat, real_server, tiny_server};

#[test]
fn a_request_for_hundreds_leaves_room_for_others() {
    let (_server, client) = tiny_server(&["--sequences", "16", "--queue", "20"]);
    let texts: Vec<String> = (0..300).map(|number| format!("text {number}")).collect();
    let list = client.post("/v1/embeddings", &json!({ "input": texts })).ok();
    assert_eq!(list["data"].as_array().expect("a list").len(), 300);
    let alone = client.post("/v1/embeddings", &json!({ "input": texts[299] })).ok();
    assert_eq!(list["data"][299]["embedding"], alone["data"][0]["embedding"]);
    let prompts = json!({ "prompt": texts[..50], "n": 2, "max_tokens": 1, "seed": 3 });
    let completions = client.post("/v1/completions", &prompts).ok();
    assert_eq!(completions["choices"].as_array().expect("a list").len(), 100);
    let alone =
        client.post("/v1/completions", &json!({ "prompt": texts[49], "n": 2, "max_tokens": 1, "seed": 3 }));
    let alone = alone.ok();
    for choice in 0..2 {
        assert_eq!(completions["choices"][98 + choice]["text"], alone["choices"][choice]["text"]);
    }
    let too_many = json!({ "prompt": texts[..200], "n": 3, "max_tokens": 1 });
    assert_eq!(client.post("/v1/completions", &too_many).error(400)["param"], "n");
}

#[test]
fn streams_say_seed_and_digest_at_their_end() {
    let (_server, client) = tiny_server(&[]);
    let ask = |more: Value| {
        let mut request =
            chat("hello", json!({ "max_tokens": 4, "stream": true, "logits_digest": true, "n": 2 }));
        request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        client.stream(CHAT, &request).events()
    };
    let plain = ask(json!({}));
    let last = plain.last().expect("a chunk");
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    let whole = ask(json!({ "stream_options": { "include_usage": true } }));
    let usage = whole.last().expect("a chunk");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(last["wushi"]["logits_digests"], usage["wushi"]["logits_digests"]);
    assert_eq!(last["wushi"]["logits_digests"].as_array().expect("digests").len(), 2);
    assert!(last["wushi"]["seed"].is_i64());
    assert_eq!(plain.iter().filter(|chunk| chunk.get("wushi").is_some()).count(), 1);
}

#[test]
fn embeddings_that_are_given_up_are_counted() {
    let (_server, client) = real_server(&["--ctx", "1024", "--kv-tokens", "32768"]);
    let text = "many words ".repeat(400);
    let body = json!({ "input": vec![text; 64] }).to_string();
    let head =
        format!("POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    client.leave_after(&format!("{head}{body}"), || client.wait_for("wushi_requests_running", 16.0));
    client.wait_for("wushi_requests_running", 0.0);
    client.wait_for("wushi_kv_pages_used", 0.0);
    client.wait_for("wushi_requests_total{model=\"smollm2\",outcome=\"cancelled\"}", 1.0);
    // It is counted first, and written down then.
    let begin = Instant::now();
    while client.get("/status").ok()["usage"][0]["requests"] != 1 {
        assert!(begin.elapsed() < PATIENCE, "not written down");
        thread::sleep(Duration::from_millis(20));
    }
}
