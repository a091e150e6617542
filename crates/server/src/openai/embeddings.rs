//! `POST /v1/embeddings`.

use axum::Json;
use axum::extract::{Extension, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use wushi_engine::Pooling;

use crate::app::App;
use crate::ask::Prompt;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::embed::embed;
use crate::error::{ApiError, ErrorBody};
use crate::handlers::receive;
use crate::pool::Lease;

use super::completions::PromptInput;

/// The most texts in one request, as OpenAI has it.
const MAX_INPUTS: usize = 2048;

/// Texts to be turned into vectors.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingRequest {
    /// Which model; the server's first one if absent.
    model: Option<String>,
    /// One text or several, or their token ids.
    input: PromptInput,
    /// How numbers are written.
    encoding_format: Option<EncodingFormat>,
    /// Must be the length that the model's vectors have.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// How tokens' states become a vector: `mean` if absent. An embedding model's is its own.
    pooling: Option<PoolingChoice>,
    /// Accepted and not used.
    #[serde(rename = "user")]
    _user: Option<Value>,
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EncodingFormat {
    /// As numbers.
    Float,
    /// As the bytes of F32, the lowest first, in base64.
    Base64,
}

/// How tokens' states become a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PoolingChoice {
    /// Their mean.
    Mean,
    /// The last token's.
    Last,
}

/// Vectors of texts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingList {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: EmbeddingUsage,
    /// Identifies weights, quantisation and arithmetic.
    system_fingerprint: String,
    /// The name of the record.
    id: String,
}

/// The vector of a text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Numbers,
}

/// Numbers, of length 1 together.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Numbers {
    /// As numbers.
    Float(Vec<f32>),
    /// As base64 of F32, the lowest byte first.
    Base64(String),
}

/// Tokens of the texts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl Numbers {
    fn new(embedding: Vec<f32>, format: EncodingFormat) -> Numbers {
        match format {
            EncodingFormat::Float => Numbers::Float(embedding),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = embedding.iter().flat_map(|number| number.to_le_bytes()).collect();
                Numbers::Base64(STANDARD.encode(bytes))
            }
        }
    }
}

/// Turn texts into vectors
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "OpenAI", request_body = EmbeddingRequest,
    responses((status = 200, description = "The vectors, of length 1", body = EmbeddingList),
              (status = "4XX", description = "What was wrong", body = ErrorBody),
              (status = "5XX", description = "What went wrong", body = ErrorBody))
)]
pub(crate) async fn embeddings(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<EmbeddingRequest>,
) -> Result<Json<EmbeddingList>, ApiError> {
    let (arrival, entry) = receive(&app, caller, request.model.as_deref(), "embd-", "/v1/embeddings")?;
    let id = arrival.id.clone();
    let lease = app.pool.acquire(&entry).await?;
    let format = request.encoding_format.unwrap_or(EncodingFormat::Float);
    let (inputs, pooling) = request.inputs(&lease)?;
    let tokens = tokenize(lease.clone(), inputs).await?;
    let record = app.ledger.open_embedding(arrival, &lease, pooling, &tokens);
    let prompt_tokens = tokens.iter().map(Vec::len).sum();
    let embedded = embed(&app, lease.clone(), tokens, pooling, record).await?;
    let data = embedded.into_iter().enumerate().map(|(index, embedding)| Embedding {
        object: "embedding",
        index,
        embedding: Numbers::new(embedding, format),
    });
    Ok(Json(EmbeddingList {
        object: "list",
        data: data.collect(),
        model: lease.name().to_owned(),
        usage: EmbeddingUsage { prompt_tokens, total_tokens: prompt_tokens },
        system_fingerprint: lease.fingerprint_text(),
        id,
    }))
}

impl EmbeddingRequest {
    /// The texts, and how states of their tokens become one.
    pub(crate) fn inputs(self, lease: &Lease) -> Result<(Vec<Prompt>, Pooling), ApiError> {
        let inputs = self.input.prompts("input", MAX_INPUTS)?;
        let pooling = pooling(lease, self.pooling)?;
        let width = lease.model.engine.embedding_width().unwrap_or_default();
        if let Some(dimensions) = self.dimensions.filter(|&dimensions| dimensions != width) {
            let message = format!(
                "dimensions is {dimensions}, but vectors of this model have {width} numbers, all of which matter"
            );
            return Err(ApiError::parameter("dimensions", message));
        }
        Ok((inputs, pooling))
    }
}

/// What records call it.
pub(crate) fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::First => "first",
        Pooling::Last => "last",
    }
}

/// What records call so.
pub(crate) fn pooling_named(name: &str) -> Option<Pooling> {
    [Pooling::Mean, Pooling::First, Pooling::Last].into_iter().find(|&pooling| pooling_name(pooling) == name)
}

/// How states of this model's tokens become one.
fn pooling(lease: &Lease, wanted: Option<PoolingChoice>) -> Result<Pooling, ApiError> {
    match (lease.model.pooling, wanted) {
        (None, None | Some(PoolingChoice::Mean)) => Ok(Pooling::Mean),
        (None, Some(PoolingChoice::Last)) => Ok(Pooling::Last),
        (Some(own), None) => Ok(own),
        (Some(_), Some(_)) => {
            let message =
                format!("pooling: `{}` is an embedding model, which has a way of its own", lease.name());
            Err(ApiError::parameter("pooling", message))
        }
    }
}

/// The texts' ids, special ones included. A text is data: names of special tokens in it are words.
pub(crate) async fn tokenize(lease: Lease, inputs: Vec<Prompt>) -> Result<Vec<Vec<u32>>, ApiError> {
    let tokenize = move || {
        let ids = inputs.into_iter().enumerate().map(|(index, input)| {
            let ids = match input {
                Prompt::Text(text) => lease.model.tokenizer.encode(&text, true, false)?,
                Prompt::Tokens(tokens) => tokens,
                Prompt::Chat(_) | Prompt::Infill { .. } => Vec::new(),
            };
            if ids.is_empty() {
                let param = format!("input[{index}]");
                return Err(ApiError::parameter(&param, format!("{param} is empty")));
            }
            Ok(ids)
        });
        ids.collect()
    };
    let ids = tokio::task::spawn_blocking(tokenize).await;
    ids.unwrap_or_else(|error| Err(ApiError::internal(format!("the texts could not be cut: {error}"))))
}
