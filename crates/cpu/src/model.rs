//! Weights bound to a graph: checked first, then repacked by the whole team, tensor by tensor.

use std::borrow::Cow;
use std::sync::Mutex;

use wushi_graph::{DType, Graph, Role, TensorDesc, TensorView, WeightDecl, WeightId, WeightSource};

use crate::executor::CpuError;
use crate::simd::PANEL;
use crate::team::Team;
use crate::weights::{Matrix, MatrixShape, Vector, WeightError};

/// A graph's weights as kernels read them.
pub(crate) struct Weights {
    slots: Vec<Slot>,
}

enum Slot {
    Matrix(Matrix),
    Vector(Vector),
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
    Ok(found)
}

/// The dtype of every declared weight; an error if one is missing or has another shape.
pub(crate) fn dtypes(graph: &Graph, source: &dyn WeightSource) -> Result<Vec<DType>, WeightError> {
    graph.weights().iter().map(|decl| Ok(check(source, decl)?.dtype)).collect()
}

/// Bytes all weights take.
pub(crate) fn planned_bytes(graph: &Graph, dtypes: &[DType]) -> usize {
    let sizes = graph.weights().iter().zip(dtypes).map(|(decl, &dtype)| match decl.role {
        Role::Vector => decl.shape[0].next_multiple_of(PANEL) * 4,
        Role::Embedding | Role::Matrix | Role::Experts => {
            Matrix::planned_bytes(dtype, MatrixShape::of(&decl.shape))
        }
    });
    sizes.sum()
}

impl Weights {
    /// Repacks every weight; the source's pages are released one tensor after the other. The largest come first, so that
    /// little of the source is in memory when nearly all of the weights are.
    pub(crate) fn load(graph: &Graph, source: &dyn WeightSource, team: &Team) -> Result<Self, CpuError> {
        let decls = graph.weights();
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
            let decl = &decls[place];
            let TensorDesc { dtype, shape } = check(source, decl)?;
            let (_, bytes) = match held.take().filter(|(name, _)| *name == decl.name) {
                Some(same) => held.insert(same),
                None => held.insert((&decl.name, source.read(&decl.name).map_err(WeightError::Read)?)),
            };
            let view = TensorView { dtype, shape, bytes: decl.bytes_in(bytes) };
            slots[place] = Some(match decl.role {
                Role::Vector => Slot::Vector(Vector::read(&view).ok_or_else(|| not_finite(decl, 0))?),
                Role::Embedding | Role::Matrix | Role::Experts => Slot::Matrix(pack(decl, &view, team)?),
            });
            source.release(&decl.name);
        }
        Ok(Weights { slots: slots.into_iter().map(|slot| slot.expect("every place was filled")).collect() })
    }

    pub(crate) fn bytes(&self) -> usize {
        let bytes = |slot: &Slot| match slot {
            Slot::Matrix(matrix) => matrix.bytes(),
            Slot::Vector(vector) => vector.bytes(),
        };
        self.slots.iter().map(bytes).sum()
    }

    pub(crate) fn matrix(&self, id: WeightId) -> &Matrix {
        match &self.slots[id.index()] {
            Slot::Matrix(matrix) => matrix,
            Slot::Vector(_) => unreachable!("declared as a matrix"),
        }
    }

    pub(crate) fn vector(&self, id: WeightId) -> &Vector {
        match &self.slots[id.index()] {
            Slot::Vector(vector) => vector,
            Slot::Matrix(_) => unreachable!("declared as a vector"),
        }
    }
}

fn not_finite(decl: &WeightDecl, row: usize) -> WeightError {
    WeightError::NotFinite { name: decl.name.clone(), row }
}

fn pack(decl: &WeightDecl, view: &TensorView<'_>, team: &Team) -> Result<Matrix, CpuError> {
    let matrix = Matrix::new(view.dtype, MatrixShape::of(&decl.shape))?;
    let bad = Mutex::new(None::<usize>);
    let (threads, panels) = (team.threads(), matrix.panels());
    team.run(&|thread| {
        let share = panels * thread / threads..panels * (thread + 1) / threads;
        // SAFETY: the threads' shares do not overlap, and nobody reads before the team is done.
        if let Some(row) = unsafe { matrix.pack(view, share) } {
            let mut bad = bad.lock().unwrap_or_else(|e| e.into_inner());
            *bad = Some(bad.map_or(row, |other| other.min(row)));
        }
    });
    match bad.into_inner().unwrap_or_else(|e| e.into_inner()) {
        None => Ok(matrix),
        Some(row) => Err(not_finite(decl, row).into()),
    }
}
