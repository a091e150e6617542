//! Convolutions: the reference's bits at every size, and how far they are from exact sums.

mod common;

use common::{Random, RandomWeights, assert_same_bits};
use proptest::prelude::*;
use wushi_cpu::{CpuFunctions, FunctionOptions, InstructionSet, reference};
use wushi_graph::{Builder, CacheType, Conv, DType, Functions, Graph, WeightSource};
use wushi_quant::dequantize;

/// A feature map, and what becomes of it.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Frames, height, width, channels.
    map: [usize; 4],
    outputs: usize,
    conv: Conv,
    bias: bool,
    /// Whether something is added to the result.
    residual: bool,
}

impl Case {
    fn enlarged(&self) -> [usize; 4] {
        let [frames, height, width, _] = self.map;
        [frames, height * self.conv.upsample, width * self.conv.upsample, self.outputs]
    }

    fn graph(&self, frames: usize) -> Graph {
        let g = Builder::new();
        let [_, height, width, channels] = self.map;
        let x = g.input_value("x", &[frames, height, width, channels]).unwrap();
        let [_, height, width, outputs] = self.enlarged();
        let residual = g.input_value("residual", &[frames, height, width, outputs]).unwrap();
        let y = g.conv3d(x, "conv", outputs, self.conv, self.bias).unwrap();
        if self.residual {
            return g.finish(g.add(residual, y).unwrap()).unwrap();
        }
        g.finish_all(&[y, residual]).unwrap()
    }
}

fn conv(frames: usize, upsample: usize) -> Conv {
    Conv { upsample, ..Conv::same([frames, 3, 3]) }
}

fn numbers(n: usize, random: &mut Random) -> Vec<f32> {
    (0..n).map(|_| random.number()).collect()
}

/// Two runs, so that frames are carried from the first to the second; then the same frames one by one.
fn has_the_references_bits(case: &Case, dtype: DType, threads: usize, random: &mut Random) {
    let frames = case.map[0];
    let (whole, single) = (case.graph(frames), case.graph(1));
    let weights = RandomWeights::new(&whole, dtype, random);
    let runs: [[Vec<f32>; 2]; 2] = std::array::from_fn(|_| {
        [numbers(case.map.iter().product(), random), numbers(case.enlarged().iter().product(), random)]
    });
    let mut carried = reference::Carried::new();
    let want: Vec<Vec<f32>> = runs
        .iter()
        .map(|[x, residual]| {
            let inputs = [x.as_slice(), residual];
            reference::evaluate_function(&whole, &weights, &inputs, CacheType::F32, &mut carried)
                .unwrap()
                .remove(0)
        })
        .collect();
    for instruction_set in InstructionSet::available() {
        let options = FunctionOptions { threads, instruction_set, cache: CacheType::F32 };
        let graphs = vec![whole.clone(), single.clone()];
        let mut functions = CpuFunctions::new(graphs, &weights, options).unwrap();
        let what = format!("{case:?} {dtype}, {threads} threads, {instruction_set}");
        for ([x, residual], want) in runs.iter().zip(&want) {
            let got = functions.run(0, &[x, residual]).unwrap().remove(0);
            assert_same_bits(&got, want, &what);
        }
        functions.reset();
        for ([x, residual], want) in runs.iter().zip(&want) {
            let each = x.chunks(x.len() / frames).zip(residual.chunks(residual.len() / frames));
            let got = each.flat_map(|(x, residual)| functions.run(1, &[x, residual]).unwrap().remove(0));
            assert_same_bits(&got.collect::<Vec<_>>(), want, &format!("{what}, one by one"));
        }
    }
}

/// Both sides of every block: of tiles that are computed together, of a segment of inputs, of vectors of channels.
#[test]
fn blocks_of_every_kind() {
    let case = |map, outputs, conv| Case { map, outputs, conv, bias: true, residual: true };
    for (i, case) in [
        // 62 tiles of one frame; 63 of three, places being cut between frames.
        case([1, 7, 121, 2], 3, conv(3, 1)),
        case([3, 9, 25, 5], 17, conv(3, 1)),
        // More frames than tiles are computed together.
        case([64, 2, 5, 3], 4, conv(2, 1)),
        // A segment of inputs and one more; several segments.
        case([2, 5, 4, 171], 33, conv(3, 1)),
        case([1, 4, 4, 513], 16, conv(3, 1)),
        case([1, 3, 3, 512], 15, conv(1, 1)),
        case([1, 2, 6, 33], 48, conv(1, 2)),
        case([2, 3, 5, 16], 7, conv(3, 3)),
    ]
    .into_iter()
    .enumerate()
    {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            has_the_references_bits(&case, dtype, 1 + i % 3, &mut Random(i as u64));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_size_has_the_references_bits(
        map in (1usize..4, 1usize..10, 1usize..14, prop_oneof![1usize..10, 15usize..18, 31usize..34]),
        outputs in prop_oneof![1usize..10, 15usize..18, 31usize..34],
        (kernel, upsample) in (1usize..4, 1usize..4),
        dtype in prop::sample::select(&[DType::F32, DType::F16, DType::BF16][..]),
        (bias, residual) in any::<(bool, bool)>(),
        threads in 1usize..4,
        seed: u64,
    ) {
        let (frames, height, width, channels) = map;
        let case = Case {
            map: [frames, height, width, channels],
            outputs,
            conv: conv(kernel, upsample),
            bias,
            residual,
        };
        has_the_references_bits(&case, dtype, threads, &mut Random(seed));
    }
}

/// The exact convolution of a map of one run, rounded in nothing but F64.
fn exact(case: &Case, weights: &[f32], x: &[f32]) -> Vec<f64> {
    let ([frames, height, width, channels], [_, rows, columns, _]) = (case.map, case.enlarged());
    let (taps, upsample) = (case.conv.kernel[0], case.conv.upsample);
    let mut out = Vec::new();
    for place in 0..frames * rows * columns {
        let (t, y, column) = (place / (rows * columns), place / columns % rows, place % columns);
        for kernel in weights.chunks(channels * taps * 9) {
            let mut sum = 0.0;
            for tap in 0..taps * 9 {
                let (dt, dy, dx) = (tap / 9, tap / 3 % 3, tap % 3);
                let (t, y, column) = (t + dt, y + dy, column + dx);
                if t + 1 < taps || y < 1 || column < 1 || y > rows || column > columns {
                    continue;
                }
                let pixel = (y - 1) / upsample * width + (column - 1) / upsample;
                let from = &x[((t + 1 - taps) * height * width + pixel) * channels..];
                sum += (0..channels)
                    .map(|c| f64::from(from[c]) * f64::from(kernel[c * taps * 9 + tap]))
                    .sum::<f64>();
            }
            out.push(sum);
        }
    }
    out
}

/// Whatever the type of the weights, sums are those of F32: the largest error is below 5 millionths of the largest value
/// (about 3 are seen), and errors are 2.5 millionths of values on average.
#[test]
fn errors_are_those_of_single_precision() {
    for (i, (map, kernel, upsample)) in
        [([2, 13, 14, 96], 3, 1), ([1, 9, 16, 384], 3, 1), ([1, 8, 8, 192], 1, 2)].into_iter().enumerate()
    {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let conv = Conv { carry: false, ..conv(kernel, upsample) };
            let case = Case { map, outputs: 32, conv, bias: false, residual: false };
            let graph = case.graph(map[0]);
            let mut random = Random(i as u64);
            let weights = RandomWeights::new(&graph, dtype, &mut random);
            let x = numbers(map.iter().product(), &mut random);
            let residual = vec![0.0; case.enlarged().iter().product()];
            let options = FunctionOptions {
                threads: 2,
                instruction_set: InstructionSet::best(),
                cache: CacheType::F32,
            };
            let mut functions = CpuFunctions::new(vec![graph], &weights, options).unwrap();
            let got = functions.run(0, &[&x, &residual]).unwrap().remove(0);
            let stored = dequantize(dtype, &weights.read("conv.weight").unwrap());
            let want = exact(&case, &stored, &x);
            let square = |x: f64| x * x;
            let largest = want.iter().fold(0.0f64, |max, x| max.max(x.abs()));
            let errors: Vec<f64> =
                got.iter().zip(&want).map(|(got, want)| (f64::from(*got) - want).abs()).collect();
            let worst = errors.iter().fold(0.0f64, |max, e| max.max(*e)) / largest;
            let squares = errors.iter().map(|e| square(*e)).sum::<f64>();
            let mean = (squares / want.iter().map(|x| square(*x)).sum::<f64>()).sqrt();
            assert!(
                worst < 5e-6 && mean < 2.5e-6,
                "{case:?} {dtype}: {worst:e} at most, {mean:e} on average"
            );
        }
    }
}
