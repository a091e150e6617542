//! Damaged files: an error or an answer, never a panic, and never a flood.

use std::fs;
use std::path::Path;

use crate::support::{Sandbox, tiny};

/// Runs a model that may be damaged. It may answer or fail; it must not crash.
fn survives(sandbox: &Sandbox, path: &Path, what: &str) -> Option<i32> {
    let path = path.display().to_string();
    let outcome = sandbox.run(&["run", &path, "hi", "-n", "2", "--temperature", "0", "-q", "--ctx", "64"]);
    assert!(matches!(outcome.code, Some(0 | 1)), "{what}: {:?}: {}", outcome.code, outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
    assert!(outcome.stderr.lines().count() <= 6 && outcome.stderr.len() < 2000, "{what}: {}", outcome.stderr);
    assert_eq!(outcome.code == Some(1), outcome.stderr.starts_with("error: "), "{what}: {}", outcome.stderr);
    outcome.code
}

/// Where the tensors' bytes begin, by the alignment of 32 and their total.
fn header_length(bytes: &[u8]) -> usize {
    let gguf = wushi_formats::Gguf::from_bytes(bytes.to_vec()).unwrap();
    gguf.tensors().iter().map(|tensor| tensor.range.start).min().unwrap()
}

#[test]
fn truncated_anywhere() {
    let (sandbox, bytes) = (Sandbox::new(), fs::read(tiny()).unwrap());
    let header = header_length(&bytes);
    let lengths =
        [1, 4, 8, 16, 24, 100, header / 2, header - 40, header, header + 1, bytes.len() / 2, bytes.len() - 1];
    for length in lengths {
        let path = sandbox.write("model.gguf", &bytes[..length]);
        assert_eq!(survives(&sandbox, &path, &format!("{length} bytes")), Some(1));
    }
}

#[test]
fn a_flipped_byte_anywhere_in_the_header() {
    let (sandbox, bytes) = (Sandbox::new(), fs::read(tiny()).unwrap());
    let header = header_length(&bytes);
    // Every byte of the fixed part, then one in every stretch, at a position that wanders through the fields.
    let positions = (0..24).chain((24..header).step_by(61));
    let mut refused = 0;
    for (count, position) in positions.enumerate() {
        let mut damaged = bytes.clone();
        damaged[position] ^= [0xff, 0x01, 0x80][count % 3];
        let path = sandbox.write("model.gguf", damaged);
        refused += usize::from(survives(&sandbox, &path, &format!("byte {position}")) == Some(1));
    }
    assert!(refused > 20, "only {refused} damaged headers were refused");
}

#[test]
fn absurd_counts() {
    let (sandbox, bytes) = (Sandbox::new(), fs::read(tiny()).unwrap());
    for (what, at) in [("tensors", 8), ("metadata entries", 16)] {
        for count in [u64::MAX, 1 << 62, 1 << 40, 1 << 31] {
            let mut damaged = bytes.clone();
            damaged[at..at + 8].copy_from_slice(&count.to_le_bytes());
            let path = sandbox.write("model.gguf", damaged);
            assert_eq!(survives(&sandbox, &path, &format!("{count} {what}")), Some(1));
        }
    }
}

/// The file with another number in a metadata entry of 32 bits.
fn with_number(bytes: &[u8], key: &str, value: u32) -> Vec<u8> {
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len() + 4;
    let mut changed = bytes.to_vec();
    changed[at..at + 4].copy_from_slice(&value.to_le_bytes());
    changed
}

#[test]
fn absurd_sizes_in_the_configuration() {
    let (sandbox, bytes) = (Sandbox::new(), fs::read(tiny()).unwrap());
    for key in [
        "llama.block_count",
        "llama.embedding_length",
        "llama.attention.head_count",
        "llama.feed_forward_length",
    ] {
        for value in [0, 1, 1 << 20, u32::MAX] {
            let path = sandbox.write("model.gguf", with_number(&bytes, key, value));
            assert_eq!(survives(&sandbox, &path, &format!("{key} = {value}")), Some(1), "{key} = {value}");
        }
    }
}

#[test]
fn a_configuration_that_contradicts_the_tensors() {
    let (sandbox, bytes) = (Sandbox::new(), fs::read(tiny()).unwrap());
    // Each of these would give an answer, and a wrong one.
    for (key, value, said) in [
        ("llama.block_count", 1, "blk.1."),
        ("llama.rope.dimension_count", 14, "llama.rope.dimension_count"),
        ("llama.attention.head_count", 2, "llama.rope.dimension_count"),
    ] {
        let path = sandbox.write("model.gguf", with_number(&bytes, key, value)).display().to_string();
        let error = sandbox.run(&["run", &path, "hi", "-q"]).error(1);
        assert!(error.contains(said) && error.lines().count() == 1, "{key} = {value}: {error}");
    }
}

#[test]
fn every_damaged_key_name_is_refused() {
    let (sandbox, bytes) = (Sandbox::new(), fs::read(tiny()).unwrap());
    let gguf = wushi_formats::Gguf::from_bytes(bytes.clone()).unwrap();
    let keys = gguf.metadata().iter().map(|(key, _)| key.to_owned());
    for key in keys.filter(|key| key.starts_with("llama.") || key.starts_with("tokenizer.")) {
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
        let mut damaged = bytes.clone();
        damaged[at + key.len() - 1] ^= 0x04;
        let path = sandbox.write("model.gguf", damaged);
        assert_eq!(survives(&sandbox, &path, &key), Some(1), "{key}");
    }
}

#[test]
fn weights_that_are_no_numbers() {
    let (sandbox, mut bytes) = (Sandbox::new(), fs::read(tiny()).unwrap());
    let header = header_length(&bytes);
    bytes[header..].fill(0xff);
    let path = sandbox.write("model.gguf", bytes);
    assert_eq!(survives(&sandbox, &path, "all bits set"), Some(1));
}
