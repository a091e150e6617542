//! What a request would take.

use std::sync::Arc;

use wushi_engine::video::{Ready, Settings, VideoError, kept_bytes};
use wushi_media::{FrameRate, MediaError};

use super::disk;
use super::progress::Weights;
use super::{Outlook, OutlookStage, VideoRequest, VideoSettings, Videos};
use crate::error::ApiError;

impl Videos {
    /// What a request would take; nothing is stored. What can never fit is told, not refused.
    pub(crate) async fn outlook(self: &Arc<Videos>, request: &VideoRequest) -> Result<Outlook, ApiError> {
        let request = request.clone();
        self.ask(move |videos| videos.plan(&request).map(|(outlook, _)| outlook)).await
    }

    /// The outlook of a request, and bytes of the disk that it may need.
    pub(super) fn plan(&self, request: &VideoRequest) -> Result<(Outlook, u64), ApiError> {
        let model = self.find(request.model.as_deref())?;
        let networks = &model.networks;
        let two = networks.model().boundary.is_some();
        let (settings, changes) = Settings::resolve(&request.wanted, networks.model()).map_err(refused)?;
        let media = media_settings(&settings).map_err(refused_media)?;
        media.check(request.format).map_err(refused_media)?;
        let limit = self.limit(model);
        let plan = networks.plan_within(&settings, Ready::default(), None).map_err(refused)?;
        let fits = limit.is_none_or(|limit| plan.peak() <= limit.bytes);
        let reason = match fits {
            true => None,
            false => {
                networks.plan_within(&settings, Ready::default(), limit).err().map(|error| error.to_string())
            }
        };
        let rates = self.rates(model);
        let pace = self.pace(&model.name);
        let weights = Weights::new(&plan, rates);
        let queue = self.queue()?;
        let pixels = (settings.width * settings.height * settings.frames) as u64;
        let room = disk::room(request.format, pixels).saturating_add(2 * kept_bytes(&settings));
        let stage = |stage: &wushi_engine::video::Stage| OutlookStage {
            name: stage.name,
            bytes: stage.memory.total(),
            seconds: rates.map(|rates| pace * stage.seconds(rates)),
        };
        let outlook = Outlook {
            model: model.name.clone(),
            settings: VideoSettings::of(&settings, two),
            changes: changes.iter().map(ToString::to_string).collect(),
            stages: plan.stages.iter().map(stage).collect(),
            peak_bytes: plan.peak(),
            limit_bytes: limit.map(|limit| limit.bytes),
            fits,
            reason,
            seconds: weights.seconds().map(|seconds| pace * seconds),
            starts_in_seconds: self.seconds_before(&queue, queue.len()),
            queue_position: queue.len(),
            instead: networks.instead().map_err(refused)?,
            seconds_of_video: media.rate.seconds(settings.frames as u64),
        };
        Ok((outlook, room))
    }
}

/// What is encoded.
pub(super) fn media_settings(settings: &Settings) -> Result<wushi_media::Settings, MediaError> {
    // No side comes near 32 bits, as `Settings::resolve` has it.
    let (width, height) = (settings.width as u32, settings.height as u32);
    Ok(wushi_media::Settings { width, height, rate: FrameRate::nearest(f64::from(settings.fps))? })
}

/// What cannot be asked of a model: `request.rs` has refused it before, by the name of its field.
fn refused(error: VideoError) -> ApiError {
    match error {
        VideoError::OutOfRange { .. } => ApiError::invalid(error.to_string()),
        _ => ApiError::internal(error.to_string()),
    }
}

fn refused_media(error: MediaError) -> ApiError {
    let message = error.to_string();
    match error {
        MediaError::Size { .. } => ApiError::parameter("size", message),
        MediaError::FrameRate { .. } | MediaError::TooFast { .. } => ApiError::parameter("fps", message),
        _ => ApiError::invalid(message),
    }
}
