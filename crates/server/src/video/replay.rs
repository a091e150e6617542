//! Makes a recorded video again, and compares its frames.

use std::sync::Arc;

use wushi_engine::video::{
    Follow, Job, Progress, Settings, Start, VideoError, VideoModel, VideoNetworks, Wanted, Watch, make,
};

use super::VideoSettings;
use super::record::{fingerprint, loading, parameters, wanted};
use super::request::CreateVideo;
use crate::body::parse;
use crate::replay::{
    ReplayError, Verdict, asks_otherwise, check_fingerprint, check_parameters, check_prompts,
};
use crate::store::{AuditRecord, Digest, Parameters, Status};

/// Makes the recorded video again, from the `request`'s body or else from the stored texts. `follow` stops it.
///
/// # Errors
/// A record without text and no request, a request that is refused, a model that cannot be loaded, or it was stopped. A
/// difference is none.
pub fn replay_video(
    record: &AuditRecord,
    request: Option<&[u8]>,
    networks: &VideoNetworks,
    progress: &mut dyn FnMut(&Progress),
    follow: &Arc<Follow>,
) -> Result<Verdict, ReplayError> {
    let mut verdict = Verdict::new();
    check_fingerprint(record, fingerprint(networks), &loading(networks, ""), &mut verdict);
    let asked = match request {
        Some(body) => from_request(record, body, networks.model())?,
        None => from_text(record, networks.model())?,
    };
    if let Some(parameters) = &asked.parameters {
        check_parameters(&record.parameters, parameters, &mut verdict);
    }
    let tokens = networks.tokens(&asked.prompt).map_err(refused)?;
    check_prompts(record, &[&tokens], &mut verdict);
    if asks_otherwise(&mut verdict) {
        return Ok(verdict);
    }
    if let Status::Failed(error) = &record.status {
        verdict.notes.push(format!("the video failed: {error}"));
    }
    let Some(recorded) = record.choices.first().and_then(|choice| choice.digest) else {
        verdict.every_bit = false;
        verdict.notes.push("it was never made, so there are no frames to compare".to_owned());
        return Ok(verdict);
    };
    let job = Job {
        model: networks.model(),
        settings: &asked.settings,
        prompt: &asked.prompt,
        start: Start::Noise,
        cache: None,
        save: None,
        save_frames: None,
    };
    let watch = Watch { progress: &mut |told| progress(&told), frame: &mut |_| Ok(()), follow };
    let made = make(job, &mut networks.parts(&asked.settings, follow), watch).map_err(refused)?;
    verdict.check("frames", recorded.to_string(), made.frames_digest);
    Ok(verdict)
}

/// What is asked for.
struct Asked {
    prompt: String,
    settings: Settings,
    /// As the request has them; `None` where they are taken from the record.
    parameters: Option<Parameters>,
}

fn refused(error: VideoError) -> ReplayError {
    ReplayError::Refused(error.to_string())
}

fn resolve(wanted: &Wanted, model: &VideoModel) -> Result<Settings, ReplayError> {
    Settings::resolve(wanted, model).map(|(settings, _)| settings).map_err(refused)
}

/// As the server does it.
fn from_request(record: &AuditRecord, body: &[u8], model: &VideoModel) -> Result<Asked, ReplayError> {
    let create: CreateVideo = parse(body)?;
    // One that was drawn is in the record only.
    let request = create.seeded(record.parameters.seed).request(model)?;
    let settings = resolve(&request.wanted, model)?;
    let numbers = VideoSettings::of(&settings, model.boundary.is_some());
    let parameters = parameters(&numbers, request.format.name());
    Ok(Asked { prompt: request.prompt, settings, parameters: Some(parameters) })
}

/// From what was stored.
fn from_text(record: &AuditRecord, model: &VideoModel) -> Result<Asked, ReplayError> {
    let damaged = |what: &str| ReplayError::Damaged { id: record.id.clone(), what: what.to_owned() };
    let text = record.text.as_ref().ok_or_else(|| ReplayError::NoText(record.id.clone()))?;
    let [prompt, negative] = text.video.as_ref().ok_or_else(|| damaged("it has no prompt"))?;
    let video = record.parameters.video.as_ref().ok_or_else(|| damaged("it is of no video"))?;
    if Digest::of_text(negative) != video.negative {
        return Err(damaged("the negative prompt is not that of the digest"));
    }
    let wanted = wanted(video, record.parameters.seed, negative).map_err(|what| damaged(&what))?;
    Ok(Asked { prompt: prompt.clone(), settings: resolve(&wanted, model)?, parameters: None })
}
