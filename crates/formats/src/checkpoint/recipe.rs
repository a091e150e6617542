//! How a tensor of a model is made from those of other files.

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
    Tensor(String),
    /// Tensors of one shape, along a new first dimension.
    Stacked(Vec<String>),
    Computed {
        values: Vec<f32>,
        shape: Vec<usize>,
    },
}

impl Source {
    /// The tensors this is made of.
    pub(crate) fn tensors(&self) -> &[String] {
        match self {
            Source::Tensor(name) => std::slice::from_ref(name),
            Source::Stacked(names) => names,
            Source::Computed { .. } => &[],
        }
    }
}

impl Recipe {
    fn new(source: Source) -> Recipe {
        Recipe { source, pair_heads: None, plus_one: false }
    }

    /// A tensor as it is.
    pub fn tensor(name: impl Into<String>) -> Recipe {
        Recipe::new(Source::Tensor(name.into()))
    }

    /// Tensors of one shape, along a new first dimension: experts.
    pub fn stacked<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Recipe {
        Recipe::new(Source::Stacked(names.into_iter().map(Into::into).collect()))
    }

    /// F32 values that follow from the configuration.
    pub fn computed(values: Vec<f32>, shape: &[usize]) -> Recipe {
        Recipe::new(Source::Computed { values, shape: shape.to_vec() })
    }

    /// The one tensor this is made of, if it is one.
    pub fn stored_name(&self) -> Option<&str> {
        match &self.source {
            Source::Tensor(name) => Some(name),
            _ => None,
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
