//! What a video would take, as clients read it.

use serde::Serialize;
use utoipa::ToSchema;

use super::Outlook;
use super::object::{SettingsObject, rounded, seconds_text, size_text};

/// What a video would take. Nothing of it is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VideoPlan {
    object: &'static str,
    model: String,
    /// How long it would last.
    seconds: String,
    /// Width and height in pixels.
    size: String,
    #[serde(flatten)]
    settings: SettingsObject,
    /// What would not be done as asked.
    changes: Vec<String>,
    /// Whether there is memory enough for it.
    fits: bool,
    /// Why not, and what would fit.
    #[schema(required)]
    reason: Option<String>,
    memory: PlanMemory,
    /// From its beginning to its end; null where nobody knows yet.
    #[schema(required)]
    estimated_seconds: Option<f64>,
    /// How many jobs would be before it.
    queue_position: usize,
    /// Until it would begin; null where nobody knows yet.
    #[schema(required)]
    starts_in_seconds: Option<f64>,
}

/// Memory in bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanMemory {
    /// Of the greediest stage.
    peak: u64,
    /// What there is; null where nobody knows.
    #[schema(required)]
    limit: Option<u64>,
    /// One after another, each one's memory being free before the next.
    stages: Vec<PlanStage>,
}

/// A part of the work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanStage {
    name: &'static str,
    bytes: u64,
    #[schema(required)]
    seconds: Option<f64>,
}

impl From<Outlook> for VideoPlan {
    fn from(outlook: Outlook) -> VideoPlan {
        let stages = outlook.stages.iter().map(|stage| PlanStage {
            name: stage.name,
            bytes: stage.bytes,
            seconds: stage.seconds.map(rounded),
        });
        VideoPlan {
            object: "video.plan",
            seconds: seconds_text(outlook.seconds_of_video),
            size: size_text(&outlook.settings),
            settings: SettingsObject::from(&outlook.settings),
            // Weights of another type than was wanted are not as asked, either.
            changes: outlook.changes.into_iter().chain(outlook.instead).collect(),
            fits: outlook.fits,
            reason: outlook.reason,
            memory: PlanMemory {
                peak: outlook.peak_bytes,
                limit: outlook.limit_bytes,
                stages: stages.collect(),
            },
            estimated_seconds: outlook.seconds.map(rounded),
            queue_position: outlook.queue_position,
            starts_in_seconds: outlook.starts_in_seconds.map(rounded),
            model: outlook.model,
        }
    }
}
