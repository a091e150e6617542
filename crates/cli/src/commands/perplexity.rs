//! `wushi perplexity`: how well a model predicts a text.

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use wushi_engine::load::LoadedModel;
use wushi_engine::{Event, Generation, Request};
use wushi_formats::Tokenizer;

use crate::args::PerplexityArgs;
use crate::{App, model, output};

/// Windows computed together: their weights are read once.
const TOGETHER: usize = 4;
/// Rows of logits computed in one step; the weights of the output layer are read once for all of them.
const LOGIT_ROWS: usize = 128;

pub(crate) fn run(args: PerplexityArgs, app: &App) -> Result<ExitCode> {
    let compute = args.compute.clone().resolve(&app.layers)?;
    if args.ctx < 4 {
        bail!(
            "a window of {} tokens is too short: its second half predicts nothing; --ctx takes at least 4",
            args.ctx
        );
    }
    let text = read(&args)?;
    let path = model::locate(&args.model, app)?;
    let mut options = model::load_options(path, &compute);
    options.context = Some(args.ctx);
    options.sequences = TOGETHER;
    options.max_logit_rows = LOGIT_ROWS;
    // Windows share nothing but BOS.
    options.engine.prefix_cache = false;
    let loaded = model::load(&options, app)?;
    let start = Instant::now();
    let windows = windows(&loaded.model.tokenizer, &text, args.ctx)?;
    let score = score(&loaded.model, &windows, args.ctx, app)?;
    let report = Report {
        perplexity: score.perplexity(),
        standard_error: score.standard_error(),
        tokens: score.count,
        windows: windows.len(),
        ctx: args.ctx,
        model: &args.model,
        file: args.file.display().to_string(),
        cache: options.cache.name(),
        load_s: loaded.load.as_secs_f64(),
        tokens_per_s: (windows.len() * args.ctx) as f64 / start.elapsed().as_secs_f64(),
    };
    if args.json {
        output::json(&report)?;
    } else {
        output::line(format_args!("perplexity {:.4} ± {:.4}", report.perplexity, report.standard_error))?;
        app.note(format_args!(
            "{} tokens scored in {} windows of {}, at {:.1} tokens/s",
            report.tokens, report.windows, report.ctx, report.tokens_per_s
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    perplexity: f64,
    standard_error: f64,
    /// Scored.
    tokens: usize,
    windows: usize,
    ctx: usize,
    model: &'a str,
    file: String,
    cache: &'static str,
    load_s: f64,
    tokens_per_s: f64,
}

/// The text of the file, without the line break at its end, as the reference protocol has it.
fn read(args: &PerplexityArgs) -> Result<String> {
    let file = args.file.display();
    let bytes = fs::read(&args.file).with_context(|| format!("cannot read {file}"))?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        anyhow!("{file} is no text in UTF-8: byte {} is wrong", error.utf8_error().valid_up_to())
    })?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// The text's tokens in windows of `ctx`, each with BOS in its first place if the tokenizer adds one.
fn windows(tokenizer: &Tokenizer, text: &str, ctx: usize) -> Result<Vec<Vec<u32>>> {
    let tokens = tokenizer.encode(text, true, false)?;
    if tokens.len() < ctx {
        bail!(
            "the text has {} tokens, but a window takes {ctx}: take a longer text or a smaller --ctx",
            tokens.len()
        );
    }
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let window = |tokens: &[u32]| {
        let mut window = tokens.to_vec();
        if let (Some(bos), Some(first)) = (bos, window.first_mut()) {
            *first = bos;
        }
        window
    };
    Ok(tokens.chunks_exact(ctx).map(window).collect())
}

/// Sums over the scored tokens' negative log-probabilities.
#[derive(Debug, Default, PartialEq)]
struct Score {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Score {
    fn add(&mut self, logprob: f32) {
        let loss = -f64::from(logprob);
        self.count += 1;
        self.sum += loss;
        self.squares += loss * loss;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    fn perplexity(&self) -> f64 {
        self.mean().exp()
    }

    /// Of the perplexity, taking the tokens as independent.
    fn standard_error(&self) -> f64 {
        let variance = (self.squares / self.count as f64 - self.mean() * self.mean()).max(0.0);
        (variance / (self.count.max(2) - 1) as f64).sqrt() * self.perplexity()
    }
}

/// Scores the second half of every window: the logits of token `ctx / 2` are the first to predict one.
fn score(model: &LoadedModel, windows: &[Vec<u32>], ctx: usize, app: &App) -> Result<Score> {
    let submit = |window: &Vec<u32>| -> Result<Generation> {
        let mut request = Request::new(window.clone());
        request.score_from = Some(ctx / 2 + 1);
        request.max_tokens = Some(0);
        Ok(model.engine.submit(request)?)
    };
    // A few windows wait in line, so that the engine never does.
    let mut waiting = windows.iter();
    let mut under_way = std::collections::VecDeque::new();
    let bar = progress(windows.len(), app);
    let mut score = Score::default();
    loop {
        while under_way.len() < 2 * TOGETHER
            && let Some(window) = waiting.next()
        {
            under_way.push_back(submit(window)?);
        }
        let Some(generation) = under_way.pop_front() else { break };
        for event in generation {
            match event {
                Event::Prompt(scores) => scores.iter().for_each(|token| score.add(token.logprob)),
                Event::Failed(error) => return Err(error.into()),
                Event::Embedding(_) | Event::Token(_) | Event::Finished(_) => {}
            }
        }
        bar.inc(1);
        bar.set_message(format!("{:.4}", score.perplexity()));
    }
    bar.finish_and_clear();
    Ok(score)
}

fn progress(windows: usize, app: &App) -> ProgressBar {
    let target = if app.quiet() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(windows as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{pos}/{len} windows {bar:30} perplexity {msg} {eta}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::Score;

    #[test]
    fn perplexity_is_the_exponential_of_the_mean_loss() {
        let mut score = Score::default();
        for probability in [0.5f32, 0.25, 0.125] {
            score.add(probability.ln());
        }
        assert_eq!(score.count, 3);
        assert!((score.perplexity() - 4.0).abs() < 1e-6);
        // Losses of 1, 2 and 3 times ln 2: a variance of 2/3 ln² 2 over 3 tokens.
        let expected = (2.0f64 / 3.0 / 2.0).sqrt() * 2f64.ln() * 4.0;
        assert!((score.standard_error() - expected).abs() < 1e-6);
    }
}
