//! Mixtures of experts: who is chosen, and what becomes of their results.

use wushi_graph::Routing;

use crate::math::{exp, max, sum_lanes};

/// Chooses experts by their scores. Into `out`, `[2 * used]`: the weights by falling rank, then the experts' numbers as
/// bits. Softmax sums in 16 strided lanes, then a tree; the chosen weights by rank.
#[inline]
pub fn route(scores: &[f32], routing: &Routing, out: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, max);
    let mut lanes = [0.0; 16];
    scores.iter().enumerate().for_each(|(i, score)| lanes[i % 16] += exp(score - largest));
    let sum = sum_lanes(lanes);
    let (weights, experts) = out.split_at_mut(routing.used);
    for rank in 0..routing.used {
        let taken = |e: usize| experts[..rank].iter().any(|other| other.to_bits() as usize == e);
        let free = (0..scores.len()).filter(|&e| !taken(e));
        // The first of the greatest; NaN scores are never greater, and what they lead to is outside the contract.
        let best = free.reduce(|best, e| if scores[e] > scores[best] { e } else { best }).unwrap_or(0);
        weights[rank] = exp(scores[best] - largest) / sum;
        experts[rank] = f32::from_bits(best as u32);
    }
    if routing.normalise {
        let total = weights.iter().fold(0.0, |total, weight| total + weight);
        weights.iter_mut().for_each(|weight| *weight /= total);
    }
}

/// The experts' results `y`, `[used][width]`, weighted and summed by rank.
pub fn combine(y: &[f32], weights: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (y, weight) in y.chunks_exact(out.len()).zip(weights) {
        out.iter_mut().zip(y).for_each(|(out, y)| *out = weight.mul_add(*y, *out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(scores: &[f32], used: usize, normalise: bool) -> (Vec<f32>, Vec<u32>) {
        let mut out = vec![0.0; 2 * used];
        route(scores, &Routing { experts: scores.len(), used, normalise }, &mut out);
        (out[..used].to_vec(), out[used..].iter().map(|x| x.to_bits()).collect())
    }

    #[test]
    fn the_greatest_are_chosen_and_ties_go_to_the_lower() {
        let (weights, experts) = routed(&[0.0, 2.0, 1.0, 2.0], 3, true);
        assert_eq!(experts, [1, 3, 2]);
        assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6 && weights[0] == weights[1]);
        let (weights, _) = routed(&[0.0, 0.0], 1, false);
        assert_eq!(weights, [0.5]);
        assert_eq!(routed(&[f32::NAN, f32::NAN, f32::NAN], 2, true).1, [0, 1]);
    }

    #[test]
    fn results_are_weighted() {
        let mut out = [7.0; 2];
        combine(&[1.0, 2.0, 3.0, 4.0], &[0.5, 2.0], &mut out);
        assert_eq!(out, [6.5, 9.0]);
    }
}
