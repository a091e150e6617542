//! How a tensor of a model is made from those of other files.

use std::ops::Range;

/// A tensor of a model, said in terms of a folder's tensors.
///
/// Vectors, norms and a few more become F32 whatever they are stored as, as llama.cpp's converter writes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    pub(crate) source: Source,
    pub(crate) pair_heads: Option<usize>,
    pub(crate) plus_one: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// Tensors, one after the other.
    Parts {
        parts: Vec<Part>,
        /// Along a new first dimension rather than the first one they have.
        stacked: bool,
    },
    Computed {
        values: Vec<f32>,
        shape: Vec<usize>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) tensor: String,
    /// Along the first dimension; `None`: all.
    pub(crate) rows: Option<Range<usize>>,
}

impl Recipe {
    fn new(source: Source) -> Recipe {
        Recipe { source, pair_heads: None, plus_one: false }
    }

    fn parts<S: Into<String>>(names: impl IntoIterator<Item = S>, stacked: bool) -> Recipe {
        let parts = names.into_iter().map(|name| Part { tensor: name.into(), rows: None }).collect();
        Recipe::new(Source::Parts { parts, stacked })
    }

    /// A tensor as it is.
    pub fn tensor(name: impl Into<String>) -> Recipe {
        Recipe::parts([name], false)
    }

    /// Some rows of a tensor, along its first dimension.
    pub fn rows(name: impl Into<String>, rows: Range<usize>) -> Recipe {
        let part = Part { tensor: name.into(), rows: Some(rows) };
        Recipe::new(Source::Parts { parts: vec![part], stacked: false })
    }

    /// Tensors joined along their first dimension.
    pub fn joined<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Recipe {
        Recipe::parts(names, false)
    }

    /// Tensors of one shape, along a new first dimension: experts.
    pub fn stacked<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Recipe {
        Recipe::parts(names, true)
    }

    /// F32 values that follow from the configuration.
    pub fn computed(values: Vec<f32>, shape: &[usize]) -> Recipe {
        Recipe::new(Source::Computed { values, shape: shape.to_vec() })
    }

    /// The one tensor this is made of, if it is one.
    pub fn stored_name(&self) -> Option<&str> {
        match &self.source {
            Source::Parts { parts, .. } => match parts.as_slice() {
                [part] => Some(&part.tensor),
                _ => None,
            },
            Source::Computed { .. } => None,
        }
    }

    /// Rows of `heads` heads, each of whose halves rotate together, reordered so that neighbours do.
    #[must_use]
    pub fn pair_heads(self, heads: usize) -> Recipe {
        Recipe { pair_heads: Some(heads), ..self }
    }

    /// One is added to every element.
    #[must_use]
    pub fn plus_one(self) -> Recipe {
        Recipe { plus_one: true, ..self }
    }
}
