//! `wushi serve`: models over HTTP.

mod video;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::Notify;
use wushi_cpu::Team;
use wushi_engine::load::DEFAULT_CONTEXT;
use wushi_hub::{ModelRef, Pulled};
use wushi_server::store::{Loading, Store};
use wushi_server::{Limits, Options, ServedModel, Server};

use crate::args::{DEFAULT_MODEL, ServeArgs};
use crate::knobs::{Compute, Serving};
use crate::{App, model, output};

/// Contexts whose keys and values are kept unless said otherwise.
const CONTEXTS: usize = 8;
const SEQUENCES: usize = 32;
const QUEUE: usize = 256;
const STEP_TOKENS: usize = 128;
const PORT: u16 = 8000;
const DRAIN: u64 = 30;

pub(crate) fn run(args: ServeArgs, app: &App) -> Result<ExitCode> {
    if args.api_key.is_some() {
        bail!(
            "keys are made with `wushi key add NAME`, not given on the command line, where others see them"
        );
    }
    let serving = args.serving.resolve(&app.layers)?;
    let compute = args.compute.resolve(&app.layers)?;
    let references = if args.models.is_empty() { everything(app)? } else { args.models };
    let team = team(&compute)?;
    let knobs = args.videos.resolve(&app.layers)?;
    let (mut models, mut videos) = (Vec::new(), Vec::new());
    for argument in &references {
        let (name, reference) = named(argument);
        let pulled = model::pull(reference, app)?;
        match video::recognise(&pulled.path)? {
            Some(sources) => {
                let reference = from_anywhere(reference)?;
                videos.push(video::served(name, reference, &pulled.path, sources, &compute, &knobs, &team)?);
            }
            None => models.push(served(name, reference, pulled, &serving, &compute, &team)?),
        }
    }
    if models.len() > 1 || !videos.is_empty() {
        // While one computes a step, the others wait: none may take long ones.
        models.iter_mut().for_each(|model| model.load.max_rows = step_rows(&serving));
    }
    let limits = Limits::default();
    let database = model::database(args.records, app)?;
    let options = Options {
        address: serving.host.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into()),
        port: serving.port.unwrap_or(PORT),
        models,
        videos,
        video: video::options(&knobs, &database),
        memory: compute.memory,
        store: Store::open(&database)?,
        digests: serving.audit.unwrap_or(false),
        text: serving.audit_text.unwrap_or(false),
        without_keys: serving.without_keys.unwrap_or(false),
        keep_records: serving.keep_records.map(|days| Duration::from_secs(days as u64 * 86_400)),
        drain: Duration::from_secs(serving.drain.unwrap_or(DRAIN)),
        limits: Limits {
            body_bytes: serving.max_body.map_or(limits.body_bytes, |bytes| bytes as usize),
            ..limits
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("no threads for the server")?;
    let code = runtime.block_on(serve(options, app));
    // A model that is just being loaded is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn serve(options: Options, app: &App) -> Result<ExitCode> {
    let texts = options.models.iter().map(|model| model.name.clone());
    let names: Vec<String> = texts.chain(options.videos.iter().map(|model| model.name.clone())).collect();
    let server = Server::bind(options).await?;
    // For scripts that asked for any port.
    output::line(format_args!("http://{}", server.address()))?;
    app.note(format_args!("serving {}; Ctrl-C ends", names.join(", ")));
    let stop = Arc::new(Notify::new());
    let _guard = app.interrupts.tell({
        let stop = stop.clone();
        let quiet = app.quiet();
        move || {
            if !quiet {
                output::note("waiting for the answers under way; Ctrl-C again ends now");
            }
            stop.notify_one();
        }
    });
    let told = async move {
        tokio::select! {
            () = stop.notified() => {}
            () = terminated() => {}
        }
    };
    server.run(told).await?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for SIGTERM, where there is such a thing.
#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => drop(signals.recv().await),
        Err(error) => {
            tracing::warn!(%error, "SIGTERM will end the process at once");
            std::future::pending().await
        }
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}

/// All models on this disk, or the default one.
fn everything(app: &App) -> Result<Vec<String>> {
    let stored = model::store(app)?.list()?;
    let names: Vec<String> = stored.into_iter().map(|model| model.name).collect();
    Ok(if names.is_empty() { vec![DEFAULT_MODEL.to_owned()] } else { names })
}

/// The SHA-256 of a model's file, which records name. Of a file that the store does not know it is computed on the side.
fn digest(known: Option<String>, path: &Path) -> Result<Arc<OnceLock<String>>> {
    let digest = Arc::new(known.map_or_else(OnceLock::new, OnceLock::from));
    if digest.get().is_none() && path.is_file() {
        let (digest, path) = (digest.clone(), path.to_owned());
        let work = move || match wushi_hub::sha256(&path) {
            Ok(sha256) => drop(digest.set(sha256)),
            Err(error) => tracing::warn!(%error, "records will not name the model's digest"),
        };
        std::thread::Builder::new()
            .name("digest".to_owned())
            .spawn(work)
            .context("no thread for a digest")?;
    }
    Ok(digest)
}

/// Tokens of a step that others may have to wait for: one for each answer under way at least.
fn step_rows(serving: &Serving) -> usize {
    serving.step_tokens.unwrap_or(STEP_TOKENS).max(serving.sequences.unwrap_or(SEQUENCES))
}

/// All models compute on one team of threads, step by step in turn.
fn team(compute: &Compute) -> Result<Team> {
    let threads =
        compute.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    Team::new(threads).context("no threads to compute with")
}

/// `NAME=MODEL` or `MODEL`, which goes by the name of its file where it is one.
fn named(argument: &str) -> (String, &str) {
    match argument.split_once('=') {
        Some((name, reference)) if !name.is_empty() && !name.contains(['/', '\\', ':']) => {
            (name.to_owned(), reference)
        }
        _ => {
            let path = Path::new(argument);
            let is_path = !argument.starts_with("hf:") && !argument.contains("://") && path.exists();
            let stem = match path.is_dir() {
                true => path.file_name(),
                false => path.file_stem(),
            };
            let name = stem.filter(|_| is_path).map(|stem| stem.to_string_lossy().into_owned());
            (name.unwrap_or_else(|| argument.to_owned()), argument)
        }
    }
}

/// A reference that means the same in another folder.
fn from_anywhere(reference: &str) -> Result<String> {
    match ModelRef::parse(reference)? {
        ModelRef::Path(path) => Ok(std::path::absolute(path)?.to_string_lossy().into_owned()),
        _ => Ok(reference.to_owned()),
    }
}

fn served(
    name: String,
    reference: &str,
    pulled: Pulled,
    serving: &Serving,
    compute: &Compute,
    team: &Team,
) -> Result<ServedModel> {
    let mut load = model::load_options(pulled.path, compute);
    let sequences = serving.sequences.unwrap_or(SEQUENCES);
    load.context = serving.ctx;
    load.team = Some(team.clone());
    load.max_logit_rows = load.max_logit_rows.max(sequences);
    load.max_rows = load.max_rows.max(sequences);
    // As many full-length sequences as the tokens make, and one at least.
    let context = load.context.unwrap_or(DEFAULT_CONTEXT);
    load.sequences = serving.kv_tokens.map_or(CONTEXTS, |tokens| tokens.div_ceil(context));
    load.engine.max_sequences = Some(sequences);
    load.engine.max_waiting = Some(serving.queue.unwrap_or(QUEUE));
    load.engine.step_tokens = Some(step_rows(serving));
    let loading = Loading {
        reference: from_anywhere(reference)?,
        quant: compute.quant.map(|quant| quant.to_string()),
        cache: load.cache.to_string(),
        rope_scaling: compute.rope_scaling.map(|stretch| stretch.to_string()),
        ..Loading::default()
    };
    let digest = digest(pulled.sha256, &load.path)?;
    Ok(ServedModel { name, load, digest, loading })
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn models_are_named() {
        assert_eq!(named("smollm2"), ("smollm2".to_owned(), "smollm2"));
        assert_eq!(named("small=smollm2"), ("small".to_owned(), "smollm2"));
        assert_eq!(named("hf:org/repo/a=b.gguf").1, "hf:org/repo/a=b.gguf");
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let path = path.to_string_lossy();
        assert_eq!(named(&path), ("Cargo".to_owned(), &*path));
    }
}
