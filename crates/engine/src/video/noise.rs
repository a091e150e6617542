//! The noise a video starts from: standard normal numbers by seed and place.
//!
//! Each number depends on the seed and its own place only, so it is the same however many are made at once, on every
//! machine. Uniform numbers come from Philox, become normal in F64 (Box and Muller, "A note on the generation of random
//! normal deviates", 1958) with a logarithm, sine and cosine in plain Rust, and are rounded to F32 once.

use std::f64::consts::TAU;

use crate::philox::philox4x32;

/// Keeps the counters apart from those of text sampling, which have 0 here.
const NOISE: u32 = 1;

/// Fills `values` with the numbers at places `first`, `first + 1`, and so on of a seed's noise.
///
/// A latent element's place is its index in `[C, T, H, W]`.
pub fn fill_noise(seed: u64, first: u64, values: &mut [f32]) {
    let mut place = first;
    let mut rest = values;
    while !rest.is_empty() {
        let pair = normal_pair(seed, place / 2);
        let from = (place % 2) as usize;
        let count = rest.len().min(2 - from);
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(&pair[from..from + count]);
        place += count as u64;
        rest = later;
    }
}

/// The numbers at places `2 * pair` and `2 * pair + 1`.
///
/// Key: the seed, low word first. Counter: the pair (two words, low first), 0, 1. The block's first two words, low
/// first and without their lowest 11 bits, are a number in (0, 1] that gives the radius, the other two one in [0, 1)
/// that gives the angle; the cosine comes first.
fn normal_pair(seed: u64, pair: u64) -> [f32; 2] {
    let words = philox4x32([pair as u32, (pair >> 32) as u32, 0, NOISE], [seed as u32, (seed >> 32) as u32]);
    let bits = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)) >> 11;
    let unit = 1.0 / (1u64 << 53) as f64;
    // From 1, not from 0, which has no logarithm.
    let radius = (-2.0 * libm::log((bits(words[0], words[1]) + 1) as f64 * unit)).sqrt();
    let (sin, cos) = libm::sincos(TAU * (bits(words[2], words[3]) as f64 * unit));
    [(radius * cos) as f32, (radius * sin) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, first: u64, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        fill_noise(seed, first, &mut values);
        values
    }

    #[test]
    fn moments_are_those_of_a_standard_normal() {
        let count = 1 << 20;
        let values = noise(42, 0, count);
        let moment =
            |power: i32| values.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / count as f64;
        // Four standard deviations of each estimate: sqrt((E[x^2p] - E[x^p]^2) / count).
        for (power, expected, deviation) in [(1, 0.0, 1.0), (2, 1.0, 2f64), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let bound = 4.0 * (deviation / count as f64).sqrt();
            assert!((moment(power) - expected).abs() < bound, "moment {power}: {}", moment(power));
        }
        // Both of a pair, and neighbours of different pairs, are independent.
        for distance in [1, 2, 3] {
            let pairs = values.iter().zip(&values[distance..]);
            let product = pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() / count as f64;
            assert!(product.abs() < 4.0 / (count as f64).sqrt(), "{distance}: {product}");
        }
        // The share within one, two and three standard deviations.
        for (bound, expected) in [(1.0, 0.682_689), (2.0, 0.954_5), (3.0, 0.997_3)] {
            let share = values.iter().filter(|x| x.abs() < bound).count() as f64 / count as f64;
            assert!((share - expected).abs() < 0.002, "{bound}: {share}");
        }
    }

    #[test]
    fn how_it_is_cut_changes_nothing() {
        let whole = noise(7, 0, 1000);
        for size in [1, 2, 3, 7, 64, 999] {
            let mut pieces = Vec::new();
            while pieces.len() < 1000 {
                pieces.extend(noise(7, pieces.len() as u64, size.min(1000 - pieces.len())));
            }
            assert_eq!(pieces, whole, "pieces of {size}");
        }
        assert_eq!(noise(7, 1 << 40, 3)[1..], noise(7, (1 << 40) + 1, 2));
    }

    #[test]
    fn every_bit_of_seed_and_place_counts() {
        let base = noise(0, 0, 2);
        for bit in 0..64 {
            assert_ne!(noise(1 << bit, 0, 2), base, "seed bit {bit}");
            if bit > 0 {
                assert_ne!(noise(0, 1 << bit, 2), base, "place bit {bit}");
            }
        }
    }

    /// Pins the numbers: a change here changes every video.
    #[test]
    fn numbers_are_fixed() {
        let bits: Vec<u32> = noise(0, 0, 4).into_iter().map(f32::to_bits).collect();
        assert_eq!(bits, GOLDEN);
        let mut digest = blake3::Hasher::new();
        for value in noise(0x0123_4567_89ab_cdef, 1, 100_000) {
            digest.update(&value.to_le_bytes());
        }
        assert_eq!(digest.finalize().to_hex().as_str(), GOLDEN_DIGEST);
    }

    /// Computed by an independent implementation in Python.
    const GOLDEN: [u32; 4] = [3_217_074_588, 3_218_748_743, 3_214_594_736, 3_211_411_039];
    const GOLDEN_DIGEST: &str = "777ff81f0e4135a6538f228e460d51b64f083b92f62cd6c6ef7b23ce651ff754";
}
