//! What is added to attention's scores, as kernels read it.

use wushi_graph::ScoreBias;

use crate::kernels::{Bias, PAGE_TOKENS};
use crate::model::Weights;
use crate::program::BiasKind;

/// The biases of one kind of layer.
pub(crate) struct ScoreTable {
    values: Vec<f32>,
    /// Element of a query at position 0 and key 0 of head 0.
    zero: usize,
    /// Elements from head to head, and from query to query.
    heads: usize,
    queries: usize,
}

impl ScoreTable {
    pub(crate) fn new(kind: &BiasKind, weights: &Weights) -> Self {
        let BiasKind { bias, heads, keys } = *kind;
        match bias {
            ScoreBias::None => unreachable!("has no table"),
            ScoreBias::LastKey(last) => {
                let mut values = vec![0.0; keys + PAGE_TOKENS];
                values[keys - 1] = last;
                ScoreTable { values, zero: 0, heads: 0, queries: 0 }
            }
            ScoreBias::Relative(bias) => {
                let table = weights.vector(bias.table).values();
                // All distances from the last query to the first key, to those from the first query to the last key.
                let row = 2 * keys - 1 + PAGE_TOKENS;
                let mut values = vec![0.0; heads * row];
                for (head, row) in values.chunks_mut(row).enumerate() {
                    for (i, value) in row[..2 * keys - 1].iter_mut().enumerate() {
                        *value = table[bias.bucket(i as isize - (keys as isize - 1)) * heads + head];
                    }
                }
                ScoreTable { values, zero: keys - 1, heads: row, queries: 1 }
            }
        }
    }

    pub(crate) fn bytes(kind: &BiasKind) -> usize {
        let row = match kind.bias {
            ScoreBias::Relative(_) => kind.heads * (2 * kind.keys - 1 + PAGE_TOKENS),
            _ => kind.keys + PAGE_TOKENS,
        };
        4 * row
    }

    pub(crate) fn bias(&self) -> Bias {
        // Kernels go back from here, so the pointer must be one to all values.
        let base = self.values.as_ptr().wrapping_add(self.zero);
        Bias { base, heads: self.heads, queries: self.queries }
    }
}
