//! A response as it comes.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use wushi_formats::Tokenizer;

use crate::answer::{Delta, News};
use crate::app::now;
use crate::error::ApiError;
use crate::speech::Piece;
use crate::sse::{Encoder, Events};
use crate::whole::{Part, Said};

use super::super::chat::{Head, TokenLogprob};
use super::request::Wanted;
use super::response::{ContentOut, Items, OutputItem, Progress, Response};

/// Something new about a response: what its `type` says, and nothing else.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ResponseEvent {
    /// `response.created`, `response.output_text.delta` and so on.
    #[serde(rename = "type")]
    kind: &'static str,
    sequence_number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Response>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<OutputItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<ContentOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<TokenLogprob>>,
}

/// Writes events.
pub(crate) struct ResponsesEncoder {
    head: Head,
    wanted: Wanted,
    /// `None` while the model is loading, when there is nothing to say yet.
    tokenizer: Option<Arc<Tokenizer>>,
    said: Said,
    /// Events so far.
    count: u64,
}

impl ResponsesEncoder {
    pub(crate) fn new(head: Head, wanted: Wanted, tokenizer: Option<Arc<Tokenizer>>) -> ResponsesEncoder {
        ResponsesEncoder { head, wanted, tokenizer, said: Said::default(), count: 0 }
    }

    fn items(&self) -> Items<'_> {
        let tokenizer = self.tokenizer.as_deref().filter(|_| self.wanted.logprobs);
        Items { head: &self.head, tokenizer }
    }

    fn tell(&mut self, kind: &'static str, event: ResponseEvent, out: &mut Events) {
        out.named(kind, &ResponseEvent { kind, sequence_number: self.count, ..event });
        self.count += 1;
    }

    fn tell_response(&mut self, kind: &'static str, response: Response, out: &mut Events) {
        self.tell(kind, ResponseEvent { response: Some(response), ..ResponseEvent::default() }, out);
    }

    /// An event about the last part, without its content.
    fn about_last(&self) -> Option<(&Part, ResponseEvent)> {
        let index = self.said.parts.len().checked_sub(1)?;
        let part = &self.said.parts[index];
        let event = ResponseEvent {
            output_index: Some(index),
            item_id: Some(self.items().id(part, index)),
            content_index: (!matches!(part, Part::Call(_))).then_some(0),
            ..ResponseEvent::default()
        };
        Some((part, event))
    }

    fn tell_item(&mut self, kind: &'static str, progress: Progress, out: &mut Events) {
        let Some(index) = self.said.parts.len().checked_sub(1) else { return };
        let item = self.items().item(&self.said.parts[index], index, progress);
        let event = ResponseEvent { output_index: Some(index), item: Some(item), ..ResponseEvent::default() };
        self.tell(kind, event, out);
    }

    /// The last part has just begun.
    fn open(&mut self, out: &mut Events) {
        self.tell_item("response.output_item.added", Progress::Going, out);
        let Some((part, event)) = self.about_last() else { return };
        let empty = match part {
            Part::Call(_) => return,
            Part::Text { .. } => Part::Text { text: String::new(), logprobs: Vec::new() },
            Part::Reasoning(_) => Part::Reasoning(String::new()),
        };
        let part = self.items().content(&empty);
        self.tell("response.content_part.added", ResponseEvent { part, ..event }, out);
    }

    /// The last part has ended.
    fn close(&mut self, progress: Progress, out: &mut Events) {
        let Some((part, event)) = self.about_last() else { return };
        match part.clone() {
            Part::Text { text, logprobs } => {
                let logprobs = Some(self.items().logprobs(&logprobs));
                let event = ResponseEvent { text: Some(text), logprobs, ..event };
                self.tell("response.output_text.done", event, out);
            }
            Part::Reasoning(text) => {
                let event = ResponseEvent { text: Some(text), ..event };
                self.tell("response.reasoning_text.done", event, out);
            }
            Part::Call(call) => {
                let (name, arguments) = (Some(call.name), Some(call.arguments));
                let event = ResponseEvent { name, arguments, ..event };
                self.tell("response.function_call_arguments.done", event, out);
            }
        }
        if let Some((part @ (Part::Text { .. } | Part::Reasoning(_)), event)) = self.about_last() {
            let part = self.items().content(part);
            self.tell("response.content_part.done", ResponseEvent { part, ..event }, out);
        }
        self.tell_item("response.output_item.done", progress, out);
    }

    fn delta(&mut self, delta: Delta, out: &mut Events) {
        let mut with_text = delta.logprobs;
        for piece in delta.pieces {
            self.begin_part(&piece, out);
            let parts = self.said.parts.len();
            let more =
                if matches!(piece, Piece::Text(_)) { std::mem::take(&mut with_text) } else { Vec::new() };
            let (kind, delta, logprobs) = match &piece {
                Piece::Text(text) => {
                    ("response.output_text.delta", Some(text.clone()), Some(self.items().logprobs(&more)))
                }
                Piece::Reasoning(text) => ("response.reasoning_text.delta", Some(text.clone()), None),
                Piece::Arguments { fragment, .. } => {
                    ("response.function_call_arguments.delta", Some(fragment.clone()), None)
                }
                Piece::Call { .. } => ("", None, None),
            };
            self.said.take(piece, more);
            if self.said.parts.len() > parts {
                self.open(out);
            }
            if delta.is_some()
                && let Some((_, event)) = self.about_last()
            {
                self.tell(kind, ResponseEvent { delta, logprobs, ..event }, out);
            }
        }
    }

    /// Closes the last part if a piece does not belong to it.
    fn begin_part(&mut self, piece: &Piece, out: &mut Events) {
        let goes_on = matches!(
            (piece, self.said.parts.last()),
            (_, None)
                | (Piece::Text(_), Some(Part::Text { .. }))
                | (Piece::Reasoning(_), Some(Part::Reasoning(_)))
                | (Piece::Arguments { .. }, _)
        );
        if !goes_on {
            self.close(Progress::Complete, out);
        }
    }
}

impl Encoder for ResponsesEncoder {
    fn begin(&mut self, out: &mut Events) {
        for kind in ["response.created", "response.in_progress"] {
            self.tell_response(kind, Response::begun(&self.head, &self.wanted), out);
        }
    }

    fn news(&mut self, news: News, out: &mut Events) {
        match news {
            News::Delta(delta) => self.delta(delta, out),
            News::Ended(ended) => {
                let progress = Progress::of(ended.reason);
                self.said.ended = Some(ended);
                if self.said.parts.is_empty() {
                    self.said.take(Piece::Text(String::new()), Vec::new());
                    self.open(out);
                }
                self.close(progress, out);
            }
            News::Done(summary) => {
                let response = Response::ended(&self.items(), &self.wanted, &self.said, &summary, now());
                let kind = if response.is_complete() { "response.completed" } else { "response.incomplete" };
                self.tell_response(kind, response, out);
            }
            News::Queued(_) | News::Prompt { .. } | News::Failed(_) => {}
        }
    }

    fn error(&mut self, error: ApiError, out: &mut Events) {
        if self.count == 0 {
            self.begin(out);
        }
        let failed = Response::failed(&self.head, &self.wanted, super::in_our_words(error));
        self.tell_response("response.failed", failed, out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::answer::Reason;
    use crate::error::ApiError;
    use crate::sse::{Encoder, Events};
    use crate::told::{events, head, pieces, said, summary};

    use super::super::request::{ResponsesRequest, Wanted};
    use super::super::response::{Items, Response};
    use super::ResponsesEncoder;

    fn wanted() -> Wanted {
        let request: ResponsesRequest =
            serde_json::from_value(json!({"input": "x", "stream": true})).unwrap();
        request.ask().unwrap().1
    }

    fn encoder() -> ResponsesEncoder {
        ResponsesEncoder::new(head("resp_00ff"), wanted(), None)
    }

    #[test]
    fn events_come_in_order_and_end_with_the_whole() {
        let told = events(encoder(), pieces(), Reason::ToolCalls);
        let numbers: Vec<u64> = told.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
        assert!(numbers.iter().copied().eq(0..told.len() as u64), "{numbers:?}");
        let kinds: Vec<&str> = told
            .iter()
            .map(|event| event["type"].as_str().unwrap().trim_start_matches("response."))
            .collect();
        let expected = [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ];
        assert_eq!(kinds, expected);
        let done: Vec<&Value> = told.iter().filter(|e| e["type"] == "response.output_item.done").collect();
        let output = told.last().unwrap()["response"]["output"].as_array().unwrap();
        assert!(done.iter().map(|event| &event["item"]).eq(output), "{output:?}");
        let (head, wanted) = (head("resp_00ff"), wanted());
        let items = Items { head: &head, tokenizer: None };
        let whole = Response::ended(&items, &wanted, &said(pieces(), Reason::ToolCalls), &summary(), 2);
        assert_eq!(json!(whole)["output"], told.last().unwrap()["response"]["output"]);
        assert_eq!(output[0]["content"][0], json!({"type": "reasoning_text", "text": "Hm."}));
        assert_eq!(output[1]["content"][0]["text"], "Let me see.");
        let call = json!({"type": "function_call", "id": "fc_00ff02", "call_id": "call_1", "name": "weather",
                          "arguments": "{\"city\":\"Paris\"}", "status": "completed"});
        assert_eq!(output[2], call);
    }

    #[test]
    fn an_answer_that_is_cut_is_incomplete() {
        let told = events(encoder(), pieces(), Reason::Length);
        let last = told.last().unwrap();
        assert_eq!(last["type"], "response.incomplete");
        assert_eq!(last["response"]["incomplete_details"], json!({"reason": "max_output_tokens"}));
        assert_eq!(last["response"]["output"][1]["status"], "completed");
        assert_eq!(last["response"]["output"][2]["status"], "incomplete");
        let usage = json!({"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
                           "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 15});
        assert_eq!(last["response"]["usage"], usage);
    }

    #[test]
    fn an_answer_of_nothing_is_an_empty_message() {
        let told = events(encoder(), Vec::new(), Reason::Stop);
        assert_eq!(told.last().unwrap()["response"]["output"][0]["content"][0]["text"], "");
        let (head, wanted) = (head("resp_00ff"), wanted());
        let items = Items { head: &head, tokenizer: None };
        let whole = Response::ended(&items, &wanted, &said(Vec::new(), Reason::Stop), &summary(), 2);
        assert_eq!(json!(whole)["output"], told.last().unwrap()["response"]["output"]);
    }

    #[test]
    fn what_fails_before_it_begins_begins_first() {
        let (mut encoder, mut out) = (encoder(), Events::default());
        encoder.error(ApiError::parameter("messages", "no").code("x"), &mut out);
        let told = out.parsed();
        assert_eq!(told[0]["type"], "response.created");
        let failed = &told[2];
        assert_eq!(failed["type"], "response.failed");
        assert_eq!(failed["response"]["status"], "failed");
        assert_eq!(failed["response"]["error"]["code"], "invalid_prompt");
        assert_eq!(failed["response"]["error"]["param"], "input");
    }
}
