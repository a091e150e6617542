//! A whole graph over a whole sequence.

use std::borrow::Cow;
use std::collections::HashMap;

use half::bf16;
use wushi_graph::{
    CacheType, DType, Graph, Lookup, Mask, Node, Op, ScoreBias, Value, WeightId, WeightSource,
};
use wushi_quant::dequantize;

use super::{
    Activations, Frames, Row, attention, cached, combine, convolve, filter, grid_rope, is_filtered,
    layer_norm, rms_norm, rope, route, timestep_embed, unfold,
};
use crate::math;
use crate::weights::{WeightError, flush_bf16};

/// The output of `graph` for every token of one sequence, row-major.
pub fn evaluate(
    graph: &Graph,
    source: &dyn WeightSource,
    tokens: &[u32],
    cache: CacheType,
) -> Result<Vec<f32>, WeightError> {
    evaluate_value(graph, source, tokens, cache, graph.output())
}

/// Any value of `graph` for every token of one sequence, row-major.
pub fn evaluate_value(
    graph: &Graph,
    source: &dyn WeightSource,
    tokens: &[u32],
    cache: CacheType,
    wanted: Value,
) -> Result<Vec<f32>, WeightError> {
    let run = Run { tokens, inputs: &[], cache };
    let mut values = values(graph, source, &run, &mut Carried::new())?;
    Ok(values.swap_remove(wanted.index()))
}

/// Frames that convolutions carry from run to run, by the weight's name; those that are not there are zeros.
pub type Carried = HashMap<String, Vec<f32>>;

/// All outputs of a graph over given values, row-major.
pub fn evaluate_function(
    graph: &Graph,
    source: &dyn WeightSource,
    inputs: &[&[f32]],
    cache: CacheType,
    carried: &mut Carried,
) -> Result<Vec<Vec<f32>>, WeightError> {
    let values = values(graph, source, &Run { tokens: &[], inputs, cache }, carried)?;
    Ok(graph.outputs().iter().map(|output| values[output.index()].clone()).collect())
}

/// What one run is given.
struct Run<'a> {
    tokens: &'a [u32],
    inputs: &'a [&'a [f32]],
    cache: CacheType,
}

/// The values of all nodes.
fn values(
    graph: &Graph,
    source: &dyn WeightSource,
    run: &Run<'_>,
    carried: &mut Carried,
) -> Result<Vec<Vec<f32>>, WeightError> {
    let weights = Weights { graph, source };
    let (tokens, cache) = (run.tokens, run.cache);
    let mut values: Vec<Vec<f32>> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let input = |i: usize| values[node.inputs[i].index()].as_slice();
        let width = |value: Value| graph.node(value).shape.width().expect("values have rows");
        let each = |f: &dyn Fn(f32) -> f32| input(0).iter().map(|x| f(*x)).collect();
        let both =
            |f: &dyn Fn(f32, f32) -> f32| input(0).iter().zip(input(1)).map(|(a, b)| f(*a, *b)).collect();
        let value: Vec<f32> = match node.op {
            Op::Embed { table, lookup } => {
                let rows: Vec<usize> = (0..tokens.len())
                    .map(|position| match lookup {
                        Lookup::Token => tokens[position] as usize,
                        Lookup::Position => position,
                        Lookup::Row(row) => row,
                    })
                    .collect();
                weights.embed(table, &rows)?
            }
            Op::Linear { weight, bias } => weights.linear(weight, bias, input(0), width(node.inputs[0]))?,
            Op::Route(how) => {
                let mut out = vec![0.0; 2 * how.used * tokens.len()];
                let rows = input(0).chunks(how.experts).zip(out.chunks_mut(2 * how.used));
                rows.for_each(|(scores, out)| route(scores, &how, out));
                out
            }
            Op::ExpertLinear { weight } => {
                weights.expert_linear(weight, input(0), width(node.inputs[0]), input(1), tokens.len())?
            }
            Op::Combine => {
                let (width, used) = (width(node.inputs[0]), input(1).len() / tokens.len() / 2);
                let mut out = vec![0.0; width * tokens.len()];
                let rows = input(0).chunks(used * width).zip(input(1).chunks(2 * used));
                rows.zip(out.chunks_mut(width)).for_each(|((y, w), out)| combine(y, &w[..used], out));
                out
            }
            Op::Add => both(&|a, b| a + b),
            Op::Mul => both(&|a, b| a * b),
            Op::Scale(c) => each(&|x| x * c),
            Op::Silu => each(&|x| x * math::sigmoid(x)),
            Op::GeluTanh => each(&math::gelu_tanh),
            Op::GeluErf => each(&math::gelu_erf),
            Op::Softcap(c) => each(&|x| c * math::tanh(x / c)),
            Op::Rows => input(0).to_vec(),
            Op::RmsNorm { weight, eps } => {
                let weight = weights.vector(weight)?;
                input(0).chunks(weight.len()).flat_map(|x| rms_norm(x, &weight, eps)).collect()
            }
            Op::LayerNorm { affine, eps } => {
                let width = width(node.inputs[0]);
                let (weight, bias) = match affine {
                    Some([weight, bias]) => (weights.vector(weight)?, weights.vector(bias)?),
                    None => (vec![1.0; width], vec![0.0; width]),
                };
                input(0).chunks(weight.len()).flat_map(|x| layer_norm(x, &weight, &bias, eps)).collect()
            }
            Op::Rope { rope: how, factors } => {
                let factors = factors.map(|id| weights.vector(id)).transpose()?;
                let mut x = input(0).to_vec();
                for (position, row) in x.chunks_mut(width(node.inputs[0])).enumerate() {
                    for head in row.chunks_mut(how.head_dim) {
                        rope(head, &how, factors.as_deref(), position);
                    }
                }
                x
            }
            Op::Attention(how) => {
                let table = match how.bias {
                    ScoreBias::Relative(bias) => weights.vector(bias.table)?,
                    _ => Vec::new(),
                };
                let sequence = |i: usize| input(i).chunks(input(i).len() / how.sequences);
                let sequences = sequence(0).zip(sequence(1)).zip(sequence(2));
                sequences.flat_map(|((q, k), v)| attend(&how, [q, k, v], &table, cache)).collect()
            }
            _ => weights.given(node, input, run, carried)?,
        };
        values.push(value);
    }
    Ok(values)
}

/// One sequence's attention; `table` is that of a relative bias.
fn attend(how: &wushi_graph::Attention, [q, k, v]: [&[f32]; 3], table: &[f32], cache: CacheType) -> Vec<f32> {
    let dim = how.head_dim;
    let (rows, length) = (q.len() / (how.heads * dim), k.len() / (how.kv_heads * dim));
    // Keys and values are read only after rounding to the cache's type. By head: `[position][head_dim]`.
    let by_head = |x: &[f32]| -> Vec<Vec<f32>> {
        (0..how.kv_heads)
            .map(|head| {
                let rows = x.chunks(how.kv_heads * dim);
                rows.flat_map(|row| cached(&row[head * dim..(head + 1) * dim], cache)).collect()
            })
            .collect()
    };
    let (keys, values) = (by_head(k), by_head(v));
    let mut out = Vec::with_capacity(q.len());
    for position in 0..rows {
        let visible = match how.mask {
            Mask::Full => 0..length,
            Mask::Causal => 0..position + 1,
            Mask::SlidingWindow(n) => (position + 1).saturating_sub(n)..position + 1,
        };
        for head in 0..how.heads {
            let query = &q[(position * how.heads + head) * dim..][..dim];
            let kv = head / (how.heads / how.kv_heads);
            let bias = |key: usize| match how.bias {
                ScoreBias::None => 0.0,
                ScoreBias::LastKey(last) => {
                    if key + 1 == length {
                        last
                    } else {
                        0.0
                    }
                }
                ScoreBias::Relative(bias) => {
                    table[bias.bucket(key as isize - position as isize) * how.heads + head]
                }
            };
            let bias = (how.bias != ScoreBias::None).then_some(&bias as &dyn Fn(usize) -> f32);
            out.extend(attention(query, &keys[kv], &values[kv], visible.clone(), how, bias));
        }
    }
    out
}

struct Weights<'a> {
    graph: &'a Graph,
    source: &'a dyn WeightSource,
}

impl Weights<'_> {
    fn read(&self, id: WeightId) -> Result<(DType, Cow<'_, [u8]>), WeightError> {
        let decl = self.graph.weight(id);
        let found = self.source.describe(&decl.name);
        let found = found.ok_or_else(|| WeightError::Missing { name: decl.name.clone() })?;
        let bytes = match self.source.read(&decl.name).map_err(WeightError::Read)? {
            Cow::Borrowed(bytes) => Cow::Borrowed(decl.bytes_in(bytes)),
            Cow::Owned(bytes) => Cow::Owned(decl.bytes_in(&bytes).to_vec()),
        };
        Ok((found.dtype, bytes))
    }

    fn vector(&self, id: WeightId) -> Result<Vec<f32>, WeightError> {
        let (dtype, bytes) = self.read(id)?;
        Ok(dequantize(dtype, &bytes))
    }

    fn embed(&self, table: WeightId, rows: &[usize]) -> Result<Vec<f32>, WeightError> {
        let (dtype, bytes) = self.read(table)?;
        let row_bytes = bytes.len() / self.graph.weight(table).shape[0];
        let rows = rows.iter().map(|&row| &bytes[row * row_bytes..][..row_bytes]);
        let mut values: Vec<f32> = rows.flat_map(|row| dequantize(dtype, row)).collect();
        if dtype == DType::BF16 {
            // The table is the packed one: what is below 2^-50 is zero.
            values.iter_mut().for_each(|x| *x = bf16::from_bits(flush_bf16(*x)).to_f32());
        }
        Ok(values)
    }

    fn linear(
        &self,
        weight: WeightId,
        bias: Option<WeightId>,
        x: &[f32],
        width: usize,
    ) -> Result<Vec<f32>, WeightError> {
        let (dtype, bytes) = self.read(weight)?;
        let bias = bias.map(|id| self.vector(id)).transpose()?;
        let row_bytes = bytes.len() / self.graph.weight(weight).shape[0];
        let x: Vec<Activations> = x.chunks(width).map(|x| Activations::new(dtype, x)).collect();
        let outputs = bytes.len() / row_bytes;
        let mut out = vec![0.0; x.len() * outputs];
        for (n, row) in bytes.chunks(row_bytes).enumerate() {
            let row = Row::new(dtype, row);
            for (t, x) in x.iter().enumerate() {
                let y = row.dot(x);
                out[t * outputs + n] = bias.as_ref().map_or(y, |bias| y + bias[n]);
            }
        }
        Ok(out)
    }

    /// Operators over given values.
    fn given<'v>(
        &self,
        node: &Node,
        input: impl Fn(usize) -> &'v [f32],
        run: &Run<'_>,
        carried: &mut Carried,
    ) -> Result<Vec<f32>, WeightError> {
        let known =
            |value: Value| self.graph.node(value).shape.known().expect("given values have known shapes");
        let map = |value| <[usize; 4]>::try_from(known(value)).expect("a feature map");
        Ok(match node.op {
            Op::Input(place) => run.inputs[place].to_vec(),
            Op::Parameter { weight } => self.vector(weight)?,
            Op::Offset(c) => input(0).iter().map(|x| x + c).collect(),
            Op::Columns(first) => {
                let (all, width) =
                    (*known(node.inputs[0]).last().expect("rows"), node.shape.width().expect("rows"));
                input(0).chunks(all).flat_map(|row| &row[first..first + width]).copied().collect()
            }
            Op::MulAdd => {
                // One row may serve all.
                let (b, c) = (input(1), input(2));
                let all = input(0).iter().enumerate();
                all.map(|(i, a)| a.mul_add(b[i % b.len()], c[i % c.len()])).collect()
            }
            Op::TimestepEmbed => {
                let mut out = vec![0.0; node.shape.width().expect("rows")];
                timestep_embed(input(0)[0], &mut out);
                out
            }
            Op::GridRope(how) => {
                let mut x = input(0).to_vec();
                let width = node.shape.width().expect("rows");
                for (row, values) in x.chunks_mut(width).enumerate() {
                    values.chunks_mut(how.head_dim()).for_each(|head| grid_rope(head, &how, row));
                }
                x
            }
            Op::Unfold(how) => unfold(input(0), map(node.inputs[0]), &how),
            Op::Conv3d { weight, bias, conv } => {
                let (shape, [frames, height, width, _]) = (map(node.inputs[0]), self.output_map(node));
                let before = (conv.kernel[0] - 1) * shape[1..].iter().product::<usize>();
                let mut seen = carried.remove(&self.graph.weight(weight).name).unwrap_or_default();
                seen.resize(before, 0.0);
                let read = Frames { values: input(0), shape, before: &seen };
                let (kernels, bias) = (self.kernels(weight)?, bias.map(|id| self.vector(id)).transpose()?);
                let (output, bias) = ([frames, height, width], bias.as_deref());
                let out = match is_filtered(&conv) {
                    true => {
                        let kernels: Vec<Vec<f32>> = kernels.1.into_iter().map(Row::floats).collect();
                        filter(&read, &conv, output, &kernels, bias)
                    }
                    false => {
                        let width = conv.kernel.iter().product::<usize>() * shape[3];
                        convolve_patches(kernels, bias, &convolve(&read, &conv, output), width)
                    }
                };
                if conv.carry {
                    seen.extend_from_slice(input(0));
                    let kept = seen.split_off(seen.len() - before);
                    carried.insert(self.graph.weight(weight).name.clone(), kept);
                }
                out
            }
            _ => unreachable!("evaluated otherwise"),
        })
    }

    fn output_map(&self, node: &Node) -> [usize; 4] {
        <[usize; 4]>::try_from(node.shape.known().expect("known")).expect("a feature map")
    }

    /// A convolution's kernels, each in the order of a patch.
    fn kernels(&self, weight: WeightId) -> Result<(DType, Vec<Row>), WeightError> {
        let (dtype, bytes) = self.read(weight)?;
        let [_, channels, ref kernel @ ..] = self.graph.weight(weight).shape[..] else {
            unreachable!("declared with five dimensions")
        };
        let (taps, element) = (kernel.iter().product::<usize>(), dtype.block_bytes());
        let width = channels * taps;
        // In a patch channels come last, in the file they come before the taps.
        let rows = bytes.chunks(width * element).map(|kernel| {
            let place = |i: usize| (i % channels * taps + i / channels) * element;
            let kernel: Vec<u8> =
                (0..width).flat_map(|i| &kernel[place(i)..place(i) + element]).copied().collect();
            Row::new(dtype, &kernel)
        });
        Ok((dtype, rows.collect()))
    }

    /// Each token's experts one after the other, each with its own matrix.
    fn expert_linear(
        &self,
        weight: WeightId,
        x: &[f32],
        width: usize,
        routes: &[f32],
        tokens: usize,
    ) -> Result<Vec<f32>, WeightError> {
        let (dtype, bytes) = self.read(weight)?;
        let (experts, outputs) = (self.graph.weight(weight).shape[0], self.graph.weight(weight).shape[1]);
        let row_bytes = bytes.len() / experts / outputs;
        let used = routes.len() / tokens / 2;
        // One row per token serves all of its experts.
        let share = if x.len() == tokens * width { used } else { 1 };
        let rows: Vec<Row> = bytes.chunks(row_bytes).map(|row| Row::new(dtype, row)).collect();
        let mut out = Vec::new();
        for slot in 0..tokens * used {
            let expert = routes[slot / used * 2 * used + used + slot % used].to_bits() as usize;
            let x = Activations::new(dtype, &x[slot / share * width..][..width]);
            out.extend(rows[expert * outputs..][..outputs].iter().map(|row| row.dot(&x)));
        }
        Ok(out)
    }
}

/// The linear layer that a convolution is, over its patches.
fn convolve_patches(
    (dtype, rows): (DType, Vec<Row>),
    bias: Option<&[f32]>,
    patches: &[f32],
    width: usize,
) -> Vec<f32> {
    let mut out = Vec::new();
    for patch in patches.chunks(width) {
        let x = Activations::new(dtype, patch);
        out.extend(rows.iter().enumerate().map(|(n, row)| {
            let y = row.dot(&x);
            bias.map_or(y, |bias| y + bias[n])
        }));
    }
    out
}
