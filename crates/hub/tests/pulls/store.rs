//! The store under several processes, kills, full disks and damage.

use crate::support::{Place, Reply, Server, Then, at, content, entry, impatient, options};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use wushi_hub::{HubError, ModelRef, Progress, Silent, State, Store, pull};

const ETAG: &str = "\"v1\"";
/// Address and store, for a copy of this test program that other tests run.
const CHILD_URL: &str = "WUSHI_HUB_TEST_URL";
const CHILD_STORE: &str = "WUSHI_HUB_TEST_STORE";

/// Pulls in its own process when another test runs it so, and from its own server otherwise.
#[test]
fn a_process_pulls() {
    let place = Place::new();
    let server = Server::start(|request| Reply::file(request, &content(1000, 1), ETAG));
    let url = std::env::var(CHILD_URL).unwrap_or_else(|_| server.url("m.gguf"));
    let root = std::env::var_os(CHILD_STORE).map_or(place.store.root().to_path_buf(), PathBuf::from);
    let store = Store::open(root).expect("a store");
    let model = ModelRef::parse(&url).expect("a reference");
    let pulled = pull(&store, &model, &options(), &Silent).expect("pulled");
    assert_eq!(store.find(&model), Some(pulled.path));
}

fn child(url: &str, store: &Store) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    // Its test harness would mix its lines with ours.
    command.stdout(Stdio::null());
    command
        .args(["store::a_process_pulls", "--exact", "--quiet"])
        .env(CHILD_URL, url)
        .env(CHILD_STORE, store.root());
    command
}

/// Waits for something another process does; gives up after a minute.
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if happened() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain until {what}");
}

#[test]
fn a_killed_process_leaves_nothing_visible_and_the_next_goes_on() {
    let file = content(300_000, 2);
    let served = file.clone();
    let server = Server::start(move |request| {
        let reply = Reply::file(request, &served, ETAG);
        if request.number == 0 { reply.cut(200_000, Then::Hang) } else { reply }
    });
    let place = Place::new();
    let url = server.url("m.gguf");
    let mut process = child(&url, &place.store).spawn().expect("a process");
    until("200000 bytes have come", || place.partial_len() == Some(200_000));
    assert!(matches!(place.store.remove(&url), Err(HubError::Busy { .. })));
    process.kill().expect("killed");
    process.wait().expect("gone");

    assert_eq!(place.models(), [] as [&str; 0]);
    assert_eq!(place.store.list().expect("a list"), []);
    let model = ModelRef::parse(&url).expect("a reference");
    let pulled = pull(&place.store, &model, &options(), &Silent).expect("pulled");
    assert_eq!(fs::read(pulled.path).expect("the file"), file);
    assert_eq!(server.seen()[1].header("range"), Some("bytes=200000-"));
}

#[test]
fn what_an_interrupted_pull_left_can_be_removed() {
    let file = content(1000, 3);
    let server = Server::start(move |request| {
        let bytes = if request.number == 0 { 400 } else { 0 };
        Reply::file(request, &file, ETAG).cut(bytes, Then::Hang)
    });
    let place = Place::new();
    let url = server.url("m.gguf");
    let model = ModelRef::parse(&url).expect("a reference");
    pull(&place.store, &model, &impatient(), &Silent).expect_err("it hangs");
    assert_eq!(place.partial_len(), Some(400));
    // Those bytes, and what is noted about them.
    assert!(place.store.remove(&url).expect("removed") > 400);
    assert_eq!(place.partials(), [] as [&str; 0]);
}

/// A server whose file comes in two halves, the second when `go` is set.
fn in_two_halves(file: Vec<u8>) -> (Server, Arc<AtomicBool>) {
    let go = Arc::new(AtomicBool::new(false));
    let flag = go.clone();
    let server = Server::start(move |request| {
        while !flag.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        Reply::file(request, &file, ETAG)
    });
    (server, go)
}

#[test]
fn two_threads_fetch_once() {
    let file = content(100_000, 4);
    let (server, go) = in_two_halves(file.clone());
    let place = Place::new();
    let model = entry(&file, vec![at(server.url("m.gguf"))]);
    let (store, reference) = (place.store.clone(), model.clone());
    let first = thread::spawn(move || pull(&store, &reference, &options(), &Silent));
    until("the first asks", || !server.seen().is_empty());

    /// Tells when the second says that it waits.
    struct Waits(mpsc::Sender<String>);
    impl Progress for Waits {
        fn message(&self, text: &str) {
            self.0.send(text.to_owned()).expect("the test listens");
        }
        fn start(&self, _: &str, _: Option<u64>, _: u64) {}
        fn advance(&self, _: u64) {}
        fn finish(&self) {}
    }
    let (says, hears) = mpsc::channel();
    let store = place.store.clone();
    let second = thread::spawn(move || pull(&store, &model, &options(), &Waits(says)));
    let said = hears.recv_timeout(Duration::from_secs(60)).expect("the second says something");
    assert!(said.contains("another process") && said.contains("tiny"), "{said}");
    go.store(true, Ordering::SeqCst);

    let first = first.join().expect("no panic").expect("pulled");
    let second = second.join().expect("no panic").expect("pulled");
    assert_eq!(fs::read(&first.path).expect("the file"), file);
    assert_eq!((second.path, second.source), (first.path, None));
    assert_eq!(server.seen().len(), 1);
    assert_eq!(place.partials(), [] as [&str; 0]);
}

#[test]
fn four_processes_fetch_once() {
    let file = content(100_000, 5);
    let (server, go) = in_two_halves(file.clone());
    let place = Place::new();
    let url = server.url("m.gguf");
    let processes: Vec<_> = (0..4).map(|_| child(&url, &place.store).spawn().expect("a process")).collect();
    until("one asks", || !server.seen().is_empty());
    go.store(true, Ordering::SeqCst);
    for mut process in processes {
        assert!(process.wait().expect("its end").success());
    }
    assert_eq!(server.seen().len(), 1);
    let path = place.store.find(&ModelRef::parse(&url).expect("a reference")).expect("there");
    assert_eq!(fs::read(path).expect("the file"), file);
}

#[test]
fn a_kill_just_before_the_end_costs_no_second_download() {
    let file = content(1000, 6);
    let served = file.clone();
    let server = Server::start(move |request| Reply::file(request, &served, ETAG));
    let place = Place::new();
    let model = entry(&file, vec![at(server.url("m.gguf"))]);
    let ModelRef::Catalogue(known) = model else { panic!("a catalogue entry") };
    // The moment between moving the file into its folder and showing the folder.
    let stage = place.store.root().join("partial").join(format!("{}.stage", known.sha256));
    fs::create_dir_all(&stage).expect("a folder");
    fs::write(stage.join(known.file_name), &file).expect("a file");
    let pulled = pull(&place.store, &model, &options(), &Silent).expect("pulled");
    assert_eq!(fs::read(pulled.path).expect("the file"), file);
    assert_eq!(server.seen().len(), 0);
    assert_eq!(place.partials(), [] as [&str; 0]);
}

#[test]
fn a_file_that_cannot_fit_is_refused_before_it_is_fetched() {
    let server = Server::start(|_| Reply::new("200 OK", "Content-Length: 1000000000000000000\r\n", b""));
    let place = Place::new();
    let model = ModelRef::parse(&server.url("m.gguf")).expect("a reference");
    match pull(&place.store, &model, &options(), &Silent) {
        Err(
            error @ HubError::NoSpace { needed: Some(1_000_000_000_000_000_000), available: Some(_), .. },
        ) => {
            assert!(error.to_string().contains("are free"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((place.models(), place.partials()), (vec![], vec![]));
}

/// `/dev/full` takes a file's place and is as full as a disk can be.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_given_back() {
    let file = content(300_000, 7);
    let served = file.clone();
    let server = Server::start(move |request| Reply::file(request, &served, ETAG));
    let place = Place::new();
    let model = entry(&file, vec![at(server.url("m.gguf")), at(server.url("n.gguf"))]);
    let ModelRef::Catalogue(known) = model else { panic!("a catalogue entry") };
    let folder = place.store.root().join("partial");
    fs::create_dir_all(&folder).expect("a folder");
    std::os::unix::fs::symlink("/dev/full", folder.join(format!("{}.part", known.sha256))).expect("a link");
    let error = pull(&place.store, &model, &options(), &Silent).expect_err("no room");
    assert!(matches!(error, HubError::NoSpace { .. }), "{error:?}");
    assert!(error.to_string().contains("disk is full"), "{error}");
    assert_eq!((place.models(), place.partials()), (vec![], vec![]));
    assert_eq!(server.seen().len(), 1, "another source would not help");

    let pulled = pull(&place.store, &model, &options(), &Silent).expect("there is room now");
    assert_eq!(fs::read(pulled.path).expect("the file"), file);
}

#[test]
fn damage_is_listed_repaired_by_a_pull_and_removable() {
    let file = content(1000, 8);
    let served = file.clone();
    let server = Server::start(move |request| Reply::file(request, &served, ETAG));
    let place = Place::new();
    let model = entry(&file, vec![at(server.url("m.gguf"))]);
    let path = pull(&place.store, &model, &options(), &Silent).expect("pulled").path;
    let state = |store: &Store| store.list().expect("a list").remove(0).state;
    let damaged = |store: &Store| match state(store) {
        State::Damaged(why) => why,
        State::Sound => panic!("it counts as sound"),
    };
    let folder = path.parent().expect("a folder").to_path_buf();
    let record = folder.join(".wushi.json");
    let good = fs::read_to_string(&record).expect("a record");

    assert_eq!(state(&place.store), State::Sound);
    fs::write(&path, b"short").expect("written");
    assert!(damaged(&place.store).contains("5 bytes instead of 1000"));
    assert_eq!(place.store.find(&model), None);
    fs::remove_file(&path).expect("removed");
    assert!(damaged(&place.store).contains("gone"));
    fs::create_dir(&path).expect("a folder");
    assert!(damaged(&place.store).contains("something else"));
    fs::write(&record, good.replace("tiny.gguf", "../../tiny.gguf")).expect("written");
    assert!(damaged(&place.store).contains("no file name"));
    for text in ["", "{", "[]", "{\"name\": 3}"] {
        fs::write(&record, text).expect("written");
        assert!(damaged(&place.store).contains(".wushi.json"));
    }
    fs::remove_file(&record).expect("removed");
    assert!(damaged(&place.store).contains(".wushi.json"));

    let again = pull(&place.store, &model, &options(), &Silent).expect("pulled again");
    assert_eq!(fs::read(again.path).expect("the file"), file);
    assert_eq!(state(&place.store), State::Sound);

    fs::write(&record, "{").expect("written");
    place.store.remove("tiny").expect("a damaged one can go, by its folder's name");
    assert_eq!(place.models(), [] as [&str; 0]);
    // What else lies around is no model and no reason to fail.
    fs::write(place.store.root().join("models").join(".DS_Store"), b"x").expect("written");
    assert_eq!(place.store.list().expect("a list"), []);
}

#[test]
fn a_changed_file_of_the_same_size_does_not_verify() {
    let place = Place::new();
    let server = Server::start(|request| Reply::file(request, &content(5000, 7), ETAG));
    let model = ModelRef::parse(&server.url("m.gguf")).expect("a reference");
    assert_eq!(place.store.verify(&model).expect("reads"), None);
    let pulled = pull(&place.store, &model, &options(), &Silent).expect("pulled");
    assert_eq!(place.store.verify(&model).expect("reads"), Some(true));
    let mut bytes = fs::read(&pulled.path).expect("the file");
    bytes[4321] ^= 1;
    fs::write(&pulled.path, bytes).expect("written");
    assert_eq!(place.store.verify(&model).expect("reads"), Some(false));
}

#[test]
fn removing_what_is_not_there_says_what_is() {
    let file = content(10, 9);
    let served = file.clone();
    let server = Server::start(move |request| Reply::file(request, &served, ETAG));
    let place = Place::new();
    let text = |store: &Store| store.remove("gone").expect_err("it is not there").to_string();
    assert!(text(&place.store).contains("nothing yet"));
    pull(&place.store, &entry(&file, vec![at(server.url("m"))]), &options(), &Silent).expect("pulled");
    assert!(text(&place.store).contains("gone") && text(&place.store).contains("tiny"));
    assert!(!place.store.root().join("partial").join("gone").exists());
}

#[test]
fn a_new_digest_under_an_old_name_is_fetched() {
    let (old, new) = (content(10, 10), content(20, 11));
    let served = (old.clone(), new.clone());
    let server = Server::start(move |request| {
        Reply::file(request, if request.line.ends_with("old") { &served.0 } else { &served.1 }, ETAG)
    });
    let place = Place::new();
    pull(&place.store, &entry(&old, vec![at(server.url("old"))]), &options(), &Silent).expect("pulled");
    let current = entry(&new, vec![at(server.url("new"))]);
    assert_eq!(place.store.find(&current), None);
    let pulled = pull(&place.store, &current, &options(), &Silent).expect("pulled");
    assert_eq!(fs::read(pulled.path).expect("the file"), new);
    assert_eq!(place.store.list().expect("a list").len(), 1);
}

#[test]
fn a_path_is_used_where_it_is() {
    let place = Place::new();
    let path = place.folder.path().join("m.gguf");
    let model = ModelRef::Path(path.clone());
    let get = |model: &ModelRef| pull(&place.store, model, &options(), &Silent);
    assert!(matches!(get(&model), Err(HubError::NoSuchFile { .. })));
    fs::write(&path, b"x").expect("written");
    assert_eq!(get(&model).expect("there").path, path);
    let folder = get(&ModelRef::Path(place.folder.path().into())).expect("there");
    assert_eq!((folder.path.as_path(), folder.bytes), (place.folder.path(), 1));
    assert!(!place.store.root().exists(), "nothing is created for it");
}
