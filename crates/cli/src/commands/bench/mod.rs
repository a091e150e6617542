//! `wushi bench`: speed, beside what the machine can do.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;
use wushi_cpu::Probe;
use wushi_engine::load::{LoadPlan, Size};

use crate::args::{BenchArgs, Phase};
use crate::commands::video::source;
use crate::output::Table;
use crate::{App, model, output};

pub(crate) mod machine;
mod measure;
mod steps;
mod video;

use machine::{Machine, Peaks};
use measure::{Bench, Costs, Sample, Shape};
use steps::{StepsReport, Unit, Watch};

pub(crate) fn run(args: BenchArgs, app: &App) -> Result<ExitCode> {
    let compute = args.compute.clone().resolve(&app.layers)?;
    let path = model::locate(&args.model, app)?;
    if let Some(sources) = source::recognise(&path, &args.files)? {
        return video::run(&args, sources, &compute, app);
    }
    if let Some(Some(_)) = args.steps {
        bail!("--steps takes a number only with a model that makes videos");
    }
    let most = args.batch.iter().copied().max().unwrap_or(1);
    let mut options = model::load_options(path, &compute);
    options.max_logit_rows = most.max(options.max_logit_rows);
    options.max_rows = most.max(options.max_rows);
    let shape = Shape {
        prompt_tokens: args.prompt_tokens,
        new_tokens: args.new_tokens,
        max_rows: options.max_rows,
        chunk: options.engine.prefill_chunk.unwrap_or(options.max_rows),
    };
    options.context = Some(shape.context(most));
    options.sequences = most;
    // Every prompt shall be computed, also when it comes a second time.
    options.engine.prefix_cache = false;
    // And a step shall be one token of every sequence: what is measured is the machine, not the text.
    options.engine.speculate = false;
    let start = Instant::now();
    let plan = model::plan(&options, app)?;
    check_pages(&plan, most)?;
    let report = Report::new(&args, &plan);
    let costs = Costs::new(&plan, args.prompt_tokens)?;
    let (threads, set) = (plan.executor().threads, plan.executor().instruction_set);
    let watch = args.steps.map(|_| Watch::new(&plan)).transpose()?;
    let loaded = match &watch {
        Some(watch) => plan.load_wrapped(|executor| watch.over(executor))?,
        None => plan.load()?,
    };
    let load_s = start.elapsed().as_secs_f64();

    let mut bench = Bench::new(&loaded, costs, shape)?;
    let mut rows: Vec<Row> = args.batch.iter().flat_map(|&batch| Row::all(batch, args.only)).collect();
    // The first run touches all memory. The peak is read before the probe takes memory of its own.
    match args.only {
        Some(Phase::Prefill) => bench.prefill(most)?,
        _ => bench.decode(most)?,
    };
    let peak_memory_bytes = machine::peak_memory();
    let mut turns = Turns { probe: Probe::new(threads, set)?, peaks: Vec::new(), watch: watch.as_ref() };
    let mut first_tokens = Vec::new();
    for repetition in 1..=args.repetitions {
        if args.only != Some(Phase::Decode) {
            first_tokens.push(bench.first_token()?);
        }
        for row in &mut rows {
            let (kind, of) = (row.kind.name(), args.repetitions);
            app.note(format_args!("{repetition}/{of}: {kind} of {}", row.sequences));
            turns.measure(row, &mut bench)?;
        }
    }
    let report = Report {
        machine: Machine::new(threads, set, &turns.peaks),
        load_s,
        ttft_s: (!first_tokens.is_empty()).then(|| median(first_tokens)),
        peak_memory_bytes,
        results: rows.iter().map(Row::result).collect(),
        steps: watch.as_ref().map(|watch| rows.iter().map(|row| watch.report(row)).collect()),
        ..report
    };
    if args.json {
        output::json(&report)?
    } else {
        report.print()?
    }
    Ok(ExitCode::SUCCESS)
}

/// Sequences that wait for pages, or lose them, would spoil the measurement.
fn check_pages(plan: &LoadPlan, most: usize) -> Result<()> {
    let executor = plan.executor();
    let needed = executor.context.div_ceil(wushi_cpu::PAGE_TOKENS).saturating_mul(most);
    if executor.pages < needed {
        let bytes = |pages: usize| {
            Size((plan.cache_bytes_per_token() * (pages * wushi_cpu::PAGE_TOKENS) as f64) as u64)
        };
        bail!(
            "not enough memory: {most} sequences of {} tokens need {} of cache, and there is room for {}: \
             take fewer (-b) or shorter ones (-p, -n)",
            executor.context,
            bytes(needed),
            bytes(executor.pages)
        );
    }
    Ok(())
}

/// What looks at the machine, and at the steps, around each measurement.
struct Turns<'a> {
    probe: Probe,
    peaks: Vec<Peaks>,
    watch: Option<&'a Watch>,
}

impl Turns<'_> {
    fn measure(&mut self, row: &mut Row, bench: &mut Bench<'_>) -> Result<()> {
        let before = Peaks::measure(&mut self.probe);
        if let Some(watch) = self.watch {
            watch.forget();
        }
        let sample = match row.kind {
            Kind::Prefill => bench.prefill(row.sequences)?,
            Kind::Decode => bench.decode(row.sequences)?,
        };
        if let Some(watch) = self.watch {
            row.units.extend(watch.units(row.kind, row.sequences, sample.seconds));
        }
        let after = Peaks::measure(&mut self.probe);
        row.samples.push((sample, before.mean(after)));
        self.peaks.extend([before, after]);
        Ok(())
    }
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prefill,
    Decode,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Prefill => "prefill",
            Kind::Decode => "decode",
        }
    }
}

/// All measurements of one kind and number of sequences, with what the machine could do around each.
struct Row {
    kind: Kind,
    sequences: usize,
    samples: Vec<(Sample, Peaks)>,
    /// Where the time went, if that was asked for.
    units: Vec<Unit>,
}

impl Row {
    fn all(sequences: usize, only: Option<Phase>) -> impl Iterator<Item = Row> {
        let kinds = match only {
            None => &[Kind::Prefill, Kind::Decode][..],
            Some(Phase::Prefill) => &[Kind::Prefill],
            Some(Phase::Decode) => &[Kind::Decode],
        };
        kinds.iter().map(move |&kind| Row { kind, sequences, samples: Vec::new(), units: Vec::new() })
    }

    fn result(&self) -> ResultRow {
        let over = |of: &dyn Fn(&Sample, &Peaks) -> f64| {
            median(self.samples.iter().map(|(sample, peaks)| of(sample, peaks)).collect())
        };
        let gaps = |of: fn(&Sample) -> Option<f64>| {
            let values: Vec<f64> = self.samples.iter().filter_map(|(sample, _)| of(sample)).collect();
            (!values.is_empty()).then(|| median(values))
        };
        ResultRow {
            kind: self.kind.name(),
            sequences: self.sequences,
            tokens: self.samples.first().map_or(0, |(sample, _)| sample.tokens),
            tokens_per_s: over(&|sample, _| sample.tokens as f64 / sample.seconds),
            gb_per_s: over(&|sample, _| sample.bytes / sample.seconds / 1e9),
            giga_macs_per_s: over(&|sample, _| sample.macs / sample.seconds / 1e9),
            share_of_bandwidth: over(&|sample, peaks| sample.bytes / sample.seconds / peaks.bandwidth),
            share_of_peak: over(&|sample, peaks| sample.macs / sample.seconds / peaks.integer),
            inter_token_ms: match (gaps(|sample| sample.gap(0.5)), gaps(|sample| sample.gap(0.99))) {
                (Some(p50), Some(p99)) => Some(Gaps { p50: p50 * 1e3, p99: p99 * 1e3 }),
                _ => None,
            },
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    model: ModelJson,
    repetitions: usize,
    prompt_tokens: usize,
    new_tokens: usize,
    load_s: f64,
    /// Measured with prefill.
    ttft_s: Option<f64>,
    peak_memory_bytes: Option<u64>,
    results: Vec<ResultRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<StepsReport>>,
}

#[derive(Serialize)]
struct ModelJson {
    model: String,
    architecture: String,
    parameters: u64,
    dtype: String,
    weight_bytes: usize,
    cache: &'static str,
}

#[derive(Serialize)]
struct ResultRow {
    kind: &'static str,
    sequences: usize,
    tokens: usize,
    tokens_per_s: f64,
    /// Weights once per step, and cached keys and values once per decoded token.
    gb_per_s: f64,
    giga_macs_per_s: f64,
    share_of_bandwidth: f64,
    share_of_peak: f64,
    inter_token_ms: Option<Gaps>,
}

#[derive(Serialize)]
struct Gaps {
    p50: f64,
    p99: f64,
}

impl Report {
    /// What is known before measuring.
    fn new(args: &BenchArgs, plan: &LoadPlan) -> Report {
        let info = plan.info();
        Report {
            machine: Machine::default(),
            model: ModelJson {
                model: args.model.clone(),
                architecture: info.architecture.clone(),
                parameters: info.parameters,
                dtype: info.dtype.clone(),
                weight_bytes: plan.memory().weights,
                cache: plan.executor().cache.name(),
            },
            repetitions: args.repetitions,
            prompt_tokens: args.prompt_tokens,
            new_tokens: args.new_tokens,
            load_s: 0.0,
            ttft_s: None,
            peak_memory_bytes: None,
            results: Vec::new(),
            steps: None,
        }
    }

    fn print(&self) -> Result<()> {
        output::line(&self.machine)?;
        let peak =
            self.peak_memory_bytes.map_or(String::new(), |bytes| format!(", peak memory {}", Size(bytes)));
        let first_token = self.ttft_s.map_or(String::new(), |seconds| {
            format!(", first token of {} after {seconds:.3} s", self.prompt_tokens)
        });
        output::line(format_args!(
            "{}: loaded in {:.2} s{first_token}{peak}\n",
            self.model.model, self.load_s
        ))?;
        let headings = ["", "SEQUENCES", "TOKENS/S", "GB/S", "SHARE", "GMAC/S", "SHARE", "P50 MS", "P99 MS"];
        let mut table = Table::new(1, headings);
        for row in &self.results {
            let gap = |of: fn(&Gaps) -> f64| {
                row.inter_token_ms.as_ref().map_or(String::new(), |gaps| format!("{:.2}", of(gaps)))
            };
            table.row([
                row.kind.to_owned(),
                row.sequences.to_string(),
                format!("{:.1}", row.tokens_per_s),
                format!("{:.2}", row.gb_per_s),
                format!("{:.0} %", row.share_of_bandwidth * 100.0),
                format!("{:.1}", row.giga_macs_per_s),
                format!("{:.0} %", row.share_of_peak * 100.0),
                gap(|gaps| gaps.p50),
                gap(|gaps| gaps.p99),
            ]);
        }
        output::line(table)?;
        self.steps.iter().flatten().try_for_each(output::line)
    }
}

/// The middle value, or the mean of the two in the middle; NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half.wrapping_sub(1)), values.get(half)) {
        (Some(low), Some(high)) if values.len().is_multiple_of(2) => (low + high) / 2.0,
        (_, Some(middle)) => *middle,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
        assert!(median(Vec::new()).is_nan());
    }
}
