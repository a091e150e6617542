//! A message as it comes.

use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::{Delta, News, Reason};
use crate::error::ApiError;
use crate::openai::chat::Head;
use crate::openai::shared::Extension;
use crate::speech::Piece;
use crate::sse::{Encoder, Events};
use crate::whole::{Call, Part};

use super::error::{MessagesErrorBody, RequestId};
use super::request::Wanted;
use super::response::{Block, MessagesResponse, MessagesUsage, stop};

/// Something new about a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum MessagesEvent {
    /// The request has been taken in.
    MessageStart { message: MessagesResponse },
    /// Nothing: it keeps connections open.
    Ping,
    /// A block begins.
    ContentBlockStart { index: usize, content_block: Block },
    /// More of the block.
    ContentBlockDelta { index: usize, delta: BlockDelta },
    /// The block is complete.
    ContentBlockStop { index: usize },
    /// The answer is complete.
    MessageDelta { delta: MessageEnd, usage: MessagesUsage, wushi: Extension },
    /// Nothing follows.
    MessageStop,
}

/// More of a block.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum BlockDelta {
    /// Of a text.
    TextDelta { text: String },
    /// Of a thought.
    ThinkingDelta { thinking: String },
    /// Of a call's arguments.
    InputJsonDelta { partial_json: String },
}

/// How an answer ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageEnd {
    stop_reason: &'static str,
    #[schema(required)]
    stop_sequence: Option<String>,
}

impl MessagesEvent {
    fn name(&self) -> &'static str {
        match self {
            MessagesEvent::MessageStart { .. } => "message_start",
            MessagesEvent::Ping => "ping",
            MessagesEvent::ContentBlockStart { .. } => "content_block_start",
            MessagesEvent::ContentBlockDelta { .. } => "content_block_delta",
            MessagesEvent::ContentBlockStop { .. } => "content_block_stop",
            MessagesEvent::MessageDelta { .. } => "message_delta",
            MessagesEvent::MessageStop => "message_stop",
        }
    }

    fn tell(&self, out: &mut Events) {
        out.named(self.name(), self);
    }
}

/// What a block is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Call,
}

/// Writes events.
pub(crate) struct MessagesEncoder {
    head: Head,
    wanted: Wanted,
    request: RequestId,
    prompt_tokens: usize,
    /// Blocks so far, and what the last one is about.
    blocks: usize,
    open: Option<Kind>,
    reason: Reason,
}

impl MessagesEncoder {
    pub(crate) fn new(
        head: Head,
        wanted: Wanted,
        request: RequestId,
        prompt_tokens: usize,
    ) -> MessagesEncoder {
        MessagesEncoder {
            head,
            wanted,
            request,
            prompt_tokens,
            blocks: 0,
            open: None,
            reason: Reason::Cancelled,
        }
    }

    fn close(&mut self, out: &mut Events) {
        if self.open.take().is_some() {
            MessagesEvent::ContentBlockStop { index: self.blocks - 1 }.tell(out);
        }
    }

    /// Begins a block, unless the last one goes on.
    fn open(&mut self, kind: Kind, part: &Part, out: &mut Events) {
        if kind != Kind::Call && self.open == Some(kind) {
            return;
        }
        self.close(out);
        MessagesEvent::ContentBlockStart { index: self.blocks, content_block: Block::begun(part) }.tell(out);
        self.blocks += 1;
        self.open = Some(kind);
    }

    fn delta(&mut self, delta: Delta, out: &mut Events) {
        for piece in delta.pieces {
            let delta = match piece {
                Piece::Text(text) => {
                    self.open(Kind::Text, &Part::Text { text: String::new(), logprobs: Vec::new() }, out);
                    Some(BlockDelta::TextDelta { text })
                }
                Piece::Reasoning(thinking) => {
                    self.open(Kind::Thinking, &Part::Reasoning(String::new()), out);
                    self.wanted.thoughts.then_some(BlockDelta::ThinkingDelta { thinking })
                }
                Piece::Call { id, name, .. } => {
                    let call = Call { id, name, arguments: String::new() };
                    self.open(Kind::Call, &Part::Call(call), out);
                    None
                }
                Piece::Arguments { fragment, .. } => {
                    Some(BlockDelta::InputJsonDelta { partial_json: fragment })
                }
            };
            if let Some(delta) = delta {
                MessagesEvent::ContentBlockDelta { index: self.blocks.saturating_sub(1), delta }.tell(out);
            }
        }
    }
}

impl Encoder for MessagesEncoder {
    fn begin(&mut self, out: &mut Events) {
        let message = MessagesResponse::begun(&self.head, self.prompt_tokens);
        MessagesEvent::MessageStart { message }.tell(out);
        MessagesEvent::Ping.tell(out);
    }

    fn news(&mut self, news: News, out: &mut Events) {
        match news {
            News::Delta(delta) => self.delta(delta, out),
            News::Ended(ended) => {
                self.reason = ended.reason;
                if self.blocks == 0 {
                    self.open(Kind::Text, &Part::Text { text: String::new(), logprobs: Vec::new() }, out);
                }
                self.close(out);
            }
            News::Done(summary) => {
                let (stop_reason, stop_sequence) = stop(self.reason, &self.wanted, &summary);
                let end = MessagesEvent::MessageDelta {
                    delta: MessageEnd { stop_reason, stop_sequence },
                    usage: MessagesUsage::from(&*summary),
                    wushi: Extension::new(&self.head.id, &summary),
                };
                end.tell(out);
                MessagesEvent::MessageStop.tell(out);
            }
            News::Queued(_) | News::Prompt { .. } | News::Failed(_) => {}
        }
    }

    fn error(&mut self, error: ApiError, out: &mut Events) {
        out.named("error", &MessagesErrorBody::new(&error, &self.request));
    }
}
