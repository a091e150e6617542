//! Models that make videos, as a server has them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use wushi_cpu::InstructionSet;
use wushi_engine::Team;
use wushi_engine::video::{NetworkOptions, VideoNetworks};
use wushi_formats::pipeline::Sources;
use wushi_server::{ServedVideo, VideoOptions};

use crate::args::VideoFiles;
use crate::commands::video::source;
use crate::knobs::{Compute, ServingVideos};

/// Days that videos are kept.
const KEEP_DAYS: usize = 7;
/// Bytes that they may take together.
const DISK: u64 = 20_000_000_000;

/// The files of a model that makes videos, if what is at `path` is one.
pub(super) fn recognise(path: &Path) -> Result<Option<Sources>> {
    source::recognise(path, &VideoFiles::default())
}

/// Opens a model's networks, which compute when nobody waits for text.
pub(super) fn served(
    name: String,
    reference: String,
    path: &Path,
    sources: Sources,
    compute: &Compute,
    knobs: &ServingVideos,
    team: &Team,
) -> Result<ServedVideo> {
    let options = NetworkOptions {
        team: team.background(),
        instruction_set: compute.isa.unwrap_or_else(InstructionSet::best),
        quant: compute.quant,
        decoder: knobs.vae_dtype,
        cache: knobs.cache_type,
        // The server shares what there is between this and text.
        memory: None,
    };
    let networks = VideoNetworks::open(sources, options).with_context(|| reference.clone())?;
    Ok(ServedVideo { name, networks: Arc::new(networks), reference, created: changed(path) })
}

/// Where videos are kept, and for how long.
pub(super) fn options(knobs: &ServingVideos, database: &Path) -> VideoOptions {
    let days = knobs.keep_videos.unwrap_or(KEEP_DAYS) as u64;
    VideoOptions {
        folder: knobs.videos.clone().unwrap_or_else(|| database.with_extension("videos")),
        keep: Duration::from_secs(days.saturating_mul(86_400)),
        disk: knobs.video_disk.unwrap_or(DISK),
        save_steps: knobs.save_steps,
    }
}

/// When a folder was last changed, in seconds since 1970; 0 where nobody knows.
fn changed(path: &Path) -> u64 {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let since = modified.ok().and_then(|time: SystemTime| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}
