//! Weights bound to a graph: checked first, then repacked by the whole team, tensor by tensor.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use wushi_graph::{DType, Graph, Op, Role, TensorDesc, TensorView, WeightDecl, WeightId, WeightSource};

use crate::executor::CpuError;
use crate::run::Piece;
use crate::simd::PANEL;
use crate::team::Team;
use crate::weights::{Matrix, MatrixShape, Vector, WeightError};

/// A graph's weights as kernels read them. Graphs that are loaded together share those that they declare alike.
pub(crate) struct Weights {
    slots: Vec<Arc<Slot>>,
    /// Ones and zeros for norms without weights, as long as the widest of them.
    plain: [Vec<f32>; 2],
}

enum Slot {
    Matrix(Matrix),
    Vector(Vector),
}

impl Slot {
    fn bytes(&self) -> usize {
        match self {
            Slot::Matrix(matrix) => matrix.bytes(),
            Slot::Vector(vector) => vector.bytes(),
        }
    }
}

fn check<'a>(source: &'a dyn WeightSource, decl: &WeightDecl) -> Result<TensorDesc<'a>, WeightError> {
    let name = decl.name.clone();
    let found = source.describe(&decl.name).ok_or(WeightError::Missing { name: name.clone() })?;
    if found.shape != decl.tensor_shape() {
        return Err(WeightError::Shape { name, found: found.shape.to_vec(), expected: decl.tensor_shape() });
    }
    let (inputs, block) = (found.shape.last().copied().unwrap_or(0), found.dtype.block_elements());
    if !inputs.is_multiple_of(block) {
        return Err(WeightError::PartialBlock { name, dtype: found.dtype, inputs });
    }
    let quantised_vector = decl.role == Role::Vector && found.dtype.block_elements() > 1;
    if quantised_vector {
        return Err(WeightError::QuantisedVector { name, dtype: found.dtype });
    }
    if decl.role == Role::Kernel && found.dtype.block_elements() > 1 {
        return Err(WeightError::QuantisedKernel { name, dtype: found.dtype });
    }
    Ok(found)
}

/// The dtype of every declared weight; an error if one is missing or has another shape.
pub(crate) fn dtypes(graph: &Graph, source: &dyn WeightSource) -> Result<Vec<DType>, WeightError> {
    graph.weights().iter().map(|decl| Ok(check(source, decl)?.dtype)).collect()
}

/// Bytes of a tensor that are repacked in one turn.
const TURN_BYTES: usize = 8 << 20;

/// Weights by declaration, for graphs that share them.
pub(crate) struct Shelf {
    slots: HashMap<WeightDecl, Arc<Slot>>,
}

impl Shelf {
    /// All weights of these graphs.
    pub(crate) fn load(graphs: &[&Graph], source: &dyn WeightSource, team: &Team) -> Result<Self, CpuError> {
        let mut seen = HashSet::new();
        let decls: Vec<&WeightDecl> =
            graphs.iter().flat_map(|graph| graph.weights()).filter(|decl| seen.insert(*decl)).collect();
        let slots = Weights::load_slots(&decls, source, team)?;
        Ok(Shelf { slots: decls.into_iter().cloned().zip(slots).collect() })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.slots.values().map(|slot| slot.bytes()).sum()
    }

    /// The weights of a graph, if all are here.
    pub(crate) fn bind(&self, graph: &Graph) -> Result<Weights, WeightError> {
        let slot = |decl: &WeightDecl| {
            self.slots.get(decl).cloned().ok_or_else(|| WeightError::Missing { name: decl.name.clone() })
        };
        let slots = graph.weights().iter().map(slot).collect::<Result<_, _>>()?;
        let plain = plain_width(graph).next_multiple_of(PANEL);
        Ok(Weights { slots, plain: [vec![1.0; plain], vec![0.0; plain]] })
    }
}

/// Bytes all weights of these graphs take, with their dtypes; what is declared alike counts once.
pub(crate) fn planned_bytes(graphs: &[(&Graph, &[DType])]) -> usize {
    let all = graphs.iter().flat_map(|(graph, dtypes)| graph.weights().iter().zip(*dtypes));
    let decls: HashMap<&WeightDecl, &DType> = all.collect();
    let sizes = decls.into_iter().map(|(decl, &dtype)| match decl.role {
        Role::Vector => decl.shape.iter().product::<usize>().next_multiple_of(PANEL) * 4,
        Role::Embedding | Role::Matrix | Role::Experts | Role::Kernel => {
            Matrix::planned_bytes(dtype, MatrixShape::of(&decl.shape))
        }
    });
    sizes.sum()
}

impl Weights {
    /// Repacks every weight; the source's pages are released one tensor after the other. The largest come first, so that
    /// little of the source is in memory when nearly all of the weights are.
    pub(crate) fn load(graph: &Graph, source: &dyn WeightSource, team: &Team) -> Result<Self, CpuError> {
        Ok(Shelf::load(&[graph], source, team)?.bind(graph).expect("all were loaded"))
    }

    fn load_slots(
        decls: &[&WeightDecl],
        source: &dyn WeightSource,
        team: &Team,
    ) -> Result<Vec<Arc<Slot>>, CpuError> {
        let mut order = Vec::with_capacity(decls.len());
        for (place, decl) in decls.iter().enumerate() {
            let found = check(source, decl)?;
            order.push((found.dtype.bytes_of(found.shape.iter().product()), place));
        }
        // Stable: weights that share a tensor still follow each other.
        order.sort_by_key(|&(bytes, _)| std::cmp::Reverse(bytes));
        let mut slots: Vec<Option<Slot>> = decls.iter().map(|_| None).collect();
        // A shared tensor is read, and made if need be, once for all of its weights.
        let mut held = None::<(&str, Cow<'_, [u8]>)>;
        for (_, place) in order {
            if team.stopped() {
                return Err(CpuError::Stopped);
            }
            let decl = decls[place];
            let TensorDesc { dtype, shape } = check(source, decl)?;
            let (_, bytes) = match held.take().filter(|(name, _)| *name == decl.name) {
                Some(same) => held.insert(same),
                None => held.insert((&decl.name, source.read(&decl.name).map_err(WeightError::Read)?)),
            };
            let view = TensorView { dtype, shape, bytes: decl.bytes_in(bytes) };
            slots[place] = Some(match decl.role {
                Role::Vector => Slot::Vector(Vector::read(&view).ok_or_else(|| not_finite(decl, 0))?),
                Role::Embedding | Role::Matrix | Role::Experts => Slot::Matrix(pack(decl, &view, team)?),
                Role::Kernel => {
                    let bytes = channels_last(&view);
                    Slot::Matrix(pack(decl, &TensorView { bytes: &bytes, ..view }, team)?)
                }
            });
            source.release(&decl.name);
        }
        Ok(slots.into_iter().map(|slot| Arc::new(slot.expect("every place was filled"))).collect())
    }

    /// Ones and zeros, as long as the widest norm without weights.
    pub(crate) fn plain(&self) -> [&[f32]; 2] {
        [&self.plain[0], &self.plain[1]]
    }

    pub(crate) fn bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.bytes()).sum()
    }

    /// The dtype of every weight as kernels read it.
    pub(crate) fn dtypes(&self) -> Vec<DType> {
        let dtype = |slot: &Arc<Slot>| match &**slot {
            Slot::Matrix(matrix) => matrix.dtype,
            Slot::Vector(_) => DType::F32,
        };
        self.slots.iter().map(dtype).collect()
    }

    pub(crate) fn matrix(&self, id: WeightId) -> &Matrix {
        match &*self.slots[id.index()] {
            Slot::Matrix(matrix) => matrix,
            Slot::Vector(_) => unreachable!("declared as a matrix"),
        }
    }

    pub(crate) fn vector(&self, id: WeightId) -> &Vector {
        match &*self.slots[id.index()] {
            Slot::Vector(vector) => vector,
            Slot::Matrix(_) => unreachable!("declared as a vector"),
        }
    }
}

/// The widest norm that has no weights.
fn plain_width(graph: &Graph) -> usize {
    let widths = graph.nodes().iter().filter_map(|node| match node.op {
        Op::LayerNorm { affine: None, .. } => node.shape.width(),
        _ => None,
    });
    widths.max().unwrap_or(0)
}

/// A convolution's `[outputs, channels, taps…]` as `[outputs, taps…, channels]`: as the patches of a feature map are.
fn channels_last(view: &TensorView<'_>) -> Vec<u8> {
    let (element, channels) = (view.dtype.block_bytes(), view.shape[1]);
    let taps: usize = view.shape[2..].iter().product();
    let mut out = Vec::with_capacity(view.bytes.len());
    for kernel in view.bytes.chunks_exact(channels * taps * element) {
        for tap in 0..taps {
            for channel in 0..channels {
                out.extend_from_slice(&kernel[(channel * taps + tap) * element..][..element]);
            }
        }
    }
    out
}

fn not_finite(decl: &WeightDecl, row: usize) -> WeightError {
    WeightError::NotFinite { name: decl.name.clone(), row }
}

/// Has the system read mapped bytes, so that nobody waits for the disk while he holds the team.
fn fetch(bytes: &[u8]) {
    const PAGE: usize = 4096;
    let sum = bytes.iter().step_by(PAGE).fold(0u8, |sum, byte| sum ^ byte);
    std::hint::black_box(sum);
}

fn pack(decl: &WeightDecl, view: &TensorView<'_>, team: &Team) -> Result<Matrix, CpuError> {
    let matrix = Matrix::new(view.dtype, MatrixShape::of(&decl.shape))?;
    let bad = Mutex::new(None::<usize>);
    let (threads, panels) = (team.threads(), matrix.panels());
    // Where others come first, no turn is long.
    let mut of = 1;
    if team.gives_way() || team.follow().is_some() {
        of = view.bytes.len().div_ceil(TURN_BYTES).max(1);
    }
    if team.gives_way() {
        fetch(view.bytes);
    }
    for index in 0..of {
        if team.stopped() {
            return Err(CpuError::Stopped);
        }
        team.run(&|thread| {
            let share = panels * thread / threads..panels * (thread + 1) / threads;
            // SAFETY: the threads' shares do not overlap, and nobody reads before the team is done.
            if let Some(row) = unsafe { matrix.pack(view, Piece { index, of }.part(share)) } {
                let mut bad = bad.lock().unwrap_or_else(|e| e.into_inner());
                *bad = Some(bad.map_or(row, |other| other.min(row)));
            }
        });
    }
    match bad.into_inner().unwrap_or_else(|e| e.into_inner()) {
        None => Ok(matrix),
        Some(row) => Err(not_finite(decl, row).into()),
    }
}
