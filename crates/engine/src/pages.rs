//! Who holds which page of keys and values, and which pages a new prompt can take over.
//!
//! A full page's *prefix* is the BLAKE3 hash of the page before and of its own token ids, so it stands for
//! every token from the sequence's start: equal prefixes mean equal keys and values. At 32 bytes a collision
//! is out of the question. Only full pages are shared; they are never written again.

use std::collections::{BTreeMap, HashMap};

use wushi_graph::PageId;

/// Stands for all tokens up to a page's end.
pub(crate) type Prefix = [u8; 32];

/// The prefix of a page of `tokens` that follows `before`.
pub(crate) fn prefix(before: Option<&Prefix>, tokens: &[u32]) -> Prefix {
    let mut hasher = blake3::Hasher::new();
    // Without a page before: zeros, which no hash is.
    hasher.update(before.unwrap_or(&[0; 32]));
    tokens.iter().for_each(|token| {
        hasher.update(&token.to_le_bytes());
    });
    hasher.finalize().into()
}

/// All pages. Each is free, held by at least one sequence, or cached: held by none but with contents worth
/// keeping until the room is needed.
pub(crate) struct PagePool {
    pages: Vec<Page>,
    free: Vec<PageId>,
    /// Cached pages by when they were given back; the first goes first.
    cached: BTreeMap<u64, PageId>,
    /// Published pages, held or cached.
    published: HashMap<Prefix, PageId>,
    /// Counts what was given back.
    clock: u64,
}

#[derive(Clone, Default)]
struct Page {
    holders: u32,
    prefix: Option<Prefix>,
    /// The page's place in `cached`, if it is there.
    given_back: u64,
}

impl PagePool {
    pub(crate) fn new(pages: usize) -> Self {
        PagePool {
            pages: vec![Page::default(); pages],
            // Low numbers first, from the end.
            free: (0..pages as PageId).rev().collect(),
            cached: BTreeMap::new(),
            published: HashMap::new(),
            clock: 0,
        }
    }

    /// Pages that `allocate` can still give out.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.cached.len()
    }

    /// Pages without contents.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Pages with contents that none holds.
    pub(crate) fn cached(&self) -> usize {
        self.cached.len()
    }

    /// Takes an empty page; the least recently used cached one makes room if it must.
    pub(crate) fn allocate(&mut self) -> Option<PageId> {
        let id = self.free.pop().or_else(|| {
            let (_, id) = self.cached.pop_first()?;
            if let Some(prefix) = self.pages[id as usize].prefix.take() {
                self.published.remove(&prefix);
            }
            Some(id)
        })?;
        self.pages[id as usize].holders = 1;
        Some(id)
    }

    /// Whether a page is published under `prefix`: `Some(true)` if it counts as available, since none holds it.
    pub(crate) fn peek(&self, prefix: &Prefix) -> Option<bool> {
        let id = *self.published.get(prefix)?;
        Some(self.pages[id as usize].holders == 0)
    }

    /// Takes the page that was published under `prefix`.
    pub(crate) fn share(&mut self, prefix: &Prefix) -> Option<PageId> {
        let id = *self.published.get(prefix)?;
        let page = &mut self.pages[id as usize];
        if page.holders == 0 {
            self.cached.remove(&page.given_back);
        }
        page.holders += 1;
        Some(id)
    }

    /// Offers a page, now full, to prompts that begin alike. If another page is known by that prefix already,
    /// this one stays private.
    pub(crate) fn publish(&mut self, id: PageId, prefix: Prefix) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.published.entry(prefix) {
            entry.insert(id);
            self.pages[id as usize].prefix = Some(prefix);
        }
    }

    /// Gives back a sequence's pages, in the sequence's order.
    ///
    /// The last page counts as the least recently used: without those before it, it would be of no use.
    pub(crate) fn give_back(&mut self, pages: &mut Vec<PageId>) {
        for id in pages.drain(..).rev() {
            let page = &mut self.pages[id as usize];
            page.holders -= 1;
            if page.holders > 0 {
                continue;
            }
            if page.prefix.is_some() {
                self.clock += 1;
                page.given_back = self.clock;
                self.cached.insert(self.clock, id);
            } else {
                self.free.push(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGES: usize = 7;
    const PAGE_TOKENS: usize = 2;

    /// A sequence of the model: the tokens its pages should hold.
    struct Holder {
        tokens: Vec<u32>,
        pages: Vec<PageId>,
    }

    #[derive(Clone, Debug)]
    enum Op {
        /// Begins a sequence with these full pages' tokens.
        Begin(Vec<[u32; PAGE_TOKENS]>),
        /// Ends the sequence of this index.
        End(prop::sample::Index),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => prop::collection::vec(prop::array::uniform2(0u32..2), 0..5).prop_map(Op::Begin),
            1 => any::<prop::sample::Index>().prop_map(Op::End),
        ]
    }

    fn check(pool: &PagePool, holders: &[Holder], contents: &[Vec<u32>]) {
        let mut held = vec![0; PAGES];
        for holder in holders {
            for (index, &page) in holder.pages.iter().enumerate() {
                held[page as usize] += 1;
                // What a page holds is all the tokens up to its end: sharing never mixes prefixes.
                assert_eq!(contents[page as usize], holder.tokens[..(index + 1) * PAGE_TOKENS]);
            }
        }
        let holder_counts: Vec<u32> = pool.pages.iter().map(|page| page.holders).collect();
        assert_eq!(holder_counts, held);
        let mut idle: Vec<PageId> = pool.free.iter().chain(pool.cached.values()).copied().collect();
        idle.sort_unstable();
        let expected: Vec<PageId> = (0..PAGES as PageId).filter(|&page| held[page as usize] == 0).collect();
        assert_eq!(idle, expected, "every page is held, cached or free, and only one of them");
        assert!(pool.cached.values().all(|&page| pool.pages[page as usize].prefix.is_some()));
        for (prefix, &page) in &pool.published {
            assert_eq!(pool.pages[page as usize].prefix.as_ref(), Some(prefix));
        }
        assert_eq!(pool.published.len(), pool.pages.iter().filter(|page| page.prefix.is_some()).count());
    }

    proptest! {
        #[test]
        fn pages_are_never_mixed_up_or_lost(ops in prop::collection::vec(op(), 0..60)) {
            let mut pool = PagePool::new(PAGES);
            let mut holders: Vec<Holder> = Vec::new();
            let mut contents = vec![Vec::new(); PAGES];
            for op in ops {
                match op {
                    Op::Begin(pages) => {
                        let tokens = pages.concat();
                        let mut holder = Holder { tokens, pages: Vec::new() };
                        let mut before = None;
                        let mut prefixes = Vec::new();
                        for chunk in holder.tokens.chunks(PAGE_TOKENS) {
                            before = Some(prefix(before.as_ref(), chunk));
                            prefixes.extend(before);
                        }
                        for known in &prefixes {
                            let Some(page) = pool.share(known) else { break };
                            holder.pages.push(page);
                        }
                        let missing = prefixes.len() - holder.pages.len();
                        if pool.available() < missing {
                            pool.give_back(&mut holder.pages);
                        } else {
                            for (index, &prefix) in prefixes.iter().enumerate().skip(holder.pages.len()) {
                                let page = pool.allocate().unwrap();
                                contents[page as usize] = holder.tokens[..(index + 1) * PAGE_TOKENS].to_vec();
                                pool.publish(page, prefix);
                                holder.pages.push(page);
                            }
                            holders.push(holder);
                        }
                    }
                    Op::End(index) => if !holders.is_empty() {
                        let mut holder = holders.swap_remove(index.index(holders.len()));
                        pool.give_back(&mut holder.pages);
                    }
                }
                check(&pool, &holders, &contents);
            }
        }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_ends_before_beginnings() {
        let mut pool = PagePool::new(3);
        let first = prefix(None, &[1, 2]);
        let second = prefix(Some(&first), &[3, 4]);
        let other = prefix(None, &[5, 6]);
        let mut pages: Vec<PageId> = (0..2).map(|_| pool.allocate().unwrap()).collect();
        pool.publish(pages[0], first);
        pool.publish(pages[1], second);
        let mut others = vec![pool.allocate().unwrap()];
        pool.publish(others[0], other);
        assert_eq!(pool.allocate(), None);
        pool.give_back(&mut others);
        pool.give_back(&mut pages);
        assert_eq!((pool.free(), pool.cached(), pool.available()), (0, 3, 3));
        // A use makes `other` the most recent again.
        let mut others = vec![pool.share(&other).unwrap()];
        pool.give_back(&mut others);
        pool.allocate().unwrap();
        assert!(pool.published.contains_key(&first) && !pool.published.contains_key(&second));
        pool.allocate().unwrap();
        assert!(!pool.published.contains_key(&first) && pool.published.contains_key(&other));
    }

    #[test]
    fn a_prefix_depends_on_everything_before_it() {
        let (a, b) = (prefix(None, &[1, 2]), prefix(None, &[2, 1]));
        assert_ne!(a, b);
        assert_ne!(prefix(Some(&a), &[3, 4]), prefix(Some(&b), &[3, 4]));
        assert_ne!(prefix(None, &[1, 2]), prefix(Some(&a), &[1, 2]));
    }
}
