//! Angles of rotary position embedding, in double precision: built once a step and passed to kernels as operands.

use crate::program::RopeKind;
use crate::reference::{grid_frequencies, rope_frequencies};

/// What a row of a table is computed from.
pub(crate) struct Turns {
    /// Radians of each pair per step along its axis.
    frequencies: Vec<f64>,
    /// The axis that each pair turns by.
    axes: Vec<usize>,
    magnitude: f64,
    kind: RopeKind,
}

impl Turns {
    /// `factors` divide the frequencies of a sequence.
    pub(crate) fn new(kind: &RopeKind, factors: Option<&[f32]>) -> Self {
        let (frequencies, magnitude) = match kind {
            RopeKind::Sequence { rope, .. } => (rope_frequencies(rope, factors), rope.magnitude),
            RopeKind::Grid(rope) => (grid_frequencies(rope), 1.0),
        };
        let axes = match kind {
            RopeKind::Sequence { .. } => vec![0; frequencies.len()],
            RopeKind::Grid(rope) => {
                rope.axes.iter().enumerate().flat_map(|(axis, n)| std::iter::repeat_n(axis, n / 2)).collect()
            }
        };
        Turns { frequencies, axes, magnitude: f64::from(magnitude), kind: kind.clone() }
    }

    /// Fills the table's row of a place in the sequence, or of a row of the grid: cosines, then sines.
    pub(crate) fn fill(&self, position: usize, row: &mut [f32]) {
        let place = match &self.kind {
            RopeKind::Sequence { .. } => [position; 3],
            RopeKind::Grid(rope) => rope.place(position),
        };
        let (cosines, sines) = row.split_at_mut(self.frequencies.len());
        for (i, (cosine, sine)) in cosines.iter_mut().zip(sines).enumerate() {
            let (s, c) = libm::sincos(place[self.axes[i]] as f64 * self.frequencies[i]);
            (*cosine, *sine) = ((c * self.magnitude) as f32, (s * self.magnitude) as f32);
        }
    }
}
