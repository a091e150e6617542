//! Operators over given values: vectors for all rows, feature maps, grids.

use crate::{
    Builder, Conv, GraphError, GridRope, Input, Op, RelativeBias, Role, ScoreBias, Shape, Unfold, Value,
};

impl Builder {
    /// A value that is given at every run, of this shape.
    pub fn input_value(&self, name: &str, shape: &[usize]) -> Result<Value, GraphError> {
        if shape.len() < 2 || shape.contains(&0) {
            return Err(self.error("input", name, format!("{shape:?} is no shape of rows")));
        }
        if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_none_or(|n| n > isize::MAX as usize / 8)
        {
            return Err(self.error(
                "input",
                name,
                format!("a value of shape {shape:?} is beyond any memory"),
            ));
        }
        let mut inner = self.inner.borrow_mut();
        let place = inner.inputs.len();
        inner.inputs.push(Input { name: name.to_owned(), shape: shape.to_vec() });
        drop(inner);
        self.push(Op::Input(place), &[], Shape::fixed(shape))
    }

    /// The weight `name.weight` of shape `[width]` as a value `[1, width]`.
    pub fn parameter(&self, name: &str, width: usize) -> Result<Value, GraphError> {
        let weight = self.weight("parameter", name, "weight", &[width], Role::Vector)?;
        self.push(Op::Parameter { weight }, &[], Shape::fixed(&[1, width]))
    }

    /// `x + constant`.
    pub fn offset(&self, x: Value, constant: f32) -> Result<Value, GraphError> {
        self.unary(Op::Offset(constant), x)
    }

    /// `a * b + c`; `b` and `c` have the shape of `a`, or are one row for all of its rows.
    pub fn mul_add(&self, a: Value, b: Value, c: Value) -> Result<Value, GraphError> {
        let (shape, width) = self.input("mul_add", "", a)?;
        for other in [b, c] {
            let other = self.shape("mul_add", "", other)?;
            if other != shape && other != Shape::fixed(&[1, width]) {
                return Err(self.error(
                    "mul_add",
                    "",
                    format!("{other} is neither {shape} nor one row of it"),
                ));
            }
        }
        self.push(Op::MulAdd, &[a, b, c], shape)
    }

    /// `width` columns from `first` on.
    pub fn columns(&self, x: Value, first: usize, width: usize) -> Result<Value, GraphError> {
        let (shape, all) = self.input("columns", "", x)?;
        if shape.known_rows().is_none() {
            return Err(self.error("columns", "", format!("{shape} has rows that only a batch knows")));
        }
        if width == 0 || first.checked_add(width).is_none_or(|end| end > all) {
            return Err(self.error("columns", "", format!("{width} columns from {first} of {all}")));
        }
        self.push(Op::Columns(first), &[x], shape.with_width(width))
    }

    /// A timestep `t`, of shape `[1, 1]`, as `[1, width]`: cosines, then sines.
    pub fn timestep_embed(&self, t: Value, width: usize) -> Result<Value, GraphError> {
        let shape = self.shape("timestep_embed", "", t)?;
        if shape != Shape::fixed(&[1, 1]) || width == 0 || !width.is_multiple_of(2) {
            let reason = format!("{shape} is not one timestep, or a width of {width} is odd");
            return Err(self.error("timestep_embed", "", reason));
        }
        self.push(Op::TimestepEmbed, &[t], Shape::fixed(&[1, width]))
    }

    /// Rotates every head of rows that stand on a grid.
    pub fn grid_rope(&self, x: Value, rope: GridRope) -> Result<Value, GraphError> {
        let (shape, width) = self.input("grid_rope", "", x)?;
        let rows: Option<usize> = rope.grid.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if shape.known_rows().is_none() || shape.known_rows() != rows {
            let reason = format!("{shape} has not the rows of a grid of {:?}", rope.grid);
            return Err(self.error("grid_rope", "", reason));
        }
        let head = rope.head_dim();
        if head == 0 || !width.is_multiple_of(head) || rope.axes.iter().any(|n| !n.is_multiple_of(2)) {
            let reason = format!("a width of {width} has no heads that turn by {:?} elements", rope.axes);
            return Err(self.error("grid_rope", "", reason));
        }
        if !(rope.base > 0.0 && rope.base.is_finite()) {
            return Err(self.error("grid_rope", "", format!("base {} must be positive", rope.base)));
        }
        self.push(Op::GridRope(rope), &[x], shape)
    }

    /// The table `name.weight` of shape `[buckets, heads]` as a bias of attention.
    pub fn relative_bias(
        &self,
        name: &str,
        heads: usize,
        buckets: usize,
        max_distance: usize,
    ) -> Result<ScoreBias, GraphError> {
        if buckets == 0 || !buckets.is_multiple_of(4) || max_distance <= buckets / 4 {
            let reason = format!("{buckets} buckets for distances up to {max_distance}");
            return Err(self.error("attention", name, reason));
        }
        let table = self.weight("attention", name, "weight", &[buckets, heads], Role::Vector)?;
        Ok(ScoreBias::Relative(RelativeBias { table, buckets, max_distance }))
    }

    /// A convolution of a feature map `[frames, height, width, channels]`, with `name.weight` of shape `[outputs, channels,
    /// kernel…]`, and `name.bias` of shape `[outputs]` if `bias`.
    pub fn conv3d(
        &self,
        x: Value,
        name: &str,
        outputs: usize,
        conv: Conv,
        bias: bool,
    ) -> Result<Value, GraphError> {
        let [frames, height, width, channels] = self.feature_map("conv3d", name, x)?;
        let [kt, kh, kw] = conv.kernel;
        let Conv { stride, padding, upsample, carry, .. } = conv;
        if kt * kh * kw * stride * upsample == 0 || (carry && kt == 1) {
            return Err(self.error("conv3d", name, format!("{conv:?} has a size of 0 or carries nothing")));
        }
        let size = |n: usize, k: usize| (n * upsample + 2 * padding).checked_sub(k).map(|n| n / stride + 1);
        let (Some(out_height), Some(out_width)) = (size(height, kh), size(width, kw)) else {
            let reason = format!("a frame of {height} by {width} is smaller than the kernel {kh} by {kw}");
            return Err(self.error("conv3d", name, reason));
        };
        let weight = self.weight("conv3d", name, "weight", &[outputs, channels, kt, kh, kw], Role::Kernel)?;
        let bias = match bias {
            true => Some(self.weight("conv3d", name, "bias", &[outputs], Role::Vector)?),
            false => None,
        };
        let shape = Shape::fixed(&[frames, out_height, out_width, outputs]);
        self.push(Op::Conv3d { weight, bias, conv }, &[x], shape)
    }

    /// Channels to frames, rows and columns.
    pub fn unfold(&self, x: Value, unfold: Unfold) -> Result<Value, GraphError> {
        let [frames, height, width, channels] = self.feature_map("unfold", "", x)?;
        let Unfold { channels: outputs, time, space, strides, repeats, skip } = unfold;
        let ends = [outputs, time, space, space].map(|n| n.checked_sub(1));
        let last = ends.iter().zip(strides).try_fold(0, |sum, (end, stride)| Some(sum + (*end)? * stride));
        if last.is_none_or(|last| repeats == 0 || last / repeats >= channels) || skip >= frames * time {
            let reason = format!("{unfold:?} does not fit {channels} channels of {frames} frames");
            return Err(self.error("unfold", "", reason));
        }
        let shape = [frames * time - skip, height * space, width * space, outputs];
        self.push(Op::Unfold(unfold), &[x], Shape::fixed(&shape))
    }

    fn feature_map(&self, op: &'static str, name: &str, x: Value) -> Result<[usize; 4], GraphError> {
        let shape = self.shape(op, name, x)?;
        let dims = shape.known().and_then(|dims| <[usize; 4]>::try_from(dims).ok());
        dims.ok_or_else(|| {
            self.error(op, name, format!("{shape} is no feature map [frames, height, width, channels]"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attention, Value};

    fn map(g: &Builder, shape: [usize; 4]) -> Value {
        g.input_value("map", &shape).unwrap()
    }

    #[test]
    fn feature_maps_have_their_sizes() {
        let g = Builder::new();
        let x = map(&g, [2, 5, 7, 4]);
        let size = |value| g.shape("", "", value).unwrap().to_string();
        let y = g.conv3d(x, "conv", 6, Conv::same([3, 3, 3]), true).unwrap();
        assert_eq!(size(y), "[2, 5, 7, 6]");
        let y = g.conv3d(x, "up", 6, Conv { upsample: 2, ..Conv::same([1, 3, 3]) }, true).unwrap();
        assert_eq!(size(y), "[2, 10, 14, 6]");
        let y = g.conv3d(x, "patches", 6, Conv::patches(2), false).unwrap();
        assert_eq!(size(y), "[2, 2, 3, 6]");
        let unfold = Unfold { channels: 1, time: 2, space: 2, strides: [8, 4, 2, 1], repeats: 2, skip: 1 };
        assert_eq!(size(g.unfold(x, unfold).unwrap()), "[3, 10, 14, 1]");
        let e = g.conv3d(x, "conv2", 6, Conv { padding: 0, ..Conv::same([1, 9, 9]) }, true).unwrap_err();
        assert_eq!(e.to_string(), "conv3d `conv2`: a frame of 5 by 7 is smaller than the kernel 9 by 9");
        assert!(g.unfold(x, Unfold { channels: 2, ..unfold }).is_err());
        assert!(g.conv3d(g.columns(x, 1, 2).unwrap(), "conv", 6, Conv::same([3, 3, 3]), true).is_err());
    }

    #[test]
    fn one_row_serves_all() {
        let g = Builder::new();
        let x = map(&g, [1, 2, 3, 4]);
        let row = g.parameter("shift", 4).unwrap();
        let y = g.mul_add(x, g.offset(row, 1.0).unwrap(), row).unwrap();
        let e = g.mul_add(x, g.parameter("other", 3).unwrap(), row).unwrap_err();
        assert_eq!(e.to_string(), "mul_add: [1, 3] is neither [1, 2, 3, 4] nor one row of it");
        let graph = g.finish_all(&[y, row]).unwrap();
        assert_eq!((graph.outputs(), graph.inputs().len()), (&[y, row][..], 1));
    }

    #[test]
    fn given_rows_attend_to_other_rows() {
        let g = Builder::new();
        let (q, k) = (g.input_value("q", &[6, 8]).unwrap(), g.input_value("k", &[5, 8]).unwrap());
        let full = Attention::full(2, 2, 4);
        assert!(g.attention(q, k, k, Attention { bias: ScoreBias::LastKey(2.0), ..full }).is_ok());
        assert!(g.attention(q, k, k, Attention { sequences: 2, ..full }).is_err());
        assert!(g.attention(q, q, q, Attention { sequences: 2, ..full }).is_ok());
        assert!(g.attention(q, k, k, Attention::causal(2, 2, 4)).is_err());
        let tokens = g.embed("token_embd", 10, 8).unwrap();
        let picked = g.rows(tokens).unwrap();
        assert!(g.attention(picked, tokens, tokens, full).is_err());
        assert!(g.attention(tokens, picked, picked, full).is_err());
        let relative = g.relative_bias("bias", 2, 8, 16).unwrap();
        assert!(g.attention(q, q, q, Attention { bias: relative, ..full }).is_ok());
        assert!(g.attention(q, k, k, Attention { bias: relative, ..full }).is_err());
        assert!(g.columns(tokens, 0, 4).is_err());
        let e = g.attention(tokens, k, k, full).unwrap_err();
        assert_eq!(
            e.to_string(),
            "attention: queries, keys and values must all come from a batch, or none, in one sequence"
        );
        let rope = GridRope { grid: [1, 2, 3], axes: [2, 0, 2], base: 1e4 };
        assert_eq!(rope.place(5), [0, 1, 2]);
        assert!(g.grid_rope(q, rope).is_ok());
        assert!(g.grid_rope(k, rope).is_err());
    }

    #[test]
    fn distances_fall_into_buckets() {
        let bias = RelativeBias { table: crate::WeightId(0), buckets: 32, max_distance: 128 };
        // As T5's own code counts them.
        let expected =
            [(0, 0), (1, 17), (-1, 1), (7, 23), (8, 24), (15, 25), (16, 26), (-64, 14), (-91, 15), (500, 31)];
        for (distance, bucket) in expected {
            assert_eq!(bias.bucket(distance), bucket, "{distance}");
        }
    }
}
