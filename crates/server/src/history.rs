//! The last minutes, sampled for the page's plots.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::app::now;
use crate::metrics::Metrics;
use crate::pool::Pool;

/// How often a sample is taken.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
/// How many are kept: twenty minutes.
const SAMPLES: usize = 600;

/// Samples, the oldest first.
#[derive(Default)]
pub(crate) struct History(Mutex<State>);

#[derive(Default)]
struct State {
    samples: VecDeque<Sample>,
    /// Tokens at the latest sample: prompt, completion.
    tokens: (u64, u64),
}

#[derive(Clone, Copy)]
struct Sample {
    time: u64,
    tokens_per_s: f64,
    prompt_tokens_per_s: f64,
    running: usize,
    waiting: usize,
    ttft: [Option<f64>; 2],
    inter_token: [Option<f64>; 2],
    kv_used: f64,
}

/// Numbers over time, as lists of one length. Null where nothing came.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Series {
    /// Seconds between two of them.
    interval_s: u64,
    /// Seconds since 1970.
    time: Vec<u64>,
    tokens_per_s: Vec<f64>,
    prompt_tokens_per_s: Vec<f64>,
    running: Vec<usize>,
    waiting: Vec<usize>,
    ttft_p50_ms: Vec<Option<f64>>,
    ttft_p99_ms: Vec<Option<f64>>,
    itl_p50_ms: Vec<Option<f64>>,
    itl_p99_ms: Vec<Option<f64>>,
    /// Share of the pages of keys and values that are in use.
    kv_used: Vec<f64>,
}

impl History {
    /// Takes a sample.
    pub(crate) fn sample(&self, pool: &Pool, metrics: &Metrics) {
        let (mut recent, prompt, completion) = metrics.sample();
        let (mut running, mut waiting, mut used, mut pages) = (0, 0, 0, 0);
        for stats in pool.entries().iter().filter_map(|entry| Some(entry.condition().running?.stats())) {
            running += stats.running;
            waiting += stats.waiting;
            used += stats.pages_used;
            pages += stats.pages_used + stats.pages_cached + stats.pages_free;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let per_second = |now: u64, before: u64| (now - before) as f64 / INTERVAL.as_secs_f64();
        let sample = Sample {
            time: now(),
            tokens_per_s: per_second(completion, state.tokens.1),
            prompt_tokens_per_s: per_second(prompt, state.tokens.0),
            running,
            waiting,
            ttft: percentiles(&mut recent.ttft),
            inter_token: percentiles(&mut recent.inter_token),
            kv_used: if pages == 0 { 0.0 } else { used as f64 / pages as f64 },
        };
        state.tokens = (prompt, completion);
        if state.samples.len() == SAMPLES {
            state.samples.pop_front();
        }
        state.samples.push_back(sample);
    }

    /// All samples.
    pub(crate) fn series(&self) -> Series {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut series = Series { interval_s: INTERVAL.as_secs(), ..Series::default() };
        for sample in &state.samples {
            series.time.push(sample.time);
            series.tokens_per_s.push(sample.tokens_per_s);
            series.prompt_tokens_per_s.push(sample.prompt_tokens_per_s);
            series.running.push(sample.running);
            series.waiting.push(sample.waiting);
            series.ttft_p50_ms.push(sample.ttft[0]);
            series.ttft_p99_ms.push(sample.ttft[1]);
            series.itl_p50_ms.push(sample.inter_token[0]);
            series.itl_p99_ms.push(sample.inter_token[1]);
            series.kv_used.push(sample.kv_used);
        }
        series
    }
}

/// The median and the 99th percentile, in milliseconds.
fn percentiles(seconds: &mut [f32]) -> [Option<f64>; 2] {
    seconds.sort_unstable_by(f32::total_cmp);
    [0.5, 0.99].map(|share| {
        let last = seconds.len().checked_sub(1)?;
        Some(f64::from(seconds[(last as f64 * share).round() as usize]) * 1e3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_came() {
        assert_eq!(percentiles(&mut []), [None, None]);
        let mut seconds: Vec<f32> = (1..=101).rev().map(|n| n as f32).collect();
        assert_eq!(percentiles(&mut seconds), [Some(51_000.0), Some(100_000.0)]);
    }
}
