//! Pipelines and their parts, in every form that they are published in (`tests/fixtures/wan`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use wushi_formats::Metadata;
use wushi_formats::gguf::Writer;
use wushi_formats::pipeline::{Layout, Part, Sources, tokenizer};
use wushi_formats::safetensors::Safetensors;
use wushi_formats::tokenizer::huggingface::{TokenizerFiles, import};
use wushi_graph::DType;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wan").join(name)
}

/// The ids of a prompt in a dump, without the padding.
fn dumped_ids(variant: &str, prompt: &str) -> Vec<u32> {
    let dump = Safetensors::open(&fixture(variant).join("dump.safetensors")).unwrap();
    let name = format!("text.{prompt}.input_ids");
    let tensor = dump.tensors().iter().find(|tensor| tensor.name == name).unwrap();
    let bytes = dump.tensor_bytes(tensor);
    let ids = bytes.as_chunks::<8>().0.iter().map(|&eight| i64::from_le_bytes(eight) as u32);
    let ids: Vec<u32> = ids.collect();
    let end = ids.iter().position(|&id| id == 1).unwrap();
    assert!(ids[end + 1..].iter().all(|&id| id == 0));
    ids[..=end].to_vec()
}

#[test]
fn a_folder_of_diffusers_is_read() {
    for (variant, channels) in [("wan21", 16), ("ti2v5b", 48)] {
        let sources = Sources::find(fixture(variant).join("pipe")).unwrap();
        assert_eq!(sources.layout, Layout::Diffusers);
        assert_eq!(sources.transformer_2, None);
        assert_eq!(sources.scheduler.as_ref().unwrap()["flow_shift"], 3.0);
        assert_eq!(sources.index.as_ref().unwrap()["expand_timesteps"], variant == "ti2v5b");
        let pipeline = sources.open().unwrap();
        assert_eq!(pipeline.transformer.config().unwrap()["in_channels"], channels);
        assert_eq!(pipeline.vae.config().unwrap()["z_dim"], channels);
        let patch = pipeline.transformer.desc("patch_embedding.weight").unwrap();
        assert_eq!((patch.dtype, patch.shape), (DType::F32, &[64, channels, 1, 2, 2][..]));
        assert_eq!(pipeline.transformer.read("patch_embedding.weight").unwrap().len(), 64 * channels * 4 * 4);
        pipeline.transformer.release("patch_embedding.weight");
        assert_eq!(pipeline.text_encoder.shape("shared.weight"), Some(&[113, 32][..]));
        assert_eq!(pipeline.text_encoder.parameters(), 24_512);
    }
}

#[test]
fn prompts_become_the_ids_of_the_reference() {
    for variant in ["wan21", "ti2v5b"] {
        let folder = fixture(variant);
        let meta: Value = serde_json::from_slice(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
        let pipeline = Sources::find(folder.join("pipe")).unwrap().open().unwrap();
        let tokenizer = pipeline.tokenizer(113).unwrap();
        for prompt in ["prompt", "negative"] {
            let ids = tokenizer.encode(meta[prompt].as_str().unwrap(), true, false).unwrap();
            assert_eq!(ids, dumped_ids(variant, prompt), "{variant}: {prompt}");
        }
    }
}

#[test]
fn the_original_layout_holds_the_same_weights() {
    let sources = Sources::find(fixture("wan21/original")).unwrap();
    assert_eq!(sources.layout, Layout::Flat);
    let original = sources.open().unwrap();
    let diffusers = Sources::find(fixture("wan21/pipe")).unwrap().open().unwrap();
    assert_eq!(original.transformer.config().unwrap()["num_heads"], 4);
    assert!(original.text_encoder.config().is_none() && original.vae.config().is_none());
    for (one, other) in [
        (&original.transformer, &diffusers.transformer),
        (&original.text_encoder, &diffusers.text_encoder),
        (&original.vae, &diffusers.vae),
    ] {
        // The names differ and are the models' affair; the tensors do not.
        let all = |part: &Part| -> BTreeSet<(Vec<usize>, Vec<u8>)> {
            let tensor = |name| (part.shape(name).unwrap().to_vec(), part.read(name).unwrap().into_owned());
            part.names().map(tensor).collect()
        };
        assert!(all(one) == all(other), "{}", one.path().display());
    }
    assert_eq!(original.vae.shape("decoder.conv1.weight"), Some(&[16, 16, 3, 3, 3][..]));
    let tokenizer = original.tokenizer(113).unwrap();
    assert_eq!(
        tokenizer.encode("blurry, static, low quality", true, false).unwrap(),
        dumped_ids("wan21", "negative")
    );
}

#[test]
fn a_file_of_sentencepiece_gives_its_librarys_ids() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let tokenizer = tokenizer::open(&fixtures.join("unigram.model"), 305).unwrap();
    assert_eq!(tokenizer.vocab_size(), 305);
    let cases: Vec<Value> =
        serde_json::from_slice(&std::fs::read(fixtures.join("unigram.json")).unwrap()).unwrap();
    assert!(cases.len() > 30);
    for case in cases {
        let (text, ids) = (case["text"].as_str().unwrap(), case["ids"].as_array().unwrap());
        let ids: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(text, false, false).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.encode(text, true, false).unwrap(), [&ids[..], &[1]].concat(), "{text:?}");
    }
}

#[test]
fn damaged_files_of_sentencepiece_are_refused_or_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let sound = std::fs::read(fixtures.join("unigram.model")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spiece.model");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        tokenizer::open(folder.path(), 305).map(|tokenizer| tokenizer.encode("some words", true, false))
    };
    for at in (0..sound.len()).step_by(29) {
        let _ = open(&sound[..at]);
        for pattern in [0x01, 0xff] {
            let mut bytes = sound.clone();
            bytes[at] ^= pattern;
            let _ = open(&bytes);
        }
    }
    let error = open(b"\x0a\x05ab").unwrap_err().to_string();
    assert!(error.contains("spiece.model: ") && error.contains("it ends inside a field"), "{error}");
    let error = tokenizer::open(&fixtures.join("unigram.model"), 20).unwrap_err().to_string();
    assert!(error.contains("300 tokens for a model that has 20"), "{error}");
}

/// A folder with copies of fixtures: what each file is called, and which it is.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, from) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(fixture("wan21").join(from), path).unwrap();
    }
    folder
}

const DIT: &str = "original/dit.safetensors";
const VAE: &str = "original/vae.pth";
const TEXT: &str = "original/t5.safetensors";
const TOKENIZER: &str = "pipe/tokenizer/tokenizer.json";
const CONFIG: &str = "pipe/transformer/config.json";

#[test]
fn the_layouts_that_models_are_published_in_are_told_by_their_names() {
    let published = folder(&[
        ("diffusion_pytorch_model.safetensors", DIT),
        ("config.json", CONFIG),
        ("models_t5_umt5-xxl-enc-bf16.safetensors", TEXT),
        ("Wan2.1_VAE.pth", VAE),
        ("google/umt5-xxl/tokenizer.json", TOKENIZER),
    ]);
    let pipeline = Sources::find(published.path()).unwrap().open().unwrap();
    assert_eq!(pipeline.transformer.config().unwrap()["in_channels"], 16);
    assert!(pipeline.vae.config().is_none() && pipeline.text_encoder.config().is_none());
    assert!(pipeline.transformer_2.is_none());
    assert_eq!(pipeline.tokenizer(113).unwrap().vocab_size(), 113);

    let experts = folder(&[
        ("high_noise_model/diffusion_pytorch_model.safetensors", DIT),
        ("high_noise_model/config.json", CONFIG),
        ("low_noise_model/diffusion_pytorch_model.safetensors", DIT),
        ("models_t5_umt5-xxl-enc-bf16.safetensors", TEXT),
        ("Wan2.1_VAE.pth", VAE),
        ("google/umt5-xxl/tokenizer.json", TOKENIZER),
    ]);
    let pipeline = Sources::find(experts.path()).unwrap().open().unwrap();
    assert!(pipeline.transformer.path().ends_with("high_noise_model"));
    assert!(pipeline.transformer.config().is_some());
    assert!(pipeline.transformer_2.unwrap().path().ends_with("low_noise_model"));
    std::fs::remove_dir_all(experts.path().join("low_noise_model")).unwrap();
    let error = Sources::find(experts.path()).unwrap_err().to_string();
    assert!(error.contains("looked for the folder `low_noise_model`"), "{error}");

    let loose = folder(&[
        ("a14b-low-noise.safetensors", DIT),
        ("a14b-HIGH-noise.safetensors", DIT),
        ("umt5.safetensors", TEXT),
        ("the_vae.pth", VAE),
        ("tokenizer.json", TOKENIZER),
    ]);
    let sources = Sources::find(loose.path()).unwrap();
    assert!(sources.transformer.as_ref().unwrap().ends_with("a14b-HIGH-noise.safetensors"));
    assert!(sources.transformer_2.as_ref().unwrap().ends_with("a14b-low-noise.safetensors"));
    sources.open().unwrap();
}

#[test]
fn what_is_missing_or_could_be_several_things_is_said() {
    let incomplete = folder(&[("dit.safetensors", DIT)]);
    let said = |sources: Sources| sources.open().unwrap_err().to_string();
    let sources = Sources::find(incomplete.path()).unwrap();
    let place = incomplete.path().display().to_string();
    assert_eq!(
        said(sources.clone()),
        format!(
            "the VAE is missing: looked for a file with weights that has `vae` in its name in {place}; name it with --vae"
        )
    );
    let sources = Sources { vae: Some(fixture("wan21").join(VAE)), ..sources };
    assert!(said(sources.clone()).starts_with("the text encoder is missing"));
    let sources = Sources { text_encoder: Some(fixture("wan21").join(TEXT)), ..sources };
    let text = said(sources.clone());
    assert!(
        text.starts_with("the tokenizer is missing") && text.ends_with("name it with --tokenizer"),
        "{text}"
    );
    let sources = Sources { tokenizer: Some(fixture("wan21").join(TOKENIZER)), ..sources };
    assert_eq!(sources.open().unwrap().tokenizer(113).unwrap().vocab_size(), 113);
    assert!(said(Sources::default()).contains("looked for a file that was named in what was given"));

    let several = folder(&[("vae.pth", VAE), ("other_vae.pth", VAE), ("dit.safetensors", DIT)]);
    let error = Sources::find(several.path()).unwrap_err().to_string();
    assert!(error.contains("any of other_vae.pth, vae.pth could be the VAE; name one with --vae"), "{error}");
    let error = Sources::find(several.path().join("absent")).unwrap_err().to_string();
    assert!(error.contains("absent: "), "{error}");

    let partial =
        folder(&[("model_index.json", "pipe/model_index.json"), ("transformer/config.json", CONFIG)]);
    let error = Sources::find(partial.path()).unwrap_err().to_string();
    assert!(error.contains("that model_index.json names is missing: looked for `scheduler`"), "{error}");
    let error = Part::open(partial.path().join("transformer")).unwrap_err().to_string();
    assert!(
        error.contains("the file with weights is missing: looked for diffusion_pytorch_model"),
        "{error}"
    );
    std::fs::write(partial.path().join("transformer/config.json"), "[]").unwrap();
    let error = Part::open(partial.path().join("transformer")).unwrap_err().to_string();
    assert!(error.contains("config.json: it is no object"), "{error}");
}

#[test]
fn weights_in_several_files_are_one_part() {
    let whole = Part::open(fixture("wan21").join(DIT)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stem = "diffusion_pytorch_model";
    let mut map = serde_json::Map::new();
    let names: Vec<&str> = whole.names().collect();
    for (place, names) in names.chunks(names.len().div_ceil(3)).enumerate() {
        let file = format!("{stem}-{:05}-of-00003.safetensors", place + 1);
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for name in names {
            let start = data.len();
            data.extend_from_slice(&whole.read(name).unwrap());
            let offsets = [start, data.len()];
            header.insert(
                (*name).to_owned(),
                json!({"dtype": "F32", "shape": whole.shape(name), "data_offsets": offsets}),
            );
            map.insert((*name).to_owned(), json!(file));
        }
        let header = Value::Object(header).to_string();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        std::fs::write(folder.path().join(&file), bytes).unwrap();
    }
    let index = folder.path().join(format!("{stem}.safetensors.index.json"));
    std::fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    let part = Part::open(folder.path()).unwrap();
    assert_eq!(part.files().count(), 3);
    let one = Part::open(folder.path().join(format!("{stem}-00002-of-00003.safetensors"))).unwrap();
    assert_eq!(one.tensors(), part.tensors());
    assert_eq!(part.parameters(), whole.parameters());
    assert!(names.iter().all(|name| part.read(name).unwrap() == whole.read(name).unwrap()));

    map.insert("of.nothing".to_owned(), map[names[0]].clone());
    std::fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    let error = Part::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("tensor `of.nothing` is not in diffusion_pytorch_model-00001"), "{error}");
    std::fs::remove_file(folder.path().join(format!("{stem}-00002-of-00003.safetensors"))).unwrap();
    let error = Part::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("one is missing: diffusion_pytorch_model-00002-of-00003.safetensors"), "{error}");
    std::fs::remove_file(&index).unwrap();
    let error = Part::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("the index of the weights is missing"), "{error}");
}

#[test]
fn a_network_in_gguf_holds_the_same_weights() {
    let whole = Part::open(fixture("wan21").join(DIT)).unwrap();
    let mut writer = Writer::new();
    writer.set("general.architecture", "wan");
    for tensor in whole.tensors() {
        // One block of 32 is 34 bytes: zeros stand for zeros.
        let is_quantised =
            tensor.shape.len() == 2 && tensor.shape[1] % 32 == 0 && tensor.name.contains("blocks");
        let result = match is_quantised {
            true => {
                writer.tensor(&tensor.name, DType::Q8_0, &tensor.shape, vec![0; tensor.elements() / 32 * 34])
            }
            false => {
                writer.tensor(&tensor.name, DType::F32, &tensor.shape, whole.read(&tensor.name).unwrap())
            }
        };
        result.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dit.gguf");
    std::fs::write(&path, writer.to_bytes().unwrap()).unwrap();
    let part = Part::open(&path).unwrap();
    assert_eq!(part.architecture().unwrap(), Some("wan"));
    assert_eq!(part.parameters(), whole.parameters());
    assert_eq!(part.shape("patch_embedding.weight"), Some(&[64, 16, 1, 2, 2][..]));
    let desc = part.desc("blocks.0.self_attn.q.weight").unwrap();
    assert_eq!((desc.dtype, desc.shape), (DType::Q8_0, &[64, 64][..]));
    let name = "head.modulation";
    assert_eq!(part.read(name).unwrap(), whole.read(name).unwrap());
    // A file alone is the network that denoises; the rest is named. The text encoder's has the tokenizer.
    let text_encoder = folder.path().join("text.gguf");
    let mut writer = Writer::new();
    let mut metadata = Metadata::new();
    let json = std::fs::read(fixture("wan21").join(TOKENIZER)).unwrap();
    let files = TokenizerFiles {
        tokenizer_json: &json,
        tokenizer_config: None,
        special_tokens_map: None,
        generation_config: None,
        chat_template: None,
        vocab_size: 113,
    };
    import(&files, &mut metadata).unwrap();
    for (key, value) in metadata.iter() {
        writer.set(key, value.clone());
    }
    writer.tensor("token_embd.weight", DType::F16, &[113, 32], vec![0; 113 * 64]).unwrap();
    std::fs::write(&text_encoder, writer.to_bytes().unwrap()).unwrap();
    let sources = Sources {
        vae: Some(fixture("wan21").join(VAE)),
        text_encoder: Some(text_encoder),
        ..Sources::find(&path).unwrap()
    };
    assert_eq!(sources.layout, Layout::Named);
    let tokenizer = sources.open().unwrap().tokenizer(113).unwrap();
    let ids = tokenizer.encode("blurry, static, low quality", true, false).unwrap();
    assert_eq!(ids, dumped_ids("wan21", "negative"));
}
