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
#[serde(tag = "type")]
pub(crate) enum BlockDelta {
    /// Of a text.
    #[serde(rename = "text_delta")]
    Text { text: String },
    /// Of a thought.
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    /// Of a call's arguments.
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
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
                    Some(BlockDelta::Text { text })
                }
                Piece::Reasoning(thinking) => {
                    self.open(Kind::Thinking, &Part::Reasoning(String::new()), out);
                    self.wanted.thoughts.then_some(BlockDelta::Thinking { thinking })
                }
                Piece::Call { id, name, .. } => {
                    let call = Call { id, name, arguments: String::new() };
                    self.open(Kind::Call, &Part::Call(call), out);
                    None
                }
                Piece::Arguments { fragment, .. } => Some(BlockDelta::InputJson { partial_json: fragment }),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::answer::Reason;
    use crate::error::ApiError;
    use crate::sse::{Encoder, Events};
    use crate::told::{events, head, pieces, said, summary};

    use super::super::error::RequestId;
    use super::super::request::Wanted;
    use super::super::response::MessagesResponse;
    use super::MessagesEncoder;

    fn wanted(max_tokens: usize, thoughts: bool) -> Wanted {
        Wanted { stream: true, stops: vec!["a".into(), "b".into()], max_tokens, thoughts }
    }

    fn encoder(wanted: Wanted) -> MessagesEncoder {
        MessagesEncoder::new(head("msg_1"), wanted, RequestId("req_1".into()), 10)
    }

    fn kinds(told: &[Value]) -> Vec<&str> {
        told.iter().map(|event| event["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn blocks_come_in_order_and_add_up_to_the_whole() {
        let told = events(encoder(wanted(5, true)), pieces(), Reason::ToolCalls);
        let expected = [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(kinds(&told), expected);
        assert_eq!(told[0]["message"]["usage"]["input_tokens"], 10);
        let end = &told[13];
        assert_eq!(end["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
        let usage = (&end["usage"]["input_tokens"], &end["usage"]["cache_read_input_tokens"]);
        assert_eq!(usage, (&json!(6), &json!(4)));
        let said = said(pieces(), Reason::ToolCalls);
        let whole = json!(MessagesResponse::ended(&head("msg_1"), &wanted(5, true), &said, &summary()));
        let call = json!({"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}});
        let content = json!([{"type": "thinking", "thinking": "Hm.", "signature": ""},
                             {"type": "text", "text": "Let me see."}, call]);
        assert_eq!(whole["content"], content);
        assert_eq!(whole["usage"], end["usage"]);
        assert_eq!(whole["stop_reason"], "tool_use");
    }

    #[test]
    fn thoughts_may_be_left_out() {
        let told = events(encoder(wanted(5, false)), pieces(), Reason::ToolCalls);
        assert_eq!(kinds(&told)[2..5], ["content_block_start", "content_block_stop", "content_block_start"]);
        let said = said(pieces(), Reason::ToolCalls);
        let whole = json!(MessagesResponse::ended(&head("msg_1"), &wanted(5, false), &said, &summary()));
        assert_eq!(whole["content"][0]["thinking"], "");
    }

    #[test]
    fn endings_have_their_names() {
        let end = |reason, max_tokens| {
            let told = events(encoder(wanted(max_tokens, true)), Vec::new(), reason);
            told[told.len() - 2]["delta"].clone()
        };
        let said = |reason: &str, sequence: Value| json!({"stop_reason": reason, "stop_sequence": sequence});
        assert_eq!(end(Reason::Stop, 5), said("end_turn", Value::Null));
        assert_eq!(end(Reason::StopString(1), 5), said("stop_sequence", json!("b")));
        assert_eq!(end(Reason::Length, 5), said("max_tokens", Value::Null));
        assert_eq!(end(Reason::Length, 6), said("model_context_window_exceeded", Value::Null));
    }

    #[test]
    fn an_answer_of_nothing_has_a_block() {
        let told = events(encoder(wanted(5, true)), Vec::new(), Reason::Stop);
        assert_eq!(told[2]["content_block"], json!({"type": "text", "text": ""}));
        let said = said(Vec::new(), Reason::Stop);
        let whole = json!(MessagesResponse::ended(&head("msg_1"), &wanted(5, true), &said, &summary()));
        assert_eq!(whole["content"], json!([{"type": "text", "text": ""}]));
    }

    #[test]
    fn a_call_that_is_cut_is_no_block_of_the_whole() {
        let mut cut = pieces();
        cut.pop();
        let said = said(cut, Reason::Length);
        let whole = json!(MessagesResponse::ended(&head("msg_1"), &wanted(5, true), &said, &summary()));
        assert_eq!(whole["content"].as_array().unwrap().len(), 2);
        assert_eq!(whole["stop_reason"], "max_tokens");
    }

    #[test]
    fn errors_are_anthropics() {
        let mut out = Events::default();
        encoder(wanted(5, true)).error(ApiError::unavailable("later", 1), &mut out);
        let error = json!({"type": "overloaded_error", "message": "later"});
        assert_eq!(out.parsed(), [json!({"type": "error", "error": error, "request_id": "req_1"})]);
    }
}
