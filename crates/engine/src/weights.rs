//! A checkpoint's weights, as they are stored or quantised anew on their way.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::thread;

use wushi_formats::Checkpoint;
use wushi_formats::gguf::GgmlType;
use wushi_graph::{DType, Graph, Lookup, Op, ReadError, Role, TensorDesc, WeightId, WeightSource};
use wushi_quant::{dequantize_into, quantize_into, storage};

/// Elements that a thread has in single precision at a time.
const CHUNK: usize = 1 << 16;

/// What a checkpoint gives a model. Nothing is read before it is asked for, and one tensor at a time.
#[derive(Debug)]
pub struct Weights {
    checkpoint: Checkpoint,
    /// Types of the tensors that change theirs.
    changed: HashMap<String, DType>,
    threads: usize,
    /// What was wanted and could not be: for people.
    instead: Option<String>,
}

impl Weights {
    /// As they are stored.
    pub fn stored(checkpoint: Checkpoint) -> Weights {
        Weights { checkpoint, changed: HashMap::new(), threads: 1, instead: None }
    }

    /// Those of `graph` quantised to `wanted`, as far as that is sensible (see [`storage`]), by so many threads.
    pub fn quantised(checkpoint: Checkpoint, graph: &Graph, wanted: DType, threads: usize) -> Weights {
        let logits = logits_weight(graph).map(|id| graph.weight(id).name.as_str());
        let kept = kept(graph);
        let mut changed = HashMap::new();
        let mut given = BTreeMap::<DType, usize>::new();
        for decl in graph.weights() {
            let Some(TensorDesc { dtype, shape }) = checkpoint.describe(&decl.name) else { continue };
            let row = shape.last().copied().unwrap_or(1);
            if kept.contains(decl.name.as_str()) {
                continue;
            }
            let becomes = storage(decl.role, logits == Some(decl.name.as_str()), wanted, row);
            if decl.role != Role::Vector {
                *given.entry(becomes).or_default() += 1;
            }
            if becomes != dtype && decl.role != Role::Vector {
                changed.insert(decl.name.clone(), becomes);
            }
        }
        Weights { checkpoint, changed, threads: threads.max(1), instead: instead(wanted, &given) }
    }

    /// Which matrices have another type than was wanted, in a sentence; `None` if all have it.
    pub fn instead(&self) -> Option<&str> {
        self.instead.as_deref()
    }

    /// The files.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The type that a tensor is given as.
    pub fn ggml_type(&self, name: &str) -> Option<GgmlType> {
        let stored = self.checkpoint.tensor_info(name)?.ggml_type;
        Some(self.changed.get(name).map_or(stored, |&dtype| dtype.into()))
    }

    /// The type that most elements are given as.
    pub fn main_type(&self) -> Option<GgmlType> {
        let mut totals = HashMap::<GgmlType, u64>::new();
        for tensor in self.checkpoint.tensors() {
            let given = self.changed.get(&tensor.name).map_or(tensor.ggml_type, |&dtype| dtype.into());
            *totals.entry(given).or_default() += tensor.elements() as u64;
        }
        totals.into_iter().max_by_key(|&(given, elements)| (elements, given)).map(|(given, _)| given)
    }

    /// Whether any tensor changes its type.
    pub fn changes(&self) -> bool {
        !self.changed.is_empty()
    }

    fn quantise(&self, name: &str, wanted: DType) -> Result<Vec<u8>, ReadError> {
        let missing = || ReadError::missing(name);
        let TensorDesc { dtype, shape } = self.checkpoint.describe(name).ok_or_else(missing)?;
        let elements: usize = shape.iter().product();
        let stored = self.checkpoint.read(name)?;
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

/// How many matrices have which type rather than the one that was wanted.
fn instead(wanted: DType, given: &BTreeMap<DType, usize>) -> Option<String> {
    let all: usize = given.values().sum();
    let others: Vec<String> = given
        .iter()
        .filter(|&(&dtype, _)| dtype != wanted)
        .map(|(dtype, count)| format!("{count} are {dtype}"))
        .collect();
    let others = others.join(", ");
    let why = "as the length of their rows or their place at the output asks for";
    (!others.is_empty()).then(|| format!("of {all} matrices {others} instead of {wanted}, {why}"))
}

/// Weights that keep their type, as in llama.cpp (`src/llama-quant.cpp`, MIT): routers, whose least error sends a token
/// to another expert, and small tables that are looked up otherwise than by token.
fn kept(graph: &Graph) -> HashSet<&str> {
    let mut kept = HashSet::new();
    for node in graph.nodes() {
        let id = match node.op {
            Op::Embed { table, lookup: Lookup::Position | Lookup::Row(_) } => table,
            Op::Route(_) => match graph.node(node.inputs[0]).op {
                Op::Linear { weight, .. } => weight,
                _ => continue,
            },
            _ => continue,
        };
        kept.insert(graph.weight(id).name.as_str());
    }
    kept
}

/// Where a run of elements begins, its bytes as stored, and as wanted.
type Share<'a> = (usize, &'a [u8], &'a mut [u8]);

impl WeightSource for Weights {
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>> {
        let stored = self.checkpoint.describe(name)?;
        Some(TensorDesc { dtype: self.changed.get(name).copied().unwrap_or(stored.dtype), ..stored })
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        match self.changed.get(name) {
            None => self.checkpoint.read(name),
            Some(&wanted) => self.quantise(name, wanted).map(Cow::Owned),
        }
    }

    fn release(&self, name: &str) {
        self.checkpoint.release(name);
    }
}

/// The matrix whose rows give the logits.
fn logits_weight(graph: &Graph) -> Option<WeightId> {
    let mut value = graph.output();
    loop {
        let node = graph.node(value);
        match node.op {
            Op::Linear { weight, .. } => return Some(weight),
            Op::Softcap(_) | Op::Scale(_) => value = *node.inputs.first()?,
            _ => return None,
        }
    }
}
