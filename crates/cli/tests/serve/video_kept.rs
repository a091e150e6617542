//! Videos and jobs that must not be lost, whatever is wrong with disks, folders and databases.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use wushi_server::store::{Status, Store};

use super::support::http::Client;
use super::support::server::{Server, Setup, command};
use super::support::tiny_video;
use super::video_jobs::{
    VIDEOS, digest, folder, long, look, names, request, submit, tidy, video_model, wait,
};
use super::{ready, tiny_model};

/// What a server says that does not start.
fn refused(folder: &Path, args: &[&str]) -> String {
    let output = command(folder, args).output().expect("the binary runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ids(client: &Client) -> Vec<String> {
    let list = client.get(VIDEOS).ok();
    let id = |job: &serde_json::Value| job["id"].as_str().expect("a name").to_owned();
    list["data"].as_array().expect("jobs").iter().map(id).collect()
}

#[test]
fn the_oldest_videos_make_room_and_none_does_for_what_is_refused() {
    // Room for one finished video and the next, as they are estimated: three bytes a pixel, and what is denoised twice.
    let (server, client) = ready(Server::start(&[&video_model(), "--video-disk", "600K"]));
    let first = submit(&client, &request());
    digest(&client, &first);
    let second = submit(&client, &request());
    digest(&client, &second);
    let third = submit(&client, &request());
    digest(&client, &third);
    client.get(&format!("{VIDEOS}/{first}")).error(404);
    assert!(!folder(&server).join(&first).exists());
    let before = ids(&client);
    assert!(before.contains(&third));
    let mut large = request();
    large["size"] = "640x480".into();
    for _ in 0..2 {
        let refused = client.post(VIDEOS, &large).error(507);
        assert_eq!(refused["code"], "insufficient_storage");
    }
    assert_eq!(ids(&client), before);
    client.fetch("GET", &format!("{VIDEOS}/{third}/content"), &[], &[]);
    tidy(&server, &before.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn two_servers_share_neither_a_folder_nor_a_database() {
    let model = video_model();
    let (server, client) = ready(Server::start(&[&model]));
    let id = submit(&client, &long());
    wait(&client, &id, |job| job["status"] == "in_progress");
    for args in [
        &[model.as_str()][..],
        &[&model, "--videos", "others"],
        &[&model, "--database", "other.sqlite", "--videos", "server.videos"],
    ] {
        let said = refused(server.folder(), args);
        assert!(said.contains("another server makes videos in"), "{args:?}: {said}");
    }
    // Nobody has put it back or made it too.
    digest(&client, &id);
    assert!(!server.log().contains("its end"), "{}", server.log());
    tidy(&server, &[&id]);
}

#[test]
fn a_folder_belongs_to_one_database() {
    let model = video_model();
    let (mut server, client) = ready(Server::start(&[&model]));
    let id = submit(&client, &request());
    digest(&client, &id);
    server.terminate();
    assert!(server.ended().success());
    let (here, away) = (folder(&server), server.folder().join("away"));
    let said = refused(server.folder(), &[&model, "--database", "other.sqlite", "--videos", "server.videos"]);
    assert!(said.contains("has the videos of another database than"), "{said}");
    // Its disk is not mounted.
    fs::rename(&here, &away).expect("renamed");
    for _ in 0..2 {
        let said = refused(server.folder(), &[&model]);
        assert!(said.contains("has none of the videos that the database tells of: mount its disk"), "{said}");
    }
    // Text is served all the same, and nothing is forgotten.
    server = server.killed(&[&tiny_model()]);
    let (server, client) = ready(server);
    assert!(server.log().contains("videos that were made are not there"), "{}", server.log());
    assert_eq!(look(&client, &id)["status"], "completed");
    assert_eq!(client.get(&format!("{VIDEOS}/{id}/content")).error(404)["code"], "file_lost");
    // Mounted again.
    fs::remove_dir_all(&here).expect("what was made on its place");
    fs::rename(&away, &here).expect("renamed");
    let (server, client) = ready(server.restart(&[&model]));
    tidy(&server, &[&id]);
    let content = format!("{VIDEOS}/{id}/content");
    assert_eq!(client.fetch("GET", &content, &[], &[]).0, 200);
    // One file that is gone is told of when it is asked for, and may come back.
    let file = here.join(&id).join("video.apng");
    fs::rename(&file, server.folder().join("kept")).expect("renamed");
    let (server, client) = ready(server.restart(&[&model]));
    assert_eq!(client.get(&content).error(404)["code"], "file_lost");
    fs::rename(server.folder().join("kept"), &file).expect("renamed");
    assert_eq!(
        (client.fetch("GET", &content, &[], &[]).0, &look(&client, &id)["status"]),
        (200, &json!("completed"))
    );
}

#[test]
fn trouble_with_the_disk_puts_a_job_back_and_others_go_on() {
    let (server, client) = ready(Server::start(&[&video_model()]));
    let (running, troubled, next) =
        (submit(&client, &long()), submit(&client, &request()), submit(&client, &request()));
    // In the place of its folder.
    fs::write(folder(&server).join(&troubled), "").expect("a file");
    client.delete(&format!("{VIDEOS}/{running}")).ok();
    let expected = digest(&client, &next);
    let job = wait(&client, &troubled, |job| job["status"] == "queued" && !job["stage"].is_null());
    assert_eq!(job["stage"], "waiting for disk");
    fs::remove_file(folder(&server).join(&troubled)).expect("removed");
    assert_eq!(digest(&client, &troubled), expected);
    tidy(&server, &[&troubled, &next]);
}

/// A copy of the tiny model, the numbers of whose decoder are none.
fn damaged_model(to: &Path) -> String {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let path = entry.expect("an entry").path();
            let to = to.join(path.file_name().expect("a name"));
            match path.is_dir() {
                true => copy(&path, &to),
                false => drop(fs::copy(&path, &to).expect("copied")),
            }
        }
    }
    copy(&tiny_video(), to);
    let decoder = to.join("vae");
    for name in names(&decoder).iter().filter(|name| name.ends_with(".safetensors")) {
        let path = decoder.join(name);
        let mut bytes = fs::read(&path).expect("weights");
        let head = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
        bytes[head..].fill(0xff);
        fs::write(&path, bytes).expect("written");
    }
    format!("wan={}", to.display())
}

#[test]
fn a_job_that_fails_by_its_own_fault_keeps_what_is_denoised() {
    let models = tempfile::tempdir().expect("a folder");
    let model = damaged_model(&models.path().join("model"));
    let (server, client) = ready(Server::start(&[&model, "--log", "wushi_server::video=info"]));
    let failed = |id: &str| {
        loop {
            let job = look(&client, id);
            if job["status"] == "failed" {
                return job;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    let first = submit(&client, &request());
    let job = failed(&first);
    assert_eq!(job["error"]["code"], "video_failed");
    assert!(job["error"]["message"].as_str().is_some_and(|why| why.contains("the file is damaged")), "{job}");
    assert_eq!(client.get(&format!("{VIDEOS}/{first}/content")).error(404)["code"], "video_failed");
    let kept =
        || names(&folder(&server)).into_iter().filter(|name| name.starts_with("video_")).collect::<Vec<_>>();
    client.wait_for("wushi_videos_failed_total", 1.0);
    assert_eq!(kept(), std::slice::from_ref(&first));
    // The same request goes on from there.
    let second = submit(&client, &request());
    failed(&second);
    assert!(server.log().contains("goes on from what is saved"), "{}", server.log());
    assert_eq!(look(&client, &second)["error"]["code"], "video_failed");
    assert_eq!(kept(), [second]);
}

#[test]
fn cancelled_jobs_leave_a_record() {
    let (server, client) = ready(Server::start(&[&video_model()]));
    let (running, waiting) = (submit(&client, &long()), submit(&client, &request()));
    wait(&client, &running, |job| job["status"] == "in_progress");
    for id in [&waiting, &running] {
        client.delete(&format!("{VIDEOS}/{id}")).ok();
    }
    let store = Store::open(server.folder().join("server.sqlite")).expect("a database");
    for (id, begun) in [(&waiting, false), (&running, true)] {
        let record = store.get(id).expect("a record");
        assert_eq!((record.status, record.choices[0].digest), (Status::Cancelled, None));
        // Of what was never begun nothing counts.
        assert_eq!(record.prompts.iter().any(|prompt| prompt.tokens > 0), begun);
    }
}

#[test]
fn jobs_of_a_revoked_key_are_not_begun() {
    let setup = Setup::new();
    let (alice, bob) = (setup.key("alice", &[]), setup.key("bob", &[]));
    let (server, client) = ready(setup.start(&[&video_model()]));
    let (alice, bob) = (client.with_key(&alice), client.with_key(&bob));
    let running = submit(&bob, &long());
    wait(&bob, &running, |job| job["status"] == "in_progress");
    let orphan = submit(&alice, &long());
    let mut remove = Command::new(env!("CARGO_BIN_EXE_wushi"));
    let removed = remove.args(["key", "rm", "alice"]).env("WUSHI_HOME", server.folder()).status();
    assert!(removed.expect("the binary runs").success());
    let next = submit(&bob, &request());
    bob.delete(&format!("{VIDEOS}/{running}")).ok();
    digest(&bob, &next);
    assert_eq!(bob.metric("wushi_videos_cancelled_total"), 2.0);
    assert!(server.log().contains("its key was revoked"), "{}", server.log());
    let store = Store::open(server.folder().join("server.sqlite")).expect("a database");
    assert_eq!(store.get(&orphan).expect("a record").status, Status::Cancelled);
}
