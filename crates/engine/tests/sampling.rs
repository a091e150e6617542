//! Sampling against diffusers: its velocities go in, its latents must come out, step by step.

use std::collections::BTreeMap;
use std::path::Path;

use wushi_engine::video::{Rounding, Sampler, SamplerKind, Schedule, Spacing, guide};
use wushi_formats::safetensors::Safetensors;

/// What diffusers computed for the pipeline of this name, all as F32.
fn dump(name: &str) -> BTreeMap<String, Vec<f32>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wan");
    let file = Safetensors::open(&folder.join(name).join("dump.safetensors")).unwrap();
    let tensors = file.tensors().iter();
    let sampling =
        tensors.filter(|t| ["latents.", "sched.", "step"].iter().any(|start| t.name.starts_with(start)));
    sampling.map(|t| (t.name.clone(), values(t.shape.iter().product(), file.tensor_bytes(t)))).collect()
}

/// Numbers of 4 bytes are F32, those of 8 are integers.
fn values(count: usize, bytes: &[u8]) -> Vec<f32> {
    match bytes.len() / count {
        4 => bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect(),
        8 => {
            bytes.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as f32).collect()
        }
        size => panic!("elements of {size} bytes"),
    }
}

/// The largest difference, as a share of the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

/// Both pipelines: four steps, shift 3, guidance 5, UniPC.
#[test]
fn every_step_is_that_of_diffusers() {
    for name in ["wan21", "ti2v5b"] {
        let dump = dump(name);
        let schedule = Schedule::new(4, 3.0, Spacing::Training, Rounding::Floor, 1000.0).unwrap();
        assert_eq!(schedule.sigmas(), dump["sched.sigmas"]);
        assert_eq!(schedule.timesteps(), dump["sched.timesteps"]);
        let mut sampler = Sampler::new(SamplerKind::UniPc, &schedule);
        let mut latents = dump["latents.init"].clone();
        for step in 0..4 {
            let mut velocity = dump[&format!("step{step}.uncond")].clone();
            guide(&mut velocity, &dump[&format!("step{step}.cond")], 5.0);
            sampler.step(&velocity, &mut latents);
            let worst = difference(&latents, &dump[&format!("step{step}.latents")]);
            assert!(worst <= 1e-6, "{name}, step {step}: {worst:e}");
        }
    }
}
