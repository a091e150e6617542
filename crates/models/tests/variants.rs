//! What files and folders in circulation have besides what the tiny checkpoints show.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wushi_formats::gguf::Writer;
use wushi_formats::{Checkpoint, Folder, Gguf};
use wushi_models::{Pooling, Positions, Stretch};

type Files = BTreeMap<String, Vec<u8>>;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models").join(name)
}

/// The files of a folder.
fn files(name: &str) -> Files {
    let entries =
        fs::read_dir(fixture(name)).expect("a fixture").map(|entry| entry.expect("an entry").path());
    let named = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read(path).expect("a file"))
    };
    entries.filter(|path| path.is_file()).map(named).collect()
}

/// Changes a JSON file.
fn change(files: &mut Files, file: &str, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&files[file]).expect("valid JSON");
    edit(&mut value);
    files.insert(file.to_owned(), value.to_string().into_bytes());
}

fn import(files: Files) -> Result<Checkpoint, String> {
    let folder = Folder::from_files(files).map_err(|error| error.to_string())?;
    wushi_models::import(folder).map_err(|error| error.to_string())
}

fn build(
    checkpoint: &Checkpoint,
    context: usize,
    stretch: Option<Stretch>,
) -> Result<wushi_models::Model, String> {
    wushi_models::build(checkpoint, &Positions { context, stretch }).map_err(|error| error.to_string())
}

#[test]
fn positions_by_kind_of_layer() {
    let plain = import(files("gemma3-tiny-linear")).unwrap();
    let nested = |local: Value| {
        let mut files = files("gemma3-tiny-linear");
        change(&mut files, "config.json", |config| {
            for key in ["rope_theta", "rope_scaling", "rope_local_base_freq"] {
                config.as_object_mut().unwrap().remove(key);
            }
            config["rope_parameters"] = json!({
                "full_attention": { "rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0 },
                "sliding_attention": local,
            });
        });
        import(files)
    };
    let same = nested(json!({ "rope_type": "default", "rope_theta": 10_000.0 })).unwrap();
    assert_eq!(same.metadata(), plain.metadata());
    let error = nested(json!({ "rope_type": "yarn", "factor": 2.0 })).unwrap_err();
    assert!(error.contains("sliding_attention"), "{error}");
    let mut unknown = files("gemma3-tiny-linear");
    change(&mut unknown, "config.json", |config| {
        config["rope_parameters"] = json!({ "some": { "factor": 2.0 } })
    });
    assert!(import(unknown).unwrap_err().contains("rope_parameters"));
}

#[test]
fn embedding_models_of_decoders() {
    let mut files = files("qwen3-tiny");
    // Saved by the class without an output matrix: no `model.` in front. The header keeps its length.
    let weights = &files["model.safetensors"];
    let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(weights[8..8 + length].to_vec()).unwrap().replace("\"model.", "\"");
    let renamed = [&weights[..8], format!("{header:length$}").as_bytes(), &weights[8 + length..]].concat();
    files.insert("model.safetensors".to_owned(), renamed);
    let poolings = [
        json!({ "pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": false }),
        json!({ "pooling_mode": "lasttoken" }),
    ];
    for pooling in poolings {
        files.insert("1_Pooling/config.json".to_owned(), pooling.to_string().into_bytes());
        let checkpoint = import(files.clone()).unwrap();
        assert_eq!(build(&checkpoint, 64, None).unwrap().pooling, Some(Pooling::Last));
    }
    files.insert("1_Pooling/config.json".to_owned(), b"{\"pooling_mode_max_tokens\": true}".to_vec());
    assert!(import(files).unwrap_err().contains("mean, cls and last token are"));
}

#[test]
fn tokens_beyond_the_table_are_left_out() {
    let mut files = files("qwen2-tiny");
    change(&mut files, "tokenizer.json", |tokenizer| {
        let mut picture = tokenizer["added_tokens"][0].clone();
        picture["id"] = json!(291);
        picture["content"] = json!("<picture>");
        tokenizer["added_tokens"].as_array_mut().unwrap().push(picture);
    });
    let checkpoint = import(files).unwrap();
    assert_eq!(checkpoint.metadata().require_str_array("tokenizer.ggml.tokens").unwrap().len(), 291);
}

/// A fixture's GGUF file with one more key.
fn with(name: &str, key: &str, value: u32) -> Checkpoint {
    let file = Gguf::open(fixture(name)).unwrap();
    let mut writer = Writer::new();
    for (key, value) in file.metadata().iter() {
        writer.set(key, value.clone());
    }
    writer.set(key, value);
    for tensor in file.tensors() {
        let bytes = file.tensor_bytes(tensor);
        writer.tensor(tensor.name.clone(), tensor.ggml_type, &tensor.shape, bytes.to_vec()).unwrap();
    }
    Checkpoint::from_gguf(Gguf::from_bytes(writer.to_bytes().unwrap()).unwrap())
}

#[test]
fn a_shared_expert_of_no_length_is_none() {
    let key = "qwen3moe.expert_shared_feed_forward_length";
    assert!(build(&with("qwen3moe-tiny.gguf", key, 0), 64, None).is_ok());
    let error = build(&with("qwen3moe-tiny.gguf", key, 24), 64, None).unwrap_err();
    assert!(error.contains(key) && error.contains("not supported"), "{error}");
}

#[test]
fn models_that_scale_their_positions_are_not_stretched_as_well() {
    for name in
        ["llama-tiny-linear.gguf", "llama-tiny-llama3.gguf", "qwen2-tiny-yarn.gguf", "phi-tiny-longrope.gguf"]
    {
        let checkpoint = wushi_models::open(&fixture(name)).unwrap();
        let trained = wushi_models::trained_context(&checkpoint).unwrap();
        assert!(build(&checkpoint, trained, Some(Stretch::Yarn)).is_ok(), "{name}");
        let error = build(&checkpoint, trained + 1, Some(Stretch::Yarn)).unwrap_err();
        assert!(error.contains("scales its positions itself"), "{name}: {error}");
    }
    let checkpoint = wushi_models::open(&fixture("qwen2-tiny.gguf")).unwrap();
    let trained = wushi_models::trained_context(&checkpoint).unwrap();
    let (plain, stretched) = (
        build(&checkpoint, trained, None).unwrap(),
        build(&checkpoint, 4 * trained, Some(Stretch::Yarn)).unwrap(),
    );
    assert_ne!(plain.graph, stretched.graph);
}
