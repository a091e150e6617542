//! `wushi run`: one answer, or a chat.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use serde::Serialize;
use wushi_formats::Message;
use wushi_hub::{HubError, ModelRef};

use crate::answer::{self, Answer, UsageJson};
use crate::args::{DEFAULT_MODEL, RunArgs};
use crate::model::{self, Loaded};
use crate::prompt::{self, Prompt};
use crate::{App, interrupt, output};

pub(crate) fn run(args: RunArgs, app: &App) -> Result<ExitCode> {
    ModelRef::parse(&args.model).map_err(|error| hint_at_prompt(error, &args.model))?;
    let generation = args.generation.clone().resolve(&app.layers)?;
    let compute = args.compute.clone().resolve(&app.layers)?;
    let prompt = match &args.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if io::stdin().is_terminal() => None,
        None => {
            tracing::info!("reading the prompt from stdin");
            Some(model::read_stdin()?)
        }
    };
    match &prompt {
        // A model may well continue a space, but nobody can answer one.
        Some(prompt) if prompt.is_empty() || (prompt.trim().is_empty() && !args.raw) => {
            bail!("nothing to answer: the prompt is empty")
        }
        None if args.json => bail!("--json needs a prompt, as an argument or on stdin"),
        None if args.raw => bail!("--raw needs a prompt, as an argument or on stdin"),
        _ => {}
    }
    let path = model::locate(&args.model, app)?;
    let mut options = model::load_options(path, &compute);
    options.context = generation.ctx;
    let loaded = model::load(&options, app)?;
    match prompt {
        Some(prompt) => answer(&args, &prompt, &generation, &loaded, app),
        None => super::chat::run(&loaded.model, generation, app),
    }
}

/// Someone who gives a single argument with spaces means it as the prompt.
fn hint_at_prompt(error: HubError, model: &str) -> anyhow::Error {
    match error {
        HubError::UnknownModel { .. } if model.contains(char::is_whitespace) => {
            anyhow!("{error}\nto ask the default model: wushi run {DEFAULT_MODEL} {model:?}")
        }
        error => error.into(),
    }
}

fn answer(
    args: &RunArgs,
    prompt: &str,
    knobs: &crate::knobs::Generation,
    loaded: &Loaded,
    app: &App,
) -> Result<ExitCode> {
    let model = &loaded.model;
    let raw = args.raw || model.template.is_none();
    if raw && knobs.system.is_some() {
        bail!("a system message needs a chat template, which --raw leaves out and some models lack");
    }
    if raw && !args.raw {
        app.note("the model has no chat template: it continues the text");
    }
    let mut messages = prompt::conversation(knobs);
    messages.push(Message::new("user", prompt));
    let prompt = if raw { Prompt::Raw(prompt) } else { Prompt::Chat(&messages) };
    let seed = prompt::seed(knobs.seed);
    let mut request = prompt::request(model, &prompt, knobs, seed)?;
    request.digest = args.json;
    let answer = answer::receive(model.engine.submit(request)?, &app.interrupts, !args.json)?;
    if args.json {
        output::json(&Report::new(args, &answer, seed, loaded))?;
    } else {
        app.note(format_args!("{}; seed {seed}", answer.summary()));
    }
    Ok(if answer.cancelled() { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    text: &'a str,
    token_ids: &'a [u32],
    finish_reason: &'static str,
    seed: u64,
    usage: UsageJson,
    timings: TimingsJson,
    logits_digest: Option<String>,
    /// See `LoadPlan::fingerprint`.
    fingerprint: String,
}

#[derive(Serialize)]
struct TimingsJson {
    load_s: f64,
    ttft_s: f64,
    prefill_tokens_per_s: Option<f64>,
    decode_tokens_per_s: Option<f64>,
}

impl<'a> Report<'a> {
    fn new(args: &'a RunArgs, answer: &'a Answer, seed: u64, loaded: &Loaded) -> Report<'a> {
        let (usage, timings) = (&answer.finished.usage, &answer.finished.timings);
        Report {
            model: &args.model,
            text: &answer.text,
            token_ids: &answer.token_ids,
            finish_reason: answer.reason(),
            seed,
            usage: usage.into(),
            timings: TimingsJson {
                load_s: loaded.load.as_secs_f64(),
                ttft_s: timings.ttft.as_secs_f64(),
                prefill_tokens_per_s: answer::prefill_rate(usage, timings),
                decode_tokens_per_s: answer::decode_rate(usage, timings),
            },
            logits_digest: answer.finished.logits_digest.map(|digest| blake3::Hash::from(digest).to_string()),
            fingerprint: blake3::Hash::from(loaded.model.fingerprint).to_string(),
        }
    }
}
