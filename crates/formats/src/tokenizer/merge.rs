//! Merging neighbours until no pair is left that may merge: what byte pair encoding and SentencePiece's variant of it
//! share. They differ in which pairs may, and in which order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No symbol; also the id of a piece of text that is no token.
pub(super) const NONE: u32 = u32::MAX;

/// A piece of the text, linked to its neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// Where it begins; never changes.
    pub(super) start: u32,
    /// Its bytes; none once it was merged into the one before.
    pub(super) len: u32,
    /// Its token, or [`NONE`].
    pub(super) id: u32,
    prev: u32,
    next: u32,
}

/// A merge that was possible when it was found: the lowest key goes first, the leftmost of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    key: u32,
    left: u32,
    right: u32,
    /// Bytes of both; if these have changed, so has one of them.
    len: u32,
    id: u32,
}

/// Room for the work, kept between words.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Begins a new piece of text.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol behind the last.
    pub(super) fn push(&mut self, start: usize, len: usize, id: Option<u32>) {
        let index = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        self.symbols.push(Symbol {
            start: start as u32,
            len: len as u32,
            id: id.unwrap_or(NONE),
            prev: index.wrapping_sub(1),
            next: NONE,
        });
    }

    /// Merges what `find` says may be merged, as long as it says so of any two neighbours; it answers with a key, the
    /// lowest of which goes first, and the merged token. Returns the symbols that are left.
    pub(super) fn run(
        &mut self,
        find: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
    ) -> impl Iterator<Item = &Symbol> {
        for right in 1..self.symbols.len() as u32 {
            self.consider(right - 1, right, &find);
        }
        while let Some(Reverse(merge)) = self.queue.pop() {
            let (left, right) = (self.symbols[merge.left as usize], self.symbols[merge.right as usize]);
            if left.len == 0 || right.len == 0 || left.len + right.len != merge.len {
                continue;
            }
            let merged = &mut self.symbols[merge.left as usize];
            (merged.len, merged.id, merged.next) = (merge.len, merge.id, right.next);
            self.symbols[merge.right as usize].len = 0;
            if right.next != NONE {
                self.symbols[right.next as usize].prev = merge.left;
                self.consider(merge.left, right.next, &find);
            }
            if left.prev != NONE {
                self.consider(left.prev, merge.left, &find);
            }
        }
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    fn consider(&mut self, left: u32, right: u32, find: &impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let (first, second) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((key, id)) = find(first, second) {
            self.queue.push(Reverse(Candidate { key, left, right, len: first.len + second.len, id }));
        }
    }
}
