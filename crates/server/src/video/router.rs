//! Paths of videos.

use axum::Router;
use axum::routing::{any, get, post};

use super::handlers;
use crate::app::App;

/// All paths of videos. Those of a word come before those of an id.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/videos", post(handlers::create).get(handlers::list))
        .route("/v1/videos/plan", post(handlers::plan))
        .route("/v1/videos/sync", post(handlers::sync))
        .route("/v1/videos/edits", post(handlers::edits))
        .route("/v1/videos/extensions", post(handlers::extensions))
        .route("/v1/videos/characters", post(handlers::characters))
        .route("/v1/videos/characters/{character}", any(handlers::characters))
        .route("/v1/videos/{video_id}", get(handlers::show).delete(handlers::delete))
        .route("/v1/videos/{video_id}/content", get(handlers::download))
        .route("/v1/videos/{video_id}/remix", post(handlers::remix))
        .route("/v1/videos/{video_id}/edits", post(handlers::edits))
        .route("/v1/videos/{video_id}/extensions", post(handlers::extensions))
        .route("/v1/videos/{video_id}/characters", post(handlers::characters))
}
