//! What a video takes is told before it is made, and what cannot fit is refused.

use serde_json::Value;

use crate::support::Sandbox;
use crate::wan::{QUICK, last, tiny};

fn plan(flags: &[&str]) -> Value {
    Sandbox::new().json(&last(&[&["video", &tiny(), "--plan", "--json"][..], flags]))
}

#[test]
fn a_plan_has_memory_operations_and_time_of_every_stage() {
    let report = plan(&["--size", "48x32", "--frames", "13", "--steps", "4"]);
    let stages = report["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|stage| stage["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["reading the prompt", "denoising", "decoding"]);
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap();
    for stage in stages {
        let memory = &stage["memory"];
        let parts = ["weights", "buffers", "carried", "rest"].map(|part| number(memory, part));
        assert_eq!(parts.iter().sum::<u64>(), number(memory, "total"));
        assert!(number(memory, "weights") > 0 && number(stage, "multiply_adds") > 0, "{stage}");
        assert!(stage["seconds"].as_f64().unwrap() > 0.0);
    }
    assert!(number(&stages[2]["memory"], "carried") > 0, "a decoder carries frames");
    let peak = stages.iter().map(|stage| number(&stage["memory"], "total")).max();
    assert_eq!(report["peak_bytes"].as_u64(), peak);
    let sum: u64 = stages.iter().map(|stage| number(stage, "multiply_adds")).sum();
    assert_eq!(report["multiply_adds"].as_u64(), Some(sum));
    assert!(report["rates"]["linear_macs_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!((&report["limited_by"], &report["tokens"]), (&"machine".into(), &24.into()));
    // Twice the steps, twice the denoising; memory of decoding does not grow with frames.
    let longer = plan(&["--size", "48x32", "--frames", "45", "--steps", "8"]);
    let carried = |report: &Value| number(&report["stages"][2]["memory"], "carried");
    assert_eq!(carried(&longer), carried(&report));
    assert!(number(&longer["stages"][1], "multiply_adds") > 2 * number(&stages[1], "multiply_adds"));
    // Without guidance half.
    let alone = plan(&["--size", "48x32", "--frames", "13", "--steps", "4", "--guidance", "1"]);
    assert_eq!(2 * number(&alone["stages"][1], "multiply_adds"), number(&stages[1], "multiply_adds"));
}

#[test]
fn people_get_a_table_and_nothing_else_happens() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = last(&[&["video", &model], &QUICK, &["--plan", "--frames", "6"]]);
    let outcome = sandbox.run(&args).ok();
    for said in ["5 frames instead of 6", "WEIGHTS", "MULTIPLY-ADDS", "decoding", "at most ", "available"] {
        assert!(outcome.stdout.contains(said), "{said}: {}", outcome.stdout);
    }
    assert!(!sandbox.path("home/video").exists() && !sandbox.path("a-red-circle-7.mp4").exists());
}

#[test]
fn types_that_cannot_be_are_told() {
    // Rows of 64 are no blocks of 256, and those of 112 none of 32.
    let text =
        Sandbox::new().run(&["video", &tiny(), "--plan", "--quant", "q4_k", "--size", "48x32"]).ok().stdout;
    assert!(
        text.contains(" are F16, ") && text.contains(" are Q5_0 instead of Q4_K, as the length"),
        "{text}"
    );
    assert!(text.contains("denoiser Q5_0, VAE F32"), "{text}");
    let report = plan(&["--quant", "bf16", "--size", "48x32"]);
    assert!(report["instead"].is_null());
}

#[test]
fn what_cannot_fit_is_refused_with_what_would() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let ask = |flags: &[&str]| {
        let sized = ["video", &model, "a dog", "--steps", "1", "-q", "-o", "a.gif"];
        sandbox.run(&last(&[&sized[..], flags]))
    };
    let error = ask(&["--size", "832x480", "--frames", "81", "--memory", "40M"]).error(1);
    assert!(error.contains("not enough memory: 832x480 with 81 frames needs "), "{error}");
    assert!(error.contains("but 40.0 MB are allowed; ") && error.contains(" would fit"), "{error}");
    assert!(!sandbox.path("home/video").exists(), "nothing was computed");
    // What is offered does fit.
    let offer = error.split("allowed; ").nth(1).unwrap().split(" would fit").next().unwrap();
    let first = offer.split(" or ").next().unwrap();
    let (size, frames) = first.split_once(" with ").unwrap();
    let frames = frames.strip_suffix(" frames").unwrap();
    let plan = ["video", &model, "--plan", "--json", "--memory", "40M", "--size", size, "--frames", frames];
    let plan = sandbox.json(&plan);
    assert!(plan["peak_bytes"].as_u64().unwrap() <= 40_000_000);
    assert_eq!(plan["limited_by"], "--memory");
    let error = ask(&["--memory", "10k"]).error(1);
    assert!(error.contains("take a smaller model or one with smaller weights"), "{error}");
}
