//! What a quant may be: whole numbers of a range, or sixteen values of a table.

use wide::f32x8;

use crate::{IQ4_VALUES, MXFP4_DOUBLED};

/// The levels that a scaled value is rounded to.
pub(crate) trait Grid {
    /// The levels nearest to `v`.
    fn levels(&self, v: f32x8) -> f32x8;

    /// How the level nearest to `v` is stored.
    fn code(&self, v: f32) -> u8;

    /// The level of greatest magnitude, the negative one of two.
    fn end(&self) -> f32;
}

/// Whole numbers from `lo` to `hi`, stored as their distance from `lo`.
#[derive(Clone, Copy)]
pub(crate) struct Whole {
    pub(crate) lo: f32,
    pub(crate) hi: f32,
}

/// Adding and subtracting this rounds numbers below 2^22 to whole ones, halves to even: what `round_ties_even` does,
/// in two instructions that every processor has vectors of.
const ROUND: f32 = 12_582_912.0;

impl Whole {
    /// The level nearest to `v`.
    pub(crate) fn level(&self, v: f32) -> f32 {
        (v.clamp(self.lo, self.hi) + ROUND) - ROUND
    }
}

impl Grid for Whole {
    #[inline(always)]
    fn levels(&self, v: f32x8) -> f32x8 {
        let v = v.fast_max(f32x8::splat(self.lo)).fast_min(f32x8::splat(self.hi));
        (v + f32x8::splat(ROUND)) - f32x8::splat(ROUND)
    }

    #[inline(always)]
    fn code(&self, v: f32) -> u8 {
        (self.level(v) - self.lo) as u8
    }

    fn end(&self) -> f32 {
        if -self.lo >= self.hi { self.lo } else { self.hi }
    }
}

/// Added to twice a number, the middle of the cells' numbers less a half.
const MIDDLE: f32 = 255.5;

/// 2^23: a sum with it has the other number, rounded, in the last bits of its mantissa.
const COUNT: f32 = 8_388_608.0;

/// Sixteen values, by a table of which is nearest to every half step from -128 up to 128.
pub(crate) struct Table {
    nearest: [u8; 512],
    levels: [f32; 512],
}

pub(crate) static IQ4: Table = Table::new(&IQ4_VALUES);
pub(crate) static MXFP4: Table = Table::new(&MXFP4_DOUBLED);

impl Table {
    const fn new(values: &[i8; 16]) -> Table {
        let mut table = Table { nearest: [0; 512], levels: [0.0; 512] };
        let mut cell = 0;
        while cell < 512 {
            // Four times the middle of the cell. What is nearest changes at whole or half numbers only, so that it is
            // the same in all of the cell.
            let middle = (cell as i32 - 256) * 2 + 1;
            let mut code = 1;
            while code < 16 {
                let best = values[table.nearest[cell] as usize] as i32;
                if (values[code] as i32 * 4 - middle).abs() < (best * 4 - middle).abs() {
                    table.nearest[cell] = code as u8;
                }
                code += 1;
            }
            table.levels[cell] = values[table.nearest[cell] as usize] as f32;
            cell += 1;
        }
        table
    }
}

impl Grid for Table {
    #[inline(always)]
    fn levels(&self, v: f32x8) -> f32x8 {
        let cells = (v + v + f32x8::splat(MIDDLE)).fast_max(f32x8::ZERO).fast_min(f32x8::splat(511.0));
        let counts = (cells + f32x8::splat(COUNT)).to_array();
        f32x8::from(counts.map(|count| self.levels[(count.to_bits() & 511) as usize]))
    }

    fn code(&self, v: f32) -> u8 {
        let count = (v + v + MIDDLE).clamp(0.0, 511.0) + COUNT;
        self.nearest[(count.to_bits() & 511) as usize]
    }

    fn end(&self) -> f32 {
        self.levels.iter().fold(0.0, |end: f32, &value| if value.abs() >= end.abs() { value } else { end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_finds_the_nearest_value() {
        for table in [&IQ4, &MXFP4] {
            for i in -5000..5000 {
                let v = i as f32 * 0.031;
                let off = |x: f32| (x - v).abs();
                let least = table.levels.iter().copied().map(off).fold(f32::MAX, f32::min);
                assert_eq!(off(table.levels(f32x8::splat(v)).to_array()[0]), least, "{v}");
            }
        }
    }
}
