//! A folder of its own for every test, and the binary in it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with nothing in it, where no configuration of the machine reaches.
pub(crate) struct Sandbox {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

/// What a process left behind.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Sandbox {
        Sandbox { folder: TempDir::new().unwrap(), variables: Vec::new() }
    }

    /// Sets an environment variable for all processes of this sandbox.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Sandbox {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The binary in this folder. It knows nothing of the machine but its programs.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wushi"));
        command.args(args).current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.path()).env("WUSHI_HOME", self.path("home"));
        command.envs(self.variables.iter().cloned()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the binary without anything on stdin.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.command(args).spawn().unwrap())
    }

    /// Runs the binary with a text on stdin.
    pub(crate) fn pipe(&self, args: &[&str], text: &str) -> Outcome {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        Outcome::of(child)
    }

    /// Runs the binary, which must succeed, and reads the one JSON object it prints.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        self.run(args).json()
    }
}

impl Outcome {
    pub(crate) fn of(child: std::process::Child) -> Outcome {
        let output = child.wait_with_output().unwrap();
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It must have succeeded.
    pub(crate) fn ok(self) -> Outcome {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// It must have succeeded with one JSON object, alone on stdout.
    pub(crate) fn json(self) -> Value {
        let outcome = self.ok();
        assert_eq!(outcome.stdout.matches('\n').count(), 1, "{}", outcome.stdout);
        let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert!(value.is_object());
        value
    }

    /// It must have failed with this code, nothing on stdout and a few lines that say `error:`; gives them.
    pub(crate) fn error(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{}", self.stderr);
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        assert!(self.stderr.lines().count() <= 8, "{}", self.stderr);
        self.stderr
    }
}

/// A file of the fixtures, which all rooms share.
pub(crate) fn fixture(name: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    fixtures.join(name).display().to_string()
}

/// A tiny model with a chat template.
pub(crate) fn tiny() -> String {
    fixture("models/llama-tiny-q4_1.gguf")
}

/// What the reference implementation says of a tiny model.
pub(crate) fn expected(model: &str) -> Value {
    let text = fs::read_to_string(fixture(&format!("models/{model}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}
