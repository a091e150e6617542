//! Logs of all rooms, to stderr.

use std::io::{self, IsTerminal};

use anyhow::{Result, anyhow};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging: `filter` as in `info` or `warn,wushi_engine=debug`, made more talkative by `verbose` steps.
pub(crate) fn init(filter: Option<&str>, verbose: u8) -> Result<()> {
    let filter: Targets = match filter {
        Some(text) => text.parse().map_err(|error| {
            anyhow!("log filter `{text}`: {error}; expected a level (off, error, warn, info, debug, trace) or target=level")
        })?,
        None => Targets::new().with_default(LevelFilter::WARN),
    };
    let least = match verbose {
        0 => LevelFilter::OFF,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let default = filter.default_level().unwrap_or(LevelFilter::OFF).max(least);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .compact();
    tracing_subscriber::registry().with(filter.with_default(default)).with(layer).try_init()?;
    Ok(())
}
