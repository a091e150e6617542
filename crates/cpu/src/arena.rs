//! Laying out buffers: two share memory when no two phases between barriers need both.

use crate::program::{Buffer, BufferId, Step};

/// Sets every buffer's offset and returns the arena's size in bytes. Those `given` are written before the first step, those
/// of `keep` stay valid after the last one.
pub(crate) fn lay_out(
    steps: &[Step],
    buffers: &mut [Buffer],
    given: &[BufferId],
    keep: &[BufferId],
) -> usize {
    // Threads may be at different steps of one phase, so lifetimes are counted in phases.
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; buffers.len()];
    given.iter().for_each(|id| lives[id.0] = Some((0, 0)));
    let mut phase = 0;
    for step in steps {
        phase += usize::from(step.barrier);
        for id in step.kind.buffers() {
            let life = lives[id.0].get_or_insert((phase, phase));
            life.1 = phase;
        }
    }
    for id in keep {
        if let Some(life) = &mut lives[id.0] {
            life.1 = usize::MAX;
        }
    }
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&i| lives[i].is_some()).collect();
    // Largest first packs best; ties by index keep the layout a pure function of the schedule.
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].bytes()), i));
    let mut placed: Vec<usize> = Vec::new();
    let mut size = 0;
    for i in order {
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&j| overlap(lives[i], lives[j]))
            .map(|&j| (buffers[j].offset, buffers[j].offset + buffers[j].bytes()))
            .collect();
        taken.sort_unstable();
        let bytes = buffers[i].bytes();
        let mut offset = 0;
        for (from, to) in taken {
            if offset + bytes <= from {
                break;
            }
            offset = offset.max(to);
        }
        buffers[i].offset = offset;
        size = size.max(offset + bytes);
        placed.push(i);
    }
    size
}

fn overlap(a: Option<(usize, usize)>, b: Option<(usize, usize)>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::Packing;
    use crate::program::{Kind, Rows};

    #[test]
    fn buffers_share_memory_only_across_phases() {
        let buffer = Buffer { packing: Packing::F32, rows: Rows::Tokens, width: 16, offset: 0, capacity: 4 };
        let mut buffers = vec![buffer; 4];
        let copy = |x, out, barrier| Step {
            kind: Kind::Copy { x: BufferId(x), out: BufferId(out) },
            rows: Rows::Tokens,
            block: String::new(),
            barrier,
        };
        // 0 dies in the phase in which 2 is born, 1 and 2 live together, 3 comes a phase later.
        let steps = [copy(0, 1, true), copy(1, 2, false), copy(2, 3, true)];
        let size = lay_out(&steps, &mut buffers, &[], &[BufferId(3)]);
        let bytes = buffers[0].bytes();
        assert_eq!(size, 3 * bytes);
        for (a, b) in [(0, 1), (0, 2), (1, 2), (2, 3)] {
            assert_ne!(buffers[a].offset, buffers[b].offset, "{a} and {b}");
        }
    }
}
