//! Convolutions by minimal filtering: see [`reference::filter`](crate::reference::filter) for what is computed. Some tiles at a
//! time have their inputs transformed, are multiplied point by point, and have their outputs transformed while they are hot.

use std::ops::Range;

use super::{Frames, Output};
use crate::reference::{
    AT_0, AT_P, AT_Q, P, P2, P3, Q, Q2, Q3, TILE_EDGE as EDGE, TILE_POINTS as POINTS, TILE_SIDE as SIDE,
};
use crate::simd::{Isa, PANEL};
use crate::weights::{Matrix, SEGMENT, float_lanes};

/// The most tiles that are computed together: their weights, 36 for each of a kernel's 9, are then read often enough.
pub(crate) const TILES: usize = 60;

/// Sizes of a convolution by minimal filtering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filtering {
    /// Frames of the kernel.
    pub(crate) frames: usize,
    pub(crate) channels: usize,
    pub(crate) outputs: usize,
    /// How often a row or column is repeated.
    pub(crate) upsample: usize,
    /// Frames, height and width of the result.
    pub(crate) output: [usize; 3],
}

impl Filtering {
    /// Elements of a sum.
    fn inputs(&self) -> usize {
        self.frames * self.channels
    }

    fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Frames that are read.
    fn seen(&self) -> usize {
        self.output[0] + self.frames - 1
    }

    fn across(&self) -> usize {
        self.output[2].div_ceil(SIDE)
    }

    /// Tiles, those of one place in all frames following each other.
    pub(crate) fn tiles(&self) -> usize {
        self.output[0] * self.output[1].div_ceil(SIDE) * self.across()
    }

    /// Row and column of a place's first output.
    fn corner(&self, place: usize) -> [usize; 2] {
        [place / self.across() * SIDE, place % self.across() * SIDE]
    }

    /// Elements of transformed weights of a panel.
    pub(crate) fn panel_elements(&self) -> usize {
        POINTS * self.inputs() * PANEL
    }

    /// Elements of a point's transformed inputs: of all frames that are read at so many places. The last vector may be longer.
    fn plane(&self, places: usize) -> usize {
        places * self.seen() * self.channels + PANEL
    }

    /// Elements of [`FilteredCall::inputs`] and [`FilteredCall::products`].
    pub(crate) fn scratch(&self) -> [usize; 2] {
        let places = (TILES - 1).div_ceil(self.output[0]) + 1;
        let places = places.min(self.tiles() / self.output[0]);
        [POINTS * self.plane(places), POINTS * TILES * self.panels() * PANEL]
    }
}

/// Transforms the kernels of some panels.
pub(crate) struct FiltersCall {
    pub(crate) sizes: Filtering,
    pub(crate) matrix: *const Matrix,
    pub(crate) panels: Range<usize>,
    /// `[panel][point][input][lane]`
    pub(crate) out: *mut f32,
}

/// Computes some tiles.
pub(crate) struct FilteredCall {
    pub(crate) sizes: Filtering,
    pub(crate) frames: Frames,
    /// At most [`TILES`].
    pub(crate) tiles: Range<usize>,
    pub(crate) filters: *const f32,
    /// Padded to whole panels.
    pub(crate) bias: Option<*const f32>,
    pub(crate) residual: Option<Output>,
    pub(crate) out: Output,
    /// Room for transformed inputs, `[point][place][frame][channel]`.
    pub(crate) inputs: *mut f32,
    /// Room for products, `[point][tile][output]`.
    pub(crate) products: *mut f32,
}

/// Six inputs along an axis.
#[inline(always)]
unsafe fn of_inputs<S: Isa>(d: [S::V; EDGE]) -> [S::V; EDGE] {
    // SAFETY: see `Entry`, here and below in this file.
    unsafe {
        let even_p = S::fma(S::splat(-Q2), d[2], d[4]);
        let odd_p = S::fma(S::splat(-Q2), d[1], d[3]);
        let even_q = S::fma(S::splat(-P2), d[2], d[4]);
        let odd_q = S::fma(S::splat(-P2), d[1], d[3]);
        [
            S::fma(S::splat(P2 * Q2), d[0], S::fma(S::splat(-(P2 + Q2)), d[2], d[4])),
            S::fma(S::splat(P), odd_p, even_p),
            S::fma(S::splat(-P), odd_p, even_p),
            S::fma(S::splat(Q), odd_q, even_q),
            S::fma(S::splat(-Q), odd_q, even_q),
            S::fma(S::splat(P2 * Q2), d[1], S::fma(S::splat(-(P2 + Q2)), d[3], d[5])),
        ]
    }
}

/// Three weights along an axis.
#[inline(always)]
unsafe fn of_kernel<S: Isa>(g: [S::V; 3]) -> [S::V; EDGE] {
    // SAFETY: as above.
    unsafe {
        let even_p = S::fma(S::splat(P2), g[2], g[0]);
        let odd_p = S::mul(S::splat(P), g[1]);
        let even_q = S::fma(S::splat(Q2), g[2], g[0]);
        let odd_q = S::mul(S::splat(Q), g[1]);
        [
            S::mul(S::splat(AT_0), g[0]),
            S::mul(S::splat(AT_P), S::add(even_p, odd_p)),
            S::mul(S::splat(AT_P), S::sub(even_p, odd_p)),
            S::mul(S::splat(AT_Q), S::add(even_q, odd_q)),
            S::mul(S::splat(AT_Q), S::sub(even_q, odd_q)),
            g[2],
        ]
    }
}

/// Four outputs along an axis.
#[inline(always)]
unsafe fn of_products<S: Isa>(m: [S::V; EDGE]) -> [S::V; SIDE] {
    // SAFETY: as above.
    unsafe {
        let (sum_p, difference_p) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (sum_q, difference_q) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(S::add(m[0], sum_p), sum_q),
            S::fma(S::splat(Q), difference_q, S::mul(S::splat(P), difference_p)),
            S::fma(S::splat(Q2), sum_q, S::mul(S::splat(P2), sum_p)),
            S::fma(S::splat(Q3), difference_q, S::fma(S::splat(P3), difference_p, m[5])),
        ]
    }
}

#[inline(always)]
pub(super) unsafe fn filters<S: Isa>(call: &FiltersCall) {
    let (sizes, parts) = (&call.sizes, PANEL / S::LANES);
    let pitch = sizes.inputs() * PANEL;
    for panel in call.panels.clone() {
        for input in 0..sizes.inputs() {
            let (frame, channel) = (input / sizes.channels, input % sizes.channels);
            for part in 0..parts {
                // SAFETY: as above; the matrix has `[frames][3][3][channels]` inputs.
                unsafe {
                    let to = call.out.add(panel * sizes.panel_elements() + input * PANEL + part * S::LANES);
                    let mut columns = [[S::splat(0.0); EDGE]; 3];
                    for x in 0..3 {
                        let mut g = [S::splat(0.0); 3];
                        for y in 0..3 {
                            let place = ((frame * 3 + y) * 3 + x) * sizes.channels + channel;
                            g[y] = float_lanes::<S>(&*call.matrix, panel, part, place);
                        }
                        columns[x] = of_kernel::<S>(g);
                    }
                    for row in 0..EDGE {
                        let g = of_kernel::<S>([columns[0][row], columns[1][row], columns[2][row]]);
                        for column in 0..EDGE {
                            S::store(to.add((row * EDGE + column) * pitch), g[column]);
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
pub(super) unsafe fn filtered<S: Isa>(call: &FilteredCall) {
    // SAFETY: as above.
    unsafe {
        let mut rows = [std::ptr::null(); TILES];
        let plane = transform_inputs::<S>(call, &mut rows);
        multiply::<S>(call, &rows, plane);
        for tile in call.tiles.clone() {
            transform_products::<S>(call, tile);
        }
    }
}

/// Transforms what the tiles read, and says where the first point's inputs of each begin and how far the points lie apart.
#[inline(always)]
unsafe fn transform_inputs<S: Isa>(call: &FilteredCall, rows: &mut [*const f32; TILES]) -> usize {
    let (sizes, tiles) = (&call.sizes, &call.tiles);
    let count = sizes.output[0];
    let places = tiles.start / count..tiles.end.div_ceil(count);
    let plane = sizes.plane(places.len());
    for place in places.clone() {
        // Of the first and the last place perhaps some frames only.
        let first = tiles.start.saturating_sub(place * count);
        let last = (tiles.end - place * count).min(count) + sizes.frames - 1;
        for frame in first..last {
            let row = (place - places.start) * sizes.seen() + frame;
            // SAFETY: as above; there is room for all frames of all places. A frame's last vector may reach into the next
            // frame's place, which is written later.
            unsafe { transform_tile::<S>(call, place, frame, call.inputs.add(row * sizes.channels), plane) };
        }
    }
    for (row, tile) in rows.iter_mut().zip(tiles.clone()) {
        // A tile's inputs are those of as many frames as the kernel has, one after the other.
        let at = (tile / count - places.start) * sizes.seen() + tile % count;
        // SAFETY: as above.
        *row = unsafe { call.inputs.add(at * sizes.channels).cast_const() };
    }
    plane
}

/// Transforms the inputs of one place in one of the frames that are read.
#[inline(always)]
unsafe fn transform_tile<S: Isa>(
    call: &FilteredCall,
    place: usize,
    frame: usize,
    to: *mut f32,
    plane: usize,
) {
    let Frames { x, shape: [_, height, width, channels], before } = call.frames;
    let Filtering { frames, upsample, output: [_, out_height, out_width], .. } = call.sizes;
    let [y, column] = call.sizes.corner(place);
    // SAFETY: as above.
    unsafe {
        let map = match (frame.checked_sub(frames - 1), before) {
            (Some(frame), _) => Some((x.base.add(frame * height * width * x.stride).cast_const(), x.stride)),
            (None, Some(before)) => Some((before.add(frame * height * width * channels), channels)),
            (None, None) => None,
        };
        let mut from = [None; POINTS];
        if let Some((map, stride)) = map {
            for (point, from) in from.iter_mut().enumerate() {
                // One more than the place in the enlarged frame.
                let (y, x) = (y + point / EDGE, column + point % EDGE);
                if (1..=out_height).contains(&y) && (1..=out_width).contains(&x) {
                    *from = Some(map.add(((y - 1) / upsample * width + (x - 1) / upsample) * stride));
                }
            }
        }
        let mut channel = 0;
        while channel < channels {
            let mut d = [[S::splat(0.0); EDGE]; EDGE];
            for point in 0..POINTS {
                if let Some(from) = from[point] {
                    d[point % EDGE][point / EDGE] = load_some::<S>(from.add(channel), channels - channel);
                }
            }
            for column in 0..EDGE {
                d[column] = of_inputs::<S>(d[column]);
            }
            for row in 0..EDGE {
                let v = of_inputs::<S>([d[0][row], d[1][row], d[2][row], d[3][row], d[4][row], d[5][row]]);
                for column in 0..EDGE {
                    S::store(to.add((row * EDGE + column) * plane + channel), v[column]);
                }
            }
            channel += S::LANES;
        }
    }
}

/// A vector of which so many lanes exist, the others being anything.
#[inline(always)]
unsafe fn load_some<S: Isa>(from: *const f32, exist: usize) -> S::V {
    // SAFETY: as above.
    unsafe {
        if exist >= S::LANES {
            return S::load(from);
        }
        let mut some = [0.0; PANEL];
        std::ptr::copy_nonoverlapping(from, some.as_mut_ptr(), exist);
        S::load(some.as_ptr())
    }
}

/// One segment of one point's inputs, for all tiles and outputs.
struct Segment {
    /// Those of the first panel.
    filters: *const f32,
    /// Elements from panel to panel.
    panel: usize,
    panels: usize,
    /// Of every tile, and where in it the inputs are.
    rows: *const *const f32,
    at: usize,
    inputs: usize,
    products: *mut f32,
    /// Whether what is there is to be added to.
    add: bool,
}

/// The products of all points.
#[inline(always)]
unsafe fn multiply<S: Isa>(call: &FilteredCall, rows: &[*const f32; TILES], plane: usize) {
    let (sizes, count) = (&call.sizes, call.tiles.len());
    let inputs = sizes.inputs();
    for point in 0..POINTS {
        for from in (0..inputs).step_by(SEGMENT) {
            // SAFETY: as above.
            unsafe {
                let segment = Segment {
                    filters: call.filters.add((point * inputs + from) * PANEL),
                    panel: sizes.panel_elements(),
                    panels: sizes.panels(),
                    rows: rows.as_ptr(),
                    at: point * plane + from,
                    inputs: SEGMENT.min(inputs - from),
                    products: call.products.add(point * TILES * sizes.panels() * PANEL),
                    add: from > 0,
                };
                let mut tile = 0;
                while tile + 12 <= count && S::LANES == 16 {
                    outputs::<S, 12>(&segment, tile);
                    tile += 12;
                }
                while tile + 6 <= count {
                    outputs::<S, 6>(&segment, tile);
                    tile += 6;
                }
                while tile + 2 <= count {
                    outputs::<S, 2>(&segment, tile);
                    tile += 2;
                }
                if tile < count {
                    outputs::<S, 1>(&segment, tile);
                }
            }
        }
    }
}

/// All outputs of `M` tiles, two vectors at a time.
#[inline(always)]
unsafe fn outputs<S: Isa, const M: usize>(segment: &Segment, tile: usize) {
    let vectors = segment.panels * PANEL / S::LANES;
    let mut vector = 0;
    // SAFETY: as above.
    unsafe {
        while vector + 2 <= vectors {
            sums::<S, M, 2>(segment, tile, vector);
            vector += 2;
        }
        if vector < vectors {
            sums::<S, M, 1>(segment, tile, vector);
        }
    }
}

/// `N` vectors of outputs of `M` tiles.
#[inline(always)]
unsafe fn sums<S: Isa, const M: usize, const N: usize>(segment: &Segment, tile: usize, vector: usize) {
    let parts = PANEL / S::LANES;
    // SAFETY: as above.
    unsafe {
        let mut filters = [std::ptr::null(); N];
        for n in 0..N {
            let (panel, part) = ((vector + n) / parts, (vector + n) % parts);
            filters[n] = segment.filters.add(panel * segment.panel + part * S::LANES);
        }
        let mut x = [std::ptr::null(); M];
        for t in 0..M {
            x[t] = (*segment.rows.add(tile + t)).add(segment.at);
        }
        let mut sums = [[S::splat(0.0); N]; M];
        for k in 0..segment.inputs {
            let mut w = [S::splat(0.0); N];
            for n in 0..N {
                w[n] = S::load(filters[n].add(k * PANEL));
            }
            for t in 0..M {
                let x = S::splat(*x[t].add(k));
                for n in 0..N {
                    sums[t][n] = S::fma(w[n], x, sums[t][n]);
                }
            }
        }
        for t in 0..M {
            for n in 0..N {
                let at = (tile + t) * segment.panels * PANEL + (vector + n) * S::LANES;
                let out = segment.products.add(at);
                let before = if segment.add { S::load(out) } else { S::splat(0.0) };
                S::store(out, S::add(before, sums[t][n]));
            }
        }
    }
}

/// Writes a tile's outputs.
#[inline(always)]
unsafe fn transform_products<S: Isa>(call: &FilteredCall, tile: usize) {
    let [count, height, width] = call.sizes.output;
    let pitch = call.sizes.panels() * PANEL;
    let [y, x] = call.sizes.corner(tile / count);
    let (rows, columns) = (SIDE.min(height - y), SIDE.min(width - x));
    let first = (tile % count * height + y) * width + x;
    for at in (0..pitch).step_by(S::LANES) {
        // SAFETY: as above; strides are whole panels.
        unsafe {
            let from = call.products.add((tile - call.tiles.start) * pitch + at);
            let bias = call.bias.map(|bias| bias.add(at));
            let mut m = [[S::splat(0.0); SIDE]; EDGE];
            for column in 0..EDGE {
                let mut v = [S::splat(0.0); EDGE];
                for row in 0..EDGE {
                    v[row] = S::load(from.add((row * EDGE + column) * TILES * pitch));
                }
                m[column] = of_products::<S>(v);
            }
            for row in 0..rows {
                let v = of_products::<S>([m[0][row], m[1][row], m[2][row], m[3][row], m[4][row], m[5][row]]);
                for column in 0..columns {
                    let place = first + row * width + column;
                    let mut y = v[column];
                    if let Some(bias) = bias {
                        y = S::add(y, S::load(bias));
                    }
                    if let Some(residual) = call.residual {
                        y = S::add(S::load(residual.base.add(place * residual.stride + at)), y);
                    }
                    S::store(call.out.base.add(place * call.out.stride + at), y);
                }
            }
        }
    }
}
