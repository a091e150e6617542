//! `wushi convert`, `--quant`, and folders as published on Hugging Face.

use std::fs;
use std::path::Path;

use serde_json::Value;
use wushi_formats::gguf::Writer;
use wushi_formats::{Checkpoint, Gguf};
use wushi_graph::WeightSource;

use crate::support::{Sandbox, fixture, tiny};

/// Folders of several families and storage types; what they hold in the files that are made of them.
const FOLDERS: [(&str, &str); 4] = [
    ("llama-tiny-llama3", "F16"),
    ("llama-tiny-linear", "F32"),
    ("mistral-tiny", "F16"),
    ("qwen2-tiny-untied", "BF16"),
];

fn answer(sandbox: &Sandbox, model: &str, flags: &[&str]) -> Value {
    let args = ["run", model, "hello there", "-n", "8", "--temperature", "0", "--json", "-q"];
    sandbox.json(&[&args[..], flags].concat())
}

/// Everything that must not depend on where a model's bytes came from.
fn same(a: &Value, b: &Value, what: &str) {
    for key in ["text", "token_ids", "logits_digest"] {
        assert_eq!(a[key], b[key], "{what}: {key}");
    }
    assert!(a["logits_digest"].is_string());
}

/// Converts into the sandbox and gives the file's path.
fn convert(sandbox: &Sandbox, model: &str, out: &str, flags: &[&str]) -> String {
    let out = sandbox.path(out).display().to_string();
    let written = sandbox.run(&[&["convert", model, &out][..], flags].concat()).ok();
    assert_eq!(written.stdout, format!("{out}\n"));
    out
}

#[test]
fn a_folder_answers_as_the_file_made_of_it() {
    let sandbox = Sandbox::new();
    for (name, kind) in FOLDERS {
        let folder = fixture(&format!("models/{name}"));
        let out = convert(&sandbox, &folder, &format!("{name}.gguf"), &[]);
        same(&answer(&sandbox, &folder, &[]), &answer(&sandbox, &out, &[]), name);
        let report = sandbox.json(&["inspect", &folder, "--json"]);
        assert_eq!(
            (&report["supported"], report["format"].as_str()),
            (&Value::Bool(true), Some("safetensors"))
        );
        assert_eq!(report["types"][0]["type"], kind, "{name}");
        assert_eq!(sandbox.json(&["inspect", &out, "--json"])["types"], report["types"], "{name}");
        // Once more, from the file: the same file.
        let again = convert(&sandbox, &out, "again.gguf", &["--force"]);
        assert!(fs::read(&out).unwrap() == fs::read(again).unwrap(), "{name}");
    }
}

#[test]
fn routers_and_small_tables_keep_their_type() {
    let sandbox = Sandbox::new();
    let kept = [
        ("qwen3moe-tiny", &["blk.0.ffn_gate_inp.weight"][..], "blk.0.ffn_down_exps.weight"),
        ("bert-tiny", &["position_embd.weight", "token_types.weight"], "blk.0.attn_q.weight"),
    ];
    for (name, exact, changed) in kept {
        let out = convert(
            &sandbox,
            &fixture(&format!("models/{name}")),
            "quantised.gguf",
            &["--quant", "bf16", "--force"],
        );
        let file = Gguf::open(&out).unwrap();
        let kind = |tensor: &str| file.tensor_info(tensor).unwrap().ggml_type.to_string();
        exact.iter().for_each(|tensor| assert_eq!(kind(tensor), "F32", "{name}: {tensor}"));
        assert_eq!(kind(changed), "BF16", "{name}");
    }
}

#[test]
fn quantised_on_load_answers_as_the_quantised_file() {
    let sandbox = Sandbox::new();
    let folder = fixture("models/llama-tiny-linear");
    let plain = answer(&sandbox, &folder, &[]);
    for quant in ["q8_0", "q4_0", "q4_k", "bf16"] {
        let out = convert(&sandbox, &folder, &format!("{quant}.gguf"), &["--quant", quant, "--threads", "2"]);
        let file = answer(&sandbox, &out, &[]);
        let loaded = answer(&sandbox, &folder, &["--quant", quant]);
        same(&loaded, &file, quant);
        same(&loaded, &answer(&sandbox, &folder, &["--quant", quant, "--threads", "1"]), quant);
        assert_ne!(plain["logits_digest"], file["logits_digest"], "{quant}");
        assert_ne!(plain["fingerprint"], loaded["fingerprint"], "{quant}");
    }
    let other = Sandbox::new().with("WUSHI_QUANT", "q8_0");
    same(&answer(&other, &folder, &[]), &answer(&sandbox, &folder, &["--quant", "q8_0"]), "the environment");
    let schedule = |flags: &[&str]| {
        sandbox.json(&[&["inspect", &folder, "--schedule", "--json"][..], flags].concat())["schedule"]
            .to_string()
    };
    assert_ne!(schedule(&[]), schedule(&["--quant", "q8_0"]));
    let text = fixture("text/english.txt");
    let perplexity = |model: &str, flags: &[&str]| {
        let args = ["perplexity", model, &text, "--ctx", "64", "--json", "-q"];
        sandbox.json(&[&args[..], flags].concat())["perplexity"].clone()
    };
    let file = sandbox.path("q8_0.gguf").display().to_string();
    assert_eq!(perplexity(&folder, &["--quant", "q8_0"]), perplexity(&file, &[]));
}

#[test]
fn what_is_written_says_what_it_is() {
    let sandbox = Sandbox::new();
    let out = convert(&sandbox, &tiny(), "q8.gguf", &["--quant", "q8_0"]);
    let (before, after) = (Checkpoint::open_gguf(tiny()).unwrap(), Checkpoint::open_gguf(&out).unwrap());
    assert_eq!(after.metadata().require_u32("general.file_type").unwrap(), 7);
    assert_eq!(after.metadata().require_u32("general.quantization_version").unwrap(), 2);
    for (key, value) in before.metadata().iter().filter(|(key, _)| !key.starts_with("general.")) {
        assert_eq!(after.metadata().get(key), Some(value), "{key}");
    }
    for tensor in after.tensors() {
        let kind = if tensor.shape.len() == 1 { "F32" } else { "Q8_0" };
        assert_eq!(tensor.ggml_type.to_string(), kind, "{}", tensor.name);
    }
    let written = sandbox.json(&["convert", &tiny(), "again.gguf", "--quant", "q8_0", "--json"]);
    assert_eq!((written["type"].as_str(), written["path"].as_str()), (Some("Q8_0"), Some("again.gguf")));
    assert_eq!(written["bytes"].as_u64(), Some(fs::metadata(sandbox.path("again.gguf")).unwrap().len()));
    assert_eq!(written["tensors"].as_u64(), Some(after.tensors().len() as u64));
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_behind() {
    let sandbox = Sandbox::new();
    let there = sandbox.write("there.gguf", "precious");
    let error = sandbox.run(&["convert", &tiny(), "there.gguf"]).error(1);
    assert!(error.contains("there.gguf is there already") && error.contains("--force"), "{error}");
    assert_eq!(fs::read(&there).unwrap(), b"precious");
    sandbox.run(&["convert", &tiny(), "there.gguf", "--force"]).ok();
    assert!(Gguf::open(&there).is_ok());
    fs::create_dir(sandbox.path("folder")).unwrap();
    assert!(sandbox.run(&["convert", &tiny(), "folder", "--force"]).error(1).contains("is a folder"));
    assert!(
        sandbox.run(&["convert", &tiny(), "no/such/x.gguf"]).error(1).contains("cannot write no/such/x.gguf")
    );
    assert!(sandbox.run(&["convert", &tiny(), "x.gguf", "--quant", "q9"]).error(2).contains("q4_k"));
    assert!(sandbox.run(&["convert", "./none.gguf", "x.gguf"]).error(1).contains("none.gguf"));

    // A weight that is no number cannot be quantised; the file is not there then.
    let checkpoint = Gguf::open(fixture("models/llama-tiny-f32.gguf")).unwrap();
    let damaged = copy(&checkpoint, checkpoint.tensors(), |name, bytes| {
        if name == "blk.1.ffn_up.weight" {
            bytes[40..44].copy_from_slice(&f32::NAN.to_le_bytes());
        }
    });
    let path = sandbox.write("nan.gguf", damaged.to_bytes().unwrap()).display().to_string();
    let error = sandbox.run(&["convert", &path, "x.gguf", "--quant", "q8_0"]).error(1);
    assert!(error.contains("`blk.1.ffn_up.weight` cannot become Q8_0") && error.contains("NaN"), "{error}");
    let error = sandbox.run(&["run", &path, "hello", "--quant", "q8_0", "-q"]).error(1);
    assert!(error.contains("`blk.1.ffn_up.weight` cannot become Q8_0"), "{error}");
    let mut left: Vec<String> = fs::read_dir(sandbox.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["folder", "nan.gguf", "there.gguf"]);
}

/// A file like this one, or with some of its tensors, changed.
fn copy<'a>(
    file: &'a Gguf,
    tensors: &'a [wushi_formats::gguf::TensorInfo],
    change: impl Fn(&str, &mut Vec<u8>),
) -> Writer<'a> {
    let mut writer = Writer::new();
    for (key, value) in file.metadata().iter() {
        writer.set(key, value.clone());
    }
    for tensor in tensors {
        let mut bytes = file.tensor_bytes(tensor).to_vec();
        change(&tensor.name, &mut bytes);
        writer.tensor(tensor.name.as_str(), tensor.ggml_type, &tensor.shape, bytes).unwrap();
    }
    writer
}

#[test]
fn parts_answer_as_the_whole_file() {
    let sandbox = Sandbox::new();
    let whole = Gguf::open(tiny()).unwrap();
    let third = whole.tensors().len().div_ceil(3);
    for (no, tensors) in whole.tensors().chunks(third).enumerate() {
        let mut part = if no == 0 { copy(&whole, tensors, |_, _| {}) } else { Writer::new() };
        if no > 0 {
            for tensor in tensors {
                part.tensor(
                    tensor.name.as_str(),
                    tensor.ggml_type,
                    &tensor.shape,
                    whole.tensor_bytes(tensor),
                )
                .unwrap();
            }
        }
        part.set("split.no", no as u16).set("split.count", 3u16);
        part.set("split.tensors.count", whole.tensors().len() as i32);
        sandbox.write(&format!("m-{:05}-of-00003.gguf", no + 1), part.to_bytes().unwrap());
    }
    let reference = answer(&sandbox, &tiny(), &[]);
    for no in 1..=3 {
        let model = format!("./m-{no:05}-of-00003.gguf");
        let parts = answer(&sandbox, &model, &[]);
        same(&parts, &reference, &model);
        assert_eq!(parts["fingerprint"], reference["fingerprint"]);
    }
    let report = sandbox.json(&["inspect", "./m-00002-of-00003.gguf", "--json"]);
    assert_eq!(report["files"].as_array().unwrap().len(), 3);
    let joined = convert(&sandbox, "./m-00001-of-00003.gguf", "joined.gguf", &[]);
    let (joined, whole) = (Checkpoint::open_gguf(joined).unwrap(), Checkpoint::from_gguf(whole));
    assert_eq!(joined.tensors(), whole.tensors());
    for tensor in whole.tensors() {
        assert_eq!(joined.read(&tensor.name), whole.read(&tensor.name));
    }
    fs::remove_file(sandbox.path("m-00002-of-00003.gguf")).unwrap();
    let error = sandbox.run(&["run", "./m-00003-of-00003.gguf", "hello"]).error(1);
    assert!(error.contains("m-00002-of-00003.gguf missing"), "{error}");
}

/// A folder in the sandbox like that of the fixtures, with some of its configuration changed.
fn changed(sandbox: &Sandbox, name: &str, change: impl FnOnce(&mut Value)) -> String {
    let (from, to) = (fixture("models/llama-tiny-llama3"), sandbox.path(name));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    let config = to.join("config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    change(&mut value);
    fs::write(&config, value.to_string()).unwrap();
    to.display().to_string()
}

#[test]
fn folders_that_cannot_run_are_refused_by_name() {
    let sandbox = Sandbox::new();
    let refused = |name: &str, change: fn(&mut Value)| {
        let folder = changed(&sandbox, name, change);
        let error = sandbox.run(&["run", &folder, "hello"]).error(1);
        assert!(error.contains(&folder), "{error}");
        error
    };
    let error = refused("class", |config| config["architectures"] = ["Llama9ForCausalLM"].into());
    assert!(
        error.contains("`Llama9ForCausalLM` is not supported") && error.contains("LlamaForCausalLM"),
        "{error}"
    );
    let error =
        refused("quant", |config| config["quantization_config"] = serde_json::json!({"quant_method": "awq"}));
    assert!(error.contains("awq") && error.contains("F32, F16 or BF16"), "{error}");
    let error = refused("rope", |config| config["rope_scaling"]["rope_type"] = "dynamic".into());
    assert!(error.contains("dynamic") && error.contains("llama3"), "{error}");
    let error = refused("act", |config| config["hidden_act"] = "relu".into());
    assert!(error.contains("hidden_act") && error.contains("silu"), "{error}");
    let error = refused("bias", |config| config["num_hidden_layers"] = 1.into());
    assert!(error.contains("`model.layers.1.") && error.contains("no place"), "{error}");
    let error = refused("deep", |config| config["num_hidden_layers"] = 3.into());
    assert!(error.contains("`model.layers.2.") && error.contains("missing"), "{error}");

    let folder = changed(&sandbox, "pickle", |_| {});
    fs::rename(Path::new(&folder).join("model.safetensors"), Path::new(&folder).join("pytorch_model.bin"))
        .unwrap();
    assert!(sandbox.run(&["inspect", &folder]).error(1).contains("pickle"));
    let error = sandbox.run(&["run", &format!("{folder}/pytorch_model.bin"), "hello"]).error(1);
    assert!(error.contains("name the folder"), "{error}");
}
