//! `POST /tokenize` and `POST /detokenize`, as other servers have them.

use axum::Json;
use axum::extract::{Extension, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::app::App;
use crate::ask::{Ask, Chat, Prompt};
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{ApiError, ErrorBody};
use crate::handlers::{admit, blocking};
use crate::pool::Lease;
use crate::prepare;

use super::message::{ChatMessage, conversation};
use super::tool::{Tool, tools};

/// A text, or a conversation, to be cut into tokens.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    /// Which model; the server's first one if absent.
    model: Option<String>,
    /// The text.
    #[serde(alias = "content")]
    prompt: Option<String>,
    /// Instead of a text, a conversation, which goes through the model's template.
    #[schema(min_items = 1)]
    messages: Option<Vec<ChatMessage>>,
    /// Functions for the template.
    tools: Option<Vec<Tool>>,
    /// Variables for the template.
    chat_template_kwargs: Option<Map<String, Value>>,
    /// Whether a text gets what the model's prompts begin and end with; true if absent.
    #[serde(alias = "add_special")]
    add_special_tokens: Option<bool>,
    /// Whether names of special tokens in a text mean these tokens; true if absent.
    #[serde(alias = "parse_special")]
    parse_special_tokens: Option<bool>,
    /// Whether the tokens' texts are wanted too.
    #[serde(alias = "with_pieces")]
    return_token_strs: Option<bool>,
}

/// The tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokens {
    tokens: Vec<u32>,
    count: usize,
    /// Tokens of the longest sequence.
    max_model_len: usize,
    #[schema(required)]
    token_strs: Option<Vec<String>>,
}

/// Tokens to be turned into text.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    /// Which model; the server's first one if absent.
    model: Option<String>,
    /// The tokens.
    tokens: Vec<u32>,
}

/// The text, under the names that two families of servers give it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detokenized {
    prompt: String,
    content: String,
}

/// Cut a text into tokens
#[utoipa::path(
    post, path = "/tokenize", tag = "Tokens", request_body = TokenizeRequest,
    responses((status = 200, description = "The tokens", body = Tokens),
              (status = "4XX", description = "What was wrong", body = ErrorBody),
              (status = "5XX", description = "What went wrong", body = ErrorBody))
)]
pub(crate) async fn tokenize(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<TokenizeRequest>,
) -> Result<Json<Tokens>, ApiError> {
    let entry = admit(&app, &caller, request.model.as_deref())?;
    let lease = app.pool.acquire(&entry).await?;
    blocking(move || tokens(&lease, request)).await.map(Json)
}

fn tokens(lease: &Lease, request: TokenizeRequest) -> Result<Tokens, ApiError> {
    let tokenizer = &lease.model.tokenizer;
    let tokens = match (request.prompt, request.messages) {
        (Some(text), None) => {
            let (add, parse) = (request.add_special_tokens, request.parse_special_tokens);
            tokenizer.encode(&text, add.unwrap_or(true), parse.unwrap_or(true))?
        }
        (None, Some(messages)) => {
            let chat = Chat {
                messages: conversation(messages)?,
                tools: tools(request.tools, None, None)?,
                variables: request.chat_template_kwargs.unwrap_or_default(),
                continue_final: false,
            };
            prepare::tokens(lease, &Ask::new(Prompt::Chat(chat)))?
        }
        _ => return Err(ApiError::parameter("prompt", "give either prompt (a text) or messages")),
    };
    let names = |ids: &[u32]| ids.iter().map(|&id| tokenizer.decode(&[id], false)).collect();
    let token_strs = request.return_token_strs.unwrap_or(false).then(|| names(&tokens));
    Ok(Tokens { count: tokens.len(), max_model_len: lease.context, token_strs, tokens })
}

/// Turn tokens into text
#[utoipa::path(
    post, path = "/detokenize", tag = "Tokens", request_body = DetokenizeRequest,
    responses((status = 200, description = "The text", body = Detokenized),
              (status = "4XX", description = "What was wrong", body = ErrorBody),
              (status = "5XX", description = "What went wrong", body = ErrorBody))
)]
pub(crate) async fn detokenize(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<DetokenizeRequest>,
) -> Result<Json<Detokenized>, ApiError> {
    let entry = admit(&app, &caller, request.model.as_deref())?;
    let lease = app.pool.acquire(&entry).await?;
    blocking(move || {
        let tokenizer = &lease.model.tokenizer;
        let vocab = tokenizer.vocab_size();
        if let Some(id) = request.tokens.iter().find(|&&id| id as usize >= vocab) {
            let message = format!("tokens: {id} is not below the vocabulary size {vocab}");
            return Err(ApiError::parameter("tokens", message));
        }
        let text = tokenizer.decode(&request.tokens, false);
        Ok(Json(Detokenized { prompt: text.clone(), content: text }))
    })
    .await
}
