//! Models of several files: repositories on a hub, and GGUF in parts.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use crate::support::{Place, Reply, Server, Then, content, impatient, options, sha256};
use wushi_hub::{HubError, ModelRef, Options, Silent, SourceFailure, State, pull};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one repository, `org/model`, that holds these files at [`COMMIT`] and, as a branch, at `main`.
struct Hub {
    server: Server,
    files: BTreeMap<String, Vec<u8>>,
    /// So many bytes of a file are sent, and no more, until it is taken away.
    cut: Arc<Mutex<Option<(String, usize)>>>,
}

impl Hub {
    fn new(files: &[(&str, Vec<u8>)]) -> Hub {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        let cut = Arc::new(Mutex::new(None::<(String, usize)>));
        let (served, broken) = (files.clone(), cut.clone());
        let list = listing(&files);
        let server = Server::start(move |request| {
            let path = request.line.strip_prefix("GET ").unwrap_or_default();
            if path == "/api/models/org/model?blobs=true" {
                return Reply::new("200 OK", &format!("Content-Length: {}\r\n", list.len()), list.as_bytes());
            }
            let name = [COMMIT, "main"]
                .iter()
                .find_map(|revision| path.strip_prefix(&format!("/org/model/resolve/{revision}/")));
            let Some((name, bytes)) = name.and_then(|name| served.get_key_value(name)) else {
                return Reply::new("404 Not Found", "Content-Length: 0\r\n", b"");
            };
            let reply = Reply::file(request, bytes, "\"v1\"");
            match &*broken.lock().expect("no panic") {
                Some((broken, bytes)) if broken == name => {
                    reply.cut(if request.header("range").is_some() { 0 } else { *bytes }, Then::Hang)
                }
                _ => reply,
            }
        });
        Hub { server, files, cut }
    }

    fn options(&self, options: Options) -> Options {
        let mut options = options;
        options.hf_endpoint = format!("http://127.0.0.1:{}", self.server.port);
        options
    }

    /// How often a file was asked for.
    fn asked(&self, name: &str) -> usize {
        self.server
            .seen()
            .iter()
            .filter(|request| request.line.ends_with(&format!("/{COMMIT}/{name}")))
            .count()
    }
}

/// As Hugging Face says it: sizes of all, digests of the large ones.
fn listing(files: &BTreeMap<String, Vec<u8>>) -> String {
    let siblings: Vec<String> = files
        .iter()
        .map(|(name, bytes)| {
            let large = match bytes.len() > 10_000 {
                true => format!(
                    r#","lfs":{{"sha256":"{}","size":{},"pointerSize":1}}"#,
                    sha256(bytes),
                    bytes.len()
                ),
                false => String::new(),
            };
            format!(r#"{{"rfilename":"{name}","size":{},"blobId":"x"{large}}}"#, bytes.len())
        })
        .collect();
    format!(r#"{{"id":"org/model","sha":"{COMMIT}","siblings":[{}]}}"#, siblings.join(","))
}

fn model(given: &str) -> ModelRef {
    ModelRef::parse(given).expect("a reference")
}

/// Safetensors in two parts, what belongs to them, and what does not.
fn folder() -> Hub {
    Hub::new(&[
        ("config.json", content(100, 1)),
        ("tokenizer.json", content(20_000, 2)),
        ("model.safetensors.index.json", content(300, 3)),
        ("model-00001-of-00002.safetensors", content(60_000, 4)),
        ("model-00002-of-00002.safetensors", content(50_000, 5)),
        ("1_Pooling/config.json", content(50, 6)),
        ("pytorch_model.bin", content(90_000, 7)),
        ("onnx/model.onnx", content(90_000, 8)),
    ])
}

const WANTED: [&str; 6] = [
    "1_Pooling/config.json",
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
];

#[test]
fn a_repository_becomes_a_folder_that_is_listed_verified_and_removed() {
    let (hub, place) = (folder(), Place::new());
    let repository = model("hf:org/model");
    let pulled = pull(&place.store, &repository, &hub.options(options()), &Silent).expect("pulled");
    for name in WANTED {
        assert_eq!(fs::read(pulled.path.join(name)).expect(name), hub.files[name], "{name}");
        assert_eq!(hub.asked(name), 1, "{name}");
    }
    assert!(
        hub.server.seen().iter().skip(1).all(|request| request.line.contains(COMMIT)),
        "all from one commit"
    );
    assert_eq!((hub.asked("pytorch_model.bin"), hub.asked("onnx/model.onnx")), (0, 0));
    assert_eq!(place.partials(), [] as [&str; 0]);

    let requests = hub.server.seen().len();
    let again = pull(&place.store, &repository, &hub.options(options()), &Silent).expect("still there");
    assert_eq!((again.path.clone(), again.source), (pulled.path.clone(), None));
    assert_eq!(hub.server.seen().len(), requests, "what is there is not even asked about");
    assert_eq!(place.store.find(&repository), Some(pulled.path.clone()));

    let stored = place.store.list().expect("a list").remove(0);
    let total: u64 = WANTED.iter().map(|name| hub.files[*name].len() as u64).sum();
    assert_eq!((stored.name.as_str(), stored.bytes, &stored.state), ("hf:org/model", total, &State::Sound));
    // A folder of the repository's name, by which people know the model.
    assert_eq!(pulled.path.file_name().and_then(|name| name.to_str()), Some("model"));
    let names: Vec<&str> = stored.files.iter().filter_map(|file| file.name.strip_prefix("model/")).collect();
    assert_eq!(names, WANTED);
    assert!(stored.files.iter().zip(WANTED).all(|(file, name)| file.sha256 == sha256(&hub.files[name])));
    let lines: String = stored.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.name)).collect();
    assert_eq!(stored.sha256, sha256(lines.as_bytes()));

    assert_eq!(place.store.verify(&repository).expect("reads"), Some(true));
    let part = pulled.path.join(WANTED[3]);
    let mut bytes = fs::read(&part).expect("the file");
    bytes[4321] ^= 1;
    fs::write(&part, &bytes).expect("written");
    assert_eq!(place.store.verify(&repository).expect("reads"), Some(false));
    fs::remove_file(&part).expect("removed");
    let damaged = place.store.list().expect("a list").remove(0).state;
    assert_eq!(damaged, State::Damaged(format!("model/{} is gone", WANTED[3])));
    assert_eq!(place.store.find(&repository), None);

    assert_eq!(place.store.remove("hf:org/model").expect("removed"), total - 50_000);
    assert_eq!((place.models(), place.partials()), (vec![], vec![]));
}

#[test]
fn files_that_arrived_before_an_interruption_are_not_fetched_again() {
    let (hub, place) = (folder(), Place::new());
    let repository = model("hf:org/model");
    *hub.cut.lock().expect("no panic") = Some((WANTED[2].to_owned(), 20_000));
    match pull(&place.store, &repository, &hub.options(impatient()), &Silent) {
        Err(HubError::AllSourcesFailed { tried, .. }) => {
            assert!(matches!(tried[0].failure, SourceFailure::Stalled { got: 20_000, .. }), "{tried:?}");
            assert!(tried[0].source.ends_with(WANTED[2]), "{tried:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(place.models(), [] as [&str; 0]);

    *hub.cut.lock().expect("no panic") = None;
    let pulled = pull(&place.store, &repository, &hub.options(options()), &Silent).expect("pulled");
    for name in WANTED {
        assert_eq!(fs::read(pulled.path.join(name)).expect(name), hub.files[name], "{name}");
    }
    assert_eq!(hub.asked("tokenizer.json"), 1);
    assert_eq!(hub.asked(WANTED[3]), 1);
    let last =
        hub.server.seen().into_iter().rfind(|request| request.line.ends_with(WANTED[2])).expect("asked for");
    assert_eq!(last.header("range"), Some("bytes=20000-"));
    assert_eq!(place.partials(), [] as [&str; 0]);
}

#[test]
fn what_an_interrupted_pull_of_several_files_left_can_be_removed() {
    let (hub, place) = (folder(), Place::new());
    *hub.cut.lock().expect("no panic") = Some((WANTED[2].to_owned(), 20_000));
    pull(&place.store, &model("hf:org/model"), &hub.options(impatient()), &Silent).expect_err("it hangs");
    // All but the part that hangs have come, and what is noted about them.
    assert!(place.store.remove("hf:org/model").expect("removed") > 90_000);
    assert_eq!(place.partials(), [] as [&str; 0]);
}

#[test]
fn a_file_that_is_not_the_one_listed_is_refused() {
    let place = Place::new();
    let mut hub = folder();
    let (right, mut wrong) = (hub.files.clone(), hub.files.clone());
    wrong.get_mut("model-00001-of-00002.safetensors").expect("there")[7] ^= 1;
    let list = listing(&right);
    hub.server = Server::start(move |request| {
        if request.line.contains("/api/") {
            return Reply::new("200 OK", &format!("Content-Length: {}\r\n", list.len()), list.as_bytes());
        }
        let name = request.line.split_once(&format!("{COMMIT}/")).map(|(_, name)| name).unwrap_or_default();
        Reply::file(request, &wrong[name], "\"v1\"")
    });
    match pull(&place.store, &model("hf:org/model"), &hub.options(options()), &Silent) {
        Err(HubError::AllSourcesFailed { tried, .. }) => {
            assert!(matches!(tried[0].failure, SourceFailure::WrongDigest { .. }), "{tried:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(place.models(), [] as [&str; 0]);
}

#[test]
fn the_only_gguf_of_a_repository_is_its_model() {
    let hub = Hub::new(&[("q/m.gguf", content(30_000, 9)), ("README.md", content(10, 10))]);
    let place = Place::new();
    let pulled =
        pull(&place.store, &model("hf:org/model"), &hub.options(options()), &Silent).expect("pulled");
    assert_eq!(pulled.path.file_name().and_then(|name| name.to_str()), Some("m.gguf"));
    assert_eq!(fs::read(&pulled.path).expect("the file"), hub.files["q/m.gguf"]);

    let hub = Hub::new(&[("a.gguf", content(10, 1)), ("b.gguf", content(10, 2))]);
    let error = pull(&Place::new().store, &model("hf:org/model"), &hub.options(options()), &Silent);
    let text = error.expect_err("which?").to_string();
    assert!(text.contains("\n  hf:org/model/a.gguf\n  hf:org/model/b.gguf"), "{text}");

    let hub = Hub::new(&[("README.md", content(10, 1))]);
    let error = pull(&Place::new().store, &model("hf:org/model"), &hub.options(options()), &Silent);
    assert!(error.expect_err("nothing").to_string().contains("neither safetensors nor GGUF"));
}

#[test]
fn any_part_of_a_gguf_brings_all() {
    let names = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().map(|name| (*name, content(5000, name.len() as u64))).collect();
    let hub = Hub::new(&files);
    let repository = ["hf:org/model/m-00002-of-00003.gguf".to_owned(), "hf:org/model".to_owned()];
    let address = hub.server.url("org/model/resolve/main/m-00003-of-00003.gguf");
    for given in repository.into_iter().chain([address]) {
        let place = Place::new();
        let pulled = pull(&place.store, &model(&given), &hub.options(options()), &Silent).expect("pulled");
        assert_eq!(pulled.path.file_name().and_then(|name| name.to_str()), Some(names[0]), "{given}");
        for name in names {
            assert_eq!(fs::read(pulled.path.with_file_name(name)).expect(name), hub.files[name]);
        }
        assert_eq!((place.store.list().expect("a list")[0].bytes, pulled.bytes), (15_000, 15_000));
    }
}

#[test]
fn a_list_that_is_none_is_said() {
    for (reply, said) in [
        (("404 Not Found", &b""[..]), "404"),
        (("401 Unauthorized", b""), "HF_TOKEN"),
        (("200 OK", b"<html>"), "no list of files"),
        (("200 OK", b"{\"siblings\":[{\"rfilename\":\"../x.gguf\"}]}"), ""),
    ] {
        let server = Server::start(move |_| {
            Reply::new(reply.0, &format!("Content-Length: {}\r\n", reply.1.len()), reply.1)
        });
        let mut options = options();
        options.hf_endpoint = format!("http://127.0.0.1:{}", server.port);
        let place = Place::new();
        match pull(&place.store, &model("hf:org/model"), &options, &Silent) {
            Err(error) => assert!(error.to_string().contains(said), "{error}"),
            // The address does not exist as a file, but any answer is a file of this server.
            Ok(pulled) => assert!(pulled.path.starts_with(place.store.root()), "{pulled:?}"),
        }
    }
}
