//! Who is let in.

use std::time::Duration;

use serde_json::json;

use super::support::server::{PATIENCE, Server, Setup, command};
use super::{CHAT, chat, ready, tiny_model, tiny_server};

fn hello() -> serde_json::Value {
    chat("hello", json!({ "max_tokens": 2 }))
}

#[test]
fn others_than_this_machine_need_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = tiny_model();
    let output = command(folder.path(), &[&model, "--host", "0.0.0.0"]).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("wushi key add") && said.contains("--without-keys"), "{said}");
    assert!(output.stdout.is_empty());

    let (_open, client) = ready(Server::start(&[&model, "--host", "0.0.0.0", "--without-keys"]));
    client.post(CHAT, &hello()).ok();
    let setup = Setup::new();
    let key = setup.key("someone", &[]);
    let (_keyed, client) = ready(setup.start(&[&model, "--host", "0.0.0.0"]));
    client.post(CHAT, &hello()).error(401);
    client.with_key(&key).post(CHAT, &hello()).ok();
}

#[test]
fn everything_but_the_pages_is_behind_keys() {
    let setup = Setup::new();
    let key = setup.key("someone", &[]);
    let (_server, client) = ready(setup.start(&[&tiny_model()]));
    for path in ["/", "/server", "/video", "/health", "/ready"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    for path in
        ["/v1/models", "/v1/models/tiny", "/metrics", "/status", "/openapi.json", "/nowhere", "/v1/nowhere"]
    {
        let answer = client.get(path);
        assert_eq!(answer.error(401)["code"], "invalid_api_key", "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        client.with_key("wk-000000000000").get(path).error(401);
    }
    for path in ["/v1/videos", "/v1/videos/video_0", "/v1/videos/video_0/content"] {
        client.get(path).error(401);
    }
    for path in [
        CHAT,
        "/v1/completions",
        "/v1/embeddings",
        "/v1/videos",
        "/v1/videos/plan",
        "/v1/videos/sync",
        "/v1/videos/edits",
        "/tokenize",
        "/detokenize",
    ] {
        client.post(path, &json!({})).error(401);
    }
    let client = client.with_key(&key);
    client.post(CHAT, &hello()).ok();
    for path in ["/v1/models", "/v1/models/tiny", "/metrics", "/status", "/openapi.json"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    client.get("/nowhere").error(404);
    let usage = client.get("/status").ok()["usage"].clone();
    assert_eq!((&usage[0]["key"], &usage[0]["requests"]), (&json!("someone"), &json!(1)));
}

#[test]
fn keys_have_limits() {
    let setup = Setup::new();
    let (hasty, greedy) = (
        setup.key("hasty", &["--requests-per-minute", "2"]),
        setup.key("greedy", &["--tokens-per-day", "20"]),
    );
    let (_server, client) = ready(setup.start(&[&tiny_model()]));
    let hasty = client.with_key(&hasty);
    hasty.post(CHAT, &hello()).ok();
    hasty.post(CHAT, &hello()).ok();
    let refused = hasty.post(CHAT, &hello());
    assert_eq!(refused.error(429)["type"], "rate_limit_error");
    let after: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=60).contains(&after));
    // Looking costs nothing, and another's key is another's.
    assert_eq!(hasty.get("/v1/models").status, 200);
    let greedy = client.with_key(&greedy);
    greedy.post(CHAT, &chat("hello", json!({ "max_tokens": 20 }))).ok();
    let refused = greedy.post(CHAT, &hello());
    assert!(refused.error(429)["message"].as_str().expect("text").contains("20 tokens a day"));
    assert!(refused.header("retry-after").is_some());
}

#[test]
fn a_key_works_as_soon_as_it_is_made() {
    let (server, client) = tiny_server(&[]);
    client.post(CHAT, &hello()).ok();
    let key = server.key("late");
    let begin = std::time::Instant::now();
    while client.get("/v1/models").status != 401 {
        assert!(begin.elapsed() < PATIENCE, "served without a key");
        std::thread::sleep(Duration::from_millis(50));
    }
    client.with_key(&key).post(CHAT, &hello()).ok();
}

#[test]
fn only_names_of_this_machine_are_asked_for() {
    let (_server, client) = tiny_server(&[]);
    for path in ["/", "/health", "/v1/models", "/page/app.js"] {
        for host in ["example.com", "localhost.example.com", "127.0.0.1.nip.io:80", ""] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = client.raw(request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 403"), "{path} {host}: {answer}");
        }
    }
    for host in ["localhost", "localhost:8000", "127.0.0.1", "[::1]:8000"] {
        let request = format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        assert!(client.raw(request.as_bytes()).starts_with("HTTP/1.1 200"), "{host}");
    }
}

#[test]
fn other_sites_are_told_nothing() {
    let (server, client) = tiny_server(&[]);
    let body = chat("hello", json!({ "max_tokens": 1 })).to_string();
    let ask = |method: &str, more: &str| {
        let head = format!("{method} {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}");
        let length = body.len();
        // What a page may send without asking first.
        let request = format!("{head}content-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}");
        client.raw(request.as_bytes()).to_lowercase()
    };
    for origin in ["origin: https://example.com\r\n", "origin: null\r\n", "sec-fetch-site: cross-site\r\n"] {
        for method in ["POST", "OPTIONS", "GET"] {
            let answer = ask(method, origin);
            assert!(answer.starts_with("http/1.1 403"), "{method} {origin}: {answer}");
            assert!(!answer.contains("access-control"), "{answer}");
        }
    }
    assert!(
        ask("POST", "origin: http://localhost\r\nsec-fetch-site: same-origin\r\n")
            .starts_with("http/1.1 200")
    );
    // With keys no browser sends one for another site, and it is told nothing either.
    server.key("first");
    let begin = std::time::Instant::now();
    while client.get("/v1/models").status != 401 {
        assert!(begin.elapsed() < PATIENCE, "served without a key");
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = ask("POST", "origin: https://example.com\r\n");
    assert!(answer.starts_with("http/1.1 401") && !answer.contains("access-control"), "{answer}");
}
