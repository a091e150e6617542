//! `wushi pull`, `list`, `rm`, and models fetched from an address of this machine.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;

use crate::support::{Sandbox, fixture, tiny};

#[test]
fn an_empty_store() {
    let sandbox = Sandbox::new();
    let list = sandbox.json(&["list", "--json"]);
    assert_eq!(list["models"].as_array().unwrap().len(), 0);
    assert!(list["catalogue"].as_array().unwrap().iter().any(|entry| entry["model"] == "smollm2"));
    let table = sandbox.run(&["list"]).ok().stdout;
    assert!(
        table.contains("smollm2") && table.contains("not fetched") && table.contains("Apache-2.0"),
        "{table}"
    );
    assert!(sandbox.run(&["rm", "smollm2"]).error(1).contains("smollm2 is not in the store"));
    assert!(!sandbox.path("home").exists(), "looking creates nothing");
}

#[test]
fn a_file_is_used_where_it_is() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    assert_eq!(sandbox.run(&["pull", &model]).ok().stdout, format!("{model}\n"));
    let pulled = sandbox.json(&["pull", &model, "--json"]);
    assert_eq!(pulled["path"], model.as_str());
    assert!(pulled["source"].is_null());
}

/// Serves the tiny model to any number of requests; gives its address.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/models/tiny.gguf", listener.local_addr().unwrap());
    let body = fs::read(tiny()).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut request).is_ok_and(|read| read > 2) {}
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let whole = !request.starts_with("HEAD");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(if whole { &body } else { &[] });
        }
    });
    address
}

#[test]
fn fetched_listed_answered_removed() {
    let (sandbox, address) = (Sandbox::new(), serve());
    let answer = sandbox.json(&["run", &address, "hello", "-n", "2", "--temperature", "0", "--json"]);
    let local = sandbox.json(&["run", &tiny(), "hello", "-n", "2", "--temperature", "0", "--json"]);
    assert_eq!(answer["logits_digest"], local["logits_digest"]);
    let list = sandbox.json(&["list", "--json"]);
    let stored = &list["models"][0];
    assert_eq!(stored["model"], address.as_str());
    assert_eq!(stored["bytes"].as_u64(), Some(fs::metadata(tiny()).unwrap().len()));
    assert!(stored["path"].as_str().unwrap().starts_with(&*sandbox.path("home").to_string_lossy()));
    assert!(sandbox.json(&["pull", &address, "--json"])["source"].is_null(), "it was here already");
    let removed = sandbox.json(&["rm", &address, "--json"]);
    assert_eq!(removed["freed"], stored["bytes"]);
    assert!(sandbox.run(&["rm", &address]).error(1).contains("not in the store"));
}

/// A hub on this machine whose one repository, `org/tiny`, is a folder of the fixtures; gives its address.
fn serve_repository() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let folder = PathBuf::from(fixture("models/llama-tiny-llama3"));
    let siblings: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| format!(r#"{{"rfilename":"{}"}}"#, entry.unwrap().file_name().to_string_lossy()))
        .collect();
    let list = format!(r#"{{"siblings":[{}]}}"#, siblings.join(","));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut request).is_ok_and(|read| read > 2) {}
            let path = request.split(' ').nth(1).unwrap_or_default();
            let body = match path.strip_prefix("/org/tiny/resolve/main/") {
                Some(name) => fs::read(folder.join(name)).unwrap(),
                None => list.clone().into_bytes(),
            };
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    address
}

#[test]
fn a_repository_is_fetched_listed_answered_removed() {
    let sandbox = Sandbox::new().with("HF_ENDPOINT", &serve_repository());
    let args = ["hello", "-n", "4", "--temperature", "0", "--json"];
    let answer = sandbox.json(&[&["run", "hf:org/tiny"][..], &args].concat());
    let local = sandbox.json(&[&["run", &fixture("models/llama-tiny-llama3")][..], &args].concat());
    assert_eq!(answer["logits_digest"], local["logits_digest"]);
    let stored = sandbox.json(&["list", "--json"])["models"][0].clone();
    assert_eq!((&stored["model"], &stored["damage"]), (&"hf:org/tiny".into(), &serde_json::Value::Null));
    assert!(stored["files"].as_array().unwrap().iter().any(|file| file["file"] == "tiny/model.safetensors"));
    let path = stored["path"].as_str().unwrap();
    assert_eq!(sandbox.run(&["pull", "hf:org/tiny"]).ok().stdout, format!("{path}\n"));
    // A file that has changed since is fetched again.
    fs::write(format!("{path}/tokenizer.json"), fs::read(format!("{path}/config.json")).unwrap()).unwrap();
    let config = fs::read(format!("{path}/config.json")).unwrap();
    fs::write(format!("{path}/config.json"), [&config[1..], b" "].concat()).unwrap();
    sandbox.run(&["pull", "hf:org/tiny"]).ok();
    assert_eq!(fs::read(format!("{path}/config.json")).unwrap(), config);
    assert_eq!(sandbox.json(&["rm", "hf:org/tiny", "--json"])["freed"], stored["bytes"]);
    assert_eq!(sandbox.json(&["list", "--json"])["models"].as_array().unwrap().len(), 0);
}

#[test]
fn an_address_that_nobody_answers() {
    let sandbox = Sandbox::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/m.gguf", listener.local_addr().unwrap());
    drop(listener);
    let error = sandbox.run(&["run", &address, "hello", "-q"]).error(1);
    assert!(error.contains(&address) && error.contains("cannot reach"), "{error}");
    assert_eq!(sandbox.json(&["list", "--json"])["models"].as_array().unwrap().len(), 0);
}
