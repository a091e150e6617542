//! Codes: the small integers of block formats, 32 at a time, moved from a file's block into a panel and back.
//!
//! A code has `LOW` bits and perhaps `HIGH` more above them. In a panel the low bits of a group's 32 codes come first,
//! then the high ones, each packed into vectors of four bytes a lane: byte `e` of vector `v` holds codes `4j + e`
//! for the `8 / bits` words `j` from `8 / bits * v` on, lowest bits first. Word `j` is what a kernel multiplies
//! with activations `4j..4j+4`.

use crate::simd::{Isa, PANEL};

/// Codes of a group.
pub(crate) const GROUP: usize = 32;

/// Where the file has some bits of four consecutive codes.
pub(crate) enum Place {
    /// In the four bytes from `at` on, `shift` bits up in each.
    Bytes { at: usize, shift: usize },
    /// In four consecutive bits, `shift` bits up in the 32-bit word at `at`.
    Bits { at: usize, shift: usize },
}

/// How a format's codes lie in the file.
pub(crate) trait Codes: 'static {
    /// Bits that the file keeps together: 8, 4 or 2.
    const LOW: usize;
    /// Further bits, kept elsewhere: 0, 1 or 2.
    const HIGH: usize;
    /// Added to a code, wrapping: 128 makes a signed byte unsigned.
    const FLIP: u8 = 0;
    /// What a code stands for if it is an index, with 128 added.
    const TABLE: Option<[u8; 16]> = None;

    /// Bits `LOW` (`high` false) or `HIGH` of the codes `4 word..4 word + 4` of a group.
    fn place(high: bool, group: usize, word: usize) -> Place;
}

/// Bytes of a group of all lanes in a panel.
pub(crate) const fn panel_bytes<C: Codes>() -> usize {
    (C::LOW + C::HIGH) * 4 * PANEL
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The lowest `bits` bits of every byte.
const fn each_byte(bits: usize) -> u32 {
    0x0101_0101 * ((1 << bits) - 1)
}

impl Place {
    /// The bits, one code a byte, with what is above them.
    #[inline(always)]
    fn read(&self, block: &[u8]) -> u32 {
        match *self {
            Place::Bytes { at, shift } => word_at(block, at) >> shift,
            // Copies of the four bits at distances of seven: bit `e` meets byte `e`.
            Place::Bits { at, shift } => (word_at(block, at) >> shift & 15) * 0x0020_4081,
        }
    }

    /// Puts bits, one code a byte and nothing above them, where there are zeros.
    fn write(&self, block: &mut [u8], codes: u32) {
        let (at, word) = match *self {
            Place::Bytes { at, shift } => (at, codes << shift),
            Place::Bits { at, shift } => {
                let bits =
                    codes.to_le_bytes().iter().rev().fold(0, |bits, &code| bits << 1 | u32::from(code));
                (at, bits << shift)
            }
        };
        let word = word_at(block, at) | word;
        block[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// The parts of a code: which, how many bits, where they begin in a group of a panel.
fn parts<C: Codes>() -> impl Iterator<Item = (bool, usize, usize)> {
    [(false, C::LOW, 0), (true, C::HIGH, C::LOW * 4 * PANEL)].into_iter().filter(|part| part.1 > 0)
}

/// Moves one group of a file's block into lane `lane` of a panel's group.
#[inline(always)]
pub(crate) fn pack<C: Codes>(block: &[u8], group: usize, lane: usize, panel: &mut [u8]) {
    for (high, bits, start) in parts::<C>() {
        let words = 8 / bits;
        for vector in 0..bits {
            let mut packed = 0;
            for i in 0..words {
                let codes = C::place(high, group, vector * words + i).read(block);
                packed |= (codes & each_byte(bits)) << (i * bits);
            }
            let at = start + (vector * PANEL + lane) * 4;
            panel[at..at + 4].copy_from_slice(&(packed ^ flip::<C>()).to_le_bytes());
        }
    }
}

/// The inverse of [`pack`]; the block's codes are zeros before.
#[inline(always)]
pub(crate) fn unpack<C: Codes>(panel: &[u8], lane: usize, group: usize, block: &mut [u8]) {
    for (high, bits, start) in parts::<C>() {
        let words = 8 / bits;
        for vector in 0..bits {
            let packed = word_at(panel, start + (vector * PANEL + lane) * 4) ^ flip::<C>();
            for i in 0..words {
                let codes = packed >> (i * bits) & each_byte(bits);
                C::place(high, group, vector * words + i).write(block, codes);
            }
        }
    }
}

const fn flip<C: Codes>() -> u32 {
    assert!(C::FLIP == 0 || C::LOW == 8);
    0x0101_0101 * C::FLIP as u32
}

/// Eight vectors of four codes per lane, or of what they stand for.
///
/// # Safety
/// The processor has `S`; `group` points at a group of a panel, at the lanes that are wanted.
#[inline(always)]
pub(crate) unsafe fn vectors<S: Isa, C: Codes>(group: *const u8) -> [S::B; 8] {
    // SAFETY: the caller's.
    unsafe {
        let mut w = [S::load_bytes(group); 8];
        for j in 0..8 {
            w[j] = S::load_bytes(group.add(j * C::LOW / 8 * PANEL * 4));
            if C::LOW < 8 {
                w[j] = S::pick(w[j], (j * C::LOW % 8) as i32, ((1u32 << C::LOW) - 1) as u8);
            }
            if C::HIGH > 0 {
                let bits = S::load_bytes(group.add((C::LOW + j * C::HIGH / 8) * PANEL * 4));
                let mask = ((1u32 << C::HIGH) - 1) << C::LOW;
                w[j] = S::or(w[j], S::pick(bits, (j * C::HIGH % 8) as i32 - C::LOW as i32, mask as u8));
            }
            if let Some(table) = &C::TABLE {
                w[j] = S::lookup(table, w[j]);
            }
        }
        w
    }
}
