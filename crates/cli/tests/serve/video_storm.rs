//! Two hundred requests about videos, many at once and most of them wrong or given up: nothing of them may stay.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wushi_server::store::{Store, VideoState};

use super::ready;
use super::rough::held;
use super::support::http::Client;
use super::support::server::{PATIENCE, Server};
use super::video_jobs::{VIDEOS, folder, names, video_model, wait};
use super::videos::{long, quick};

const WORKERS: usize = 8;
const REQUESTS: usize = 25;

/// A request that can be told from all others by its prompt.
fn marked(mut request: Value, number: usize) -> (Value, String) {
    let prompt = format!("video {number}");
    request["prompt"] = json!(prompt);
    (request, prompt)
}

/// All jobs there are.
fn jobs(client: &Client) -> Vec<Value> {
    client.get(&format!("{VIDEOS}?limit=100")).ok()["data"].as_array().expect("jobs").clone()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn listed(client: &Client, prompt: &str) -> bool {
    jobs(client).iter().any(|job| job["prompt"] == prompt)
}

fn raw(path: &str, body: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A request of the kind of its number; `done` is a video that is there all the time.
fn ask(client: &Client, done: &str, number: usize) {
    let content = format!("{VIDEOS}/{done}/content");
    match number % 10 {
        // Fields that are wrong.
        0 => {
            let wrong = [
                json!({ "size": "0x0" }),
                json!({ "seconds": "x" }),
                json!({ "bananas": 1 }),
                json!({ "num_frames": 0 }),
                json!({ "prompt": [] }),
            ];
            client.post(VIDEOS, &quick(wrong[number / 10 % wrong.len()].clone())).error(400);
        }
        // Asked for, and never looked at again.
        1 => drop(client.post(VIDEOS, &marked(quick(json!({})), number).0).ok()),
        // Cancelled, waiting or running.
        2 | 3 => {
            let job = client.post(VIDEOS, &marked(long(), number).0).ok();
            let path = format!("{VIDEOS}/{}", job["id"].as_str().expect("a name"));
            if number % 10 == 3 {
                client.get(&path).ok();
            }
            client.delete(&path).ok();
            client.get(&path).error(404);
        }
        // Waited for, and given up.
        4 => {
            let (request, prompt) = marked(long(), number);
            let body = request.to_string();
            client.leave_after(&raw("/v1/videos/sync", &body, body.len()), || {
                wait_until("never submitted", || listed(client, &prompt));
            });
            wait_until("never cancelled", || !listed(client, &prompt));
        }
        // Leaves in the middle of a file.
        5 => {
            let mut connection = client.connect();
            let request = format!("GET {content} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            connection.write_all(request.as_bytes()).expect("sent");
            connection.read_exact(&mut [0; 64]).expect("the beginning");
        }
        // Looks at everything, a page after the other.
        6 => {
            let order = if number.is_multiple_of(20) { "asc" } else { "desc" };
            let mut after = String::new();
            loop {
                let answer = client.get(&format!("{VIDEOS}?limit=7&order={order}{after}"));
                // What the page came after may be deleted by now.
                if answer.status == 400 {
                    break;
                }
                let page = answer.ok();
                if page["has_more"] == false {
                    break;
                }
                after = format!("&after={}", page["last_id"].as_str().expect("a name"));
            }
        }
        // Waited for to the end.
        7 => {
            let (request, _) = marked(quick(json!({ "output_format": "gif" })), number);
            let (status, _, file) =
                client.fetch("POST", "/v1/videos/sync", &[], request.to_string().as_bytes());
            assert_eq!((status, &file[..3]), (200, &b"GIF"[..]));
        }
        // Leaves in the middle of its own request, or of the answer.
        8 => {
            let mut connection = client.connect();
            let body = marked(quick(json!({})), number).0.to_string();
            let missing = if number.is_multiple_of(20) { 0 } else { 100 };
            connection.write_all(raw(VIDEOS, &body, body.len() + missing).as_bytes()).expect("sent");
            if missing == 0 {
                connection.read_exact(&mut [0; 1]).expect("the beginning");
            }
        }
        _ => {
            let (status, _, part) = client.fetch("GET", &content, &[("range", "bytes=10-19")], &[]);
            assert_eq!((status, part.len()), (206, 10));
            client.get(&format!("{VIDEOS}/video_{number:032x}/content")).error(404);
        }
    }
}

/// All requests, and then everything that was asked for is deleted.
fn storm(client: &Client, done: &str) {
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            scope.spawn(move || {
                (0..REQUESTS).for_each(|number| ask(client, done, worker + WORKERS * number));
            });
        }
    });
    for job in jobs(client) {
        let id = job["id"].as_str().expect("a name");
        if id != done {
            client.delete(&format!("{VIDEOS}/{id}")).ok();
        }
    }
    client.wait_for("wushi_videos_queued", 0.0);
    client.wait_for("wushi_videos_running", 0.0);
}

/// What lies in the server's folder, but for the states of prompts, of which a number is kept.
fn left(server: &Server) -> (Vec<String>, Vec<String>) {
    (names(server.folder()), names(&folder(server)))
}

#[test]
fn nothing_stays_of_two_hundred_mixed_requests() {
    let (mut server, client) = ready(Server::start(&[&video_model()]));
    let done = client.post(VIDEOS, &quick(json!({}))).ok()["id"].as_str().expect("a name").to_owned();
    wait(&client, &done, |job| job["status"] == "completed");
    let clean = left(&server);
    // The first time, threads start and buffers find their size.
    storm(&client, &done);
    let before = held(server.process_id());
    storm(&client, &done);
    assert_eq!(jobs(&client).len(), 1);
    assert_eq!(left(&server), clean);
    // A thread that has waited for a disk ends when it has had nothing to do for some seconds.
    wait_until("threads stay", || held(server.process_id()).0 <= before.0 + 2);
    client.delete(&format!("{VIDEOS}/{done}")).ok();
    let (submitted, made) =
        (client.metric("wushi_videos_submitted_total"), client.metric("wushi_videos_completed_total"));
    let cancelled = client.metric("wushi_videos_cancelled_total");
    assert_eq!((submitted, client.metric("wushi_videos_failed_total")), (made + cancelled, 0.0));
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert_eq!(names(&folder(&server)), [".lock", ".owner", "prompts"]);
    let store = Store::open(server.folder().join("server.sqlite")).expect("a database");
    let rows = [
        store.videos_in(&[VideoState::Queued, VideoState::InProgress]).expect("rows"),
        store.finished_videos().expect("rows"),
    ];
    assert!(rows.iter().all(Vec::is_empty), "{rows:?}");
}
