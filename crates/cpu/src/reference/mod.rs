//! What every operator *means*, in plain scalar Rust: the definition that all kernels equal to the last bit.
//!
//! Nothing here is fast, and nothing here knows panels, pages, threads or instruction sets. [`evaluate`] runs a
//! whole graph over a whole sequence.

mod attention;
mod evaluate;
mod linear;
mod rope;
mod route;

use half::f16;
use wushi_graph::CacheType;

pub use attention::attention;
pub use evaluate::evaluate;
pub use linear::linear;
pub use rope::{rope, rope_frequencies};
pub use route::{combine, route};

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

/// `(x - mean) / sqrt(variance + eps) * weight + bias`: both sums in 16 strided lanes, then a tree.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let n = x.len() as f32;
    let mut lanes = [0.0f32; 16];
    x.iter().enumerate().for_each(|(i, x)| lanes[i % 16] += x);
    let mean = sum_lanes(lanes) / n;
    let mut lanes = [0.0f32; 16];
    for (i, x) in x.iter().enumerate() {
        lanes[i % 16] = (x - mean).mul_add(x - mean, lanes[i % 16]);
    }
    let scale = 1.0 / (sum_lanes(lanes) / n + eps).sqrt();
    x.iter().zip(weight).zip(bias).map(|((x, w), b)| ((x - mean) * scale).mul_add(*w, *b)).collect()
}

/// What is read back from a cache of this type.
pub fn cached(x: f32, cache: CacheType) -> f32 {
    match cache {
        CacheType::F32 => x,
        CacheType::F16 => f16::from_f32(x).to_f32(),
    }
}
