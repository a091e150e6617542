//! A video in a real browser: what `media` writes is what people see. The browser's part stands in `browser/video_playback.mjs`.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::programs;
use wushi_media::{Encoder, Format, FrameRate, Settings};

const NEEDED: &str =
    "the playback tests need Node.js 18 or newer, npm and Chromium: apt-get install nodejs npm chromium";

const SETTINGS: (u32, u32) = (130, 98);

/// Soft colours that pass by, none of them the same in two frames.
fn frame(number: u32) -> Vec<u8> {
    let (width, height) = SETTINGS;
    let wave = |at: f64| (127.5 + 100.0 * at.sin()).round() as u8;
    let pixels = (0..width * height).map(|at| {
        let (x, y) = (f64::from(at % width), f64::from(at / width));
        let time = f64::from(number) * 0.4;
        [wave(x / 19.0 + time), wave(y / 13.0 - time), wave((x + y) / 29.0 + 2.0 * time)]
    });
    pixels.flatten().collect()
}

/// What the browser's part says of a video and the frames that it should have.
fn play(video: &Path, frames: &[Vec<u8>], rate: FrameRate) -> Output {
    let chromium = programs::program(&["chromium", "chromium-browser", "google-chrome"], NEEDED);
    let (node, folder) = programs::node("browser", NEEDED);
    let source = video.with_extension("rgb");
    fs::write(&source, frames.concat()).expect("written");
    let (width, height) = SETTINGS;
    let mut player = Command::new(node);
    player.arg("video_playback.mjs").current_dir(folder).env("CHROMIUM", chromium);
    player.arg(video).arg(source).args([width.to_string(), height.to_string()]);
    player.args([rate.get().to_string(), "38".into()]);
    player.output().expect("Node runs")
}

#[test]
fn a_browser_shows_every_frame_in_its_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.mp4");
    let rate: FrameRate = "23.976".parse().expect("a rate");
    let (width, height) = SETTINGS;
    let frames: Vec<Vec<u8>> = (0..17).map(frame).collect();
    let mut encoder = Encoder::create(&path, Format::Mp4, Settings { width, height, rate }).expect("begun");
    frames.iter().for_each(|frame| encoder.push(frame).expect("encoded"));
    encoder.finish().expect("finished");

    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let seen = play(&path, &frames, rate);
    assert!(seen.status.success(), "{}{}", text(&seen.stdout), text(&seen.stderr));
    assert!(text(&seen.stdout).contains(r#""width":130,"height":98,"#), "{}", text(&seen.stdout));

    // Frames in another order are told apart.
    let turned: Vec<Vec<u8>> = frames.iter().rev().cloned().collect();
    let seen = play(&path, &turned, rate);
    assert!(
        !seen.status.success() && text(&seen.stderr).contains("not every frame has 38 dB"),
        "{}",
        text(&seen.stderr)
    );
}
