//! Pulls over HTTP from servers that behave, and from servers that do not.

use crate::support::{Log, Place, Reply, Server, Then, at, content, entry, impatient, options, sha256};
use std::net::TcpListener;
use std::time::Duration;
use wushi_hub::{HubError, ModelRef, Silent, Source, SourceFailure, pull};

const ETAG: &str = "\"v1\"";

fn failures(result: Result<wushi_hub::Pulled, HubError>) -> Vec<SourceFailure> {
    match result {
        Err(HubError::AllSourcesFailed { tried, .. }) => {
            tried.into_iter().map(|attempt| attempt.failure).collect()
        }
        other => panic!("expected failed sources, got {other:?}"),
    }
}

#[test]
fn an_address_is_fetched_once_recorded_listed_and_removed() {
    let file = content(300_000, 1);
    let served = file.clone();
    let server = Server::start(move |request| Reply::file(request, &served, ETAG));
    let place = Place::new();
    let model = ModelRef::parse(&server.url("dir/m.gguf?x=1")).expect("a reference");

    assert_eq!(place.store.find(&model), None);
    assert_eq!(place.store.list().expect("an empty list"), []);
    let log = Log::default();
    let pulled = pull(&place.store, &model, &options(), &log).expect("pulled");
    assert_eq!(std::fs::read(&pulled.path).expect("the file"), file);
    assert_eq!(pulled.sha256.as_deref(), Some(sha256(&file).as_str()));
    assert_eq!(pulled.path.file_name().and_then(|name| name.to_str()), Some("m.gguf"));
    assert_eq!(
        *log.stretches.lock().expect("no panic"),
        [("downloading".to_owned(), Some(300_000), 300_000)]
    );

    let again = pull(&place.store, &model, &options(), &Silent).expect("still there");
    assert_eq!((again.path, again.source), (pulled.path.clone(), None));
    assert_eq!(server.seen().len(), 1, "what is there is not fetched again");
    assert_eq!(place.partials(), [] as [&str; 0]);

    let listed = place.store.list().expect("a list");
    let [stored] = listed.as_slice() else { panic!("one model: {listed:?}") };
    assert_eq!(stored.name, model.to_string());
    assert_eq!((stored.bytes, &stored.sha256), (300_000, &sha256(&file)));
    assert!(stored.fetched > 1_700_000_000 && stored.licence.is_none());

    assert_eq!(place.store.remove(&stored.name).expect("removed"), 300_000);
    assert_eq!(place.store.find(&model), None);
    assert_eq!((place.models(), place.partials()), (vec![], vec![]));
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let file = content(300_000, 2);
    let served = file.clone();
    let server = Server::start(move |request| {
        let reply = Reply::file(request, &served, ETAG);
        if request.number == 0 { reply.cut(100_000, Then::Close) } else { reply }
    });
    let place = Place::new();
    let model = ModelRef::parse(&server.url("m.gguf")).expect("a reference");
    let pulled = pull(&place.store, &model, &options(), &Log::default()).expect("pulled");
    assert_eq!(std::fs::read(pulled.path).expect("the file"), file);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].header("range"), Some("bytes=100000-"));
    assert_eq!(seen[1].header("if-range"), Some(ETAG));
}

#[test]
fn a_later_pull_goes_on_where_an_earlier_one_was() {
    let file = content(300_000, 3);
    let served = file.clone();
    // Hangs at first, so that the first pull ends; then sends the rest.
    let server = Server::start(move |request| {
        let reply = Reply::file(request, &served, ETAG);
        match request.number {
            0 => reply.cut(100_000, Then::Hang),
            1 => reply.cut(0, Then::Hang),
            _ => reply,
        }
    });
    let place = Place::new();
    let model = ModelRef::parse(&server.url("m.gguf")).expect("a reference");
    let failed = failures(pull(&place.store, &model, &impatient(), &Silent));
    assert!(matches!(failed.as_slice(), [SourceFailure::Stalled { got: 100_000, .. }]), "{failed:?}");
    assert_eq!(place.partial_len(), Some(100_000), "kept");
    assert_eq!(place.models(), [] as [&str; 0], "not visible");
    assert_eq!(place.store.find(&model), None);

    let log = Log::default();
    let pulled = pull(&place.store, &model, &options(), &log).expect("pulled");
    assert_eq!(std::fs::read(pulled.path).expect("the file"), file);
    assert_eq!(server.seen()[2].header("range"), Some("bytes=100000-"));
    assert_eq!(
        *log.stretches.lock().expect("no panic"),
        [("downloading".to_owned(), Some(300_000), 300_000)],
        "the bar starts at what is here"
    );
}

#[test]
fn a_server_that_ignores_ranges_is_taken_from_the_start() {
    let file = content(300_000, 4);
    let served = file.clone();
    let server = Server::start(move |request| {
        let whole = Reply::new("200 OK", "ETag: \"v1\"\r\nContent-Length: 300000\r\n", &served);
        if request.number == 0 { whole.cut(70_000, Then::Close) } else { whole }
    });
    let place = Place::new();
    let model = ModelRef::parse(&server.url("m.gguf")).expect("a reference");
    let pulled = pull(&place.store, &model, &options(), &Silent).expect("pulled");
    assert_eq!(std::fs::read(pulled.path).expect("the file"), file);
    assert_eq!(server.seen()[1].header("range"), Some("bytes=70000-"));
}

#[test]
fn a_file_that_changed_meanwhile_is_not_glued_to_the_old_one() {
    let (old, new) = (content(300_000, 5), content(200_000, 6));
    let served = new.clone();
    let server = Server::start(move |request| match request.number {
        0 => Reply::file(request, &old, ETAG).cut(100_000, Then::Close),
        _ => Reply::file(request, &served, "\"v2\""),
    });
    let place = Place::new();
    let model = ModelRef::parse(&server.url("m.gguf")).expect("a reference");
    let pulled = pull(&place.store, &model, &options(), &Silent).expect("pulled");
    assert_eq!(std::fs::read(pulled.path).expect("the file"), new);
}

#[test]
fn without_validator_or_digest_nothing_is_resumed() {
    let file = content(300_000, 7);
    let served = file.clone();
    let server = Server::start(move |request| {
        let whole = Reply::new("200 OK", "ETag: W/\"weak\"\r\nContent-Length: 300000\r\n", &served);
        if request.number == 0 { whole.cut(70_000, Then::Close) } else { whole }
    });
    let place = Place::new();
    let model = ModelRef::parse(&server.url("m.gguf")).expect("a reference");
    let failed = failures(pull(&place.store, &model, &options(), &Silent));
    assert!(
        matches!(failed.as_slice(), [SourceFailure::Truncated { got: 70_000, expected: Some(300_000), .. }]),
        "{failed:?}"
    );
    assert_eq!(place.models(), [] as [&str; 0]);
    let pulled = pull(&place.store, &model, &options(), &Silent).expect("pulled");
    assert_eq!(std::fs::read(pulled.path).expect("the file"), file);
    assert_eq!(server.seen()[1].header("range"), None);
}

#[test]
fn a_wrong_range_or_wrong_old_bytes_start_again() {
    let file = content(300_000, 8);
    let served = file.clone();
    let wrong_range = Server::start(move |request| match request.number {
        0 => Reply::file(request, &served, ETAG).cut(100_000, Then::Close),
        1 => {
            let headers = "Content-Length: 1\r\nContent-Range: bytes 7-7/300000\r\n";
            Reply::new("206 Partial Content", headers, b"x")
        }
        _ => Reply::file(request, &served, ETAG),
    });
    let place = Place::new();
    let model = entry(&file, vec![at(wrong_range.url("m.gguf"))]);
    let pulled = pull(&place.store, &model, &options(), &Silent).expect("pulled");
    assert_eq!(std::fs::read(pulled.path).expect("the file"), file);
    assert_eq!(wrong_range.seen().len(), 3);

    // The first source's bytes are wrong; the second is asked for the rest, which then does not fit.
    let (bad, good) = (content(300_000, 9), file.clone());
    let first = Server::start(move |request| Reply::file(request, &bad, ETAG).cut(100_000, Then::Hang));
    let second = Server::start(move |request| Reply::file(request, &good, ETAG));
    let place = Place::new();
    let model = entry(&file, vec![at(first.url("m.gguf")), at(second.url("m.gguf"))]);
    let pulled = pull(&place.store, &model, &impatient(), &Silent).expect("pulled");
    assert_eq!(std::fs::read(pulled.path).expect("the file"), file);
    let ranges: Vec<_> = second.seen().iter().map(|request| request.header("range").is_some()).collect();
    assert_eq!(ranges, [true, false]);
}

#[test]
fn a_wrong_digest_goes_to_the_next_source_and_leaves_nothing() {
    let (wrong, right) = (content(100_000, 10), content(100_000, 11));
    let served = (wrong.clone(), right.clone());
    let liar = Server::start(move |request| Reply::file(request, &served.0, ETAG));
    let honest = Server::start(move |request| Reply::file(request, &served.1, ETAG));
    let place = Place::new();

    let only_liar = entry(&right, vec![at(liar.url("m.gguf"))]);
    let error = pull(&place.store, &only_liar, &options(), &Silent).expect_err("a wrong digest");
    let text = error.to_string();
    for part in [&liar.url("m.gguf"), &sha256(&wrong), &sha256(&right)] {
        assert!(text.contains(part.as_str()), "{part} in {text}");
    }
    assert_eq!((place.models(), place.partials()), (vec![], vec![]));

    let both = entry(&right, vec![at(liar.url("m.gguf")), at(honest.url("m.gguf"))]);
    let log = Log::default();
    let pulled = pull(&place.store, &both, &options(), &log).expect("pulled");
    assert_eq!(std::fs::read(pulled.path).expect("the file"), right);
    assert_eq!(pulled.source, Some(honest.url("m.gguf")));
    let messages = log.messages.lock().expect("no panic").join("\n");
    assert!(messages.contains(&sha256(&wrong)) && messages.contains("trying"), "{messages}");
    let listed = place.store.list().expect("a list");
    assert_eq!(listed[0].licence.as_deref(), Some("CC0-1.0"));
}

#[test]
fn every_source_is_named_with_its_reason_on_a_line() {
    let file = content(1000, 12);
    let missing = Server::start(|_| Reply::new("404 Not Found", "Content-Length: 0\r\n", b""));
    let gated = Server::start(|_| Reply::new("401 Unauthorized", "Content-Length: 0\r\n", b""));
    let short = Server::start(|_| Reply::new("200 OK", "Content-Length: 3\r\n", b"abc"));
    let endless = Server::start(|_| Reply::new("200 OK", "", b"abc"));
    let no_http =
        Server::start(|_| Reply { head: "SSH-2.0-x\r\n\r\n".into(), body: vec![], then: Then::Close });
    let mute = Server::start(|_| Reply { head: String::new(), body: vec![], then: Then::Hang });
    let packed = Server::start(|_| {
        Reply::new("200 OK", "Content-Encoding: gzip\r\nContent-Length: 1000\r\n", &[0; 1000])
    });
    // A port that nothing listens on.
    let refused =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let refused = format!("http://{refused}/m");
    let urls: Vec<String> = [&missing, &gated, &short, &no_http, &mute, &packed]
        .iter()
        .map(|server| server.url("m"))
        .chain([refused])
        .collect();
    let place = Place::new();
    let model = entry(&file, urls.iter().cloned().map(at).collect());
    let mut quick = options();
    quick.respond = Duration::from_secs(1);
    let error = pull(&place.store, &model, &quick, &Silent).expect_err("nothing works");
    let text = error.to_string();
    assert_eq!(text.lines().count(), 2 + urls.len(), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.contains("HF_ENDPOINT")), "{text}");
    for (line, (url, reason)) in text.lines().skip(1).zip(urls.iter().zip([
        "404",
        "HF_TOKEN",
        "3 bytes where 1000",
        "no sense",
        "no answer within 1 s",
        "gzip",
        "refused",
    ])) {
        assert!(line.contains(url.as_str()) && line.contains(reason), "{reason} in {line}");
    }
    assert_eq!((place.models(), place.partials()), (vec![], vec![]));

    let model = ModelRef::parse(&endless.url("m.gguf")).expect("a reference");
    let failed = failures(pull(&place.store, &model, &options(), &Silent));
    assert!(matches!(failed.as_slice(), [SourceFailure::NoLength]), "{failed:?}");
}

#[test]
fn a_body_in_chunks_has_its_own_end() {
    let file = content(5, 13);
    let mut body = b"5\r\n".to_vec();
    body.extend(&file);
    body.extend(b"\r\n0\r\n\r\n");
    let server = Server::start(move |request| {
        let whole = Reply::new("200 OK", "Transfer-Encoding: chunked\r\n", &body);
        if request.number == 0 { whole.cut(8, Then::Close) } else { whole }
    });
    let place = Place::new();
    let model = ModelRef::parse(&server.url("m.gguf")).expect("a reference");
    let failed = failures(pull(&place.store, &model, &options(), &Silent));
    assert!(matches!(failed.as_slice(), [SourceFailure::Truncated { .. }]), "{failed:?}");
    let pulled = pull(&place.store, &model, &options(), &Silent).expect("pulled");
    assert_eq!(std::fs::read(pulled.path).expect("the file"), file);
}

/// An endpoint that speaks Hugging Face's protocol: a redirection that says what the file is.
fn endpoint(target: String, bytes: usize, sha256: String) -> Server {
    Server::start(move |_| {
        let headers = format!(
            "Location: {target}\r\nX-Linked-Size: {bytes}\r\nX-Linked-ETag: \"{sha256}\"\r\nContent-Length: 0\r\n"
        );
        Reply::new("302 Found", &headers, b"")
    })
}

#[test]
fn hugging_face_says_the_digest_and_the_token_stays_with_it() {
    let file = content(50_000, 14);
    let served = file.clone();
    let store = Server::start(move |request| Reply::file(request, &served, ETAG));
    let hub = endpoint(store.url("blob"), file.len(), sha256(&file));
    let mut options = options();
    options.hf_endpoint = format!("http://127.0.0.1:{}", hub.port);
    options.hf_token = Some("hf_secret".to_owned());

    let place = Place::new();
    let model = ModelRef::parse("hf:org/repo/sub/m 1.gguf").expect("a reference");
    let pulled = pull(&place.store, &model, &options, &Silent).expect("pulled");
    assert_eq!(std::fs::read(pulled.path).expect("the file"), file);
    assert_eq!(hub.seen()[0].line, "GET /org/repo/resolve/main/sub/m%201.gguf");
    assert_eq!(hub.seen()[0].header("authorization"), Some("Bearer hf_secret"));
    assert_eq!(store.seen()[0].header("authorization"), None);
    assert_eq!(place.store.list().expect("a list")[0].name, "hf:org/repo/sub/m 1.gguf");

    // The bytes are not those that the digest was promised for.
    let hub = endpoint(store.url("blob"), file.len(), sha256(b"other"));
    options.hf_endpoint = format!("http://127.0.0.1:{}", hub.port);
    let other = ModelRef::parse("hf:org/repo/other.gguf").expect("a reference");
    let failed = failures(pull(&place.store, &other, &options, &Silent));
    assert!(matches!(failed.as_slice(), [SourceFailure::WrongDigest { .. }]), "{failed:?}");

    // What the catalogue wants is not what is announced: not a byte is transferred.
    let before = store.seen().len();
    let repo = Source::HuggingFace { repo: "org/repo".into(), file: "m.gguf".into() };
    let changed = entry(&content(50_000, 15), vec![repo]);
    let failed = failures(pull(&place.store, &changed, &options, &Silent));
    assert!(matches!(failed.as_slice(), [SourceFailure::WrongDigest { .. }]), "{failed:?}");
    assert_eq!(place.partials(), [] as [&str; 0]);
    assert_eq!(store.seen().len(), before + 1);
}

#[test]
fn redirections_end_and_do_not_leave_safety() {
    let place = Place::new();
    let away = Server::start(|_| {
        Reply::new("302 Found", "Location: http://example.org/m\r\nContent-Length: 0\r\n", b"")
    });
    let round = Server::start(|_| Reply::new("307 On", "Location: /m.gguf\r\nContent-Length: 0\r\n", b""));
    for (server, requests) in [(&away, 1), (&round, 6)] {
        let model = ModelRef::parse(&server.url("m.gguf")).expect("a reference");
        let failed = failures(pull(&place.store, &model, &options(), &Silent));
        assert!(matches!(failed.as_slice(), [SourceFailure::Redirect { .. }]), "{failed:?}");
        assert_eq!(server.seen().len(), requests);
    }
    let mut plain = options();
    plain.hf_endpoint = "http://mirror.example".to_owned();
    let model = ModelRef::parse("hf:org/repo/m.gguf").expect("a reference");
    let failed = failures(pull(&place.store, &model, &plain, &Silent));
    assert!(failed[0].to_string().contains("without TLS"), "{failed:?}");
}

#[test]
fn the_proxy_is_asked_for_other_machines_and_not_for_this_one() {
    let file = content(1000, 16);
    let served = file.clone();
    let server = Server::start(move |request| Reply::file(request, &served, ETAG));
    let proxy = Server::start(|_| Reply::new("403 Forbidden", "Content-Length: 0\r\n", b""));
    let mut options = options();
    options.proxy = Some(format!("http://127.0.0.1:{}", proxy.port));
    let place = Place::new();

    let local = ModelRef::parse(&server.url("m.gguf")).expect("a reference");
    pull(&place.store, &local, &options, &Silent).expect("pulled");
    assert_eq!(proxy.seen().len(), 0);

    let remote = ModelRef::parse("https://models.invalid/m.gguf").expect("a reference");
    let failed = failures(pull(&place.store, &remote, &options, &Silent));
    assert!(matches!(failed.as_slice(), [SourceFailure::Unreachable { .. }]), "{failed:?}");
    assert_eq!(proxy.seen()[0].line, "CONNECT models.invalid:443");

    options.no_proxy = vec!["invalid".to_owned()];
    let failed = failures(pull(&place.store, &remote, &options, &Silent));
    assert!(matches!(failed.as_slice(), [SourceFailure::Unreachable { .. }]), "{failed:?}");
    assert_eq!(proxy.seen().len(), 1);
}
