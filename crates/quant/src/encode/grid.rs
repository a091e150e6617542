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

    /// How far from the last level it is worth to map the greatest value: two steps at that end.
    fn play(&self) -> f32;
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
    /// The numbers of `bits` bits in two's complement.
    pub(crate) const fn signed(bits: u32) -> Whole {
        let reach = (1u32 << (bits - 1)) as f32;
        Whole { lo: -reach, hi: reach - 1.0 }
    }

    /// The numbers of `bits` bits from zero up.
    pub(crate) const fn upward(bits: u32) -> Whole {
        Whole { lo: 0.0, hi: ((1u32 << bits) - 1) as f32 }
    }

    /// The level nearest to `v`, then those beside it.
    pub(crate) fn around(self, v: f32) -> impl Iterator<Item = f32> {
        let near = self.level(v);
        [near, near - 1.0, near + 1.0].into_iter().filter(move |level| (self.lo..=self.hi).contains(level))
    }

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

    fn play(&self) -> f32 {
        2.0
    }
}

/// Sixteen values of a table.
pub(crate) struct Table {
    /// The code of the value nearest to every half step from -128 up to 128.
    nearest: [u8; 512],
    least: f32,
    /// In ascending order, from where on the next value is nearer, and by how much it is greater.
    rises: [(f32, f32); 15],
}

pub(crate) static IQ4: Table = Table::new(&IQ4_VALUES);
pub(crate) static MXFP4: Table = Table::new(&MXFP4_DOUBLED);

impl Table {
    const fn new(values: &[i8; 16]) -> Table {
        let mut sorted = *values;
        let mut at = 0;
        while at < 16 {
            let mut place = at;
            while place > 0 && sorted[place - 1] > values[at] {
                sorted[place] = sorted[place - 1];
                place -= 1;
            }
            sorted[place] = values[at];
            at += 1;
        }
        let mut table = Table { nearest: [0; 512], least: sorted[0] as f32, rises: [(0.0, 0.0); 15] };
        let mut at = 0;
        while at < 15 {
            let (low, high) = (sorted[at] as f32, sorted[at + 1] as f32);
            table.rises[at] = ((low + high) / 2.0, high - low);
            at += 1;
        }
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
            cell += 1;
        }
        table
    }
}

impl Grid for Table {
    // Fifteen comparisons are quicker than eight reads from a table.
    #[inline(always)]
    fn levels(&self, v: f32x8) -> f32x8 {
        self.rises.iter().fold(f32x8::splat(self.least), |level, &(middle, rise)| {
            level + (v.simd_gt(f32x8::splat(middle)) & f32x8::splat(rise))
        })
    }

    fn code(&self, v: f32) -> u8 {
        self.nearest[(2.0 * v + 256.0).clamp(0.0, 511.0) as usize]
    }

    fn end(&self) -> f32 {
        let most = self.rises.iter().fold(self.least, |level, (_, rise)| level + rise);
        if -self.least >= most { self.least } else { most }
    }

    fn play(&self) -> f32 {
        self.rises[0].1 + self.rises[1].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_finds_the_nearest_value() {
        for (table, values) in [(&IQ4, &IQ4_VALUES), (&MXFP4, &MXFP4_DOUBLED)] {
            for i in -5000..5000 {
                let v = i as f32 * 0.031;
                let off = |x: f32| (x - v).abs();
                let least = values.iter().map(|&x| off(f32::from(x))).fold(f32::MAX, f32::min);
                assert_eq!(off(table.levels(f32x8::splat(v)).to_array()[0]), least, "{v}");
                assert_eq!(off(f32::from(values[usize::from(table.code(v))])), least, "{v}");
            }
        }
        assert_eq!((IQ4.end(), MXFP4.end()), (-127.0, -12.0));
    }

    #[test]
    fn whole_numbers_are_rounded_and_stay_in_range() {
        let grid = Whole::signed(4);
        for (v, level) in
            [(0.5, 0.0), (1.5, 2.0), (-2.5, -2.0), (6.6, 7.0), (1e9, 7.0), (-1e9, -8.0), (-0.4, 0.0)]
        {
            assert_eq!(grid.level(v), level, "{v}");
            assert_eq!(grid.levels(f32x8::splat(v)).to_array()[0], level, "{v}");
            assert_eq!(f32::from(grid.code(v)), level + 8.0, "{v}");
        }
        assert_eq!((grid.end(), Whole::upward(6).end()), (-8.0, 63.0));
    }
}
