//! From what is asked to what the engine computes. Works with text and templates: slow enough to keep off the tasks that serve
//! connections.

use wushi_engine::{Constraint, Request};
use wushi_formats::{ChatTemplate, RenderOptions};

use crate::ask::{Ask, Chat, Prompt};
use crate::constraint::{ConstraintError, Grammar};
use crate::error::ApiError;
use crate::ids;
use crate::pool::Lease;
use crate::speech::Speech;

/// Everything that is computed for a request.
pub(crate) struct Prepared {
    /// The prompts, in order.
    pub(crate) prompts: Vec<PreparedPrompt>,
    /// Key of the random numbers of all of them.
    pub(crate) seed: u64,
}

/// A prompt and its answers.
pub(crate) struct PreparedPrompt {
    /// Its ids.
    pub(crate) tokens: Vec<u32>,
    /// What the answers must look like.
    pub(crate) grammar: Option<Grammar>,
    /// One for each answer, alike but for the choice.
    pub(crate) choices: Vec<PreparedChoice>,
}

/// An answer to be computed.
pub(crate) struct PreparedChoice {
    pub(crate) request: Request,
    pub(crate) constraint: Option<Box<dyn Constraint>>,
    /// How its tokens are understood.
    pub(crate) speech: Speech,
}

/// Renders, tokenises and checks. All of `asks` differ in their prompts only.
pub(crate) fn prepare(lease: &Lease, asks: Vec<Ask>) -> Result<Prepared, ApiError> {
    let seed = match asks.first().and_then(|ask| ask.seed) {
        Some(seed) => seed,
        None => ids::seed()?,
    };
    let prompts = asks.into_iter().map(|ask| prepare_prompt(lease, ask, seed));
    Ok(Prepared { prompts: prompts.collect::<Result<_, _>>()?, seed })
}

fn prepare_prompt(lease: &Lease, ask: Ask, seed: u64) -> Result<PreparedPrompt, ApiError> {
    let model = lease.text()?;
    let Spoken { tokens, speech, grammar } = speak(lease, &ask)?;
    let mut request = Request::new(tokens.clone());
    request.sampling = ask.sampling.resolve(&model.info.sampling)?;
    request.seed = seed;
    request.max_tokens = ask.max_tokens;
    request.stop_tokens = ask.stop_tokens;
    // What is constrained ends where its form does.
    if !ask.ignore_end || grammar.is_some() {
        request.stop_tokens.extend(model.tokenizer.end_of_generation());
    }
    request.stop_strings = ask.stop;
    request.top_logprobs = ask.top_logprobs;
    // Nothing predicts the first token.
    request.score_from = (ask.score_prompt && tokens.len() > 1).then_some(1);
    request.digest = ask.digest;
    request.spelled_tokens = lease.style.marks().to_vec();
    request
        .validate(model.engine.info())
        .map_err(|error| ApiError::from(error).about(ask.prompt.parameter()))?;
    let mut constraints = match &grammar {
        Some(grammar) => {
            let count = ask.choices as usize;
            lease
                .compiler()?
                .compile_all(grammar, count)
                .map_err(|error| refused_grammar(error, &ask.prompt))?
        }
        None => Vec::new(),
    };
    let choices = (0..ask.choices).map(|choice| {
        let constraint = constraints.pop();
        let request =
            Request { choice, score_from: request.score_from.filter(|_| choice == 0), ..request.clone() };
        Ok(PreparedChoice { request, constraint, speech: speech.clone() })
    });
    Ok(PreparedPrompt { tokens, choices: choices.collect::<Result<_, ApiError>>()?, grammar })
}

/// A grammar that cannot be honoured is that of the tools, where there are any.
fn refused_grammar(error: ConstraintError, prompt: &Prompt) -> ApiError {
    let error = ApiError::from(error);
    match prompt {
        Prompt::Chat(Chat { tools: Some(_), .. }) => ApiError { param: Some("tools".to_owned()), ..error },
        _ => error,
    }
}

/// The ids of a prompt.
pub(crate) fn tokens(lease: &Lease, ask: &Ask) -> Result<Vec<u32>, ApiError> {
    Ok(speak(lease, ask)?.tokens)
}

/// A prompt, and how its answers are to be understood.
struct Spoken {
    tokens: Vec<u32>,
    speech: Speech,
    grammar: Option<Grammar>,
}

fn speak(lease: &Lease, ask: &Ask) -> Result<Spoken, ApiError> {
    let tokenizer = &lease.text()?.tokenizer;
    let plain = |tokens| Spoken { tokens, speech: Speech::plain(), grammar: ask.format.clone() };
    match &ask.prompt {
        Prompt::Text(text) => Ok(plain(tokenizer.encode(text, true, true)?)),
        Prompt::Tokens(tokens) => Ok(plain(tokens.clone())),
        Prompt::Infill { prefix, suffix } => {
            let Some(marks) = tokenizer.infill() else {
                let message = format!("`{}` has no tokens for filling gaps: leave suffix out", lease.name());
                return Err(ApiError::parameter("suffix", message));
            };
            let mut tokens = Vec::new();
            tokens.extend(tokenizer.bos().filter(|_| tokenizer.adds_bos()));
            for (mark, text) in [(marks.prefix, prefix.as_str()), (marks.suffix, suffix), (marks.middle, "")]
            {
                tokens.push(mark);
                tokens.extend(tokenizer.encode(text, false, false)?);
            }
            Ok(plain(tokens))
        }
        Prompt::Chat(chat) => converse(lease, chat, ask),
    }
}

fn converse(lease: &Lease, chat: &Chat, ask: &Ask) -> Result<Spoken, ApiError> {
    let model = lease.text()?;
    let template = template(lease)?;
    let messages = lease.style.messages(chat);
    let options = RenderOptions {
        add_generation_prompt: true,
        tools: lease.style.tools(chat),
        variables: chat.variables.clone(),
        ..RenderOptions::default()
    };
    let prompt = template.prompt(&model.tokenizer, &messages, &options, chat.continue_final)?;
    let speech = lease.style.speech(chat, &prompt.text);
    let grammar = lease.style.grammar(chat, ask.format.as_ref(), &prompt.text)?;
    Ok(Spoken { tokens: prompt.tokens, speech, grammar })
}

/// The model's template.
pub(crate) fn template(lease: &Lease) -> Result<&ChatTemplate, ApiError> {
    lease.text()?.template.as_ref().ok_or_else(|| {
        let message = format!("`{}` has no chat template: use /v1/completions", lease.name());
        ApiError::parameter("model", message)
    })
}
