//! From a conversation to the ids of its prompt.

use std::ops::Range;

use serde_json::Value;

use super::{ChatTemplate, Content, Message, RenderOptions};
use crate::{FormatError, Tokenizer};

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatPrompt {
    /// The text, with the names of the control tokens the template wrote.
    pub text: String,
    /// Its ids, BOS in front if the model's prompts have it.
    pub tokens: Vec<u32>,
}

/// Characters of a private plane between which the number of a guarded name stands.
const GUARDS: (char, char) = ('\u{F57E0}', '\u{F57E1}');
/// Stands at the end of a message that is to be continued.
const END: char = '\u{F57E2}';

impl ChatTemplate {
    /// The prompt for a conversation. What people wrote stays text: names of control tokens in messages and tools do not
    /// become these tokens, so that nobody ends a turn or speaks for another.
    ///
    /// With `continue_final` the last message is the beginning of the answer, and the prompt ends with it;
    /// `add_generation_prompt` is off then, whatever the options say.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`] and [`Tokenizer::encode`]; a last message that the template does not show.
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        options: &RenderOptions,
        continue_final: bool,
    ) -> Result<ChatPrompt, FormatError> {
        let token_text = |id: Option<u32>| id.map(|id| tokenizer.decode(&[id], false));
        let mut options = RenderOptions {
            bos_token: token_text(tokenizer.bos()),
            eos_token: token_text(tokenizer.eos()),
            ..options.clone()
        };
        let mut messages = messages.to_vec();
        let mut guard = Guard { tokenizer, names: Vec::new() };
        messages.iter_mut().for_each(|message| guard.message(message));
        options.tools.iter_mut().for_each(|tool| guard.value(tool));
        options.variables.values_mut().for_each(|value| guard.value(value));
        if continue_final {
            guard.mark_end(messages.last_mut())?;
        }
        options.add_generation_prompt &= !continue_final;
        let mut rendered = self.render(&messages, &options)?;
        if continue_final {
            cut_at_end(&mut rendered)?;
        }
        let (text, literal) = guard.restore(&rendered);
        let mut tokens = tokenizer.encode_guarded(&text, false, &literal)?;
        // Some templates leave BOS to the tokenizer, others write it.
        match tokenizer.bos() {
            Some(bos) if tokenizer.adds_bos() && tokens.first() != Some(&bos) => tokens.insert(0, bos),
            _ => {}
        }
        Ok(ChatPrompt { text, tokens })
    }
}

/// Takes off the sign of the last message's end, and what the template wrote behind it.
fn cut_at_end(rendered: &mut String) -> Result<(), FormatError> {
    let end = rendered.rfind(END).ok_or_else(|| cannot_continue("the template does not show it"))?;
    rendered.truncate(end);
    Ok(())
}

fn cannot_continue(why: &str) -> FormatError {
    FormatError::TemplateRefused(format!("the last message cannot be continued: {why}"))
}

/// Replaces names of control tokens by signs that no template knows, and puts them back.
struct Guard<'a> {
    tokenizer: &'a Tokenizer,
    names: Vec<String>,
}

impl Guard<'_> {
    fn message(&mut self, message: &mut Message) {
        match &mut message.content {
            Content::Text(text) => self.text(text),
            Content::Parts(parts) => parts.iter_mut().for_each(|part| self.value(part)),
            Content::Null | Content::Absent => {}
        }
        message.extra.values_mut().for_each(|value| self.value(value));
    }

    fn value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(value)),
            Value::Object(values) => {
                // Names of arguments and properties are written by people, too.
                *values = std::mem::take(values)
                    .into_iter()
                    .map(|(mut name, mut value)| {
                        self.text(&mut name);
                        self.value(&mut value);
                        (name, value)
                    })
                    .collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Puts the sign behind the message that is to be continued.
    fn mark_end(&mut self, last: Option<&mut Message>) -> Result<(), FormatError> {
        match last.map(|message| &mut message.content) {
            Some(Content::Text(text)) if !text.trim().is_empty() => {
                text.push(END);
                Ok(())
            }
            _ => Err(cannot_continue("it has no text")),
        }
    }

    fn text(&mut self, text: &mut String) {
        let mut places = self.tokenizer.control_names(text);
        // Our own signs, should anyone write them, must survive too.
        let signs = text.match_indices([GUARDS.0, GUARDS.1, END]);
        places.extend(signs.map(|(start, sign)| start..start + sign.len()));
        if places.is_empty() {
            return;
        }
        places.sort_unstable_by_key(|place| place.start);
        let mut guarded = String::with_capacity(text.len());
        let mut start = 0;
        for place in places {
            guarded.push_str(&text[start..place.start]);
            guarded.push(GUARDS.0);
            guarded.push_str(&self.names.len().to_string());
            guarded.push(GUARDS.1);
            start = place.end;
            self.names.push(text[place].to_owned());
        }
        guarded.push_str(&text[start..]);
        *text = guarded;
    }

    /// The text with the names in their places, and these places.
    fn restore(&self, rendered: &str) -> (String, Vec<Range<usize>>) {
        let mut text = String::with_capacity(rendered.len());
        let mut literal = Vec::new();
        let mut pieces = rendered.split(GUARDS.0);
        text.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let (number, rest) = piece.split_once(GUARDS.1).unwrap_or((piece, ""));
            let name = number.parse().ok().and_then(|number: usize| self.names.get(number));
            let name = name.map_or(number, String::as_str);
            literal.push(text.len()..text.len() + name.len());
            text.push_str(name);
            text.push_str(rest);
        }
        (text, literal)
    }
}
