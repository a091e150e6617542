//! The API of videos.

use std::process::Command;

use serde_json::{Value, json};
use ureq::http::HeaderMap;
use wushi_server::store::{Digest, Status, Store};

use super::support::http::Client;
use super::support::server::{Server, Setup};
use super::video_jobs::{VIDEOS, look, video_model, wait};
use super::{CHAT, chat, ready, tiny_model};

/// A fraction of a second of work.
pub(super) fn quick(fields: Value) -> Value {
    let mut request = json!({ "prompt": "a red circle", "size": "48x32", "num_frames": 5, "num_inference_steps": 2,
                              "seed": 7, "output_format": "apng" });
    let more = fields.as_object().expect("an object").clone();
    request.as_object_mut().expect("an object").extend(more);
    request
}

/// Longer than any test takes to look at it.
pub(super) fn long() -> Value {
    quick(json!({ "num_inference_steps": 1000, "num_frames": 33, "size": "96x96" }))
}

/// A form as clients send it: its type and its body.
fn form(fields: &Value) -> (String, String) {
    let mut body = String::new();
    for (name, value) in fields.as_object().expect("an object") {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        body += &format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
    }
    ("multipart/form-data; boundary=limit".to_owned(), body + "--limit--\r\n")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers[name].to_str().expect("text")
}

fn submit(client: &Client, request: &Value) -> String {
    client.post(VIDEOS, request).ok()["id"].as_str().expect("a name").to_owned()
}

fn completed(client: &Client, id: &str) -> Value {
    wait(client, id, |job| job["status"] == "completed")
}

fn server(args: &[&str]) -> (Server, Client) {
    ready(Server::start(&[&[video_model().as_str()], args].concat()))
}

#[test]
fn a_video_from_its_request_to_its_file() {
    let (_server, client) = server(&[]);
    let (kind, body) =
        form(&quick(json!({ "output_format": "mp4", "seconds": "0.3125", "guidance_scale": 4.5 })));
    let (status, headers, body) = client.fetch("POST", VIDEOS, &[("content-type", &kind)], body.as_bytes());
    let job: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(status, 200, "{job}");
    let after: u64 = headers["openai-poll-after-ms"].to_str().expect("text").parse().expect("milliseconds");
    assert!((500..=5000).contains(&after));
    let expected = json!({
        "object": "video", "model": "wan", "status": "queued", "progress": 0, "completed_at": null, "expires_at": null,
        "prompt": "a red circle", "seconds": "0.3125", "size": "48x32", "width": 48, "height": 32, "num_frames": 5,
        "fps": 16, "num_inference_steps": 2, "guidance_scale": 4.5, "guidance_scale_2": null, "boundary_ratio": null,
        "seed": 7, "output_format": "mp4", "remixed_from_video_id": null, "error": null, "steps_done": 0,
        "frames_done": 0, "frames_digest": null, "bytes": null, "changes": [],
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&job[name], value, "{name}");
    }
    let id = job["id"].as_str().expect("a name");
    let done = completed(&client, id);
    assert_eq!(
        (&done["progress"], &done["frames_done"], &done["steps_done"]),
        (&json!(100), &json!(5), &json!(2))
    );
    assert!(done["completed_at"].as_u64() >= done["created_at"].as_u64());
    assert!(done["expires_at"].as_u64() > done["completed_at"].as_u64());
    assert!(client.get(&format!("{VIDEOS}/{id}")).header("openai-poll-after-ms").is_none());
    let (status, headers, file) = client.fetch("GET", &format!("{VIDEOS}/{id}/content"), &[], &[]);
    assert_eq!(
        (status, &headers["content-type"], &headers["accept-ranges"]),
        (200, &"video/mp4".parse().unwrap(), &"bytes".parse().unwrap())
    );
    assert_eq!((&file[4..8], Some(file.len() as u64)), (&b"ftyp"[..], done["bytes"].as_u64()));
    assert_eq!(headers["content-disposition"], format!("inline; filename=\"{id}.mp4\""));
    let (_, headers, picture) =
        client.fetch("GET", &format!("{VIDEOS}/{id}/content?variant=thumbnail"), &[], &[]);
    assert_eq!(
        (&headers["content-type"], &picture[..4], &picture[8..12]),
        (&"image/webp".parse().unwrap(), &b"RIFF"[..], &b"WEBP"[..])
    );
    // The same as JSON, waited for, has the same frames whatever its file is.
    let again = quick(json!({ "num_frames": 5, "guidance_scale": 4.5, "output_format": "gif" }));
    let (status, headers, gif) =
        client.fetch("POST", &format!("{VIDEOS}/sync"), &[], again.to_string().as_bytes());
    assert_eq!(
        (status, &headers["content-type"], &gif[..3]),
        (200, &"image/gif".parse().unwrap(), &b"GIF"[..])
    );
    assert_eq!(headers["x-frames-digest"], done["frames_digest"].as_str().expect("a digest"));
    let other = headers["x-video-id"].to_str().expect("text").to_owned();
    assert_eq!(look(&client, &other)["status"], "completed");
    for id in [id, &other] {
        let deleted = client.delete(&format!("{VIDEOS}/{id}")).ok();
        assert_eq!(deleted, json!({ "id": id, "object": "video.deleted", "deleted": true }));
        client.delete(&format!("{VIDEOS}/{id}")).error(404);
        client.get(&format!("{VIDEOS}/{id}/content")).error(404);
    }
}

#[test]
fn files_come_in_parts() {
    let (_server, client) = server(&[]);
    let id = submit(&client, &quick(json!({})));
    completed(&client, &id);
    let path = format!("{VIDEOS}/{id}/content");
    let (_, headers, whole) = client.fetch("GET", &path, &[], &[]);
    let tag = headers["etag"].to_str().expect("text");
    let (status, headers, none) = client.fetch("HEAD", &path, &[], &[]);
    assert_eq!(
        (status, text(&headers, "content-length"), none.len()),
        (200, whole.len().to_string().as_str(), 0)
    );
    let mut parts = Vec::new();
    for first in (0..whole.len()).step_by(1000) {
        let last = first + 999;
        let (status, headers, part) = client.fetch(
            "GET",
            &path,
            &[("range", &format!("bytes={first}-{last}")), ("if-range", tag)],
            &[],
        );
        let range = format!("bytes {first}-{}/{}", last.min(whole.len() - 1), whole.len());
        assert_eq!((status, text(&headers, "content-range")), (206, range.as_str()));
        parts.extend(part);
    }
    assert!(parts == whole);
    let (status, _, tail) = client.fetch("GET", &path, &[("range", "bytes=-7")], &[]);
    assert!(status == 206 && tail == whole[whole.len() - 7..]);
    let (status, headers, _) = client.fetch("GET", &path, &[("range", "bytes=99999999-")], &[]);
    assert_eq!((status, text(&headers, "content-range")), (416, format!("bytes */{}", whole.len()).as_str()));
    let (status, _, nothing) = client.fetch("GET", &path, &[("if-none-match", tag)], &[]);
    assert_eq!((status, nothing.len()), (304, 0));
    let (status, _, all) =
        client.fetch("GET", &path, &[("range", "bytes=0-1"), ("if-range", "\"another\"")], &[]);
    assert!(status == 200 && all == whole);
}

#[test]
fn lists_come_in_pages() {
    let (_server, client) = server(&[]);
    let ids: Vec<String> = (0..5).map(|_| submit(&client, &long())).collect();
    let list = |query: &str| {
        let list = client.get(&format!("{VIDEOS}{query}")).ok();
        let data = list["data"].as_array().expect("jobs");
        let found: Vec<String> =
            data.iter().map(|job| job["id"].as_str().expect("a name").to_owned()).collect();
        assert_eq!(list["first_id"].as_str(), found.first().map(String::as_str));
        assert_eq!(list["last_id"].as_str(), found.last().map(String::as_str));
        (found, list["has_more"] == true)
    };
    let newest: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(list(""), (newest.clone(), false));
    assert_eq!(list("?order=asc"), (ids.clone(), false));
    assert_eq!(list("?limit=5"), (newest.clone(), false));
    assert_eq!(list("?limit=2"), (newest[..2].to_vec(), true));
    assert_eq!(list(&format!("?limit=2&after={}", newest[1])), (newest[2..4].to_vec(), true));
    assert_eq!(list(&format!("?limit=2&after={}", newest[3])), (newest[4..].to_vec(), false));
    assert_eq!(list(&format!("?order=asc&limit=3&after={}", ids[0])), (ids[1..4].to_vec(), true));
    assert_eq!(list(&format!("?after={}", newest[4])), (Vec::new(), false));
    for (query, param) in
        [("limit=0", "limit"), ("limit=101", "limit"), ("limit=ten", "limit"), ("order=up", "order")]
    {
        assert_eq!(client.get(&format!("{VIDEOS}?{query}")).error(400)["param"], param);
    }
    client.get(&format!("{VIDEOS}?page=2")).error(400);
    assert_eq!(client.get(&format!("{VIDEOS}?after=video_0")).error(400)["param"], "after");
    // Who is next is told, and nothing of what waits is there yet.
    assert_eq!(look(&client, &ids[4])["queue_position"], 4);
    let missing = client.get(&format!("{VIDEOS}/{}/content", ids[4])).error(404);
    assert_eq!(missing["code"], "video_not_ready");
    let metric = |name: &str| client.metric(name);
    assert_eq!(metric("wushi_videos_queued") + metric("wushi_videos_running"), 5.0);
    for id in ids.iter().rev() {
        client.delete(&format!("{VIDEOS}/{id}")).ok();
    }
    assert_eq!(list(""), (Vec::new(), false));
    assert_eq!((metric("wushi_videos_cancelled_total"), metric("wushi_videos_submitted_total")), (5.0, 5.0));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let text = tiny_model();
    let (_server, client) = server(&[&text]);
    let words = "word ".repeat(3000);
    let refusals = [
        (json!({ "prompt": "" }), "prompt"),
        (json!({ "prompt": words }), "prompt"),
        (json!({ "negative_prompt": words }), "negative_prompt"),
        (json!({ "model": "tiny" }), "model"),
        (json!({ "seconds": "soon" }), "seconds"),
        (json!({ "seconds": "4" }), "seconds"),
        (json!({ "size": "big" }), "size"),
        (json!({ "width": 48 }), "height"),
        (json!({ "num_frames": -1 }), "num_frames"),
        (json!({ "fps": 0 }), "fps"),
        (json!({ "num_inference_steps": 0 }), "num_inference_steps"),
        (json!({ "guidance_scale": 0 }), "guidance_scale"),
        (json!({ "guidance_scale_2": 3 }), "guidance_scale_2"),
        (json!({ "boundary_ratio": 0.5 }), "boundary_ratio"),
        (json!({ "flow_shift": 0 }), "flow_shift"),
        (json!({ "seed": "x" }), "seed"),
        (json!({ "output_format": "webm" }), "output_format"),
        (json!({ "input_reference": "x" }), "input_reference"),
        (json!({ "style": "noir" }), "style"),
    ];
    for path in [VIDEOS, "/v1/videos/plan", "/v1/videos/sync"] {
        for (fields, param) in &refusals {
            let request = quick(fields.clone());
            assert_eq!(client.post(path, &request).error(400)["param"], *param, "{path} {fields}");
            let (kind, body) = form(&request);
            let (status, _, body) = client.fetch("POST", path, &[("content-type", &kind)], body.as_bytes());
            let error: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{path} {fields}: {error}");
        }
    }
    client.post(VIDEOS, &quick(json!({ "model": "nobody" }))).error(404);
    for body in [&b"{"[..], b"", b"[]", b"\xff", br#"{"prompt":"a"} b"#] {
        client.post_bytes(VIDEOS, body).error(400);
    }
    for kind in ["multipart/form-data", "multipart/form-data; boundary=other"] {
        let (_, body) = form(&quick(json!({})));
        let (status, _, _) = client.fetch("POST", VIDEOS, &[("content-type", kind)], body.as_bytes());
        assert_eq!(status, 400, "{kind}");
    }
    assert_eq!(client.get(VIDEOS).ok()["data"], json!([]));
    // The other way round.
    assert_eq!(client.post(CHAT, &chat("hello", json!({ "model": "wan" }))).error(400)["param"], "model");
}

#[test]
fn plans_store_nothing_and_tell_what_changes() {
    let (_server, client) = server(&[]);
    let plan = client.post("/v1/videos/plan", &quick(json!({ "num_frames": 6, "size": "50x33" }))).ok();
    assert_eq!(
        (&plan["object"], &plan["model"], &plan["fits"]),
        (&json!("video.plan"), &json!("wan"), &json!(true))
    );
    assert_eq!(
        (&plan["size"], &plan["num_frames"], &plan["seconds"]),
        (&json!("48x32"), &json!(5), &json!("0.3125"))
    );
    let changes = plan["changes"].as_array().expect("texts");
    assert!(
        changes.len() == 2 && changes[0].as_str().is_some_and(|text| text.contains("instead of")),
        "{plan}"
    );
    let stages = plan["memory"]["stages"].as_array().expect("stages");
    let peak = stages.iter().filter_map(|stage| stage["bytes"].as_u64()).max();
    assert_eq!((stages.len(), plan["memory"]["peak"].as_u64()), (3, peak));
    assert_eq!((&plan["queue_position"], client.get(VIDEOS).ok()["data"].clone()), (&json!(0), json!([])));
    let job = client.post(VIDEOS, &quick(json!({ "num_frames": 6, "size": "50x33" }))).ok();
    assert_eq!(job["changes"], plan["changes"]);
}

#[test]
fn who_does_not_wait_any_more_cancels() {
    let (_server, client) = server(&[]);
    let body = long().to_string();
    let request = format!(
        "POST {VIDEOS}/sync HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.leave_after(&request, || client.wait_for("wushi_videos_running", 1.0));
    client.wait_for("wushi_videos_cancelled_total", 1.0);
    client.wait_for("wushi_videos_running", 0.0);
    assert_eq!(client.get(VIDEOS).ok()["data"], json!([]));
    // A job that nobody waits for goes on.
    let request = request.replace("/sync", "");
    client.leave_after(&request, || client.wait_for("wushi_videos_running", 1.0));
    let jobs = client.get(VIDEOS).ok()["data"].clone();
    assert_eq!(jobs.as_array().map(Vec::len), Some(1));
    client.delete(&format!("{VIDEOS}/{}", jobs[0]["id"].as_str().expect("a name"))).ok();
}

#[test]
fn what_is_not_possible_here_is_said() {
    let (_server, client) = server(&[]);
    for path in ["edits", "extensions", "characters", "video_0/remix", "video_0/edits", "video_0/extensions"]
    {
        let answer = client.post(&format!("{VIDEOS}/{path}"), &json!({}));
        assert_eq!(answer.error(501)["code"], "not_implemented", "{path}");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
    assert_eq!(client.get("/v1/videos/characters/c").error(501)["code"], "not_implemented");
    client.get("/v1/videos/sync").error(405);
    let id = submit(&client, &quick(json!({})));
    completed(&client, &id);
    for variant in ["spritesheet", "poster"] {
        assert_eq!(
            client.get(&format!("{VIDEOS}/{id}/content?variant={variant}")).error(400)["param"],
            "variant"
        );
    }
    client.get(&format!("{VIDEOS}/{id}/content?part=1")).error(400);
    let models = client.get("/v1/models").ok();
    assert_eq!((&models["data"][0]["id"], &models["data"][0]["kind"]), (&json!("wan"), &json!("video")));
    assert_eq!(client.get("/v1/models/wan").ok()["kind"], "video");
    let videos = client.get("/status").ok()["videos"].clone();
    assert_eq!(
        (&videos["models"], &videos["completed"], &videos["queued"]),
        (&json!(["wan"]), &json!(1), &json!(0))
    );
    assert!(videos["seconds_per_step"].as_f64().is_some_and(|seconds| seconds > 0.0));
    assert_eq!(client.metric("wushi_video_step_seconds_count"), 2.0);
    assert_eq!(client.metric("wushi_video_frame_seconds_count"), 5.0);
    // A server of text alone says so.
    let (_server, client) = ready(Server::start(&[&tiny_model()]));
    assert_eq!(client.post(VIDEOS, &quick(json!({}))).error(404)["code"], "model_not_found");
    assert_eq!(client.get(VIDEOS).ok()["data"], json!([]));
}

#[test]
fn keys_have_limits_for_videos() {
    let setup = Setup::new();
    let hasty = setup.key("hasty", &["--requests-per-minute", "1"]);
    let greedy = setup.key("greedy", &["--tokens-per-day", "5"]);
    let (_server, client) = ready(setup.start(&[&video_model()]));
    let (hasty, greedy) = (client.with_key(&hasty), client.with_key(&greedy));
    let id = submit(&hasty, &quick(json!({})));
    // A plan does not count.
    hasty.post("/v1/videos/plan", &quick(json!({}))).ok();
    assert_eq!(hasty.post(VIDEOS, &quick(json!({}))).error(429)["code"], "rate_limit_exceeded");
    // Looking costs nothing.
    completed(&hasty, &id);
    hasty.get(VIDEOS).ok();
    hasty.delete(&format!("{VIDEOS}/{id}")).ok();
    // Of a video its prompt's tokens count, once it is made.
    let id = submit(&greedy, &quick(json!({})));
    completed(&greedy, &id);
    let refused = greedy.post(VIDEOS, &quick(json!({}))).error(429);
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("5 tokens a day")), "{refused}");
    let usage = greedy.get("/status").ok()["usage"].clone();
    let of = |name: &str| usage.as_array().expect("keys").iter().find(|usage| usage["key"] == name).cloned();
    let greedy = of("greedy").expect("a key");
    assert_eq!((&greedy["requests"], &greedy["completion_tokens"]), (&json!(1), &json!(0)));
    assert!(greedy["prompt_tokens"].as_u64().is_some_and(|tokens| tokens >= 5), "{greedy}");
}

/// What `wushi replay` says of a record.
fn replay(server: &Server, args: &[&str]) -> (bool, Value) {
    let mut replay = Command::new(env!("CARGO_BIN_EXE_wushi"));
    replay.args(["replay", "--json", "-q"]).args(args).env("WUSHI_HOME", server.folder());
    let output = replay.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.success(), verdict)
}

#[test]
fn records_are_made_again() {
    let (server, client) = server(&["--audit-text"]);
    let mut request = quick(json!({ "negative_prompt": "a secret", "guidance_scale": 3.3 }));
    request.as_object_mut().expect("an object").remove("seed");
    let id = submit(&client, &request);
    let job = completed(&client, &id);
    let store = Store::open(server.folder().join("server.sqlite")).expect("a database");
    let record = store.get(&id).expect("a record");
    assert_eq!((record.status, record.endpoint.as_str(), record.model.as_str()), (Status::Ok, VIDEOS, "wan"));
    assert_eq!(
        record.choices[0].digest.map(|digest| digest.to_string()).as_deref(),
        job["frames_digest"].as_str()
    );
    let video = record.parameters.video.expect("settings");
    assert_eq!((video.frames, video.negative), (5, Digest::of_text("a secret")));
    assert_eq!(Some(record.parameters.seed), job["seed"].as_u64());
    let text = record.text.expect("kept");
    assert_eq!(text.video, Some(["a red circle".to_owned(), "a secret".to_owned()]));
    assert_eq!(record.prompts[0].digest, Digest::of_ids(&text.prompts[0]));
    // A record outlives its video.
    client.delete(&format!("{VIDEOS}/{id}")).ok();
    let (equal, verdict) = replay(&server, &[&id, "--threads", "1"]);
    assert_eq!((equal, &verdict["every_bit"]), (true, &json!(true)), "{verdict}");
    // The body of the request serves as well; another one is not run.
    let body = server.folder().join("body.json");
    let with = |request: &Value| {
        std::fs::write(&body, request.to_string()).expect("written");
        replay(&server, &[&id, "--request", &body.display().to_string()])
    };
    let (equal, verdict) = with(&request);
    assert_eq!((equal, &verdict["every_bit"]), (true, &json!(true)), "{verdict}");
    request["guidance_scale"] = json!(3.4);
    let (equal, verdict) = with(&request);
    let checks = verdict["checks"].as_array().expect("checks");
    let differs: Vec<&Value> = checks.iter().filter(|check| check["equal"] == false).collect();
    assert_eq!((equal, differs.len(), &differs[0]["what"]), (false, 1, &json!("guidance")), "{verdict}");
    assert!(checks.iter().all(|check| check["what"] != "frames"));
}

#[test]
fn texts_are_not_kept_unless_told() {
    let (server, client) = server(&[]);
    let id = submit(&client, &quick(json!({ "prompt": "a secret", "negative_prompt": "another" })));
    completed(&client, &id);
    let store = Store::open(server.folder().join("server.sqlite")).expect("a database");
    let record = store.get(&id).expect("a record");
    assert_eq!(record.text, None);
    let all = serde_json::to_string(&record).expect("JSON");
    assert!(!all.contains("secret") && !all.contains("another"), "{all}");
    let output = Command::new(env!("CARGO_BIN_EXE_wushi"))
        .args(["replay", &id])
        .env("WUSHI_HOME", server.folder())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--request FILE"), "{said}");
}
