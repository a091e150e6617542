//! A server of its own database; it ends with the test.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything takes, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// A running `wushi serve`.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
    folder: TempDir,
}

/// A server that has not started yet.
pub(crate) struct Setup {
    folder: TempDir,
}

impl Setup {
    pub(crate) fn new() -> Setup {
        Setup { folder: TempDir::new().expect("a folder") }
    }

    /// The secret of a new key; further arguments are limits.
    pub(crate) fn key(&self, name: &str, limits: &[&str]) -> String {
        key(self.folder.path(), name, limits)
    }

    /// Starts `wushi serve` with these arguments, on a free port.
    pub(crate) fn start(self, args: &[&str]) -> Server {
        let folder = self.folder;
        let log = File::create(folder.path().join("log")).expect("a file");
        let mut process =
            command(folder.path(), args).stdout(Stdio::piped()).stderr(log).spawn().expect("the binary runs");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("text");
        let server = Server { process, address: line.trim().to_owned(), folder };
        assert!(server.address.starts_with("http://"), "no address: {}", server.log());
        server
    }
}

/// The secret of a new key of the server whose folder this is.
fn key(folder: &Path, name: &str, limits: &[&str]) -> String {
    let mut add = Command::new(env!("CARGO_BIN_EXE_wushi"));
    let output = add.args(["key", "add", name]).args(limits).env("WUSHI_HOME", folder).output();
    let output = output.expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// `wushi serve`, which finds everything of its own in this folder.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wushi"));
    command.args(["serve", "--port", "0"]).args(args);
    command.env("WUSHI_HOME", folder).current_dir(folder).stdin(Stdio::null());
    command
}

impl Server {
    /// Starts one with these arguments and without keys.
    pub(crate) fn start(args: &[&str]) -> Server {
        Setup::new().start(args)
    }

    /// The secret of a key that is made while it runs.
    pub(crate) fn key(&self, name: &str) -> String {
        key(self.folder.path(), name, &[])
    }

    /// What it has written to stderr.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }

    /// Which process it is.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it SIGTERM.
    pub(crate) fn terminate(&self) {
        let kill = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("a child") {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it keeps everything of its own.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it, and starts another with the same database.
    pub(crate) fn restart(mut self, args: &[&str]) -> Server {
        self.terminate();
        assert!(self.ended().success(), "{}", self.log());
        self.again(args)
    }

    /// Kills it, so that it can do nothing any more, and starts another with the same database.
    pub(crate) fn killed(mut self, args: &[&str]) -> Server {
        self.process.kill().expect("a child");
        self.process.wait().expect("a child");
        self.again(args)
    }

    fn again(mut self, args: &[&str]) -> Server {
        // Dropping it ends what has ended.
        let folder = std::mem::replace(&mut self.folder, TempDir::new().expect("a folder"));
        Setup { folder }.start(args)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which its address or its status then shows.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "a failing test shows what the server said")]
            {
                eprintln!("the server's log:\n{}", self.log());
            }
        }
    }
}
