//! `wushi rm`: removes a model from this disk.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use wushi_engine::load::Size;

use crate::args::RmArgs;
use crate::{App, model, output};

pub(crate) fn run(args: &RmArgs, app: &App) -> Result<ExitCode> {
    let freed = model::store(app)?.remove(&args.model)?;
    if args.json {
        output::json(&json!({ "model": args.model, "freed": freed }))?;
    } else {
        app.note(format_args!("removed {}, {} are free again", args.model, Size(freed)));
    }
    Ok(ExitCode::SUCCESS)
}
