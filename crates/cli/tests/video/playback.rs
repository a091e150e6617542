//! What the tiny pipeline makes is what a browser shows. The browser's part stands in `browser/video_playback.mjs`.

use std::fs;
use std::process::Command;

use crate::programs;
use crate::support::Sandbox;
use crate::wan::{Reference, last, model, names};

const NEEDED: &str =
    "the playback tests need Node.js 18 or newer, npm and Chromium: apt-get install nodejs npm chromium";

/// The least likeness, in decibels, of what a video keeps of a frame.
const LEAST: &str = "38";

#[test]
fn a_browser_plays_the_video_of_a_prompt() {
    let sandbox = Sandbox::new();
    let asked = Reference::open("wan21").args(&model("wan21/pipe"));
    let mut args: Vec<&str> = asked.iter().map(String::as_str).collect();
    args.extend(["-q", "--json", "--fps", "8", "--size", "96x64"]);
    let made = sandbox.json(&last(&[&args[..], &["-o", "a.mp4"]]));
    let pictures = sandbox.json(&last(&[&args[..], &["-o", "pictures/"]]));
    assert_eq!(made["frames_digest"], pictures["frames_digest"]);

    // The pictures are the frames before they were encoded.
    let folder = sandbox.path("pictures");
    let mut frames = Vec::new();
    for name in names(&folder) {
        let file = std::io::BufReader::new(fs::File::open(folder.join(name)).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgb).unwrap();
        frames.extend(rgb);
    }
    assert_eq!(frames.len(), 13 * 3 * 96 * 64);
    let frames = sandbox.write("frames.rgb", frames);

    let chromium = programs::program(&["chromium", "chromium-browser", "google-chrome"], NEEDED);
    let (node, folder) = programs::node("browser", NEEDED);
    let mut player = Command::new(node);
    player.arg("video_playback.mjs").current_dir(folder).env("CHROMIUM", chromium);
    player.arg(sandbox.path("a.mp4")).arg(frames).args(["96", "64", "8", LEAST]);
    let seen = player.output().expect("Node runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(seen.status.success(), "{}{}", text(&seen.stdout), text(&seen.stderr));
    assert!(text(&seen.stdout).contains(r#""width":96,"height":64,"#), "{}", text(&seen.stdout));
}
