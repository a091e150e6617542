//! `wushi embed`: embeddings of texts.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use wushi_engine::load::LoadedEmbedder;
use wushi_engine::normalise;

use crate::args::EmbedArgs;
use crate::{App, model, output};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    embeddings: Vec<Vec<f32>>,
    /// Tokens of each text, special ones included.
    tokens: Vec<usize>,
    /// See `LoadPlan::fingerprint`.
    fingerprint: String,
}

pub(crate) fn run(args: EmbedArgs, app: &App) -> Result<ExitCode> {
    let compute = args.compute.clone().resolve(&app.layers)?;
    let texts = match args.texts.is_empty() {
        false => args.texts.clone(),
        true => model::read_stdin()?.lines().map(str::to_owned).collect(),
    };
    if texts.is_empty() {
        bail!("nothing to embed: give a text, or one on each line of stdin");
    }
    let path = model::locate(&args.model, app)?;
    let mut loaded = model::plan(&model::load_options(path, &compute), app)?.load_embedder()?;
    let mut report = Report {
        model: &args.model,
        embeddings: Vec::with_capacity(texts.len()),
        tokens: Vec::with_capacity(texts.len()),
        fingerprint: blake3::Hash::from(loaded.fingerprint).to_string(),
    };
    for (number, text) in texts.iter().enumerate() {
        let (mut embedding, tokens) =
            embed(&mut loaded, text).with_context(|| format!("text {}", number + 1))?;
        if !args.no_normalise {
            normalise(&mut embedding);
        }
        if !args.json {
            let numbers: Vec<String> = embedding.iter().map(f32::to_string).collect();
            output::line(numbers.join(" "))?;
        }
        report.embeddings.push(embedding);
        report.tokens.push(tokens);
    }
    if args.json {
        output::json(&report)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A text's embedding, and how many tokens it has.
fn embed(loaded: &mut LoadedEmbedder, text: &str) -> Result<(Vec<f32>, usize)> {
    // A text is data: the names of special tokens in it are words.
    let tokens = loaded.tokenizer.encode(text, true, false)?;
    Ok((loaded.embedder.embed(&tokens)?, tokens.len()))
}
