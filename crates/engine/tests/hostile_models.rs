//! Files whose models nobody should trust: planned or refused, and soon.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use wushi_engine::load::{DescribeError, describe};
use wushi_formats::gguf::{StringArray, Writer};
use wushi_formats::{Checkpoint, Gguf};
use wushi_graph::DType;

mod exercise;

use exercise::{exercise, exercise_folder};

/// The files of a folder that end in `.gguf`, in order.
fn files(folder: &str) -> Vec<PathBuf> {
    files_of(folder, "gguf")
}

fn files_of(folder: &str, kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == kind)).collect();
    files.sort();
    files
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a file")
}

fn open(bytes: Vec<u8>) -> Gguf {
    Gguf::from_bytes(bytes).expect("a sound file")
}

/// What `work` gives, which must come without a panic and within a time that even a slow machine keeps.
fn soon<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    match result.recv_timeout(Duration::from_secs(30)) {
        Ok(value) => value,
        Err(error) => panic!("{what}: it panicked, or it hangs: {error}"),
    }
}

/// A file like `gguf`, to be changed.
fn copy(gguf: &Gguf) -> Writer<'_> {
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        writer.set(key, value.clone());
    }
    for tensor in gguf.tensors() {
        let bytes = gguf.tensor_bytes(tensor);
        writer.tensor(tensor.name.as_str(), tensor.ggml_type, &tensor.shape, bytes).expect("it was sound");
    }
    writer
}

#[test]
fn the_fuzz_corpus() {
    let corpus = files("fuzz/corpus/gguf");
    assert!(corpus.len() >= 40, "the corpus shrank");
    for path in corpus {
        let (what, bytes) = (path.display().to_string(), read(&path));
        soon(&what, move || exercise(&bytes));
    }
}

#[test]
fn the_fuzz_corpus_of_folders() {
    let corpus = files_of("fuzz/corpus/folder", "bin");
    assert!(corpus.len() >= 20, "the corpus shrank");
    for path in corpus {
        let (what, bytes) = (path.display().to_string(), read(&path));
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let planned = soon(&what, move || exercise_folder(&bytes));
        assert!(!name.starts_with("valid-") || planned, "{name} should be planned");
        assert!(!name.starts_with("bad-") || !planned, "{name} should be refused");
    }
}

#[test]
fn flipped_bytes_of_folders() {
    for path in files_of("fuzz/corpus/folder", "bin") {
        let (name, bytes) = (path.display().to_string(), read(&path));
        // The configuration and the header of the weights.
        let header = bytes.len().min(2200);
        soon(&name, move || {
            let mut bytes = bytes;
            for (count, place) in (0..header).step_by(3).enumerate() {
                let pattern = [0x01, 0x80, 0x08][count % 3];
                bytes[place] ^= pattern;
                exercise_folder(&bytes);
                bytes[place] ^= pattern;
            }
        });
    }
}

#[test]
fn flipped_bytes_in_the_header() {
    for path in files("tests/fixtures/models") {
        let (name, bytes) = (path.display().to_string(), read(&path));
        assert!(exercise(&bytes), "{name} is sound");
        let data = open(bytes.clone()).tensors().iter().map(|tensor| tensor.range.start).min();
        let data = data.expect("tensors");
        soon(&name, move || {
            let mut bytes = bytes;
            // Prime to all fields' lengths, so that the places wander through them.
            for (count, place) in (0..data).step_by(3).enumerate() {
                let pattern = [0x01, 0x80, 0xff][count / 3 % 3];
                bytes[place] ^= pattern;
                exercise(&bytes);
                bytes[place] ^= pattern;
            }
        });
    }
}

/// The metadata of the smallest attention there can be, with this many layers.
fn narrow(layers: u32) -> Writer<'static> {
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama").set("llama.block_count", layers);
    for key in ["embedding_length", "feed_forward_length", "rope.dimension_count"] {
        writer.set(format!("llama.{key}"), 2u32);
    }
    writer.set("llama.context_length", 64u32).set("llama.attention.head_count", 1u32);
    writer.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    writer
}

fn floats(writer: &mut Writer<'_>, name: String, shape: &[usize]) {
    let bytes = vec![0; shape.iter().product::<usize>() * 4];
    writer.tensor(name, DType::F32, shape, bytes).expect("whole elements");
}

#[test]
fn many_tensors_that_are_no_layers() {
    let mut writer = narrow(60_000);
    for index in 0..60_000 {
        floats(&mut writer, format!("t{index}"), &[2]);
    }
    let bytes = writer.to_bytes().expect("written");
    assert!(!soon("60,000 tensors", move || exercise(&bytes)));
}

#[test]
fn many_layers_that_lack_their_matrices() {
    let mut writer = narrow(60_000);
    floats(&mut writer, "token_embd.weight".into(), &[2, 2]);
    for layer in 0..60_000 {
        floats(&mut writer, format!("blk.{layer}.attn_norm.weight"), &[2]);
    }
    let bytes = writer.to_bytes().expect("written");
    assert!(!soon("60,000 layers", move || exercise(&bytes)));
}

#[test]
fn many_small_layers() {
    const LAYERS: u32 = 6000;
    let mut writer = narrow(LAYERS);
    floats(&mut writer, "token_embd.weight".into(), &[2, 2]);
    floats(&mut writer, "output_norm.weight".into(), &[2]);
    for layer in 0..LAYERS {
        for norm in ["attn_norm", "ffn_norm"] {
            floats(&mut writer, format!("blk.{layer}.{norm}.weight"), &[2]);
        }
        for matrix in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
            floats(&mut writer, format!("blk.{layer}.{matrix}.weight"), &[2, 2]);
        }
    }
    let bytes = writer.to_bytes().expect("written");
    assert!(soon("6,000 layers", move || exercise(&bytes)));
}

#[test]
fn a_token_without_an_embedding() {
    let path = &files("tests/fixtures/models")[0];
    let gguf = open(read(path));
    let metadata = gguf.metadata();
    let mut tokens: StringArray =
        metadata.require_str_array("tokenizer.ggml.tokens").expect("tokens").clone();
    let mut types = metadata.require_i32_array("tokenizer.ggml.token_type").expect("types");
    let rows = tokens.len();
    tokens.push("one too many");
    types.push(4);
    let mut writer = copy(&gguf);
    let describe =
        |writer: &Writer<'_>| describe(&Checkpoint::from_gguf(open(writer.to_bytes().expect("written"))));
    assert!(describe(&writer).is_ok());
    writer.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", types);
    let error = describe(&writer).expect_err("it would index past the table");
    assert!(
        matches!(error, DescribeError::Vocabulary { tokens, rows: found } if tokens == rows + 1 && found == rows)
    );
    assert!(error.to_string().contains(&format!("{} tokens", rows + 1)), "{error}");
    assert!(error.to_string().contains(&format!("{rows} rows")), "{error}");
}
