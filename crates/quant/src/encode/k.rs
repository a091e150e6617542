//! Types in blocks of 256: groups with scales of few bits that share an F16 one.
//!
//! First every group finds the scale it would like best ([`search`]). Those are numbers to be quantised themselves, each
//! weighing what an error in it costs, so the same search finds the shared scale. A group's stored scale is then the
//! one of three around the wished one that leaves the least error in the elements, and once all are chosen, the shared
//! scale is solved for again and the choice repeated.

use half::f16;

use super::block32::{half, inverse};
use super::grid::{Grid, Whole};
use super::pack;
use super::search::{self, Around, Line, sums};

/// Elements of a block.
const K: usize = 256;

/// How often the shared scale is solved for again.
const ROUNDS: usize = 1;

/// Where shared scales are looked for.
const SHARED: Around = Around { from: -2.0, step: 0.25, steps: 16 };

/// A block without offsets: a shared scale, what it is multiplied with in every group, and quants.
pub(crate) struct Signed {
    pub(crate) d: f16,
    /// Distance from the least scale there is.
    pub(crate) scales: [u8; 16],
    pub(crate) codes: [u8; K],
}

/// Quantises groups of `size` elements to `grid`, their scales to `scales`.
pub(crate) fn signed(
    x: &[f32],
    w: &[f32],
    size: usize,
    grid: &impl Grid,
    around: Around,
    scales: Whole,
) -> Signed {
    let groups = K / size;
    let group = |g: usize| (&x[g * size..][..size], &w[g * size..][..size]);
    let (mut wished, mut cost) = ([0.0; 16], [0.0; 16]);
    for g in 0..groups {
        let (x, w) = group(g);
        wished[g] = search::signed(x, w, grid, around);
        let inverse = inverse(wished[g]);
        [cost[g]] = sums(x, w, |x, w| {
            let q = grid.levels(x * inverse);
            [w * q * q]
        });
    }
    let mut d = half(search::signed(&wished[..groups], &cost[..groups], &scales, SHARED));
    let mut chosen = [0.0; 16];
    for round in 0..=ROUNDS {
        let (shared, mut xq, mut qq) = (d.to_f32(), 0.0, 0.0);
        for g in 0..groups {
            let (x, w) = group(g);
            let near = scales.level(wished[g] * inverse(shared));
            let mut least = f32::INFINITY;
            let mut sums_of_best = [0.0; 2];
            for scale in [near, near - 1.0, near + 1.0] {
                if scale < scales.lo || scale > scales.hi {
                    continue;
                }
                let (step, inverse) = (shared * scale, inverse(shared * scale));
                let [error, xq, qq] = sums(x, w, |x, w| {
                    let q = grid.levels(x * inverse);
                    let off = step * q - x;
                    [w * off * off, w * x * q, w * q * q]
                });
                if error < least {
                    (least, chosen[g]) = (error, scale);
                    sums_of_best = [xq * scale, qq * scale * scale];
                }
            }
            xq += sums_of_best[0];
            qq += sums_of_best[1];
        }
        if round < ROUNDS && qq > 0.0 {
            d = half(xq / qq);
        }
    }
    let steps = chosen.map(|scale| inverse(d.to_f32() * scale));
    Signed {
        d,
        scales: chosen.map(|scale| (scale - scales.lo) as u8),
        codes: std::array::from_fn(|i| grid.code(x[i] * steps[i / size])),
    }
}

/// A block with minima: two shared scales, what they are multiplied with in every group, and quants.
pub(crate) struct Affine {
    pub(crate) d: f16,
    pub(crate) dmin: f16,
    pub(crate) scales: [u8; 16],
    pub(crate) minima: [u8; 16],
    pub(crate) codes: [u8; K],
}

/// Quantises groups of `size` elements to quants up to `hi`, their scales and minima to whole numbers up to `most`.
pub(crate) fn affine(x: &[f32], w: &[f32], size: usize, hi: f32, around: Around, most: f32) -> Affine {
    let groups = K / size;
    let group = |g: usize| (&x[g * size..][..size], &w[g * size..][..size]);
    let (grid, scales) = (Whole { lo: 0.0, hi }, Whole { lo: 0.0, hi: most });
    let mut wished = [Line::default(); 16];
    let (mut steps, mut minima, mut cost, mut weight) = ([0.0; 16], [0.0; 16], [0.0; 16], [0.0; 16]);
    for g in 0..groups {
        let (x, w) = group(g);
        let line = search::affine(x, w, hi, around, true);
        let inverse = inverse(line.scale);
        [cost[g], weight[g]] = sums(x, w, |x, w| {
            let q = grid.levels((x - line.offset) * inverse);
            [w * q * q, w]
        });
        (wished[g], steps[g], minima[g]) = (line, line.scale, -line.offset);
    }
    let mut d = half(search::signed(&steps[..groups], &cost[..groups], &scales, SHARED));
    let mut dmin = half(search::signed(&minima[..groups], &weight[..groups], &scales, SHARED));
    let (mut chosen, mut chosen_min) = ([0.0; 16], [0.0; 16]);
    for round in 0..=ROUNDS {
        let mut normal = [0.0; 5];
        for g in 0..groups {
            let (x, w) = group(g);
            let shared = Line { scale: d.to_f32(), offset: -dmin.to_f32() };
            let (line, of_best) = nearest_line(x, w, wished[g], shared, grid, scales);
            (chosen[g], chosen_min[g]) = (line.scale, line.offset);
            normal.iter_mut().zip(of_best).for_each(|(sum, term)| *sum += term);
        }
        if round < ROUNDS {
            let [aa, ab, bb, ax, bx] = normal;
            let det = aa * bb - ab * ab;
            let (scale, min) = ((ax * bb - bx * ab) / det, (bx * aa - ax * ab) / det);
            if det > 0.0 && scale > 0.0 && min > 0.0 {
                (d, dmin) = (half(scale), half(min));
            } else if aa > 0.0 && bb == 0.0 {
                d = half(ax / aa);
            }
        }
    }
    let lines: [(f32, f32); 16] =
        std::array::from_fn(|g| (inverse(d.to_f32() * chosen[g]), dmin.to_f32() * chosen_min[g]));
    Affine {
        d,
        dmin,
        scales: chosen.map(|scale| scale as u8),
        minima: chosen_min.map(|min| min as u8),
        codes: std::array::from_fn(|i| {
            let (inverse, min) = lines[i / size];
            grid.code((x[i] + min) * inverse)
        }),
    }
}

/// Of the scales around the wished one, with the minimum that suits each best, those with the least error; and what the
/// group adds to the sums that the shared scales are solved from.
fn nearest_line(
    x: &[f32],
    w: &[f32],
    wished: Line,
    shared: Line,
    grid: Whole,
    scales: Whole,
) -> (Line, [f32; 5]) {
    let near = scales.level(wished.scale * inverse(shared.scale));
    let (mut best, mut least, mut of_best) = (Line::default(), f32::INFINITY, [0.0; 5]);
    for scale in [near, near - 1.0, near + 1.0] {
        if scale < scales.lo || scale > scales.hi {
            continue;
        }
        let (step, inv) = (shared.scale * scale, inverse(shared.scale * scale));
        let [off, ww] = sums(x, w, |x, w| [w * (x - step * grid.levels((x - wished.offset) * inv)), w]);
        let min = scales.level(off * inverse(ww * shared.offset));
        let offset = shared.offset * min;
        let [error, qq, q1, qx, wx] = sums(x, w, |x, w| {
            let q = grid.levels((x - offset) * inv);
            let off = step * q + offset - x;
            [w * off * off, w * q * q, w * q, w * q * x, w * x]
        });
        if error < least {
            (least, best) = (error, Line { scale, offset: min });
            of_best = [qq * scale * scale, -q1 * scale * min, ww * min * min, qx * scale, -wx * min];
        }
    }
    (best, of_best)
}
