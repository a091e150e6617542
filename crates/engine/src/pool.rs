//! A text's embedding from its tokens' states.

use std::ops::Range;

use wushi_models::Pooling;

use crate::EngineError;

/// States of one text, pooled as they come: in the order of tokens, whatever the steps they come in.
pub(crate) struct Pool {
    /// Positions whose states are still wanted.
    wanted: Range<usize>,
    /// How many went in.
    count: usize,
    /// Of F64, so that long texts lose nothing; a single state stays as it is.
    sums: Vec<f64>,
}

impl Pool {
    /// For a text of so many tokens, at least one.
    pub(crate) fn new(pooling: Pooling, tokens: usize) -> Self {
        let wanted = match pooling {
            Pooling::Mean => 0..tokens,
            Pooling::First => 0..1,
            Pooling::Last => tokens - 1..tokens,
        };
        Pool { wanted, count: 0, sums: Vec::new() }
    }

    /// The positions whose states are still wanted.
    pub(crate) fn wanted(&self) -> Range<usize> {
        self.wanted.clone()
    }

    /// Takes in the state of the first wanted position.
    pub(crate) fn add(&mut self, state: &[f32]) {
        self.wanted.start += 1;
        self.count += 1;
        self.sums.resize(state.len(), 0.0);
        self.sums.iter_mut().zip(state).for_each(|(sum, &x)| *sum += f64::from(x));
    }

    /// The embedding, once nothing is wanted any more.
    pub(crate) fn finish(&self) -> Result<Vec<f32>, EngineError> {
        let count = self.count as f64;
        let embedding: Vec<f32> = self.sums.iter().map(|sum| (sum / count) as f32).collect();
        match embedding.iter().find(|x| !x.is_finite()) {
            None => Ok(embedding),
            Some(&value) => Err(EngineError::NonFiniteEmbedding { value }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_pooled_in_order() {
        let states = [[1.0, -0.0], [2.0, 5.0], [4.5, 0.1]];
        let pooled = |pooling| {
            let mut pool = Pool::new(pooling, states.len());
            pool.wanted().for_each(|position| pool.add(&states[position]));
            assert!(pool.wanted().is_empty());
            pool.finish().unwrap()
        };
        assert_eq!(pooled(Pooling::Mean), [2.5, ((5.0 + f64::from(0.1f32)) / 3.0) as f32]);
        assert_eq!(pooled(Pooling::First), [1.0, 0.0]);
        assert_eq!(pooled(Pooling::Last), [4.5, 0.1]);
        let mut damaged = Pool::new(Pooling::Last, 1);
        damaged.add(&[0.0, f32::NAN]);
        assert!(matches!(damaged.finish(), Err(EngineError::NonFiniteEmbedding { value }) if value.is_nan()));
    }
}
