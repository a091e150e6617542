//! The arithmetic contract: every kernel, thread count, chunk and batch gives the reference's bits.

mod common;

use common::{
    Fill, Random, RandomWeights, Shape, assert_same_bits, encoder, mixture, options, run, run_mixed,
};
use proptest::prelude::*;
use wushi_cpu::{CpuExecutor, InstructionSet, Options, PAGE_TOKENS, Team, reference};
use wushi_graph::{Batch, Builder, CacheType, DType, Executor, Graph, Mask, RopePairs};

fn executor(graph: &Graph, weights: &RandomWeights, options: Options) -> CpuExecutor {
    CpuExecutor::new(graph.clone(), weights, options).expect("the model loads")
}

fn tokens(n: usize, vocab: usize, random: &mut Random) -> Vec<u32> {
    (0..n).map(|_| random.below(vocab) as u32).collect()
}

#[test]
fn instruction_sets_that_run_here() {
    let sets = InstructionSet::available();
    let names: Vec<_> = sets.iter().map(|set| set.name()).collect();
    // Goes past the test harness's capture: a log must show what was tested.
    use std::io::Write;
    writeln!(std::io::stderr(), "instruction sets tested: {}", names.join(", ")).expect("stderr");
    assert!(sets.contains(&InstructionSet::Portable));
    if let Ok(cpu) = std::fs::read_to_string("/proc/cpuinfo") {
        let has = |flag: &str| cpu.split_whitespace().any(|word| word == flag);
        assert_eq!(has("avx2"), sets.contains(&InstructionSet::Avx2), "AVX2 must be tested where it is");
        assert_eq!(has("avx512_vnni"), sets.contains(&InstructionSet::Avx512), "and AVX-512 VNNI");
        // The kernel may refuse it to a process all the same.
        assert!(has("amx_int8") || !sets.contains(&InstructionSet::Avx512Amx), "AMX is used where it is");
    }
}

/// One linear layer.
struct Linear {
    dtype: DType,
    inputs: usize,
    outputs: usize,
    rows: usize,
    threads: usize,
    fill: Fill,
    seed: u64,
}

/// All instruction sets against the reference.
fn check_linear(case: Linear) {
    let Linear { dtype, inputs, outputs, rows, threads, fill, seed } = case;
    let g = Builder::new();
    let x = g.rows(g.embed("token_embd", 37, inputs).unwrap()).unwrap();
    let graph = g.finish(g.linear_with(x, "output", outputs, seed.is_multiple_of(2)).unwrap()).unwrap();
    let mut random = Random(seed);
    let weights = RandomWeights::filled(&graph, dtype, fill, &mut random);
    let tokens = tokens(rows, 37, &mut random);
    let want = reference::evaluate(&graph, &weights, &tokens, CacheType::F32).unwrap();
    for set in InstructionSet::available() {
        let mut executor = executor(&graph, &weights, options(set, threads, CacheType::F32, 512));
        let mut batch = Batch::default();
        batch.push(&tokens, 0, &(0..16).collect::<Vec<_>>());
        batch.logit_rows.extend(0..rows);
        // The vocabulary of tokens is larger than the outputs here: ids are checked against the table.
        let got = executor.run(&batch).unwrap().logits;
        assert_same_bits(got, &want, &format!("{dtype} {outputs}x{inputs}, {rows} rows, {set}"));
    }
}

#[test]
fn linear_at_both_sides_of_every_block_size() {
    for &dtype in DType::ALL {
        let inputs: &[usize] = match dtype.block_elements() {
            1 => &[1, 2, 31, 511, 512, 513, 1025],
            32 => &[32, 480, 512, 544, 1024, 1056],
            _ => &[256, 512, 768, 1280],
        };
        for &inputs in inputs {
            for (outputs, rows) in [(1, 1), (15, 2), (16, 3), (17, 4), (33, 5), (48, 8), (64, 9), (40, 23)] {
                let (threads, seed) = (1 + rows % 3, (inputs * outputs * rows) as u64);
                check_linear(Linear { dtype, inputs, outputs, rows, threads, fill: Fill::Random, seed });
            }
        }
    }
}

/// Rows at both sides of whole tiles, and segments.
#[test]
fn linear_of_many_rows() {
    for &dtype in DType::ALL.iter().filter(|dtype| !dtype.is_plain()) {
        let inputs: &[usize] =
            if dtype.block_elements() == 32 { &[480, 544, 1056] } else { &[512, 768, 1280] };
        for (i, rows) in [15, 16, 17, 31, 32, 33, 48].into_iter().enumerate() {
            let (inputs, outputs) = (inputs[i % 3], [16, 40, 65][i % 3]);
            let (threads, seed) = (1 + i % 2, (inputs * rows + i) as u64);
            check_linear(Linear { dtype, inputs, outputs, rows, threads, fill: Fill::Random, seed });
        }
    }
}

#[test]
fn linear_beyond_a_block_of_rows() {
    for &dtype in DType::ALL {
        let inputs = 64usize.next_multiple_of(dtype.block_elements());
        let case = Linear { dtype, inputs, outputs: 20, rows: 300, threads: 2, fill: Fill::Random, seed: 5 };
        check_linear(case);
    }
}

/// Quants, scales and minima at their ends: equal elements within a block of the table make activations of ±127
/// throughout, so the integers are as large as they get.
#[test]
fn linear_of_the_largest_integers() {
    for &dtype in DType::ALL.iter().filter(|dtype| !dtype.is_plain()) {
        for byte in [0x00, 0x7f, 0x80, 0x88, 0x0f, 0xf0, 0xff] {
            for rows in [1, 8, 16] {
                let fill = Fill::Byte(byte);
                check_linear(Linear { dtype, inputs: 1024, outputs: 17, rows, threads: 2, fill, seed: 8 });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn linear_of_random_shapes(
        dtype in prop::sample::select(DType::ALL),
        blocks in 1usize..40,
        outputs in 1usize..80,
        rows in 1usize..20,
        threads in 1usize..4,
        seed: u64,
    ) {
        let inputs = match dtype.block_elements() {
            1 => blocks * 27,
            32 => blocks * 32,
            block => blocks.div_ceil(8) * block,
        };
        check_linear(Linear { dtype, inputs, outputs, rows, threads, fill: Fill::Random, seed });
    }
}

/// A whole model: reference, then everything that must not matter.
fn check_model(shape: &Shape, dtype: DType, cache: CacheType, length: usize, chunks: &[usize]) {
    check_graph(&shape.graph(), shape.vocab, dtype, cache, length, chunks);
}

fn check_graph(graph: &Graph, vocab: usize, dtype: DType, cache: CacheType, length: usize, chunks: &[usize]) {
    let mut random = Random(length as u64);
    let weights = RandomWeights::new(graph, dtype, &mut random);
    let tokens = tokens(length, vocab, &mut random);
    let want = reference::evaluate(graph, &weights, &tokens, cache).unwrap();
    let states = graph.states().map(|value| {
        let states = reference::evaluate_value(graph, &weights, &tokens, cache, value).unwrap();
        (graph.node(value).shape.width().unwrap(), states)
    });
    // What an encoder gives are states, and a row of them is no row of its vocabulary.
    let width = graph.node(graph.output()).shape.width().unwrap();
    for set in InstructionSet::available() {
        for threads in [1, 2, 3] {
            let mut executor = executor(graph, &weights, options(set, threads, cache, length));
            // Pages in no particular order.
            let table: Vec<u32> =
                (0..length.div_ceil(PAGE_TOKENS) as u32).rev().map(|page| page * 3).collect();
            let other: Vec<u32> = tokens.iter().map(|token| (token + 1) % vocab as u32).collect();
            for &chunk in chunks {
                // Pages hold another sequence's keys and values before: what is not written again shows.
                run(&mut executor, &other, 512, &table);
                let got = run(&mut executor, &tokens, chunk, &table);
                let what = format!("{dtype}, cache {cache}, {set}, {threads} threads, chunks of {chunk}");
                assert_same_bits(&got, &want, &what);
                if let Some(states) = states.as_ref().filter(|_| chunks.last() == Some(&chunk)) {
                    check_states(
                        &mut executor,
                        &tokens,
                        chunk,
                        &table,
                        [(width, &want), (states.0, &states.1)],
                        &what,
                    );
                }
            }
        }
    }
}

/// Rows of one step that want states beside rows that want logits, and steps in which all want the one or the other.
fn check_states(
    executor: &mut CpuExecutor,
    tokens: &[u32],
    chunk: usize,
    table: &[u32],
    [(vocab, logits), (width, states)]: [(usize, &Vec<f32>); 2],
    what: &str,
) {
    let wishes: [fn(usize) -> bool; 3] = [|_| true, |row| row % 3 != 1, |row| row / 7 % 2 == 0];
    for is_state in wishes {
        for (row, got) in run_mixed(executor, tokens, chunk, table, is_state) {
            let (name, want) = match is_state(row) {
                true => ("state", &states[row * width..(row + 1) * width]),
                false => ("logits", &logits[row * vocab..(row + 1) * vocab]),
            };
            assert_same_bits(&got, want, &format!("{name} of row {row}, {what}"));
        }
    }
}

#[test]
fn every_dtype_and_cache_type() {
    for &dtype in DType::ALL {
        // Large blocks make large models; what a cache does has nothing to do with them.
        let caches = if dtype.block_elements() > 32 { 1 } else { CacheType::ALL.len() };
        for &cache in &CacheType::ALL[..caches] {
            check_model(&Shape::default().storable(dtype), dtype, cache, 45, &[45, 1, 7]);
        }
    }
}

#[test]
fn every_operator() {
    for pairs in [RopePairs::Adjacent, RopePairs::Halves] {
        // Head and hidden sizes that are no whole panels, and a window that is crossed.
        let shape = Shape {
            rich: true,
            pairs,
            head_dim: 20,
            heads: 6,
            hidden: 72,
            width: 52,
            mask: Mask::SlidingWindow(19),
            ..Shape::default()
        };
        check_model(&shape, DType::F32, CacheType::F16, 50, &[50, 1, 7]);
        check_model(&shape, DType::BF16, CacheType::F32, 50, &[50, 13]);
        check_model(&shape, DType::F32, CacheType::Q8_0, 50, &[50, 1, 13]);
    }
}

#[test]
fn mixtures_of_experts() {
    for (experts, used, normalise) in [(5, 2, true), (16, 3, false), (4, 4, true), (3, 1, true)] {
        let graph = mixture(experts, used, normalise);
        for dtype in [DType::F32, DType::BF16, DType::Q8_0, DType::Q4_1] {
            check_graph(&graph, 70, dtype, CacheType::F16, 40, &[40, 1, 7]);
        }
    }
}

#[test]
fn encoders() {
    // A sequence comes in one piece; the second one's groups fill no panel.
    check_graph(&encoder(64, 600), 70, DType::F32, CacheType::F32, 512, &[512]);
    for dtype in [DType::F16, DType::F32] {
        check_graph(&encoder(40, 64), 70, dtype, CacheType::F16, 33, &[33]);
    }
}

#[test]
fn a_sequence_whose_tokens_see_all_must_come_whole() {
    let graph = encoder(64, 64);
    let weights = RandomWeights::new(&graph, DType::F32, &mut Random(1));
    let mut executor = executor(&graph, &weights, options(InstructionSet::best(), 1, CacheType::F32, 64));
    let mut batch = Batch::default();
    batch.push(&[1, 2], 0, &[0]);
    batch.push(&[3], 2, &[1]);
    let error = executor.run(&batch).unwrap_err().to_string();
    assert!(error.contains("in one step"), "{error}");
    let options = options(InstructionSet::best(), 1, CacheType::F32, 65);
    let error = CpuExecutor::new(graph, &weights, options).err().expect("too long").to_string();
    assert!(error.contains("64 positions"), "{error}");
}

/// Branches that read one value and meet again, in every way that fusing could get wrong.
#[test]
fn values_that_are_read_twice() {
    let g = Builder::new();
    let x = g.embed("token_embd", 40, 64).unwrap();
    let (a, b) = (g.linear(x, "a", 96).unwrap(), g.linear(x, "b", 96).unwrap());
    let sum = g.add(a, b).unwrap();
    let gate = g.silu(g.linear(sum, "gate", 64).unwrap()).unwrap();
    let gated = g.mul(g.linear(sum, "up", 64).unwrap(), gate).unwrap();
    // The gate and the sum are read again; a value is added to itself; a residual comes from the same step.
    let again = g.add(gated, gate).unwrap();
    let twice = g.add(again, again).unwrap();
    let (c, d) = (g.linear(twice, "c", 64).unwrap(), g.linear(twice, "d", 64).unwrap());
    let joined = g.add(g.add(c, x).unwrap(), d).unwrap();
    let squared = g.mul(joined, joined).unwrap();
    let graph = g.finish(g.linear(g.rows(squared).unwrap(), "output", 33).unwrap()).unwrap();
    let mut random = Random(3);
    for dtype in [DType::F32, DType::Q8_0] {
        let weights = RandomWeights::new(&graph, dtype, &mut random);
        let tokens = tokens(40, 40, &mut random);
        let want = reference::evaluate(&graph, &weights, &tokens, CacheType::F32).unwrap();
        for threads in [1, 2, 3, 5] {
            let options = options(InstructionSet::best(), threads, CacheType::F32, 64);
            let mut executor = executor(&graph, &weights, options);
            for round in 0..20 {
                let got = run(&mut executor, &tokens, 40, &[0, 1]);
                assert_same_bits(&got, &want, &format!("{dtype}, {threads} threads, round {round}"));
            }
        }
    }
}

#[test]
fn contexts_across_segments() {
    let shape = Shape { layers: 1, heads: 6, kv_heads: 2, head_dim: 16, ..Shape::default() };
    for length in [511, 512, 513, 1030] {
        check_model(&shape, DType::Q8_0, CacheType::F16, length, &[512, 64]);
        check_model(&shape, DType::Q4_0, CacheType::Q8_0, length, &[512, 64]);
    }
    let window = Shape { mask: Mask::SlidingWindow(530), ..shape };
    check_model(&window, DType::F32, CacheType::F32, 1100, &[512, 300]);
}

#[test]
fn alone_or_among_others() {
    let shape = Shape::default();
    let graph = shape.graph();
    let mut random = Random(9);
    let weights = RandomWeights::new(&graph, DType::Q4_1, &mut random);
    let sequences: Vec<Vec<u32>> = (0..32).map(|i| tokens(5 + i * 3, shape.vocab, &mut random)).collect();
    for set in InstructionSet::available() {
        let mut together = Options { pages: 200, ..options(set, 2, CacheType::F16, 128) };
        together.max_logit_rows = 32;
        let mut executor = executor(&graph, &weights, together);
        let tables: Vec<Vec<u32>> = (0..32).map(|i| (i * 4..i * 4 + 4).collect()).collect();
        let mut batch = Batch::default();
        // All prompts but their last tokens, in batches of eight; then the last tokens of all at once.
        for group in 0..4 {
            batch.clear();
            for i in group * 8..group * 8 + 8 {
                batch.push(&sequences[i][..sequences[i].len() - 1], 0, &tables[i]);
            }
            for rows in batch_parts(&batch, 512) {
                executor.run(&rows).unwrap();
            }
        }
        batch.clear();
        for (sequence, table) in sequences.iter().zip(&tables) {
            batch.push(&sequence[sequence.len() - 1..], sequence.len() - 1, table);
        }
        batch.logit_rows.extend(0..32);
        let got = executor.run(&batch).unwrap().logits.to_vec();
        for (i, sequence) in sequences.iter().enumerate() {
            let all = reference::evaluate(&graph, &weights, sequence, CacheType::F16).unwrap();
            let want = &all[(sequence.len() - 1) * shape.vocab..];
            let row = &got[i * shape.vocab..(i + 1) * shape.vocab];
            assert_same_bits(row, want, &format!("sequence {i} among 32, {set}"));
        }
    }
}

/// More rows may want states than may want logits.
#[test]
fn every_row_may_want_its_state() {
    for graph in [Shape { width: 52, ..Shape::default() }.graph(), mixture(5, 2, true)] {
        let weights = RandomWeights::new(&graph, DType::F32, &mut Random(4));
        let tokens = tokens(60, 70, &mut Random(5));
        let of = |value| reference::evaluate_value(&graph, &weights, &tokens, CacheType::F16, value).unwrap();
        let (logits, states) = (of(graph.output()), of(graph.states().unwrap()));
        let options = Options { max_logit_rows: 1, ..options(InstructionSet::best(), 2, CacheType::F16, 64) };
        let mut executor = executor(&graph, &weights, options);
        for (row, got) in run_mixed(&mut executor, &tokens, 60, &[0, 1], |row| row != 20) {
            let want = if row == 20 {
                logits.chunks(70).nth(row)
            } else {
                states.chunks(states.len() / 60).nth(row)
            };
            assert_same_bits(&got, want.unwrap(), &format!("row {row}"));
        }
        let mut batch = Batch::default();
        batch.push(&tokens[..3], 0, &[0]);
        batch.state_rows.push(2);
        let computed = executor.run(&batch).unwrap();
        assert_same_bits(computed.states, states.chunks(states.len() / 60).nth(2).unwrap(), "alone");
        assert!(computed.logits.is_empty());
        batch.state_rows.clear();
        assert!(executor.run(&batch).unwrap().states.is_empty());
    }
}

/// Two models on one team, loaded and run from two threads at once, compute what each does alone.
#[test]
fn models_that_share_a_team() {
    for threads in [1, 3] {
        let team = Team::new(threads).unwrap();
        let check = |graph: Graph, dtype, seed| {
            let mut random = Random(seed);
            let weights = RandomWeights::new(&graph, dtype, &mut random);
            let tokens = tokens(40, 70, &mut random);
            let want = reference::evaluate(&graph, &weights, &tokens, CacheType::F16).unwrap();
            for _ in 0..3 {
                let options = options(InstructionSet::best(), threads, CacheType::F16, 64);
                let mut executor = CpuExecutor::on(team.clone(), graph.clone(), &weights, options).unwrap();
                for chunk in [1, 7, 40] {
                    assert_same_bits(&run(&mut executor, &tokens, chunk, &[0, 1]), &want, "on a shared team");
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| check(Shape::default().graph(), DType::Q8_0, 1));
            scope.spawn(|| check(mixture(5, 2, true), DType::F32, 2));
        });
    }
}

/// Cuts a batch of whole spans so that none has more than `limit` rows.
fn batch_parts(batch: &Batch, limit: usize) -> Vec<Batch> {
    let mut parts = vec![Batch::default()];
    for span in &batch.spans {
        if parts.last().expect("one").tokens.len() + span.rows.len() > limit {
            parts.push(Batch::default());
        }
        let part = parts.last_mut().expect("one");
        part.push(&batch.tokens[span.rows.clone()], span.start, &batch.pages[span.pages.clone()]);
    }
    parts
}
