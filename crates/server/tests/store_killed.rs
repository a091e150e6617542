//! A process that is killed at any instant loses no record that it was told to be written, and leaves a database that opens.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use wushi_server::store::{
    AuditRecord, Digest, Limits, Loading, Parameters, Prompt, Status, Store, StoreError, Text,
};

/// Tells a process of this test that it is a child: the database, then the first number of its records.
const DATABASE: &str = "STORE_TEST_DATABASE";
const ROUND: &str = "STORE_TEST_ROUND";

fn record(id: String, key: &str) -> AuditRecord {
    let ids: Vec<u32> = (0..200).collect();
    AuditRecord {
        id,
        time: 1_700_000_000_000,
        key: Some(key.to_owned()),
        endpoint: "/v1/completions".to_owned(),
        model: "tiny".to_owned(),
        model_digest: None,
        fingerprint: Digest::of_text("tiny"),
        loading: Loading::default(),
        parameters: Parameters::default(),
        prompts: vec![Prompt::of(&ids)],
        choices: Vec::new(),
        cached_tokens: 0,
        queue_ms: 0,
        ttft_ms: None,
        total_ms: 0,
        status: Status::Ok,
        text: Some(Text { prompts: vec![ids], ..Text::default() }),
    }
}

/// Not a test of its own: what the children do, until they are killed.
#[test]
fn child() {
    let (Ok(database), Ok(round)) = (std::env::var(DATABASE), std::env::var(ROUND)) else { return };
    let store = Arc::new(Store::open(&database).unwrap());
    // The test runner has begun a line.
    say(format_args!("\nopen"));
    let key = match store.keys().unwrap().into_iter().next() {
        Some(key) => key.id,
        None => store.add_key("0", Limits::default()).unwrap().id,
    };
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (store, key, round) = (Arc::clone(&store), key.clone(), round.clone());
            thread::spawn(move || {
                for index in 0.. {
                    let id = format!("{round}-{thread}-{index}");
                    store.record_and_wait(record(id.clone(), &key)).unwrap();
                    say(format_args!("wrote {id}"));
                    // Changes of keys and removals of records are cut off, too.
                    if index % 16 == 7 {
                        let name = format!("{round}-{thread}-{index}");
                        store.add_key(&name, Limits::default()).unwrap();
                        say(format_args!("added {name}"));
                        store.remove_key(&name).unwrap();
                        say(format_args!("removed {name}"));
                        store.prune(1000).unwrap();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A line in one write, so that none is mixed with another.
fn say(line: std::fmt::Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush()).is_err() {
        // The test has ended without killing this child.
        std::process::exit(1);
    }
}

fn start(database: &Path, round: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DATABASE, database)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lines of a child, from its first word on until it is killed, which is after `life`.
fn until_killed(mut child: Child, life: Duration) -> Vec<String> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n').map(|line| line.unwrap());
    // The test runner says things of its own.
    let open = lines.find(|line| line == b"open");
    assert!(open.is_some(), "the database does not open: {:?}", child.wait());
    let killer = thread::spawn(move || {
        thread::sleep(life);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let said = lines.map(|line| String::from_utf8(line).unwrap()).collect();
    killer.join().unwrap();
    said
}

fn sound(database: &Path) {
    let connection = rusqlite::Connection::open(database).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let broken: i64 =
        connection.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)).unwrap();
    assert_eq!(broken, 0);
    // A record and its usage are written together.
    let select = "SELECT (SELECT count(*) FROM audit), (SELECT coalesce(sum(requests), 0) FROM usage)";
    let counts: (i64, i64) = connection.query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(counts.0, counts.1);
}

#[test]
fn killed_at_any_instant() {
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("server.sqlite");
    let secret = Store::open(&database).unwrap().add_key("0", Limits::default()).unwrap().secret;
    let mut written = 0;
    for round in 0..20 {
        // From the very first transaction to some hundreds of them.
        let life = Duration::from_micros(round as u64 * round as u64 * 300);
        let said = until_killed(start(&database, round), life);
        sound(&database);
        let store = Store::open(&database).unwrap();
        assert!(store.authenticate(&secret).unwrap().is_some());
        let keys = store.keys().unwrap();
        let key = |name: &str| keys.iter().find(|key| key.name == name);
        for line in &said {
            match line.split_once(' ') {
                Some(("wrote", id)) => {
                    written += 1;
                    assert_eq!(store.get(id).unwrap(), record(id.to_owned(), &key("0").unwrap().id));
                }
                Some(("added", name)) => assert!(key(name).is_some()),
                Some(("removed", name)) => assert!(key(name).unwrap().revoked.is_some()),
                _ => panic!("{line}"),
            }
        }
    }
    assert!(written > 0, "nothing was ever written");
}

#[test]
fn killed_while_it_is_created() {
    for round in 0..20 {
        let folder = TempDir::new().unwrap();
        let database = folder.path().join("new").join("server.sqlite");
        let mut child = start(&database, round);
        // Some find no file yet, some an empty one, some a log without a checkpoint.
        while !database.exists() {
            thread::sleep(Duration::from_micros(100));
        }
        thread::sleep(Duration::from_micros(round as u64 * 100));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(&database).unwrap();
        store.add_key("bob", Limits::default()).unwrap();
        sound(&database);
    }
}

#[test]
fn two_processes_at_once() {
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("server.sqlite");
    let store = Store::open(&database).unwrap();
    let key = store.add_key("0", Limits::default()).unwrap().id;
    let children = [1, 2].map(|round| {
        let mut child = start(&database, round);
        thread::spawn(move || {
            let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
            let said: Vec<String> = lines.filter(|line| line.starts_with("wrote ")).take(50).collect();
            child.kill().unwrap();
            child.wait().unwrap();
            said
        })
    });
    for index in 0..50 {
        store.record_and_wait(record(format!("0-{index}"), &key)).unwrap();
        store.add_key(&format!("0-{index}"), Limits::default()).unwrap();
        assert!(matches!(store.get("nothing"), Err(StoreError::NoRecord { .. })));
    }
    for child in children {
        let said = child.join().unwrap();
        assert_eq!(said.len(), 50);
        for line in said {
            store.get(line.trim_start_matches("wrote ")).unwrap();
        }
    }
    sound(&database);
}

/// Many processes meet at a file that is not there yet.
#[test]
fn created_by_many_at_once() {
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("server.sqlite");
    let threads: Vec<_> = (0..8)
        .map(|index| {
            let database = database.clone();
            thread::spawn(move || {
                Store::open(database).unwrap().add_key(&index.to_string(), Limits::default()).unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(Store::open(&database).unwrap().keys().unwrap().len(), 8);
}
