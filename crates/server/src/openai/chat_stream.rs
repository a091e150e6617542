//! A chat completion as it comes.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use wushi_formats::Tokenizer;

use crate::answer::{Delta, News, Summary};
use crate::error::ApiError;
use crate::speech::Piece;
use crate::sse::{Encoder, Events};

use super::chat::{ChatLogprobs, Head, Wanted};
use super::shared::{Extension, Usage};

/// A piece of an answer to a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<ChunkChoice>,
    /// Null except in the last chunk; absent where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wushi: Option<Extension>,
}

/// More of one of the answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChunkChoice {
    index: u32,
    delta: ChunkDelta,
    #[schema(required)]
    logprobs: Option<ChatLogprobs>,
    #[schema(required)]
    finish_reason: Option<&'static str>,
}

/// What is new.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ChunkDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<CallFragment>>,
}

/// More of a call: the first has its name, the others its arguments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallFragment {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionFragment,
}

/// More of what is called.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FunctionFragment {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// Writes chunks.
pub(crate) struct ChatEncoder {
    head: Head,
    wanted: Wanted,
    /// `None` while the model is loading, when there is nothing to say yet.
    tokenizer: Option<Arc<Tokenizer>>,
    /// Answers whose role has been said.
    begun: Vec<u32>,
    /// The end of an answer that has not been said yet.
    finished: Option<ChunkChoice>,
}

impl ChatEncoder {
    pub(crate) fn new(head: Head, wanted: Wanted, tokenizer: Option<Arc<Tokenizer>>) -> ChatEncoder {
        ChatEncoder { head, wanted, tokenizer, begun: Vec::new(), finished: None }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, end: Option<&Summary>) -> ChatChunk<'_> {
        ChatChunk {
            id: &self.head.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: &self.head.fingerprint,
            choices,
            usage: self.wanted.include_usage.then(|| end.map(Usage::from)),
            wushi: end.map(|summary| Extension::new(&self.head.id, summary)),
        }
    }

    fn say(&self, index: u32, delta: ChunkDelta, logprobs: Option<ChatLogprobs>, out: &mut Events) {
        out.data(&self.chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason: None }], None));
    }

    /// Says the end of an answer, if one has ended.
    fn finish(&mut self, end: Option<&Summary>, out: &mut Events) {
        if let Some(choice) = self.finished.take() {
            out.data(&self.chunk(vec![choice], end));
        }
    }

    /// Says the role, before anything else of an answer.
    fn begin(&mut self, index: u32, out: &mut Events) {
        if self.begun.contains(&index) {
            return;
        }
        self.begun.push(index);
        let delta =
            ChunkDelta { role: Some("assistant"), content: Some(String::new()), ..ChunkDelta::default() };
        self.say(index, delta, None, out);
    }

    fn delta(&mut self, delta: Delta, out: &mut Events) {
        self.begin(delta.choice, out);
        let mut logprobs = match &self.tokenizer {
            Some(tokenizer) if self.wanted.logprobs => Some(ChatLogprobs::new(&delta.logprobs, tokenizer)),
            _ => None,
        };
        if delta.pieces.is_empty() && logprobs.is_some() {
            // A token without text, such as the one that ends the answer.
            let said = ChunkDelta { content: Some(String::new()), ..ChunkDelta::default() };
            self.say(delta.choice, said, logprobs.take(), out);
        }
        for piece in delta.pieces {
            self.say(delta.choice, said(piece), logprobs.take(), out);
        }
    }
}

fn said(piece: Piece) -> ChunkDelta {
    let fragment = |index, id: Option<String>, name, arguments| {
        let kind = id.is_some().then_some("function");
        Some(vec![CallFragment { index, id, kind, function: FunctionFragment { name, arguments } }])
    };
    let mut delta = ChunkDelta::default();
    match piece {
        Piece::Text(text) => delta.content = Some(text),
        Piece::Reasoning(text) => delta.reasoning_content = Some(text),
        Piece::Call { index, id, name } => {
            delta.tool_calls = fragment(index, Some(id), Some(name), String::new())
        }
        Piece::Arguments { index, fragment: more } => delta.tool_calls = fragment(index, None, None, more),
    }
    delta
}

impl Encoder for ChatEncoder {
    fn news(&mut self, news: News, out: &mut Events) {
        match news {
            News::Delta(delta) => self.delta(delta, out),
            News::Ended(ended) => {
                self.begin(ended.choice, out);
                self.finish(None, out);
                self.finished = Some(ChunkChoice {
                    index: ended.choice,
                    delta: ChunkDelta::default(),
                    logprobs: None,
                    finish_reason: Some(ended.reason.openai()),
                });
            }
            News::Done(summary) => {
                // Where no chunk is about usage, the last one says what can be known only now.
                let usage = self.wanted.include_usage;
                self.finish(Some(&*summary).filter(|_| !usage), out);
                if usage {
                    out.data(&self.chunk(Vec::new(), Some(&summary)));
                }
                out.text("[DONE]");
            }
            News::Queued(_) | News::Prompt { .. } | News::Failed(_) => {}
        }
    }

    fn error(&mut self, error: ApiError, out: &mut Events) {
        out.data(&error.body());
    }
}
