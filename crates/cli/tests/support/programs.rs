//! Programs of other languages, and what they import; both kept between runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The first program of these names that would be run; `needed` says what to install.
pub(crate) fn program(names: &[&str], needed: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    found.into_iter().find(|file| file.is_file()).unwrap_or_else(|| panic!("no {} here; {needed}", names[0]))
}

/// A folder of `tests/` below the build folder, its files copied anew.
fn copied(source: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(source);
    fs::create_dir_all(&folder).expect("a folder for the tests");
    for entry in fs::read_dir(from).expect("the tests") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            fs::copy(&path, folder.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
    folder
}

/// Runs `install` unless what it made for the same `wanted` is still there: `mark` is written after it.
fn once(wanted: &[u8], mark: &Path, install: impl FnOnce()) {
    if fs::read(mark).is_ok_and(|installed| installed == wanted) {
        return;
    }
    install();
    fs::write(mark, wanted).expect("written");
}

/// The output of a command that must succeed.
pub(crate) fn succeed(what: &str, command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}: {}{}", text(&output.stdout), text(&output.stderr));
    output
}

/// Node, and a folder of `tests/` beside the packages of its lock file.
pub(crate) fn node(source: &str, needed: &str) -> (PathBuf, PathBuf) {
    let (node, npm) = (program(&["node"], needed), program(&["npm"], needed));
    let folder = copied(source);
    let lock = fs::read(folder.join("package-lock.json")).expect("the lock file");
    once(&lock, &folder.join("node_modules/.installed"), || {
        let mut install = Command::new(npm);
        install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
        succeed("npm ci", &mut install);
    });
    (node, folder)
}

/// A Python that has the packages of a folder's `requirements.txt`, and this folder.
pub(crate) fn python(source: &str, needed: &str) -> (PathBuf, PathBuf) {
    let python = program(&["python3"], needed);
    let folder = copied(source);
    let (wanted, environment) = (folder.join("requirements.txt"), folder.join("environment"));
    let own = environment.join("bin/python");
    once(&fs::read(&wanted).expect("the packages"), &environment.join(".installed"), || {
        let made = Command::new(python).args(["-m", "venv", "--clear"]).arg(&environment).output();
        let made = made.expect("Python runs");
        let said = String::from_utf8_lossy(&made.stdout);
        assert!(made.status.success(), "Python makes no environment; {needed}\n{said}");
        let mut install = Command::new(&own);
        install.args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&wanted);
        succeed("pip install", &mut install);
    });
    (own, folder)
}

/// What a suite reports, which must have passed.
pub(crate) fn report(what: &str, suite: &mut Command) -> String {
    let output = succeed(what, suite);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
