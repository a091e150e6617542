//! Texts with parts from strangers: where special tokens are in them, names of control tokens in those parts aside.

use std::ops::Range;

use super::special::SpecialTokens;

type Found = (Range<usize>, u32);

/// Finds tokens as [`SpecialTokens::find`] does, the leftmost and the longest of those, but control tokens only outside
/// the literal parts of a text.
pub(super) struct Guarded<'a> {
    text: &'a str,
    all: &'a SpecialTokens,
    user_defined: &'a SpecialTokens,
    /// What lies between literal parts, in order, those that are done with left out.
    free: std::vec::IntoIter<Range<usize>>,
    gap: Range<usize>,
    /// The next token of each kind, if it has been looked for; none is left where the search found none.
    in_gap: Option<Option<Found>>,
    anywhere: Option<Option<Found>>,
    at: usize,
}

impl<'a> Guarded<'a> {
    /// `literal` in any order; what lies outside the text has no effect.
    pub(super) fn new(
        text: &'a str,
        literal: &[Range<usize>],
        all: &'a SpecialTokens,
        user_defined: &'a SpecialTokens,
    ) -> Guarded<'a> {
        let mut free = free_parts(text.len(), literal).into_iter();
        let gap = free.next().unwrap_or(0..0);
        Guarded { text, all, user_defined, free, gap, in_gap: None, anywhere: None, at: 0 }
    }

    /// The next token that lies within one gap.
    fn search_gaps(&mut self) -> Option<Found> {
        loop {
            let from = self.at.max(self.gap.start);
            if from < self.gap.end
                && let Some(found) = self.all.find_in(self.text, from..self.gap.end)
            {
                return Some(found);
            }
            self.gap = self.free.next()?;
        }
    }
}

impl Iterator for Guarded<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        // What was found holds until something before it reaches into it.
        let is_stale = |found: &Option<Found>| found.as_ref().is_some_and(|(place, _)| place.start < self.at);
        self.in_gap = self.in_gap.take().filter(|found| !is_stale(found));
        self.anywhere = self.anywhere.take().filter(|found| !is_stale(found));
        if self.in_gap.is_none() {
            self.in_gap = Some(self.search_gaps());
        }
        if self.anywhere.is_none() {
            self.anywhere = Some(self.user_defined.find_in(self.text, self.at..self.text.len()));
        }
        let found = [&self.in_gap, &self.anywhere].into_iter().flatten().flatten();
        let first = found.min_by_key(|(place, _)| (place.start, std::cmp::Reverse(place.end))).cloned()?;
        self.at = first.0.end;
        Some(first)
    }
}

/// What of `0..len` no literal part covers, in order.
fn free_parts(len: usize, literal: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut literal: Vec<_> = literal.iter().filter(|part| part.start < part.end).collect();
    literal.sort_unstable_by_key(|part| part.start);
    let (mut free, mut start) = (Vec::new(), 0);
    for part in literal {
        if start < part.start.min(len) {
            free.push(start..part.start.min(len));
        }
        start = start.max(part.end);
    }
    if start < len {
        free.push(start..len);
    }
    free
}

#[cfg(test)]
mod tests {
    use super::free_parts;

    #[test]
    fn parts_in_any_order_leave_the_rest() {
        assert_eq!(free_parts(10, &[7..9, 2..4, 3..5, 4..4, 12..20]), [0..2, 5..7, 9..10]);
        assert_eq!(free_parts(10, &[5..8, 0..3, 1..2, 9..usize::MAX]), [3..5, 8..9]);
        assert!(free_parts(10, std::slice::from_ref(&(0..10))).is_empty());
        assert_eq!(free_parts(3, &[]), std::slice::from_ref(&(0..3)));
        assert!(free_parts(0, &[]).is_empty());
    }
}
