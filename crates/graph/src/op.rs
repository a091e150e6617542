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
    /// Frequencies are `base^(-2i / rotary_dim)`, before scaling.
    pub base: f32,
    /// How frequencies are scaled for sequences longer than those of pre-training.
    pub scaling: RopeScaling,
    /// Cosines and sines are multiplied by this: 1, or what YaRN and LongRoPE make of it.
    pub magnitude: f32,
    /// What rotates together.
    pub pairs: RopePairs,
}

impl Rope {
    /// Whole heads rotate, nothing is scaled.
    pub fn plain(head_dim: usize, base: f32, pairs: RopePairs) -> Self {
        Rope { head_dim, rotary_dim: head_dim, base, scaling: RopeScaling::None, magnitude: 1.0, pairs }
    }
}

/// How rope's frequencies are scaled. Scaling by a vector of factors (Llama 3, LongRoPE) is an operand instead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All are divided by this factor (Chen et al., 2023).
    Linear(f32),
    /// YaRN (Peng et al., 2023): low frequencies are divided by the factor, high ones kept, those between blended.
    Yarn {
        /// How many times longer than `original_context` sequences may be.
        factor: f32,
        /// Tokens of pre-training's sequences.
        original_context: f32,
        /// Frequencies that turn more often than this within the original context are kept.
        beta_fast: f32,
        /// Those that turn less often than this are divided.
        beta_slow: f32,
    },
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All of its sequence (encoders); a sequence is then computed in one batch.
    Full,
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
    /// Added to the scores.
    pub bias: ScoreBias,
    /// The rows are so many sequences of one length, each of which attends to itself alone: the frames of a feature map.
    /// 1 where a batch says which rows belong together.
    pub sequences: usize,
}

/// What is added to the score of a query and a key, after scaling.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ScoreBias {
    /// Nothing.
    #[default]
    None,
    /// What a table says for a head and the distance from query to key (Raffel et al., 2020).
    Relative(RelativeBias),
    /// This for the last key, nothing for the others: a key that stands for `n` equal ones has `ln(n)`.
    LastKey(f32),
}

/// A learned bias for every head and bucket of distances, in both directions. Half of the buckets are for keys behind the
/// query; in each half the first half are distances of their own, the others grow logarithmically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeBias {
    /// `[buckets, heads]`
    pub table: WeightId,
    /// Buckets of both directions together; a multiple of 4.
    pub buckets: usize,
    /// Distances from this one on share the last bucket of their direction.
    pub max_distance: usize,
}

impl RelativeBias {
    /// The bucket of `key - query`, as T5 counts it.
    pub fn bucket(&self, distance: isize) -> usize {
        let (half, far) = (self.buckets / 2, distance.unsigned_abs());
        let direction = if distance > 0 { half } else { 0 };
        let exact = half / 2;
        if far < exact {
            return direction + far;
        }
        let ratio = (far as f64 / exact as f64).ln() / (self.max_distance as f64 / exact as f64).ln();
        // The logarithm in single precision, as the models were trained with it.
        let step = (ratio as f32 * (half - exact) as f32) as usize;
        direction + (exact + step).min(half - 1)
    }
}

impl Attention {
    /// Causal attention with the usual scale, `1 / sqrt(head_dim)`.
    pub fn causal(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self::masked(Mask::Causal, heads, kv_heads, head_dim)
    }

    /// Attention to all of a sequence with the usual scale.
    pub fn full(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self::masked(Mask::Full, heads, kv_heads, head_dim)
    }

    fn masked(mask: Mask, heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Attention {
            heads,
            kv_heads,
            head_dim,
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            softcap: None,
            mask,
            bias: ScoreBias::None,
            sequences: 1,
        }
    }
}

/// Rotary position embedding of rows that stand on a grid (frames, heights, widths), heads in adjacent pairs: the first
/// pairs of a head turn by the row's frame, the next ones by its height, the last by its width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GridRope {
    /// Frames, heights and widths; their product is the number of rows, widths innermost.
    pub grid: [usize; 3],
    /// Elements of a head that turn by each of them, even; their sum is a head.
    pub axes: [usize; 3],
    /// Frequencies of an axis are `base^(-2i / elements of the axis)`.
    pub base: f32,
}

impl GridRope {
    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.axes.iter().sum()
    }

    /// Where a row stands.
    pub fn place(&self, row: usize) -> [usize; 3] {
        let [_, height, width] = self.grid;
        [row / (height * width), row / width % height, row % width]
    }
}

/// A convolution of a feature map `[frames, height, width, channels]`, causal in time: a frame sees itself and those
/// before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Frames, heights and widths of the kernel.
    pub kernel: [usize; 3],
    /// From output to output, in height and width; every frame has an output.
    pub stride: usize,
    /// Zeros around every frame.
    pub padding: usize,
    /// Every frame is first made so many times as high and wide by repeating its pixels.
    pub upsample: usize,
    /// Whether the frames before the first are those of the run before, kept by the executor under the weight's name;
    /// zeros after a reset. Otherwise they are zeros.
    pub carry: bool,
}

impl Conv {
    /// A kernel of odd size that keeps height and width.
    pub fn same(kernel: [usize; 3]) -> Conv {
        Conv { kernel, stride: 1, padding: kernel[1] / 2, upsample: 1, carry: kernel[0] > 1 }
    }

    /// Non-overlapping patches.
    pub fn patches(patch: usize) -> Conv {
        Conv { kernel: [1, patch, patch], stride: patch, padding: 0, upsample: 1, carry: false }
    }
}

/// Channels become frames, rows and columns: element `(t, y, x, c)` of a feature map of `[time, space, space]` times as
/// many is channel `(c·strides[0] + (t % time)·strides[1] + (y % space)·strides[2] + (x % space)·strides[3]) / repeats` of
/// the element `(t / time, y / space, x / space)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfold {
    /// Channels of the result.
    pub channels: usize,
    /// Frames from one.
    pub time: usize,
    /// Rows, and columns, from one.
    pub space: usize,
    /// Of channel, frame, row and column.
    pub strides: [usize; 4],
    /// How often every channel is taken.
    pub repeats: usize,
    /// Frames of the result left out at the beginning.
    pub skip: usize,
}

/// Which row of a table a token looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// That of its id.
    Token,
    /// That of its position.
    Position,
    /// Always the same (a segment's embedding).
    Row(usize),
}

/// How a mixture of experts chooses: the softmax over all experts' scores, of which the greatest are used; ties go to
/// the lower expert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// Experts there are.
    pub experts: usize,
    /// Experts a token uses.
    pub used: usize,
    /// Whether the weights of those that are used are divided by their sum.
    pub normalise: bool,
}

/// An operator. Inputs are values of the graph, weights are declared ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Rows of an embedding table: `[tokens, width]`.
    Embed {
        /// `[rows, width]`.
        table: WeightId,
        /// Which row a token looks up.
        lookup: Lookup,
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
    /// Sum with a constant.
    Offset(f32),
    /// `a * b + c`, one rounding; `b` and `c` may have one row for all rows of `a`.
    MulAdd,
    /// A value given at every run: by its place in [`Graph::inputs`](crate::Graph::inputs).
    Input(usize),
    /// A weight as a value of one row, `[1, width]`.
    Parameter {
        /// `[width]`
        weight: WeightId,
    },
    /// Some columns of a value, from this one on; as many as the result is wide.
    Columns(usize),
    /// Cosines, then sines, of `t · 10000^(-i / (width / 2))` for a value `t` of one element (Ho et al., 2020).
    TimestepEmbed,
    /// Rotary position embedding on a grid.
    GridRope(GridRope),
    /// A convolution, plus bias.
    Conv3d {
        /// `[outputs, channels, kernel…]`
        weight: WeightId,
        /// `[outputs]`
        bias: Option<WeightId>,
        /// How.
        conv: Conv,
    },
    /// Channels to frames, rows and columns.
    Unfold(Unfold),
    /// `x / sqrt(mean(x²) + eps) * w` over groups of consecutive elements (Zhang & Sennrich, 2019).
    RmsNorm {
        /// `[group]`: one group is the whole width, or a head.
        weight: WeightId,
        /// Added to the mean square.
        eps: f32,
    },
    /// `(x - mean) / sqrt(variance + eps) * w + b` over the whole width (Ba et al., 2016).
    LayerNorm {
        /// Weight and bias, `[width]` each; without them ones and zeros.
        affine: Option<[WeightId; 2]>,
        /// Added to the variance.
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
    /// `x/2 * (1 + erf(x / sqrt(2)))`.
    GeluErf,
    /// `cap * tanh(x / cap)`.
    Softcap(f32),
    /// Chooses experts by their scores `[tokens, experts]`: `[tokens, 2 * used]`, the weights by falling rank, then
    /// the experts' numbers (as the bits of integers).
    Route(Routing),
    /// A linear layer of each chosen expert; inputs are `x`, `[tokens, width]` or `[tokens, used, width]`, and the
    /// routes. Gives `[tokens, used, outputs]`.
    ExpertLinear {
        /// `[experts, outputs, inputs]`, in any dtype.
        weight: WeightId,
    },
    /// The chosen experts' results `[tokens, used, width]`, weighted by the routes (second input) and summed by rank.
    Combine,
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
            Op::Offset(_) => "offset",
            Op::MulAdd => "mul_add",
            Op::Input(_) => "input",
            Op::Parameter { .. } => "parameter",
            Op::Columns(_) => "columns",
            Op::TimestepEmbed => "timestep_embed",
            Op::GridRope(_) => "grid_rope",
            Op::Conv3d { .. } => "conv3d",
            Op::Unfold(_) => "unfold",
            Op::RmsNorm { .. } => "rms_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Rope { .. } => "rope",
            Op::Attention(_) => "attention",
            Op::Silu => "silu",
            Op::GeluTanh => "gelu_tanh",
            Op::GeluErf => "gelu_erf",
            Op::Softcap(_) => "softcap",
            Op::Route(_) => "route",
            Op::ExpertLinear { .. } => "expert_linear",
            Op::Combine => "combine",
            Op::Rows => "rows",
        }
    }
}
