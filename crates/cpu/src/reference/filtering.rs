//! Convolutions of 3x3 pixels by minimal filtering, F(4x4, 3x3) (Winograd, 1980; Lavin & Gray, 2016): tiles of 4x4 outputs
//! from 6x6 inputs by 36 products for each pair of channels, where 144 multiply-adds would be needed.
//!
//! A tile's inputs, a kernel and the products are each taken from one form to another, along height first, then along
//! width. The forms are values of polynomials at 0, ±3/4, ±3/2 and infinity: of the points tried those with the smallest
//! errors, and the powers that occur are exact.

use wushi_graph::Conv;

use super::Frames;
use super::linear::in_segments;

/// Outputs of a tile in height and width.
pub const TILE_SIDE: usize = 4;
/// Inputs of a tile in height and width.
pub const TILE_EDGE: usize = TILE_SIDE + 2;
/// Products of a tile.
pub const TILE_POINTS: usize = TILE_EDGE * TILE_EDGE;

/// The points are 0, ±P, ±Q and infinity.
pub(crate) const P: f32 = 0.75;
pub(crate) const Q: f32 = 1.5;
/// Their squares, and cubes.
pub(crate) const P2: f32 = P * P;
pub(crate) const Q2: f32 = Q * Q;
pub(crate) const P3: f32 = P * P2;
pub(crate) const Q3: f32 = Q * Q2;
/// What the kernel's values at 0, ±P and ±Q are multiplied by, rounded once.
pub(crate) const AT_0: f32 = 1.0 / (P2 * Q2);
pub(crate) const AT_P: f32 = 1.0 / (2.0 * P2 * (P2 - Q2));
pub(crate) const AT_Q: f32 = 1.0 / (2.0 * Q2 * (Q2 - P2));

/// Whether a convolution is one by minimal filtering; others are linear layers of their patches.
pub fn is_filtered(conv: &Conv) -> bool {
    conv.kernel[1..] == [3, 3] && conv.stride == 1 && conv.padding == 1
}

/// Six inputs along an axis.
fn of_inputs(d: [f32; TILE_EDGE]) -> [f32; TILE_EDGE] {
    let [even_p, odd_p] = [(-Q2).mul_add(d[2], d[4]), (-Q2).mul_add(d[1], d[3])];
    let [even_q, odd_q] = [(-P2).mul_add(d[2], d[4]), (-P2).mul_add(d[1], d[3])];
    let end = |a: f32, b: f32, c: f32| (P2 * Q2).mul_add(a, (-(P2 + Q2)).mul_add(b, c));
    [
        end(d[0], d[2], d[4]),
        P.mul_add(odd_p, even_p),
        (-P).mul_add(odd_p, even_p),
        Q.mul_add(odd_q, even_q),
        (-Q).mul_add(odd_q, even_q),
        end(d[1], d[3], d[5]),
    ]
}

/// Three weights of a kernel along an axis.
fn of_kernel(g: [f32; 3]) -> [f32; TILE_EDGE] {
    let [even_p, odd_p] = [P2.mul_add(g[2], g[0]), P * g[1]];
    let [even_q, odd_q] = [Q2.mul_add(g[2], g[0]), Q * g[1]];
    [
        AT_0 * g[0],
        AT_P * (even_p + odd_p),
        AT_P * (even_p - odd_p),
        AT_Q * (even_q + odd_q),
        AT_Q * (even_q - odd_q),
        g[2],
    ]
}

/// Four outputs along an axis from six products.
fn of_products(m: [f32; TILE_EDGE]) -> [f32; TILE_SIDE] {
    let [sum_p, difference_p] = [m[1] + m[2], m[1] - m[2]];
    let [sum_q, difference_q] = [m[3] + m[4], m[3] - m[4]];
    [
        m[0] + sum_p + sum_q,
        Q.mul_add(difference_q, P * difference_p),
        Q2.mul_add(sum_q, P2 * sum_p),
        Q3.mul_add(difference_q, P3.mul_add(difference_p, m[5])),
    ]
}

/// Along height, then along width: `N` by `N` numbers to `M` by `M`.
fn both<const N: usize, const M: usize>(
    x: impl Fn(usize, usize) -> f32,
    along: impl Fn([f32; N]) -> [f32; M],
) -> [[f32; M]; M] {
    let columns: [[f32; M]; N] =
        std::array::from_fn(|column| along(std::array::from_fn(|row| x(row, column))));
    std::array::from_fn(|row| along(std::array::from_fn(|column| columns[column][row])))
}

/// A convolution with outputs of `[frames, height, width]`. Every kernel is `[frames][3][3][channels]`, in F32 as stored;
/// sums run over frames and channels of a kernel, in the contract's segments.
pub fn filter(
    frames: &Frames<'_>,
    conv: &Conv,
    [count, height, width]: [usize; 3],
    kernels: &[Vec<f32>],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let channels = frames.shape[3];
    let inputs = conv.kernel[0] * channels;
    let kernels: Vec<Vec<[[f32; TILE_EDGE]; TILE_EDGE]>> = kernels
        .iter()
        .map(|kernel| {
            let weight = |i: usize, y: usize, x: usize| {
                kernel[((i / channels * 3 + y) * 3 + x) * channels + i % channels]
            };
            (0..inputs).map(|i| both(|y, x| weight(i, y, x), of_kernel)).collect()
        })
        .collect();
    let mut out = vec![0.0; count * height * width * kernels.len()];
    for t in 0..count {
        for (y, x) in
            (0..height).step_by(TILE_SIDE).flat_map(|y| (0..width).step_by(TILE_SIDE).map(move |x| (y, x)))
        {
            let tile: Vec<[[f32; TILE_EDGE]; TILE_EDGE]> = (0..inputs)
                .map(|i| {
                    let pixel = |row, column| {
                        frames.pixel(conv, [t + i / channels, y + row, x + column], i % channels)
                    };
                    both(pixel, of_inputs)
                })
                .collect();
            for (n, kernel) in kernels.iter().enumerate() {
                let product = |row: usize, column: usize| {
                    in_segments(inputs, 1, |sum, i| kernel[i][row][column].mul_add(tile[i][row][column], sum))
                };
                let tile = both(product, of_products);
                for (row, column) in
                    (0..TILE_SIDE).flat_map(|row| (0..TILE_SIDE).map(move |column| (row, column)))
                {
                    if y + row < height && x + column < width {
                        let value = tile[row][column];
                        let place = (t * height + y + row) * width + x + column;
                        out[place * kernels.len() + n] = bias.map_or(value, |bias| value + bias[n]);
                    }
                }
            }
        }
    }
    out
}
