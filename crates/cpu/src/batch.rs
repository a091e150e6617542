//! What of a step depends on the batch: whether it may run, where its rows stand, who attends to what.

use wushi_graph::{Batch, ExecError, ExecutorInfo, Mask, PageId};

use crate::kernels::{AttentionItem, PAGE_TOKENS, QUERY_TILE};
use crate::program::Program;

/// Refuses a batch that breaks the rules of [`Batch`].
fn check_rows(batch: &Batch, info: &ExecutorInfo, table_rows: usize) -> Result<(), ExecError> {
    let fail = |what: String| Err(ExecError::InvalidBatch(what));
    let rows = batch.tokens.len();
    if rows == 0 || rows > info.max_rows {
        return fail(format!("{rows} rows; there must be 1 to {}", info.max_rows));
    }
    if batch.logit_rows.len() > info.max_logit_rows {
        return fail(format!("logits of {} rows; at most {}", batch.logit_rows.len(), info.max_logit_rows));
    }
    for (what, wanted) in [("logit", &batch.logit_rows), ("state", &batch.state_rows)] {
        if wanted.last().is_some_and(|&row| row >= rows) || !wanted.is_sorted_by(|a, b| a < b) {
            return fail(format!("{what} rows must be ascending rows of the batch"));
        }
    }
    if let Some(row) = batch.state_rows.iter().find(|row| batch.logit_rows.binary_search(row).is_ok()) {
        return fail(format!("row {row} wants both logits and its state"));
    }
    if let Some(token) = batch.tokens.iter().find(|&&token| token as usize >= table_rows) {
        return fail(format!("token {token} is beyond the embedding table's {table_rows} rows"));
    }
    if let Some(page) = batch.pages.iter().find(|&&page| page as usize >= info.pages) {
        return fail(format!("page {page} of {}", info.pages));
    }
    let mut row = 0;
    for span in &batch.spans {
        if span.rows.start != row || span.rows.is_empty() || span.rows.end > rows {
            return fail(format!("span over rows {:?} does not follow row {row}", span.rows));
        }
        row = span.rows.end;
        let end = span.start + span.rows.len();
        if end > info.context {
            return fail(format!("position {end} is beyond the context of {}", info.context));
        }
        if span.pages.end > batch.pages.len() || span.pages.len() * PAGE_TOKENS < end {
            return fail(format!("{} pages cannot hold {end} positions", span.pages.len()));
        }
    }
    match row == rows {
        true => Ok(()),
        false => fail(format!("spans cover {row} of {rows} rows")),
    }
}

/// Refuses batches that break the rules of [`Batch`].
pub(crate) struct BatchChecks {
    /// By page: which span of the current batch writes it, counted over all batches from 1 on.
    writer: Vec<u64>,
    /// Spans of all batches so far.
    spans: u64,
    /// Whether tokens see what comes after them, so that a sequence must come whole.
    whole: bool,
    has_states: bool,
}

impl BatchChecks {
    pub(crate) fn new(pages: usize, program: &Program) -> Self {
        let whole = program.attention_kinds.iter().any(|heads| heads.attention.mask == Mask::Full);
        BatchChecks { writer: vec![0; pages], spans: 0, whole, has_states: program.states.is_some() }
    }

    /// Whether a sequence must come whole.
    pub(crate) fn whole(&self) -> bool {
        self.whole
    }

    /// An error if the batch must not run. `table_rows` is what token ids must be below.
    pub(crate) fn check(
        &mut self,
        batch: &Batch,
        info: &ExecutorInfo,
        table_rows: usize,
    ) -> Result<(), ExecError> {
        check_rows(batch, info, table_rows)?;
        if self.whole && batch.spans.iter().any(|span| span.start != 0) {
            let what = "a sequence whose tokens see what comes after them must be computed in one step";
            return Err(ExecError::InvalidBatch(what.into()));
        }
        if !self.has_states && !batch.state_rows.is_empty() {
            let what = "states are wanted, but the model does not say which of its values these are";
            return Err(ExecError::InvalidBatch(what.into()));
        }
        let before = self.spans;
        self.spans += batch.spans.len() as u64;
        let twice = |page: PageId| {
            Err(ExecError::InvalidBatch(format!(
                "page {page} is written, and stands in a table a second time"
            )))
        };
        for (span, id) in batch.spans.iter().zip(before + 1..) {
            let end = span.start + span.rows.len();
            for &page in &batch.pages[span.pages.clone()][span.start / PAGE_TOKENS..end.div_ceil(PAGE_TOKENS)]
            {
                if self.writer[page as usize] > before {
                    return twice(page);
                }
                self.writer[page as usize] = id;
            }
        }
        // What one span writes, no other may read in the same step: there is no order between them.
        for (span, id) in batch.spans.iter().zip(before + 1..) {
            let end = span.start + span.rows.len();
            for (i, &page) in batch.pages[span.pages.clone()][..end.div_ceil(PAGE_TOKENS)].iter().enumerate()
            {
                let writer = self.writer[page as usize];
                if writer > before && (writer != id || i < span.start / PAGE_TOKENS) {
                    return twice(page);
                }
            }
        }
        Ok(())
    }
}

/// Where a row stands in its sequence.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) position: usize,
    pub(crate) page: PageId,
    pub(crate) slot: usize,
}

/// What of a step depends on the batch: a pure function of it, in memory that is allocated once.
pub(crate) struct StepData {
    places: Vec<Place>,
    /// By kind of attention.
    attention: Vec<AttentionWork>,
    threads: usize,
}

#[derive(Default)]
struct AttentionWork {
    items: Vec<AttentionItem>,
    /// Where each thread's items end.
    ends: Vec<usize>,
}

impl StepData {
    /// For programs that run no batches.
    pub(crate) fn none() -> Self {
        StepData { places: Vec::new(), attention: Vec::new(), threads: 1 }
    }

    pub(crate) fn new(program: &Program, max_rows: usize, threads: usize) -> Self {
        let attention = program.attention_kinds.iter().map(|heads| AttentionWork {
            items: Vec::with_capacity(max_rows * heads.attention.kv_heads),
            ends: Vec::with_capacity(threads),
        });
        StepData { places: Vec::with_capacity(max_rows), attention: attention.collect(), threads }
    }

    /// Where a row of the batch stands.
    pub(crate) fn place(&self, row: usize) -> Place {
        self.places[row]
    }

    /// A thread's share of the attention layers of one kind.
    pub(crate) fn attention_items(&self, kind: usize, thread: usize) -> &[AttentionItem] {
        let AttentionWork { items, ends } = &self.attention[kind];
        let from = if thread == 0 { 0 } else { ends[thread - 1] };
        &items[from..ends[thread]]
    }

    /// Fills in the batch.
    pub(crate) fn plan(&mut self, batch: &Batch, program: &Program) {
        self.places.clear();
        for span in &batch.spans {
            for position in span.start..span.start + span.rows.len() {
                let page = batch.pages[span.pages.start + position / PAGE_TOKENS];
                self.places.push(Place { position, page, slot: position % PAGE_TOKENS });
            }
        }
        for (work, heads) in self.attention.iter_mut().zip(&program.attention_kinds) {
            work.items.clear();
            for kv_head in 0..heads.attention.kv_heads {
                for span in &batch.spans {
                    for row in span.rows.clone().step_by(QUERY_TILE) {
                        work.items.push(AttentionItem {
                            row,
                            rows: QUERY_TILE.min(span.rows.end - row),
                            position: span.start + (row - span.rows.start),
                            length: span.start + span.rows.len(),
                            table: span.pages.start,
                            kv_head,
                        });
                    }
                }
            }
            let threads = self.threads;
            // Keys seen times rows, plus a little for what every item costs.
            let cost = |item: &AttentionItem| {
                let last = item.position + item.rows - 1;
                item.rows * (heads.visible(last, item.length).len() + 64)
            };
            let total: usize = work.items.iter().map(cost).sum();
            work.ends.clear();
            let (mut item, mut spent) = (0, 0);
            for thread in 1..=threads {
                while item < work.items.len() && spent < total * thread / threads {
                    spent += cost(&work.items[item]);
                    item += 1;
                }
                work.ends.push(item);
            }
        }
    }
}
