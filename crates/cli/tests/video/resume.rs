//! A run that was lost while decoding, or interrupted, goes on; none leaves a broken file.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Outcome, Sandbox};
use crate::wan::{QUICK, copy, failed, last, names, poison, quick, tiny};

fn saved(sandbox: &Sandbox) -> Vec<String> {
    let all = names(&sandbox.path("home/video"));
    all.into_iter().filter(|name| name.starts_with("latents-")).collect()
}

#[test]
fn a_run_that_is_lost_while_decoding_goes_on() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let expected = quick(&sandbox, &model, &["-o", "whole.apng"])["frames_digest"].clone();
    // A decoder with NaN in it fails when denoising is done.
    let damaged = copy(&sandbox, "wan21/pipe/vae");
    poison(&damaged.join("diffusion_pytorch_model.safetensors"), "decoder.conv_in.weight");
    let damaged = damaged.display().to_string();
    let args = [&["video", &model][..], &QUICK, &["-o", "a.apng"]].concat();
    let error = failed(sandbox.run(&last(&[&args[..], &["--vae", &damaged]])));
    assert!(error.contains("NaN") || error.contains("not finite"), "{error}");
    assert!(error.contains("--resume --seed 7"), "{error}");
    assert!(!sandbox.path("a.apng").exists());
    assert_eq!(saved(&sandbox).len(), 1);
    assert!(names(&sandbox.path("")).iter().all(|name| !name.starts_with('.')));

    // Said to those who begin anew.
    let again = failed(sandbox.run(&last(&[&args[..], &["--vae", &damaged]])));
    assert!(again.contains("--resume would go on from there"), "{again}");
    // Other settings are another video.
    let error = sandbox.run(&last(&[&args[..], &["--resume", "--steps", "3", "-q"]])).error(1);
    assert!(error.contains("nothing to resume") && error.contains("steps was 2, now it is 3"), "{error}");
    let error = sandbox.run(&last(&[&args[..], &["--resume", "--seed", "8", "-q"]])).error(1);
    assert!(error.contains("start was noise of seed 7, now it is noise of seed 8"), "{error}");

    // The seed need not be remembered.
    let without: Vec<&str> = args.iter().copied().filter(|&arg| arg != "--seed" && arg != "7").collect();
    let report = sandbox.json(&last(&[&without[..], &["--resume", "-q", "--json"]]));
    assert_eq!((&report["frames_digest"], &report["seed"]), (&expected, &7.into()));
    assert_eq!((&report["resumed"], &report["seconds"]["denoise"]), (&true.into(), &0.0.into()));
    assert_eq!(fs::read(sandbox.path("a.apng")).unwrap(), fs::read(sandbox.path("whole.apng")).unwrap());
    assert!(saved(&sandbox).is_empty());
    let error = sandbox.run(&last(&[&args[..], &["--resume", "-q"]])).error(1);
    assert!(
        error.contains("nothing to resume") && error.contains("removed when the video is there"),
        "{error}"
    );
}

#[test]
fn damaged_latents_are_not_decoded() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let damaged = copy(&sandbox, "wan21/pipe/vae");
    poison(&damaged.join("diffusion_pytorch_model.safetensors"), "decoder.conv_in.weight");
    let args = [&["video", &model][..], &QUICK, &["-o", "a.apng", "-q"]].concat();
    sandbox.run(&last(&[&args[..], &["--vae", &damaged.display().to_string()]])).error(1);
    let path = sandbox.path("home/video").join(&saved(&sandbox)[0]);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = sandbox.run(&last(&[&args[..], &["--resume"]])).error(1);
    assert!(error.contains("latents-") && error.contains("damaged"), "{error}");
}

#[test]
fn several_seeds_are_told_apart() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let damaged = copy(&sandbox, "wan21/pipe/vae");
    poison(&damaged.join("diffusion_pytorch_model.safetensors"), "decoder.conv_in.weight");
    let damaged = damaged.display().to_string();
    let args =
        ["video", &model, "a dog", "--size", "48x32", "--frames", "1", "--steps", "1", "-q", "-o", "a.gif"];
    for seed in ["1", "2"] {
        sandbox.run(&last(&[&args[..], &["--vae", &damaged, "--seed", seed]])).error(1);
    }
    let error = sandbox.run(&last(&[&args[..], &["--resume"]])).error(1);
    assert!(
        error.contains("choose one with --seed: ") && error.contains('1') && error.contains('2'),
        "{error}"
    );
    sandbox.run(&last(&[&args[..], &["--resume", "--seed", "2"]])).ok();
    // The other one is still there.
    assert_eq!(sandbox.json(&last(&[&args[..], &["--resume", "--json"]]))["seed"], 1);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_cleanly_and_resumes() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    // Long enough to be met while frames are decoded.
    let args = [
        "video",
        &model,
        "a dog",
        "--size",
        "96x64",
        "--frames",
        "641",
        "--steps",
        "1",
        "--guidance",
        "1",
        "--seed",
        "5",
    ];
    let interrupted = [&args[..], &["-o", "a.apng", "--save-frames", "a.safetensors"]].concat();
    let child = sandbox.command(&interrupted).spawn().unwrap();
    let begun = Instant::now();
    while saved(&sandbox).iter().all(|name| name.starts_with('.')) {
        assert!(begun.elapsed() < Duration::from_secs(120), "no latents");
        std::thread::sleep(Duration::from_millis(2));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let outcome = Outcome::of(child);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(130), ""), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("the denoised latents are saved, and --resume --seed 5 goes on from there"),
        "{}",
        outcome.stderr
    );
    assert_eq!(names(&sandbox.path("")), ["home"], "nothing half-made");
    let resumed = sandbox.json(&last(&[&args[..], &["-o", "a.apng", "--resume", "-q", "--json"]]));
    let whole = sandbox.json(&last(&[&args[..], &["-o", "b.apng", "-q", "--json"]]));
    assert_eq!(resumed["frames_digest"], whole["frames_digest"]);
    assert_eq!(names(&sandbox.path("")), ["a.apng", "b.apng", "home"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_between_steps_ends_cleanly_and_resumes() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    fs::write(sandbox.path("a.apng"), "what was there").unwrap();
    // Long enough to be met between two steps.
    let args = [
        "video", &model, "a dog", "--size", "96x64", "--frames", "41", "--steps", "60", "--seed", "5", "-o",
        "a.apng",
    ];
    let child = sandbox.command(&args).spawn().unwrap();
    let begun = Instant::now();
    while saved(&sandbox).iter().all(|name| name.starts_with('.')) {
        assert!(begun.elapsed() < Duration::from_secs(120), "no step");
        std::thread::sleep(Duration::from_millis(2));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let outcome = Outcome::of(child);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(130), ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("stopped: there is no video"), "{}", outcome.stderr);
    assert_eq!(names(&sandbox.path("")), ["a.apng", "home"]);
    assert_eq!(fs::read(sandbox.path("a.apng")).unwrap(), b"what was there");
    assert!(outcome.stderr.contains("of denoising"), "{}", outcome.stderr);
    let resumed = sandbox.json(&last(&[&args[..], &["--resume", "-q", "--json"]]));
    assert!(saved(&sandbox).is_empty());
    let whole = sandbox.json(&last(&[&args[..], &["-q", "--json"]]));
    assert_eq!(resumed["frames_digest"], whole["frames_digest"]);
    assert_eq!((&resumed["resumed"], &whole["resumed"]), (&true.into(), &false.into()));
}
