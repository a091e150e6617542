//! What every operator *means*, in plain scalar Rust: the definition that all kernels equal to the last bit.
//!
//! Nothing here is fast, and nothing here knows panels, pages, threads or instruction sets. [`evaluate`] runs a
//! whole graph over a whole sequence.

mod attention;
mod evaluate;
mod filtering;
mod linear;
mod maps;
mod rope;
mod route;

use half::f16;
use wushi_graph::CacheType;

pub use attention::attention;
pub use evaluate::{Carried, evaluate, evaluate_function, evaluate_value};
pub(crate) use filtering::{AT_0, AT_P, AT_Q, P, P2, P3, Q, Q2, Q3};
pub use filtering::{TILE_EDGE, TILE_POINTS, TILE_SIDE, filter, is_filtered};
pub use linear::{Activations, Block, Row};
pub use maps::{Frames, convolve, unfold};
pub use rope::{grid_frequencies, grid_rope, rope, rope_frequencies};
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

/// Cosines, then sines, of `t · 10000^(-i / (width / 2))`, in double precision, rounded.
pub fn timestep_embed(t: f32, out: &mut [f32]) {
    let (cosines, sines) = out.split_at_mut(out.len() / 2);
    let half = cosines.len();
    for (i, (cosine, sine)) in cosines.iter_mut().zip(sines).enumerate() {
        let (s, c) = libm::sincos(f64::from(t) * libm::pow(10_000.0, -(i as f64) / half as f64));
        (*cosine, *sine) = (c as f32, s as f32);
    }
}

/// What is read back of one head's key or value from a cache of this type.
pub fn cached(head: &[f32], cache: CacheType) -> Vec<f32> {
    match cache {
        CacheType::F32 => head.to_vec(),
        CacheType::F16 => head.iter().map(|&x| f16::from_f32(x).to_f32()).collect(),
        CacheType::Q8_0 => head.chunks(32).flat_map(cached_bytes).collect(),
    }
}

/// Largest magnitude to 127 by a scale in F16, round half to even, then multiplied again (which is exact).
fn cached_bytes(block: &[f32]) -> Vec<f32> {
    let largest = block.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let scale = f16::from_f32(largest / 127.0).to_f32();
    if scale == 0.0 {
        return vec![0.0; block.len()];
    }
    let inverse = 1.0 / scale;
    block.iter().map(|x| scale * (x * inverse).round_ties_even().clamp(-127.0, 127.0)).collect()
}
