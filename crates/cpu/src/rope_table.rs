//! Angles of rotary position embedding, in double precision: built once a step and passed to kernels as operands.

/// Fills one row of the table: cosines, then sines, both times `magnitude`.
pub(crate) fn fill_table(frequencies: &[f64], magnitude: f32, position: usize, row: &mut [f32]) {
    let (cosines, sines) = row.split_at_mut(frequencies.len());
    let magnitude = f64::from(magnitude);
    for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(frequencies) {
        let (s, c) = libm::sincos(position as f64 * frequency);
        (*cosine, *sine) = ((c * magnitude) as f32, (s * magnitude) as f32);
    }
}
