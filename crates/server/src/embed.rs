//! Embeddings under way, in a task of their own that outlives the connection, as answers have.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use wushi_engine::{Event, Pooling, Ticket, normalise};

use crate::answer::cancelling;
use crate::app::App;
use crate::error::ApiError;
use crate::ledger::Entry;
use crate::pool::Lease;

/// Texts of one request that are under way together: a request for thousands leaves room for those of others.
const WINDOW: usize = 16;

/// The texts' vectors. If the caller gives up, so do the texts; there is a record in any case.
pub(crate) async fn embed(
    app: &App,
    lease: Lease,
    inputs: Vec<Vec<u32>>,
    pooling: Pooling,
    record: Entry,
) -> Result<Vec<Vec<f32>>, ApiError> {
    let (mut reply, vectors) = oneshot::channel();
    let (metrics, mut closing) = (app.metrics.clone(), app.closing.subscribe());
    tokio::spawn(async move {
        let (started, tokens) = (Instant::now(), inputs.iter().map(Vec::len).sum());
        let outcome = tokio::select! {
            biased;
            () = cancelling(&mut closing) => Err(ApiError::unavailable("the server is about to end", 5)),
            () = reply.closed() => Err(ApiError::gone()),
            done = embed_all(&lease, inputs, pooling) => done,
        };
        let (cached, how) = match &outcome {
            Ok((_, cached)) => (*cached, "ok"),
            Err(error) if error.is_gone() => (0, "cancelled"),
            Err(_) => (0, "failed"),
        };
        metrics.ended(lease.name(), (tokens, cached), how, started.elapsed());
        let recorded = record.write_embeddings(&outcome).await;
        // Nobody may be waiting any more.
        let _ = reply.send(outcome.and_then(|(vectors, _)| recorded.map(|()| vectors)));
    });
    vectors.await.unwrap_or_else(|_| Err(ApiError::internal("the embeddings broke off")))
}

/// The texts' vectors, and how many tokens were found in the prefix cache. Dropping this cancels what is under way.
pub(crate) async fn embed_all(
    lease: &Lease,
    inputs: Vec<Vec<u32>>,
    pooling: Pooling,
) -> Result<(Vec<Vec<f32>>, usize), ApiError> {
    let (sender, mut events) = mpsc::unbounded_channel();
    let (mut vectors, mut cached, mut left) = (vec![Vec::new(); inputs.len()], 0, inputs.len());
    let mut waiting = inputs.into_iter().enumerate();
    // In the engine's queue, as long as anything is to be submitted.
    let mut place = Some(lease.model.engine.place()?);
    let mut begin = || -> Result<Option<Ticket>, ApiError> {
        let Some((index, input)) = waiting.next() else {
            place = None;
            return Ok(None);
        };
        let Some(place) = &place else { return Ok(None) };
        let sender = sender.clone();
        let sink = move |event| drop(sender.send((index, event)));
        let ticket = lease.model.engine.embed_at(place, input, pooling, sink);
        ticket.map(Some).map_err(|error| ApiError::from(error).about(&format!("input[{index}]")))
    };
    // Those that have ended may be dropped with the others.
    let mut tickets = Vec::new();
    for _ in 0..WINDOW {
        tickets.extend(begin()?);
    }
    while left > 0 {
        match events.recv().await {
            Some((index, Event::Embedding(mut vector))) => {
                normalise(&mut vector);
                vectors[index] = vector;
            }
            Some((_, Event::Finished(finished))) => {
                cached += finished.usage.cached_tokens;
                left -= 1;
                tickets.extend(begin()?);
            }
            Some((_, Event::Failed(error))) => return Err(error.into()),
            Some((_, Event::Prompt(_) | Event::Token(_))) => {}
            None => return Err(ApiError::internal("the embeddings broke off")),
        }
    }
    Ok((vectors, cached))
}
