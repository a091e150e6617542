//! `wushi replay`: runs a recorded request again and says whether every bit agrees.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use wushi_cpu::InstructionSet;
use wushi_engine::Team;
use wushi_engine::video::{Follow, NetworkOptions, VideoNetworks};
use wushi_server::ServedModel;
use wushi_server::replay::{Verdict, replay, replay_video};
use wushi_server::store::{AuditRecord, Loading, Store};

use crate::args::{ReplayArgs, VideoFiles};
use crate::commands::video::progress::Show;
use crate::commands::video::source;
use crate::knobs::Compute;
use crate::output::{Table, one_line};
use crate::{App, model, output, values};

pub(crate) fn run(args: ReplayArgs, app: &App) -> Result<ExitCode> {
    let given = &args.compute;
    if given.quant.is_some() || given.cache.is_some() || given.rope_scaling.is_some() {
        bail!("--quant, --cache and --rope-scaling change bits: a record is replayed with those it names");
    }
    let request = args.request.as_deref().map(read).transpose()?;
    let compute = args.compute.resolve(&app.layers)?;
    let path = model::database(args.records, app)?;
    let store =
        Store::open_existing(&path)?.ok_or_else(|| anyhow!("there is no database {}", path.display()))?;
    let record = store.get(&args.record)?;
    drop(store);
    let (instead, request) = (args.model.as_deref(), request.as_deref());
    let verdict = match record.parameters.video {
        Some(_) => video(&record, request, instead, &compute, app)?,
        None => replay(&record, request, served(&record, instead, &compute, app)?)?,
    };
    if args.json {
        output::json(&json!({
            "record": record.id,
            "equal": verdict.equal(),
            "every_bit": verdict.equal() && verdict.every_bit,
            "checks": verdict.checks,
            "notes": verdict.notes,
        }))?;
    } else {
        tell(&record, &verdict)?;
    }
    Ok(if verdict.equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn unknown(what: &str, value: &str) -> anyhow::Error {
    anyhow!("the record's {what}, `{}`, is none that this version knows", value.escape_default())
}

/// The files of the record's model.
fn pull(loading: &Loading, instead: Option<&str>, app: &App) -> Result<wushi_hub::Pulled> {
    model::pull(instead.unwrap_or(&loading.reference), app).with_context(|| {
        format!("the model of this record is {}; --model says where it is now", one_line(&loading.reference))
    })
}

/// Makes the record's video again.
fn video(
    record: &AuditRecord,
    request: Option<&[u8]>,
    instead: Option<&str>,
    compute: &Compute,
    app: &App,
) -> Result<Verdict> {
    let loading = &record.loading;
    let pulled = pull(loading, instead, app)?;
    let sources = source::recognise(&pulled.path, &VideoFiles::default())?
        .ok_or_else(|| anyhow!("{} makes no videos", pulled.path.display()))?;
    let options = NetworkOptions {
        team: Team::new(compute.threads.unwrap_or_else(threads)).context("cannot start threads")?,
        instruction_set: compute.isa.unwrap_or_else(InstructionSet::best),
        quant: match &loading.quant {
            None => None,
            Some(quant) => Some(values::storage_type(quant).map_err(|_| unknown("storage type", quant))?),
        },
        decoder: match &loading.decoder {
            None => None,
            Some(dtype) => Some(values::vae_type(dtype).map_err(|_| unknown("decoder's type", dtype))?),
        },
        cache: match loading.cache.as_str() {
            "" => None,
            cache => Some(values::denoiser_cache(cache).map_err(|_| unknown("cache type", cache))?),
        },
        memory: compute.memory,
    };
    let networks = VideoNetworks::open(sources, options)?;
    let follow = Arc::new(Follow::default());
    let _guard = app.interrupts.tell({
        let follow = Arc::clone(&follow);
        move || follow.stop()
    });
    let mut show = Show::new(app.quiet(), None, networks.model().temporal_stride);
    Ok(replay_video(record, request, &networks, &mut |progress| show.progress(progress), &follow)?)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The record's model, as it was loaded then. Threads, instruction set and steps are today's: they change no bit.
fn served(record: &AuditRecord, instead: Option<&str>, compute: &Compute, app: &App) -> Result<ServedModel> {
    let loading = &record.loading;
    let reference = instead.unwrap_or(&loading.reference);
    let pulled = pull(loading, instead, app)?;
    let mut load = model::load_options(pulled.path, compute);
    load.context = Some(loading.context as usize);
    load.cache = values::cache_type(&loading.cache).map_err(|_| unknown("cache type", &loading.cache))?;
    load.quant = match &loading.quant {
        None => None,
        Some(quant) => Some(values::storage_type(quant).map_err(|_| unknown("storage type", quant))?),
    };
    load.stretch = match &loading.rope_scaling {
        None => None,
        Some(how) => Some(values::stretch(how).map_err(|_| unknown("rope scaling", how))?),
    };
    let loading = Loading { reference: reference.to_owned(), ..loading.clone() };
    let digest = pulled.sha256.map_or_else(OnceLock::new, OnceLock::from);
    Ok(ServedModel { name: record.model.clone(), load, digest: Arc::new(digest), loading })
}

fn tell(record: &AuditRecord, verdict: &Verdict) -> Result<()> {
    let mut table = Table::new(4, ["WHAT", "", "RECORDED", "NOW"]);
    for check in &verdict.checks {
        // What is equal need not be said twice.
        let (sign, found) =
            if check.equal { ("equal", String::new()) } else { ("DIFFERS", one_line(&check.found)) };
        table.row([one_line(&check.what), sign.to_owned(), one_line(&check.recorded), found]);
    }
    output::line(table)?;
    for note in &verdict.notes {
        output::line(format_args!("note: {}", one_line(note)))?;
    }
    let differing = verdict.checks.iter().filter(|check| !check.equal).count();
    output::line(match (differing, verdict.every_bit) {
        (0, true) => format!("{}: every bit agrees", record.id),
        (0, false) => format!("{}: all that was recorded agrees, but not every bit was recorded", record.id),
        _ => format!("{}: {differing} of {} differ", record.id, verdict.checks.len()),
    })
}
