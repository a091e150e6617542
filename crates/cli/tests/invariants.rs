//! The invariants of ARCHITECTURE.md that a test can check: who may import whom, and what must stay absent where.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("crates/").to_path_buf()
}

/// Every Rust file below a folder, with its text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            found.push((path, text));
        }
    }
    found
}

/// Code without comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// Whether `word` stands in `text` as a whole word.
fn mentions(text: &str, word: &str) -> bool {
    text.to_lowercase().split(|c: char| !c.is_alphanumeric()).any(|w| w == word)
}

/// The dependencies of a crate as its manifest names them (not those of its tests).
fn dependencies(name: &str) -> Vec<String> {
    let manifest = fs::read_to_string(crates().join(name).join("Cargo.toml")).expect("a manifest");
    let section = manifest.split("[dependencies]").nth(1).unwrap_or("");
    let section = section.split("\n[").next().unwrap_or("");
    let names = section.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_string).collect()
}

#[test]
fn imports_run_downward() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("graph", &[][..]),
        ("formats", &["wushi-graph"][..]),
        ("models", &["wushi-formats", "wushi-graph"][..]),
        ("quant", &["wushi-graph"][..]),
        ("cpu", &["wushi-graph", "wushi-quant"][..]),
        ("engine", &["wushi-cpu", "wushi-models", "wushi-formats", "wushi-graph", "wushi-quant"][..]),
        ("hub", &[][..]),
        ("media", &[][..]),
        ("server", &["wushi-engine", "wushi-formats", "wushi-graph", "wushi-media"][..]),
    ]);
    for entry in fs::read_dir(crates()).expect("crates/") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        let ours = dependencies(&name).into_iter().filter(|name| name.starts_with("wushi"));
        for dependency in ours {
            match allowed.get(name.as_str()) {
                Some(allowed) => {
                    assert!(allowed.contains(&dependency.as_str()), "{name} must not import {dependency}");
                }
                None => assert_eq!(name, "cli", "a new room states its imports here"),
            }
        }
    }
}

#[test]
fn architectures_are_named_in_models_only() {
    // Those of the registry, and what people call their models.
    let mut families = vec!["smollm", "smollm2", "mistral", "qwen", "gemma", "phi", "wan", "umt5"];
    families.extend(wushi_models::architectures());
    // Names of tokenizers, of the catalogue's models and of the default one; none of them decides what is computed.
    let excepted = [
        "formats/src/tokenizer/mod.rs",
        "formats/src/tokenizer/pre.rs",
        "formats/src/tokenizer/wordpiece.rs",
        "formats/src/tokenizer/huggingface/models.rs",
        "formats/src/tokenizer/huggingface/steps.rs",
        "hub/src/catalogue.rs",
        "cli/src/args.rs",
    ];
    let mut unused = Vec::from(excepted);
    for entry in fs::read_dir(crates()).expect("crates/") {
        let room = entry.expect("an entry").file_name();
        if room == "models" {
            continue;
        }
        for (path, text) in sources(&crates().join(room).join("src")) {
            let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let code = code(product);
            let Some(family) = families.iter().find(|family| mentions(&code, family)) else { continue };
            let exception = excepted.iter().find(|file| path.ends_with(file));
            assert!(exception.is_some(), "{} names {family}", path.display());
            unused.retain(|file| !path.ends_with(file));
        }
    }
    assert!(unused.is_empty(), "no exceptions any more: {unused:?}");
}

#[test]
fn rooms_do_not_know_what_is_not_theirs() {
    let absent: [(&str, &[&str]); 6] = [
        // `graph` knows no file and no device.
        ("graph", &["std::fs", "std::io", "std::thread", "memmap2"]),
        // `models` runs nothing.
        ("models", &["wushi_cpu", "std::thread", "std::fs"]),
        // `cpu` knows no request.
        ("cpu", &["std::fs", "serde", "Request", "Sampling"]),
        // `engine` knows no HTTP and no JSON.
        ("engine", &["serde", "http", "axum", "tokio"]),
        // `hub` knows no model's contents.
        ("hub", &["gguf::", "Gguf"]),
        // `media` knows frames.
        ("media", &["Tensor", "tensor", "Latent", "latent", "f16"]),
    ];
    for (room, words) in absent {
        for (path, text) in sources(&crates().join(room).join("src")) {
            let code = code(&text);
            for word in words {
                assert!(!code.contains(word), "{} has `{word}`", path.display());
            }
        }
    }
}

#[test]
fn kernels_call_no_library_for_elementary_functions() {
    for folder in ["kernels", "simd", "weights"] {
        for (path, text) in sources(&crates().join("cpu/src").join(folder)) {
            for call in [".exp(", ".ln(", ".tanh(", ".sin(", ".cos(", ".powf(", ".powi(", "libm::"] {
                assert!(!code(&text).contains(call), "{} calls {call}", path.display());
            }
        }
    }
}

#[test]
fn a_step_is_three_named_lines() {
    let worker = fs::read_to_string(crates().join("engine/src/worker.rs")).expect("the engine's loop");
    let order = ["schedule(", "run(", "postprocess("].map(|name| worker.find(name));
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "schedule, run, postprocess: {order:?}");
}
