//! `wushi key`: the keys that a server's clients need.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use wushi_server::store::{KeyInfo, Limits, Store, Usage, check_key_name, day, unix_ms};

use crate::args::{KeyAddArgs, KeyArgs, KeyCommand, KeyListArgs, KeyRmArgs};
use crate::output::Table;
use crate::{App, model, output};

pub(crate) fn run(args: KeyArgs, app: &App) -> Result<ExitCode> {
    match args.command {
        KeyCommand::Add(args) => add(args, app),
        KeyCommand::List(args) => list(args, app),
        KeyCommand::Rm(args) => rm(args, app),
    }
}

fn add(args: KeyAddArgs, app: &App) -> Result<ExitCode> {
    // Before a database is created for it.
    check_key_name(&args.name)?;
    let limits =
        Limits { requests_per_minute: args.requests_per_minute, tokens_per_day: args.tokens_per_day };
    let new = Store::open(model::database(args.records, app)?)?.add_key(&args.name, limits)?;
    if args.json {
        output::json(&json!({
            "id": new.id,
            "name": args.name,
            "secret": new.secret,
            "requests_per_minute": limits.requests_per_minute,
            "tokens_per_day": limits.tokens_per_day,
        }))?;
    } else {
        app.note(format_args!(
            "the key of {}; it is shown this once and stored nowhere, so put it where its owner finds it",
            args.name
        ));
        output::line(new.secret)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: KeyListArgs, app: &App) -> Result<ExitCode> {
    let path = model::database(args.records, app)?;
    let (mut keys, mut used) = (Vec::new(), Vec::new());
    if let Some(store) = Store::open_existing(&path)? {
        keys = store.keys()?;
        used = store.usage_by_key(day(unix_ms()))?;
    }
    let today = |key: &KeyInfo| used.iter().find(|usage| usage.key.as_ref() == Some(&key.id));
    if args.json {
        let keys: Vec<Value> = keys.iter().map(|key| key_json(key, today(key))).collect();
        output::json(&json!({ "database": path, "keys": keys }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(3, ["NAME", "ID", "STATE", "REQUESTS/MIN", "TOKENS/DAY", "TOKENS TODAY"]);
    for key in &keys {
        let limit = |limit: Option<String>| limit.unwrap_or_else(|| "any".to_owned());
        table.row([
            output::one_line(&key.name),
            key.id.clone(),
            if key.revoked.is_some() { "removed" } else { "valid" }.to_owned(),
            limit(key.limits.requests_per_minute.map(|n| n.to_string())),
            limit(key.limits.tokens_per_day.map(|n| n.to_string())),
            today(key).map_or(0, |usage| usage.prompt_tokens + usage.completion_tokens).to_string(),
        ]);
    }
    if keys.is_empty() {
        app.note("there are no keys yet: `wushi key add NAME` makes one");
    }
    output::line(table)?;
    Ok(ExitCode::SUCCESS)
}

fn key_json(key: &KeyInfo, today: Option<&Usage>) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "requests_per_minute": key.limits.requests_per_minute,
        "tokens_per_day": key.limits.tokens_per_day,
        "created": key.created / 1000,
        "removed": key.revoked.map(|time| time / 1000),
        "today": {
            "requests": today.map_or(0, |usage| usage.requests),
            "prompt_tokens": today.map_or(0, |usage| usage.prompt_tokens),
            "cached_tokens": today.map_or(0, |usage| usage.cached_tokens),
            "completion_tokens": today.map_or(0, |usage| usage.completion_tokens),
        },
    })
}

fn rm(args: KeyRmArgs, app: &App) -> Result<ExitCode> {
    let path = model::database(args.records, app)?;
    let Some(store) = Store::open_existing(&path)? else {
        anyhow::bail!("there is no key `{}`, as there is no database {}", args.name, path.display());
    };
    let removed = store.remove_key(&args.name)?;
    if args.json {
        output::json(&json!({ "id": removed.id, "name": removed.name }))?;
    } else {
        app.note(format_args!(
            "removed the key of {}; a running server refuses it within a second",
            removed.name
        ));
    }
    Ok(ExitCode::SUCCESS)
}
