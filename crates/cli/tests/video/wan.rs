//! The tiny pipelines: what was computed with them elsewhere, and how they are run here.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wushi_formats::safetensors::{NewTensor, Safetensors, header};

use crate::support::{Outcome, Sandbox, fixture};

/// A pipeline of the fixtures.
pub(crate) fn model(name: &str) -> String {
    fixture(&format!("wan/{name}"))
}

/// The smallest one, where any will do.
pub(crate) fn tiny() -> String {
    model("wan21/pipe")
}

/// A small and quick video: 48x32, 5 frames, 2 steps.
pub(crate) const QUICK: [&str; 9] =
    ["a red circle", "--size", "48x32", "--frames", "5", "--steps", "2", "--seed", "7"];

/// Makes the quick video of a model with further flags, and gives what it reports.
pub(crate) fn quick(sandbox: &Sandbox, model: &str, flags: &[&str]) -> Value {
    sandbox.json(&last(&[&["video", model], &QUICK, &["-q", "--json"], flags]))
}

/// Arguments one after the other; of a flag that is given twice, the last counts.
pub(crate) fn last<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    let mut args: Vec<&str> = Vec::new();
    for &arg in parts.iter().copied().flatten() {
        let flag = arg.starts_with("--").then(|| args.iter().position(|&other| other == arg)).flatten();
        if let Some(at) = flag {
            // With its value, if it has one.
            let value = args.get(at + 1).is_some_and(|next| !next.starts_with('-'));
            args.drain(at..at + 1 + usize::from(value));
        }
        args.push(arg);
    }
    args
}

/// The tensor of a safetensors file, with its shape.
pub(crate) fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = Safetensors::open(path).unwrap();
    let tensor = file.tensors().iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!(tensor.type_name, "F32");
    let bytes = file.tensor_bytes(tensor).as_chunks().0;
    (tensor.shape.clone(), bytes.iter().map(|&four| f32::from_le_bytes(four)).collect())
}

/// Writes a safetensors file of one tensor.
pub(crate) fn write_tensor(path: &Path, name: &str, shape: &[usize], values: &[f32]) {
    let mut bytes = header(&[NewTensor { name, type_name: "F32", shape }], &[]).unwrap();
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

/// What the reference implementation was asked for.
pub(crate) struct Reference {
    pub(crate) meta: Value,
    /// Has the latents it started from.
    dump: PathBuf,
    frames: PathBuf,
}

impl Reference {
    pub(crate) fn open(variant: &str) -> Reference {
        let text = fs::read_to_string(model(&format!("{variant}/meta.json"))).unwrap();
        let meta = serde_json::from_str(&text).unwrap();
        let dump = PathBuf::from(model(&format!("{variant}/dump.safetensors")));
        Reference { meta, frames: dump.clone(), dump }
    }

    /// The first generation's, sampled by Euler's steps.
    pub(crate) fn of_euler() -> Reference {
        let mut reference = Reference::open("wan21");
        reference.meta["args"]["scheduler"] = "euler".into();
        Reference { frames: model("wan21/euler.safetensors").into(), ..reference }
    }

    /// Its frames, `[1, F, 3, H, W]`.
    pub(crate) fn frames(&self) -> (Vec<usize>, Vec<f32>) {
        tensor(&self.frames, "video")
    }

    /// The latents it started from, as a file for `--init-latents`.
    pub(crate) fn init_latents(&self, sandbox: &Sandbox) -> String {
        let (shape, values) = tensor(&self.dump, "latents.init");
        let path = sandbox.path("init.safetensors");
        write_tensor(&path, "latents", &shape, &values);
        path.display().to_string()
    }

    /// The arguments that ask for its video.
    pub(crate) fn args(&self, model: &str) -> Vec<String> {
        let args = &self.meta["args"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let number = |name: &str| args[name].to_string();
        let mut all = vec!["video".to_owned(), model.to_owned(), text(&self.meta["prompt"])];
        let size = format!("{}x{}", args["width"], args["height"]);
        for (flag, value) in [
            ("--negative", text(&self.meta["negative"])),
            ("--size", size),
            ("--frames", number("frames")),
            ("--steps", number("steps")),
            ("--guidance", number("cfg")),
            ("--flow-shift", number("shift")),
            ("--sampler", text(&args["scheduler"])),
            ("--seed", number("seed")),
        ] {
            all.extend([flag.to_owned(), value]);
        }
        all
    }
}

/// A copy of a pipeline that may be damaged.
pub(crate) fn copy(sandbox: &Sandbox, name: &str) -> PathBuf {
    fn folder(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
            let to = to.join(entry.file_name().unwrap());
            if entry.is_dir() {
                folder(&entry, &to);
            } else {
                fs::copy(entry, to).unwrap();
            }
        }
    }
    let to = sandbox.path("copy");
    folder(Path::new(&model(name)), &to);
    to
}

/// Changes the header of a safetensors file; what it says of bytes must stay true.
pub(crate) fn edit_header(path: &Path, edit: impl FnOnce(&mut Value)) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut head: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    edit(&mut head);
    let head = serde_json::to_vec(&head).unwrap();
    let mut edited = (head.len() as u64).to_le_bytes().to_vec();
    edited.extend(head);
    edited.extend(&bytes[8 + length..]);
    fs::write(path, edited).unwrap();
}

/// Makes one number of a tensor NaN.
pub(crate) fn poison(path: &Path, name: &str) {
    let mut bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let head: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let begin = 8 + length + head[name]["data_offsets"][0].as_u64().unwrap() as usize;
    assert_eq!(head[name]["dtype"], "F32");
    bytes[begin..begin + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

/// Names in a folder that begin with a dot or lie about: what a run must not leave behind.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What a run said that failed after it had told how far it was.
pub(crate) fn failed(outcome: Outcome) -> String {
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error: ") && !outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    outcome.stderr
}
