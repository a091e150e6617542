//! A small HTTP server on this machine that misbehaves as told, and what the tests share.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use wushi_hub::{Entry, ModelRef, Options, Progress, Source, Store};

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `GET /path`.
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    /// How many requests came before.
    pub(crate) number: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What the server does after the bytes of a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Closes the connection.
    Close,
    /// Keeps the connection open without a byte.
    Hang,
}

pub(crate) struct Reply {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) then: Then,
}

impl Reply {
    /// A reply with these headers, each ending in `\r\n`, and no length of its own.
    pub(crate) fn new(status: &str, headers: &str, body: &[u8]) -> Reply {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
        Reply { head, body: body.to_vec(), then: Then::Close }
    }

    /// All of `content`, or the range asked for if it still has this ETag.
    pub(crate) fn file(request: &Request, content: &[u8], etag: &str) -> Reply {
        let same = request.header("if-range").is_none_or(|validator| validator == etag);
        let start = request
            .header("range")
            .filter(|_| same)
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let total = content.len();
        match start {
            Some(start) if start < total => {
                let rest = &content[start..];
                let headers = format!(
                    "ETag: {etag}\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{total}\r\n",
                    rest.len(),
                    total - 1
                );
                Reply::new("206 Partial Content", &headers, rest)
            }
            Some(_) => Reply::new("416 Range Not Satisfiable", "Content-Length: 0\r\n", b""),
            None => Reply::new("200 OK", &format!("ETag: {etag}\r\nContent-Length: {total}\r\n"), content),
        }
    }

    /// Sends only so many bytes of the body.
    pub(crate) fn cut(mut self, bytes: usize, then: Then) -> Reply {
        self.body.truncate(bytes);
        self.then = then;
        self
    }
}

/// Serves until the process ends.
pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, log) = (Arc::new(handler), seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, log) = (handler.clone(), log.clone());
                // A client that goes away in the middle is part of the tests.
                thread::spawn(move || answer(stream, &*handler, &log).ok());
            }
        });
        Server { port, seen }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic elsewhere").clone()
    }
}

fn answer(
    mut stream: TcpStream,
    handler: &dyn Fn(&Request) -> Reply,
    log: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let line = lines.next().transpose()?.unwrap_or_default().replace(" HTTP/1.1", "");
    let mut headers = Vec::new();
    for header in lines {
        let header = header?;
        let Some((name, value)) = header.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let request = {
        let mut log = log.lock().expect("no panic elsewhere");
        let request = Request { line, headers, number: log.len() };
        log.push(request.clone());
        request
    };
    let reply = handler(&request);
    stream.write_all(reply.head.as_bytes())?;
    stream.write_all(&reply.body)?;
    stream.flush()?;
    if reply.then == Then::Hang {
        thread::sleep(Duration::from_secs(600));
    }
    Ok(())
}

/// Bytes that do not repeat; `seed` tells one file from another.
pub(crate) fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A catalogue entry for `file`, with these sources.
pub(crate) fn entry(file: &[u8], sources: Vec<Source>) -> ModelRef {
    let sha256 = sha256(file);
    ModelRef::Catalogue(Box::leak(Box::new(Entry {
        name: "tiny",
        description: "a test's model",
        licence: "CC0-1.0",
        file_name: "tiny.gguf",
        bytes: file.len() as u64,
        sha256: Box::leak(sha256.into_boxed_str()),
        sources: Box::leak(sources.into_boxed_slice()),
    })))
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn at(url: String) -> Source {
    Source::Url { url: url.into() }
}

/// Options for tests of what works: a busy machine must not fail them.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    (options.connect, options.respond, options.stall) =
        (Duration::from_secs(30), Duration::from_secs(60), Duration::from_secs(60));
    options
}

/// Options for tests of servers that fall silent.
pub(crate) fn impatient() -> Options {
    let mut options = options();
    options.stall = Duration::from_millis(500);
    options
}

/// A folder with a store in it.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Place {
    pub(crate) fn new() -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path().join("store")).expect("a store");
        Place { folder, store }
    }

    /// Names of what is in `partial/`, locks aside.
    pub(crate) fn partials(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.store.root().join("partial")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.ends_with(".lock")).collect()
    }

    /// Names of what is in `models/`.
    pub(crate) fn models(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.store.root().join("models")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Bytes in the only partial file; none if there is none.
    pub(crate) fn partial_len(&self) -> Option<u64> {
        let name = self.partials().into_iter().find(|name| name.ends_with(".part"))?;
        std::fs::metadata(self.store.root().join("partial").join(name)).ok().map(|meta| meta.len())
    }
}

/// Keeps the messages, and checks that stretches of bytes are used as their documentation says.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) messages: Mutex<Vec<String>>,
    /// What, total, and how far it came, of every stretch.
    pub(crate) stretches: Mutex<Vec<(String, Option<u64>, u64)>>,
    open: Mutex<bool>,
}

impl Progress for Log {
    fn message(&self, text: &str) {
        assert!(!text.contains('\n'), "{text:?}");
        self.messages.lock().expect("no panic elsewhere").push(text.to_owned());
    }

    fn start(&self, what: &str, total: Option<u64>, done: u64) {
        let mut open = self.open.lock().expect("no panic elsewhere");
        assert!(!*open, "a stretch begins within another");
        *open = true;
        self.stretches.lock().expect("no panic elsewhere").push((what.to_owned(), total, done));
    }

    fn advance(&self, bytes: u64) {
        assert!(*self.open.lock().expect("no panic elsewhere"), "bytes outside a stretch");
        if let Some(last) = self.stretches.lock().expect("no panic elsewhere").last_mut() {
            last.2 += bytes;
        }
    }

    fn finish(&self) {
        let mut open = self.open.lock().expect("no panic elsewhere");
        assert!(*open, "the end of no stretch");
        *open = false;
    }
}
