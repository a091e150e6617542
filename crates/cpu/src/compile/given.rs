//! Lowering what belongs to graphs over given values: inputs, rows for all rows, feature maps, attention within a run.

use wushi_graph::{Op, Value};

use super::Lowering;
use crate::activations::Packing;
use crate::kernels::Heads;
use crate::program::{Attend, Carried, Convolution, Kind, Rows, Then};
use crate::reference::is_filtered;
use crate::simd::PANEL;

impl Lowering<'_> {
    pub(super) fn lower_given(&mut self, value: Value) {
        let node = self.graph.node(value);
        let inputs: Vec<_> = node.inputs.iter().map(|&input| self.operand(input)).collect();
        let out = self.define(value);
        let kind = match node.op {
            Op::Input(place) => {
                debug_assert_eq!(
                    place,
                    self.program.given.len(),
                    "inputs are nodes in the order of declaration"
                );
                self.program.given.push(out);
                return;
            }
            Op::Parameter { weight } => Kind::Parameter { weight, out },
            Op::Columns(first) => Kind::Columns { x: inputs[0], first, out },
            Op::MulAdd => Kind::MulAdd { a: inputs[0], b: inputs[1], c: inputs[2], out },
            Op::TimestepEmbed => Kind::TimestepEmbed { x: inputs[0], out },
            Op::Unfold(unfold) => {
                Kind::Unfold { x: inputs[0], input: self.feature_map(node.inputs[0]), unfold, out }
            }
            _ => unreachable!("called for these operators"),
        };
        self.push(value, kind);
    }

    pub(super) fn lower_conv(&mut self, value: Value) {
        let node = self.graph.node(value);
        let Op::Conv3d { weight, bias, conv } = node.op else { unreachable!("called for convolutions") };
        let input = self.feature_map(node.inputs[0]);
        let (_, result, then) = self.residual(value).unwrap_or((value, value, Then::Store));
        self.done[value.index()] = true;
        self.done[result.index()] = true;
        let x = self.operand(node.inputs[0]);
        let carried = conv.carry.then(|| {
            let [_, height, width, channels] = input;
            let name = self.graph.weight(weight).name.clone();
            self.program.carried.push(Carried { name, shape: [conv.kernel[0] - 1, height, width, channels] });
            self.program.carried.len() - 1
        });
        let (output, out) = (self.feature_map(value), self.define(result));
        let (dtype, filters) = (self.dtypes[weight.index()], None);
        let mut conv =
            Convolution { conv, weight, bias, dtype, input, output, x, out, then, carried, filters };
        if is_filtered(&conv.conv) {
            let (sizes, panels) = (conv.filtering(), Rows::Fixed(output[3].div_ceil(PANEL)));
            let out = self.buffer(Packing::Bytes, panels, 4 * sizes.panel_elements());
            conv.filters = Some(out);
            self.push(value, Kind::Filters { weight, sizes, out });
            self.program.steps.last_mut().expect("just pushed").rows = panels;
        }
        let items = conv.items();
        self.push(value, Kind::Conv(conv));
        self.program.steps.last_mut().expect("just pushed").rows = Rows::Fixed(items);
        if let Some(carried) = carried {
            self.push(value, Kind::Carry { x, carried, frames: input[0] });
            let rows = Rows::Fixed(input[1] * input[2]);
            self.program.steps.last_mut().expect("just pushed").rows = rows;
        }
    }

    pub(super) fn lower_attend(&mut self, value: Value) {
        let node = self.graph.node(value);
        let Op::Attention(attention) = node.op else { unreachable!("called for attention") };
        let rows =
            |value| self.graph.node(value).shape.known_rows().expect("checked when the graph was built");
        let [queries, keys] = [0, 1].map(|i| rows(node.inputs[i]) / attention.sequences);
        let bias = self.bias(attention.bias, attention.heads, keys);
        let attend = Attend { heads: Heads::new(attention), queries, keys, bias };
        let [q, k, v] = [0, 1, 2].map(|i| self.operand(node.inputs[i]));
        let count = attend.pages() * attention.sequences;
        let width = attend.heads.page_bytes(self.target.cache);
        let pages = self.buffer(Packing::Bytes, Rows::Fixed(count), width);
        let place = self.program.attends.len();
        self.program.attends.push(attend);
        self.push(value, Kind::Keep { attend: place, k, v, pages });
        self.program.steps.last_mut().expect("just pushed").rows = self.rows_of(node.inputs[1]);
        let out = self.define(value);
        self.push(value, Kind::Attend { attend: place, q, pages, out });
    }

    fn feature_map(&self, value: Value) -> [usize; 4] {
        let dims = self.graph.node(value).shape.known().and_then(|dims| <[usize; 4]>::try_from(dims).ok());
        dims.expect("checked when the graph was built")
    }
}
