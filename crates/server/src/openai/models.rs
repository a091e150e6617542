//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::{ApiError, ErrorBody};
use crate::pool::ModelEntry;
use crate::video::ServedVideo;

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelObject>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelObject {
    id: String,
    object: &'static str,
    /// When its file was last changed, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
    /// `unloaded`, `loading`, `ready` or `failed`.
    state: &'static str,
    /// Share of the weights read, while loading.
    #[schema(required)]
    progress: Option<f64>,
    /// Why it could not be loaded the last time.
    #[schema(required)]
    failure: Option<String>,
    /// Tokens of the longest sequence, once loaded.
    #[schema(required)]
    context: Option<usize>,
    /// `text` or `embedding`, once loaded; `video` of those that make videos, which are loaded part by part with each one.
    #[schema(required)]
    kind: Option<&'static str>,
}

impl From<&ModelEntry> for ModelObject {
    fn from(entry: &ModelEntry) -> ModelObject {
        let condition = entry.condition();
        ModelObject {
            id: entry.name().to_owned(),
            object: "model",
            created: entry.created,
            owned_by: "wushi",
            state: condition.state,
            progress: condition.progress,
            failure: condition.failure,
            context: condition.running.as_ref().map(|running| running.context),
            kind: condition.running.as_ref().map(|running| running.kind()),
        }
    }
}

impl From<&ServedVideo> for ModelObject {
    fn from(model: &ServedVideo) -> ModelObject {
        ModelObject {
            id: model.name.clone(),
            object: "model",
            created: model.created,
            owned_by: "wushi",
            state: "ready",
            progress: None,
            failure: None,
            context: None,
            kind: Some("video"),
        }
    }
}

/// List the models
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "OpenAI",
    responses((status = 200, description = "All that may be asked for", body = ModelList),
              (status = "4XX", description = "What was wrong", body = ErrorBody))
)]
pub(crate) async fn list(State(app): State<App>) -> Json<ModelList> {
    let texts = app.pool.entries().iter().map(|entry| ModelObject::from(&**entry));
    let videos = app.videos.models().iter().map(ModelObject::from);
    Json(ModelList { object: "list", data: texts.chain(videos).collect() })
}

/// Show a model
#[utoipa::path(
    get, path = "/v1/models/{model}", operation_id = "show_model", tag = "OpenAI",
    params(("model" = String, Path, description = "Its name, slashes included")),
    responses((status = 200, description = "The model", body = ModelObject),
              (status = "4XX", description = "What was wrong", body = ErrorBody))
)]
pub(crate) async fn show(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelObject>, ApiError> {
    let Path(model) = path.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
    let video = app.videos.models().iter().find(|video| video.name == model);
    Ok(Json(match video {
        Some(video) => ModelObject::from(video),
        None => ModelObject::from(&**app.pool.find(&model)?),
    }))
}
