//! Operators: the only vocabulary that executors know.

use crate::WeightId;

/// Which elements of a head rope rotates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopePairs {
    /// `(0, 1), (2, 3), …`: the original paper's form (Su et al., 2021), and GGUF's for `llama`.
    Adjacent,
    /// `(0, d/2), (1, d/2 + 1), …`: GPT-NeoX's form.
    Halves,
}

/// Rotary position embedding of every head of a value `[tokens, heads * head_dim]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of a head that rotate, the first ones; even, at most `head_dim`.
    pub rotary_dim: usize,
    /// Frequencies are `base^(-2i / rotary_dim)`.
    pub base: f32,
    /// Positions are divided by this (linear scaling); 1 for none.
    pub position_scale: f32,
    /// What rotates together.
    pub pairs: RopePairs,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// Its own position and all before it.
    Causal,
    /// Its own position and the `n - 1` before it.
    SlidingWindow(usize),
}

/// Scaled dot-product attention over a sequence's keys and values.
///
/// A graph says what is attended to, never how keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`, query head `h` reads key head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Scores are multiplied by this.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Which keys a query sees.
    pub mask: Mask,
}

impl Attention {
    /// Causal attention with the usual scale, `1 / sqrt(head_dim)`.
    pub fn causal(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Attention {
            heads,
            kv_heads,
            head_dim,
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            softcap: None,
            mask: Mask::Causal,
        }
    }
}

/// An operator. Inputs are values of the graph, weights are declared ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Rows of an embedding table by token id: `[tokens, width]`.
    Embed {
        /// `[vocabulary, width]`.
        table: WeightId,
    },
    /// `x · Wᵀ + b`.
    Linear {
        /// `[outputs, inputs]`, in any dtype.
        weight: WeightId,
        /// `[outputs]`.
        bias: Option<WeightId>,
    },
    /// Elementwise sum of two values of one shape.
    Add,
    /// Elementwise product of two values of one shape.
    Mul,
    /// Product with a constant.
    Scale(f32),
    /// `x / sqrt(mean(x²) + eps) * w` over groups of consecutive elements (Zhang & Sennrich, 2019).
    RmsNorm {
        /// `[group]`: one group is the whole width, or a head.
        weight: WeightId,
        /// Added to the mean square.
        eps: f32,
    },
    /// Rotary position embedding.
    Rope {
        /// How.
        rope: Rope,
        /// Frequencies are divided by these, `[rotary_dim / 2]` (Llama 3's scaling).
        factors: Option<WeightId>,
    },
    /// Attention; inputs are queries, keys, values.
    Attention(Attention),
    /// `x * sigmoid(x)`.
    Silu,
    /// `x/2 * (1 + tanh(sqrt(2/π) * (x + 0.044715 x³)))`.
    GeluTanh,
    /// `cap * tanh(x / cap)`.
    Softcap(f32),
    /// Keeps the rows that want output: `[tokens, width]` becomes `[picked, width]`.
    Rows,
}

impl Op {
    /// The operator's name in errors and listings.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::Linear { .. } => "linear",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::Scale(_) => "scale",
            Op::RmsNorm { .. } => "rms_norm",
            Op::Rope { .. } => "rope",
            Op::Attention(_) => "attention",
            Op::Silu => "silu",
            Op::GeluTanh => "gelu_tanh",
            Op::Softcap(_) => "softcap",
            Op::Rows => "rows",
        }
    }
}
