//! Types in blocks of 256: groups with scales of few bits that share an F16 one.
//!
//! First every group finds the scale it would like best ([`search`]). Those are numbers to be quantised themselves, each
//! weighing what an error in it costs, so the same search finds the shared scale. A group's stored scale is then the
//! one of three around the wished one that leaves the least error in the elements, and once all are chosen, the shared
//! scale is solved for again and the choice repeated.

use half::f16;

use super::block32::{half, inverse};
use super::grid::{Grid, Whole};
use super::search::{self, Line, sums};
use super::weights;

/// Elements of a block.
const K: usize = 256;

/// How often the shared scale is solved for again.
const ROUNDS: usize = 1;

/// A block without offsets: a shared scale, what it is multiplied with in every group, and quants.
pub(crate) struct Signed {
    pub(crate) d: f16,
    /// Distance from the least scale there is.
    pub(crate) scales: [u8; 16],
    pub(crate) codes: [u8; K],
}

/// Quantises groups of `size` elements to `grid`, their scales to `scales`.
pub(crate) fn signed(x: &[f32], size: usize, grid: &impl Grid, scales: Whole) -> Signed {
    let weights = weights::<K>(x);
    let groups = || x.chunks_exact(size).zip(weights.chunks_exact(size)).enumerate();
    let (mut wished, mut cost) = ([0.0; 16], [0.0; 16]);
    for (g, (x, w)) in groups() {
        wished[g] = search::signed(x, w, grid);
        let inverse = inverse(wished[g]);
        [cost[g]] = sums(x, w, |x, w| {
            let q = grid.levels(x * inverse);
            [w * q * q]
        });
    }
    let mut d = half(search::signed(&wished[..K / size], &cost[..K / size], &scales));
    let mut chosen = [0.0; 16];
    for round in 0..=ROUNDS {
        let (mut xq, mut qq) = (0.0, 0.0);
        for (g, (x, w)) in groups() {
            let (scale, [group_xq, group_qq]) = nearest_scale(x, w, wished[g], d.to_f32(), grid, scales);
            chosen[g] = scale;
            xq += group_xq;
            qq += group_qq;
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

/// Of the scales around the wished one, that with the least error; and what the group adds to the sums that the shared
/// scale is solved from.
fn nearest_scale(
    x: &[f32],
    w: &[f32],
    wished: f32,
    shared: f32,
    grid: &impl Grid,
    scales: Whole,
) -> (f32, [f32; 2]) {
    let (mut best, mut least, mut of_best) = (0.0, f32::INFINITY, [0.0; 2]);
    for scale in scales.around(wished * inverse(shared)) {
        let (step, inverse) = (shared * scale, inverse(shared * scale));
        let [error, xq, qq] = sums(x, w, |x, w| {
            let q = grid.levels(x * inverse);
            let off = step * q - x;
            [w * off * off, w * x * q, w * q * q]
        });
        if error < least {
            (least, best, of_best) = (error, scale, [xq * scale, qq * scale * scale]);
        }
    }
    (best, of_best)
}

/// A block with minima: two shared scales, what they are multiplied with in every group, and quants.
pub(crate) struct Affine {
    pub(crate) d: f16,
    pub(crate) dmin: f16,
    pub(crate) scales: [u8; 16],
    pub(crate) minima: [u8; 16],
    pub(crate) codes: [u8; K],
}

/// Quantises groups of `size` elements to `grid`, their scales and minima to `scales`.
pub(crate) fn affine(x: &[f32], size: usize, grid: Whole, scales: Whole) -> Affine {
    let weights = weights::<K>(x);
    let groups = || x.chunks_exact(size).zip(weights.chunks_exact(size)).enumerate();
    let mut wished = [Line::default(); 16];
    let (mut steps, mut minima, mut cost, mut weight) = ([0.0; 16], [0.0; 16], [0.0; 16], [0.0; 16]);
    for (g, (x, w)) in groups() {
        let line = search::affine(x, w, grid, true);
        let inverse = inverse(line.scale);
        [cost[g], weight[g]] = sums(x, w, |x, w| {
            let q = grid.levels((x - line.offset) * inverse);
            [w * q * q, w]
        });
        (wished[g], steps[g], minima[g]) = (line, line.scale, -line.offset);
    }
    let shared = |x: &[f32; 16], w: &[f32; 16]| search::signed(&x[..K / size], &w[..K / size], &scales);
    let (mut d, mut dmin) = (half(shared(&steps, &cost)), half(shared(&minima, &weight)));
    let mut chosen = [Line::default(); 16];
    for round in 0..=ROUNDS {
        let mut normal = [0.0; 5];
        for (g, (x, w)) in groups() {
            let shared = Line { scale: d.to_f32(), offset: -dmin.to_f32() };
            let (line, of_group) = nearest_line(x, w, wished[g], shared, grid, scales);
            chosen[g] = line;
            normal.iter_mut().zip(of_group).for_each(|(sum, term)| *sum += term);
        }
        if round < ROUNDS {
            (d, dmin) = solve(normal).unwrap_or((d, dmin));
        }
    }
    let lines = chosen.map(|line| (inverse(d.to_f32() * line.scale), dmin.to_f32() * line.offset));
    Affine {
        d,
        dmin,
        scales: chosen.map(|line| line.scale as u8),
        minima: chosen.map(|line| line.offset as u8),
        codes: std::array::from_fn(|i| {
            let (inverse, min) = lines[i / size];
            grid.code((x[i] + min) * inverse)
        }),
    }
}

/// The shared scales of least squares, if both are positive.
fn solve([aa, ab, bb, ax, bx]: [f32; 5]) -> Option<(f16, f16)> {
    let det = aa * bb - ab * ab;
    let (scale, min) = ((ax * bb - bx * ab) / det, (bx * aa - ax * ab) / det);
    (det > 0.0 && scale > 0.0 && min > 0.0).then(|| (half(scale), half(min)))
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
    let (mut best, mut least, mut of_best) = (Line::default(), f32::INFINITY, [0.0; 5]);
    for scale in scales.around(wished.scale * inverse(shared.scale)) {
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
