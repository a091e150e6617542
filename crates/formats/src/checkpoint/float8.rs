//! Floats of eight bits, which weights are stored in with scales beside them.

/// Their two formats (Micikevicius et al. 2022, as the Open Compute Project's OFP8 has them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float8 {
    /// Four bits of exponent, bias 7; no infinities, 0x7f and 0xff are NaN.
    E4M3,
    /// Five bits of exponent, bias 15; infinities and NaN as in F16, whose upper half this is.
    E5M2,
}

impl Float8 {
    /// The format of this name in a safetensors file.
    pub(crate) fn named(type_name: &str) -> Option<Float8> {
        match type_name {
            "F8_E4M3" | "F8_E4M3FN" | "float8_e4m3fn" => Some(Float8::E4M3),
            "F8_E5M2" | "float8_e5m2" => Some(Float8::E5M2),
            _ => None,
        }
    }

    /// The number that a code stands for, or none where it is no number.
    fn value(self, code: u8) -> Option<f64> {
        let (mantissa_bits, bias) = match self {
            Float8::E4M3 => (3, 7),
            Float8::E5M2 => (2, 15),
        };
        let (exponent, mantissa) =
            (i32::from(code & 0x7f) >> mantissa_bits, i32::from(code) & ((1 << mantissa_bits) - 1));
        let is_number = match self {
            Float8::E4M3 => code & 0x7f != 0x7f,
            Float8::E5M2 => exponent != 31,
        };
        let magnitude = match exponent {
            0 => f64::from(mantissa) * 2f64.powi(1 - bias - mantissa_bits),
            _ => f64::from(mantissa + (1 << mantissa_bits)) * 2f64.powi(exponent - bias - mantissa_bits),
        };
        is_number.then_some(if code < 0x80 { magnitude } else { -magnitude })
    }
}

/// The bits in BF16 of every code times a scale, rounded once, to nearest and ties to even.
fn table(format: Float8, scale: f32) -> [Option<u16>; 256] {
    // Five and 24 significant bits multiply exactly in F64.
    std::array::from_fn(|code| {
        let value = format.value(code as u8)? * f64::from(scale);
        let bits = nearest_bf16(value);
        // What overflows is as little a number as what was none.
        (bits & 0x7f80 != 0x7f80).then_some(bits)
    })
}

/// The nearest BF16. By way of F32 rounded to odd, so that it is rounded to nearest only once.
fn nearest_bf16(value: f64) -> u16 {
    let near = value as f32;
    let bits = near.to_bits();
    let odd = match f64::from(near).abs().partial_cmp(&value.abs()) {
        // Rounded away from zero: back, and marked as not exact.
        Some(std::cmp::Ordering::Greater) => (bits - 1) | 1,
        Some(std::cmp::Ordering::Less) => bits | 1,
        _ => bits,
    };
    let round = 0x7fff + (odd >> 16 & 1);
    (odd.wrapping_add(round) >> 16) as u16
}

/// The elements in BF16, with one scale for all or for as many rows as there are scales.
///
/// Refuses what is no number, and what a scale makes too large for BF16, by its place.
pub(super) fn to_bf16(codes: &[u8], format: Float8, scales: &[f32]) -> Result<Vec<u8>, String> {
    let row = codes.len().checked_div(scales.len()).unwrap_or(0).max(1);
    let mut out = Vec::with_capacity(codes.len() * 2);
    for (place, (codes, &scale)) in codes.chunks(row).zip(scales).enumerate() {
        let table = table(format, scale);
        for (column, &code) in codes.iter().enumerate() {
            let Some(bits) = table[usize::from(code)] else {
                let element = place * row + column;
                return Err(format!(
                    "holds no number at element {element} (code {code:#04x} of {format:?} times {scale}); the file is damaged"
                ));
            };
            out.extend_from_slice(&bits.to_le_bytes());
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_formats() {
        for (code, value) in [
            (0x00, 0.0),
            (0x01, 2f64.powi(-9)),
            (0x08, 2f64.powi(-6)),
            (0x38, 1.0),
            (0xc0, -2.0),
            (0x7e, 448.0),
        ] {
            assert_eq!(Float8::E4M3.value(code), Some(value), "{code:#x}");
        }
        assert_eq!(Float8::E4M3.value(0x7f), None);
        assert_eq!(Float8::E4M3.value(0xff), None);
        for code in 0..=255u8 {
            // E5M2 is the upper half of F16.
            let half = half::f16::from_bits(u16::from(code) << 8).to_f64();
            assert_eq!(Float8::E5M2.value(code), half.is_finite().then_some(half), "{code:#x}");
        }
    }

    #[test]
    fn every_product_is_the_nearest_bf16() {
        let to_f64 = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
        for scale in [1.0f32, 0.001953, 3.3e-5, 0.333, 1.004, 2.5e-37, 7e-39] {
            for code in 0..=255u8 {
                let Some(value) = Float8::E4M3.value(code) else { continue };
                let exact = value * f64::from(scale);
                let bits = nearest_bf16(exact);
                let error = (to_f64(bits) - exact).abs();
                for other in [bits.wrapping_sub(1), bits.wrapping_add(1)] {
                    let other_error = (to_f64(other) - exact).abs();
                    let is_nearer = other & 0x7f80 != 0x7f80
                        && (other_error < error || other_error == error && bits & 1 == 1);
                    assert!(!is_nearer, "{code:#x} times {scale}");
                }
            }
        }
        // Rounding to F32 first would make a tie of this, and round it down.
        let above_tie = f64::from(f32::from_bits(0x3f80_8000)) + 1e-12;
        assert_eq!(nearest_bf16(above_tie), 0x3f81);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let error = to_bf16(&[0x38, 0x7f], Float8::E4M3, &[1.0]).unwrap_err();
        assert!(error.contains("element 1") && error.contains("0x7f"), "{error}");
        let error = to_bf16(&[0x38, 0x7e], Float8::E4M3, &[1.0, 3e38]).unwrap_err();
        assert!(error.contains("element 1"), "{error}");
        assert_eq!(to_bf16(&[0x38, 0xb8], Float8::E4M3, &[2.0, 0.5]).unwrap(), [0x00, 0x40, 0x00, 0xbf]);
    }
}
