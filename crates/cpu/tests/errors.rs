//! What cannot be run is refused, with the weight's or the batch's fault named.

mod common;

use common::{Random, RandomWeights, Shape, options};
use wushi_cpu::{CpuExecutor, InstructionSet, Team, page_bytes, plan};
use wushi_graph::{Batch, CacheType, DType, Executor};

fn model(dtype: DType) -> (wushi_graph::Graph, RandomWeights) {
    let graph = Shape::default().storable(dtype).graph();
    let weights = RandomWeights::new(&graph, dtype, &mut Random(1));
    (graph, weights)
}

fn load_error(change: impl FnOnce(&mut RandomWeights), dtype: DType) -> String {
    let (graph, mut weights) = model(dtype);
    change(&mut weights);
    let options = options(InstructionSet::best(), 2, CacheType::F16, 64);
    CpuExecutor::new(graph, &weights, options).err().expect("refused").to_string()
}

/// Where a block has its scale's or minimum's high byte, and a byte that makes it infinite.
const SCALES: &[(DType, usize, u8)] = &[
    (DType::Q4_0, 1, 0x7c),
    (DType::Q4_1, 3, 0xfc),
    (DType::Q5_0, 1, 0x7c),
    (DType::Q5_1, 3, 0x7f),
    (DType::Q2_K, 81, 0x7c),
    (DType::Q2_K, 83, 0x7c),
    (DType::Q3_K, 109, 0x7c),
    (DType::Q4_K, 1, 0x7c),
    (DType::Q4_K, 3, 0xfc),
    (DType::Q5_K, 3, 0x7c),
    (DType::Q6_K, 209, 0x7c),
    (DType::IQ4_NL, 1, 0x7c),
    (DType::IQ4_XS, 1, 0x7c),
    (DType::MXFP4, 0, 0xff),
];

#[test]
fn damaged_weights_are_named() {
    let missing = load_error(|w| w.remove("blk.1.ffn_up.weight"), DType::F32);
    assert_eq!(missing, "tensor `blk.1.ffn_up.weight` is missing");
    // The scale of the second block of row 3.
    let infinite = |bytes: &mut Vec<u8>| bytes[(3 * 2 + 1) * 34 + 1] = 0x7c;
    let scale = load_error(|w| w.damage("blk.0.attn_q.weight", infinite), DType::Q8_0);
    assert!(scale.contains("`blk.0.attn_q.weight`") && scale.contains("row 3"), "{scale}");
    // The same of every block format: where its scales' high bytes are in a block.
    for &(dtype, at, bad) in SCALES {
        let blocks_of_a_row = Shape::default().storable(dtype).width / dtype.block_elements();
        let damage = |bytes: &mut Vec<u8>| bytes[3 * blocks_of_a_row * dtype.block_bytes() + at] = bad;
        let refusal = load_error(|w| w.damage("blk.0.attn_q.weight", damage), dtype);
        assert!(refusal.contains("`blk.0.attn_q.weight`") && refusal.contains("row 3"), "{dtype}: {refusal}");
    }
    let nan = |bytes: &mut Vec<u8>| bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    let vector = load_error(|w| w.damage("output_norm.weight", nan), DType::F32);
    assert!(vector.contains("`output_norm.weight`"), "{vector}");
}

#[test]
fn invalid_batches_are_refused() {
    let (graph, weights) = model(DType::F32);
    let mut options = options(InstructionSet::best(), 2, CacheType::F16, 64);
    options.max_rows = 8;
    options.max_logit_rows = 2;
    let mut executor = CpuExecutor::new(graph, &weights, options).unwrap();
    let mut refused = |build: &dyn Fn(&mut Batch), why: &str| {
        let mut batch = Batch::default();
        build(&mut batch);
        let error = executor.run(&batch).unwrap_err().to_string();
        assert!(error.contains(why), "{error} should say {why}");
    };
    refused(&|_| {}, "0 rows");
    refused(&|b| b.push(&[1; 9], 0, &[0]), "9 rows");
    refused(&|b| b.push(&[70], 0, &[0]), "token 70");
    refused(&|b| b.push(&[1], 0, &[8]), "page 8");
    refused(&|b| b.push(&[1], 32, &[0]), "1 pages cannot hold 33");
    refused(
        &|b| {
            b.push(&[1], 0, &[3]);
            b.push(&[2], 0, &[3]);
        },
        "page 3 is written",
    );
    refused(
        &|b| {
            b.push(&[1], 32, &[4, 5]);
            b.push(&[2], 3, &[4]);
        },
        "page 4 is written",
    );
    refused(&|b| b.push(&[1], 64, &[0, 1, 2]), "context of 64");
    refused(
        &|b| {
            b.push(&[1, 2], 0, &[0]);
            b.logit_rows.extend([1, 0]);
        },
        "ascending",
    );
    refused(
        &|b| {
            b.push(&[1, 2, 3], 0, &[0]);
            b.logit_rows.extend([0, 1, 2]);
        },
        "logits of 3 rows",
    );
    for (states, why) in
        [([1, 0], "state rows must be ascending"), ([0, 2], "state rows"), ([0, 1], "row 1 wants both")]
    {
        refused(
            &|b| {
                b.push(&[1, 2], 0, &[0]);
                b.logit_rows.push(1);
                b.state_rows.extend(states);
            },
            why,
        );
    }
    refused(
        &|b| {
            b.push(&[1, 2], 0, &[0]);
            b.spans[0].rows.end = 1;
        },
        "cover 1 of 2",
    );
}

#[test]
fn a_team_of_another_size_is_refused() {
    let (graph, weights) = model(DType::F32);
    let options = options(InstructionSet::best(), 2, CacheType::F16, 64);
    let error = CpuExecutor::on(Team::new(3).unwrap(), graph, &weights, options).err().expect("refused");
    assert!(error.to_string().contains("as many threads as its team"), "{error}");
}

#[test]
fn states_of_a_model_that_names_none_are_refused() {
    let g = wushi_graph::Builder::new();
    let x = g.rows(g.embed("token_embd", 70, 64).unwrap()).unwrap();
    let graph = g.finish(g.linear(x, "token_embd", 70).unwrap()).unwrap();
    let weights = RandomWeights::new(&graph, DType::F32, &mut Random(1));
    let options = options(InstructionSet::best(), 2, CacheType::F16, 64);
    let mut executor = CpuExecutor::new(graph, &weights, options).unwrap();
    assert_eq!(executor.states(), None);
    let mut batch = Batch::default();
    batch.push(&[1, 2], 0, &[0]);
    batch.state_rows.push(1);
    let error = executor.run(&batch).unwrap_err().to_string();
    assert!(error.contains("states are wanted"), "{error}");
}

#[test]
fn the_memory_plan_is_what_is_taken() {
    for &dtype in DType::ALL {
        let (graph, weights) = model(dtype);
        let options = options(InstructionSet::best(), 2, CacheType::F16, 100);
        let planned = plan(&graph, &weights, &options).unwrap();
        let pages = options.pages;
        let executor = CpuExecutor::new(graph.clone(), &weights, options).unwrap();
        let taken = executor.memory();
        assert_eq!(planned, taken, "{dtype}");
        assert_eq!(taken.cache, pages * page_bytes(&graph, CacheType::F16));
    }
}
