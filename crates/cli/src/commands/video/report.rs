//! What is said of a video that was made.

use std::path::Path;

use serde_json::{Value, json};
use wushi_engine::video::{Change, Made, Rounding, Settings, Spacing, VideoModel, VideoNetworks};
use wushi_media::Summary;

use crate::commands::bench::machine;

/// A video that was made, with what it was made of.
pub(super) struct Report<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) prompt: &'a str,
    pub(super) format: &'a str,
    pub(super) settings: &'a Settings,
    pub(super) changes: &'a [Change],
    pub(super) networks: &'a VideoNetworks,
    pub(super) summary: &'a Summary,
    pub(super) made: &'a Made,
    pub(super) init_latents: Option<&'a Path>,
    pub(super) save_frames: Option<&'a Path>,
    pub(super) resumed: bool,
    pub(super) total_s: f64,
}

impl Report<'_> {
    /// What `--json` prints.
    pub(super) fn json(&self) -> Value {
        let (summary, made, networks) = (self.summary, self.made, self.networks);
        let options = networks.options();
        let mut report = settings_json(self.settings, networks.model());
        report["model"] = json!(self.model);
        report["prompt"] = json!(self.prompt);
        report["path"] = json!(summary.path);
        report["format"] = json!(self.format);
        report["bytes"] = json!(summary.bytes);
        report["duration_s"] = json!(summary.seconds);
        report["changes"] = changes_json(self.changes);
        report["init_latents"] = json!(self.init_latents);
        report["save_frames"] = json!(self.save_frames);
        report["resumed"] = json!(self.resumed);
        report["frames_digest"] = json!(made.frames_digest);
        report["seconds"] = json!({
            "text": made.text_seconds,
            "denoise": made.denoise_seconds,
            "decode": made.decode_seconds,
            "total": self.total_s,
        });
        report["peak_memory_bytes"] = json!(machine::peak_memory());
        report["types"] = json!({
            "denoiser": networks.denoiser_type().to_string(),
            "vae": networks.decoder_type().to_string(),
        });
        report["digests"] = json!({
            "latents": networks.latents_digest(),
            "text_encoder": networks.encoder_digest(),
            "vae": networks.decoder_digest(),
        });
        report["machine"] = json!({
            "cpu": machine::cpu_name(),
            "threads": options.team.threads(),
            "instruction_set": options.instruction_set.to_string(),
        });
        report
    }
}

/// All settings, by the names of their flags.
pub(super) fn settings_json(settings: &Settings, model: &VideoModel) -> Value {
    let two = model.boundary.is_some();
    json!({
        "width": settings.width,
        "height": settings.height,
        "frames": settings.frames,
        "fps": settings.fps,
        "steps": settings.steps,
        "guidance": settings.guidance,
        "guidance_2": two.then_some(settings.guidance_low),
        "boundary": settings.boundary,
        "flow_shift": settings.shift,
        "negative": settings.negative,
        "seed": settings.seed,
        "sampler": settings.sampler.name(),
        "spacing": match settings.spacing {
            Spacing::Training => "training",
            Spacing::Whole => "whole",
            Spacing::TwiceShifted => "twice-shifted",
        },
        "timesteps": match settings.rounding {
            Rounding::Floor => "floor",
            Rounding::Exact => "exact",
        },
    })
}

/// What was not done as asked.
pub(super) fn changes_json(changes: &[Change]) -> Value {
    let one = |change: &Change| {
        let (what, wanted, used) = match change {
            Change::Frames { wanted, used, .. } => ("frames", wanted.to_string(), used.to_string()),
            Change::Size { wanted, used, .. } => {
                ("size", format!("{}x{}", wanted.0, wanted.1), format!("{}x{}", used.0, used.1))
            }
            Change::Prompt { negative, wanted, used } => {
                let what = if *negative { "negative prompt" } else { "prompt" };
                (what, format!("{wanted} tokens"), format!("{used} tokens"))
            }
            Change::NoNegative => ("negative prompt", "some".to_owned(), "none".to_owned()),
        };
        json!({ "what": what, "wanted": wanted, "used": used, "message": change.to_string() })
    };
    changes.iter().map(one).collect()
}
