//! Random numbers by index: no state runs along, so that neither batch nor preemption can shift them.
//!
//! Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

const ROUNDS: usize = 10;
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// Added to the key after each round: golden ratio and sqrt(3) - 1.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// The block of four random words at `counter` under `key`.
pub(crate) fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..ROUNDS {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// A number in [0, 1), a multiple of 2^-53, for the token at `position` of a sequence.
///
/// Key: the seed, low word first. Counter: position (two words, low first), choice, 0. Of the block's four
/// words the first two are used, low first, without their lowest 11 bits.
pub(crate) fn uniform(seed: u64, choice: u32, position: u64) -> f64 {
    let counter = [position as u32, (position >> 32) as u32, choice, 0];
    let words = philox4x32(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(words[1]) << 32 | u64::from(words[0])) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that come with Random123 (kat_vectors, philox4x32 10).
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniform_is_in_range_and_differs_in_every_argument() {
        assert_ne!(uniform(0, 0, 0), uniform(1, 0, 0));
        assert_ne!(uniform(0, 0, 0), uniform(1 << 32, 0, 0));
        assert_ne!(uniform(0, 0, 0), uniform(0, 1, 0));
        assert_ne!(uniform(0, 0, 0), uniform(0, 0, 1));
        assert_ne!(uniform(0, 0, 0), uniform(0, 0, 1 << 32));
        let draws: Vec<f64> = (0..10_000).map(|position| uniform(7, 0, position)).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / 1e4;
        // The mean of 10,000 uniform numbers has a standard deviation of 0.0029.
        assert!((mean - 0.5).abs() < 0.012, "{mean}");
    }

    /// Pins the indexing: a change here changes every seeded answer.
    #[test]
    fn indexing_is_fixed() {
        let words = philox4x32([5, 0, 3, 0], [0x89ab_cdef, 0x0123_4567]);
        let expected = (u64::from(words[1]) << 21 | u64::from(words[0]) >> 11) as f64 * 2f64.powi(-53);
        assert_eq!(uniform(0x0123_4567_89ab_cdef, 3, 5), expected);
    }
}
