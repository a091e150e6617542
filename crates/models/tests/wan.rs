//! Models that make video, in every layout of their files, and what is said of files that are not right
//! (`tests/fixtures/wan`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use wushi_formats::gguf::Writer;
use wushi_formats::pipeline::{Part, Pipeline, Sources};
use wushi_graph::{DType, WeightSource};
use wushi_models::ModelError;
use wushi_models::pipeline::{Networks, Weights, open};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wan").join(name)
}

fn pipeline(name: &str) -> Pipeline {
    Sources::find(fixture(name)).and_then(Sources::open).expect("a pipeline")
}

fn networks(name: &str) -> Networks {
    open(pipeline(name)).expect("a model")
}

/// A tensor of a part: name, shape, F32 bytes.
type Tensor = (String, Vec<usize>, Vec<u8>);

fn tensors(part: &Part) -> Vec<Tensor> {
    let tensor = |name: &str| {
        let (shape, bytes) = (part.shape(name).expect("a shape"), part.read(name).expect("bytes"));
        (name.to_owned(), shape.to_vec(), bytes.into_owned())
    };
    part.names().map(tensor).collect()
}

/// A file of F32 tensors that has their shapes as GGUF can have them, and its configuration beside it.
fn gguf(tensors: &[Tensor], config: Option<&Value>) -> (tempfile::TempDir, Part) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut file = Writer::new();
    for (name, shape, bytes) in tensors {
        file.tensor(name.as_str(), DType::F32, shape, bytes.as_slice()).expect("a tensor");
    }
    std::fs::write(folder.path().join("model.gguf"), file.to_bytes().expect("a file")).expect("written");
    if let Some(config) = config {
        std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
    }
    let part = Part::open(folder.path()).expect("a part");
    (folder, part)
}

/// GGUF has four dimensions at most: the first two become one.
fn merge_first(tensors: &mut [Tensor]) {
    for (_, shape, _) in tensors.iter_mut().filter(|(_, shape, _)| shape.len() > 4) {
        let outputs = shape.remove(0);
        shape[0] *= outputs;
    }
}

fn assert_same_weights(one: &Weights, other: &Weights) {
    let names = |weights: &Weights| -> BTreeSet<String> {
        weights.names().map(|(ours, _)| ours.to_owned()).collect()
    };
    assert_eq!(names(one), names(other));
    for name in names(one) {
        let [a, b] = [one, other].map(|weights| weights.describe(&name).expect("a tensor"));
        assert_eq!(a, b, "{name}");
        assert!(one.read(&name).expect("bytes") == other.read(&name).expect("bytes"), "{name}");
        assert_eq!(a.dtype.bytes_of(a.shape.iter().product()), Some(one.read(&name).expect("bytes").len()));
    }
}

fn assert_same_networks(one: &Networks, other: &Networks) {
    assert_same_weights(&one.text_encoder.weights, &other.text_encoder.weights);
    assert_same_weights(&one.denoiser.weights, &other.denoiser.weights);
    assert_same_weights(&one.decoder.weights, &other.decoder.weights);
    assert_eq!(one.text_encoder.graph, other.text_encoder.graph);
    assert_eq!(
        one.denoiser.denoise([2, 4, 6], 3, 500).expect("a graph"),
        other.denoiser.denoise([2, 4, 6], 3, 500).expect("a graph")
    );
    assert_eq!(one.decoder.next(3, 2, 2).expect("a graph"), other.decoder.next(3, 2, 2).expect("a graph"));
}

#[test]
fn the_first_names_and_those_of_diffusers_are_the_same_networks() {
    assert_same_networks(&networks("wan21/pipe"), &networks("wan21/original"));
}

#[test]
fn gguf_files_are_the_same_networks() {
    let original = pipeline("wan21/original");
    let config = original.transformer.config().map(|config| Value::Object(config.clone()));
    let mut denoiser = tensors(&original.transformer);
    merge_first(&mut denoiser);
    for (name, shape, _) in &mut denoiser {
        name.insert_str(0, "model.diffusion_model.");
        // As ComfyUI's files have it.
        if name.ends_with("modulation") {
            *shape = vec![shape.iter().product()];
        }
    }
    let mut encoder = tensors(&original.text_encoder);
    for (name, _, _) in &mut encoder {
        *name = name.replace("token_embedding.", "token_embd.").replace("blocks.", "enc.blk.");
        for (there, here) in [
            (".attn.q.", ".attn_q."),
            (".attn.k.", ".attn_k."),
            (".attn.v.", ".attn_v."),
            (".attn.o.", ".attn_o."),
            (".pos_embedding.embedding.", ".attn_rel_b."),
            (".norm1.", ".attn_norm."),
            (".norm2.", ".ffn_norm."),
            (".ffn.gate.0.", ".ffn_gate."),
            (".ffn.fc1.", ".ffn_up."),
            (".ffn.fc2.", ".ffn_down."),
        ] {
            *name = name.replace(there, here);
        }
        if name == "norm.weight" {
            *name = "enc.output_norm.weight".to_owned();
        }
    }
    let mut decoder = tensors(&original.vae);
    merge_first(&mut decoder);
    let folders = [gguf(&denoiser, config.as_ref()), gguf(&encoder, None), gguf(&decoder, None)];
    let [(_a, transformer), (_b, text_encoder), (_c, vae)] = folders;
    let converted = Pipeline { transformer, text_encoder, vae, ..original };
    assert_same_networks(&networks("wan21/pipe"), &open(converted).expect("a model"));
}

#[test]
fn levels_within_levels_are_the_same_networks() {
    let diffusers = pipeline("ti2v5b/pipe");
    let config = diffusers.vae.config().map(|config| Value::Object(config.clone()));
    let mut decoder = tensors(&diffusers.vae);
    decoder.retain(|(name, _, _)| !name.starts_with("encoder."));
    for (name, _, _) in &mut decoder {
        let block = |name: &str| {
            let parts = [
                (".norm1.", ".residual.0."),
                (".conv1.", ".residual.2."),
                (".norm2.", ".residual.3."),
                (".conv2.", ".residual.6."),
                (".conv_shortcut.", ".shortcut."),
            ];
            parts.iter().fold(name.to_owned(), |name, (there, here)| name.replace(there, here))
        };
        *name = match name.as_str() {
            up if up.starts_with("decoder.up_blocks.") => block(up)
                .replace("up_blocks.", "upsamples.")
                .replace(".resnets.", ".upsamples.")
                .replace(".upsampler.", ".upsamples.3."),
            mid if mid.starts_with("decoder.mid_block.") => block(mid)
                .replace("mid_block.resnets.0.", "middle.0.")
                .replace("mid_block.resnets.1.", "middle.2.")
                .replace("mid_block.attentions.0.", "middle.1."),
            other => other
                .replace("post_quant_conv", "conv2")
                .replace("quant_conv", "conv1")
                .replace("decoder.conv_in", "decoder.conv1")
                .replace("decoder.norm_out", "decoder.head.0")
                .replace("decoder.conv_out", "decoder.head.2"),
        };
    }
    merge_first(&mut decoder);
    let (_folder, vae) = gguf(&decoder, config.as_ref());
    assert_same_networks(&networks("ti2v5b/pipe"), &open(Pipeline { vae, ..diffusers }).expect("a model"));
}

#[test]
fn files_say_what_the_model_is() {
    let model = networks("wan21/pipe").model;
    assert_eq!((model.channels, model.temporal_stride, model.spatial_stride), (16, 4, 8));
    assert_eq!((model.patch, model.text_len, model.text_dim), ([1, 2, 2], 512, 32));
    assert_eq!((model.defaults.shift, model.defaults.shift_below), (3.0, None));
    assert_eq!((model.boundary, model.distilled, model.train_timesteps), (None, false, 1000.0));
    // Without configurations, what is known of these shapes.
    let original = networks("wan21/original").model;
    assert_eq!((&original.latent_mean, &original.latent_std), (&model.latent_mean, &model.latent_std));
    assert_eq!((original.defaults.shift, original.defaults.shift_below), (5.0, Some((500_000, 3.0))));
    let large = networks("ti2v5b/pipe").model;
    assert_eq!((large.channels, large.temporal_stride, large.spatial_stride), (48, 4, 16));
    assert_eq!((large.defaults.width, large.defaults.height, large.defaults.frames), (1280, 704, 121));
}

#[test]
fn two_denoisers_and_settings_beside_them() {
    let mut pipeline = pipeline("wan21/original");
    pipeline.transformer_2 = Some(pipeline.transformer.clone());
    let model = open(pipeline.clone()).expect("a model").model;
    assert_eq!((model.boundary, model.defaults.steps, model.defaults.shift), (Some(0.875), 40, 12.0));
    assert_eq!((model.defaults.guidance, model.defaults.guidance_low), (4.0, Some(3.0)));
    let settings = json!({ "num_frames": 9, "flow_shift": 8, "text_len": 256 });
    pipeline.sources.settings = settings.as_object().cloned();
    pipeline.sources.index = json!({ "boundary_ratio": 0.9 }).as_object().cloned();
    let model = open(pipeline.clone()).expect("a model").model;
    assert_eq!((model.boundary, model.text_len), (Some(0.9), 256));
    assert_eq!((model.defaults.frames, model.defaults.shift), (9, 8.0));
    pipeline.sources.transformer = Some(PathBuf::from("Wan2.1-T2V-14B-StepDistill.safetensors"));
    pipeline.sources.settings = None;
    let model = open(pipeline.clone()).expect("a model").model;
    assert!(model.distilled);
    assert_eq!((model.defaults.steps, model.defaults.shift, model.defaults.guidance), (4, 5.0, 1.0));
    for (settings, expected) in [
        (json!({ "frames": 9 }), "video.json: key `frames` is unknown"),
        (json!({ "text_len": 0 }), "`text_len` = 0 makes no sense: it must be 1 to 65536"),
        (json!({ "text_len": 1e9 }), "`text_len` = 1000000000.0 makes no sense: it must be a whole number"),
    ] {
        pipeline.sources.settings = settings.as_object().cloned();
        let error = open(pipeline.clone()).expect_err("settings that cannot be").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// What is said of a pipeline whose denoiser has other tensors or another configuration.
fn told(change: impl FnOnce(&mut Vec<Tensor>, &mut Map<String, Value>)) -> String {
    let whole = pipeline("wan21/pipe");
    let (mut tensors, mut config) =
        (tensors(&whole.transformer), whole.transformer.config().cloned().unwrap());
    change(&mut tensors, &mut config);
    merge_first(&mut tensors);
    let (folder, transformer) = gguf(&tensors, Some(&Value::Object(config)));
    let error = open(Pipeline { transformer, ..whole }).expect_err("a model that is not right").to_string();
    let path = folder.path().display().to_string();
    error.strip_prefix(&format!("{path}: ")).unwrap_or_else(|| panic!("no path: {error}")).to_owned()
}

#[test]
fn what_is_wrong_with_tensors_is_said_in_the_files_own_names() {
    let error = told(|tensors, _| tensors.retain(|(name, _, _)| name != "blocks.1.attn2.to_k.bias"));
    assert!(error.starts_with("tensor `blocks.1.attn2.to_k.bias` is missing"), "{error}");
    let error = told(|tensors, _| tensors.push(("blocks.0.attn1.extra".to_owned(), vec![1], vec![0; 4])));
    assert!(error.starts_with("tensor `blocks.0.attn1.extra` has no place"), "{error}");
    let error = told(|tensors, _| {
        let up = tensors.iter_mut().find(|(name, _, _)| name == "blocks.2.ffn.net.0.proj.weight");
        up.expect("a tensor").1.reverse();
    });
    assert_eq!(error, "tensor `blocks.2.ffn.net.0.proj.weight` has shape [64, 112], expected [112, 64]");
    let error = told(|tensors, _| tensors.retain(|(name, _, _)| !name.contains("condition_embedder")));
    assert!(error.contains("`condition_embedder.time_proj.weight` (diffusers)"), "{error}");
    // A name that lies about the number of layers.
    let error = told(|tensors, _| {
        tensors.push(("blocks.99999999.norm2.bias".to_owned(), vec![64], vec![0; 256]));
    });
    assert!(error.contains("is missing") || error.contains("num_layers"), "{error}");
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    type Case = (&'static str, Value, &'static str);
    let cases: [Case; 9] = [
        ("num_layers", json!(4), "`num_layers` is 4 in the configuration, but the tensors make it 3"),
        ("ffn_dim", json!(128), "`ffn_dim` is 128 in the configuration, but the tensors make it 112"),
        ("patch_size", json!([1, 4, 1]), "`patch_size` is [1, 4, 1] in the configuration"),
        ("cross_attn_norm", json!(false), "`cross_attn_norm` is false in the configuration"),
        ("num_attention_heads", json!(5), "`num_attention_heads` = 5 makes no sense"),
        ("eps", json!("small"), "`eps` = \"small\" makes no sense: it must be a positive number"),
        ("image_dim", json!(1280), "`image_dim` = 1280 is not supported; models from text alone are"),
        ("qk_norm", json!("rms_norm"), "`qk_norm` = rms_norm is not supported"),
        ("in_channels", json!(36), "`in_channels` is 36 in the configuration, but the tensors make it 16"),
    ];
    for (key, value, expected) in cases {
        let error = told(|_, config| {
            config.insert(key.to_owned(), value);
        });
        assert!(error.contains(expected), "{key}: {error}");
    }
}

#[test]
fn parts_of_different_models_are_refused() {
    let (small, large) = (pipeline("wan21/pipe"), pipeline("ti2v5b/pipe"));
    let error = open(Pipeline { vae: large.vae, ..small.clone() }).expect_err("another decoder");
    assert!(matches!(error, ModelError::PartsDiffer { expected: 16, found: 48, .. }), "{error}");
    let error = open(Pipeline { vae: small.transformer.clone(), ..small.clone() }).expect_err("no decoder");
    assert!(error.to_string().contains("the names of its tensors are none that are known"), "{error}");
    let mut other = small;
    other.sources.index = json!({ "_class_name": "WanImageToVideoPipeline" }).as_object().cloned();
    let error = open(other).expect_err("another kind of pipeline").to_string();
    assert!(error.contains("`_class_name` = WanImageToVideoPipeline is not supported"), "{error}");
}

#[test]
fn heads_that_nothing_says_are_not_guessed() {
    let whole = pipeline("wan21/pipe");
    let mut tensors = tensors(&whole.transformer);
    merge_first(&mut tensors);
    let (_folder, transformer) = gguf(&tensors, None);
    let error = open(Pipeline { transformer, ..whole }).expect_err("no heads").to_string();
    assert!(error.contains("nothing says how many heads attention has"), "{error}");
}

#[test]
fn a_level_that_lacks_a_block_is_not_a_smaller_decoder() {
    let whole = pipeline("wan21/original");
    let mut decoder = tensors(&whole.vae);
    decoder.retain(|(name, _, _)| !name.starts_with("decoder.upsamples.14."));
    merge_first(&mut decoder);
    let (_folder, vae) = gguf(&decoder, None);
    let error = open(Pipeline { vae, ..whole }).expect_err("a block is missing").to_string();
    assert!(error.contains("tensor `decoder.upsamples.14.residual.2.weight` is missing"), "{error}");
}

#[test]
fn sizes_that_are_no_patches_are_refused() {
    let denoiser = networks("wan21/pipe").denoiser;
    let error = denoiser.denoise([1, 5, 4], 3, 0).expect_err("half a patch").to_string();
    assert_eq!(error, "`size of the latent` = 4x5 makes no sense: it must be a whole number of patches");
    assert!(denoiser.denoise([0, 4, 4], 3, 0).is_err());
    assert!(denoiser.denoise([usize::MAX / 4, 4, 4], 3, 0).is_err());
    assert!(denoiser.context(0).is_err());
}
