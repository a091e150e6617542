//! Checkpoints: models in several files, tensors that are parts of others.

use std::fs;
use std::path::{Path, PathBuf};

use wushi_formats::gguf::Writer;
use wushi_formats::{Checkpoint, Gguf};
use wushi_graph::{DType, WeightSource};

/// Part `part` (from 0) of `parts`, with one tensor of its own.
fn part(part: u16, parts: u16, change: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.set("split.no", part).set("split.count", parts).set("split.tensors.count", i32::from(parts));
    if part == 0 {
        writer.set("general.architecture", "llama").set("general.name", "cut");
    }
    change(&mut writer);
    writer.tensor(format!("t{part}"), DType::F32, &[8], vec![part as u8; 32]).unwrap();
    writer.to_bytes().unwrap()
}

fn name(part: u16, parts: u16) -> String {
    format!("m-{:05}-of-{parts:05}.gguf", part + 1)
}

/// A folder with a model in three parts.
fn three() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for no in 0..3 {
        fs::write(folder.path().join(name(no, 3)), part(no, 3, |_| {})).unwrap();
    }
    folder
}

fn refused(path: &Path) -> String {
    Checkpoint::open_gguf(path).unwrap_err().to_string()
}

fn identity(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut all = Vec::new();
    checkpoint.identify(&mut |bytes| all.extend_from_slice(bytes));
    all
}

#[test]
fn any_part_opens_the_whole_model() {
    let folder = three();
    let mut whole = Writer::new();
    whole.set("general.architecture", "llama").set("general.name", "cut");
    for no in 0..3u8 {
        whole.tensor(format!("t{no}"), DType::F32, &[8], vec![no; 32]).unwrap();
    }
    let whole = Checkpoint::from_gguf(Gguf::from_bytes(whole.to_bytes().unwrap()).unwrap());
    for no in 0..3 {
        let joined = Checkpoint::open_gguf(folder.path().join(name(no, 3))).unwrap();
        joined.check_supported().unwrap();
        assert_eq!(joined.metadata(), whole.metadata());
        assert_eq!(joined.tensors(), whole.tensors());
        assert_eq!(identity(&joined), identity(&whole));
        for tensor in whole.tensors() {
            assert_eq!(joined.read(&tensor.name), whole.read(&tensor.name), "{}", tensor.name);
            joined.release(&tensor.name);
        }
        let files: Vec<PathBuf> = joined.files().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(files, [0, 1, 2].map(|no| folder.path().join(name(no, 3))));
    }
}

#[test]
fn parts_that_are_missing_or_foreign_are_named() {
    let folder = three();
    let path = |no| folder.path().join(name(no, 3));
    let put = |no, bytes: Vec<u8>| fs::write(path(no), bytes).unwrap();

    put(1, part(2, 3, |_| {}));
    let error = refused(&path(0));
    assert!(
        error.contains(&name(1, 3)) && error.contains("its name says part 2, but it says part 3 of 3"),
        "{error}"
    );

    put(
        1,
        part(1, 3, |writer| {
            writer.set("general.name", "other");
        }),
    );
    let error = refused(&path(0));
    assert!(error.contains("belongs to another model: its `general.name` differs"), "{error}");

    put(
        1,
        part(1, 3, |writer| {
            writer.tensor("t0", DType::F32, &[8], vec![0; 32]).unwrap();
        }),
    );
    assert!(refused(&path(0)).contains("4 tensors where 3 were expected"));

    put(
        1,
        part(1, 3, |writer| {
            writer.set("split.tensors.count", 4i32);
        }),
    );
    assert!(refused(&path(0)).contains("`split.tensors.count` differs"));

    let whole = |no: u8| {
        let mut writer = Writer::new();
        writer.tensor(format!("t{no}"), DType::F32, &[8], vec![no; 32]).unwrap();
        writer.to_bytes().unwrap()
    };
    put(1, whole(1));
    assert!(refused(&path(0)).contains("does not say which part"));

    fs::remove_file(path(1)).unwrap();
    fs::remove_file(path(2)).unwrap();
    let error = refused(&path(0));
    assert!(
        error.contains("one of 3 parts") && error.contains(&name(1, 3)) && error.contains(&name(2, 3)),
        "{error}"
    );

    let renamed = folder.path().join("model.gguf");
    fs::rename(path(0), &renamed).unwrap();
    assert!(refused(&renamed).contains("-00001-of-00003.gguf"));
}

#[test]
fn a_tensor_of_two_parts_is_refused() {
    let folder = three();
    let twice = |no: u16| {
        let mut writer = Writer::new();
        writer.set("split.no", no).set("split.count", 2u16);
        writer.tensor("same", DType::F32, &[8], vec![0; 32]).unwrap();
        fs::write(folder.path().join(name(no, 2)), writer.to_bytes().unwrap()).unwrap();
    };
    (0..2).for_each(twice);
    let error = refused(&folder.path().join(name(0, 2)));
    assert!(error.contains("`same` appears twice"), "{error}");
}
