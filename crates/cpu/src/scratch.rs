//! A thread's working memory, allocated once.

use wushi_graph::Routing;

use crate::activations::{Activations, Packing};
use crate::kernels::{AttentionScratch, Output};
use crate::program::{Kind, Program};
use crate::weights::{SEGMENT, packing_of};

/// How many of a convolution's patches are computed together: a segment of them is half of a second-level cache.
pub(crate) const PATCH_ROWS: usize = 256;

/// What a thread works with besides the arena.
pub(crate) struct Scratch {
    pub(crate) attention: AttentionScratch,
    pub(crate) experts: ExpertLists,
    pub(crate) patches: Patches,
    pub(crate) tiles: Tiles,
}

/// Room for some tiles of a convolution by minimal filtering.
pub(crate) struct Tiles {
    pub(crate) inputs: Vec<f32>,
    pub(crate) products: Vec<f32>,
}

/// Room for a segment of the patches of some output positions of a convolution.
pub(crate) struct Patches {
    /// One row, or all of them where they are not packed.
    pub(crate) f32: Vec<f32>,
    packed: Vec<u32>,
}

impl Patches {
    /// The rows, of `width` elements each, in a form.
    pub(crate) fn activations(&mut self, packing: Packing, width: usize) -> Activations {
        // SAFETY: there is room for so many rows of any segment.
        unsafe {
            match packing {
                Packing::F32 => Activations::f32(self.f32.as_mut_ptr(), width, width),
                packing => Activations::packed(packing, self.packed.as_mut_ptr().cast(), width, PATCH_ROWS),
            }
        }
    }
}

/// How much of it a program needs.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ScratchSize {
    /// Elements of the widest head as stored.
    head: usize,
    /// Experts of the largest mixture.
    experts: usize,
    /// The most rows experts have in one step.
    slots: usize,
    /// Elements of [`Patches::f32`] and [`Patches::packed`].
    patches: [usize; 2],
    /// Elements of [`Tiles::inputs`] and [`Tiles::products`].
    tiles: [usize; 2],
}

impl ScratchSize {
    /// For batches of up to `rows` rows, BF16 being multiplied in pairs or not.
    pub(crate) fn of(program: &Program, rows: usize, pairs: bool) -> Self {
        let routings = program.steps.iter().filter_map(|step| match step.kind {
            Kind::ExpertLinear { routing, .. } => Some(routing),
            _ => None,
        });
        let mut size = ScratchSize::default();
        let heads = program.attention_kinds.iter().chain(program.attends.iter().map(|attend| &attend.heads));
        size.head = heads.map(|heads| heads.padded).max().unwrap_or(0);
        for step in &program.steps {
            if let Kind::Conv(conv) = &step.kind {
                if conv.filters.is_some() {
                    let needed = conv.filtering().scratch();
                    size.tiles = std::array::from_fn(|i| size.tiles[i].max(needed[i]));
                    continue;
                }
                let width = conv.patch().min(SEGMENT);
                let needed = match packing_of(conv.dtype, pairs) {
                    Packing::F32 => [PATCH_ROWS * width, 0],
                    packing => [width, Activations::bytes(packing, width, PATCH_ROWS).div_ceil(4)],
                };
                size.patches = std::array::from_fn(|i| size.patches[i].max(needed[i]));
            }
        }
        for Routing { experts, used, .. } in routings {
            size.experts = size.experts.max(experts);
            size.slots = size.slots.max(used * rows);
        }
        size
    }

    /// What serves both.
    pub(crate) fn max(self, other: ScratchSize) -> ScratchSize {
        ScratchSize {
            head: self.head.max(other.head),
            experts: self.experts.max(other.experts),
            slots: self.slots.max(other.slots),
            patches: std::array::from_fn(|i| self.patches[i].max(other.patches[i])),
            tiles: std::array::from_fn(|i| self.tiles[i].max(other.tiles[i])),
        }
    }

    /// Bytes it takes.
    pub(crate) fn bytes(self) -> usize {
        let floats: usize = self.patches.iter().chain(&self.tiles).sum();
        AttentionScratch::bytes(self.head) + 4 * (self.experts + 1 + self.slots + floats)
    }
}

impl Scratch {
    pub(crate) fn new(size: ScratchSize) -> Self {
        Scratch {
            attention: AttentionScratch::new(size.head),
            experts: ExpertLists {
                ends: Vec::with_capacity(size.experts + 1),
                slots: Vec::with_capacity(size.slots),
            },
            patches: Patches { f32: vec![0.0; size.patches[0]], packed: vec![0; size.patches[1]] },
            tiles: Tiles { inputs: vec![0.0; size.tiles[0]], products: vec![0.0; size.tiles[1]] },
        }
    }
}

/// Which slots (a token's expert of some rank) each expert computes.
pub(crate) struct ExpertLists {
    /// Where each expert's slots end; the first entry is where the first one's begin.
    ends: Vec<u32>,
    slots: Vec<u32>,
}

impl ExpertLists {
    /// Sorts the slots of `tokens` rows of routes by expert.
    ///
    /// # Safety
    /// The rows were written by the routing kernel.
    pub(crate) unsafe fn fill(&mut self, routes: Output, routing: &Routing, tokens: usize) {
        let expert = |slot: usize| {
            let (row, rank) = (slot / routing.used, slot % routing.used);
            // SAFETY: a row of routes has `used` weights, then as many experts.
            unsafe { (*routes.base.add(row * routes.stride + routing.used + rank)).to_bits() as usize }
        };
        let slots = tokens * routing.used;
        self.ends.clear();
        self.ends.resize(routing.experts + 1, 0);
        (0..slots).for_each(|slot| self.ends[expert(slot) + 1] += 1);
        // From counts to starts, which become ends as the slots are put in.
        (1..routing.experts).for_each(|e| self.ends[e + 1] += self.ends[e]);
        self.ends.copy_within(..routing.experts, 1);
        self.ends[0] = 0;
        self.slots.clear();
        self.slots.resize(slots, 0);
        for slot in 0..slots {
            let end = &mut self.ends[expert(slot) + 1];
            self.slots[*end as usize] = slot as u32;
            *end += 1;
        }
    }

    /// Experts that have slots, with them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &[u32])> {
        let ranges = self.ends.windows(2).map(|ends| ends[0] as usize..ends[1] as usize);
        ranges.enumerate().filter(|(_, range)| !range.is_empty()).map(|(e, range)| (e, &self.slots[range]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_with_its_expert() {
        let routing = Routing { experts: 5, used: 2, normalise: false };
        // Weights, then experts, then padding to a stride of 6.
        let chosen = [[3u32, 0], [0, 4], [3, 4]];
        let mut rows: Vec<f32> = chosen
            .iter()
            .flat_map(|e| [0.5, 0.5, f32::from_bits(e[0]), f32::from_bits(e[1]), 9.0, 9.0])
            .collect();
        let mut lists = ExpertLists { ends: Vec::new(), slots: Vec::new() };
        for _ in 0..2 {
            // SAFETY: three rows as described.
            unsafe { lists.fill(Output { base: rows.as_mut_ptr(), stride: 6 }, &routing, 3) };
            let found: Vec<(usize, Vec<u32>)> = lists.iter().map(|(e, slots)| (e, slots.to_vec())).collect();
            assert_eq!(found, [(0, vec![1, 2]), (3, vec![0, 4]), (4, vec![3, 5])]);
        }
    }
}
