//! What is kept of a job for an audit.

use wushi_engine::load::ARITHMETIC_VERSION;
use wushi_engine::video::{VideoNetworks, Wanted};

use super::{Ending, Recorder, VideoState};
use crate::store::{
    AuditRecord, Choice, Digest, Exact, Loading, Parameters, Prompt, Status, Text, VideoRecord, VideoSettings,
};

/// The path that jobs come to.
pub(crate) const ENDPOINT: &str = "/v1/videos";

/// Makes records; with texts if `text`.
pub(crate) fn recorder(text: bool) -> Recorder {
    Box::new(move |ending| Some(record(ending, text)))
}

fn record(ending: &Ending<'_>, text: bool) -> AuditRecord {
    let Ending { job, key, model, created_ms, queue_ms, total_ms } = *ending;
    let networks = &model.networks;
    let tokens = networks.tokens(&job.prompt).unwrap_or_else(|error| {
        // It was read when the job was submitted.
        tracing::error!(id = job.id, %error, "the prompt of a job");
        Vec::new()
    });
    let digest = job.frames_digest.as_deref().and_then(|digest| digest.parse().ok());
    AuditRecord {
        id: job.id.clone(),
        time: created_ms,
        key: key.map(str::to_owned),
        endpoint: ENDPOINT.to_owned(),
        model: job.model.clone(),
        model_digest: None,
        fingerprint: fingerprint(networks),
        loading: loading(networks, &model.reference),
        parameters: parameters(&job.settings, job.format.name()),
        prompts: vec![Prompt::of(&tokens)],
        choices: vec![Choice { prompt: 0, choice: 0, completion_tokens: 0, ending: None, digest }],
        cached_tokens: 0,
        queue_ms,
        ttft_ms: None,
        total_ms,
        status: match (&job.error, job.state) {
            (Some((_, message)), _) => Status::Failed(message.clone()),
            (None, VideoState::Completed) => Status::Ok,
            (None, _) => Status::Cancelled,
        },
        text: text.then(|| Text {
            prompts: vec![tokens],
            video: Some([job.prompt.clone(), job.settings.negative.clone()]),
            ..Text::default()
        }),
    }
}

/// What determines frames, settings and prompt aside.
pub(crate) fn fingerprint(networks: &VideoNetworks) -> Digest {
    Digest::of_text(&format!("{} {}", networks.latents_digest(), networks.decoder_digest()))
}

/// How a model was loaded.
pub(crate) fn loading(networks: &VideoNetworks, reference: &str) -> Loading {
    let options = networks.options();
    Loading {
        reference: reference.to_owned(),
        quant: options.quant.map(|quant| quant.to_string()),
        cache: options.cache.map(|cache| cache.to_string()).unwrap_or_default(),
        decoder: options.decoder.map(|decoder| decoder.to_string()),
        arithmetic: ARITHMETIC_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Loading::default()
    }
}

/// What a record says of a job's settings.
pub(crate) fn parameters(settings: &VideoSettings, format: &str) -> Parameters {
    // All fields by name, so that a new one cannot be forgotten.
    let VideoSettings {
        width,
        height,
        frames,
        fps,
        steps,
        shift,
        guidance,
        guidance_low,
        boundary,
        negative,
        sampler,
        spacing,
        timesteps,
        seed,
    } = settings;
    let video = VideoRecord {
        width: *width as u64,
        height: *height as u64,
        frames: *frames as u64,
        fps: *fps,
        steps: *steps as u64,
        shift: Exact(*shift),
        guidance: Exact(*guidance),
        guidance_low: guidance_low.map(Exact),
        boundary: boundary.map(Exact),
        sampler: sampler.clone(),
        spacing: spacing.clone(),
        timesteps: timesteps.clone(),
        negative: Digest::of_text(negative),
        format: format.to_owned(),
    };
    Parameters { seed: *seed, video: Some(video), ..Parameters::default() }
}

/// The request that a record's job was made with.
///
/// # Errors
/// A name that this program does not know.
pub(crate) fn wanted(record: &VideoRecord, seed: u64, negative: &str) -> Result<Wanted, String> {
    let VideoRecord {
        width,
        height,
        frames,
        fps,
        steps,
        shift,
        guidance,
        guidance_low,
        boundary,
        sampler,
        spacing,
        timesteps,
        negative: _,
        format: _,
    } = record;
    // Larger than any setting may be remains so.
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let settings = VideoSettings {
        width: size(*width),
        height: size(*height),
        frames: size(*frames),
        fps: *fps,
        steps: size(*steps),
        shift: shift.0,
        guidance: guidance.0,
        guidance_low: guidance_low.map(|guidance| guidance.0),
        boundary: boundary.map(|share| share.0),
        negative: negative.to_owned(),
        sampler: sampler.clone(),
        spacing: spacing.clone(),
        timesteps: timesteps.clone(),
        seed,
    };
    settings.wanted()
}

#[cfg(test)]
mod tests {
    use super::super::object::tests::job;
    use super::*;

    #[test]
    fn settings_come_back_from_a_record() {
        let settings = VideoSettings {
            guidance_low: Some(0.1 + 0.2),
            boundary: Some(f32::MIN_POSITIVE),
            shift: 3.000_000_2,
            ..job().settings
        };
        let parameters = parameters(&settings, "mp4");
        let text = serde_json::to_string(&parameters).unwrap();
        assert!(!text.contains("blurry"), "{text}");
        let read: Parameters = serde_json::from_str(&text).unwrap();
        assert_eq!(read, parameters);
        let video = read.video.unwrap();
        assert_eq!(video.negative, Digest::of_text("blurry"));
        assert_eq!(wanted(&video, read.seed, "blurry"), settings.wanted());
        assert!(wanted(&VideoRecord { sampler: "?".to_owned(), ..video }, 1, "").is_err());
    }
}
