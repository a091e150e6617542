//! What a video takes, before it is made.

use anyhow::Result;
use serde_json::{Value, json};
use wushi_engine::load::Size;
use wushi_engine::video::{Change, Limit, Plan, Rates, Ready, Settings, Stage, VideoNetworks};

use super::progress::Span;
use super::report::{changes_json, settings_json};
use crate::output::Table;

/// The plan of a run with what it rests on.
pub(super) struct Outlook<'a> {
    pub(super) settings: &'a Settings,
    pub(super) changes: &'a [Change],
    pub(super) networks: &'a VideoNetworks,
    pub(super) plan: Plan,
    pub(super) limit: Option<Limit>,
    /// Measured where somebody wants to know how long it takes.
    pub(super) rates: Option<Rates>,
    /// How long the video is.
    pub(super) seconds: f64,
    /// Which matrices have another type than was wanted.
    instead: Option<String>,
}

impl<'a> Outlook<'a> {
    /// Refuses what cannot fit.
    pub(super) fn new(
        networks: &'a VideoNetworks,
        settings: &'a Settings,
        changes: &'a [Change],
        seconds: f64,
        ready: Ready,
    ) -> Result<Outlook<'a>> {
        let (plan, limit) = (networks.plan(settings, ready)?, networks.limit());
        let (instead, rates) = (networks.instead()?, None);
        Ok(Outlook { settings, changes, networks, plan, limit, rates, seconds, instead })
    }

    /// Measures what the machine does in a second.
    pub(super) fn measure(&mut self) -> Result<()> {
        self.rates = Some(self.networks.rates()?);
        Ok(())
    }

    fn macs(&self) -> u64 {
        self.plan.macs()
    }

    fn time(&self) -> Option<f64> {
        self.rates.map(|rates| self.plan.seconds(&rates))
    }

    /// For people, in lines.
    pub(super) fn text(&self) -> String {
        let Settings {
            width, height, frames, fps, steps, shift, guidance, guidance_low, boundary, seed, ..
        } = self.settings;
        let (model, options) = (self.networks.model(), self.networks.options());
        let mut lines: Vec<String> = self.changes.iter().map(Change::to_string).collect();
        lines.extend(self.instead.clone());
        let second = match boundary {
            Some(boundary) => {
                format!(" and, from {boundary} of the noise on, {guidance_low} of the second denoiser")
            }
            None => String::new(),
        };
        lines.push(format!(
            "{width}x{height}, {frames} frames at {fps} a second ({:.1} s); {steps} steps of {}, guidance {guidance}{second}, \
             shift {shift}, seed {seed}",
            self.seconds,
            self.settings.sampler.name(),
        ));
        lines.push(format!(
            "denoiser {}, VAE {}; {} tokens; {} threads, {}",
            self.networks.denoiser_type(),
            self.networks.decoder_type(),
            self.settings.tokens(model),
            options.team.threads(),
            options.instruction_set,
        ));
        let headings = ["", "WEIGHTS", "BUFFERS", "CARRIED", "REST", "TOTAL", "MULTIPLY-ADDS", "TIME"];
        let mut table = Table::new(1, headings);
        for stage in &self.plan.stages {
            let memory = &stage.memory;
            table.row([
                stage.name.to_owned(),
                Size(memory.weights).to_string(),
                Size(memory.arena).to_string(),
                Size(memory.carried).to_string(),
                Size(memory.kept).to_string(),
                Size(memory.total()).to_string(),
                operations(stage.macs()),
                self.rates.map_or(String::new(), |rates| Span(stage.seconds(&rates)).to_string()),
            ]);
        }
        lines.push(table.to_string());
        let limit = match self.limit {
            Some(Limit { bytes, budget: true }) => format!(" of {} allowed", Size(bytes)),
            Some(Limit { bytes, budget: false }) => format!(" of {} available", Size(bytes)),
            None => String::new(),
        };
        let time = self.time().map_or(String::new(), |time| format!(", about {}", Span(time)));
        lines.push(format!(
            "at most {}{limit}; {} multiply-adds{time}, loading aside",
            Size(self.plan.peak()),
            operations(self.macs())
        ));
        lines.join("\n")
    }

    /// For scripts.
    pub(super) fn json(&self, model: Option<&str>, format: &str) -> Value {
        let stages: Vec<Value> = self.plan.stages.iter().map(|stage| self.stage_json(stage)).collect();
        let mut report = settings_json(self.settings, self.networks.model());
        report["model"] = json!(model);
        report["format"] = json!(format);
        report["duration_s"] = json!(self.seconds);
        report["changes"] = changes_json(self.changes);
        report["instead"] = json!(self.instead);
        report["tokens"] = json!(self.settings.tokens(self.networks.model()));
        report["stages"] = json!(stages);
        report["peak_bytes"] = json!(self.plan.peak());
        report["available_bytes"] = json!(self.limit.map(|limit| limit.bytes));
        report["limited_by"] =
            json!(self.limit.map(|limit| if limit.budget { "--memory" } else { "machine" }));
        report["multiply_adds"] = json!(self.macs());
        report["seconds"] = json!(self.time());
        report["rates"] = json!(self.rates.map(|rates| json!({
            "linear_macs_per_s": rates.linear,
            "attention_macs_per_s": rates.attention,
            "convolution_macs_per_s": rates.convolution,
            "bytes_per_s": rates.bandwidth,
        })));
        report
    }

    fn stage_json(&self, stage: &Stage) -> Value {
        let memory = &stage.memory;
        json!({
            "name": stage.name,
            "memory": {
                "weights": memory.weights,
                "buffers": memory.arena,
                "carried": memory.carried,
                "rest": memory.kept,
                "total": memory.total(),
            },
            "multiply_adds": stage.macs(),
            "seconds": self.rates.map(|rates| stage.seconds(&rates)),
        })
    }
}

/// A number of operations as people say it.
pub(crate) fn operations(count: u64) -> String {
    let (count, units) = (count as f64, ["", " k", " M", " G", " T", " P", " E"]);
    let unit = (0..units.len() - 1).find(|&unit| count < 999.5 * 1e3f64.powi(unit as i32)).unwrap_or(6);
    let scaled = count / 1e3f64.powi(unit as i32);
    match unit {
        0 => format!("{count}"),
        _ if scaled < 9.95 => format!("{scaled:.1}{}", units[unit]),
        _ => format!("{scaled:.0}{}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::operations;

    #[test]
    fn numbers_of_operations() {
        let told = [0, 999, 1000, 9_960, 999_600, 29_000_000_000_000_000, u64::MAX].map(operations);
        assert_eq!(told, ["0", "999", "1.0 k", "10 k", "1.0 M", "29 P", "18 E"]);
    }
}
