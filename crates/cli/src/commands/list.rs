//! `wushi list`: the models on this disk, and those that have a short name.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use wushi_engine::load::Size;
use wushi_hub::{CATALOGUE, State, StoredModel};

use crate::args::ListArgs;
use crate::output::Table;
use crate::{App, model, output};

pub(crate) fn run(args: &ListArgs, app: &App) -> Result<ExitCode> {
    let store = model::store(app)?;
    let stored = store.list()?;
    let absent = CATALOGUE.iter().filter(|entry| !stored.iter().any(|model| model.name == entry.name));
    if args.json {
        let catalogue: Vec<Value> = absent
            .map(|entry| {
                json!({
                    "model": entry.name,
                    "description": entry.description,
                    "bytes": entry.bytes,
                    "sha256": entry.sha256,
                    "licence": entry.licence,
                })
            })
            .collect();
        let models: Vec<Value> = stored.iter().map(stored_json).collect();
        output::json(&json!({ "home": store.root(), "models": models, "catalogue": catalogue }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(1, ["MODEL", "SIZE", "LICENCE", "STATE"]);
    for model in &stored {
        let licence = model.licence.clone().unwrap_or_else(|| "?".into());
        table.row([model.name.clone(), Size(model.bytes).to_string(), licence, state(model)]);
    }
    for entry in absent {
        table.row([
            entry.name.into(),
            Size(entry.bytes).to_string(),
            entry.licence.into(),
            "not fetched".into(),
        ]);
    }
    output::line(table)?;
    Ok(ExitCode::SUCCESS)
}

fn state(model: &StoredModel) -> String {
    match &model.state {
        State::Sound => "here".to_owned(),
        State::Damaged(why) => format!("damaged: {why}"),
    }
}

fn stored_json(model: &StoredModel) -> Value {
    json!({
        "model": model.name,
        "path": model.path,
        "bytes": model.bytes,
        "sha256": model.sha256,
        "files": model.files.iter().map(|file| json!({ "file": file.name, "bytes": file.bytes, "sha256": file.sha256 })).collect::<Vec<_>>(),
        "source": model.source,
        "licence": model.licence,
        "fetched": model.fetched,
        "damage": match &model.state {
            State::Sound => None,
            State::Damaged(why) => Some(why),
        },
    })
}
