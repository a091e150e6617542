//! `POST /v1/completions`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use wushi_engine::Logprob;
use wushi_formats::Tokenizer;

use crate::answer::{News, Summary};
use crate::ask::{Ask, MAX_CHOICES, MAX_TOP_LOGPROBS, Prompt};
use crate::error::ApiError;
use crate::speech::Piece;
use crate::sse::{Encoder, Events};
use crate::whole::Whole;

use super::chat::Head;
use super::shared::{Extension, Stop, StreamOptions, Usage, count, include_usage, sampling_wish, seed};
use super::tool::ResponseFormat;

/// The most prompts in one request.
const MAX_PROMPTS: usize = 256;

/// Prompts to be continued as they are.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompletionRequest {
    /// Which model; the server's first one if absent.
    pub(crate) model: Option<String>,
    /// One prompt or several, as texts or token ids.
    prompt: PromptInput,
    /// What comes behind the answer, for models that can fill gaps.
    suffix: Option<String>,
    /// The most tokens of each answer; 16 if absent. 0 with echo scores the prompt.
    #[schema(minimum = 0)]
    max_tokens: Option<i64>,
    /// Logits are divided by this; 0 always takes the most probable token.
    #[schema(minimum = 0)]
    temperature: Option<f32>,
    /// Keep the fewest most probable tokens whose probabilities reach this sum.
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    /// Keep the most probable tokens, so many; 0 or -1 for all.
    top_k: Option<i64>,
    /// Keep the tokens at least this share as probable as the most probable one.
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f32>,
    /// How many answers to each prompt.
    #[schema(minimum = 1, maximum = 128)]
    n: Option<i64>,
    /// Must equal n: answers are not made to be thrown away.
    #[schema(minimum = 1, maximum = 128)]
    best_of: Option<i64>,
    /// Whether the answer comes as it is made.
    pub(crate) stream: Option<bool>,
    /// What the stream carries besides.
    stream_options: Option<StreamOptions>,
    /// Report log-probabilities, with so many alternatives.
    #[schema(minimum = 0, maximum = 20)]
    logprobs: Option<i64>,
    /// The answer begins with the prompt.
    echo: Option<bool>,
    /// Texts that end the answer.
    stop: Option<Stop>,
    /// Key of the random numbers: the same seed gives the same answer.
    seed: Option<i64>,
    /// Subtracted from a token's logit for each time it occurs in the answer.
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that occur in the answer.
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f32>,
    /// Makes tokens of prompt and answer less probable; 1 changes nothing.
    #[serde(alias = "repeat_penalty")]
    repetition_penalty: Option<f32>,
    /// Added to logits, by token id.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// What the answer must look like.
    response_format: Option<ResponseFormat>,
    /// Report the BLAKE3 digests of the logits the answers were sampled from.
    logits_digest: Option<bool>,
    /// The answer goes on after the token that would end it.
    ignore_eos: Option<bool>,
    /// More tokens that end the answer.
    stop_token_ids: Option<Vec<u32>>,
    /// Accepted and not used.
    #[serde(rename = "user")]
    _user: Option<Value>,
}

/// Prompts in every form that is in use.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, token ids, or a list of either")]
pub(crate) enum PromptInput {
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Token ids.
    Tokens(Vec<u32>),
    /// Several prompts of token ids.
    Batches(Vec<Vec<u32>>),
}

impl PromptInput {
    /// One by one; `name` is what the parameter is called.
    pub(crate) fn prompts(self, name: &'static str, most: usize) -> Result<Vec<Prompt>, ApiError> {
        let prompts: Vec<Prompt> = match self {
            PromptInput::Text(text) => vec![Prompt::Text(text)],
            PromptInput::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
            PromptInput::Tokens(tokens) => vec![Prompt::Tokens(tokens)],
            PromptInput::Batches(batches) => batches.into_iter().map(Prompt::Tokens).collect(),
        };
        match prompts.len() {
            0 => Err(ApiError::parameter(name, format!("{name} is empty"))),
            count if count > most => Err(ApiError::parameter(
                name,
                format!("{name} has {count} entries, at most {most} are possible"),
            )),
            _ => Ok(prompts),
        }
    }
}

/// What matters after the request has become asks.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) stream: bool,
    include_usage: bool,
    logprobs: bool,
    echo: bool,
    /// Answers of each prompt.
    choices: usize,
}

impl CompletionRequest {
    /// What is asked for, and how the answers are to be told.
    pub(crate) fn asks(self) -> Result<(Vec<Ask>, Wanted), ApiError> {
        let stream = self.stream.unwrap_or(false);
        let include_usage = include_usage(stream, self.stream_options)?;
        let choices = count("n", self.n, MAX_CHOICES.into())?.unwrap_or(1);
        if count("best_of", self.best_of, MAX_CHOICES.into())?.is_some_and(|best_of| best_of != choices) {
            return Err(ApiError::parameter(
                "best_of",
                "best_of must equal n: answers are not made to be thrown away",
            ));
        }
        let most = MAX_TOP_LOGPROBS as i64;
        let logprobs = match self.logprobs {
            Some(top) if !(0..=most).contains(&top) => {
                let message = format!("logprobs is {top}, expected 0 to {most}");
                return Err(ApiError::parameter("logprobs", message));
            }
            top => top.map(|top| top as usize),
        };
        let max_tokens = match self.max_tokens {
            Some(0) => 0,
            given => count("max_tokens", given, i64::MAX)?.unwrap_or(16),
        };
        let echo = self.echo.unwrap_or(false);
        let mut prompts = self.prompt.prompts("prompt", MAX_PROMPTS)?;
        if let Some(suffix) = self.suffix.filter(|suffix| !suffix.is_empty()) {
            prompts = prompts.into_iter().map(|prompt| gap(prompt, &suffix)).collect::<Result<_, _>>()?;
        }
        let template = Ask {
            sampling: sampling_wish!(self),
            seed: seed(self.seed),
            choices: choices as u32,
            max_tokens: Some(max_tokens),
            stop: Stop::into_vec(self.stop),
            ignore_end: self.ignore_eos.unwrap_or(false),
            stop_tokens: self.stop_token_ids.unwrap_or_default(),
            top_logprobs: logprobs,
            score_prompt: echo && logprobs.is_some(),
            format: self.response_format.map(ResponseFormat::grammar).transpose()?.flatten(),
            digest: self.logits_digest.unwrap_or(false),
            ..Ask::new(Prompt::Tokens(Vec::new()))
        };
        let asks = prompts.into_iter().map(|prompt| Ask { prompt, ..template.clone() }).collect();
        Ok((asks, Wanted { stream, include_usage, logprobs: logprobs.is_some(), echo, choices }))
    }
}

fn gap(prompt: Prompt, suffix: &str) -> Result<Prompt, ApiError> {
    match prompt {
        Prompt::Text(prefix) => Ok(Prompt::Infill { prefix, suffix: suffix.to_owned() }),
        _ => Err(ApiError::parameter("suffix", "suffix needs prompts that are texts")),
    }
}

/// Answers to prompts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Completion {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    choices: Vec<CompletionChoice>,
    /// Null except in the last chunk of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    /// Identifies weights, quantisation and arithmetic.
    system_fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    wushi: Option<Extension>,
}

/// One of the answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionChoice {
    index: usize,
    text: String,
    #[schema(required)]
    logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`.
    #[schema(required)]
    finish_reason: Option<&'static str>,
}

/// Log-probabilities of an answer's tokens, as lists of one length.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    /// Null for the first token of a prompt, which nothing predicts.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where each token begins, in characters.
    text_offset: Vec<usize>,
}

/// Makes texts and lists of what is known of an answer.
struct Teller {
    wanted: Wanted,
    tokenizer: Arc<Tokenizer>,
    /// The prompts' ids.
    prompts: Vec<Vec<u32>>,
}

impl Teller {
    /// The prompt of an answer, if it is to be told.
    fn echo(&self, choice: usize) -> Option<&[u32]> {
        self.wanted.echo.then(|| self.prompts[choice / self.wanted.choices].as_slice())
    }

    fn prompt_text(&self, choice: usize) -> String {
        self.echo(choice).map_or(String::new(), |ids| self.tokenizer.decode(ids, false))
    }

    fn add(&self, list: &mut CompletionLogprobs, offset: &mut usize, id: u32, scored: Option<&Logprob>) {
        let name = |id| self.tokenizer.decode(&[id], false);
        let token = name(id);
        list.text_offset.push(*offset);
        *offset += token.chars().count();
        list.tokens.push(token);
        list.token_logprobs.push(scored.map(|scored| scored.logprob));
        list.top_logprobs
            .push(scored.map(|scored| scored.top.iter().map(|&(id, logprob)| (name(id), logprob)).collect()));
    }

    /// The lists of a prompt that is told.
    fn prompt_logprobs(&self, choice: usize, scores: &[Logprob], offset: &mut usize) -> CompletionLogprobs {
        let mut list = CompletionLogprobs::default();
        for (place, &id) in self.echo(choice).unwrap_or_default().iter().enumerate() {
            let scored = place.checked_sub(1).and_then(|before| scores.get(before));
            self.add(&mut list, offset, id, scored);
        }
        list
    }
}

/// Tells completions, whole or as they come.
pub(crate) struct CompletionEncoder {
    head: Head,
    /// `None` while the model is loading, when there is nothing to say yet.
    teller: Option<Teller>,
    include_usage: bool,
    /// Where each answer's next token begins, once it has begun.
    offsets: Vec<Option<usize>>,
    scores: Vec<Vec<Logprob>>,
    /// The end of an answer that has not been said yet.
    finished: Option<CompletionChoice>,
}

impl CompletionEncoder {
    pub(crate) fn waiting(head: Head, wanted: &Wanted) -> CompletionEncoder {
        let include_usage = wanted.include_usage;
        CompletionEncoder {
            head,
            teller: None,
            include_usage,
            offsets: Vec::new(),
            scores: Vec::new(),
            finished: None,
        }
    }

    pub(crate) fn new(
        head: Head,
        wanted: Wanted,
        tokenizer: Arc<Tokenizer>,
        prompts: Vec<Vec<u32>>,
    ) -> CompletionEncoder {
        let (count, include_usage) = (prompts.len(), wanted.include_usage);
        CompletionEncoder {
            head,
            include_usage,
            offsets: vec![None; count * wanted.choices],
            scores: vec![Vec::new(); count],
            finished: None,
            teller: Some(Teller { wanted, tokenizer, prompts }),
        }
    }

    fn completion(&self, choices: Vec<CompletionChoice>, end: Option<&Summary>, usage: bool) -> Completion {
        Completion {
            id: self.head.id.clone(),
            object: "text_completion",
            created: self.head.created,
            model: self.head.model.clone(),
            choices,
            usage: usage.then(|| end.map(Usage::from)),
            system_fingerprint: self.head.fingerprint.clone(),
            wushi: end.map(|summary| Extension::new(&self.head.id, summary)),
        }
    }

    /// All answers at once.
    pub(crate) fn whole(&self, whole: &Whole) -> Completion {
        let Some(teller) = &self.teller else {
            return self.completion(Vec::new(), Some(&whole.summary), true);
        };
        let choices = whole.choices.iter().enumerate().map(|(index, said)| {
            let mut offset = 0;
            let logprobs = teller.wanted.logprobs.then(|| {
                let scores = whole.prompts.get(index / teller.wanted.choices).map_or(&[][..], Vec::as_slice);
                let mut list = teller.prompt_logprobs(index, scores, &mut offset);
                said.logprobs
                    .iter()
                    .for_each(|token| teller.add(&mut list, &mut offset, token.id, Some(token)));
                list
            });
            let text = teller.prompt_text(index) + &said.text();
            CompletionChoice { index, text, logprobs, finish_reason: Some(said.reason().openai()) }
        });
        self.completion(choices.collect(), Some(&whole.summary), true)
    }

    fn say(&self, choice: CompletionChoice, out: &mut Events) {
        out.data(&self.completion(vec![choice], None, self.include_usage));
    }

    /// Says the end of an answer, if one has ended.
    fn finish(&mut self, end: Option<&Summary>, out: &mut Events) {
        if let Some(choice) = self.finished.take() {
            out.data(&self.completion(vec![choice], end, self.include_usage));
        }
    }

    /// Says the prompt before the answer, where that is wanted.
    fn begin(&mut self, index: usize, out: &mut Events) {
        let Some(teller) = &self.teller else { return };
        if self.offsets[index].is_some() {
            return;
        }
        let mut offset = 0;
        if teller.wanted.echo {
            let scores = &self.scores[index / teller.wanted.choices];
            let logprobs = teller.wanted.logprobs.then(|| teller.prompt_logprobs(index, scores, &mut offset));
            let text = teller.prompt_text(index);
            self.say(CompletionChoice { index, text, logprobs, finish_reason: None }, out);
        }
        self.offsets[index] = Some(offset);
    }
}

impl Encoder for CompletionEncoder {
    fn news(&mut self, news: News, out: &mut Events) {
        match news {
            News::Prompt { prompt, scores } => self.scores[prompt] = scores,
            News::Delta(delta) => {
                let index = delta.choice as usize;
                self.begin(index, out);
                let (Some(teller), Some(mut offset)) = (&self.teller, self.offsets[index]) else { return };
                let logprobs = teller.wanted.logprobs.then(|| {
                    let mut list = CompletionLogprobs::default();
                    delta
                        .logprobs
                        .iter()
                        .for_each(|token| teller.add(&mut list, &mut offset, token.id, Some(token)));
                    list
                });
                let text = delta.pieces.into_iter().map(|piece| match piece {
                    Piece::Text(text) => text,
                    _ => String::new(),
                });
                self.say(
                    CompletionChoice { index, text: text.collect(), logprobs, finish_reason: None },
                    out,
                );
                self.offsets[index] = Some(offset);
            }
            News::Ended(ended) => {
                let index = ended.choice as usize;
                self.begin(index, out);
                self.finish(None, out);
                let finish_reason = Some(ended.reason.openai());
                self.finished =
                    Some(CompletionChoice { index, text: String::new(), logprobs: None, finish_reason });
            }
            News::Done(summary) => {
                // Where no chunk is about usage, the last one says what can be known only now.
                self.finish(Some(&*summary).filter(|_| !self.include_usage), out);
                if self.include_usage {
                    out.data(&self.completion(Vec::new(), Some(&summary), true));
                }
                out.text("[DONE]");
            }
            News::Queued(_) | News::Failed(_) => {}
        }
    }

    fn error(&mut self, error: ApiError, out: &mut Events) {
        out.data(&error.body());
    }
}
