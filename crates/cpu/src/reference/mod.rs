//! What every operator *means*, in plain scalar Rust: the definition that all kernels equal to the last bit.
//!
//! Nothing here is fast, and nothing here knows panels, pages, threads or instruction sets. [`evaluate`] runs a
//! whole graph over a whole sequence.

mod attention;
mod evaluate;
mod linear;

use half::f16;
use wushi_graph::{CacheType, Rope, RopePairs};

pub use attention::attention;
pub use evaluate::evaluate;
pub use linear::linear;

use crate::math::sum_lanes;

/// `x / sqrt(mean(x²) + eps) * weight`: squares add up in 16 strided lanes, then a tree.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut lanes = [0.0f32; 16];
    for (i, x) in x.iter().enumerate() {
        lanes[i % 16] = x.mul_add(*x, lanes[i % 16]);
    }
    let scale = 1.0 / (sum_lanes(lanes) / x.len() as f32 + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
}

/// Rotates one head at `position`; angles are computed in double precision and their cosine and sine rounded.
pub fn rope(head: &mut [f32], rope: &Rope, factors: Option<&[f32]>, position: usize) {
    let half = rope.rotary_dim / 2;
    for i in 0..half {
        let power = libm::pow(f64::from(rope.base), -2.0 * i as f64 / rope.rotary_dim as f64);
        let frequency = power / f64::from(rope.position_scale) / factors.map_or(1.0, |f| f64::from(f[i]));
        let (sine, cosine) = libm::sincos(position as f64 * frequency);
        let (sine, cosine) = (sine as f32, cosine as f32);
        let (a, b) = match rope.pairs {
            RopePairs::Adjacent => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + half),
        };
        let (x, y) = (head[a], head[b]);
        head[a] = x.mul_add(cosine, -(y * sine));
        head[b] = x.mul_add(sine, y * cosine);
    }
}

/// What is read back from a cache of this type.
pub fn cached(x: f32, cache: CacheType) -> f32 {
    match cache {
        CacheType::F32 => x,
        CacheType::F16 => f16::from_f32(x).to_f32(),
    }
}
