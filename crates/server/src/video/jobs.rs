//! What may be asked of jobs.

use std::sync::Arc;

use axum::http::StatusCode;

use super::{
    Outlook, Owner, Recorder, ServedVideo, Stored, Variant, VideoCounts, VideoJob, VideoOptions, VideoRequest,
};
use crate::error::ApiError;
use crate::pool::Pool;
use crate::store::Store;

/// All jobs, and the models that make them.
pub(crate) struct Videos {
    models: Vec<ServedVideo>,
    options: VideoOptions,
    #[expect(dead_code, reason = "jobs are read from it next")]
    store: Arc<Store>,
    #[expect(dead_code, reason = "memory is reserved in it next")]
    pool: Arc<Pool>,
    #[expect(dead_code, reason = "records are made by it next")]
    recorder: Recorder,
}

#[allow(dead_code, clippy::unused_async, reason = "handlers that call them follow")]
impl Videos {
    pub(crate) fn new(
        models: Vec<ServedVideo>,
        options: VideoOptions,
        store: Arc<Store>,
        pool: Arc<Pool>,
        recorder: Recorder,
    ) -> Arc<Videos> {
        Arc::new(Videos { models, options, store, pool, recorder })
    }

    /// The models that make videos.
    pub(crate) fn models(&self) -> &[ServedVideo] {
        &self.models
    }

    /// The model of this name, or the first if there is none.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<&ServedVideo, ApiError> {
        let found = match name.filter(|name| !name.is_empty()) {
            None => self.models.first(),
            Some(name) => self.models.iter().find(|model| model.name == name),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = self.models.iter().map(|model| model.name.as_str()).collect();
            let message = match names[..] {
                [] => "no model that makes videos is served here".to_owned(),
                _ => format!(
                    "there is no model `{}` that makes videos here; there are: {}",
                    name.unwrap_or_default(),
                    names.join(", ")
                ),
            };
            ApiError { status: StatusCode::NOT_FOUND, ..ApiError::parameter("model", message) }
                .code("model_not_found")
        })
    }

    /// What a request would take; nothing is stored. What can never fit is told, not refused.
    pub(crate) async fn outlook(&self, request: &VideoRequest) -> Result<Outlook, ApiError> {
        self.find(request.model.as_deref())?;
        Err(ApiError::unavailable("videos are not made yet", 1))
    }

    /// A new job, which is on the disk when this returns.
    pub(crate) async fn submit(&self, request: VideoRequest, _owner: Owner) -> Result<VideoJob, ApiError> {
        self.find(request.model.as_deref())?;
        Err(ApiError::unavailable("videos are not made yet", 1))
    }

    /// The job of this id.
    pub(crate) async fn get(&self, id: &str, _owner: &Owner) -> Result<VideoJob, ApiError> {
        Err(no_video(id))
    }

    /// Jobs, and whether there are more.
    pub(crate) async fn list(
        &self,
        after: Option<&str>,
        _limit: usize,
        _newest_first: bool,
        _owner: &Owner,
    ) -> Result<(Vec<VideoJob>, bool), ApiError> {
        after.map_or(Ok((Vec::new(), false)), |id| Err(no_video(id)))
    }

    /// Cancels a job that is not finished; removes it with its files.
    pub(crate) async fn delete(&self, id: &str, _owner: &Owner) -> Result<(), ApiError> {
        Err(no_video(id))
    }

    /// Waits until a job is completed or has failed. Not waiting any more cancels nothing.
    pub(crate) async fn finished(&self, id: &str, _owner: &Owner) -> Result<VideoJob, ApiError> {
        Err(no_video(id))
    }

    /// A file of a job: 404 with code `video_not_ready` while it is not there.
    pub(crate) async fn file(&self, id: &str, _variant: Variant, _owner: &Owner) -> Result<Stored, ApiError> {
        Err(no_video(id))
    }

    /// Counts for operators.
    pub(crate) fn counts(&self) -> VideoCounts {
        VideoCounts { disk_budget: self.options.disk, ..VideoCounts::default() }
    }
}

fn no_video(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no video `{}`", id.escape_default()))
        .code("video_not_found")
}
