//! The pages in a real browser, against the real binary with the default model. What is tested stands in `browser/`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const NEEDED: &str =
    "the browser tests need Node.js 18 or newer, npm and Chromium: apt-get install nodejs npm chromium";

/// Where models are kept between runs: the user's choice, else the build folder.
fn home() -> PathBuf {
    match std::env::var_os("WUSHI_HOME") {
        Some(home) => home.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("store"),
    }
}

/// The default model's file, fetched if need be.
fn model() -> PathBuf {
    let mut pull = Command::new(env!("CARGO_BIN_EXE_wushi"));
    let output = pull.args(["pull", "smollm2"]).env("WUSHI_HOME", home()).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let store = wushi_hub::Store::open(home()).expect("the store opens");
    store.find(&wushi_hub::ModelRef::parse("smollm2").expect("in the catalogue")).expect("just pulled")
}

/// The program of this name that would be run.
fn program(names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    found.into_iter().find(|file| file.is_file()).unwrap_or_else(|| panic!("no {} here; {NEEDED}", names[0]))
}

/// The tests beside what they import, as installed from the lock file; kept between runs.
fn installed(npm: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    fs::create_dir_all(&folder).expect("a folder for the tests");
    let lock = fs::read(source.join("package-lock.json")).expect("the lock file");
    let mark = folder.join("node_modules/.installed");
    for entry in fs::read_dir(source).expect("the tests") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, folder.join(path.file_name().expect("a name"))).expect("copied");
    }
    if fs::read(&mark).is_ok_and(|installed| installed == lock) {
        return folder;
    }
    let mut install = Command::new(npm);
    let output =
        install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder).output();
    let output = output.expect("npm runs");
    assert!(output.status.success(), "npm ci: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(mark, lock).expect("written");
    folder
}

/// A key for servers of this home.
fn key(home: &Path) -> String {
    let mut add = Command::new(env!("CARGO_BIN_EXE_wushi"));
    let output =
        add.args(["key", "add", "browser"]).env("WUSHI_HOME", home).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_string()
}

/// A server of its own database; it ends with the test.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(home: &Path, model: &Path) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wushi"));
        // One answer at a time, so that a second request waits.
        command.args(["serve", "--port", "0", "--sequences", "1", "--threads", "2"]);
        command.arg(format!("smollm2={}", model.display())).env("WUSHI_HOME", home).current_dir(home);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("text");
        Server { process, address: line.trim().to_string() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which its address then shows.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_pages_work_in_a_browser() {
    let (node, npm) = (program(&["node"]), program(&["npm"]));
    let chromium = program(&["chromium", "chromium-browser", "google-chrome"]);
    let (folder, model) = (installed(&npm), model());
    let (open, keyed) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let key = key(keyed.path());
    let servers = [Server::start(open.path(), &model), Server::start(keyed.path(), &model)];
    let mut tests = Command::new(node);
    tests.arg("suite.mjs").current_dir(folder).env("CHROMIUM", chromium);
    tests
        .env("OPEN_SERVER", &servers[0].address)
        .env("KEYED_SERVER", &servers[1].address)
        .env("SERVER_KEY", key);
    let output = tests.output().expect("node runs");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("# fail 0") || report.contains("ℹ fail 0"), "no report: {report}");
}
