//! What the endpoints of videos do.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use wushi_engine::video::VideoNetworks;

use super::form::JsonOrForm;
use super::object::{VideoDeleted, VideoList, VideoObject, poll_after_ms};
use super::plan::VideoPlan;
use super::request::CreateVideo;
use super::{Owner, Variant, VideoJob, VideoRequest, content};
use crate::app::{App, Closing};
use crate::auth::Caller;
use crate::body::whole;
use crate::error::{ApiError, ErrorBody};
use crate::handlers::blocking;

/// Videos of a page where nobody says how many.
const PAGE: usize = 20;
const MAX_PAGE: usize = 100;

impl From<&Caller> for Owner {
    fn from(caller: &Caller) -> Owner {
        Owner { key: caller.0.as_ref().map(|key| key.id.to_string()) }
    }
}

/// What is asked for.
async fn receive(app: &App, create: CreateVideo) -> Result<VideoRequest, ApiError> {
    app.check_open()?;
    let networks = app.videos.find(create.model())?.networks.clone();
    let request = create.request(networks.model())?;
    blocking(move || check_length(&networks, &request).map(|()| request)).await
}

/// Refuses what is beyond the limits of its key. A plan is not: nothing comes of it, and a page asks for one at every change.
fn admit(app: &App, caller: &Caller) -> Result<(), ApiError> {
    tokio::task::block_in_place(|| app.ledger.admit(caller.0.as_ref()))
}

/// What a model would not read to its end is refused.
fn check_length(networks: &VideoNetworks, request: &VideoRequest) -> Result<(), ApiError> {
    let most = networks.model().text_len;
    let negative = request.wanted.negative.as_deref().unwrap_or_default();
    for (name, text) in [("prompt", request.prompt.as_str()), ("negative_prompt", negative)] {
        let tokens =
            networks.tokens(text).map_err(|error| ApiError::parameter(name, format!("{name}: {error}")))?;
        if tokens.len() > most {
            let message =
                format!("{name}: it has {} tokens, and the model reads {most} at most", tokens.len());
            return Err(ApiError::parameter(name, message).code("context_length_exceeded"));
        }
    }
    Ok(())
}

/// A job; where it is not finished, with the time to look again.
fn respond(job: VideoJob) -> Response {
    let after = (!job.state.is_final()).then(|| poll_after_ms(&job));
    let mut response = Json(VideoObject::from(job)).into_response();
    if let Some(after) = after {
        response.headers_mut().insert("openai-poll-after-ms", HeaderValue::from(after));
    }
    response
}

/// Begin a video
///
/// It is made in the background, one after another, and survives the end of the server.
#[utoipa::path(
    post, path = "/v1/videos", operation_id = "create_video", tag = "Videos",
    request_body(content((CreateVideo = "application/json"), (CreateVideo = "multipart/form-data"))),
    responses(
        (status = 200, description = "The job; `openai-poll-after-ms` says when to look again", body = VideoObject),
        (status = "4XX", description = "What was wrong", body = ErrorBody),
        (status = "5XX", description = "What went wrong", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    JsonOrForm(create): JsonOrForm<CreateVideo>,
) -> Result<Response, ApiError> {
    let request = receive(&app, create).await?;
    admit(&app, &caller)?;
    app.videos.submit(request, Owner::from(&caller)).await.map(respond)
}

/// See what a video would take
///
/// Memory by stage, time, what would not be done as asked. Nothing is stored.
#[utoipa::path(
    post, path = "/v1/videos/plan", operation_id = "plan_video", tag = "Videos",
    request_body(content((CreateVideo = "application/json"), (CreateVideo = "multipart/form-data"))),
    responses(
        (status = 200, description = "The plan", body = VideoPlan),
        (status = "4XX", description = "What was wrong", body = ErrorBody),
        (status = "5XX", description = "What went wrong", body = ErrorBody),
    )
)]
pub(crate) async fn plan(
    State(app): State<App>,
    JsonOrForm(create): JsonOrForm<CreateVideo>,
) -> Result<Json<VideoPlan>, ApiError> {
    let request = receive(&app, create).await?;
    Ok(Json(VideoPlan::from(app.videos.outlook(&request).await?)))
}

/// A job that its client waits for: dropped before it is finished, the job is cancelled.
struct Awaited {
    app: App,
    owner: Owner,
    job: VideoJob,
    finished: bool,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        // A job under way when the server ends goes on when it starts again.
        if self.finished || self.app.check_open().is_err() {
            return;
        }
        let (videos, owner, id) = (self.app.videos.clone(), self.owner.clone(), self.job.id.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                match videos.delete(&id, &owner).await {
                    Ok(()) => tracing::info!(id, "cancelled, as its client went away"),
                    // Somebody else may have deleted it.
                    Err(error) if error.status == StatusCode::NOT_FOUND => {}
                    Err(error) => {
                        tracing::error!(id, message = error.message, "a video that nobody waits for stays")
                    }
                }
            });
        }
    }
}

/// Make a video and wait for it
///
/// Whoever closes the connection before it is made cancels it.
#[utoipa::path(
    post, path = "/v1/videos/sync", operation_id = "make_video", tag = "Videos",
    request_body(content((CreateVideo = "application/json"), (CreateVideo = "multipart/form-data"))),
    responses(
        (status = 200, description = "The video's file; `x-video-id` and `x-frames-digest` tell which",
         body = Vec<u8>, content_type = "video/mp4"),
        (status = "4XX", description = "What was wrong", body = ErrorBody),
        (status = "5XX", description = "What went wrong", body = ErrorBody),
    )
)]
pub(crate) async fn sync(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    JsonOrForm(create): JsonOrForm<CreateVideo>,
) -> Result<Response, ApiError> {
    let owner = Owner::from(&caller);
    let request = receive(&app, create).await?;
    admit(&app, &caller)?;
    let begun = {
        let (app, owner) = (app.clone(), owner.clone());
        // In a task of its own, so that there is somebody to cancel it even if the client leaves in this moment.
        tokio::spawn(async move {
            let job = app.videos.submit(request, owner.clone()).await?;
            Ok::<_, ApiError>(Awaited { app, owner, job, finished: false })
        })
    };
    let begun = begun.await.map_err(|error| ApiError::internal(format!("the work broke off: {error}")))?;
    let mut awaited = begun?;
    let id = awaited.job.id.clone();
    let mut closing = app.closing.subscribe();
    let job = tokio::select! {
        job = app.videos.finished(&id, &owner) => job?,
        _ = closing.wait_for(|closing| *closing != Closing::Open) => return Err(interrupted(&id)),
    };
    awaited.finished = true;
    if let Some((code, message)) = &job.error {
        tracing::debug!(id, code, "a video that was waited for has failed");
        return Err(
            ApiError::internal(format!("the video `{id}` has failed: {message}")).code("video_failed")
        );
    }
    let stored = app.videos.file(&id, Variant::Video, &owner).await?;
    let mut response = content::serve(stored, &HeaderMap::new()).await?;
    for (name, value) in [("x-video-id", Some(id)), ("x-frames-digest", job.frames_digest)] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn interrupted(id: &str) -> ApiError {
    let message =
        format!("the server is about to end; `{id}` goes on when it starts again, see /v1/videos/{id}");
    ApiError::unavailable(message, 5)
}

/// Which videos are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListVideos {
    /// The last video of the page before.
    after: Option<String>,
    /// From 1 to 100, 20 if absent.
    limit: Option<String>,
    /// `desc`, the newest first, if absent; or `asc`.
    order: Option<String>,
}

impl ListVideos {
    fn limit(&self) -> Result<usize, ApiError> {
        let Some(limit) = &self.limit else { return Ok(PAGE) };
        let read = limit.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
        read.ok_or_else(|| {
            let message = format!("limit: `{}` is not from 1 to {MAX_PAGE}", limit.escape_default());
            ApiError::parameter("limit", message)
        })
    }

    fn newest_first(&self) -> Result<bool, ApiError> {
        match self.order.as_deref() {
            None | Some("desc") => Ok(true),
            Some("asc") => Ok(false),
            Some(other) => {
                let message = format!("order: `{}` is neither asc nor desc", other.escape_default());
                Err(ApiError::parameter("order", message))
            }
        }
    }
}

/// List the videos
#[utoipa::path(
    get, path = "/v1/videos", operation_id = "list_videos", tag = "Videos", params(ListVideos),
    responses(
        (status = 200, description = "Those of the caller's key, a page of them", body = VideoList),
        (status = "4XX", description = "What was wrong", body = ErrorBody),
        (status = "5XX", description = "What went wrong", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<ListVideos>, QueryRejection>,
) -> Result<Json<VideoList>, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
    let (limit, newest_first) = (query.limit()?, query.newest_first()?);
    let after = query.after.as_deref().filter(|id| !id.is_empty());
    let (jobs, more) = app.videos.list(after, limit, newest_first, &Owner::from(&caller)).await?;
    Ok(Json(VideoList::new(jobs, more)))
}

/// The id in a path.
type Id = Result<Path<String>, PathRejection>;

fn id(path: Id) -> Result<String, ApiError> {
    path.map(|Path(id)| id).map_err(|rejection| ApiError::invalid(rejection.body_text()))
}

/// Look at a video
#[utoipa::path(
    get, path = "/v1/videos/{video_id}", operation_id = "show_video", tag = "Videos",
    params(("video_id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The job; until it is finished, `openai-poll-after-ms` says when to look again",
         body = VideoObject),
        (status = "4XX", description = "What was wrong", body = ErrorBody),
        (status = "5XX", description = "What went wrong", body = ErrorBody),
    )
)]
pub(crate) async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    path: Id,
) -> Result<Response, ApiError> {
    app.videos.get(&id(path)?, &Owner::from(&caller)).await.map(respond)
}

/// Delete a video
///
/// One that is not finished is cancelled.
#[utoipa::path(
    delete, path = "/v1/videos/{video_id}", operation_id = "delete_video", tag = "Videos",
    params(("video_id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "It is gone, with all its files", body = VideoDeleted),
        (status = "4XX", description = "What was wrong", body = ErrorBody),
        (status = "5XX", description = "What went wrong", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    path: Id,
) -> Result<Json<VideoDeleted>, ApiError> {
    let (id, owner) = (id(path)?, Owner::from(&caller));
    app.videos.delete(&id, &owner).await?;
    Ok(Json(VideoDeleted::new(id)))
}

/// Which file of a video.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ContentOf {
    /// `video` if absent; `thumbnail`, its first frame; `latest`, the newest frame while it is being made.
    variant: Option<String>,
}

impl ContentOf {
    fn variant(&self) -> Result<Variant, ApiError> {
        match self.variant.as_deref() {
            None | Some("" | "video") => Ok(Variant::Video),
            Some("thumbnail") => Ok(Variant::Thumbnail),
            Some("latest") => Ok(Variant::Latest),
            Some("spritesheet") => {
                let message =
                    "variant: no sprite sheets are made here; there are video, thumbnail and latest";
                Err(ApiError::parameter("variant", message))
            }
            Some(other) => {
                let message = format!(
                    "variant: `{}` is none; there are video, thumbnail and latest",
                    other.escape_default()
                );
                Err(ApiError::parameter("variant", message))
            }
        }
    }
}

/// Download a video
///
/// Whole, or the part that `Range` asks for.
#[utoipa::path(
    get, path = "/v1/videos/{video_id}/content", operation_id = "download_video", tag = "Videos",
    params(("video_id" = String, Path, description = "Its id"), ContentOf),
    responses(
        (status = 200, description = "The file", body = Vec<u8>, content_type = "video/mp4"),
        (status = 206, description = "A part of the file", body = Vec<u8>, content_type = "video/mp4"),
        (status = "4XX", description = "What was wrong: `video_not_ready` while it is not there", body = ErrorBody),
        (status = "5XX", description = "What went wrong", body = ErrorBody),
    )
)]
pub(crate) async fn download(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    path: Id,
    query: Result<Query<ContentOf>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
    let stored = app.videos.file(&id(path)?, query.variant()?, &Owner::from(&caller)).await?;
    content::serve(stored, &headers).await
}

/// Changing videos is not possible here
#[utoipa::path(
    post, path = "/v1/videos/{video_id}/remix", operation_id = "remix_video", tag = "Videos",
    params(("video_id" = String, Path, description = "Its id")),
    responses((status = 501, description = "It never is", body = ErrorBody))
)]
pub(crate) async fn remix(State(app): State<App>, request: Request) -> ApiError {
    not_made(
        &app,
        request,
        "videos cannot be remixed here: make another one with POST /v1/videos, with the same seed",
    )
    .await
}

/// Changing videos is not possible here
#[utoipa::path(
    post, path = "/v1/videos/edits", operation_id = "edit_video", tag = "Videos",
    responses((status = 501, description = "It never is", body = ErrorBody))
)]
pub(crate) async fn edits(State(app): State<App>, request: Request) -> ApiError {
    not_made(&app, request, "videos cannot be edited here: make another one with POST /v1/videos").await
}

/// Changing videos is not possible here
#[utoipa::path(
    post, path = "/v1/videos/extensions", operation_id = "extend_video", tag = "Videos",
    responses((status = 501, description = "It never is", body = ErrorBody))
)]
pub(crate) async fn extensions(State(app): State<App>, request: Request) -> ApiError {
    not_made(&app, request, "videos cannot be extended here: ask for more seconds with POST /v1/videos").await
}

/// Characters are not possible here
#[utoipa::path(
    post, path = "/v1/videos/characters", operation_id = "create_character", tag = "Videos",
    responses((status = 501, description = "They never are", body = ErrorBody))
)]
pub(crate) async fn characters(State(app): State<App>, request: Request) -> ApiError {
    not_made(&app, request, "there are no characters here: say in the prompt who is to be seen").await
}

async fn not_made(app: &App, request: Request, message: &str) -> ApiError {
    // Read, whatever it is: of a connection that is closed with a body on its way, some clients tell only that.
    if let Err(error) = whole(request, &app.limits).await {
        tracing::debug!(message = error.message, "a body that nobody uses");
    }
    ApiError::new(StatusCode::NOT_IMPLEMENTED, message).code("not_implemented")
}
