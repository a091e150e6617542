//! For tests: an answer without a model, and what encoders make of it.

use std::time::Duration;

use serde_json::Value;
use wushi_engine::{FinishReason, Finished};

use crate::answer::{Delta, Ended, News, Reason, Summary};
use crate::openai::chat::Head;
use crate::speech::Piece;
use crate::sse::{Encoder, Events};
use crate::whole::Said;

pub(crate) fn head(id: &str) -> Head {
    Head { id: id.to_owned(), created: 1, model: "m".to_owned(), fingerprint: "f".to_owned() }
}

pub(crate) fn summary() -> Summary {
    Summary {
        seed: 7,
        prompt_tokens: 10,
        cached_tokens: 4,
        completion_tokens: 5,
        digests: Vec::new(),
        queue: Duration::ZERO,
        ttft: Duration::ZERO,
        prefill_rate: None,
        decode_rate: None,
        reasoning_tokens: 1,
    }
}

/// A thought, a text in two pieces, a call with arguments in two.
pub(crate) fn pieces() -> Vec<Piece> {
    let fragment = |fragment: &str| Piece::Arguments { index: 0, fragment: fragment.to_owned() };
    vec![
        Piece::Reasoning("Hm.".to_owned()),
        Piece::Text("Let me ".to_owned()),
        Piece::Text("see.".to_owned()),
        Piece::Call { index: 0, id: "call_1".to_owned(), name: "weather".to_owned() },
        fragment("{\"city\":"),
        fragment("\"Paris\"}"),
    ]
}

fn ended(reason: Reason) -> Ended {
    let finished = Finished {
        reason: FinishReason::Length,
        tail: String::new(),
        usage: Default::default(),
        timings: Default::default(),
        logits_digest: None,
    };
    Ended { choice: 0, reason, finished }
}

/// The answer of these pieces, whole.
pub(crate) fn said(pieces: Vec<Piece>, reason: Reason) -> Said {
    let mut said = Said { ended: Some(ended(reason)), ..Said::default() };
    pieces.into_iter().for_each(|piece| said.take(piece, Vec::new()));
    said
}

/// The events of an answer of these pieces.
pub(crate) fn events(mut encoder: impl Encoder, pieces: Vec<Piece>, reason: Reason) -> Vec<Value> {
    let mut out = Events::default();
    encoder.begin(&mut out);
    for piece in pieces {
        let delta = Delta { choice: 0, pieces: vec![piece], tokens: vec![1], logprobs: Vec::new() };
        encoder.news(News::Delta(delta), &mut out);
    }
    encoder.news(News::Ended(ended(reason)), &mut out);
    encoder.news(News::Done(Box::new(summary())), &mut out);
    out.parsed()
}
