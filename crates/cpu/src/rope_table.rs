//! Angles of rotary position embedding, in double precision: built once a step and passed to kernels as operands.

use wushi_graph::Rope;

/// Inverse frequencies, `[rotary_dim / 2]`, in radians per position.
pub(crate) fn frequencies(rope: &Rope, factors: Option<&[f32]>) -> Vec<f64> {
    (0..rope.rotary_dim / 2)
        .map(|i| {
            let exponent = -2.0 * i as f64 / rope.rotary_dim as f64;
            let frequency = libm::pow(f64::from(rope.base), exponent) / f64::from(rope.position_scale);
            frequency / factors.map_or(1.0, |f| f64::from(f[i]))
        })
        .collect()
}

/// Fills one row of the table: cosines, then sines.
pub(crate) fn fill_table(frequencies: &[f64], position: usize, row: &mut [f32]) {
    let (cosines, sines) = row.split_at_mut(frequencies.len());
    for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(frequencies) {
        let (s, c) = libm::sincos(position as f64 * frequency);
        (*cosine, *sine) = (c as f32, s as f32);
    }
}
