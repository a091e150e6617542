//! The seam between an engine and an executor.
//!
//! The engine holds page *numbers*; the executor owns the bytes behind them. A model's graph never mentions
//! a cache: an executor lowers `attention` onto pages by itself.

use std::fmt;
use std::ops::Range;

/// In what type keys and values are kept between steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheType {
    /// Exact.
    F32,
    /// Rounded to nearest even: half the memory, the default.
    F16,
    /// Signed bytes; every [`CacheType::BLOCK`] elements of a head share an F16 scale. A quarter of the memory and a bit.
    Q8_0,
}

impl CacheType {
    /// All of them, the default first.
    pub const ALL: [CacheType; 3] = [CacheType::F16, CacheType::F32, CacheType::Q8_0];

    /// Elements of a head that share a scale; a last block may be shorter.
    pub const BLOCK: usize = 32;

    /// Bytes of one head's key or value of so many elements.
    pub const fn bytes(self, elements: usize) -> usize {
        match self {
            CacheType::F32 => 4 * elements,
            CacheType::F16 => 2 * elements,
            CacheType::Q8_0 => elements + 2 * elements.div_ceil(Self::BLOCK),
        }
    }

    /// The name on the command line: `f32`, `f16` or `q8_0`.
    pub const fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Q8_0 => "q8_0",
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Number of a page of keys and values (all layers), `0..pages`.
pub type PageId = u32;

/// Consecutive tokens of one sequence within a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The batch's rows that belong to this sequence, in order.
    pub rows: Range<usize>,
    /// Position in the sequence of the first of them; the others follow.
    pub start: usize,
    /// Where in [`Batch::pages`] the sequence's page table lies. Page `i` of the table holds the positions
    /// `i * page_tokens .. (i + 1) * page_tokens`; it reaches at least to the last row's position. A page that the span's
    /// rows are written to stands nowhere else in the batch; full pages may be shared.
    pub pages: Range<usize>,
}

/// One step's tokens. Data, not decisions: an executor computes exactly this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token id of each row.
    pub tokens: Vec<u32>,
    /// The sequences, covering all rows in order, without gaps.
    pub spans: Vec<Span>,
    /// Page tables of all spans, one after the other.
    pub pages: Vec<PageId>,
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: Vec<usize>,
    /// Rows whose final states are wanted (what logits are computed from), ascending, none of them in `logit_rows`.
    pub state_rows: Vec<usize>,
}

impl Batch {
    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.spans.clear();
        self.pages.clear();
        self.logit_rows.clear();
        self.state_rows.clear();
    }

    /// Appends `tokens` of one sequence from position `start` on, with the sequence's page table.
    pub fn push(&mut self, tokens: &[u32], start: usize, page_table: &[PageId]) {
        let (row, page) = (self.tokens.len(), self.pages.len());
        self.tokens.extend_from_slice(tokens);
        self.pages.extend_from_slice(page_table);
        self.spans.push(Span { rows: row..row + tokens.len(), start, pages: page..page + page_table.len() });
    }
}

/// Sizes an engine needs to know of an executor; all fixed when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorInfo {
    /// Logits per row.
    pub vocab: usize,
    /// Tokens a page holds.
    pub page_tokens: usize,
    /// Pages there are.
    pub pages: usize,
    /// The most rows one batch may have.
    pub max_rows: usize,
    /// The most rows of one batch that may want logits.
    pub max_logit_rows: usize,
    /// The longest sequence the model was loaded for, in tokens.
    pub context: usize,
}

/// Why a step could not be computed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExecError {
    /// The batch breaks a rule of [`Batch`] or exceeds [`ExecutorInfo`]; nothing was computed.
    #[error("invalid batch: {0}")]
    InvalidBatch(String),
    /// The inputs of a function are not those it declares; nothing was computed.
    #[error("invalid inputs: {0}")]
    InvalidInputs(String),
    /// Whoever watches the run has stopped it; what it was to give is lost.
    #[error("stopped")]
    Stopped,
}

/// What an engine needs to know of final states, see [`Graph::states`](crate::Graph::states).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatesInfo {
    /// Elements of a row's state.
    pub width: usize,
    /// Token ids must be below this.
    pub tokens: usize,
    /// Whether a sequence's tokens see all of it, so that it must be computed in one step.
    pub whole: bool,
    /// Whether states are all that the model gives: "logits" are the same.
    pub only: bool,
}

/// What a step gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Computed<'a> {
    /// Row-major `[logit_rows.len()][vocab]`.
    pub logits: &'a [f32],
    /// Row-major `[state_rows.len()][width of states]`.
    pub states: &'a [f32],
}

/// Computes batches of a model it was made for. A GPU or a trainer is another executor.
pub trait Executor: Send {
    /// Sizes.
    fn info(&self) -> &ExecutorInfo;

    /// What concerns final states; `None` if they cannot be asked for.
    fn states(&self) -> Option<StatesInfo> {
        None
    }

    /// Computes one step: writes keys and values of all rows into their pages and returns what was wanted, valid until
    /// the next call.
    ///
    /// The bits of what a row gives depend on the weights and the tokens of its own sequence only.
    fn run(&mut self, batch: &Batch) -> Result<Computed<'_>, ExecError>;
}

/// Computes graphs that turn given values into values. They share weights by name, and the frames that convolutions carry
/// from run to run.
pub trait Functions: Send {
    /// Runs one of the graphs it was made for, by number: on its inputs, row-major, in the order of declaration. What it
    /// gives is in the order of [`Graph::outputs`](crate::Graph::outputs), row-major.
    ///
    /// The bits depend on the weights, the inputs, and the inputs of runs since the last reset only.
    ///
    /// # Errors
    /// Inputs that are not as many or not as long as declared; nothing was computed.
    fn run(&mut self, graph: usize, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, ExecError>;

    /// Forgets the frames carried: the next run begins anew.
    fn reset(&mut self);
}
