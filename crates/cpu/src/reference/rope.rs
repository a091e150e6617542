//! Rotary position embedding: its frequencies, and the rotation of one head.

use wushi_graph::{GridRope, Rope, RopePairs, RopeScaling};

/// Radians per position of each pair, `[rotary_dim / 2]`, in double precision; `factors` divide them.
pub fn rope_frequencies(rope: &Rope, factors: Option<&[f32]>) -> Vec<f64> {
    let (base, dim) = (f64::from(rope.base), rope.rotary_dim as f64);
    (0..rope.rotary_dim / 2)
        .map(|i| {
            let frequency = libm::pow(base, -2.0 * i as f64 / dim);
            let scaled = match rope.scaling {
                RopeScaling::None => frequency,
                RopeScaling::Linear(factor) => frequency / f64::from(factor),
                RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow } => {
                    // The pair that turns `n` times within the original context.
                    let pair = |n: f32| {
                        let turns = f64::from(original_context) / (f64::from(n) * std::f64::consts::TAU);
                        dim * libm::log(turns) / (2.0 * libm::log(base))
                    };
                    let low = libm::floor(pair(beta_fast)).max(0.0);
                    let high = libm::ceil(pair(beta_slow)).min(dim - 1.0);
                    let divided = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    frequency / f64::from(factor) * divided + frequency * (1.0 - divided)
                }
            };
            scaled / factors.map_or(1.0, |f| f64::from(f[i]))
        })
        .collect()
}

/// Radians of each pair of a head per step along its axis, in double precision.
pub fn grid_frequencies(rope: &GridRope) -> Vec<f64> {
    let base = f64::from(rope.base);
    let axis = |n: &usize| {
        let n = *n;
        (0..n / 2).map(move |i| libm::pow(base, -2.0 * i as f64 / n as f64))
    };
    rope.axes.iter().flat_map(axis).collect()
}

/// Rotates one head of a row on a grid, in adjacent pairs.
pub fn grid_rope(head: &mut [f32], rope: &GridRope, row: usize) {
    let place = rope.place(row);
    let axes = (0..3).flat_map(|axis| std::iter::repeat_n(axis, rope.axes[axis] / 2));
    for (i, (frequency, axis)) in grid_frequencies(rope).into_iter().zip(axes).enumerate() {
        let (sine, cosine) = libm::sincos(place[axis] as f64 * frequency);
        let (sine, cosine) = (sine as f32, cosine as f32);
        let (x, y) = (head[2 * i], head[2 * i + 1]);
        head[2 * i] = x.mul_add(cosine, -(y * sine));
        head[2 * i + 1] = x.mul_add(sine, y * cosine);
    }
}

/// Rotates one head at `position`; angles are computed in double precision, their cosine and sine times the magnitude
/// rounded.
pub fn rope(head: &mut [f32], rope: &Rope, factors: Option<&[f32]>, position: usize) {
    let (half, magnitude) = (rope.rotary_dim / 2, f64::from(rope.magnitude));
    for (i, frequency) in rope_frequencies(rope, factors).into_iter().enumerate() {
        let (sine, cosine) = libm::sincos(position as f64 * frequency);
        let (sine, cosine) = ((sine * magnitude) as f32, (cosine * magnitude) as f32);
        let (a, b) = match rope.pairs {
            RopePairs::Adjacent => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + half),
        };
        let (x, y) = (head[a], head[b]);
        head[a] = x.mul_add(cosine, -(y * sine));
        head[b] = x.mul_add(sine, y * cosine);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yarn_keeps_fast_pairs_and_divides_slow_ones() {
        let plain = Rope::plain(128, 10_000.0, RopePairs::Halves);
        let scaling =
            RopeScaling::Yarn { factor: 4.0, original_context: 4096.0, beta_fast: 32.0, beta_slow: 1.0 };
        let (before, after) =
            (rope_frequencies(&plain, None), rope_frequencies(&Rope { scaling, ..plain }, None));
        assert_eq!(before[..21], after[..21]);
        assert_eq!(after[46..], before[46..].iter().map(|f| f / 4.0).collect::<Vec<_>>());
        assert!(after[30] < before[30] && after[30] > before[30] / 4.0);
    }
}
