//! The arithmetic contract for graphs over given values: feature maps, grids, attention within a run.

mod common;

use std::sync::Arc;

use common::{Random, RandomWeights, assert_same_bits};
use wushi_cpu::{
    CpuError, CpuFunctions, Follow, FunctionOptions, InstructionSet, Team, function_schedule, plan_functions,
    reference,
};
use wushi_graph::{
    Attention, Builder, CacheType, Conv, DType, ExecError, Functions, Graph, GridRope, ScoreBias, Unfold,
    WeightSource,
};

fn numbers(n: usize, random: &mut Random) -> Vec<f32> {
    (0..n).map(|_| random.number()).collect()
}

fn inputs_of(graph: &Graph, random: &mut Random) -> Vec<Vec<f32>> {
    graph.inputs().iter().map(|input| numbers(input.shape.iter().product(), random)).collect()
}

fn slices(inputs: &[Vec<f32>]) -> Vec<&[f32]> {
    inputs.iter().map(Vec::as_slice).collect()
}

fn options(instruction_set: InstructionSet, threads: usize, cache: CacheType) -> FunctionOptions {
    FunctionOptions { threads, instruction_set, cache }
}

/// A step of a diffusion transformer over `grid`, with `keys` keys given for cross-attention, the last standing for many.
fn transformer(grid: [usize; 3], keys: usize, width: usize, heads: usize) -> Graph {
    let g = Builder::new();
    let [frames, rows, columns] = grid;
    let latent = g.input_value("latent", &[frames, 2 * rows, 2 * columns, 3]).unwrap();
    let t = g.input_value("timestep", &[1, 1]).unwrap();
    let (k, v) = (g.input_value("k", &[keys, width]).unwrap(), g.input_value("v", &[keys, width]).unwrap());
    let mut x = g.conv3d(latent, "patch", width, Conv::patches(2), true).unwrap();
    let e = g.timestep_embed(t, 256).unwrap();
    let e = g.silu(g.linear_with(e, "time", width, true).unwrap()).unwrap();
    let e = g
        .add(g.linear(e, "modulate", 3 * width).unwrap(), g.parameter("modulation", 3 * width).unwrap())
        .unwrap();
    let [shift, scale, gate] = [0, width, 2 * width].map(|first| g.columns(e, first, width).unwrap());
    let one = |v| g.offset(v, 1.0).unwrap();
    let h = g.mul_add(g.layer_norm_plain(x, 1e-6).unwrap(), one(scale), shift).unwrap();
    let head = width / heads;
    let rope = GridRope { grid, axes: [head / 2, head / 4, head / 4], base: 1e4 };
    let turned = |name| {
        let y =
            g.rms_norm(g.linear_with(h, name, width, true).unwrap(), &format!("{name}_norm"), width, 1e-6);
        g.grid_rope(y.unwrap(), rope).unwrap()
    };
    let values = g.linear(h, "v", width).unwrap();
    let a = g.attention(turned("q"), turned("k"), values, Attention::full(heads, heads, head)).unwrap();
    x = g.mul_add(g.linear_with(a, "o", width, true).unwrap(), gate, x).unwrap();
    let q = g.linear(g.layer_norm(x, "cross_norm", 1e-6).unwrap(), "cross_q", width).unwrap();
    let full = Attention { bias: ScoreBias::LastKey(3.5), ..Attention::full(heads, heads, head) };
    let a = g.attention(q, k, v, full).unwrap();
    x = g.add(x, g.linear(a, "cross_o", width).unwrap()).unwrap();
    let up = g.gelu_tanh(g.linear_with(x, "up", 256, true).unwrap()).unwrap();
    let y = g.linear_with(up, "down", 12, true).unwrap();
    let unfold = Unfold { channels: 3, time: 1, space: 2, strides: [1, 0, 6, 3], repeats: 1, skip: 0 };
    g.finish_all(&[g.unfold(y, unfold).unwrap(), x]).unwrap()
}

/// A decoder of feature maps: `frames` at a time, later ones made two of each.
fn decoder(frames: usize, double: bool) -> Graph {
    let g = Builder::new();
    let z = g.input_value("z", &[frames, 4, 5, 6]).unwrap();
    let mut x = g.conv3d(z, "conv_in", 20, Conv::same([3, 3, 3]), true).unwrap();
    let h = g.silu(g.rms_norm(x, "norm", 20, 1e-24).unwrap()).unwrap();
    x = g.add(x, g.conv3d(h, "conv", 20, Conv::same([3, 3, 3]), true).unwrap()).unwrap();
    let [q, k, v] = ["q", "k", "v"].map(|name| g.linear(x, name, 20).unwrap());
    let a = g.attention(q, k, v, Attention { sequences: frames, ..Attention::full(1, 1, 20) }).unwrap();
    x = g.add(x, a).unwrap();
    if double {
        let y = g.conv3d(x, "time", 40, Conv { padding: 0, ..Conv::same([3, 1, 1]) }, true).unwrap();
        let unfold = Unfold { channels: 20, time: 2, space: 1, strides: [1, 20, 0, 0], repeats: 1, skip: 0 };
        x = g.unfold(y, unfold).unwrap();
    }
    x = g.conv3d(x, "up", 10, Conv { upsample: 2, ..Conv::same([1, 3, 3]) }, true).unwrap();
    g.finish(g.conv3d(x, "conv_out", 3, Conv::same([3, 3, 3]), false).unwrap()).unwrap()
}

/// Two frames of memory do not see what was before them.
fn reference_once(
    graph: &Graph,
    weights: &dyn WeightSource,
    inputs: &[Vec<f32>],
    cache: CacheType,
) -> Vec<Vec<f32>> {
    let mut carried = reference::Carried::new();
    reference::evaluate_function(graph, weights, &slices(inputs), cache, &mut carried).unwrap()
}

#[test]
fn transformers_have_the_references_bits() {
    let (narrow, wide) = ((24, 3), (256, 2));
    for (dtype, cache, grid, keys, (width, heads)) in [
        (DType::F32, CacheType::F32, [2, 3, 5], 7, narrow),
        (DType::BF16, CacheType::F16, [1, 2, 9], 33, narrow),
        (DType::F16, CacheType::F32, [3, 1, 1], 1, narrow),
        // More keys than a segment.
        (DType::F32, CacheType::F16, [2, 14, 20], 64, narrow),
        (DType::Q8_0, CacheType::F16, [1, 5, 7], 9, wide),
        (DType::Q4_K, CacheType::F16, [1, 5, 7], 9, wide),
        (DType::Q6_K, CacheType::F32, [2, 3, 3], 5, wide),
    ] {
        let graph = transformer(grid, keys, width, heads);
        let mut random = Random(keys as u64);
        let weights = RandomWeights::new(&graph, dtype, &mut random);
        let inputs = inputs_of(&graph, &mut random);
        let want = reference_once(&graph, &weights, &inputs, cache);
        for set in InstructionSet::available() {
            for threads in [1, 3] {
                let options = options(set, threads, cache);
                let mut functions = CpuFunctions::new(vec![graph.clone()], &weights, options).unwrap();
                let got = functions.run(0, &slices(&inputs)).unwrap();
                for (got, want) in got.iter().zip(&want) {
                    assert_same_bits(got, want, &format!("{dtype} {grid:?}, {threads} threads, {set}"));
                }
            }
        }
    }
}

/// Layers with biases that are gated, mapped and added to what was there, over more rows than any block has.
#[test]
fn quantised_layers_of_many_rows() {
    for &dtype in DType::ALL.iter().filter(|dtype| !dtype.is_plain()) {
        let width = if dtype.block_elements() == 32 { 544 } else { 768 };
        for rows in [16, 33, 48, 530] {
            let g = Builder::new();
            let x = g.input_value("x", &[rows, width]).unwrap();
            let linear = |x, name, outputs| g.linear_with(x, name, outputs, true).unwrap();
            let gate = g.silu(linear(x, "gate", 40)).unwrap();
            let gated = g.mul(linear(x, "up", 40), gate).unwrap();
            let added = g.add(x, linear(x, "residual", width)).unwrap();
            let mapped = g.gelu_tanh(linear(added, "map", 33)).unwrap();
            let graph = g.finish_all(&[gated, added, mapped]).unwrap();
            let mut random = Random(rows as u64);
            let weights = RandomWeights::new(&graph, dtype, &mut random);
            let inputs = inputs_of(&graph, &mut random);
            let want = reference_once(&graph, &weights, &inputs, CacheType::F32);
            for set in InstructionSet::available() {
                let options = options(set, 2, CacheType::F32);
                let mut functions = CpuFunctions::new(vec![graph.clone()], &weights, options).unwrap();
                let got = functions.run(0, &slices(&inputs)).unwrap();
                for (got, want) in got.iter().zip(&want) {
                    assert_same_bits(got, want, &format!("{dtype}, {rows} rows, {set}"));
                }
            }
        }
    }
}

#[test]
fn frames_one_by_one_or_together_have_the_same_bits() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let (first, next, rest) = (decoder(1, false), decoder(1, true), decoder(3, true));
        let mut random = Random(dtype as u64);
        let weights = RandomWeights::new(&next, dtype, &mut random);
        let frames: Vec<Vec<f32>> = (0..4).map(|_| numbers(4 * 5 * 6, &mut random)).collect();
        let mut carried = reference::Carried::new();
        let mut run = |graph, z: &[f32]| {
            reference::evaluate_function(graph, &weights, &[z], CacheType::F32, &mut carried)
                .unwrap()
                .remove(0)
        };
        let mut want = run(&first, &frames[0]);
        frames[1..].iter().for_each(|z| want.extend(run(&next, z)));
        for set in InstructionSet::available() {
            let graphs = vec![first.clone(), next.clone(), rest.clone()];
            let mut functions = CpuFunctions::new(graphs, &weights, options(set, 2, CacheType::F32)).unwrap();
            // What a run before left is forgotten.
            functions.run(0, &[&frames[3]]).unwrap();
            for together in [false, true] {
                functions.reset();
                let mut got = functions.run(0, &[&frames[0]]).unwrap().remove(0);
                if together {
                    got.extend(functions.run(2, &[&frames[1..].concat()]).unwrap().remove(0));
                } else {
                    frames[1..].iter().for_each(|z| got.extend(functions.run(1, &[z]).unwrap().remove(0)));
                }
                assert_same_bits(&got, &want, &format!("{dtype}, together: {together}, {set}"));
            }
        }
    }
}

#[test]
fn the_plan_is_what_is_taken() {
    let graphs = vec![decoder(1, false), decoder(1, true)];
    let weights = RandomWeights::new(&graphs[1], DType::F32, &mut Random(1));
    let options = options(InstructionSet::Portable, 2, CacheType::F32);
    let plan = plan_functions(&graphs.iter().collect::<Vec<_>>(), &weights, &options).unwrap();
    let alone = plan_functions(&[&graphs[1]], &weights, &options).unwrap();
    assert_eq!(plan.weights, alone.weights, "weights are shared");
    // Two frames before each causal convolution.
    assert_eq!(plan.cache, 2 * 4 * (4 * 5 * (6 + 20 + 20) + 8 * 10 * 10));
    let steps = function_schedule(&graphs[1], &weights, &options).unwrap();
    let macs = |kernel| steps.iter().filter(|s| s.kernel == kernel).map(|s| s.macs).sum::<u64>();
    let positions = 4 * 5;
    // Tiles of 4 by 4 outputs take 36 products for every channel and frame of a kernel: two, then six in each of two frames.
    assert_eq!(
        macs("conv3d"),
        positions * 3 * 20 * 40 + 2 * 36 * 3 * (6 + 20) * 20 + 2 * 6 * 36 * (20 * 10 + 3 * 10 * 3)
    );
    assert_eq!(macs("attention"), 2 * positions * positions * 20);
    assert_eq!(CpuFunctions::new(graphs, &weights, options).unwrap().memory(), plan);
}

#[test]
fn wrong_inputs_are_refused() {
    let graph = decoder(1, false);
    let weights = RandomWeights::new(&graph, DType::F32, &mut Random(1));
    let options = options(InstructionSet::Portable, 1, CacheType::F32);
    let mut functions = CpuFunctions::new(vec![graph], &weights, options).unwrap();
    let error =
        |inputs: &[&[f32]], functions: &mut CpuFunctions| functions.run(0, inputs).unwrap_err().to_string();
    assert_eq!(error(&[], &mut functions), "invalid inputs: 0 values for 1 inputs");
    let e = error(&[&[0.0; 7]], &mut functions);
    assert_eq!(e, "invalid inputs: `z` has 7 elements, its shape is [1, 4, 5, 6]");
    assert_eq!(functions.run(1, &[]).unwrap_err().to_string(), "invalid inputs: graph 1 of 1");
}

/// Layers that are cut into pieces of rows, and of rows and columns, where others come first.
#[test]
fn in_turns_or_at_once() {
    let g = Builder::new();
    let x = g.input_value("x", &[1100, 512]).unwrap();
    let h = g.linear_with(g.rms_norm(x, "norm", 512, 1e-6).unwrap(), "narrow", 608, true).unwrap();
    let wide = g.gelu_tanh(g.linear_with(h, "wide", 2304, true).unwrap()).unwrap();
    let y = g.add(h, g.linear(wide, "down", 608).unwrap()).unwrap();
    let [q, k, v] = ["q", "k", "v"].map(|name| g.linear(y, name, 512).unwrap());
    let a = g.attention(q, k, v, Attention::full(8, 8, 64)).unwrap();
    let layers = g.finish_all(&[g.linear(a, "out", 16).unwrap(), y]).unwrap();
    let g = Builder::new();
    let x = g.input_value("x", &[1, 32, 36, 256]).unwrap();
    let y = g.conv3d(x, "filtered", 384, Conv::same([3, 3, 3]), true).unwrap();
    let time = Conv { padding: 0, ..Conv::same([3, 1, 1]) };
    let maps = g.finish(g.conv3d(y, "time", 256, time, true).unwrap()).unwrap();
    let mut random = Random(11);
    let set = InstructionSet::best();
    for (graph, dtype) in [(&layers, DType::F32), (&layers, DType::Q8_0), (&maps, DType::BF16)] {
        let inputs = inputs_of(graph, &mut random);
        let weights = RandomWeights::new(graph, dtype, &mut random);
        let mut results = Vec::new();
        for threads in [1, 3] {
            let team = Team::new(threads).unwrap();
            for team in [team.clone(), team.background()] {
                let options = options(set, threads, CacheType::F16);
                let mut functions =
                    CpuFunctions::on(team.clone(), vec![graph.clone()], &weights, options.clone()).unwrap();
                // Twice: the second time is planned by what the first took.
                for _ in 0..2 {
                    functions.reset();
                    results.push(functions.run(0, &slices(&inputs)).unwrap().concat());
                }
                let follow = Arc::new(Follow::default());
                let team = team.followed(follow.clone());
                let mut functions =
                    CpuFunctions::on(team.clone(), vec![graph.clone()], &weights, options.clone()).unwrap();
                results.push(functions.run(0, &slices(&inputs)).unwrap().concat());
                assert_eq!(follow.share(), 1.0);
                follow.stop();
                assert_eq!(functions.run(0, &slices(&inputs)), Err(ExecError::Stopped));
                let loading = CpuFunctions::on(team, vec![graph.clone()], &weights, options);
                assert!(matches!(loading, Err(CpuError::Stopped)));
            }
        }
        for other in &results[1..] {
            assert_same_bits(&results[0], other, "in turns or at once");
        }
    }
}
