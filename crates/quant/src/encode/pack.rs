//! Quants and scales into the bits of their layouts: the other way round of `decode`.

/// 32 quants as [fifth bits,] low nibbles, high nibbles.
pub(crate) fn nibbles(five: bool, out: &mut [u8], code: impl Fn(usize) -> u8) {
    let codes: [u8; 32] = std::array::from_fn(code);
    let out = if five {
        let high = codes.iter().enumerate().fold(0u32, |bits, (i, q)| bits | u32::from(q >> 4) << i);
        out[..4].copy_from_slice(&high.to_le_bytes());
        &mut out[4..]
    } else {
        out
    };
    for (i, out) in out[..16].iter_mut().enumerate() {
        *out = codes[i] & 15 | codes[i + 16] << 4;
    }
}

/// `BITS` bits of every quant, as the K-quants lay them out: byte `i` of a run of `stride` bytes has elements `i`,
/// `stride + i`, `2 * stride + i` and so on, from its low bits up.
pub(crate) fn planes<const BITS: usize>(out: &mut [u8], stride: usize, field: impl Fn(usize) -> u8) {
    let run = stride * 8 / BITS;
    for (at, out) in out.iter_mut().enumerate() {
        let first = at / stride * run + at % stride;
        *out = (0..8 / BITS)
            .fold(0, |byte, i| byte | (field(first + i * stride) & ((1 << BITS) - 1)) << (BITS * i));
    }
}

/// Scales and minima of eight groups, six bits each, in 12 bytes, for Q4_K and Q5_K: the first four of each, whose two
/// upper bits are free for the last four's.
pub(crate) fn scales_minima(scales: &[u8], minima: &[u8], out: &mut [u8]) {
    for j in 0..4 {
        out[j] = scales[j] | scales[j + 4] >> 4 << 6;
        out[j + 4] = minima[j] | minima[j + 4] >> 4 << 6;
        out[j + 8] = scales[j + 4] & 15 | minima[j + 4] << 4;
    }
}

/// 16 scales, six bits each, in 12 bytes, for Q3_K: nibbles of the first and last eight, then pairs of upper bits.
pub(crate) fn scales_q3(scales: &[u8; 16], out: &mut [u8]) {
    for j in 0..8 {
        out[j] = scales[j] & 15 | scales[j + 8] << 4;
    }
    for j in 0..4 {
        out[8 + j] = (0..4).fold(0, |byte, i| byte | scales[4 * i + j] >> 4 << (2 * i));
    }
}

/// Eight scales, six bits each, for IQ4_XS: pairs of upper bits in two bytes, then nibbles.
pub(crate) fn scales_iq4(scales: &[u8], out: &mut [u8]) {
    let high = (0..8).fold(0u16, |bits, j| bits | u16::from(scales[j] >> 4) << (2 * j));
    out[..2].copy_from_slice(&high.to_le_bytes());
    for j in 0..4 {
        out[2 + j] = scales[2 * j] & 15 | scales[2 * j + 1] << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

    /// Six bits each, every value in every place at some time.
    fn numbers<const N: usize>(turn: u8) -> [u8; N] {
        std::array::from_fn(|i| (turn + 37 * i as u8) & 63)
    }

    #[test]
    fn six_bit_scales_come_back() {
        for turn in 0..64 {
            let (scales, minima) = (numbers::<8>(turn), numbers::<8>(turn.wrapping_mul(11) + 5));
            let mut packed = [0xAA; 12];
            scales_minima(&scales, &minima, &mut packed);
            for j in 0..8 {
                assert_eq!(decode::scale_min(&packed, j), (scales[j], minima[j]), "{turn} {j}");
            }
            let scales = numbers::<16>(turn);
            let mut packed = [0xAA; 12];
            scales_q3(&scales, &mut packed);
            for (j, &scale) in scales.iter().enumerate() {
                assert_eq!(decode::scale_q3(&packed, j), scale, "{turn} {j}");
            }
            let scales = numbers::<8>(turn);
            let mut packed = [0xAA; 6];
            scales_iq4(&scales, &mut packed);
            for (j, &scale) in scales.iter().enumerate() {
                assert_eq!(decode::scale_iq4(&packed, j), scale, "{turn} {j}");
            }
        }
    }
}
