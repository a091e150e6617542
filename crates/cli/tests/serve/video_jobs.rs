//! Jobs that make videos: whatever happens to the server, each ends with the frames of one that nothing happened to.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::http::Client;
use super::support::server::{PATIENCE, Server, Setup};
use super::support::tiny_video;
use super::{CHAT, chat, ready, tiny_model};

pub(super) const VIDEOS: &str = "/v1/videos";

/// A tiny model that makes videos.
pub(super) fn video_model() -> String {
    format!("wan={}", tiny_video().display())
}

/// A second or so of work, about half of it denoising.
pub(super) fn request() -> Value {
    json!({ "model": "wan", "prompt": "a red circle", "size": "64x48", "num_frames": 17, "num_inference_steps": 40,
            "seed": 7, "output_format": "apng" })
}

/// Longer than any test takes to look at it.
pub(super) fn long() -> Value {
    let mut request = request();
    request["num_inference_steps"] = 1000.into();
    request
}

pub(super) fn submit(client: &Client, request: &Value) -> String {
    let job = client.post(VIDEOS, request).ok();
    assert_eq!((&job["status"], &job["progress"]), (&json!("queued"), &json!(0)));
    job["id"].as_str().expect("a name").to_owned()
}

pub(super) fn look(client: &Client, id: &str) -> Value {
    client.get(&format!("{VIDEOS}/{id}")).ok()
}

/// Waits until a job is as wanted; it must not fail before.
pub(super) fn wait(client: &Client, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let job = look(client, id);
        if wanted(&job) {
            return job;
        }
        assert_ne!(job["status"], "failed", "{job}");
        assert!(begin.elapsed() < PATIENCE, "{job}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a job is completed, and gives its frames' digest.
pub(super) fn digest(client: &Client, id: &str) -> String {
    let job = wait(client, id, |job| job["status"] == "completed");
    assert_eq!((&job["progress"], &job["error"]), (&json!(100), &Value::Null));
    job["frames_digest"].as_str().expect("a digest").to_owned()
}

pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(super) fn folder(server: &Server) -> PathBuf {
    server.folder().join("server.videos")
}

/// What lies on the disk is what the jobs have, and nothing else, a moment after the last of them has ended.
pub(super) fn tidy(server: &Server, ids: &[&str]) {
    let videos = folder(server);
    let begin = Instant::now();
    let latest = |id: &&str| names(&videos.join(id)).len() > 2;
    while ids.iter().any(latest) && begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(5));
    }
    let mut expected: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    expected.extend([".lock", ".owner", "prompts"].map(str::to_owned));
    expected.sort();
    assert_eq!(names(&videos), expected);
    for id in ids {
        assert_eq!(names(&videos.join(id)), ["thumbnail.webp", "video.apng"]);
    }
    assert!(names(&videos.join("prompts")).iter().all(|name| name.ends_with(".safetensors")));
}

/// Numbers that look drawn, the same in every run.
struct Drawn(u64);

impl Drawn {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[test]
fn killed_at_ten_moments_a_job_ends_with_the_same_frames() {
    let model = video_model();
    let arguments = [model.as_str(), "--save-steps", "3", "--log", "wushi_server::video=info"];
    let (mut server, mut client) = ready(Server::start(&arguments));
    // The first reads the prompt and measures the machine.
    let first = submit(&client, &request());
    let expected = digest(&client, &first);
    let begun = Instant::now();
    let second = submit(&client, &request());
    assert_eq!(digest(&client, &second), expected);
    let length = begun.elapsed().as_secs_f64();
    let file =
        |server: &Server, id: &str| fs::read(folder(server).join(id).join("video.apng")).expect("a video");
    let bytes = file(&server, &first);
    assert_eq!(file(&server, &second), bytes);
    let (mut ids, mut resumed, mut drawn) = (vec![first, second], 0, Drawn(2024));
    for round in 0..10 {
        let id = submit(&client, &request());
        // From the moment it was told to be there until about its end.
        let moment = if round == 0 { 0.0 } else { length * (f64::from(round) + drawn.next()) / 10.0 };
        thread::sleep(Duration::from_secs_f64(moment));
        server = server.killed(&arguments);
        client = Client::new(&server.address);
        assert_eq!(digest(&client, &id), expected, "killed after {moment} s of {length}");
        assert_eq!(file(&server, &id), bytes);
        resumed += usize::from(server.log().contains("goes on from what is saved"));
        ids.push(id);
        tidy(&server, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert!(resumed > 0, "every one of them began anew");
    let listed = client.get(&format!("{VIDEOS}?limit=100")).ok();
    assert_eq!(listed["data"].as_array().expect("jobs").len(), ids.len());
    for id in &ids {
        client.delete(&format!("{VIDEOS}/{id}")).ok();
        client.get(&format!("{VIDEOS}/{id}")).error(404);
    }
    tidy(&server, &[]);
}

/// One job, and a server that is killed ten times while it makes it: by what is being done then, not by the time.
#[test]
fn killed_ten_times_one_job_is_made_all_the_same() {
    let model = video_model();
    let arguments = [model.as_str(), "--save-steps", "3", "--log", "wushi_server::video=info"];
    let (mut server, mut client) = ready(Server::start(&arguments));
    let mut request = request();
    (request["num_frames"], request["num_inference_steps"]) = (65.into(), 60.into());
    let first = submit(&client, &request);
    let expected = digest(&client, &first);
    request["prompt"] = "a red circle, again".into();
    let other = submit(&client, &request);
    assert_ne!(digest(&client, &other), expected);
    client.delete(&format!("{VIDEOS}/{first}")).ok();
    request["prompt"] = "a red circle".into();
    let id = submit(&client, &request);
    let steps = (1..=5).map(|kill| ("steps_done", "denoising", 8 * kill));
    let frames = (1..=5).map(|kill| ("frames_done", "decoding", 4 * kill - 3));
    for (what, stage, enough) in steps.chain(frames) {
        wait(&client, &id, |job| {
            assert_ne!(
                job["status"], "completed",
                "it was to be killed while {stage}, {what} {enough}: {job}"
            );
            job["stage"] == stage && job[what].as_u64() >= Some(enough)
        });
        server = server.killed(&arguments);
        client = Client::new(&server.address);
    }
    assert_eq!(digest(&client, &id), expected);
    assert!(server.log().contains("goes on from what is saved"), "{}", server.log());
    tidy(&server, &[&other, &id]);
}

#[test]
fn a_server_that_ends_saves_and_goes_on_when_it_starts_again() {
    let model = video_model();
    let arguments = [model.as_str(), "--save-steps", "1", "--log", "wushi_server::video=info"];
    let (server, client) = ready(Server::start(&arguments));
    let mut request = request();
    request["num_inference_steps"] = 300.into();
    let (one, two) = (submit(&client, &request), submit(&client, &request));
    assert_eq!(look(&client, &two)["status"], "queued");
    wait(&client, &one, |job| job["steps_done"].as_u64() > Some(10));
    let server = server.restart(&arguments);
    let client = Client::new(&server.address);
    let done = digest(&client, &one);
    assert!(server.log().contains("goes on from what is saved"), "{}", server.log());
    // The other was never begun before.
    assert_eq!(digest(&client, &two), done);
    tidy(&server, &[&one, &two]);
}

#[test]
fn a_deleted_job_is_gone_and_the_next_begins() {
    let (server, client) = ready(Server::start(&[&video_model()]));
    let (running, waiting, next) =
        (submit(&client, &long()), submit(&client, &long()), submit(&client, &request()));
    wait(&client, &running, |job| job["status"] == "in_progress");
    assert_eq!(look(&client, &waiting)["queue_position"], 1);
    assert_eq!(look(&client, &next)["queue_position"], 2);
    // Not there yet, as opposed to not there at all.
    let content = client.get(&format!("{VIDEOS}/{running}/content")).error(404);
    assert_eq!(content["code"], "video_not_ready");
    for id in [&waiting, &running] {
        client.delete(&format!("{VIDEOS}/{id}")).ok();
        client.get(&format!("{VIDEOS}/{id}")).error(404);
        assert!(!folder(&server).join(id).exists());
    }
    digest(&client, &next);
    tidy(&server, &[&next]);
    client.delete(&format!("{VIDEOS}/{next}")).ok();
    tidy(&server, &[]);
}

#[test]
fn progress_never_goes_back() {
    let (_server, client) = ready(Server::start(&[&video_model()]));
    let mut request = request();
    request["num_inference_steps"] = 200.into();
    let id = submit(&client, &request);
    let seen = RefCell::new(Vec::new());
    wait(&client, &id, |job| {
        seen.borrow_mut().push(job["progress"].as_i64().expect("a whole number"));
        job["status"] == "completed"
    });
    let seen = seen.into_inner();
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.last(), Some(&100));
    assert!(seen.iter().any(|progress| (1..100).contains(progress)), "it does not move: {seen:?}");
}

#[test]
fn what_can_never_fit_is_refused_and_text_comes_before_videos() {
    let (text, video) = (tiny_model(), video_model());
    let context = ["--ctx", "256", "--kv-tokens", "256"];
    let (text_bytes, peak) = {
        let (_server, client) = ready(Server::start(&[&[text.as_str(), &video], &context[..]].concat()));
        let plan = client.post(&format!("{VIDEOS}/plan"), &long()).ok();
        (
            client.get("/status").ok()["memory"]["used"].as_u64().expect("bytes"),
            plan["memory"]["peak"].as_u64().expect("bytes"),
        )
    };
    // Room for either, not for both.
    let memory = (text_bytes.max(peak) + text_bytes.min(peak) / 2).to_string();
    let arguments = [text.as_str(), &video, "--memory", &memory, "--save-steps", "1"];
    let (_server, client) = ready(Server::start(&[&arguments, &context[..]].concat()));
    let mut large = long();
    large["size"] = "640x480".into();
    let refused = client.post(VIDEOS, &large).error(400);
    assert_eq!(refused["code"], "insufficient_memory");
    assert!(refused["message"].as_str().is_some_and(|why| why.contains("would fit")), "{refused}");

    let state = |model: &str| client.get(&format!("/v1/models/{model}")).ok()["state"].clone();
    assert_eq!(state("tiny"), "ready");
    let id = submit(&client, &long());
    // The model of text goes when nobody has used it for a while.
    wait(&client, &id, |job| job["steps_done"].as_u64() > Some(1));
    assert_eq!(state("tiny"), "unloaded");
    // A person waits: the video gives its memory back, and is in the queue again.
    client.post(CHAT, &chat("hello", json!({ "model": "tiny", "max_tokens": 2 }))).ok();
    assert_eq!(state("tiny"), "ready");
    assert_eq!(look(&client, &id)["status"], "queued");
    client.delete(&format!("{VIDEOS}/{id}")).ok();
}

/// A job of a key does not exist for others.
#[test]
fn jobs_belong_to_their_keys() {
    let setup = Setup::new();
    let (alice, bob) = (setup.key("alice", &[]), setup.key("bob", &[]));
    let server = setup.start(&[&video_model()]);
    let client = Client::new(&server.address);
    let (alice, bob) = (client.with_key(&alice), client.with_key(&bob));
    let id = submit(&alice, &request());
    for path in [format!("{VIDEOS}/{id}"), format!("{VIDEOS}/{id}/content")] {
        bob.get(&path).error(404);
    }
    bob.delete(&format!("{VIDEOS}/{id}")).error(404);
    assert_eq!(bob.get(VIDEOS).ok()["data"], json!([]));
    assert_eq!(alice.get(VIDEOS).ok()["data"][0]["id"], json!(id));
    digest(&alice, &id);
}
