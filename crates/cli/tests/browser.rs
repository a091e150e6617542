//! The pages in a real browser, against the real binary with the default model. What is tested stands in `browser/`.

mod support;

use std::path::Path;
use std::process::Command;

use support::server::{Server, Setup};
use support::{programs, smollm2};

const NEEDED: &str =
    "the browser tests need Node.js 18 or newer, npm and Chromium: apt-get install nodejs npm chromium";

#[test]
fn the_pages_work_in_a_browser() {
    let chromium = programs::program(&["chromium", "chromium-browser", "google-chrome"], NEEDED);
    let (node, folder) = programs::node("browser", NEEDED);
    let model = format!("smollm2={}", smollm2().display());
    // One answer at a time, so that a second request waits.
    let args = ["--sequences", "1", "--threads", "2", &model];
    let keyed = Setup::new();
    let key = keyed.key("browser", &[]);
    let (open, keyed) = (Server::start(&args), keyed.start(&args));
    // One that makes videos too, and one with a key that makes nothing else.
    let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wan/wan21/pipe");
    let pipeline = format!("wan={}", pipeline.display());
    let video = Server::start(&["--threads", "2", &model, &pipeline]);
    let only_video = Setup::new();
    let video_key = only_video.key("browser", &[]);
    let only_video = only_video.start(&["--threads", "2", &pipeline]);
    let mut tests = Command::new(node);
    tests.arg("suite.mjs").current_dir(folder).env("CHROMIUM", chromium);
    tests.env("OPEN_SERVER", &open.address).env("KEYED_SERVER", &keyed.address).env("SERVER_KEY", key);
    tests.env("VIDEO_SERVER", &video.address).env("KEYED_VIDEO_SERVER", &only_video.address);
    tests.env("VIDEO_KEY", video_key);
    let report = programs::report("the pages", &mut tests);
    assert!(report.contains("# fail 0") || report.contains("ℹ fail 0"), "no report: {report}");
}
