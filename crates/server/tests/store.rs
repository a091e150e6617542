//! The database: keys, limits, usage, records.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;
use wushi_engine::Sampling;
use wushi_server::store::{
    AuditRecord, Choice, ConstraintRecord, Digest, EmbeddingRecord, Ending, Exact, Key, Limit, Limits,
    Loading, Parameters, Prompt, SamplingRecord, Status, Store, StoreError, Text, VideoRecord, day, unix_ms,
};

fn new() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path().join("server.sqlite")).unwrap();
    (folder, store)
}

fn again(folder: &TempDir) -> Store {
    Store::open(folder.path().join("server.sqlite")).unwrap()
}

/// A record of a chat with these many tokens.
fn record(id: &str, key: Option<&str>, time: u64, prompt: usize, completion: u32) -> AuditRecord {
    let ids: Vec<u32> = (0..prompt as u32).collect();
    AuditRecord {
        id: id.to_owned(),
        time,
        key: key.map(str::to_owned),
        endpoint: "/v1/chat/completions".to_owned(),
        model: "tiny".to_owned(),
        model_digest: None,
        fingerprint: Digest::of_text("tiny"),
        loading: Loading { reference: "./tiny.gguf".to_owned(), context: 64, ..Loading::default() },
        parameters: Parameters::default(),
        prompts: vec![Prompt::of(&ids)],
        choices: vec![Choice {
            prompt: 0,
            choice: 0,
            completion_tokens: completion,
            ending: Some(Ending::Length),
            digest: None,
        }],
        cached_tokens: 1,
        queue_ms: 2,
        ttft_ms: Some(3),
        total_ms: 4,
        status: Status::Ok,
        text: None,
    }
}

fn valid(store: &Store, secret: &str) -> Option<Key> {
    store.authenticate(secret).unwrap()
}

/// Waits until what another connection did is seen, at most a second.
fn within_a_second(condition: impl Fn() -> bool) {
    let start = Instant::now();
    loop {
        let asked = start.elapsed();
        if condition() {
            return;
        }
        assert!(asked < Duration::from_secs(1), "not seen within a second");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_key_is_made_used_removed_and_made_again() {
    let (folder, store) = new();
    assert!(!store.has_keys().unwrap() && store.keys().unwrap().is_empty());
    let limits = Limits { requests_per_minute: Some(5), tokens_per_day: Some(u64::MAX) };
    let new = store.add_key("bob", limits).unwrap();
    assert!(new.secret.starts_with(&format!("wk-{}-", new.id)) && !format!("{new:?}").contains(&new.secret));
    assert!(store.has_keys().unwrap(), "what this process did is seen at once");
    let key = valid(&store, &new.secret).unwrap();
    assert_eq!((&*key.name, &*key.id, key.limits.requests_per_minute), ("bob", &*new.id, Some(5)));
    assert_eq!(key.limits.tokens_per_day, Some(i64::MAX as u64));
    let taken = store.add_key("bob", Limits::default()).unwrap_err();
    assert!(matches!(&taken, StoreError::KeyExists { name } if name == "bob"), "{taken}");

    // The secret stands nowhere in the file.
    store.record_and_wait(record("a", Some(&new.id), 1000, 3, 4)).unwrap();
    drop(store);
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let random = new.secret.rsplit('-').next().unwrap().as_bytes();
        assert!(!bytes.windows(random.len()).any(|window| window == random));
    }

    let store = again(&folder);
    assert_eq!(valid(&store, &new.secret).unwrap().name, key.name);
    let removed = store.remove_key("bob").unwrap();
    assert!(removed.id == new.id && removed.revoked.is_some());
    assert!(valid(&store, &new.secret).is_none());
    assert!(matches!(store.remove_key("bob"), Err(StoreError::NoKey { .. })));
    let second = store.add_key("bob", Limits::default()).unwrap();
    assert!(valid(&store, &second.secret).is_some());
    assert!(valid(&store, &new.secret).is_none());
    assert_eq!(store.keys().unwrap().len(), 2);
    assert_eq!(store.usage(0).unwrap()[0].name.as_deref(), Some("bob"));
    assert_eq!(store.get("a").unwrap().key.as_deref(), Some(&*new.id));
}

#[test]
fn what_another_process_does_to_keys_is_seen_within_a_second() {
    let (folder, store) = new();
    let other = again(&folder);
    assert!(!store.has_keys().unwrap());
    let new = other.add_key("bob", Limits::default()).unwrap();
    within_a_second(|| valid(&store, &new.secret).is_some());
    other.remove_key("bob").unwrap();
    within_a_second(|| valid(&store, &new.secret).is_none());
    assert!(!store.has_keys().unwrap());
}

#[test]
fn a_panic_in_what_is_told_stops_nothing() {
    let (_folder, store) = new();
    store.record(record("a", None, 5, 1, 1), |_| panic!("on purpose"));
    store.record_and_wait(record("b", None, 5, 1, 1)).unwrap();
    assert_eq!(store.list(9, None).unwrap().len(), 2);
}

#[test]
fn names_stay_on_their_line() {
    let (_folder, store) = new();
    for bad in ["", " bob", "bob ", "a\nb", "\u{1b}[2J", &"x".repeat(65)] {
        let error = store.add_key(bad, Limits::default()).unwrap_err();
        assert!(matches!(error, StoreError::BadName { .. }), "{error}");
        assert!(!error.to_string().chars().any(char::is_control));
    }
    store.add_key("Zoë 中文", Limits::default()).unwrap();
}

#[test]
fn what_is_no_secret_is_refused() {
    let (_folder, store) = new();
    let new = store.add_key("bob", Limits::default()).unwrap();
    let wrong = |secret: &str| assert_eq!(valid(&store, secret), None, "{secret}");
    for bad in ["", "wk-", "wk--", &new.id, &new.secret[1..], "sk-1", "wk-é-é"] {
        wrong(bad);
    }
    wrong(&format!("{} ", new.secret));
    wrong(&new.secret.to_uppercase());
    wrong(&new.secret.replace("wk-", "wk-0"));
    for index in 0..new.secret.len() {
        let mut other = new.secret.clone().into_bytes();
        other[index] = if other[index] == b'0' { b'1' } else { b'0' };
        wrong(&String::from_utf8(other).unwrap());
    }
    let other = store.add_key("eve", Limits::default()).unwrap();
    // One key's id with another's secret.
    wrong(&format!("wk-{}-{}", new.id, other.secret.rsplit('-').next().unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn keys_come_back_as_they_were_made(
        names in prop::collection::btree_set("[a-zé中][ a-z0-9_.@-]{0,20}[a-z]", 1..6),
        requests in prop::option::of(any::<u32>()),
        tokens in prop::option::of(0..=i64::MAX as u64),
        noise in ".{0,120}",
    ) {
        let (folder, store) = new();
        let limits = Limits { requests_per_minute: requests, tokens_per_day: tokens };
        let made: Vec<_> = names.iter().map(|name| store.add_key(name, limits).unwrap()).collect();
        drop(store);
        let store = again(&folder);
        for (name, new) in names.iter().zip(&made) {
            let key = valid(&store, &new.secret).unwrap();
            prop_assert_eq!((&*key.id, &*key.name, key.limits), (&*new.id, name.as_str(), limits));
        }
        prop_assert_eq!(valid(&store, &noise), None);
        let listed: Vec<String> = store.keys().unwrap().into_iter().map(|key| key.name).collect();
        prop_assert_eq!(listed, names.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn requests_per_minute() {
    let (_folder, store) = new();
    let new = store.add_key("bob", Limits { requests_per_minute: Some(2), tokens_per_day: None }).unwrap();
    let key = valid(&store, &new.secret).unwrap();
    let now = unix_ms();
    let admit = |at| store.admit(&key, now + at).unwrap();
    assert!(admit(0).is_ok() && admit(10_000).is_ok());
    let limited = admit(20_500).unwrap_err();
    assert_eq!(
        (limited.what, limited.retry_after),
        (Limit::RequestsPerMinute(2), Duration::from_millis(39_500))
    );
    assert_eq!(limited.retry_after_seconds(), 40);
    assert_eq!(limited.to_string(), "this key may make 2 requests a minute; try again in 40 s");
    assert!(admit(60_000).is_ok() && admit(60_001).is_err());
}

#[test]
fn tokens_per_day() {
    let (folder, store) = new();
    let new = store.add_key("bob", Limits { requests_per_minute: None, tokens_per_day: Some(20) }).unwrap();
    let key = valid(&store, &new.secret).unwrap();
    let noon = 20_000 * 86_400_000 + 43_200_000;
    assert!(store.admit(&key, noon).unwrap().is_ok());
    // What is given to be written counts at once.
    let (sender, receiver) = channel();
    store.record(record("a", Some(&key.id), noon, 10, 9), move |result| sender.send(result).unwrap());
    assert!(store.admit(&key, noon).unwrap().is_ok());
    receiver.recv().unwrap().unwrap();
    assert!(store.admit(&key, noon).unwrap().is_ok());
    store.record_and_wait(record("b", Some(&key.id), noon, 1, 0)).unwrap();
    let limited = store.admit(&key, noon).unwrap().unwrap_err();
    assert_eq!((limited.what, limited.retry_after), (Limit::TokensPerDay(20), Duration::from_secs(43_200)));
    // A restart forgets nothing, and the next day begins anew.
    drop(store);
    let store = again(&folder);
    assert!(store.admit(&key, noon).unwrap().is_err());
    assert!(store.admit(&key, noon + 43_199_999).unwrap().is_err());
    assert!(store.admit(&key, noon + 43_200_000).unwrap().is_ok());
    // A request that ends after midnight counts for the day it ends on.
    let mut late = record("c", Some(&key.id), noon + 43_199_999, 30, 0);
    late.total_ms = 1;
    store.record_and_wait(late).unwrap();
    assert!(store.admit(&key, noon + 43_200_000).unwrap().is_err());
}

#[test]
fn tokens_of_another_process_count() {
    let (folder, store) = new();
    let new = store.add_key("bob", Limits { requests_per_minute: None, tokens_per_day: Some(20) }).unwrap();
    let other = again(&folder);
    let key = valid(&store, &new.secret);
    let (key, now) = (key.unwrap(), unix_ms());
    assert!(store.admit(&key, now).unwrap().is_ok());
    let mut used = record("a", Some(&key.id), now, 20, 0);
    used.total_ms = 0;
    other.record_and_wait(used).unwrap();
    std::thread::sleep(Duration::from_millis(1050));
    assert!(store.admit(&key, now).unwrap().is_err());
}

#[test]
fn usage_adds_up_by_key_and_day() {
    let (_folder, store) = new();
    let [bob, eve] = ["bob", "eve"].map(|name| store.add_key(name, Limits::default()).unwrap().id);
    let noon = |day: u64| day * 86_400_000 + 43_200_000;
    for (id, key, day) in [
        ("1", Some(&bob), 7),
        ("2", Some(&bob), 7),
        ("3", Some(&eve), 7),
        ("4", None, 7),
        ("5", None, 8),
        ("6", None, 8),
    ] {
        store.record_and_wait(record(id, key.map(String::as_str), noon(day), 10, 5)).unwrap();
    }
    let rows: Vec<_> = store
        .usage(7)
        .unwrap()
        .into_iter()
        .map(|row| {
            (row.day, row.name, row.requests, row.prompt_tokens, row.cached_tokens, row.completion_tokens)
        })
        .collect();
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(
        rows,
        [
            (8, None, 2, 20, 2, 10),
            (7, None, 1, 10, 1, 5),
            (7, name("bob"), 2, 20, 2, 10),
            (7, name("eve"), 1, 10, 1, 5)
        ]
    );
    let by_key = store.usage_by_key(0).unwrap();
    assert_eq!(by_key.len(), 3);
    assert_eq!((by_key[0].key.as_deref(), by_key[0].requests, by_key[0].day), (None, 3, 8));
    assert_eq!(store.usage_by_key(8).unwrap().len(), 1);
    assert_eq!(day(noon(7)), 7);
}

/// A record in which nothing is what it would be by default.
fn full() -> AuditRecord {
    let sampling = Sampling {
        temperature: 0.1 + 0.2,
        top_k: 40,
        top_p: 0.95,
        min_p: f32::MIN_POSITIVE,
        repetition_penalty: 1.1,
        presence_penalty: -2.0,
        frequency_penalty: 1e-7,
        logit_bias: vec![(7, f32::NEG_INFINITY), (8, -0.0), (151_935, 100.0)],
    };
    AuditRecord {
        model_digest: Some("ab".repeat(32)),
        loading: Loading {
            reference: "hf:org/repo".to_owned(),
            context: 32_768,
            quant: Some("q4_k".to_owned()),
            cache: "q8_0".to_owned(),
            rope_scaling: Some("yarn".to_owned()),
            decoder: Some("f16".to_owned()),
            arithmetic: 1,
            version: "0.1.0".to_owned(),
        },
        parameters: Parameters {
            sampling: SamplingRecord::from(&sampling),
            seed: u64::MAX,
            n: 2,
            max_tokens: Some(17),
            stop_tokens: vec![2, 151_645],
            stop_strings: vec![Digest::of_text("\n\n")],
            constraint: Some(ConstraintRecord { kind: "regex".to_owned(), digest: Digest::of_text("[ab]+") }),
            embedding: Some(EmbeddingRecord {
                pooling: "mean".to_owned(),
                normalised: true,
                dimensions: Some(256),
            }),
            video: Some(VideoRecord {
                width: 832,
                height: 480,
                frames: 81,
                fps: 16,
                steps: 50,
                shift: Exact(3.000_000_2),
                guidance: Exact(-0.0),
                guidance_low: Some(Exact(1e-7)),
                boundary: None,
                sampler: "unipc".to_owned(),
                spacing: "training".to_owned(),
                timesteps: "floor".to_owned(),
                negative: Digest::of_text("blurry"),
                format: "mp4".to_owned(),
            }),
        },
        prompts: vec![Prompt::of(&[1, 2, 3]), Prompt::of(&[])],
        choices: vec![
            Choice {
                prompt: 0,
                choice: 0,
                completion_tokens: 2,
                ending: Some(Ending::StopToken(2)),
                digest: Some(Digest::of_numbers(&[1.0, -0.0])),
            },
            Choice {
                prompt: 1,
                choice: 1,
                completion_tokens: 1,
                ending: Some(Ending::StopString(0)),
                digest: None,
            },
            Choice { prompt: 1, choice: 2, completion_tokens: 0, ending: None, digest: None },
        ],
        ttft_ms: None,
        status: Status::Failed("a weight is not finite".to_owned()),
        text: Some(Text {
            prompts: vec![vec![1, 2, 3], vec![]],
            completions: vec![vec![127, 128], vec![u32::MAX], vec![]],
            stop_strings: vec!["\n\n".to_owned(), String::new()],
            constraint: Some("[ab]+ é".to_owned()),
            prefix: Some(String::new()),
            video: Some(["a river".to_owned(), String::new()]),
        }),
        ..record("chatcmpl-1", None, 1_700_000_000_123, 0, 0)
    }
}

#[test]
fn records_come_back_to_the_bit() {
    let (folder, store) = new();
    let record = full();
    store.record_and_wait(record.clone()).unwrap();
    drop(store);
    let store = again(&folder);
    let back = store.get("chatcmpl-1").unwrap();
    assert_eq!(back, record);
    assert_eq!(back.parameters.sampling.logit_bias[1].1.0.to_bits(), (-0.0f32).to_bits());
    assert_eq!(SamplingRecord::from(&Sampling::from(&back.parameters.sampling)), record.parameters.sampling);
    assert_eq!((back.prompt_tokens(), back.completion_tokens()), (3, 3));
    let error = store.get("chatcmpl-2\n").unwrap_err();
    assert!(
        matches!(error, StoreError::NoRecord { .. }) && error.to_string().lines().count() == 1,
        "{error}"
    );
}

proptest! {
    #[test]
    fn numbers_keep_every_bit(bits: u32) {
        let number = f32::from_bits(bits);
        prop_assume!(!number.is_nan());
        let sampling = Sampling { temperature: number, logit_bias: vec![(1, number)], ..Sampling::default() };
        let json = serde_json::to_string(&SamplingRecord::from(&sampling)).unwrap();
        let back: SamplingRecord = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(Sampling::from(&back).temperature.to_bits(), bits);
        prop_assert_eq!(Sampling::from(&back).logit_bias[0].1.to_bits(), bits);
    }

    #[test]
    fn texts_come_back(
        prompts in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..20), 0..4),
        completions in prop::collection::vec(prop::collection::vec(0..200_000u32, 0..20), 0..4),
        stop_strings in prop::collection::vec(".*", 0..3),
        constraint in prop::option::of(".*"),
        prefix in prop::option::of(".*"),
        video in prop::option::of([".*", ".*"]),
        cut: prop::sample::Index,
    ) {
        let text = Text { prompts, completions, stop_strings, constraint, prefix, video };
        let bytes = text.to_bytes();
        prop_assert_eq!(Text::from_bytes(&bytes), Some(text));
        prop_assert_eq!(Text::from_bytes(&bytes[..cut.index(bytes.len())]), None);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(form in 1..=2u8, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        bytes.insert(0, form);
        if let Some(text) = Text::from_bytes(&bytes) {
            prop_assert_eq!(Text::from_bytes(&text.to_bytes()), Some(text));
        }
    }
}

#[test]
fn lists_come_in_pages() {
    let (_folder, store) = new();
    for id in ["a", "b", "c", "d", "e"] {
        store.record_and_wait(record(id, None, 5, 1, 1)).unwrap();
    }
    let ids = |limit, before: Option<&str>| -> Vec<String> {
        store.list(limit, before).unwrap().into_iter().map(|record| record.id).collect()
    };
    assert_eq!(ids(2, None), ["e", "d"]);
    assert_eq!(ids(2, Some("d")), ["c", "b"]);
    assert_eq!(ids(usize::MAX, Some("b")), ["a"]);
    assert!(ids(0, None).is_empty());
    assert!(matches!(store.list(1, Some("x")), Err(StoreError::NoRecord { .. })));
}

#[test]
fn one_bad_record_does_not_take_others_with_it() {
    let (_folder, store) = new();
    store.record_and_wait(record("a", None, 5, 1, 1)).unwrap();
    let (sender, receiver) = channel();
    let records =
        [record("b", None, 5, 1, 1), record("a", None, 5, 100, 1), record("c", Some("nobody"), 5, 1, 1)];
    for record in records.into_iter().chain([record("d", None, 5, 1, 1)]) {
        let (id, sender) = (record.id.clone(), sender.clone());
        store.record(record, move |result| sender.send((id, result.is_ok())).unwrap());
    }
    let mut results: Vec<_> = receiver.iter().take(4).collect();
    results.sort();
    let ok = |id: &str, ok| (id.to_owned(), ok);
    assert_eq!(results, [ok("a", false), ok("b", true), ok("c", false), ok("d", true)]);
    assert_eq!(store.list(9, None).unwrap().len(), 3);
    let usage = &store.usage(0).unwrap()[0];
    assert_eq!((usage.requests, usage.prompt_tokens), (3, 3), "a record that is refused is not counted");
    assert!(matches!(
        store.record_and_wait(record("a", None, 5, 1, 1)),
        Err(StoreError::RecordExists { .. })
    ));
}

#[test]
fn old_records_leave_nothing_behind() {
    let (folder, store) = new();
    let secret = "what somebody wrote and does not want to be kept";
    for index in 0..2500u64 {
        let mut record = record(&format!("id-{index}"), None, index, 1, 1);
        record.text = Some(Text { prefix: Some(secret.to_owned()), ..Text::default() });
        store.record(record, |result| result.unwrap());
    }
    assert_eq!(store.prune(2499).unwrap(), 2499);
    assert_eq!(store.prune(2499).unwrap(), 0);
    assert_eq!(store.list(9, None).unwrap()[0].id, "id-2499");
    assert_eq!(store.prune(u64::MAX).unwrap(), 1);
    assert_eq!(store.usage(0).unwrap()[0].requests, 2500);
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{}", path.display());
    }
}

#[test]
fn dropping_writes_what_waits() {
    let (folder, store) = new();
    for index in 0..1000 {
        store.record(record(&format!("id-{index}"), None, 5, 1, 1), |result| result.unwrap());
    }
    drop(store);
    assert_eq!(again(&folder).usage(0).unwrap()[0].requests, 1000);
}

#[test]
fn many_threads_at_once() {
    let (_folder, store) = new();
    let store = Arc::new(store);
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let new = store.add_key(&format!("key {thread}"), Limits::default()).unwrap();
                for index in 0..50 {
                    let id = format!("{thread}-{index}");
                    store.record_and_wait(record(&id, Some(&new.id), 5, 1, 1)).unwrap();
                    assert_eq!(store.get(&id).unwrap().id, id);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(store.usage(0).unwrap().iter().all(|usage| usage.requests == 50));
}

#[cfg(unix)]
#[test]
fn only_this_user_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, store) = new();
    store.record_and_wait(full()).unwrap();
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), 3, "the log and its index are there too");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
    }
}

fn open_error(path: &std::path::Path) -> String {
    let error = Store::open(path).unwrap_err().to_string();
    assert!(error.lines().count() == 1 && error.contains(&path.display().to_string()), "{error}");
    error
}

#[test]
fn files_that_are_none_of_ours_stay_as_they_are() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    let text = "no database, but long enough to have a header of a hundred bytes like one. ".repeat(4);
    std::fs::write(&path, &text).unwrap();
    assert!(open_error(&path).contains("not an SQLite file"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

    std::fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE keys (x); PRAGMA user_version = 1").unwrap();
    drop(other);
    let before = std::fs::read(&path).unwrap();
    assert!(open_error(&path).contains("another program"));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    assert!(open_error(folder.path()).contains("a folder"));
    assert!(Store::open_existing(folder.path().join("absent")).unwrap().is_none());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let below = path.join("server.sqlite");
    assert!(open_error(&below).contains("cannot open"));
}

#[test]
fn a_later_schema_is_left_alone() {
    let (folder, store) = new();
    let path = store.path().to_owned();
    drop(store);
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 1000).unwrap();
    let error = open_error(&path);
    assert!(error.contains("schema 1000") && error.contains("newer wushi"), "{error}");
    drop(folder);
}

#[test]
fn damage_is_said() {
    let (_folder, store) = new();
    store.record_and_wait(full()).unwrap();
    let other = rusqlite::Connection::open(store.path()).unwrap();
    for (column, value) in [
        ("text", "x'0109'"),
        ("status", "'fine'"),
        ("choices", "'{}'"),
        ("fingerprint", "'abc'"),
        ("parameters", "'{\"seed\": -1}'"),
    ] {
        let saved: rusqlite::types::Value =
            other.query_row(&format!("SELECT {column} FROM audit"), [], |row| row.get(0)).unwrap();
        other.execute(&format!("UPDATE audit SET {column} = {value}"), []).unwrap();
        let error = store.get("chatcmpl-1").unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{column}: {error}");
        assert!(error.to_string().contains("chatcmpl-1"), "{error}");
        assert!(store.list(1, None).is_err());
        other.execute(&format!("UPDATE audit SET {column} = ?"), [saved]).unwrap();
    }
    assert_eq!(store.get("chatcmpl-1").unwrap(), full());
}
