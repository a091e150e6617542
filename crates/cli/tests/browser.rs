//! The pages in a real browser, against the real binary with the default model. What is tested stands in `browser/`.

mod support;

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
    let mut tests = Command::new(node);
    tests.arg("suite.mjs").current_dir(folder).env("CHROMIUM", chromium);
    tests.env("OPEN_SERVER", &open.address).env("KEYED_SERVER", &keyed.address).env("SERVER_KEY", key);
    let report = programs::report("the pages", &mut tests);
    assert!(report.contains("# fail 0") || report.contains("ℹ fail 0"), "no report: {report}");
}
