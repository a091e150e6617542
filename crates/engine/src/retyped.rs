//! Weights that are given in other types than they are stored in, quantised or rounded on their way.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wushi_cpu::Team;
use wushi_graph::{DType, ReadError, TensorDesc, WeightSource};
use wushi_quant::{dequantize_into, quantize_into};

/// Elements that a thread has in single precision at a time.
const CHUNK: usize = 1 << 16;
/// Chunks of a thread in one turn of the team.
const TURN: usize = 8;

/// A source some of whose tensors change their type. Nothing is read before it is asked for, and one tensor at a time.
#[derive(Debug)]
pub(crate) struct Retyped<S> {
    source: S,
    /// Types of the tensors that change theirs.
    changed: HashMap<String, DType>,
    /// Who does the work; whoever reads if nobody.
    team: Option<Team>,
}

/// Where a run of elements begins, its bytes as stored, and as wanted.
type Share<'a> = (usize, &'a [u8], &'a mut [u8]);

/// What nobody leaves half done.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: WeightSource> Retyped<S> {
    /// `changed` are the types of those tensors that change theirs.
    pub(crate) fn new(source: S, changed: HashMap<String, DType>, team: Option<Team>) -> Retyped<S> {
        Retyped { source, changed, team }
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
        let shares: Vec<Mutex<Share<'_>>> = stored
            .chunks(from)
            .zip(blocks.chunks_mut(to))
            .enumerate()
            .map(|(index, (stored, blocks))| Mutex::new((index * chunk, stored, blocks)))
            .collect();
        let failed = Mutex::new(None::<(usize, String)>);
        let threads = self.team.as_ref().map_or(1, Team::threads);
        for turn in shares.chunks(TURN * threads) {
            let job = |thread: usize| {
                let mut values = Vec::new();
                for share in turn.iter().skip(thread).step_by(threads) {
                    let (start, stored, blocks) = &mut *held(share);
                    values.resize(stored.len() / dtype.block_bytes() * dtype.block_elements(), 0.0);
                    dequantize_into(dtype, stored, &mut values);
                    if let Err(error) = quantize_into(wanted, &values, blocks) {
                        let mut failed = held(&failed);
                        if failed.as_ref().is_none_or(|(first, _)| *start < *first) {
                            *failed = Some((*start, error.to_string()));
                        }
                    }
                }
            };
            match &self.team {
                Some(team) => team.run(&job),
                None => job(0),
            }
            if let Some((start, error)) = held(&failed).take() {
                let place = if start == 0 { String::new() } else { format!("counted from {start}, ") };
                return Err(bad(format!("cannot become {wanted}: {place}{error}")));
            }
        }
        drop(shares);
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
