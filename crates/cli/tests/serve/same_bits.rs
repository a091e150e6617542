//! The digest of the logits that an answer was sampled from: equal whatever else the server does.

use std::thread;

use serde_json::{Value, json};

use super::support::http::Client;
use super::support::server::Server;
use super::{CHAT, chat, ready, real_model, real_server};

const STORY: &str = "Once upon a time, in a village between two rivers, there lived a clockmaker who never slept. \
    Every night he wound the great clock of the tower, and every morning the people of the village found a small gift \
    on their doorsteps. What happened when the clock stopped?";

fn story() -> Value {
    chat(STORY, json!({ "temperature": 0.8, "seed": 7, "max_tokens": 20 }))
}

/// What must agree to the bit: the digests and the texts of all answers.
fn bits(answer: &Value) -> (Vec<String>, Vec<String>) {
    let digests = answer["wushi"]["logits_digests"].as_array().expect("digests");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let texts = answer["choices"].as_array().expect("answers").iter();
    (digests.iter().map(text).collect(), texts.map(|choice| text(&choice["message"]["content"])).collect())
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
}

fn ask(client: &Client, request: &Value) -> Value {
    client.post(CHAT, request).ok()
}

/// The same through a stream.
fn streamed(client: &Client, request: &Value) -> (Vec<String>, Vec<String>) {
    let mut request = request.clone();
    request["stream"] = true.into();
    request["stream_options"] = json!({ "include_usage": true });
    let events = client.stream(CHAT, &request).events();
    let last = events.last().expect("events");
    assert_eq!(last["choices"], json!([]));
    let pieces = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    let digests = last["wushi"]["logits_digests"].as_array().expect("digests");
    (digests.iter().map(|digest| digest.as_str().expect("text").to_owned()).collect(), vec![pieces.collect()])
}

/// Another conversation, of a length of its own.
fn other(number: usize) -> Value {
    let prompt = format!("{number}. Repeat after me: {}", "one two three four ".repeat(number % 7));
    chat(&prompt, json!({ "temperature": 1, "seed": number, "max_tokens": 4 + number % 5 }))
}

/// All at once, answers in order.
fn together(client: &Client, requests: &[Value]) -> Vec<Value> {
    thread::scope(|scope| {
        let asks: Vec<_> = requests.iter().map(|request| scope.spawn(|| ask(client, request))).collect();
        asks.into_iter().map(|ask| ask.join().expect("an answer")).collect()
    })
}

#[test]
fn alone_and_among_others_cold_and_warm_streamed_and_after_a_restart() {
    let (server, client) = real_server(&["--audit", "--sequences", "33"]);
    let cold = ask(&client, &story());
    let (digests, texts) = bits(&cold);
    assert_eq!((cached(&cold), digests.len(), digests[0].len()), (0, 1, 64));

    let warm = ask(&client, &story());
    assert!(cached(&warm) > 0);
    assert_eq!(bits(&warm), (digests.clone(), texts.clone()));
    assert_eq!(streamed(&client, &story()), (digests.clone(), texts.clone()));

    let mut requests: Vec<Value> = (0..32).map(other).collect();
    let few = [&requests[5], &requests[31]].map(|request| bits(&ask(&client, request)));
    requests.push(story());
    let answers = together(&client, &requests);
    assert_eq!(bits(&answers[32]), (digests.clone(), texts.clone()));
    assert_eq!([bits(&answers[5]), bits(&answers[31])], few);

    // The first of several answers is the only one of a request for one.
    let mut several = story();
    several["n"] = 3.into();
    let several = bits(&ask(&client, &several));
    assert_eq!((&several.0[0], &several.1[0]), (&digests[0], &texts[0]));
    assert_ne!(several.0[0], several.0[1]);

    // Nothing is left of the first process but its file; other threads, other steps.
    let model = real_model();
    let (_server, client) = ready(server.restart(&[
        &model,
        "--audit",
        "--threads",
        "1",
        "--step-tokens",
        "48",
        "--kv-tokens",
        "1024",
    ]));
    let again = ask(&client, &story());
    assert_eq!(cached(&again), 0);
    assert_eq!(bits(&again), (digests, texts));
}

#[test]
fn after_preemption() {
    let (_server, alone) = real_server(&["--audit", "--ctx", "320"]);
    let request = |number: usize| {
        let prompt = format!("{number}. {STORY}");
        chat(
            &prompt,
            json!({ "temperature": 1, "seed": number, "max_tokens": 100, "logit_bias": { "2": -100 } }),
        )
    };
    let requests: Vec<Value> = (0..5).map(request).collect();
    // Room for two of the five, but not for both at their full length.
    let (_scarce, client) = real_server(&["--audit", "--ctx", "320", "--kv-tokens", "320"]);
    let crowded: Vec<_> = together(&client, &requests).iter().map(bits).collect();
    assert!(client.metric("wushi_preemptions_total") > 0.0);
    assert_eq!(client.metric("wushi_kv_pages_used"), 0.0);
    for (request, crowded) in requests.iter().zip(crowded) {
        assert_eq!(alone.metric("wushi_preemptions_total"), 0.0);
        assert_eq!(bits(&ask(&alone, request)), crowded);
    }
}

#[test]
fn digests_come_to_those_who_ask() {
    let server = Server::start(&[&super::tiny_model()]);
    let client = Client::new(&server.address);
    let request = chat("hello", json!({ "max_tokens": 3 }));
    assert!(ask(&client, &request)["wushi"]["logits_digests"].is_null());
    let mut asking = request.clone();
    asking["logits_digest"] = true.into();
    let digests = ask(&client, &asking)["wushi"]["logits_digests"].clone();
    assert_eq!(digests.as_array().expect("digests").len(), 1);
    // Whatever the logits are sampled to, the first are those of the prompt.
    let other = chat("hello", json!({ "max_tokens": 3, "logits_digest": true, "seed": 3 }));
    assert_eq!(ask(&client, &other)["wushi"]["logits_digests"], digests);
}
