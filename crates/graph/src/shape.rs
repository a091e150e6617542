//! Shapes: dimensions known when a graph is built, and the two that only a batch decides.

use std::fmt;

/// One dimension of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// One entry per token of the batch.
    Tokens,
    /// One entry per row that wants logits, then one per row that wants its state (see [`crate::Batch`]).
    Picked,
    /// Known when the graph is built.
    Fixed(usize),
}

/// A value's shape, outermost dimension first; the last one is contiguous.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(Vec<Dim>);

impl Shape {
    /// A shape from its dimensions.
    pub fn new(dims: impl Into<Vec<Dim>>) -> Self {
        Shape(dims.into())
    }

    /// `[tokens, width]`.
    pub fn tokens(width: usize) -> Self {
        Shape(vec![Dim::Tokens, Dim::Fixed(width)])
    }

    /// All dimensions known.
    pub fn fixed(dims: &[usize]) -> Self {
        Shape(dims.iter().map(|&n| Dim::Fixed(n)).collect())
    }

    /// All dimensions, if they are known.
    pub fn known(&self) -> Option<Vec<usize>> {
        let known = |dim: &Dim| match dim {
            Dim::Fixed(n) => Some(*n),
            _ => None,
        };
        self.0.iter().map(known).collect()
    }

    /// Rows, if all dimensions but the last are known: their product.
    pub fn known_rows(&self) -> Option<usize> {
        let dims = self.known()?;
        Some(dims[..dims.len().saturating_sub(1)].iter().product())
    }

    /// The dimensions.
    pub fn dims(&self) -> &[Dim] {
        &self.0
    }

    /// The size of the last dimension, if it is known.
    pub fn width(&self) -> Option<usize> {
        match self.0.last() {
            Some(Dim::Fixed(n)) => Some(*n),
            _ => None,
        }
    }

    /// The same shape with another last dimension.
    pub(crate) fn with_width(&self, width: usize) -> Self {
        let mut dims = self.0.clone();
        if let Some(last) = dims.last_mut() {
            *last = Dim::Fixed(width);
        }
        Shape(dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            match dim {
                Dim::Tokens => f.write_str("tokens")?,
                Dim::Picked => f.write_str("picked")?,
                Dim::Fixed(n) => write!(f, "{n}")?,
            }
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
