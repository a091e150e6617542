//! Pipelines and their parts, in every form that they are published in (`tests/fixtures/wan`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wushi_formats::pipeline::{Layout, Part, Sources};
use wushi_formats::safetensors::Safetensors;
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
        let meta: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
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
