//! `wushi tokenize`: the tokens of a text.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;
use wushi_formats::Tokenizer;

use crate::args::TokenizeArgs;
use crate::output::Table;
use crate::{App, model, output};

pub(crate) fn run(args: &TokenizeArgs, app: &App) -> Result<ExitCode> {
    let text = match &args.text {
        Some(text) => text.clone(),
        None => model::read_stdin()?,
    };
    let path = model::locate(&args.model, app)?;
    let checkpoint = wushi_models::open(&path)?;
    let tokenizer =
        Tokenizer::from_gguf(checkpoint.metadata()).with_context(|| path.display().to_string())?;
    let ids = tokenizer.encode(&text, !args.no_bos, !args.no_special)?;
    // A token may be part of a character; its piece then shows U+FFFD.
    let pieces: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id], false)).collect();
    if args.json {
        output::json(&json!({ "ids": ids, "pieces": pieces }))?;
    } else if !ids.is_empty() {
        let mut table = Table::new(2, ["ID", "PIECE"]);
        for (id, piece) in ids.iter().zip(&pieces) {
            table.row([id.to_string(), format!("{piece:?}")]);
        }
        output::line(table)?;
    }
    Ok(ExitCode::SUCCESS)
}
