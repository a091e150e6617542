//! Where the video goes, and what is never overwritten.

use std::fs;

use crate::support::Sandbox;
use crate::wan::{QUICK, last, names, tiny};

#[test]
fn without_a_name_prompt_and_seed_make_one() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = [&["video", &model][..], &QUICK, &["-q"]].concat();
    assert_eq!(sandbox.run(&args).ok().stdout, "a-red-circle-7.mp4\n");
    // Once more: it is there, and that is said before anything is computed.
    let before = fs::read(sandbox.path("a-red-circle-7.mp4")).unwrap();
    let error = sandbox.run(&args).error(1);
    assert!(error.contains("a-red-circle-7.mp4 is there already") && error.contains("--output"), "{error}");
    assert_eq!(fs::read(sandbox.path("a-red-circle-7.mp4")).unwrap(), before);
    // Who names it means it.
    fs::write(sandbox.path("b.mp4"), "old").unwrap();
    sandbox.run(&last(&[&args[..], &["-o", "b.mp4"]])).ok();
    assert!(fs::read(sandbox.path("b.mp4")).unwrap() == before);
    assert_eq!(names(&sandbox.path("")), ["a-red-circle-7.mp4", "b.mp4", "home"]);
}

#[test]
fn places_that_cannot_be_are_refused_before_anything_is_computed() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    fs::create_dir(sandbox.path("folder")).unwrap();
    fs::write(sandbox.path("folder/notes.txt"), "mine").unwrap();
    let refused = |flags: &[&str], said: &str| {
        let error = sandbox.run(&last(&[&["video", &model][..], &QUICK, &["-q"], flags])).error(1);
        assert!(error.contains(said), "{said}: {error}");
        assert!(!sandbox.path("home/video").exists(), "something was computed");
    };
    refused(&["-o", "a.webm"], "a.webm does not say which format");
    refused(&["-o", "nowhere/a.mp4"], "there is no folder nowhere");
    refused(&["-o", "folder", "--format", "mp4"], "folder is a folder");
    refused(&["-o", "folder/"], "holds other files than the frames of a video (notes.txt)");
    refused(&["--save-frames", "nowhere/f.safetensors", "-o", "a.gif"], "there is no folder nowhere");
    refused(&["--save-frames", "folder", "-o", "a.gif"], "folder is a folder");
    refused(&["--size", "4096x4096", "--frames", "1", "-o", "a.mp4"], "at most 3840x2160");
    refused(&["--fps", "60", "-o", "a.gif"], "at most 50 frames a second");
    assert_eq!(fs::read(sandbox.path("folder/notes.txt")).unwrap(), b"mine");
}
