//! From messages and knobs to a request.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use anyhow::{Result, bail};
use wushi_engine::load::{LoadedModel, RecommendedSampling};
use wushi_engine::{Request, Sampling};
use wushi_formats::{Message, RenderOptions};

use crate::knobs::Generation;

/// The temperature if neither a knob nor the model says one.
const DEFAULT_TEMPERATURE: f32 = 0.7;

/// What is asked of the model.
pub(crate) enum Prompt<'a> {
    /// A text to continue as it is.
    Raw(&'a str),
    /// A conversation, rendered by the model's template.
    Chat(&'a [Message]),
}

/// A request for an answer, with everything the knobs say.
pub(crate) fn request(
    model: &LoadedModel,
    prompt: &Prompt<'_>,
    knobs: &Generation,
    seed: u64,
) -> Result<Request> {
    let mut request = Request::new(tokens(model, prompt)?);
    request.sampling = sampling(knobs, &model.info.sampling);
    request.seed = seed;
    request.max_tokens = knobs.max_tokens;
    request.stop_tokens = model.tokenizer.end_of_generation().to_vec();
    request.stop_strings = knobs.stop.clone().unwrap_or_default();
    Ok(request)
}

/// The seed that is wanted, else one that is drawn: of 32 bits, to be typed again and to survive any JSON reader.
pub(crate) fn seed(wanted: Option<u64>) -> u64 {
    // The keys of a RandomState come from the operating system.
    wanted.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32)
}

/// A conversation that begins with the system message, if there is one.
pub(crate) fn conversation(knobs: &Generation) -> Vec<Message> {
    knobs.system.iter().map(|system| Message::new("system", system)).collect()
}

fn tokens(model: &LoadedModel, prompt: &Prompt<'_>) -> Result<Vec<u32>> {
    let tokens = match prompt {
        Prompt::Raw(text) => model.tokenizer.encode(text, true, true)?,
        Prompt::Chat(messages) => {
            let Some(template) = &model.template else {
                bail!("the model has no chat template: give a prompt to continue, with --raw");
            };
            let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
            template.prompt(&model.tokenizer, messages, &options, false)?.tokens
        }
    };
    if tokens.is_empty() {
        bail!("nothing to answer: the prompt is empty");
    }
    Ok(tokens)
}

/// The knobs, else what the model's makers recommend, else what changes nothing.
pub(crate) fn sampling(knobs: &Generation, recommended: &RecommendedSampling) -> Sampling {
    let neutral = Sampling::default();
    let top_k = recommended.top_k.map(|k| k as usize);
    Sampling {
        temperature: knobs.temperature.or(recommended.temperature).unwrap_or(DEFAULT_TEMPERATURE),
        top_k: knobs.top_k.or(top_k).unwrap_or(neutral.top_k),
        top_p: knobs.top_p.or(recommended.top_p).unwrap_or(neutral.top_p),
        min_p: knobs.min_p.or(recommended.min_p).unwrap_or(neutral.min_p),
        repetition_penalty: knobs
            .repetition_penalty
            .or(recommended.repetition_penalty)
            .unwrap_or(neutral.repetition_penalty),
        presence_penalty: knobs.presence_penalty.unwrap_or(neutral.presence_penalty),
        frequency_penalty: knobs.frequency_penalty.unwrap_or(neutral.frequency_penalty),
        logit_bias: knobs.logit_bias.clone().unwrap_or(neutral.logit_bias),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_win_over_recommendations_and_those_over_defaults() {
        let recommended =
            RecommendedSampling { temperature: Some(0.6), top_k: Some(20), ..Default::default() };
        let knobs = Generation { top_k: Some(5), ..Generation::default() };
        let both = sampling(&knobs, &recommended);
        assert_eq!((both.temperature, both.top_k, both.top_p), (0.6, 5, 1.0));
        let none = sampling(&Generation::default(), &RecommendedSampling::default());
        assert_eq!(none, Sampling { temperature: DEFAULT_TEMPERATURE, ..Sampling::default() });
    }

    #[test]
    fn seeds_are_kept_or_drawn() {
        assert_eq!(seed(Some(u64::MAX)), u64::MAX);
        let drawn: Vec<u64> = (0..4).map(|_| seed(None)).collect();
        assert!(drawn.iter().all(|&seed| seed < 1 << 32) && drawn.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
