//! From what a person calls a model to one that answers.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use wushi_cpu::PAGE_TOKENS;
use wushi_engine::load::{self, LoadError, LoadOptions, LoadPlan, LoadedModel, Size};
use wushi_hub::{ModelRef, Options, Progress, Pulled, Store};

use crate::App;
use crate::args::VideoFiles;
use crate::commands::video::source;
use crate::knobs::{Compute, Records};
use crate::output::{self, one_line};

/// The folder that models are kept in.
pub(crate) fn home(app: &App) -> Result<PathBuf> {
    match &app.common.home {
        Some(home) => Ok(home.clone()),
        None => Ok(wushi_hub::default_location(|name| std::env::var_os(name))?),
    }
}

/// The models on this disk.
pub(crate) fn store(app: &App) -> Result<Store> {
    Ok(Store::open(home(app)?)?)
}

/// The file that keys, usage and records are in.
pub(crate) fn database(records: Records, app: &App) -> Result<PathBuf> {
    match records.resolve(&app.layers)?.database {
        // A typing error must not look like a database without keys.
        Some(path) => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                bail!("{}: there is no folder {}", path.display(), folder.display())
            }
            _ => Ok(path),
        },
        None => Ok(home(app)?.join("server.sqlite")),
    }
}

/// Removes a stored model whose file is no longer what was fetched, so that a pull fetches it again.
pub(crate) fn discard_if_changed(reference: &str, app: &App) -> Result<()> {
    let (store, model) = (store(app)?, ModelRef::parse(reference)?);
    if store.verify(&model)? == Some(false) {
        app.note(format_args!(
            "{reference}: the file on this disk has changed since it was fetched; fetching it again"
        ));
        store.remove(&model.to_string())?;
    }
    Ok(())
}

/// Makes sure that a model is on this disk.
pub(crate) fn pull(reference: &str, app: &App) -> Result<Pulled> {
    let model = ModelRef::parse(reference)?;
    let options = Options::from_env(|name| std::env::var_os(name));
    Ok(wushi_hub::pull(&store(app)?, &model, &options, &Bar::new(app.quiet()))?)
}

/// The file or folder of a model, fetched if need be.
pub(crate) fn locate(reference: &str, app: &App) -> Result<PathBuf> {
    Ok(pull(reference, app)?.path)
}

/// What the knobs say about loading the model at `path`.
pub(crate) fn load_options(path: PathBuf, compute: &Compute) -> LoadOptions {
    let mut options = LoadOptions::new(path);
    options.quant = compute.quant;
    options.stretch = compute.rope_scaling;
    options.threads = compute.threads;
    options.instruction_set = compute.isa;
    options.cache = compute.cache.unwrap_or(options.cache);
    options.memory = compute.memory;
    options.engine.prefill_chunk = compute.prefill_chunk;
    options.engine.speculate = compute.speculate.unwrap_or(options.engine.speculate);
    options
}

/// A loaded model, and how long planning and loading took.
pub(crate) struct Loaded {
    pub(crate) model: LoadedModel,
    pub(crate) load: Duration,
}

/// Plans, tells people the plan, and loads.
pub(crate) fn load(options: &LoadOptions, app: &App) -> Result<Loaded> {
    let start = Instant::now();
    let plan = plan(options, app)?;
    let model = plan.load()?;
    Ok(Loaded { model, load: start.elapsed() })
}

/// Plans, and tells people the plan.
pub(crate) fn plan(options: &LoadOptions, app: &App) -> Result<LoadPlan> {
    let plan = load::plan(options).map_err(|error| hint_at_video(error, &options.path))?;
    app.note(describe(&plan));
    if let Some(instead) = plan.instead() {
        app.note(instead);
    }
    Ok(plan)
}

/// What gives no text may still be a model.
fn hint_at_video(error: LoadError, path: &Path) -> anyhow::Error {
    match source::recognise(path, &VideoFiles::default()) {
        Ok(Some(_)) => anyhow!("{0} makes videos: wushi video {0} \"A red fox in the snow\"", path.display()),
        _ => error.into(),
    }
}

/// The plan in two lines.
fn describe(plan: &LoadPlan) -> String {
    let (info, executor, memory) = (plan.info(), plan.executor(), plan.memory());
    let name = one_line(info.name.as_deref().unwrap_or("model"));
    let available = plan.available().map_or(String::new(), |bytes| format!(" of {} available", Size(bytes)));
    format!(
        "{name}: {}, {:.1} M parameters, {}; {} threads, {}\n\
         memory: {} of weights, {} of {} cache ({} tokens, context {}), {} of buffers; {}{available}",
        one_line(&info.architecture),
        info.parameters as f64 / 1e6,
        info.dtype,
        executor.threads,
        executor.instruction_set,
        Size(memory.weights as u64),
        Size(memory.cache as u64),
        executor.cache,
        executor.pages * PAGE_TOKENS,
        executor.context,
        Size(memory.arena as u64),
        Size(memory.total() as u64),
    )
}

/// A progress bar on stderr.
pub(crate) struct Bar {
    quiet: bool,
    bar: RefCell<Option<ProgressBar>>,
}

impl Bar {
    pub(crate) fn new(quiet: bool) -> Bar {
        Bar { quiet, bar: RefCell::new(None) }
    }
}

impl Progress for Bar {
    fn message(&self, text: &str) {
        if self.quiet {
            return;
        }
        match &*self.bar.borrow() {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    fn start(&self, what: &str, total: Option<u64>, done: u64) {
        if self.quiet {
            return;
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = match total {
            Some(_) => "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        // The templates are constants and known to be sound; the default style would do as well.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.set_position(done);
        // What came earlier does not count for the speed.
        bar.reset_eta();
        self.bar.replace(Some(bar));
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.inc(bytes);
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Reads what was piped into the process, without the line break at its end.
pub(crate) fn read_stdin() -> Result<String> {
    let mut text = std::io::read_to_string(std::io::stdin()).context("cannot read stdin")?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
