//! `wushi convert`: a model in any files as one GGUF file.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::json;
use wushi_engine::convert::Conversion;
use wushi_engine::load::Size;
use wushi_hub::Progress;

use crate::args::ConvertArgs;
use crate::knobs::Compute;
use crate::model::Bar;
use crate::{App, model, output};

/// Bytes that are handed to the system at once.
const BUFFER: usize = 1 << 20;

pub(crate) fn run(args: &ConvertArgs, app: &App) -> Result<ExitCode> {
    let out = &args.out;
    match fs::metadata(out) {
        Ok(found) if found.is_dir() => bail!("{} is a folder; name the file to be written", out.display()),
        Ok(found) if !found.is_file() => bail!("{} is no file, and is left alone", out.display()),
        Ok(_) if !args.force => bail!("{} is there already; --force replaces it", out.display()),
        _ => {}
    }
    let path = model::locate(&args.model, app)?;
    // The same knobs as where a model is loaded; the others of those would mean nothing here.
    let knobs =
        Compute { quant: args.quant, threads: args.threads, ..Compute::default() }.resolve(&app.layers)?;
    let options = model::load_options(path.clone(), &knobs);
    let conversion = Conversion::plan(&path, options.quant, options.executor(1, 1).threads)?;
    if let Some(instead) = conversion.instead() {
        app.note(instead);
    }
    write(&conversion, out, app)?;
    let (bytes, kind) = (conversion.bytes(), conversion.main_type().map(|kind| kind.to_string()));
    if args.json {
        output::json(&json!({
            "model": args.model,
            "path": out,
            "bytes": bytes,
            "type": kind,
            "tensors": conversion.tensors(),
        }))?;
    } else {
        let kind = kind.unwrap_or_default();
        app.note(format_args!("{}: {kind}, {} tensors, {}", args.model, conversion.tensors(), Size(bytes)));
        output::line(out.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes beside the place where the file is wanted and moves it there when it is whole.
fn write(conversion: &Conversion, out: &Path, app: &App) -> Result<()> {
    let temporary = Temporary::beside(out)?;
    let _leaves = app.interrupts.leave_behind(temporary.0.clone());
    let failed = || format!("cannot write {}", out.display());
    let file = File::create(&temporary.0).with_context(failed)?;
    let bar = Bar::new(app.quiet());
    bar.start("converting", Some(conversion.bytes()), 0);
    let written = conversion.write(BufWriter::with_capacity(BUFFER, file), |bytes| {
        bar.advance(bytes);
        Ok(())
    });
    bar.finish();
    let mut written = written.with_context(failed)?;
    written.flush().and_then(|()| written.get_ref().sync_all()).with_context(failed)?;
    fs::rename(&temporary.0, out).with_context(failed)
}

/// A file that is gone when nobody has moved it.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(out: &Path) -> Result<Temporary> {
        let Some(name) = out.file_name() else { bail!("{} is no name for a file", out.display()) };
        let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        Ok(Temporary(out.with_file_name(name)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Once moved it is not there.
        let _ = fs::remove_file(&self.0);
    }
}
