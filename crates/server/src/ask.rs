//! What every API's requests are converted to: a prompt to continue, and how.

use wushi_engine::Sampling;
use wushi_engine::load::RecommendedSampling;
use wushi_formats::Message;

use crate::constraint::Grammar;
use crate::error::ApiError;
use crate::tools::{MAX_TOOLS, Tool, ToolChoice};

/// The temperature if neither the request nor the model says one.
pub(crate) const DEFAULT_TEMPERATURE: f32 = 0.7;

/// The most answers to one request.
pub(crate) const MAX_CHOICES: u32 = 128;

/// The most alternatives that are reported for each token.
pub(crate) const MAX_TOP_LOGPROBS: usize = 20;

/// A request for answers, whatever API it came through.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) prompt: Prompt,
    pub(crate) sampling: SamplingWish,
    /// Key of the random numbers; drawn if absent.
    pub(crate) seed: Option<u64>,
    /// How many answers.
    pub(crate) choices: u32,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) stop: Vec<String>,
    /// Tokens that end an answer, besides the model's own.
    pub(crate) stop_tokens: Vec<u32>,
    /// The model's own do not end it.
    pub(crate) ignore_end: bool,
    /// Alternatives to report with each token's log-probability.
    pub(crate) top_logprobs: Option<usize>,
    /// The prompt's own log-probabilities too.
    pub(crate) score_prompt: bool,
    /// What the answer must look like.
    pub(crate) format: Option<Grammar>,
    /// Whether the answers' logits digests are wanted.
    pub(crate) digest: bool,
}

impl Ask {
    pub(crate) fn new(prompt: Prompt) -> Ask {
        Ask {
            prompt,
            sampling: SamplingWish::default(),
            seed: None,
            choices: 1,
            max_tokens: None,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_end: false,
            top_logprobs: None,
            score_prompt: false,
            format: None,
            digest: false,
        }
    }
}

/// What is to be continued.
#[derive(Clone, Debug)]
pub(crate) enum Prompt {
    /// A conversation, through the model's template.
    Chat(Chat),
    /// A text as it is. Names of control tokens in it mean these tokens: who sends a raw prompt writes the template himself.
    Text(String),
    /// Token ids as they are.
    Tokens(Vec<u32>),
    /// A gap to fill.
    Infill { prefix: String, suffix: String },
}

impl Prompt {
    /// What it is called in requests.
    pub(crate) fn parameter(&self) -> &'static str {
        match self {
            Prompt::Chat(_) => "messages",
            _ => "prompt",
        }
    }
}

/// A conversation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chat {
    pub(crate) messages: Vec<Message>,
    pub(crate) tools: Option<Tools>,
    /// Further variables of the template.
    pub(crate) variables: serde_json::Map<String, serde_json::Value>,
    /// The last message is the beginning of the answer.
    pub(crate) continue_final: bool,
}

/// Functions the model may call.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: ToolChoice,
    /// Whether it may make several calls at once.
    pub(crate) parallel: bool,
}

impl Tools {
    /// Checks what one tool cannot know of the others.
    pub(crate) fn new(tools: Vec<Tool>, choice: ToolChoice, parallel: bool) -> Result<Tools, ApiError> {
        if tools.len() > MAX_TOOLS {
            let message = format!("{} tools were given, at most {MAX_TOOLS} are possible", tools.len());
            return Err(ApiError::parameter("tools", message));
        }
        for (index, tool) in tools.iter().enumerate() {
            if tools[..index].iter().any(|other| other.name == tool.name) {
                return Err(ApiError::parameter(
                    "tools",
                    format!("there are two tools of the name `{}`", tool.name),
                ));
            }
        }
        match &choice {
            ToolChoice::Named(name) if tools.iter().all(|tool| tool.name != *name) => {
                Err(ApiError::parameter("tool_choice", format!("tool_choice: there is no tool `{name}`")))
            }
            _ => Ok(Tools { tools, choice, parallel }),
        }
    }
}

/// Sampling settings as far as a request says.
#[derive(Clone, Debug, Default)]
pub(crate) struct SamplingWish {
    pub(crate) temperature: Option<f32>,
    pub(crate) top_k: Option<i64>,
    pub(crate) top_p: Option<f32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) logit_bias: Vec<(u32, f32)>,
}

impl SamplingWish {
    /// The request's settings, else what the model's makers recommend, else what changes nothing.
    pub(crate) fn resolve(&self, recommended: &RecommendedSampling) -> Result<Sampling, ApiError> {
        let neutral = Sampling::default();
        let recommended_k = recommended.top_k.map(|k| k as usize);
        let top_k = match self.top_k {
            None => recommended_k.unwrap_or(neutral.top_k),
            // Both are in use for "all".
            Some(-1 | 0) => 0,
            Some(k) => usize::try_from(k).map_err(|_| {
                ApiError::parameter(
                    "top_k",
                    format!("top_k is {k}, expected at least 1, or 0 or -1 for all tokens"),
                )
            })?,
        };
        Ok(Sampling {
            temperature: self.temperature.or(recommended.temperature).unwrap_or(DEFAULT_TEMPERATURE),
            top_k,
            // OpenAI's range includes 0, which keeps the most probable token; so does the smallest number above.
            top_p: self
                .top_p
                .map(|p| if p == 0.0 { f32::MIN_POSITIVE } else { p })
                .or(recommended.top_p)
                .unwrap_or(neutral.top_p),
            min_p: self.min_p.or(recommended.min_p).unwrap_or(neutral.min_p),
            repetition_penalty: self
                .repetition_penalty
                .or(recommended.repetition_penalty)
                .unwrap_or(neutral.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(neutral.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(neutral.frequency_penalty),
            logit_bias: self.logit_bias.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_win_over_recommendations_and_those_over_defaults() {
        let recommended =
            RecommendedSampling { temperature: Some(0.6), top_k: Some(20), ..RecommendedSampling::default() };
        let wish = SamplingWish { top_k: Some(5), top_p: Some(0.0), ..SamplingWish::default() };
        let sampling = wish.resolve(&recommended).unwrap();
        assert_eq!((sampling.temperature, sampling.top_k), (0.6, 5));
        assert!(sampling.top_p > 0.0, "OpenAI's 0 keeps one token");
        let all = SamplingWish { top_k: Some(-1), ..SamplingWish::default() }.resolve(&recommended).unwrap();
        assert_eq!(all.top_k, 0);
        let none = SamplingWish::default().resolve(&RecommendedSampling::default()).unwrap();
        assert_eq!(none.temperature, DEFAULT_TEMPERATURE);
        let bad = SamplingWish { top_k: Some(-2), ..SamplingWish::default() };
        assert_eq!(bad.resolve(&recommended).unwrap_err().param.as_deref(), Some("top_k"));
    }

    #[test]
    fn tools_must_fit_each_other() {
        let tool = |name| Tool::new(name, None).expect("a name");
        let twice = Tools::new(vec![tool("a"), tool("a")], ToolChoice::Auto, true);
        assert_eq!(twice.unwrap_err().param.as_deref(), Some("tools"));
        let unknown = Tools::new(vec![tool("a")], ToolChoice::Named("b".to_owned()), true);
        assert_eq!(unknown.unwrap_err().param.as_deref(), Some("tool_choice"));
    }
}
