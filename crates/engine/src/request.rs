//! What is asked of an engine, checked before it is queued.

use wushi_graph::ExecutorInfo;

use crate::EngineError;

/// Stop strings a request may have; each is searched for in every byte of the answer.
pub const MAX_STOP_STRINGS: usize = 64;

/// A prompt to continue, and how.
///
/// The answer depends on the model, `tokens`, `sampling`, `seed` and `choice`, and on nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The prompt's token ids, BOS included if the model wants one.
    pub tokens: Vec<u32>,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Key of the random numbers.
    pub seed: u64,
    /// Which of several answers to one prompt and seed this is: another choice, other random numbers.
    pub choice: u32,
    /// The most tokens to generate, a stop token included. `None`: up to the end of the context. `Some(0)`
    /// computes the prompt alone, for its scores or to warm the prefix cache.
    pub max_tokens: Option<usize>,
    /// Tokens that end the answer (end of sequence, end of turn).
    pub stop_tokens: Vec<u32>,
    /// Control tokens that are text in this answer, such as those that mark a call: at most a handful.
    pub spelled_tokens: Vec<u32>,
    /// Texts that end the answer; not part of it.
    pub stop_strings: Vec<String>,
    /// Report log-probabilities, with this many of the most probable tokens beside the chosen one.
    pub top_logprobs: Option<usize>,
    /// Report the log-probabilities of the prompt's own tokens from this index on, at least 1 as nothing
    /// predicts the first token. They come as [`Event::Prompt`](crate::Event::Prompt).
    pub score_from: Option<usize>,
    /// Report the BLAKE3 digest of all logits rows that were sampled from.
    pub digest: bool,
}

impl Request {
    /// A greedy request without limits.
    pub fn new(tokens: Vec<u32>) -> Self {
        Request {
            tokens,
            sampling: Sampling::default(),
            seed: 0,
            choice: 0,
            max_tokens: None,
            stop_tokens: Vec::new(),
            spelled_tokens: Vec::new(),
            stop_strings: Vec::new(),
            top_logprobs: None,
            score_from: None,
            digest: false,
        }
    }

    /// Checks everything that can be known before running.
    pub fn validate(&self, info: &ExecutorInfo) -> Result<(), EngineError> {
        let (prompt, answer) = (self.tokens.len(), usize::from(self.max_tokens != Some(0)));
        check_prompt(&self.tokens, answer, info, info.vocab)?;
        known_tokens("stop tokens", self.stop_tokens.iter().copied(), info.vocab)?;
        known_tokens("spelled tokens", self.spelled_tokens.iter().copied(), info.vocab)?;
        if self.stop_strings.len() > MAX_STOP_STRINGS {
            return Err(EngineError::TooManyStopStrings {
                count: self.stop_strings.len(),
                limit: MAX_STOP_STRINGS,
            });
        }
        if let Some(index) = self.stop_strings.iter().position(String::is_empty) {
            return Err(EngineError::EmptyStopString { index });
        }
        if let Some(top) = self.top_logprobs {
            in_range("top_logprobs", top as f64, top <= info.vocab, "at most the vocabulary size")?;
        }
        if let Some(from) = self.score_from {
            let fits = (1..=prompt).contains(&from);
            in_range("score_from", from as f64, fits, "1 to the prompt's length")?;
        }
        self.sampling.validate(info.vocab)
    }
}

/// Checks that tokens, with so many more, have room; their ids must be below `vocab`.
pub(crate) fn check_prompt(
    tokens: &[u32],
    answer: usize,
    info: &ExecutorInfo,
    vocab: usize,
) -> Result<(), EngineError> {
    if tokens.is_empty() {
        return Err(EngineError::EmptyPrompt);
    }
    let prompt = tokens.len();
    if prompt + answer > info.context {
        return Err(EngineError::PromptTooLong { prompt, answer, context: info.context });
    }
    let needed = (prompt + answer).div_ceil(info.page_tokens);
    if needed > info.pages {
        return Err(EngineError::TooFewPages { needed, pages: info.pages, page_tokens: info.page_tokens });
    }
    known_tokens("prompt", tokens.iter().copied(), vocab)
}

/// How a token is chosen from a row of logits: a constraint's mask if the request has one, then logit bias,
/// penalties, temperature, top-k, top-p, min-p.
///
/// The default is greedy and changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the greatest logit (greedy), ties going to the lower id.
    pub temperature: f32,
    /// Keep the k greatest logits; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest most probable tokens whose probabilities reach this sum, in (0, 1]; 1 keeps all
    /// (nucleus sampling, Holtzman et al. 2020).
    pub top_p: f32,
    /// Keep the tokens at least this share as probable as the most probable one, in [0, 1]; 0 keeps all.
    pub min_p: f32,
    /// Divides the positive and multiplies the negative logits of all tokens seen in prompt or answer, once;
    /// above 0 and at most 100, 1 changes nothing (CTRL, Keskar et al. 2019).
    pub repetition_penalty: f32,
    /// Subtracted from the logits of all tokens of the answer so far; -2 to 2.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time it occurs in the answer so far; -2 to 2.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens; -100 to 100, or negative infinity, which bans the token. A token
    /// named several times gets the sum.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
        }
    }
}

impl Sampling {
    /// Checks every number against its range and the token ids against `vocab`.
    pub fn validate(&self, vocab: usize) -> Result<(), EngineError> {
        let check = |name, value: f32, fits, expected| in_range(name, value.into(), fits, expected);
        let Sampling { temperature: t, top_p: p, min_p: m, .. } = *self;
        check("temperature", t, t.is_finite() && t >= 0.0, "0 (greedy) or above")?;
        check("top_p", p, p > 0.0 && p <= 1.0, "above 0 and at most 1 (1 keeps all)")?;
        check("min_p", m, (0.0..=1.0).contains(&m), "0 to 1 (0 keeps all)")?;
        let (r, a, f) = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty);
        let around_zero = -2.0..=2.0;
        check("repetition_penalty", r, r > 0.0 && r <= 100.0, "above 0 and at most 100 (1 changes nothing)")?;
        check("presence_penalty", a, around_zero.contains(&a), "-2 to 2")?;
        check("frequency_penalty", f, around_zero.contains(&f), "-2 to 2")?;
        known_tokens("logit bias", self.logit_bias.iter().map(|bias| bias.0), vocab)?;
        for &(_, bias) in &self.logit_bias {
            let fits = (-100.0..=100.0).contains(&bias) || bias == f32::NEG_INFINITY;
            check("logit bias", bias, fits, "-100 to 100, or negative infinity to ban the token")?;
        }
        Ok(())
    }

    /// Whether the tokens seen so far matter.
    pub(crate) fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

fn in_range(name: &'static str, value: f64, fits: bool, expected: &'static str) -> Result<(), EngineError> {
    if fits { Ok(()) } else { Err(EngineError::OutOfRange { name, value, expected }) }
}

fn known_tokens(
    place: &'static str,
    mut ids: impl Iterator<Item = u32>,
    vocab: usize,
) -> Result<(), EngineError> {
    match ids.find(|&id| id as usize >= vocab) {
        Some(id) => Err(EngineError::UnknownToken { place, id, vocab }),
        None => Ok(()),
    }
}
