//! Embeddings of texts: a model's states of a text's tokens, pooled into one vector.

use std::sync::Arc;

use wushi_graph::{Batch, Executor, PageId};
use wushi_models::Pooling;

use crate::EngineError;
use crate::pool::Pool;

/// Runs an embedding model, one text at a time.
pub struct Embedder {
    executor: Box<dyn Executor>,
    pooling: Pooling,
    /// The only sequence has all pages.
    pages: Vec<PageId>,
    batch: Batch,
}

impl Embedder {
    /// Of an executor that takes a whole text in one step and gives states.
    pub(crate) fn new(executor: Box<dyn Executor>, pooling: Pooling) -> Self {
        let pages = (0..executor.info().pages as PageId).collect();
        Embedder { executor, pooling, pages, batch: Batch::default() }
    }

    /// Elements of an embedding.
    pub fn width(&self) -> usize {
        self.executor.info().vocab
    }

    /// The most tokens a text may have.
    pub fn context(&self) -> usize {
        self.executor.info().context
    }

    /// The embedding of a text's tokens, special ones included; not normalised.
    ///
    /// # Errors
    /// No tokens, or more than the context.
    pub fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        let context = self.context();
        if tokens.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if tokens.len() > context {
            return Err(EngineError::PromptTooLong { prompt: tokens.len(), answer: 0, context });
        }
        let mut pool = Pool::new(self.pooling, tokens.len());
        self.batch.clear();
        self.batch.push(tokens, 0, &self.pages);
        self.batch.state_rows.extend(pool.wanted());
        let width = self.width();
        let computed =
            self.executor.run(&self.batch).map_err(|error| EngineError::Executor(Arc::new(error)))?;
        computed.states.chunks_exact(width).for_each(|state| pool.add(state));
        pool.finish()
    }
}

/// Makes a vector's length 1; one of length 0 stays.
pub fn normalise(embedding: &mut [f32]) {
    let squares: f64 = embedding.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    if squares > 0.0 {
        let length = squares.sqrt();
        embedding.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_vectors_have_length_one() {
        let mut vector = [3.0, -4.0];
        normalise(&mut vector);
        assert_eq!(vector, [0.6, -0.8]);
        let mut nothing = [0.0; 3];
        normalise(&mut nothing);
        assert_eq!(nothing, [0.0; 3]);
    }
}
