//! The `wushi` binary.

mod answer;
mod args;
mod commands;
mod interrupt;
mod knobs;
mod layers;
mod logs;
mod model;
mod output;
mod prompt;
mod values;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{Cli, Command};
use interrupt::Interrupts;
use knobs::Common;
use layers::Layers;

/// What every command gets.
struct App {
    common: Common,
    layers: Layers,
    interrupts: Interrupts,
}

impl App {
    /// Whether people want nothing but the result.
    fn quiet(&self) -> bool {
        self.common.quiet.unwrap_or(false)
    }

    /// Says something to people, unless they want nothing but the result.
    fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet() {
            output::note(text);
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) if error.is::<output::Closed>() => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let layers = Layers::read()?;
    let common = cli.common.resolve(&layers)?;
    logs::init(common.log.as_deref(), cli.verbose)?;
    Layers::warn_of_strays();
    let app = App { common, layers, interrupts: Interrupts::install()? };
    match cli.command {
        Command::Run(args) => commands::run::run(args, &app),
        Command::Video(args) => commands::video::run(&args, &app),
        Command::Serve(args) => commands::serve::run(args, &app),
        Command::Pull(args) => commands::pull::run(&args, &app),
        Command::List(args) => commands::list::run(&args, &app),
        Command::Rm(args) => commands::rm::run(&args, &app),
        Command::Inspect(args) => commands::inspect::run(args, &app),
        Command::Convert(args) => commands::convert::run(&args, &app),
        Command::Embed(args) => commands::embed::run(args, &app),
        Command::Tokenize(args) => commands::tokenize::run(&args, &app),
        Command::Perplexity(args) => commands::perplexity::run(args, &app),
        Command::Bench(args) => commands::bench::run(args, &app),
        Command::Key(args) => commands::key::run(args, &app),
        Command::Replay(args) => commands::replay::run(args, &app),
    }
}
