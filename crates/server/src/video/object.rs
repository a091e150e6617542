//! Jobs and lists of them as clients read them.

use serde::Serialize;
use utoipa::ToSchema;

use super::{VideoJob, VideoSettings, VideoState};

/// A video: a job that makes it, and what came of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VideoObject {
    /// What the other calls ask for.
    id: String,
    object: &'static str,
    model: String,
    /// `queued`, `in_progress`, `completed` or `failed`.
    status: &'static str,
    /// In percent.
    progress: u8,
    /// In seconds since 1970.
    created_at: u64,
    /// When it was completed, or failed.
    #[schema(required)]
    completed_at: Option<u64>,
    /// When it will be removed.
    #[schema(required)]
    expires_at: Option<u64>,
    prompt: String,
    /// How long it lasts.
    seconds: String,
    /// Width and height in pixels.
    size: String,
    #[serde(flatten)]
    settings: SettingsObject,
    /// What its file is: `mp4`, `apng` or `gif`.
    output_format: &'static str,
    /// Always null.
    #[schema(required, value_type = Option<String>)]
    remixed_from_video_id: Option<()>,
    /// Why it failed.
    #[schema(required)]
    error: Option<VideoErrorObject>,
    /// How many jobs are before it, while it waits.
    #[schema(required)]
    queue_position: Option<usize>,
    /// Until it is completed, those before it included; null where nobody knows.
    #[schema(required)]
    estimated_seconds_left: Option<f64>,
    /// What is being done: `text`, `denoising`, `decoding`, or why it waits.
    #[schema(required)]
    stage: Option<&'static str>,
    /// Of `num_inference_steps`.
    steps_done: usize,
    /// Of `num_frames`.
    frames_done: usize,
    /// BLAKE3 over its frames, once it is completed: the same request gives the same.
    #[schema(required)]
    frames_digest: Option<String>,
    /// Of its file, once it is completed.
    #[schema(required)]
    bytes: Option<u64>,
    /// What was not done as asked.
    changes: Vec<String>,
}

/// All numbers that decide what a video is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SettingsObject {
    width: usize,
    height: usize,
    num_frames: usize,
    /// Frames a second.
    fps: u32,
    /// Steps of denoising.
    num_inference_steps: usize,
    guidance_scale: f32,
    /// Of the second denoiser, where there are two.
    #[schema(required)]
    guidance_scale_2: Option<f32>,
    /// Where the second denoiser takes over, where there are two.
    #[schema(required)]
    boundary_ratio: Option<f32>,
    flow_shift: f32,
    negative_prompt: String,
    seed: u64,
}

/// Why a video failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VideoErrorObject {
    code: String,
    message: String,
}

/// A page of videos.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VideoList {
    object: &'static str,
    data: Vec<VideoObject>,
    /// Whether there are more behind the last one.
    has_more: bool,
    #[schema(required)]
    first_id: Option<String>,
    /// What the next page comes `after`.
    #[schema(required)]
    last_id: Option<String>,
}

/// A video that is there no more.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VideoDeleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

impl From<&VideoSettings> for SettingsObject {
    fn from(settings: &VideoSettings) -> SettingsObject {
        SettingsObject {
            width: settings.width,
            height: settings.height,
            num_frames: settings.frames,
            fps: settings.fps,
            num_inference_steps: settings.steps,
            guidance_scale: settings.guidance,
            guidance_scale_2: settings.guidance_low,
            boundary_ratio: settings.boundary,
            flow_shift: settings.shift,
            negative_prompt: settings.negative.clone(),
            seed: settings.seed,
        }
    }
}

impl From<VideoJob> for VideoObject {
    fn from(job: VideoJob) -> VideoObject {
        let completed = job.state == VideoState::Completed;
        VideoObject {
            object: "video",
            status: job.state.name(),
            progress: percent(job.progress, completed),
            created_at: job.created,
            completed_at: job.completed,
            expires_at: job.expires,
            seconds: seconds_text(job.seconds_of_video),
            size: size_text(&job.settings),
            settings: SettingsObject::from(&job.settings),
            output_format: job.format.name(),
            remixed_from_video_id: None,
            error: job.error.map(|(code, message)| VideoErrorObject { code, message }),
            queue_position: job.queue_position,
            estimated_seconds_left: job.eta_seconds.map(rounded),
            stage: job.stage,
            steps_done: job.steps_done,
            frames_done: job.frames_done,
            frames_digest: job.frames_digest,
            bytes: completed.then_some(job.bytes),
            changes: job.changes,
            id: job.id,
            model: job.model,
            prompt: job.prompt,
        }
    }
}

impl VideoList {
    pub(crate) fn new(jobs: Vec<VideoJob>, has_more: bool) -> VideoList {
        let id = |job: Option<&VideoJob>| job.map(|job| job.id.clone());
        let (first_id, last_id) = (id(jobs.first()), id(jobs.last()));
        let data = jobs.into_iter().map(VideoObject::from).collect();
        VideoList { object: "list", data, has_more, first_id, last_id }
    }
}

impl VideoDeleted {
    pub(crate) fn new(id: String) -> VideoDeleted {
        VideoDeleted { id, object: "video.deleted", deleted: true }
    }
}

/// Only what is completed is done to 100 percent.
fn percent(progress: f64, completed: bool) -> u8 {
    if completed { 100 } else { progress.clamp(0.0, 99.0) as u8 }
}

/// Tenths of a second suffice for an estimate, and there are none before now.
pub(super) fn rounded(seconds: f64) -> f64 {
    (seconds.max(0.0) * 10.0).round() / 10.0 + 0.0
}

/// Width and height as `size` has them.
pub(super) fn size_text(settings: &VideoSettings) -> String {
    format!("{}x{}", settings.width, settings.height)
}

/// A duration as `seconds` has it: `4`, or `5.0625`.
pub(super) fn seconds_text(seconds: f64) -> String {
    ((seconds * 1e4).round() / 1e4).to_string()
}

/// When it makes sense to look at an unfinished job again, in milliseconds: often enough to see it move.
pub(super) fn poll_after_ms(job: &VideoJob) -> u64 {
    match job.eta_seconds {
        Some(seconds) => (seconds * 1000.0 / 20.0).clamp(500.0, 5000.0) as u64,
        None => 1000,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};
    use wushi_media::Format;

    use super::*;
    use crate::store::VideoRow;

    /// A job in the middle of denoising.
    pub(in super::super) fn job() -> VideoJob {
        VideoJob {
            id: "video_1".to_owned(),
            model: "tiny".to_owned(),
            state: VideoState::InProgress,
            progress: 40.7,
            created: 100,
            completed: None,
            expires: None,
            prompt: "a river".to_owned(),
            settings: VideoSettings {
                width: 48,
                height: 32,
                frames: 13,
                fps: 16,
                steps: 4,
                shift: 3.0,
                guidance: 5.1,
                guidance_low: None,
                boundary: None,
                negative: "blurry".to_owned(),
                sampler: "unipc".to_owned(),
                spacing: "training".to_owned(),
                timesteps: "floor".to_owned(),
                seed: u64::MAX,
            },
            changes: vec!["13 frames instead of 14".to_owned()],
            format: Format::Mp4,
            error: None,
            frames_digest: None,
            bytes: 0,
            seconds_of_video: 13.0 / 16.0,
            queue_position: None,
            eta_seconds: Some(12.345),
            stage: Some("denoising"),
            steps_done: 2,
            frames_done: 0,
        }
    }

    /// The row of a job that waits.
    pub(in super::super) fn row() -> VideoRow {
        let job = job();
        VideoRow {
            changes: job.changes,
            created: 100_000,
            ..VideoRow::queued(job.id, job.model, job.prompt, job.settings, job.format)
        }
    }

    fn rendered(job: VideoJob) -> Value {
        serde_json::to_value(VideoObject::from(job)).unwrap()
    }

    #[test]
    fn a_job_on_its_way() {
        let found = rendered(job());
        let expected = json!({
            "id": "video_1", "object": "video", "model": "tiny", "status": "in_progress", "progress": 40,
            "created_at": 100, "completed_at": null, "expires_at": null, "prompt": "a river", "seconds": "0.8125",
            "size": "48x32", "width": 48, "height": 32, "num_frames": 13, "fps": 16, "num_inference_steps": 4,
            "guidance_scale": 5.1f32, "guidance_scale_2": null, "boundary_ratio": null, "flow_shift": 3.0,
            "negative_prompt": "blurry", "seed": u64::MAX, "output_format": "mp4", "remixed_from_video_id": null,
            "error": null, "queue_position": null, "estimated_seconds_left": 12.3, "stage": "denoising",
            "steps_done": 2, "frames_done": 0, "frames_digest": null, "bytes": null,
            "changes": ["13 frames instead of 14"],
        });
        assert_eq!(found, expected);
        // The shortest number that is this F32.
        assert!(
            serde_json::to_string(&VideoObject::from(job())).unwrap().contains("\"guidance_scale\":5.1,")
        );
    }

    #[test]
    fn a_job_that_ended() {
        let done = VideoJob {
            state: VideoState::Completed,
            progress: 99.9,
            completed: Some(120),
            bytes: 7,
            frames_digest: Some("ab".to_owned()),
            ..job()
        };
        let found = rendered(done);
        assert_eq!(
            (&found["status"], &found["progress"], &found["bytes"]),
            (&json!("completed"), &json!(100), &json!(7))
        );
        let failed = VideoJob {
            state: VideoState::Failed,
            progress: 100.0,
            error: Some(("out_of_memory".to_owned(), "too little".to_owned())),
            ..job()
        };
        let found = rendered(failed);
        assert_eq!(found["error"], json!({ "code": "out_of_memory", "message": "too little" }));
        assert_eq!((&found["status"], &found["progress"]), (&json!("failed"), &json!(99)));
    }

    #[test]
    fn durations_are_short() {
        let texts = [(4.0, "4"), (65.0 / 16.0, "4.0625"), (121.0 / 24.0, "5.0417"), (1.0 / 3.0, "0.3333")];
        for (seconds, text) in texts {
            assert_eq!(seconds_text(seconds), text);
        }
    }

    #[test]
    fn estimates_are_short() {
        let texts = [(12.345, "12.3"), (-0.0, "0.0"), (-3.0, "0.0"), (0.04, "0.0"), (0.05, "0.1")];
        for (seconds, text) in texts {
            assert_eq!(serde_json::to_string(&rounded(seconds)).unwrap(), text);
        }
    }

    #[test]
    fn looking_again_goes_by_the_pace() {
        let after = |eta_seconds| poll_after_ms(&VideoJob { eta_seconds, ..job() });
        assert_eq!([None, Some(0.0), Some(30.0), Some(3600.0)].map(after), [1000, 500, 1500, 5000]);
    }

    #[test]
    fn a_list_says_where_it_ends() {
        let list = |jobs, more| serde_json::to_value(VideoList::new(jobs, more)).unwrap();
        let empty =
            json!({ "object": "list", "data": [], "has_more": false, "first_id": null, "last_id": null });
        assert_eq!(list(Vec::new(), false), empty);
        let found = list(vec![job(), VideoJob { id: "video_2".to_owned(), ..job() }], true);
        assert_eq!((&found["first_id"], &found["last_id"]), (&json!("video_1"), &json!("video_2")));
        assert_eq!((found["data"].as_array().unwrap().len(), &found["has_more"]), (2, &json!(true)));
    }
}
