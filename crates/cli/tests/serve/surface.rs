//! What operators and programs look at.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{CHAT, chat, tiny_server};

/// A sample of Prometheus' text format.
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    value: f64,
}

fn sample(line: &str) -> Sample<'_> {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("an end")),
        None => (series, ""),
    };
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once('=').expect("a label");
        (name, value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quotes"))
    });
    Sample { name, labels: labels.collect(), value: value.parse().expect("a number") }
}

/// The samples by metric, the format checked on the way.
fn parse(text: &str) -> BTreeMap<&str, Vec<Sample<'_>>> {
    let mut found: BTreeMap<&str, Vec<Sample<'_>>> = BTreeMap::new();
    let (mut kinds, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(kinds.insert(name, kind).is_none(), "{name} twice");
            found.insert(name, Vec::new());
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.split_once(' ').is_some_and(|(_, about)| about.ends_with('.')), "{line}");
        } else {
            let sample = sample(line);
            assert!(seen.insert(line.rsplit_once(' ').expect("a value").0), "{line} twice");
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| {
                    let whole = |name: &&str| matches!(kinds.get(name), Some(&"histogram" | &"summary"));
                    sample.name.strip_suffix(end).filter(whole)
                })
                .unwrap_or(sample.name);
            if kinds[family] == "counter" {
                assert!(family.ends_with("_total"), "{family}");
            }
            found.get_mut(family).expect("a type before it").push(sample);
        }
    }
    found
}

#[test]
fn metrics_are_prometheus() {
    let (_server, client) = tiny_server(&[]);
    for _ in 0..3 {
        client
            .post(CHAT, &chat(&"hello ".repeat(20), json!({ "max_tokens": 6, "logit_bias": { "2": -100 } })))
            .ok();
    }
    client.post("/v1/embeddings", &json!({ "input": "hello" })).ok();
    client.post(CHAT, &json!({ "messages": [] })).error(400);
    let answer = client.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(answer.body.ends_with('\n'));
    let metrics = parse(&answer.body);
    let value = |name: &str| metrics[name].iter().map(|sample| sample.value).sum::<f64>();
    assert_eq!(value("wushi_requests_total"), 4.0);
    assert_eq!(value("wushi_generated_tokens_total"), 18.0);
    assert!(value("wushi_prefix_hit_tokens_total") > 0.0);
    assert!(value("wushi_prompt_tokens_total") > value("wushi_prefix_hit_tokens_total"));
    assert_eq!((value("wushi_requests_running"), value("wushi_requests_waiting")), (0.0, 0.0));
    assert!(value("wushi_kv_pages") > value("wushi_kv_pages_cached"));
    let refused = metrics["wushi_refusals_total"].iter().find(|sample| sample.labels["status"] == "400");
    assert_eq!(refused.map(|sample| sample.value), Some(1.0));
    for (name, observed) in [
        ("wushi_time_to_first_token_seconds", 3.0),
        ("wushi_inter_token_seconds", 15.0),
        ("wushi_request_seconds", 4.0),
    ] {
        let ends = |end: &str| {
            metrics[name]
                .iter()
                .filter(|sample| sample.name.ends_with(end))
                .map(|s| s.value)
                .collect::<Vec<_>>()
        };
        let buckets = ends("_bucket");
        assert!(buckets.is_sorted(), "{name}");
        assert_eq!((buckets.last(), ends("_count")), (Some(&observed), vec![observed]), "{name}");
        assert!(ends("_sum")[0] > 0.0);
        let last = metrics[name].iter().rfind(|sample| sample.name.ends_with("_bucket")).expect("buckets");
        assert_eq!(last.labels["le"], "+Inf");
    }
}

#[test]
fn health_and_readiness() {
    let (_server, client) = tiny_server(&[]);
    assert_eq!(client.get("/health").ok(), json!({ "status": "ok" }));
    assert_eq!(client.get("/ready").ok(), json!({ "status": "ready" }));
    let status = client.get("/status").ok();
    let model = &status["models"][0];
    assert_eq!((&model["name"], &model["state"]), (&json!("tiny"), &json!("ready")));
    assert!(model["memory"]["weights"].as_u64().is_some_and(|bytes| bytes > 0));
    assert!(model["fingerprint"].as_str().is_some_and(|text| text.len() == 64));
    let answer = client.post(CHAT, &chat("hello", json!({ "max_tokens": 1 }))).ok();
    assert_eq!(answer["system_fingerprint"], model["fingerprint"]);
}

/// All `$ref`s of a description.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.push(reference.clone());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_api_is_described() {
    let (_server, client) = tiny_server(&[]);
    let description = client.get("/openapi.json").ok();
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    for (path, method) in [
        (CHAT, "post"),
        ("/v1/completions", "post"),
        ("/v1/responses", "post"),
        ("/v1/messages", "post"),
        ("/v1/messages/count_tokens", "post"),
        ("/v1/embeddings", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{model}", "get"),
        ("/v1/videos", "post"),
        ("/v1/videos", "get"),
        ("/v1/videos/plan", "post"),
        ("/v1/videos/sync", "post"),
        ("/v1/videos/{video_id}", "get"),
        ("/v1/videos/{video_id}", "delete"),
        ("/v1/videos/{video_id}/content", "get"),
        ("/tokenize", "post"),
        ("/detokenize", "post"),
        ("/health", "get"),
        ("/ready", "get"),
        ("/metrics", "get"),
        ("/status", "get"),
    ] {
        assert!(description["paths"][path][method]["responses"]["200"].is_object(), "{method} {path}");
    }
    let paths = description["paths"].as_object().expect("paths").values();
    let operations: Vec<&Value> =
        paths.flat_map(|path| path.as_object().expect("operations").values()).collect();
    let names: BTreeSet<&str> =
        operations.iter().filter_map(|operation| operation["operationId"].as_str()).collect();
    assert_eq!(names.len(), operations.len());
    // What is described of a stream is what its events carry.
    let chat = &description["paths"][CHAT]["post"]["responses"]["200"]["content"];
    let data = &chat["text/event-stream"]["schema"]["properties"]["data"];
    assert_eq!(data["contentSchema"]["$ref"], "#/components/schemas/ChatChunk");
    assert_eq!(chat["application/json"]["schema"]["$ref"], "#/components/schemas/ChatCompletion");
    let mut found = Vec::new();
    references(&description, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(description.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn no_path_reaches_the_file_system() {
    let (_server, client) = tiny_server(&[]);
    for path in [
        "/page/../../../../etc/passwd",
        "/page/%2e%2e/%2e%2e/etc/passwd",
        "/page//etc/passwd",
        "/../Cargo.toml",
        "/v1/models/../../etc/passwd",
        "/v1/models/%2Fetc%2Fpasswd",
        "/page/..%5c..%5cserver.sqlite",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = client.raw(request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        assert!(!answer.contains("root:"));
    }
}

#[test]
fn what_is_not_there_is_said_in_the_apis_form() {
    let (_server, client) = tiny_server(&[]);
    assert_eq!(client.get("/v1/nothing").error(404)["code"], "unknown_url");
    assert_eq!(client.get(CHAT).error(405)["code"], "method_not_allowed");
    assert_eq!(client.post("/v1/models", &json!({})).error(405)["type"], "invalid_request_error");
    let answer = client.post(CHAT, &chat("hello", json!({ "model": "nobody" })));
    let error = answer.error(404);
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
}
