//! What this machine does in a second, measured with small graphs of the kinds that a video takes.

use std::borrow::Cow;
use std::time::Instant;

use wushi_cpu::{CpuFunctions, FunctionOptions, Probe, function_schedule};
use wushi_graph::{
    Attention, Builder, Conv, DType, Functions, Graph, GraphError, ReadError, TensorDesc, WeightSource,
};

use super::{Rates, VideoError};
use crate::video::NetworkOptions;

/// Runs of each graph: the fastest counts, as others only ever slow a machine down.
const RUNS: usize = 3;

/// Weights that are zero: computing takes as long with them as with any.
struct Zeros {
    shapes: Vec<(String, Vec<usize>)>,
    dtype: DType,
}

impl Zeros {
    fn of(graph: &Graph, dtype: DType) -> Zeros {
        let shapes = graph.weights().iter().map(|decl| (decl.name.clone(), decl.shape.clone())).collect();
        Zeros { shapes, dtype }
    }
}

impl WeightSource for Zeros {
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>> {
        let (_, shape) = self.shapes.iter().find(|(other, _)| other == name)?;
        Some(TensorDesc { dtype: self.dtype, shape })
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        let missing = || ReadError::missing(name);
        let elements = self.describe(name).ok_or_else(missing)?.shape.iter().product();
        Ok(Cow::Owned(vec![0; self.dtype.bytes_of(elements).ok_or_else(missing)?]))
    }
}

const ROWS: usize = 256;
const WIDTH: usize = 1024;
const HEADS: usize = 8;
const CHANNELS: usize = 96;
const SIDE: usize = 48;

fn linear() -> Result<Graph, GraphError> {
    let g = Builder::new();
    let x = g.input_value("x", &[ROWS, WIDTH])?;
    g.finish(g.linear(x, "linear", 2 * WIDTH)?)
}

fn attention() -> Result<Graph, GraphError> {
    let g = Builder::new();
    let [q, k, v] = ["q", "k", "v"].map(|name| g.input_value(name, &[2 * ROWS, WIDTH]));
    g.finish(g.attention(q?, k?, v?, Attention::full(HEADS, HEADS, WIDTH / HEADS))?)
}

fn convolution() -> Result<Graph, GraphError> {
    let g = Builder::new();
    let x = g.input_value("x", &[1, SIDE, SIDE, CHANNELS])?;
    g.finish(g.conv3d(x, "conv", CHANNELS, Conv::same([3, 3, 3]), false)?)
}

/// Multiply-adds a second of a graph.
fn rate(
    graph: Graph,
    dtype: DType,
    options: &NetworkOptions,
    how: &FunctionOptions,
) -> Result<f64, VideoError> {
    let inputs: Vec<Vec<f32>> =
        graph.inputs().iter().map(|input| vec![1.0; input.shape.iter().product()]).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let source = Zeros::of(&graph, dtype);
    let macs: u64 = function_schedule(&graph, &source, how)?.iter().map(|step| step.macs).sum();
    let mut functions = CpuFunctions::on(options.team.clone(), vec![graph], &source, how.clone())?;
    let mut fastest = f64::INFINITY;
    for _ in 0..RUNS {
        let begun = Instant::now();
        functions.run(0, &inputs).map_err(|error| VideoError::BadModel(error.to_string()))?;
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    Ok(macs as f64 / fastest)
}

/// Measures for a tenth of a second or so: linear layers of one type, attention, convolutions of another, and memory.
pub(super) fn measure_rates(
    linear_type: DType,
    convolution_type: DType,
    options: &NetworkOptions,
    how: &FunctionOptions,
) -> Result<Rates, VideoError> {
    let model = |error: GraphError| VideoError::BadModel(error.to_string());
    let rate = |graph, dtype| rate(graph, dtype, options, how);
    Ok(Rates {
        linear: rate(linear().map_err(model)?, linear_type)?,
        attention: rate(attention().map_err(model)?, DType::F32)?,
        convolution: rate(convolution().map_err(model)?, convolution_type)?,
        bandwidth: Probe::new(how.threads, how.instruction_set)?.bandwidth(),
    })
}
