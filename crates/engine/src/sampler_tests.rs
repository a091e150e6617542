use super::*;
use crate::philox;
use proptest::prelude::*;

fn sample(logits: &[f32], sampling: &Sampling, uniform: f64) -> Result<u32, SampleError> {
    Sampler::default().sample(logits, None, sampling, &History::default(), uniform)
}

fn warm() -> Sampling {
    Sampling { temperature: 1.0, ..Sampling::default() }
}

/// The tokens that any random number can bring up.
fn reachable(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
    let mut sampler = Sampler::default();
    let draws = (0..4000).map(|i| f64::from(i) / 4000.0);
    let mut ids: Vec<u32> =
        draws.map(|u| sampler.sample(logits, None, sampling, &History::default(), u).unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Few distinct values, so that ties are common.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![(-8i8..8).prop_map(f32::from), -8f32..8.0, Just(0.0), Just(-0.0)];
    prop::collection::vec(logit, 1..700)
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let top_p = prop_oneof![Just(1.0), 0.01f32..1.0];
    let min_p = prop_oneof![Just(0.0), 0f32..1.0];
    (0.1f32..3.0, 0usize..100, top_p, min_p).prop_map(|(temperature, top_k, top_p, min_p)| Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        ..Sampling::default()
    })
}

/// The definition in the module's documentation, by sorting everything.
fn defined(logits: &[f32], s: &Sampling, uniform: f64) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap().then(a.cmp(&b)));
    let max = logits[order[0]];
    let weight = |id: usize| wushi_cpu::math::exp((logits[id] - max) / s.temperature);
    let total = |kept: &[usize]| {
        let mut lanes = [0f64; 16];
        (0..logits.len())
            .filter(|id| kept.contains(id))
            .for_each(|id| lanes[id % 16] += f64::from(weight(id)));
        let eight: Vec<f64> = (0..8).map(|i| lanes[i] + lanes[i + 8]).collect();
        let four: Vec<f64> = (0..4).map(|i| eight[i] + eight[i + 4]).collect();
        (four[0] + four[2]) + (four[1] + four[3])
    };
    if s.top_k > 0 {
        order.truncate(s.top_k);
    }
    if s.top_p < 1.0 {
        let target = f64::from(s.top_p) * total(&order);
        let mut sum = 0.0;
        let reached = order.iter().position(|&id| {
            sum += f64::from(weight(id));
            sum >= target
        });
        order.truncate(reached.map_or(order.len(), |index| index + 1));
    }
    order.retain(|&id| weight(id) >= s.min_p);
    let target = uniform * total(&order);
    order.sort_unstable();
    order.retain(|&id| weight(id) > 0.0);
    let mut sum = 0.0;
    let drawn = order.iter().find(|&&id| {
        sum += f64::from(weight(id));
        sum > target
    });
    *drawn.or(order.last()).unwrap() as u32
}

proptest! {
    #[test]
    fn equals_its_definition(logits in logits(), sampling in sampling(), uniform in 0f64..1.0) {
        prop_assert_eq!(sample(&logits, &sampling, uniform), Ok(defined(&logits, &sampling, uniform)));
    }

    #[test]
    fn idle_filters_change_nothing(logits in logits(), uniform in 0f64..1.0) {
        let idle = Sampling { top_k: logits.len(), top_p: 1.0, min_p: 0.0, ..warm() };
        prop_assert_eq!(sample(&logits, &idle, uniform), sample(&logits, &warm(), uniform));
    }

    #[test]
    fn a_greater_random_number_never_draws_a_lower_id(logits in logits(), s in sampling(), a in 0f64..1.0, b in 0f64..1.0) {
        prop_assert!(sample(&logits, &s, a.min(b)).unwrap() <= sample(&logits, &s, a.max(b)).unwrap());
    }

    #[test]
    fn top_k_of_one_is_greedy(logits in logits(), uniform in 0f64..1.0) {
        let one = Sampling { top_k: 1, ..warm() };
        prop_assert_eq!(sample(&logits, &one, uniform), sample(&logits, &Sampling::default(), 0.0));
    }

    #[test]
    fn greedy_takes_the_lowest_of_the_greatest(logits in logits()) {
        let id = sample(&logits, &Sampling::default(), 0.5).unwrap() as usize;
        prop_assert!(logits.iter().all(|&logit| logit <= logits[id]));
        prop_assert!(logits[..id].iter().all(|&logit| logit < logits[id]));
    }

    #[test]
    fn keys_order_and_keep_logits(a in -1e30f32..1e30, b in prop_oneof![-1e30f32..1e30, Just(0.0), Just(-0.0)]) {
        prop_assert_eq!(logit_of(key((3, &b))), b);
        prop_assert_eq!(id_of(key((3, &b))), 3);
        prop_assert_eq!(key((0, &a)) > key((1, &b)), a >= b);
    }

    #[test]
    fn greatest_is_the_head_of_a_sort(logits in logits(), count in 0usize..20) {
        let mut sorted: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        sorted.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
        sorted.truncate(count);
        prop_assert_eq!(greatest(&logits, count), sorted);
    }

    /// One sampler's buffers carry nothing from one row to the next.
    #[test]
    fn buffers_do_not_leak(rows in prop::collection::vec((logits(), sampling(), 0f64..1.0), 1..5)) {
        let mut sampler = Sampler::default();
        for (logits, sampling, uniform) in &rows {
            let reused = sampler.sample(logits, None, sampling, &History::default(), *uniform);
            prop_assert_eq!(reused, sample(logits, sampling, *uniform));
        }
    }
}

#[test]
fn frequencies_match_probabilities() {
    let logits = [0.0f32, 1.0, 2.0, -1.0, 0.5];
    let sampling = Sampling { temperature: 0.8, ..Sampling::default() };
    let exact: Vec<f64> = logits.iter().map(|&logit| f64::from(logit / 0.8).exp()).collect();
    let sum: f64 = exact.iter().sum();
    let draws = 50_000u32;
    let mut counts = [0u32; 5];
    for position in 0..draws {
        let id = sample(&logits, &sampling, philox::uniform(42, 0, position.into())).unwrap();
        counts[id as usize] += 1;
    }
    // Chi-squared with 4 degrees of freedom exceeds 23.5 once in 10,000 times.
    let chi: f64 = counts
        .iter()
        .zip(&exact)
        .map(|(&count, weight)| {
            let expected = f64::from(draws) * weight / sum;
            (f64::from(count) - expected).powi(2) / expected
        })
        .sum();
    assert!(chi < 23.5, "{chi}: {counts:?}");
}

#[test]
fn ties_go_to_the_lower_id() {
    let flat = [1.0f32; 40];
    assert_eq!(sample(&flat, &Sampling::default(), 0.9), Ok(0));
    assert_eq!(reachable(&flat, &Sampling { top_k: 3, ..warm() }), [0, 1, 2]);
    assert_eq!(reachable(&flat, &Sampling { top_p: 0.125, ..warm() }), [0, 1, 2, 3, 4]);
    // Both zeros are one value.
    assert_eq!(sample(&[-0.0, 0.0], &Sampling::default(), 0.0), Ok(0));
}

#[test]
fn filters_apply_in_order() {
    // Weights 8, 4, 2, 1, 1 of 16.
    let logits = [3.0f32, 2.0, 1.0, 0.0, 0.0].map(|power| power * std::f32::consts::LN_2);
    assert_eq!(reachable(&logits, &Sampling { top_p: 0.74, ..warm() }), [0, 1]);
    assert_eq!(reachable(&logits, &Sampling { top_p: 0.76, ..warm() }), [0, 1, 2]);
    // Top-p counts shares of what top-k left: 8 of 12 here, 8 of 16 without.
    assert_eq!(reachable(&logits, &Sampling { top_p: 0.6, ..warm() }), [0, 1]);
    assert_eq!(reachable(&logits, &Sampling { top_p: 0.6, top_k: 2, ..warm() }), [0]);
    assert_eq!(reachable(&logits, &Sampling { min_p: 0.2, ..warm() }), [0, 1, 2]);
    assert_eq!(reachable(&logits, &Sampling { min_p: 1.0, ..warm() }), [0]);
    // Temperature comes before min-p: at 2 the weights' ratios are square roots.
    assert_eq!(reachable(&logits, &Sampling { min_p: 0.4, temperature: 2.0, ..warm() }), [0, 1, 2]);
}

#[test]
fn bias_moves_and_bans() {
    let logits = [1.0f32, 2.0, 3.0];
    let with = |bias: &[(u32, f32)]| Sampling { logit_bias: bias.to_vec(), ..Sampling::default() };
    assert_eq!(sample(&logits, &with(&[(0, 100.0)]), 0.0), Ok(0));
    assert_eq!(sample(&logits, &with(&[(2, -1.5), (2, -0.5)]), 0.0), Ok(1));
    let ban = [(2, f32::NEG_INFINITY)];
    assert_eq!(sample(&logits, &with(&ban), 0.0), Ok(1));
    assert_eq!(reachable(&logits, &Sampling { logit_bias: ban.to_vec(), ..warm() }), [0, 1]);
    let all: Vec<_> = (0..3).map(|id| (id, f32::NEG_INFINITY)).collect();
    assert_eq!(sample(&logits, &with(&all), 0.0), Err(SampleError::NoCandidate));
}

#[test]
fn penalties_follow_the_field() {
    let adjusted = |sampling: &Sampling, prompt: &[u32], answer: &[u32]| {
        let mut history = History::new(prompt, sampling);
        answer.iter().for_each(|&id| history.push(id, sampling));
        let mut row = [4.0, -4.0, 4.0, 4.0];
        adjust(&mut row, sampling, &history);
        row
    };
    let repetition = Sampling { repetition_penalty: 2.0, ..warm() };
    // Once, however often a token occurs; prompt and answer alike.
    assert_eq!(adjusted(&repetition, &[0, 0, 1], &[2, 2]), [2.0, -8.0, 2.0, 4.0]);
    let frequency = Sampling { frequency_penalty: 0.5, ..warm() };
    assert_eq!(adjusted(&frequency, &[0], &[1, 2, 2, 2]), [4.0, -4.5, 2.5, 4.0]);
    let presence = Sampling { presence_penalty: 1.5, ..warm() };
    assert_eq!(adjusted(&presence, &[0], &[1, 2, 2, 2]), [4.0, -5.5, 2.5, 4.0]);
    let all = Sampling { repetition_penalty: 2.0, frequency_penalty: 0.5, presence_penalty: 1.0, ..warm() };
    assert_eq!(adjusted(&all, &[], &[2, 2]), [4.0, -4.0, 0.0, 4.0]);
}

#[test]
fn numbers_that_are_not_finite_stop() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        match sample(&[0.0, value, 1.0], &Sampling::default(), 0.0) {
            Err(SampleError::NotFinite { token: 1, value: found }) => {
                assert_eq!(found.to_bits(), value.to_bits());
            }
            other => panic!("{value}: {other:?}"),
        }
    }
    // A penalty can push a huge logit over the edge.
    let sampling = Sampling { repetition_penalty: 0.1, ..warm() };
    let sampled =
        Sampler::default().sample(&[3e38, 0.0], None, &sampling, &History::new(&[0], &sampling), 0.0);
    assert_eq!(sampled, Err(SampleError::NotFinite { token: 0, value: f32::INFINITY }));
}

#[test]
fn extreme_temperatures_hold() {
    let logits = [1.0f32, 2.0, 2.0, -3.0];
    assert_eq!(reachable(&logits, &Sampling { temperature: f32::MIN_POSITIVE, ..warm() }), [1, 2]);
    assert_eq!(reachable(&logits, &Sampling { temperature: f32::MAX, ..warm() }), [0, 1, 2, 3]);
}

#[test]
fn a_mask_bans_before_everything_else() {
    // More tokens than a word of the mask has bits.
    let logits: Vec<f32> = (0..70).map(|id| id as f32).collect();
    let mut mask = [0u32; 3];
    for id in [3, 40, 64] {
        mask[id / 32] |= 1 << (id % 32);
    }
    let masked = |sampling: &Sampling, uniform| {
        Sampler::default().sample(&logits, Some(&mask), sampling, &History::default(), uniform)
    };
    assert_eq!(masked(&Sampling::default(), 0.0), Ok(64));
    let bias = |logit_bias| Sampling { logit_bias, ..Sampling::default() };
    assert_eq!(masked(&bias(vec![(64, -50.0), (69, 100.0)]), 0.0), Ok(40));
    let wide = Sampling { temperature: 100.0, ..Sampling::default() };
    let drawn: std::collections::HashSet<_> =
        (0..100).flat_map(|i| masked(&wide, f64::from(i) / 100.0)).collect();
    assert_eq!(drawn, [3, 40, 64].into());
    // Top-k looks for more than the mask leaves.
    let few = Sampling { top_k: 5, top_p: 0.99, ..wide };
    let drawn: std::collections::HashSet<_> =
        (0..100).flat_map(|i| masked(&few, f64::from(i) / 100.0)).collect();
    assert_eq!(drawn, [3, 40, 64].into());
    let nothing = Sampler::default().sample(&logits, Some(&[0; 3]), &few, &History::default(), 0.5);
    assert_eq!(nothing, Err(SampleError::NoCandidate));
}
