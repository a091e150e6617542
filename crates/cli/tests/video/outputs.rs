//! What is written: formats, sizes, frames, and that decoders see what was decoded.

use std::fs;
use std::path::Path;

use crate::support::Sandbox;
use crate::wan::{QUICK, last, names, quick, tensor, tiny};

/// The bytes of a box of MP4 that lies in boxes named by `path`, from the first of each.
fn mp4_box<'a>(mut bytes: &'a [u8], path: &[&[u8; 4]]) -> &'a [u8] {
    for (depth, name) in path.iter().enumerate() {
        let mut rest = bytes;
        bytes = loop {
            let size = u32::from_be_bytes(*rest.first_chunk().expect("a box")) as usize;
            if &rest[4..8] == *name {
                // A list of descriptions has a version and a count before its boxes.
                let head = if *name == b"stsd" && depth + 1 < path.len() { 16 } else { 8 };
                break &rest[head..size];
            }
            rest = &rest[size..];
        };
    }
    bytes
}

fn frames_of_png_dir(folder: &Path) -> Vec<Vec<u8>> {
    names(folder).iter().map(|name| fs::read(folder.join(name)).unwrap()).collect()
}

#[test]
fn every_format_has_all_frames() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let frames = sandbox.path("frames.safetensors");
    let saved = frames.display().to_string();
    let mut digests = Vec::new();
    for (out, format) in
        [("a.mp4", "mp4"), ("a.apng", "apng"), ("a.png", "apng"), ("a.gif", "gif"), ("frames/", "png-dir")]
    {
        let report = quick(&sandbox, &model, &["-o", out, "--fps", "8", "--save-frames", &saved]);
        assert_eq!((&report["format"], &report["path"]), (&format.into(), &out.into()));
        let size = (&report["width"], &report["height"], &report["frames"], &report["fps"]);
        assert_eq!(size, (&48.into(), &32.into(), &5.into(), &8.into()));
        assert_eq!(report["duration_s"], 0.625);
        if format != "png-dir" {
            assert_eq!(report["bytes"], fs::metadata(sandbox.path(out)).unwrap().len());
        }
        digests.push(report["frames_digest"].clone());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);

    let mp4 = fs::read(sandbox.path("a.mp4")).unwrap();
    assert_eq!(&mp4[4..8], b"ftyp");
    let table = mp4_box(&mp4, &[b"moov", b"trak", b"mdia", b"minf", b"stbl"]);
    let stsz = mp4_box(table, &[b"stsz"]);
    assert_eq!(u32::from_be_bytes(*stsz[8..].first_chunk().unwrap()), 5, "frames of the MP4");
    let avc1 = mp4_box(table, &[b"stsd", b"avc1"]);
    assert_eq!((&avc1[24..26], &avc1[26..28]), (&[0, 48][..], &[0, 32][..]));

    // Lossless: every picture of the folder is a frame, rounded to bytes.
    let (shape, values) = tensor(&frames, "video");
    assert_eq!(shape, [1, 5, 3, 32, 48]);
    let pictures = frames_of_png_dir(&sandbox.path("frames"));
    assert_eq!(
        names(&sandbox.path("frames")),
        ["000001.png", "000002.png", "000003.png", "000004.png", "000005.png"]
    );
    let pixels = 32 * 48;
    for (picture, values) in pictures.iter().zip(values.chunks_exact(3 * pixels)) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!((info.width, info.height), (48, 32));
        for (place, pixel) in rgb.chunks_exact(3).enumerate() {
            let expected = [0, 1, 2].map(|c| (255.0 * values[c * pixels + place]).round_ties_even() as u8);
            assert_eq!(pixel, expected);
        }
    }
    // An APNG has the same frames, and a GIF as many.
    let mut reader = png::Decoder::new(std::io::Cursor::new(fs::read(sandbox.path("a.apng")).unwrap()))
        .read_info()
        .unwrap();
    assert_eq!(reader.info().animation_control().unwrap().num_frames, 5);
    let mut first = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut first).unwrap();
    let mut single = png::Decoder::new(std::io::Cursor::new(&pictures[0])).read_info().unwrap();
    let mut other = vec![0; single.output_buffer_size().unwrap()];
    single.next_frame(&mut other).unwrap();
    assert!(first == other);
    let mut gif =
        gif::DecodeOptions::new().read_info(fs::File::open(sandbox.path("a.gif")).unwrap()).unwrap();
    assert_eq!((gif.width(), gif.height()), (48, 32));
    let mut count = 0;
    while gif.read_next_frame().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 5);
    assert_eq!(
        names(&sandbox.path("home/video")).iter().filter(|name| name.starts_with("latents")).count(),
        0
    );
}

#[test]
fn the_report_says_all_that_was_used() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let flags = ["--size", "50x33", "--frames", "7", "-o", "a.apng", "--guidance", "1.5"];
    let report = quick(&sandbox, &model, &flags);
    assert_eq!((&report["width"], &report["height"], &report["frames"]), (&48.into(), &32.into(), &5.into()));
    let changes = report["changes"].as_array().unwrap();
    let of = |i: usize| {
        [&changes[i]["what"], &changes[i]["wanted"], &changes[i]["used"]].map(|v| v.as_str().unwrap())
    };
    assert_eq!((of(0), of(1)), (["size", "50x33", "48x32"], ["frames", "7", "5"]));
    assert!(changes[1]["message"].as_str().unwrap().starts_with("5 frames instead of 7"));
    assert_eq!(
        (&report["seed"], &report["steps"], &report["sampler"]),
        (&7.into(), &2.into(), &"unipc".into())
    );
    assert_eq!((&report["guidance"], &report["guidance_2"]), (&1.5.into(), &serde_json::Value::Null));
    assert_eq!((&report["spacing"], &report["timesteps"]), (&"training".into(), &"floor".into()));
    assert_eq!((&report["prompt"], &report["resumed"]), (&"a red circle".into(), &false.into()));
    for stage in ["text", "denoise", "decode", "total"] {
        assert!(report["seconds"][stage].as_f64().unwrap() > 0.0, "{stage}");
    }
    for part in ["latents", "text_encoder", "vae"] {
        assert_eq!(report["digests"][part].as_str().unwrap().len(), 64, "{part}");
    }
    assert!(report["machine"]["cpu"].is_string());
    #[cfg(target_os = "linux")]
    assert!(report["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    // A drawn seed is reported, and gives the same video again.
    let asked =
        ["video", &model, "a dog", "--size", "48x32", "--frames", "1", "--steps", "1", "-q", "--json"];
    let drawn = sandbox.json(&last(&[&asked[..], &["-o", "b.apng"]]));
    let seed = drawn["seed"].to_string();
    let again = sandbox.json(&last(&[&asked[..], &["-o", "c.apng", "--seed", &seed]]));
    assert_eq!(again["frames_digest"], drawn["frames_digest"]);
}

#[test]
fn people_are_told_what_happens() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = last(&[&["video", &model], &QUICK, &["-o", "a.mp4", "--frames", "6"]]);
    let outcome = sandbox.run(&args).ok();
    assert_eq!(outcome.stdout, "a.mp4\n");
    for said in [
        "5 frames instead of 6: this model makes 1 + a multiple of 4",
        "48x32, 5 frames at ",
        "2 steps of unipc, guidance ",
        "seed 7",
        "MULTIPLY-ADDS",
        "denoising ",
        " available; ",
        "loading the text encoder",
        "loading the denoiser",
        "step 2 of 2, ",
        "frame 5 of 5, ",
        "5 frames, 0.3 s, ",
    ] {
        assert!(outcome.stderr.contains(said), "{said}: {}", outcome.stderr);
    }
    // Nobody watches: no control characters, and not a line for every frame.
    assert!(!outcome.stderr.contains('\x1b'), "{}", outcome.stderr);
    assert!(outcome.stderr.lines().count() < 25, "{}", outcome.stderr);
    let quiet = sandbox.run(&last(&[&args[..], &["-q"]])).ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("a.mp4\n", ""));
}

#[test]
fn a_preview_is_drawn_where_it_is_asked_for() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = [&["video", &model][..], &QUICK, &["-q", "-o", "a.apng"]].concat();
    let shown = sandbox.run(&last(&[&args[..], &["--preview"]])).ok();
    // Two rows of pixels in a line; 48 columns, 16 lines, 5 frames.
    let lines: Vec<&str> = shown.stderr.lines().filter(|line| line.contains('▀')).collect();
    assert_eq!(lines.len(), 5 * 16);
    assert!(lines.iter().all(|line| line.matches('▀').count() == 48));
    // A configuration is for terminals.
    let sandbox = Sandbox::new().with("WUSHI_PREVIEW", "true");
    assert_eq!(sandbox.run(&args).ok().stderr, "");
}

#[test]
fn knobs_come_from_everywhere() {
    let model = tiny();
    let sandbox = Sandbox::new().with("WUSHI_STEPS", "1").with("WUSHI_SIZE", "32x32");
    sandbox.write("wushi.toml", "frames = 1\nsteps = 3\nnegative = \"blurry\"\nformat = \"gif\"\n");
    let args = ["video", &model, "a dog", "--seed", "3", "-q", "--json"];
    let report = sandbox.json(&args);
    assert_eq!((&report["steps"], &report["width"], &report["frames"]), (&1.into(), &32.into(), &1.into()));
    assert_eq!((&report["negative"], &report["path"]), (&"blurry".into(), &"a-dog-3.gif".into()));
    // What a name says is stronger than a configuration, and a flag than both.
    let named = sandbox.json(&last(&[&args[..], &["-o", "x.apng"]]));
    assert_eq!(named["format"], "apng");
    let said = sandbox.json(&last(&[&args[..], &["-o", "y", "--format", "png-dir"]]));
    assert_eq!(said["format"], "png-dir");
    // A prompt from elsewhere.
    let piped =
        sandbox.pipe(&["video", &model, "--seed", "3", "-q", "--json", "-o", "z.gif"], "a dog\n").json();
    assert_eq!((&piped["prompt"], &piped["frames_digest"]), (&"a dog".into(), &report["frames_digest"]));
}

#[test]
fn parts_may_be_named_one_by_one() {
    let sandbox = Sandbox::new();
    let part = |name: &str| crate::wan::model(&format!("wan21/pipe/{name}"));
    let [dit, vae, text, tokenizer] = ["transformer", "vae", "text_encoder", "tokenizer"].map(part);
    let files = ["--dit", &dit, "--vae", &vae, "--text-encoder", &text, "--tokenizer", &tokenizer];
    let flags = ["--guidance", "5", "--flow-shift", "3", "--negative", "x", "-o", "a.apng", "-q", "--json"];
    let named = sandbox.json(&last(&[&["video"][..], &QUICK, &files, &flags]));
    let found = quick(&sandbox, &tiny(), &flags[..8]);
    assert_eq!(named["frames_digest"], found["frames_digest"]);
    assert!(named["model"].is_null());
    // One part in the place of the folder's own.
    let original = crate::wan::model("wan21/original");
    let mixed = sandbox.json(&last(&[&["video", &original][..], &QUICK, &["--vae", &vae], &flags]));
    assert_eq!(mixed["frames_digest"], found["frames_digest"]);
}

#[test]
fn what_is_not_read_of_prompts_is_told() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let long = "a red circle ".repeat(300);
    let asked = ["video", &model, &long, "--negative", "blurry", "--size", "48x32", "--frames", "1"];
    let asked = [&asked[..], &["--steps", "1", "-o", "a.apng", "-q", "--json", "--guidance"]].concat();
    let changes = |guidance| {
        let report = sandbox.json(&last(&[&asked[..], &[guidance]]));
        let told = report["changes"].as_array().unwrap().iter().map(|change| change["message"].to_string());
        told.collect::<Vec<String>>()
    };
    let one = changes("1");
    assert!(one[0].contains("no negative prompt") && one[1].contains("the first 512 of the"), "{one:?}");
    assert_eq!(changes("2").len(), 1);
}

#[test]
fn two_denoisers_of_one_kind_are_one() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let second = crate::wan::model("wan21/original/diffusion_pytorch_model.safetensors");
    let guided = ["--guidance", "4", "--steps", "4", "-o", "a.apng"];
    let one = quick(&sandbox, &model, &guided);
    let two = quick(&sandbox, &model, &[&guided[..], &["--dit-2", &second]].concat());
    assert_eq!(two["frames_digest"], one["frames_digest"]);
    assert_eq!((&one["guidance_2"], &two["guidance_2"]), (&serde_json::Value::Null, &4.0.into()));
    assert_eq!((&one["boundary"], &two["boundary"]), (&serde_json::Value::Null, &0.875.into()));
    // The second one's guidance is its own.
    let apart = quick(&sandbox, &model, &[&guided[..], &["--dit-2", &second, "--guidance-2", "1"]].concat());
    assert_ne!(apart["frames_digest"], one["frames_digest"]);
    let asked = ["video", &model, "--dit-2", &second, "--plan", "--json", "--size", "48x32", "--steps", "4"];
    let asked = [&asked[..], &["--guidance", "4", "--guidance-2", "1"]].concat();
    let plan = sandbox.json(&asked);
    let stages = plan["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 4, "both have a turn");
    let macs = |stage: usize| stages[stage]["multiply_adds"].as_u64().unwrap();
    // Two runs a step with guidance, one without.
    assert!(macs(1) > 0 && macs(2) > 0 && macs(1) % 2 == 0);
    let plan = sandbox.json(&[&asked[..], &["--boundary", "1"]].concat());
    assert_eq!(plan["stages"].as_array().unwrap().len(), 3, "the first one has no turn");
}
