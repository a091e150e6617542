//! The two searches for scales: without an offset, and with one.
//!
//! Which quants belong to a scale is clear (the nearest), and which scale belongs to quants (weighted least squares), but
//! not both at once. So several scales are tried near the one that maps the greatest value onto the last level, quants
//! are taken for each, the best scale for those quants is solved for, and the pair with the least error wins; then
//! quants and scale are taken in turn again, which can only lower the error. The idea is that of llama.cpp's K-quants
//! (Kawrakow, <https://github.com/ggml-org/llama.cpp/pull/1684>).

use wide::f32x8;

use super::grid::{Grid, Whole};

/// Magnitudes below half of the least F16 scale: no type here can tell them from zero.
pub(crate) const TINY: f32 = 1.0 / (1 << 26) as f32;

/// Sums over elements and their weights, in eight lanes and then a tree, the same order on every machine. The number of
/// elements is a multiple of eight.
#[inline(always)]
pub(crate) fn sums<const K: usize>(
    x: &[f32],
    w: &[f32],
    each: impl Fn(f32x8, f32x8) -> [f32x8; K],
) -> [f32; K] {
    let mut lanes = [f32x8::ZERO; K];
    for (x, w) in x.as_chunks::<8>().0.iter().zip(w.as_chunks::<8>().0) {
        let terms = each(f32x8::from(*x), f32x8::from(*w));
        lanes.iter_mut().zip(terms).for_each(|(lanes, terms)| *lanes += terms);
    }
    lanes.map(|lanes| {
        let [a, b, c, d, e, f, g, h] = lanes.to_array();
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    })
}

/// What the greatest value is mapped to in turn: numbers around the last level, as fractions of the distance that the
/// grid says ([`Grid::play`]) below it and half of that beyond.
fn ends(grid: &impl Grid) -> impl Iterator<Item = f32> {
    let (end, play) = (grid.end(), grid.play());
    (-8..=4).map(move |i| end + end.signum() * play * (i as f32 / 8.0))
}

/// Elements of a group at most.
const GROUP: usize = 32;

/// How often quants and scale are taken in turn at last.
const TURNS: usize = 2;

/// The `s` for which `s * level` is nearest to the elements; of either sign.
pub(crate) fn signed(x: &[f32], w: &[f32], grid: &impl Grid) -> f32 {
    let extreme = x.iter().fold(0.0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
    if extreme.abs() < TINY {
        return 0.0;
    }
    // How much of the sum of squares the quants for this inverse scale explain, and by which scale.
    let fit = |inverse: f32| {
        let [xq, qq] = sums(x, w, |x, w| {
            let q = grid.levels(x * inverse);
            [w * q * x, w * q * q]
        });
        if qq > 0.0 { (xq * (xq / qq), xq / qq) } else { (0.0, 0.0) }
    };
    let mut best = (0.0, 0.0);
    for end in ends(grid) {
        let found = fit(end / extreme);
        if found.0 > best.0 {
            best = found;
        }
    }
    for _ in 0..TURNS {
        let found = if best.1 != 0.0 { fit(best.1.recip()) } else { break };
        if found.0 <= best.0 {
            break;
        }
        best = found;
    }
    best.1
}

/// `x ≈ scale * q + offset`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Line {
    pub(crate) scale: f32,
    pub(crate) offset: f32,
}

/// The line through quants from zero up that is nearest to the elements. With `below`, offsets are zero or less.
pub(crate) fn affine(x: &[f32], w: &[f32], levels: Whole, below: bool) -> Line {
    let bound = if below { 0.0 } else { f32::INFINITY };
    let (min, max) = x.iter().fold((bound, f32::NEG_INFINITY), |(min, max), &x| (min.min(x), max.max(x)));
    if max - min < TINY {
        return Line { scale: 0.0, offset: min };
    }
    // From `min` up, so that sums of squares stay as small as what they are compared for.
    let mut above = [0.0; GROUP];
    let above = &mut above[..x.len()];
    above.iter_mut().zip(x).for_each(|(above, x)| *above = x - min);
    let [ww, wx] = sums(above, w, |x, w| [w, w * x]);
    // The best line for the quants that this one gives, and how much of the sum of squares it explains.
    let fit = |inverse: f32, offset: f32| {
        let [wq, qq, qx] = sums(above, w, |x, w| {
            let q = levels.levels((x - offset) * inverse);
            [w * q, w * q * q, w * q * x]
        });
        let det = ww * qq - wq * wq;
        if det <= 0.0 {
            return (f32::NEG_INFINITY, Line::default());
        }
        let mut line = Line { scale: (ww * qx - wx * wq) / det, offset: (qq * wx - wq * qx) / det };
        if below && line.offset + min > 0.0 {
            line = Line { scale: (qx + min * wq) / qq, offset: -min };
        }
        if line.scale <= 0.0 {
            return (f32::NEG_INFINITY, line);
        }
        let Line { scale: s, offset: o } = line;
        (2.0 * (s * qx + o * wx - s * o * wq) - s * s * qq - o * o * ww, line)
    };
    let mut best = (f32::NEG_INFINITY, Line { scale: (max - min) / levels.hi, offset: 0.0 });
    for end in ends(&levels) {
        let found = fit(end / (max - min), 0.0);
        if found.0 > best.0 {
            best = found;
        }
    }
    for _ in 0..TURNS {
        let found = fit(best.1.scale.recip(), best.1.offset);
        if found.0 <= best.0 {
            break;
        }
        best = found;
    }
    Line { scale: best.1.scale, offset: best.1.offset + min }
}
