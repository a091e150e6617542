//! Attention of one query over the keys it sees.

use std::ops::Range;

use wushi_graph::Attention;

use crate::math::{exp, max, sum_lanes, tanh};
use crate::weights::SEGMENT;

/// The output of one query head. `keys` and `values` are all positions of its key head, `[position][head_dim]`;
/// `visible` are the positions the query sees, not empty.
///
/// `bias` is what is added to the score of a key, if anything is.
///
/// In segments of 512 keys aligned to position 0, each with its own maximum, sum and outputs, merged in order.
pub fn attention(
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    visible: Range<usize>,
    attention: &Attention,
    bias: Option<&dyn Fn(usize) -> f32>,
) -> Vec<f32> {
    let dim = attention.head_dim;
    let mut state: Option<(f32, f32, Vec<f32>)> = None;
    let mut at = visible.start;
    while at < visible.end {
        let end = ((at / SEGMENT + 1) * SEGMENT).min(visible.end);
        let scores: Vec<f32> = (at..end)
            .map(|j| score(query, &keys[j * dim..(j + 1) * dim], attention, bias.map(|b| b(j))))
            .collect();
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, max);
        let mut lanes = [0.0; 16];
        let mut output = vec![0.0; dim];
        for (j, score) in (at..end).zip(scores) {
            let weight = exp(score - largest);
            lanes[j % 16] += weight;
            for (out, v) in output.iter_mut().zip(&values[j * dim..]) {
                *out = weight.mul_add(*v, *out);
            }
        }
        let sum = sum_lanes(lanes);
        state = Some(match state {
            None => (largest, sum, output),
            Some(before) => merge(before, (largest, sum, output)),
        });
        at = end;
    }
    let (_, sum, output) = state.expect("a query sees its own position");
    output.iter().map(|x| x / sum).collect()
}

fn score(query: &[f32], key: &[f32], attention: &Attention, bias: Option<f32>) -> f32 {
    let dot = query.iter().zip(key).fold(0.0f32, |sum, (q, k)| q.mul_add(*k, sum));
    let score = bias.map_or(dot * attention.scale, |bias| dot.mul_add(attention.scale, bias));
    attention.softcap.map_or(score, |cap| cap * tanh(score / cap))
}

type State = (f32, f32, Vec<f32>);

fn merge(before: State, later: State) -> State {
    let largest = max(before.0, later.0);
    let (a, b) = (exp(before.0 - largest), exp(later.0 - largest));
    let output = before.2.iter().zip(&later.2).map(|(x, y)| x.mul_add(a, y * b)).collect();
    (largest, before.1.mul_add(a, later.1 * b), output)
}
