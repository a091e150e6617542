//! One seed, one hash.

use serde_json::Value;
use wushi_cpu::InstructionSet;

use crate::support::Sandbox;
use crate::wan::{last, model, quick, tiny};

fn digest(report: &Value) -> String {
    report["frames_digest"].as_str().unwrap().to_owned()
}

#[test]
fn on_any_number_of_threads_and_every_instruction_set() {
    for name in ["wan21/pipe", "ti2v5b/pipe"] {
        let model = model(name);
        let of = |flags: &[&str]| {
            // A folder of its own, so that nothing is remembered.
            let report = quick(&Sandbox::new(), &model, &last(&[&["-o", "a.apng"], flags]));
            (digest(&report), report)
        };
        let (one, report) = of(&["-t", "1"]);
        assert_eq!(report["machine"]["threads"], 1);
        assert_eq!(of(&["-t", "2"]).0, one, "{name}");
        for set in InstructionSet::available() {
            let (other, report) = of(&["--isa", &set.to_string(), "-t", "3"]);
            assert_eq!(report["machine"]["instruction_set"], set.to_string());
            assert_eq!(other, one, "{name} {set}");
        }
        assert_ne!(of(&["--seed", "8"]).0, one);
    }
}

#[test]
fn with_every_type_of_weights() {
    let model = tiny();
    let mut seen = Vec::new();
    for flags in
        [&["--quant", "bf16", "--vae-dtype", "bf16"][..], &["--quant", "q8_0"], &["--cache-type", "f16"]]
    {
        let of =
            |more: &[&str]| digest(&quick(&Sandbox::new(), &model, &last(&[flags, &["-o", "a.apng"], more])));
        let one = of(&["-t", "1"]);
        for set in InstructionSet::available() {
            assert_eq!(of(&["-t", "2", "--isa", &set.to_string()]), one, "{flags:?} {set}");
        }
        seen.push(one);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "types make a difference");
}

#[test]
fn with_a_prompt_that_was_read_before() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = [&["video", &model][..], &crate::wan::QUICK, &["-o", "a.apng"]].concat();
    let first = sandbox.run(&args).ok();
    assert!(first.stderr.contains("read the prompt in"), "{}", first.stderr);
    let second = sandbox.run(&args).ok();
    assert!(second.stderr.contains("the prompt was read before"), "{}", second.stderr);
    let last = |text: &str| text.lines().last().unwrap().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(last(&first.stderr), last(&second.stderr));
    assert_eq!(last(&first.stderr), digest(&quick(&sandbox, &model, &["-o", "b.gif"])));
    // Another prompt is another video.
    let other = sandbox.json(&[&args[..2], &["a dog"], &args[3..], &["--json", "-q"]].concat());
    assert_ne!(digest(&other), last(&first.stderr));
}

#[test]
fn from_given_latents_or_the_same_noise() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let report = quick(&sandbox, &model, &["-o", "a.apng"]);
    // The noise of the seed, by hand.
    let mut noise = vec![0.0; 16 * 2 * 4 * 6];
    wushi_engine::video::fill_noise(7, 0, &mut noise);
    let path = sandbox.path("noise.safetensors");
    crate::wan::write_tensor(&path, "latents", &[1, 16, 2, 4, 6], &noise);
    let path = path.display().to_string();
    let given = quick(&sandbox, &model, &["-o", "b.apng", "--init-latents", &path, "--seed", "1"]);
    assert_eq!(digest(&given), digest(&report));
    assert!(std::fs::read(sandbox.path("a.apng")).unwrap() == std::fs::read(sandbox.path("b.apng")).unwrap());
}
