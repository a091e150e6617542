//! `wushi bench` and `wushi inspect` of models that make videos.

use crate::support::Sandbox;
use crate::wan::{last, model, tiny};

#[test]
fn a_bench_has_every_field() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args =
        ["bench", &model, "--size", "48x32", "--frames", "5", "--steps", "3", "-r", "1", "-t", "1", "-q"];
    let report = sandbox.json(&last(&[&args[..], &["--json"]]));
    for peak in ["bandwidth_gb_per_s", "f32_giga_macs_per_s", "int8_giga_macs_per_s"] {
        assert!(report["machine"][peak].as_f64().unwrap() > 0.0, "{peak}");
    }
    assert_eq!(
        (&report["tokens"], &report["steps"], &report["denoiser"]),
        (&12.into(), &3.into(), &"F32".into())
    );
    let results = report["results"].as_array().unwrap();
    let kinds: Vec<_> = results
        .iter()
        .map(|row| (row["kind"].as_str().unwrap(), row["runs_of_a_video"].as_u64().unwrap()))
        .collect();
    assert_eq!(kinds, [("denoise", 6), ("first latent frame", 1), ("later latent frame", 1)]);
    for row in results {
        for number in ["seconds", "giga_macs_per_s", "gb_per_s", "share_of_peak", "share_of_bandwidth"] {
            assert!(row[number].as_f64().unwrap() > 0.0, "{number}: {row}");
        }
        let parts = ["linear", "attention", "convolution"].map(|kind| row[kind].as_u64().unwrap());
        assert_eq!(row["multiply_adds"].as_u64(), Some(parts.iter().sum()));
    }
    assert!(results[0]["attention"].as_u64() > Some(0) && results[1]["convolution"].as_u64() > Some(0));
    assert!(report["video_s"].as_f64().unwrap() > 0.0);
    let text = sandbox.run(&args).ok().stdout;
    assert!(text.contains("later latent frame") && text.contains("a video of 3 steps: about "), "{text}");
}

#[test]
fn an_inspection_lists_the_parts() {
    let sandbox = Sandbox::new();
    for (name, layout) in [
        ("wan21/pipe", "diffusers' folder"),
        ("wan21/original", "folder of the original release"),
        ("ti2v5b/pipe", "diffusers' folder"),
    ] {
        let report = sandbox.json(&["inspect", &model(name), "--json"]);
        assert_eq!((&report["layout"], &report["supported"]), (&layout.into(), &true.into()), "{name}");
        let parts = report["parts"].as_array().unwrap();
        let kinds: Vec<&str> = parts.iter().map(|part| part["part"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["text encoder", "denoiser", "VAE"]);
        let sum: u64 = parts.iter().map(|part| part["parameters"].as_u64().unwrap()).sum();
        assert_eq!(report["parameters"].as_u64(), Some(sum));
        assert!(parts.iter().all(|part| part["types"][0]["type"] == "F32"), "{name}");
        assert_eq!(report["video"]["temporal_stride"], 4);
    }
    let text = sandbox.run(&["inspect", &tiny(), "--tensors"]).ok().stdout;
    for said in ["makes         videos", "denoiser", "blocks.0.attn1.to_q.weight", "multiples of 16x16"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn schedules_are_those_of_a_size() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let schedule = |size: &str, frames: &str| {
        sandbox.json(&["inspect", &model, "--schedule", "--size", size, "--frames", frames, "--json"])["schedule"].clone()
    };
    let macs = |schedule: &serde_json::Value, part: usize| {
        let steps = schedule["parts"][part]["steps"].as_array().unwrap();
        steps.iter().map(|step| step["macs"].as_u64().unwrap()).sum::<u64>()
    };
    let (small, large) = (schedule("48x32", "5"), schedule("96x64", "5"));
    assert_eq!(
        (&small["parts"][0]["part"], &small["parts"][1]["part"]),
        (&"denoise".into(), &"decode".into())
    );
    assert!(macs(&small, 0) > 0 && macs(&large, 0) > 3 * macs(&small, 0));
    // Everything in a decoder but a few small layers grows with the pixels.
    assert!(macs(&large, 1) > 3 * macs(&small, 1));
    // A longer video has the same decoder.
    assert_eq!(macs(&schedule("48x32", "81"), 1), macs(&small, 1));
    let text = sandbox.run(&["inspect", &model, "--schedule", "--size", "50x32"]).ok().stdout;
    for said in ["48x32 instead of 50x32", "SCHEDULE to denoise 48x32", "conv3d", "SCHEDULE to decode"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}
