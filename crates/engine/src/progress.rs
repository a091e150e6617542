//! How far loading is.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use wushi_graph::{Graph, ReadError, TensorDesc, WeightSource};

/// A source that tells what share of the weights has been taken over.
pub(crate) struct Watched<'a> {
    source: &'a dyn WeightSource,
    /// Elements of all weights' tensors.
    total: u64,
    done: AtomicU64,
    report: &'a (dyn Fn(f64) + Sync),
}

impl<'a> Watched<'a> {
    pub(crate) fn new(source: &'a dyn WeightSource, graph: &Graph, report: &'a (dyn Fn(f64) + Sync)) -> Self {
        // Weights that are rows of one tensor are taken over one by one.
        let total =
            graph.weights().iter().filter_map(|weight| source.describe(&weight.name)).map(elements).sum();
        Watched { source, total, done: AtomicU64::new(0), report }
    }
}

fn elements(tensor: TensorDesc<'_>) -> u64 {
    tensor.shape.iter().map(|&extent| extent as u64).product()
}

impl WeightSource for Watched<'_> {
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>> {
        self.source.describe(name)
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        self.source.read(name)
    }

    fn release(&self, name: &str) {
        self.source.release(name);
        let more = self.source.describe(name).map_or(0, elements);
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        (self.report)(done as f64 / self.total.max(1) as f64);
    }
}
