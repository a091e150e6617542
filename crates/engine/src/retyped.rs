//! Weights that are given in other types than they are stored in, quantised or rounded on their way.

use std::borrow::Cow;
use std::collections::HashMap;
use std::thread;

use wushi_graph::{DType, ReadError, TensorDesc, WeightSource};
use wushi_quant::{dequantize_into, quantize_into};

/// Elements that a thread has in single precision at a time.
const CHUNK: usize = 1 << 16;

/// A source some of whose tensors change their type. Nothing is read before it is asked for, and one tensor at a time.
#[derive(Debug)]
pub(crate) struct Retyped<S> {
    source: S,
    /// Types of the tensors that change theirs.
    changed: HashMap<String, DType>,
    threads: usize,
}

/// Where a run of elements begins, its bytes as stored, and as wanted.
type Share<'a> = (usize, &'a [u8], &'a mut [u8]);

impl<S: WeightSource> Retyped<S> {
    /// `changed` are the types of those tensors that change theirs; so many threads share the work.
    pub(crate) fn new(source: S, changed: HashMap<String, DType>, threads: usize) -> Retyped<S> {
        Retyped { source, changed, threads: threads.max(1) }
    }

    /// What is read.
    pub(crate) fn source(&self) -> &S {
        &self.source
    }

    /// Types of the tensors that change theirs.
    pub(crate) fn changed(&self) -> &HashMap<String, DType> {
        &self.changed
    }

    fn quantise(&self, name: &str, wanted: DType) -> Result<Vec<u8>, ReadError> {
        let missing = || ReadError::missing(name);
        let TensorDesc { dtype, shape } = self.source.describe(name).ok_or_else(missing)?;
        let elements: usize = shape.iter().product();
        let stored = self.source.read(name)?;
        let bad = |problem: String| ReadError { name: name.to_owned(), problem };
        let length = wanted.bytes_of(elements).ok_or_else(|| bad(format!("cannot be stored as {wanted}")))?;
        let mut blocks = vec![0; length];
        // Both types have whole blocks in it.
        let chunk = CHUNK.next_multiple_of(wanted.block_elements() * dtype.block_elements());
        let (from, to) = (dtype.bytes_of(chunk).unwrap_or(length), wanted.bytes_of(chunk).unwrap_or(length));
        let mut shares: Vec<Vec<Share<'_>>> = (0..self.threads).map(|_| Vec::new()).collect();
        for (index, share) in stored.chunks(from).zip(blocks.chunks_mut(to)).enumerate() {
            shares[index % self.threads].push((index * chunk, share.0, share.1));
        }
        let work = |shares: Vec<Share<'_>>| -> Result<(), (usize, String)> {
            let mut values = Vec::new();
            for (start, stored, blocks) in shares {
                values.resize(stored.len() / dtype.block_bytes() * dtype.block_elements(), 0.0);
                dequantize_into(dtype, stored, &mut values);
                quantize_into(wanted, &values, blocks).map_err(|error| (start, error.to_string()))?;
            }
            Ok(())
        };
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = shares.into_iter().map(|shares| scope.spawn(|| work(shares))).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        for result in results {
            match result {
                Ok(Ok(())) => {}
                Ok(Err((start, error))) => {
                    let place = if start == 0 { String::new() } else { format!("counted from {start}, ") };
                    return Err(bad(format!("cannot become {wanted}: {place}{error}")));
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(blocks)
    }
}

impl<S: WeightSource> WeightSource for Retyped<S> {
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>> {
        let stored = self.source.describe(name)?;
        Some(TensorDesc { dtype: self.changed.get(name).copied().unwrap_or(stored.dtype), ..stored })
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        match self.changed.get(name) {
            None => self.source.read(name),
            Some(&wanted) => self.quantise(name, wanted).map(Cow::Owned),
        }
    }

    fn release(&self, name: &str) {
        self.source.release(name);
    }
}
