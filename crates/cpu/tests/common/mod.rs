//! Random models in memory.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::borrow::Cow;
use std::collections::HashMap;

use wushi_cpu::{CpuExecutor, InstructionSet, Options, PAGE_TOKENS};
use wushi_graph::{
    Attention, Batch, Builder, CacheType, DType, Executor, Graph, Mask, ReadError, Role, Rope, RopePairs,
    RopeScaling, Routing, ScoreBias, TensorDesc, WeightSource,
};

/// A small generator with a fixed seed: the same models everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 ^ (self.0 >> 13) as u32
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }

    /// Roughly normal.
    pub fn number(&mut self) -> f32 {
        let sum: f32 = (0..6).map(|_| self.bits() as f32 / u32::MAX as f32 - 0.5).sum();
        sum * 1.4
    }
}

struct Stored {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Weights for every declaration of a graph.
#[derive(Default)]
pub struct RandomWeights {
    tensors: HashMap<String, Stored>,
}

impl WeightSource for RandomWeights {
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>> {
        let t = self.tensors.get(name)?;
        Some(TensorDesc { dtype: t.dtype, shape: &t.shape })
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        let t = self.tensors.get(name).ok_or_else(|| ReadError::missing(name))?;
        Ok(Cow::Borrowed(&t.bytes))
    }
}

fn f16_bits(x: f32) -> [u8; 2] {
    half::f16::from_f32(x).to_le_bytes()
}

/// What a block's quants and small scales are.
#[derive(Clone, Copy, PartialEq)]
pub enum Fill {
    /// Anything.
    Random,
    /// This byte everywhere, the block's own scales apart.
    Byte(u8),
}

/// Random elements of a dtype whose values are around `size`.
fn random_bytes(dtype: DType, elements: usize, size: f32, fill: Fill, random: &mut Random) -> Vec<u8> {
    let mut out = vec![0; dtype.bytes_of(elements).expect("whole blocks")];
    for block in out.chunks_exact_mut(dtype.block_bytes()) {
        for byte in block.iter_mut() {
            *byte = match fill {
                Fill::Random => random.bits() as u8,
                Fill::Byte(byte) => byte,
            };
        }
        let x = random.number() * size;
        let mut put = |at: usize, x: f32| block[at..at + 2].copy_from_slice(&f16_bits(x));
        match dtype {
            DType::F32 => block.copy_from_slice(&x.to_le_bytes()),
            DType::F16 => put(0, x),
            DType::BF16 => block.copy_from_slice(&half::bf16::from_f32(x).to_le_bytes()),
            DType::Q4_0 => put(0, x / 8.0),
            DType::Q5_0 => put(0, x / 16.0),
            DType::Q8_0 | DType::IQ4_NL => put(0, x / 128.0),
            DType::Q4_1 => (put(0, x / 8.0), put(2, -x)).1,
            DType::Q5_1 => (put(0, x / 16.0), put(2, -x)).1,
            DType::Q2_K => (put(80, x / 24.0), put(82, x / 16.0)).1,
            DType::Q3_K => put(108, x / 64.0),
            DType::Q4_K => (put(0, x / 256.0), put(2, x / 32.0)).1,
            DType::Q5_K => (put(0, x / 512.0), put(2, x / 32.0)).1,
            DType::Q6_K => put(208, x / 2048.0),
            DType::IQ4_XS => put(0, x / 2048.0),
            // 2^-2 to 2^5 of the size, in halves; and the exponents that are zero.
            DType::MXFP4 => {
                let exponent = 125 + (x.abs() / 8.0).log2().max(-100.0) as i32;
                block[0] = if random.below(50) == 0 { random.below(3) as u8 } else { exponent as u8 };
            }
        }
    }
    out
}

impl RandomWeights {
    /// Matrices in `dtype`, vectors in F32.
    pub fn new(graph: &Graph, dtype: DType, random: &mut Random) -> Self {
        Self::filled(graph, dtype, Fill::Random, random)
    }

    /// The same with these quants.
    pub fn filled(graph: &Graph, dtype: DType, fill: Fill, random: &mut Random) -> Self {
        let mut weights = RandomWeights::default();
        for decl in graph.weights() {
            // Several weights may be parts of one tensor.
            let shape = decl.tensor_shape();
            let elements = shape.iter().product();
            let (dtype, size) = match decl.role {
                Role::Vector => (DType::F32, 1.0),
                Role::Embedding => (dtype, 1.0),
                Role::Matrix | Role::Experts => {
                    (dtype, 1.5 / (decl.shape[decl.shape.len() - 1] as f32).sqrt())
                }
                // Convolutions are never in blocks.
                Role::Kernel => {
                    let patch: usize = decl.shape[1..].iter().product();
                    let plain = if dtype.block_elements() > 1 { DType::F32 } else { dtype };
                    (plain, 1.5 / (patch as f32).sqrt())
                }
            };
            let bytes = random_bytes(dtype, elements, size, fill, random);
            weights.tensors.insert(decl.name.clone(), Stored { dtype, shape, bytes });
        }
        weights
    }

    /// Replaces one tensor's bytes.
    pub fn damage(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.tensors.get_mut(name).expect("declared").bytes);
    }

    pub fn remove(&mut self, name: &str) {
        self.tensors.remove(name);
    }
}

/// A small transformer with everything the graph has an operator for.
pub struct Shape {
    pub vocab: usize,
    pub width: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub hidden: usize,
    pub layers: usize,
    pub mask: Mask,
    pub pairs: RopePairs,
    /// Biases, head norms, soft caps, scaled embeddings, GELU: what other families have.
    pub rich: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            vocab: 70,
            width: 64,
            heads: 4,
            kv_heads: 2,
            head_dim: 32,
            hidden: 96,
            layers: 2,
            mask: Mask::Causal,
            pairs: RopePairs::Adjacent,
            rich: false,
        }
    }
}

impl Shape {
    /// With sizes that this dtype can store.
    pub fn storable(self, dtype: DType) -> Self {
        let block = dtype.block_elements();
        if self.width.is_multiple_of(block) && self.hidden.is_multiple_of(block) {
            return self;
        }
        Shape { width: block, hidden: 2 * block, heads: 4, head_dim: block / 4, ..self }
    }

    pub fn graph(&self) -> Graph {
        self.describe().expect("shapes fit")
    }

    fn describe(&self) -> Result<Graph, wushi_graph::GraphError> {
        let g = Builder::new();
        let rope = Rope {
            head_dim: self.head_dim,
            rotary_dim: if self.rich { self.head_dim / 4 * 2 } else { self.head_dim },
            base: 10_000.0,
            scaling: if self.rich { RopeScaling::Linear(2.0) } else { RopeScaling::None },
            magnitude: 1.0,
            pairs: self.pairs,
        };
        let attention = Attention {
            mask: self.mask,
            softcap: self.rich.then_some(5.0),
            ..Attention::causal(self.heads, self.kv_heads, self.head_dim)
        };
        let mut x = g.embed("token_embd", self.vocab, self.width)?;
        if self.rich {
            x = g.scale(x, 3.3)?;
        }
        for layer in 0..self.layers {
            let b = g.block("blk", layer);
            let h = b.rms_norm(x, "attn_norm", self.width, 1e-5)?;
            let mut q = b.linear_with(h, "attn_q", self.heads * self.head_dim, self.rich)?;
            let mut k = b.linear_with(h, "attn_k", self.kv_heads * self.head_dim, self.rich)?;
            let v = b.linear_with(h, "attn_v", self.kv_heads * self.head_dim, self.rich)?;
            if self.rich {
                q = b.rms_norm(q, "attn_q_norm", self.head_dim, 1e-6)?;
                k = b.rms_norm(k, "attn_k_norm", self.head_dim, 1e-6)?;
            }
            let (q, k) = match self.rich {
                true => {
                    (b.rope_with_factors(q, rope, "rope_freqs")?, b.rope_with_factors(k, rope, "rope_freqs")?)
                }
                false => (b.rope(q, rope)?, b.rope(k, rope)?),
            };
            let a = b.attention(q, k, v, attention)?;
            x = b.add(x, b.linear(a, "attn_output", self.width)?)?;
            let h = b.rms_norm(x, "ffn_norm", self.width, 1e-5)?;
            let gate = b.linear_with(h, "ffn_gate", self.hidden, self.rich)?;
            let gate = if self.rich { b.gelu_tanh(gate)? } else { b.silu(gate)? };
            let up = b.mul(gate, b.linear(h, "ffn_up", self.hidden)?)?;
            let down = b.linear(up, "ffn_down", self.width)?;
            // A norm after the layer keeps the residual from being fused.
            let down = if self.rich { b.rms_norm(down, "post_ffw_norm", self.width, 1e-5)? } else { down };
            x = b.add(x, down)?;
        }
        let x = g.rms_norm(g.rows(x)?, "output_norm", self.width, 1e-5)?;
        let logits = g.linear(x, "token_embd", self.vocab)?;
        g.finish_with_states(if self.rich { g.softcap(logits, 20.0)? } else { logits }, x)
    }
}

/// Two layers of a mixture of experts.
pub fn mixture(experts: usize, used: usize, normalise: bool) -> Graph {
    let build = || -> Result<Graph, wushi_graph::GraphError> {
        let g = Builder::new();
        let (width, hidden) = (64, 96);
        let scaling =
            RopeScaling::Yarn { factor: 4.0, original_context: 16.0, beta_fast: 32.0, beta_slow: 1.0 };
        let rope = Rope { scaling, magnitude: 1.14, ..Rope::plain(32, 10_000.0, RopePairs::Halves) };
        let mut x = g.embed("token_embd", 70, width)?;
        for layer in 0..2 {
            let b = g.block("blk", layer);
            let h = b.rms_norm(x, "attn_norm", width, 1e-5)?;
            let (q, k) =
                (b.rope(b.linear(h, "attn_q", 64)?, rope)?, b.rope(b.linear(h, "attn_k", 32)?, rope)?);
            let v = b.linear(h, "attn_v", 32)?;
            let a = b.attention(q, k, v, Attention::causal(2, 1, 32))?;
            x = b.add(x, b.linear(a, "attn_output", width)?)?;
            let h = b.rms_norm(x, "ffn_norm", width, 1e-5)?;
            let scores = b.linear(h, "ffn_gate_inp", experts)?;
            let routes = b.route(scores, Routing { experts, used, normalise })?;
            let gate = b.silu(b.expert_linear(h, routes, "ffn_gate_exps", hidden)?)?;
            let up = b.mul(gate, b.expert_linear(h, routes, "ffn_up_exps", hidden)?)?;
            let down = b.expert_linear(up, routes, "ffn_down_exps", width)?;
            x = b.add(x, b.combine(down, routes)?)?;
        }
        let x = g.rms_norm(g.rows(x)?, "output_norm", width, 1e-5)?;
        g.finish_with_states(g.linear(x, "output", 70)?, x)
    };
    build().expect("shapes fit")
}

/// Two layers of an encoder: layer norms, exact GELU, positions from a table, attention to everything.
pub fn encoder(width: usize, positions: usize) -> Graph {
    let build = || -> Result<Graph, wushi_graph::GraphError> {
        let g = Builder::new();
        let x = g.add(g.embed("token_embd", 70, width)?, g.embed_row("token_types", 2, width, 0)?)?;
        let x = g.add(x, g.embed_position("position_embd", positions, width)?)?;
        let mut x = g.layer_norm(x, "token_embd_norm", 1e-12)?;
        for layer in 0..2 {
            let b = g.block("blk", layer);
            let heads = |name| b.linear_with(x, name, width, true);
            let (q, k, v) = (heads("attn_q")?, heads("attn_k")?, heads("attn_v")?);
            // The first layer knows how far keys are.
            let bias = if layer == 0 { b.relative_bias("attn_rel_b", 2, 8, 20)? } else { ScoreBias::None };
            let a = b.attention(q, k, v, Attention { bias, ..Attention::full(2, 2, width / 2) })?;
            let h = b.add(b.linear_with(a, "attn_output", width, true)?, x)?;
            let h = b.layer_norm(h, "attn_output_norm", 1e-12)?;
            let up = b.gelu_erf(b.linear_with(h, "ffn_up", 2 * width, true)?)?;
            x = b.add(b.linear_with(up, "ffn_down", width, true)?, h)?;
            x = b.layer_norm(x, "layer_output_norm", 1e-12)?;
        }
        let states = g.rows(x)?;
        g.finish_with_states(states, states)
    };
    build().expect("shapes fit")
}

pub fn options(set: InstructionSet, threads: usize, cache: CacheType, context: usize) -> Options {
    Options {
        threads,
        instruction_set: set,
        cache,
        context,
        pages: 4 * context.div_ceil(PAGE_TOKENS),
        max_rows: 512,
        max_logit_rows: 512,
    }
}

/// What a sequence's rows give, computed in chunks of at most `chunk` tokens: `is_state` says which rows give their state.
pub fn run_mixed(
    executor: &mut CpuExecutor,
    tokens: &[u32],
    chunk: usize,
    table: &[u32],
    is_state: impl Fn(usize) -> bool,
) -> Vec<(usize, Vec<f32>)> {
    let mut found = Vec::new();
    let mut batch = Batch::default();
    for start in (0..tokens.len()).step_by(chunk) {
        let end = (start + chunk).min(tokens.len());
        batch.clear();
        batch.push(&tokens[start..end], start, table);
        (batch.state_rows, batch.logit_rows) = (0..end - start).partition(|row| is_state(start + row));
        let (vocab, width) = (executor.info().vocab, executor.states().expect("states").width);
        let computed = executor.run(&batch).expect("a valid batch");
        for (rows, width, got) in
            [(&batch.logit_rows, vocab, computed.logits), (&batch.state_rows, width, computed.states)]
        {
            assert_eq!(got.len(), rows.len() * width);
            found.extend(rows.iter().map(|row| start + row).zip(got.chunks(width).map(<[f32]>::to_vec)));
        }
    }
    found
}

/// All logits of a sequence, computed in chunks of at most `chunk` tokens.
pub fn run(executor: &mut CpuExecutor, tokens: &[u32], chunk: usize, table: &[u32]) -> Vec<f32> {
    let mut logits = Vec::new();
    let mut batch = Batch::default();
    for start in (0..tokens.len()).step_by(chunk) {
        let end = (start + chunk).min(tokens.len());
        batch.clear();
        batch.push(&tokens[start..end], start, table);
        batch.logit_rows.extend(0..end - start);
        logits.extend_from_slice(executor.run(&batch).expect("a valid batch").logits);
    }
    logits
}

/// Fails at the first differing bit, saying where.
pub fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!(a.to_bits() == b.to_bits(), "{what}: element {i}: {a:e} is not {b:e}");
    }
    assert!(want.iter().all(|x| x.is_finite()), "{what}: not finite");
}
