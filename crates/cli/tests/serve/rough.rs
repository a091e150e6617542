//! Clients that do everything wrong, many at once: nothing of them may stay.

use std::fs;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::http::Client;
use super::support::server::PATIENCE;
use super::{CHAT, chat, tiny_server};

const WORKERS: usize = 8;
const REQUESTS: usize = 40;

/// Threads and resident memory in kB of a process, as Linux tells them.
pub(super) fn held(process: u32) -> (usize, usize) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.split_whitespace().next().expect("a number").parse().expect("a number")
    };
    (number("Threads:"), number("VmRSS:"))
}

/// An answer that goes on to the end of the context.
fn long(stream: bool, seed: usize) -> String {
    let settings =
        json!({ "stream": stream, "seed": seed, "temperature": 1, "logit_bias": { "0": -100, "2": -100 } });
    chat("hello", settings).to_string()
}

fn head(length: usize) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n")
}

/// One request that goes wrong in the way of its number.
fn misbehave(client: &Client, number: usize) {
    let pause = Duration::from_millis((number * 7 % 30) as u64);
    match number % 8 {
        // Leaves in the middle of an answer.
        0 | 1 => {
            let body = long(number.is_multiple_of(8), number);
            let mut connection = client.connect();
            connection.write_all((head(body.len()) + &body).as_bytes()).expect("sent");
            thread::sleep(pause);
            let _ = connection.read(&mut [0; 64]);
        }
        // Leaves in the middle of its own request.
        2 => {
            let mut connection = client.connect();
            connection.write_all((head(1000) + "{\"messages\":").as_bytes()).expect("sent");
            thread::sleep(pause);
        }
        // Sends more than is taken; the server may close before all has arrived.
        3 => drop(client.try_post(CHAT, &chat(&"word ".repeat(2000), json!({})))),
        4 => drop(client.post_bytes(CHAT, b"{\"messages\": [{]}").error(400)),
        5 => drop(client.post_bytes(CHAT, b"{\"messages\": \"\xff\xfe\"}").error(400)),
        // Reads slowly.
        6 => {
            let mut stream = client.stream(CHAT, &serde_json::from_str(&long(true, number)).expect("JSON"));
            for _ in 0..5 {
                thread::sleep(Duration::from_millis(3));
                assert!(stream.event().is_some());
            }
        }
        _ => drop(client.post(CHAT, &chat("hello", json!({ "max_tokens": 2 }))).ok()),
    }
}

fn storm(client: &Client) {
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            scope.spawn(move || {
                (0..REQUESTS).for_each(|number| misbehave(client, worker + number * WORKERS + number))
            });
        }
    });
    client.wait_for("wushi_requests_running", 0.0);
    client.wait_for("wushi_requests_waiting", 0.0);
    client.wait_for("wushi_kv_pages_used", 0.0);
}

#[test]
fn nothing_stays_of_clients_that_do_everything_wrong() {
    let (mut server, client) = tiny_server(&["--max-body", "8k"]);
    // The first time, threads start and buffers find their size.
    storm(&client);
    let before = held(server.process_id());
    storm(&client);
    // A thread that has waited for a disk ends when it has had nothing to do for some seconds; how many there are depends
    // on how many requests had to wait at once.
    let begin = Instant::now();
    let mut after = held(server.process_id());
    while after.0 > before.0 + 2 {
        assert!(begin.elapsed() < PATIENCE, "threads: {before:?}, {after:?}");
        thread::sleep(Duration::from_millis(100));
        after = held(server.process_id());
    }
    assert!(after.1 <= before.1 + 16 * 1024, "memory: {before:?}, {after:?}");
    client.post(CHAT, &chat("hello", json!({ "max_tokens": 2 }))).ok();
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
