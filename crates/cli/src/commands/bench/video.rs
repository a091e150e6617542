//! `wushi bench` of a model that makes videos: a run of its denoiser, and the decoding of latent frames.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use serde::Serialize;
use wushi_cpu::Probe;
use wushi_engine::load::Size;
use wushi_engine::video::{
    Change, Decoder, Denoiser, NetworkOptions, Parts, Ready, Settings, TextStates, VideoModel, VideoNetworks,
    Wanted, Work, fill_noise,
};
use wushi_formats::pipeline::Sources;
use wushi_graph::CacheType;

use super::machine::Peaks;
use super::{machine, median};
use crate::App;
use crate::args::BenchArgs;
use crate::commands::inspect;
use crate::commands::video::plan::operations;
use crate::commands::video::progress::Span;
use crate::commands::video::source;
use crate::knobs::{Compute, Networks};
use crate::output::{self, Table};

/// Rows of text that the denoiser attends to: those of a prompt of some length.
const TEXT_ROWS: usize = 64;

/// What is measured, with how often a video does it.
struct Row {
    kind: &'static str,
    work: Work,
    runs: usize,
    samples: Vec<(f64, Peaks)>,
}

impl Row {
    fn new(kind: &'static str, (work, runs): (Work, u64)) -> Row {
        Row { kind, work, runs: runs as usize, samples: Vec::new() }
    }

    fn seconds(&self) -> f64 {
        median(self.samples.iter().map(|(seconds, _)| *seconds).collect())
    }

    fn result(&self, bench: &Bench<'_>) -> RowJson {
        let (set, work) = (bench.networks.options().instruction_set, &self.work);
        let over = |of: &dyn Fn(f64, &Peaks) -> f64| {
            median(self.samples.iter().map(|(seconds, peaks)| of(*seconds, peaks)).collect())
        };
        // How long it would take if nothing but the peaks mattered, each kind of operation at its own.
        let least = |peaks: &Peaks| {
            work.linear as f64 / peaks.of(bench.networks.denoiser_type(), set)
                + work.attention as f64 / peaks.float
                + work.convolution as f64 / peaks.of(bench.networks.decoder_type(), set)
        };
        RowJson {
            kind: self.kind,
            runs_of_a_video: self.runs,
            seconds: self.seconds(),
            multiply_adds: work.macs(),
            linear: work.linear,
            attention: work.attention,
            convolution: work.convolution,
            bytes: work.bytes,
            giga_macs_per_s: over(&|seconds, _| work.macs() as f64 / seconds / 1e9),
            gb_per_s: over(&|seconds, _| work.bytes as f64 / seconds / 1e9),
            share_of_peak: over(&|seconds, peaks| least(peaks) / seconds),
            share_of_bandwidth: over(&|seconds, peaks| work.bytes as f64 / seconds / peaks.bandwidth),
        }
    }
}

/// A model with settings, and what its runs are told apart by.
struct Bench<'a> {
    args: &'a BenchArgs,
    app: &'a App,
    networks: &'a VideoNetworks,
    settings: &'a Settings,
    probe: Probe,
    peaks: Vec<Peaks>,
}

impl Bench<'_> {
    /// Times something between two looks at the machine.
    fn sample(&mut self, what: &str, turn: usize, run: impl FnOnce() -> Result<f64>) -> Result<(f64, Peaks)> {
        self.app.note(format_args!("{turn}/{}: {what}", self.args.repetitions));
        let before = Peaks::measure(&mut self.probe);
        let seconds = run()?;
        let after = Peaks::measure(&mut self.probe);
        self.peaks.extend([before, after]);
        Ok((seconds, before.mean(after)))
    }

    fn denoiser(&mut self, row: &mut Row, model: &VideoModel) -> Result<()> {
        let latents = noise(self.settings.latents.elements(), 0);
        let rows = TEXT_ROWS.min(model.text_len);
        let states = TextStates { rows, values: noise(rows * model.text_dim, 1) };
        let mut denoiser = self
            .networks
            .parts(self.settings, &Arc::default())
            .denoiser(0)
            .map_err(|error| anyhow!(error))?;
        let context = denoiser.prepare(&states).map_err(|error| anyhow!(error))?;
        let mut velocity = vec![0.0; latents.len()];
        let timestep = model.train_timesteps / 2.0;
        let mut run = || {
            let begun = Instant::now();
            denoiser.velocity(&latents, timestep, &context, &mut velocity).map_err(|error| anyhow!(error))?;
            Ok(begun.elapsed().as_secs_f64())
        };
        // The first run touches all memory.
        run()?;
        for turn in 1..=self.args.repetitions {
            let sample = self.sample(row.kind, turn, &mut run)?;
            row.samples.push(sample);
        }
        Ok(())
    }

    /// The first latent frame and, where there is a second row, the next one.
    fn decoder(&mut self, rows: &mut [Row]) -> Result<()> {
        let latent = noise(self.settings.latents.frame_elements(), 2);
        let mut decoder =
            self.networks.parts(self.settings, &Arc::default()).decoder().map_err(|error| anyhow!(error))?;
        let mut frames = Vec::new();
        for turn in 0..=self.args.repetitions {
            decoder.reset();
            for row in rows.iter_mut() {
                let run = || {
                    frames.clear();
                    let begun = Instant::now();
                    decoder.decode(&latent, &mut frames).map_err(|error| anyhow!(error))?;
                    Ok(begun.elapsed().as_secs_f64())
                };
                // The first run touches all memory.
                if turn == 0 {
                    let mut run = run;
                    run()?;
                } else {
                    let sample = self.sample(row.kind, turn, run)?;
                    row.samples.push(sample);
                }
            }
        }
        Ok(())
    }
}

/// Numbers such as latents have.
fn noise(elements: usize, stream: u64) -> Vec<f32> {
    let mut values = vec![0.0; elements];
    fill_noise(stream, 0, &mut values);
    values
}

/// What the knobs say about loading.
fn options(args: &BenchArgs, compute: &Compute) -> Result<NetworkOptions> {
    if compute.cache == Some(CacheType::Q8_0) {
        bail!("--cache: a video's keys and values are F32 or F16");
    }
    let knobs = Networks {
        cache_type: compute.cache,
        vae_dtype: args.vae_dtype,
        ..inspect::video::networks(compute)
    };
    source::options(&knobs)
}

pub(super) fn run(args: &BenchArgs, sources: Sources, compute: &Compute, app: &App) -> Result<ExitCode> {
    let networks = VideoNetworks::open(sources, options(args, compute)?)?;
    let model = networks.model();
    let steps = match args.steps {
        Some(None) => bail!("--steps needs a number with a model that makes videos"),
        steps => steps.flatten(),
    };
    let (size, frames) = (Some(args.size), Some(args.frames));
    let (settings, changes) = Settings::resolve(&Wanted { size, frames, steps, ..Wanted::default() }, model)?;
    changes.iter().for_each(|change: &Change| app.note(change));
    networks.instead()?.iter().for_each(|instead| app.note(instead));
    let plan = networks.plan(&settings, Ready::default())?;
    let stage = |name: &str| {
        let found = plan.stages.iter().find(|stage| stage.name == name);
        found
            .map(|stage| stage.work.clone())
            .ok_or_else(|| anyhow!("there is no stage of {name} in the plan"))
    };
    let denoising = stage("denoising")?;
    let mut denoise = Row::new("denoise", *denoising.first().ok_or_else(|| anyhow!("nothing denoises"))?);
    let kinds = ["first latent frame", "later latent frame"];
    let decoding = stage("decoding")?.into_iter().filter(|(_, runs)| *runs > 0);
    let mut decode: Vec<Row> =
        kinds.into_iter().zip(decoding).map(|(kind, work)| Row::new(kind, work)).collect();

    let (threads, set) = (networks.options().team.threads(), networks.options().instruction_set);
    let probe = Probe::new(threads, set)?;
    let mut bench = Bench { args, app, networks: &networks, settings: &settings, probe, peaks: Vec::new() };
    bench.denoiser(&mut denoise, model)?;
    bench.decoder(&mut decode)?;
    let report = Report::new(&bench, &denoise, &decode, plan.peak());
    if args.json {
        output::json(&report)?
    } else {
        output::line(&report)?
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    machine: MachineJson,
    model: String,
    denoiser: String,
    vae: String,
    width: usize,
    height: usize,
    frames: usize,
    tokens: usize,
    steps: usize,
    repetitions: usize,
    planned_peak_bytes: u64,
    /// With the denoiser's runs of all steps, guidance included, and all latent frames; the prompt and loading aside.
    video_s: f64,
    results: Vec<RowJson>,
}

#[derive(Serialize)]
struct MachineJson {
    cpu: String,
    threads: usize,
    instruction_set: String,
    bandwidth_gb_per_s: f64,
    f32_giga_macs_per_s: f64,
    int8_giga_macs_per_s: f64,
}

#[derive(Serialize)]
struct RowJson {
    kind: &'static str,
    runs_of_a_video: usize,
    seconds: f64,
    multiply_adds: u64,
    linear: u64,
    attention: u64,
    convolution: u64,
    /// Weights, once.
    bytes: u64,
    giga_macs_per_s: f64,
    gb_per_s: f64,
    share_of_peak: f64,
    share_of_bandwidth: f64,
}

impl Report {
    fn new(bench: &Bench<'_>, denoise: &Row, decode: &[Row], planned_peak_bytes: u64) -> Report {
        let (networks, settings) = (bench.networks, bench.settings);
        let over = |of: fn(&Peaks) -> f64| median(bench.peaks.iter().map(of).collect()) / 1e9;
        let rows = || std::iter::once(denoise).chain(decode);
        Report {
            machine: MachineJson {
                cpu: machine::cpu_name(),
                threads: networks.options().team.threads(),
                instruction_set: networks.options().instruction_set.to_string(),
                bandwidth_gb_per_s: over(|peaks| peaks.bandwidth),
                f32_giga_macs_per_s: over(|peaks| peaks.float),
                int8_giga_macs_per_s: over(|peaks| peaks.integer),
            },
            model: bench.args.model.clone(),
            denoiser: networks.denoiser_type().to_string(),
            vae: networks.decoder_type().to_string(),
            width: settings.width,
            height: settings.height,
            frames: settings.frames,
            tokens: settings.tokens(networks.model()),
            steps: settings.steps,
            repetitions: bench.args.repetitions,
            planned_peak_bytes,
            video_s: rows().map(|row| row.seconds() * row.runs as f64).sum(),
            results: rows().map(|row| row.result(bench)).collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(
            f,
            "{}, {} threads, {}: {:.1} GB/s, {:.0} G multiply-adds of F32 and {:.0} of bytes per second",
            machine.cpu,
            machine.threads,
            machine.instruction_set,
            machine.bandwidth_gb_per_s,
            machine.f32_giga_macs_per_s,
            machine.int8_giga_macs_per_s
        )?;
        writeln!(
            f,
            "{}: denoiser {}, VAE {}; {}x{}, {} frames, {} tokens; at most {} of memory\n",
            self.model,
            self.denoiser,
            self.vae,
            self.width,
            self.height,
            self.frames,
            self.tokens,
            Size(self.planned_peak_bytes)
        )?;
        let mut table =
            Table::new(1, ["", "TIME", "MULTIPLY-ADDS", "GMAC/S", "SHARE", "BYTES", "GB/S", "SHARE", "RUNS"]);
        for row in &self.results {
            table.row([
                row.kind.to_owned(),
                Span(row.seconds).to_string(),
                operations(row.multiply_adds),
                format!("{:.1}", row.giga_macs_per_s),
                format!("{:.0} %", row.share_of_peak * 100.0),
                Size(row.bytes).to_string(),
                format!("{:.2}", row.gb_per_s),
                format!("{:.0} %", row.share_of_bandwidth * 100.0),
                row.runs_of_a_video.to_string(),
            ]);
        }
        writeln!(f, "{table}\n")?;
        write!(
            f,
            "a video of {} steps: about {}, reading the prompt and loading aside",
            self.steps,
            Span(self.video_s)
        )
    }
}
