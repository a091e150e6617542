//! The frames are those of diffusers, from its noise.

use crate::support::Sandbox;
use crate::wan::{Reference, model, tensor};

/// The largest difference, beside the largest number.
const TOLERANCE: f32 = 1e-4;

fn is_close(variant: &str, layout: &str) -> String {
    is_close_to(&Reference::open(variant), variant, layout, &[])
}

fn is_close_to(reference: &Reference, variant: &str, layout: &str, more: &[&str]) -> String {
    let sandbox = Sandbox::new();
    let (latents, frames) = (reference.init_latents(&sandbox), sandbox.path("frames.safetensors"));
    let frames_text = frames.display().to_string();
    let asked = reference.args(&model(&format!("{variant}/{layout}")));
    let mut args: Vec<&str> = asked.iter().map(String::as_str).collect();
    args.extend([
        "--init-latents",
        &latents,
        "--save-frames",
        &frames_text,
        "-o",
        "out.apng",
        "-q",
        "--json",
    ]);
    args.extend(more);
    let report = sandbox.json(&args);

    let (shape, expected) = reference.frames();
    let (found_shape, found) = tensor(&frames, "video");
    assert_eq!(found_shape, shape);
    let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let worst = found.iter().zip(&expected).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst <= TOLERANCE * largest, "{variant}/{layout}: {worst} of {largest}");
    // The digest is that of the very numbers in the file.
    let bytes: Vec<u8> = found.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(report["frames_digest"], blake3::hash(&bytes).to_hex().as_str());
    assert_eq!(report["frames"], shape[1]);
    report["frames_digest"].as_str().unwrap().to_owned()
}

#[test]
fn of_the_first_generation_in_both_layouts() {
    assert_eq!(is_close("wan21", "pipe"), is_close("wan21", "original"));
}

#[test]
fn with_the_steps_of_euler() {
    // As diffusers samples it: it shifts the lower end of the noise levels twice.
    let euler = ["--spacing", "twice-shifted", "--timesteps", "exact"];
    is_close_to(&Reference::of_euler(), "wan21", "pipe", &euler);
}

#[test]
fn of_the_second_generation() {
    is_close("ti2v5b", "pipe");
}
