//! Every error is one clear line, before or instead of a video, and leaves nothing behind.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::Sandbox;
use crate::wan::{QUICK, copy, edit_header, names, poison, tiny, write_tensor};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// What is said of a copy of the tiny pipeline after `damage`, which must contain all of `said`.
fn damaged(damage: impl FnOnce(&Path), said: &[&str]) {
    let sandbox = Sandbox::new();
    let folder = copy(&sandbox, "wan21/pipe");
    damage(&folder);
    let args = [&["video", "./copy"][..], &QUICK, &["-q", "-o", "a.mp4"]].concat();
    let error = sandbox.run(&args).error(1);
    for said in said {
        assert!(error.contains(said), "{said}: {error}");
    }
    assert_eq!(error.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{error}");
    let left = names(&sandbox.path(""));
    assert!(left.iter().all(|name| ["copy", "home"].contains(&name.as_str())), "{left:?}");
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, serde_json::to_vec(&value).unwrap()).unwrap();
}

#[test]
fn missing_files() {
    damaged(|folder| fs::remove_file(folder.join("vae").join(WEIGHTS)).unwrap(), &["vae", "safetensors"]);
    damaged(
        |folder| fs::remove_dir_all(folder.join("transformer")).unwrap(),
        &["`transformer`", "model_index.json"],
    );
    damaged(
        |folder| fs::remove_file(folder.join("tokenizer/tokenizer.json")).unwrap(),
        &["tokenizer", "--tokenizer"],
    );
    damaged(|folder| fs::remove_file(folder.join("transformer/config.json")).unwrap(), &["transformer"]);
    damaged(
        |folder| {
            fs::remove_file(folder.join("model_index.json")).unwrap();
        },
        &["network that denoises", "--dit"],
    );
}

#[test]
fn configurations_that_make_no_sense() {
    let edited = |part: &'static str, edit: fn(&mut Value), said: &[&str]| {
        damaged(|folder| edit_json(&folder.join(part).join("config.json"), edit), said);
    };
    damaged(|folder| fs::write(folder.join("transformer/config.json"), "{").unwrap(), &["config.json"]);
    edited("transformer", |c| c["num_attention_heads"] = json!("four"), &["num_attention_heads", "four"]);
    edited("transformer", |c| c["num_attention_heads"] = json!(0), &["num_attention_heads"]);
    edited("transformer", |c| c["num_layers"] = json!(4), &["`num_layers` is 4", "tensors make it 3"]);
    edited("transformer", |c| c["attention_head_dim"] = json!(24), &["transformer"]);
    edited("vae", |c| c["z_dim"] = json!(8), &["vae"]);
    edited("vae", |c| c["latents_mean"] = json!([0.0, 1.0]), &["latents"]);
    edited("text_encoder", |c| c["d_model"] = json!(48), &["text_encoder"]);
    damaged(
        |folder| fs::write(folder.join("video.json"), r#"{"num_frames": -1}"#).unwrap(),
        &["video.json", "num_frames"],
    );
    damaged(
        |folder| fs::write(folder.join("video.json"), r#"{"frames": 1}"#).unwrap(),
        &["video.json", "`frames`"],
    );
    damaged(
        |folder| {
            edit_json(&folder.join("scheduler/scheduler_config.json"), |c| c["flow_shift"] = json!("far"))
        },
        &["flow_shift"],
    );
}

#[test]
fn weights_that_do_not_fit() {
    let name = "blocks.0.attn1.to_q.weight";
    // Another shape of as many elements.
    damaged(
        |folder| {
            edit_header(&folder.join("transformer").join(WEIGHTS), |head| {
                head[name]["shape"] = json!([32, 128])
            });
        },
        &[name, "[32, 128]", "[64, 64]"],
    );
    // A tensor that nobody knows, in the place of one that is needed.
    damaged(
        |folder| {
            edit_header(&folder.join("transformer").join(WEIGHTS), |head| {
                let tensor = head.as_object_mut().unwrap().remove(name).unwrap();
                head["blocks.0.attn1.surprise"] = tensor;
            });
        },
        &["blocks.0.attn1"],
    );
    damaged(
        |folder| {
            let path = folder.join("vae").join(WEIGHTS);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        },
        &["copy/vae", "past the end of the file"],
    );
}

#[test]
fn nan_in_weights_is_refused_by_name() {
    damaged(
        |folder| poison(&folder.join("transformer").join(WEIGHTS), "blocks.0.attn1.to_q.weight"),
        &["the denoiser", "blocks.0.attn1.to_q.weight"],
    );
    damaged(
        |folder| poison(&folder.join("vae").join(WEIGHTS), "decoder.conv_in.weight"),
        &["the decoder", "decoder.conv_in.weight"],
    );
    damaged(
        |folder| {
            poison(
                &folder.join("text_encoder/model.safetensors"),
                "encoder.block.0.layer.0.SelfAttention.q.weight",
            )
        },
        &["the text encoder", "encoder.block.0.layer.0.SelfAttention.q.weight"],
    );
}

#[test]
fn latents_that_do_not_fit() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let path = sandbox.path("l.safetensors");
    let refused = |said: &[&str]| {
        let args =
            [&["video", &model][..], &QUICK, &["-q", "-o", "a.mp4", "--init-latents", "l.safetensors"]]
                .concat();
        let error = sandbox.run(&args).error(1);
        for said in said {
            assert!(error.contains(said), "{said}: {error}");
        }
    };
    refused(&["l.safetensors"]);
    fs::write(&path, "no safetensors at all").unwrap();
    refused(&["l.safetensors"]);
    write_tensor(&path, "noise", &[1], &[0.0]);
    refused(&["there is no tensor `latents`", "noise"]);
    write_tensor(&path, "latents", &[1, 16, 1, 4, 6], &[0.0; 16 * 4 * 6]);
    refused(&["[1, 16, 1, 4, 6]", "[1, 16, 2, 4, 6]"]);
    let mut values = vec![0.0; 2 * 16 * 4 * 6];
    values[9] = f32::INFINITY;
    write_tensor(&path, "latents", &[1, 16, 2, 4, 6], &values);
    refused(&["element 9", "inf"]);
}

#[test]
fn what_is_asked_for_wrongly() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let refused = |args: &[&str], code: i32, said: &str| {
        let error = sandbox.run(&[&["video"][..], args].concat()).error(code);
        assert!(error.contains(said), "{said}: {error}");
    };
    refused(&[], 1, "which model?");
    refused(&[&model, "  "], 1, "the prompt is empty");
    refused(&[&model], 1, "the prompt is empty");
    refused(&["a red fox in the snow"], 1, "the model comes before the prompt");
    refused(&["./nowhere", "a dog"], 1, "nowhere");
    refused(&["smollm2", "a dog"], 1, "smollm2 is a language model");
    refused(&[&model, "a dog", "--size", "832"], 2, "as in 832x480");
    refused(&[&model, "a dog", "--size", "8x8"], 1, "the width is 8, expected 16 to");
    refused(&[&model, "a dog", "--steps", "100000"], 1, "the number of steps is 100000");
    refused(&[&model, "a dog", "--frames", "0"], 2, "at least 1");
    refused(&[&model, "a dog", "--guidance", "0.5"], 2, "at least 1");
    refused(&[&model, "a dog", "--guidance-2", "2"], 1, "two denoisers");
    refused(&[&model, "a dog", "--boundary", "0.5"], 1, "this model has one denoiser");
    refused(&[&model, "a dog", "--boundary", "1.5"], 2, "a share, 0 to 1");
    refused(&[&model, "a dog", "--sampler", "ddim"], 2, "unipc or euler");
    refused(&[&model, "a dog", "--format", "webm"], 2, "mp4, apng, gif or png-dir");
    refused(&[&model, "a dog", "--vae-dtype", "q8_0"], 2, "f32, f16 or bf16");
    refused(&[&model, "a dog", "--plan", "--resume"], 2, "--resume");
    // A part of another kind.
    let vae = format!("{model}/vae");
    refused(&[&model, "a dog", "--dit", &vae], 1, "vae");
    // One that makes videos, asked for an answer.
    let error = sandbox.run(&["run", &model, "hello"]).error(1);
    assert!(error.contains("makes videos: wushi video "), "{error}");
    // A model of text.
    let text = crate::support::tiny();
    refused(&[&text, "a dog"], 1, "--vae");
}
