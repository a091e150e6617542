//! Server-sent events (HTML standard, 9.2): an answer as it comes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Serialize;
use tokio::time::{Instant, Interval, interval, interval_at};

use crate::answer::{Answers, News};
use crate::error::ApiError;
use crate::pool::{Condition, ModelEntry};

/// Comments keep proxies from closing a connection on which nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How often those who wait for a model hear how far it is.
const LOADING_NEWS: Duration = Duration::from_millis(250);

/// Turns news into an API's events.
pub(crate) trait Encoder: Send + 'static {
    /// Says that the request has been taken in, where the API has a word for it.
    fn begin(&mut self, _out: &mut Events) {}

    /// Says what has happened.
    fn news(&mut self, news: News, out: &mut Events);

    /// Says what went wrong; nothing follows.
    fn error(&mut self, error: ApiError, out: &mut Events);
}

/// Events on their way to a client.
#[derive(Default)]
pub(crate) struct Events(VecDeque<Bytes>);

impl Events {
    /// An event without a name.
    pub(crate) fn data(&mut self, data: &impl Serialize) {
        self.push(None, data);
    }

    /// An event with a name.
    pub(crate) fn named(&mut self, name: &str, data: &impl Serialize) {
        self.push(Some(name), data);
    }

    /// An event with this very text, of one line.
    pub(crate) fn text(&mut self, text: &str) {
        self.0.push_back(format!("data: {text}\n\n").into());
    }

    /// What clients ignore and people may look at.
    pub(crate) fn comment(&mut self, text: impl std::fmt::Display) {
        self.0.push_back(format!(": {text}\n\n").into());
    }

    /// The data of all events; a name, where there is one, is the data's type.
    #[cfg(test)]
    pub(crate) fn parsed(self) -> Vec<serde_json::Value> {
        let parse = |event: Bytes| {
            let text = String::from_utf8(event.to_vec()).unwrap();
            let (name, data) = text.split_once("data: ").unwrap();
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            if let Some(name) = name.strip_prefix("event: ") {
                assert_eq!(data["type"], name.trim_end());
            }
            data
        };
        self.0.into_iter().map(parse).collect()
    }

    fn push(&mut self, name: Option<&str>, data: &impl Serialize) {
        let mut event = Vec::with_capacity(256);
        if let Some(name) = name {
            event.extend_from_slice(format!("event: {name}\n").as_bytes());
        }
        event.extend_from_slice(b"data: ");
        // JSON has no line breaks outside strings, and escapes those within.
        match serde_json::to_writer(&mut event, data) {
            Ok(()) => event.extend_from_slice(b"\n\n"),
            Err(error) => {
                tracing::error!(%error, "an event that is no JSON");
                return;
            }
        }
        self.0.push_back(event.into());
    }
}

/// What a request becomes when its model is ready.
pub(crate) type Start<E> = Pin<Box<dyn Future<Output = Result<(Answers, E), ApiError>> + Send>>;

/// Answers as a stream of events. Where the model is ready, what is wrong with the request is said as such; where it has to be
/// loaded first, the stream begins at once, tells how far it is, and ends with an error if it must.
///
/// # Errors
/// What is wrong with the request.
pub(crate) async fn respond<E: Encoder + Unpin>(
    model: &Arc<ModelEntry>,
    start: Start<E>,
    waiting: E,
) -> Result<Response, ApiError> {
    let mut events = Events::default();
    let (stage, encoder) = if model.is_ready() {
        let (answers, mut encoder) = start.await?;
        encoder.begin(&mut events);
        (Stage::Answering(answers), encoder)
    } else {
        (Stage::Starting { start, model: model.clone(), clock: interval(LOADING_NEWS) }, waiting)
    };
    let streamed =
        Streamed { stage, encoder, events, keep_alive: interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE) };
    let mut response = Body::from_stream(streamed).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would collect events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Streamed<E> {
    stage: Stage<E>,
    encoder: E,
    events: Events,
    keep_alive: Interval,
}

enum Stage<E> {
    Starting { start: Start<E>, model: Arc<ModelEntry>, clock: Interval },
    Answering(Answers),
    Over,
}

impl<E: Encoder + Unpin> Stream for Streamed<E> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.events.0.pop_front() {
                this.keep_alive.reset();
                return Poll::Ready(Some(Ok(event)));
            }
            match &mut this.stage {
                Stage::Over => return Poll::Ready(None),
                Stage::Starting { start, model, clock } => match start.as_mut().poll(context) {
                    Poll::Ready(Ok((answers, encoder))) => {
                        this.encoder = encoder;
                        this.encoder.begin(&mut this.events);
                        this.stage = Stage::Answering(answers);
                    }
                    Poll::Ready(Err(error)) => {
                        this.encoder.error(error, &mut this.events);
                        this.stage = Stage::Over;
                    }
                    Poll::Pending => {
                        if clock.poll_tick(context).is_ready() {
                            // What is not loading yet waits for its turn to.
                            let Condition { state, progress, .. } = model.condition();
                            if state != "ready" {
                                let share = progress.unwrap_or(0.0);
                                this.events.comment(format_args!("loading {share:.2}"));
                            }
                        } else if this.keep_alive.poll_tick(context).is_ready() {
                            this.events.comment("");
                        } else {
                            return Poll::Pending;
                        }
                    }
                },
                Stage::Answering(answers) => match answers.poll(context) {
                    Poll::Ready(Some(News::Queued(position))) => {
                        this.events.comment(format_args!("queue {position}"));
                    }
                    Poll::Ready(Some(News::Failed(error))) => {
                        this.encoder.error(error, &mut this.events);
                        this.stage = Stage::Over;
                    }
                    Poll::Ready(Some(news)) => {
                        let is_last = matches!(news, News::Done(_));
                        this.encoder.news(news, &mut this.events);
                        if is_last {
                            this.stage = Stage::Over;
                        }
                    }
                    Poll::Ready(None) => {
                        this.encoder.error(ApiError::internal("the answer broke off"), &mut this.events);
                        this.stage = Stage::Over;
                    }
                    Poll::Pending => {
                        if this.keep_alive.poll_tick(context).is_pending() {
                            return Poll::Pending;
                        }
                        this.events.comment("");
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Events;

    #[test]
    fn every_event_is_one_line_and_an_empty_one() {
        let mut events = Events::default();
        events.data(&"two\nlines");
        events.named("name", &1);
        events.comment("queue 3");
        events.text("[DONE]");
        let text: Vec<u8> = events.0.iter().flat_map(|event| event.to_vec()).collect();
        let expected = "data: \"two\\nlines\"\n\nevent: name\ndata: 1\n\n: queue 3\n\ndata: [DONE]\n\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
