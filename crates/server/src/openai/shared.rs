//! What several of OpenAI's endpoints have in common.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answer::Summary;
use crate::error::ApiError;

/// One stop string or several.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum Stop {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Stop {
    pub(crate) fn into_vec(stop: Option<Stop>) -> Vec<String> {
        match stop {
            None => Vec::new(),
            Some(Stop::One(one)) => vec![one],
            Some(Stop::Many(many)) => many,
        }
    }
}

/// What a stream carries besides the answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub(crate) struct StreamOptions {
    /// A last chunk, without choices, says how many tokens there were.
    include_usage: Option<bool>,
    /// Accepted; streams are never padded.
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

/// Whether the usage is wanted; options without a stream are refused, as OpenAI does.
pub(crate) fn include_usage(stream: bool, options: Option<StreamOptions>) -> Result<bool, ApiError> {
    match options {
        Some(_) if !stream => {
            Err(ApiError::parameter("stream_options", "stream_options needs stream to be true"))
        }
        options => Ok(options.and_then(|options| options.include_usage).unwrap_or(false)),
    }
}

/// Tokens of a request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Of the prompt.
    prompt_tokens: usize,
    /// Of all answers.
    completion_tokens: usize,
    /// Both.
    total_tokens: usize,
    /// More of the prompt's.
    prompt_tokens_details: PromptTokensDetails,
    /// More of the answers'.
    completion_tokens_details: CompletionTokensDetails,
}

/// More of the prompt's tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PromptTokensDetails {
    /// Found in the prefix cache instead of computed.
    cached_tokens: usize,
}

/// More of the answers' tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CompletionTokensDetails {
    /// Thought rather than said.
    reasoning_tokens: usize,
}

impl From<&Summary> for Usage {
    fn from(summary: &Summary) -> Usage {
        Usage {
            prompt_tokens: summary.prompt_tokens,
            completion_tokens: summary.completion_tokens,
            total_tokens: summary.prompt_tokens + summary.completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens: summary.cached_tokens },
            completion_tokens_details: CompletionTokensDetails { reasoning_tokens: summary.reasoning_tokens },
        }
    }
}

/// What Wushi says beyond OpenAI's API.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Extension {
    /// The seed, drawn if none was given: with it the same request gives the same answer.
    seed: i64,
    /// The name of the record: `wushi replay` takes it.
    request_id: String,
    /// BLAKE3 of the logits that each answer was sampled from, if asked for.
    #[schema(required)]
    logits_digests: Option<Vec<String>>,
    /// Waited for a place.
    queue_ms: f64,
    /// From submission to the first token.
    ttft_ms: f64,
    /// Prompt tokens computed per second.
    #[schema(required)]
    prefill_tokens_per_s: Option<f64>,
    /// Tokens per second of the first answer, after its first token.
    #[schema(required)]
    decode_tokens_per_s: Option<f64>,
}

impl Extension {
    pub(crate) fn new(id: &str, summary: &Summary) -> Extension {
        let hex = |digest: &[u8; 32]| blake3::Hash::from(*digest).to_hex().to_string();
        Extension {
            // As it was given: JSON of clients has no larger numbers, and OpenAI's seeds may be negative.
            seed: summary.seed as i64,
            request_id: id.to_owned(),
            logits_digests: (!summary.digests.is_empty()).then(|| summary.digests.iter().map(hex).collect()),
            queue_ms: summary.queue.as_secs_f64() * 1e3,
            ttft_ms: summary.ttft.as_secs_f64() * 1e3,
            prefill_tokens_per_s: summary.prefill_rate,
            decode_tokens_per_s: summary.decode_rate,
        }
    }
}

/// Biases by token id; JSON has its keys as strings.
pub(crate) fn logit_bias(
    bias: Option<std::collections::BTreeMap<String, f32>>,
) -> Result<Vec<(u32, f32)>, ApiError> {
    let parse = |(id, bias): (String, f32)| match id.trim().parse() {
        Ok(id) => Ok((id, bias)),
        Err(_) => Err(ApiError::parameter("logit_bias", format!("logit_bias: `{id}` is no token id"))),
    };
    bias.unwrap_or_default().into_iter().map(parse).collect()
}

/// A number of answers or tokens.
pub(crate) fn count(name: &'static str, value: Option<i64>, most: i64) -> Result<Option<usize>, ApiError> {
    match value {
        None => Ok(None),
        Some(value) if (1..=most).contains(&value) => Ok(Some(value as usize)),
        Some(value) => {
            let expected = if most == i64::MAX { "at least 1".into() } else { format!("1 to {most}") };
            Err(ApiError::parameter(name, format!("{name} is {value}, expected {expected}")))
        }
    }
}

/// A seed; OpenAI's may be negative.
pub(crate) fn seed(seed: Option<i64>) -> Option<u64> {
    seed.map(|seed| seed as u64)
}

/// The sampling settings of a request, whose fields have these names in every one of OpenAI's endpoints. (They cannot be one
/// structure within it: `flatten` would let unknown parameters through.)
macro_rules! sampling_wish {
    ($request:expr) => {
        $crate::ask::SamplingWish {
            temperature: $request.temperature,
            top_k: $request.top_k,
            top_p: $request.top_p,
            min_p: $request.min_p,
            repetition_penalty: $request.repetition_penalty,
            presence_penalty: $request.presence_penalty,
            frequency_penalty: $request.frequency_penalty,
            logit_bias: $crate::openai::shared::logit_bias($request.logit_bias)?,
        }
    };
}
pub(crate) use sampling_wish;
