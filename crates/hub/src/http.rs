//! Fetching over HTTP.
//!
//! Hugging Face's own client crate would find the address of a file just as well, but it gives no say over how long an
//! unreachable host is waited for, does not go on from a partial file of ours, and knows no other host. So the one
//! request that is needed is made here, on `ureq`: `GET <endpoint>/<repo>/resolve/main/<file>`, whose redirection
//! carries the file's size and SHA-256 (`X-Linked-Size`, `X-Linked-ETag`).
//!
//! Resuming follows RFC 9110, sections 13.1.5 (`If-Range`) and 14.2 (`Range`): 206 goes on, 200 starts again.

use crate::partial::{Arrived, CHUNK, Origin, Partial, Wanted, Writer};
use crate::progress::{Progress, Stretch};
use crate::pull::{Failure, one_line};
use crate::store::check_room;
use crate::{HubError, Options, SourceFailure};
use std::io::Read;
use std::net::IpAddr;
use ureq::http::{HeaderMap, Response, StatusCode, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy, Timeout};

const MAX_REDIRECTS: usize = 5;
/// How often a transfer that breaks off after some progress is taken up again.
const MAX_RESUMES: usize = 5;

/// Where Hugging Face says what a repository holds, with the files' sizes and digests.
pub(crate) fn hugging_face_api(endpoint: &str, repo: &str) -> String {
    format!("{endpoint}/api/models/{repo}?blobs=true")
}

/// The address of a file on Hugging Face; `revision` is a branch or a commit.
pub(crate) fn hugging_face_url(endpoint: &str, repo: &str, revision: &str, file: &str) -> String {
    let mut url = format!("{endpoint}/{repo}/resolve/{revision}/");
    for byte in file.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

/// Reads an address and refuses what would not be safe: no TLS to another machine, or a password that would be kept
/// and shown.
pub(crate) fn check_address(url: &str) -> Result<Uri, HubError> {
    let bad = |why: String| HubError::BadReference { given: url.to_owned(), why };
    let uri: Uri =
        url.parse().map_err(|error| bad(format!("it is not of the form https://host/path ({error})")))?;
    let authority = uri.authority().ok_or_else(|| bad("it has no host".to_owned()))?;
    if authority.as_str().contains('@') {
        return Err(bad(
            "a name or password in an address would be kept in the store; leave it out".to_owned()
        ));
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_loopback(&uri) => Ok(uri),
        Some("http") => Err(HubError::Insecure { url: url.to_owned() }),
        _ => Err(bad("an address starts with https://".to_owned())),
    }
}

fn host(uri: &Uri) -> String {
    uri.host().unwrap_or_default().to_ascii_lowercase()
}

fn is_loopback(uri: &Uri) -> bool {
    let host = host(uri);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// One file at one address.
pub(crate) struct Download<'a> {
    pub(crate) url: &'a str,
    /// Sent to the host of `url`, never to where it sends us on.
    pub(crate) token: Option<&'a str>,
    pub(crate) wanted: Wanted<'a>,
    pub(crate) options: &'a Options,
    pub(crate) progress: &'a dyn Progress,
}

/// Why one request did not bring the whole file.
enum Stop {
    /// Nothing to be done here.
    Failed(Failure),
    /// The transfer broke off; what came is kept.
    BrokeOff(SourceFailure),
    /// The bytes kept from earlier were of no use; they are gone.
    Stale(SourceFailure),
}

impl<T: Into<Failure>> From<T> for Stop {
    fn from(failure: T) -> Stop {
        Stop::Failed(failure.into())
    }
}

/// A response, with what the redirections to it said about the file.
struct Answer {
    response: Response<Body>,
    linked_bytes: Option<u64>,
    linked_sha256: Option<String>,
}

impl Download<'_> {
    /// Fetches into `partial`, going on from what is there, and checks length and digest.
    ///
    /// When it fails, what came stays in `partial` to go on from, unless it proved wrong.
    pub(crate) fn run(&self, partial: &Partial) -> Result<Arrived, Failure> {
        let kept = partial.resumable(self.url, &self.wanted);
        if kept > 0 {
            self.progress.message(&format!("{:.1} MB are here from an earlier pull", kept as f64 / 1e6));
        }
        let mut resumes = 0;
        loop {
            let have = partial.resumable(self.url, &self.wanted);
            match self.request(partial, have) {
                Ok(arrived) => return Ok(arrived),
                Err(Stop::Failed(failure)) => return Err(failure),
                Err(Stop::BrokeOff(failure)) => {
                    let gained = partial.resumable(self.url, &self.wanted) > have;
                    if !gained || resumes == MAX_RESUMES {
                        return Err(failure.into());
                    }
                    resumes += 1;
                    self.progress.message(&format!("{failure}; going on from there"));
                }
                // The next request starts from nothing, so this cannot come twice.
                Err(Stop::Stale(failure)) if have > 0 => {
                    self.progress.message(&format!("{failure}; starting again"));
                }
                Err(Stop::Stale(failure)) => return Err(failure.into()),
            }
        }
    }

    /// Fetches an answer of at most `limit` bytes into memory.
    pub(crate) fn text(&self, limit: u64) -> Result<Vec<u8>, Failure> {
        let answer = self.open(0, None)?;
        match answer.response.status() {
            StatusCode::OK => {}
            status => return Err(SourceFailure::Status { status: status.as_u16() }.into()),
        }
        let mut bytes = Vec::new();
        let read = answer.response.into_body().into_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.broke_off(error.into(), bytes.len() as u64, None))?;
        if bytes.len() as u64 > limit {
            return Err(SourceFailure::Protocol("it is endless".to_owned()).into());
        }
        Ok(bytes)
    }

    fn request(&self, partial: &Partial, have: u64) -> Result<Arrived, Stop> {
        if have > 0 && self.wanted.bytes == Some(have) {
            return self.verify(partial, partial.resume()?, self.wanted.sha256, have);
        }
        let etag = partial.origin().filter(|origin| origin.from == self.url).and_then(|origin| origin.etag);
        let answer = self.open(have, etag.as_deref())?;
        let headers = answer.response.headers();
        let (start, total) = match answer.response.status() {
            StatusCode::OK => (0, length(headers)),
            StatusCode::PARTIAL_CONTENT if have > 0 => match content_range(headers) {
                Some((start, total)) if start == have => {
                    (have, total.or_else(|| length(headers)?.checked_add(have)))
                }
                _ => {
                    partial.clear()?;
                    return Err(Stop::Stale(SourceFailure::Protocol("another range than asked for".into())));
                }
            },
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                partial.clear()?;
                return Err(Stop::Stale(SourceFailure::Status { status: 416 }));
            }
            status => return Err(SourceFailure::Status { status: status.as_u16() }.into()),
        };
        self.check_announced(&answer, total)?;
        let chunked = headers.contains_key(header::TRANSFER_ENCODING);
        let total = total.or(answer.linked_bytes).or(self.wanted.bytes);
        if total.is_none() && !chunked {
            return Err(SourceFailure::NoLength.into());
        }
        if let Some(total) = total {
            check_room(partial.folder(), total.saturating_sub(start))?;
        }
        let sha256 = self.wanted.sha256.map(str::to_owned).or(answer.linked_sha256);
        let mut writer = if start > 0 {
            partial.resume()?
        } else {
            partial.begin(&Origin {
                name: self.wanted.name.to_owned(),
                from: self.url.to_owned(),
                etag: strong_etag(headers),
            })?
        };
        self.receive(answer.response.into_body(), &mut writer, partial, total)?;
        self.verify(partial, writer, sha256.as_deref(), start)
    }

    /// Compares what the server says about the file with what is expected, before a byte is transferred.
    fn check_announced(&self, answer: &Answer, total: Option<u64>) -> Result<(), SourceFailure> {
        if let Some(encoding) = answer.response.headers().get(header::CONTENT_ENCODING)
            && encoding != "identity"
        {
            return Err(SourceFailure::Protocol(format!(
                "content encoding {encoding:?}, which was not asked for"
            )));
        }
        for actual in [answer.linked_bytes, total].into_iter().flatten() {
            if let Some(expected) = self.wanted.bytes.or(answer.linked_bytes)
                && expected != actual
            {
                return Err(SourceFailure::WrongSize { expected, actual });
            }
        }
        match (self.wanted.sha256, &answer.linked_sha256) {
            (Some(expected), Some(actual)) if expected != actual => {
                Err(SourceFailure::WrongDigest { expected: expected.to_owned(), actual: actual.clone() })
            }
            _ => Ok(()),
        }
    }

    fn receive(
        &self,
        body: Body,
        writer: &mut Writer,
        partial: &Partial,
        total: Option<u64>,
    ) -> Result<(), Stop> {
        let stretch = Stretch::start(self.progress, "downloading", total, writer.len());
        let mut reader = body.into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::BrokeOff(self.broke_off(error.into(), writer.len(), total))),
            };
            let bytes = buffer.get(..n).unwrap_or_default();
            if let Some(expected) = total
                && writer.len() + n as u64 > expected
            {
                partial.clear()?;
                return Err(SourceFailure::WrongSize { expected, actual: writer.len() + n as u64 }.into());
            }
            writer.write(bytes)?;
            stretch.advance(n as u64);
        }
        match total {
            Some(total) if writer.len() < total => Err(Stop::BrokeOff(SourceFailure::Truncated {
                got: writer.len(),
                expected: Some(total),
                why: "the server ended it".to_owned(),
            })),
            _ => Ok(()),
        }
    }

    fn broke_off(&self, error: ureq::Error, got: u64, expected: Option<u64>) -> SourceFailure {
        match error {
            ureq::Error::Timeout(_) => SourceFailure::Stalled { after: self.options.stall, got },
            other => SourceFailure::Truncated { got, expected, why: one_line(&other.into_io().to_string()) },
        }
    }

    /// Checks the digest of a file that is whole, of which the first `kept` bytes are from an earlier pull.
    fn verify(
        &self,
        partial: &Partial,
        writer: Writer,
        sha256: Option<&str>,
        kept: u64,
    ) -> Result<Arrived, Stop> {
        let arrived = writer.finish()?;
        match sha256 {
            Some(expected) if expected != arrived.sha256 => {
                partial.clear()?;
                let failure =
                    SourceFailure::WrongDigest { expected: expected.to_owned(), actual: arrived.sha256 };
                Err(if kept > 0 { Stop::Stale(failure) } else { failure.into() })
            }
            _ => Ok(arrived),
        }
    }

    /// Asks for the file, from byte `have` on, following redirections by hand: their headers say what the file is, and the
    /// token must not go where they lead.
    fn open(&self, have: u64, etag: Option<&str>) -> Result<Answer, Failure> {
        // An address a person typed was checked before; one built on `hf_endpoint` was not.
        let origin =
            check_address(self.url).map_err(|error| SourceFailure::Address(one_line(&error.to_string())))?;
        let mut here = origin.clone();
        let (mut linked_bytes, mut linked_sha256) = (None, None);
        for _ in 0..=MAX_REDIRECTS {
            let mut request =
                agent(&here, self.options)?.get(&here).header(header::ACCEPT_ENCODING, "identity");
            if let Some(token) = self.token
                && here.scheme() == origin.scheme()
                && here.authority() == origin.authority()
            {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if have > 0 {
                request = request.header(header::RANGE, format!("bytes={have}-"));
                if let Some(etag) = etag {
                    request = request.header(header::IF_RANGE, etag);
                }
            }
            let response = request.call().map_err(|error| self.no_answer(&here, error))?;
            linked_bytes = linked_bytes.or_else(|| text(response.headers(), "x-linked-size")?.parse().ok());
            linked_sha256 = linked_sha256.or_else(|| linked_digest(response.headers()));
            if !response.status().is_redirection() {
                return Ok(Answer { response, linked_bytes, linked_sha256 });
            }
            let to = text(response.headers(), "location").unwrap_or_default();
            here = redirect(&here, to)?;
        }
        Err(SourceFailure::Redirect { to: here.to_string(), why: "there were too many before" }.into())
    }

    fn no_answer(&self, uri: &Uri, error: ureq::Error) -> SourceFailure {
        let why = match error {
            ureq::Error::Timeout(Timeout::Resolve) => {
                format!("its name did not resolve within {} s", self.options.resolve.as_secs_f32())
            }
            ureq::Error::Timeout(Timeout::Connect) => {
                format!("no connection within {} s", self.options.connect.as_secs_f32())
            }
            ureq::Error::Timeout(_) => {
                format!("no answer within {} s", self.options.respond.as_secs_f32())
            }
            ureq::Error::HostNotFound => "its name does not resolve".to_owned(),
            ureq::Error::Io(error) => one_line(&error.to_string()),
            ureq::Error::Protocol(error) => return SourceFailure::Protocol(one_line(&error.to_string())),
            other => one_line(&other.to_string()),
        };
        SourceFailure::Unreachable { host: host(uri), why }
    }
}

/// A client with our limits on time, and with the proxy unless this host goes without.
fn agent(uri: &Uri, options: &Options) -> Result<Agent, SourceFailure> {
    let direct = is_loopback(uri) || options.bypasses_proxy(&host(uri));
    let proxy = match options.proxy.as_deref().filter(|_| !direct) {
        Some(proxy) => Some(Proxy::new(proxy).map_err(|error| SourceFailure::Unreachable {
            host: host(uri),
            why: format!("the proxy setting cannot be used: {error}"),
        })?),
        None => None,
    };
    // The system's certificates rather than a list built in: an organisation's own authority counts.
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("wushi/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .proxy(proxy)
        .timeout_resolve(Some(options.resolve))
        .timeout_connect(Some(options.connect))
        .timeout_recv_response(Some(options.respond))
        .timeout_per_read(Some(options.stall))
        .build();
    Ok(config.new_agent())
}

/// Where a redirection leads (RFC 3986, section 5.2, without `.` and `..`).
fn redirect(from: &Uri, to: &str) -> Result<Uri, SourceFailure> {
    let refused = |why| SourceFailure::Redirect { to: one_line(to), why };
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let target = if to.is_empty() {
        return Err(refused("it does not say where"));
    } else if to.contains("://") {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{to}")
    };
    let uri = check_address(&target).map_err(|_| refused("it is no https:// address"))?;
    if from.scheme_str() == Some("https") && uri.scheme_str() != Some("https") {
        return Err(refused("it leaves TLS"));
    }
    Ok(uri)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-length")?.trim().parse().ok()
}

/// Start and total of `bytes start-end/total`; the total may be unknown (`*`).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = text(headers, "content-range")?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

/// `If-Range` needs a strong validator (RFC 9110, section 13.1.5).
fn strong_etag(headers: &HeaderMap) -> Option<String> {
    text(headers, "etag").filter(|etag| etag.starts_with('"')).map(str::to_owned)
}

/// Hugging Face's `X-Linked-ETag` is a file's SHA-256 if it is stored out of the repository, as large files are.
fn linked_digest(headers: &HeaderMap) -> Option<String> {
    let etag = text(headers, "x-linked-etag")?.trim_matches('"');
    (etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit())).then(|| etag.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_on_hugging_face_are_escaped() {
        assert_eq!(
            hugging_face_url("https://hf.example", "org/repo", "main", "sub dir/m#1?.gguf"),
            "https://hf.example/org/repo/resolve/main/sub%20dir/m%231%3F.gguf"
        );
    }

    #[test]
    fn redirections_are_resolved_and_do_not_leave_tls() {
        let from: Uri = "https://a.example/x/y?z".parse().expect("an address");
        let to = |to: &str| redirect(&from, to).map(|uri| uri.to_string()).ok();
        assert_eq!(to("https://b.example/m").as_deref(), Some("https://b.example/m"));
        assert_eq!(to("//b.example/m").as_deref(), Some("https://b.example/m"));
        assert_eq!(to("/m?q=1").as_deref(), Some("https://a.example/m?q=1"));
        assert_eq!(to("m").as_deref(), Some("https://a.example/x/m"));
        for refused in
            ["", "http://b.example/m", "http://127.0.0.1/m", "file:///etc/passwd", "https://u:p@b.example/"]
        {
            assert_eq!(to(refused), None, "{refused}");
        }
    }

    #[test]
    fn headers_are_read() {
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            headers.insert(name, value.parse().expect("a header"));
            headers.clone()
        };
        assert_eq!(content_range(&set("content-range", "bytes 5-9/10")), Some((5, Some(10))));
        assert_eq!(content_range(&set("content-range", "bytes 5-9/*")), Some((5, None)));
        assert_eq!(content_range(&set("content-range", "bytes */10")), None);
        assert_eq!(strong_etag(&set("etag", "W/\"a\"")), None);
        assert_eq!(strong_etag(&set("etag", "\"a\"")).as_deref(), Some("\"a\""));
        assert_eq!(linked_digest(&set("x-linked-etag", "\"0123\"")), None);
        assert_eq!(linked_digest(&set("x-linked-etag", &"AB".repeat(32))), Some("ab".repeat(32)));
    }
}
