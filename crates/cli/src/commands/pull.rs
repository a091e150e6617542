//! `wushi pull`: a model's name to a verified file on this disk.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use wushi_engine::load::Size;

use crate::args::PullArgs;
use crate::{App, model, output};

pub(crate) fn run(args: &PullArgs, app: &App) -> Result<ExitCode> {
    model::discard_if_changed(&args.model, app)?;
    let pulled = model::pull(&args.model, app)?;
    if args.json {
        output::json(&json!({
            "model": args.model,
            "path": pulled.path,
            "bytes": pulled.bytes,
            "sha256": pulled.sha256,
            "source": pulled.source,
        }))?;
    } else {
        let came = pulled
            .source
            .map_or("it was here already and is sound".to_owned(), |source| format!("from {source}"));
        app.note(format_args!("{}: {}, {came}", args.model, Size(pulled.bytes)));
        output::line(pulled.path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
