//! An executor without a model. Its "keys and values" are hashes kept in pages; logits are drawn from what
//! a row reads back through its page table. A wrong page, position, token or order changes the answer.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wushi_engine::{Engine, EngineOptions, Vocabulary};
use wushi_graph::{Batch, Computed, ExecError, Executor, ExecutorInfo, StatesInfo};

/// Ids below 256 are bytes; those above are control tokens.
pub(crate) const VOCAB: usize = 300;
/// Elements of a state.
pub(crate) const WIDTH: usize = 3;
/// A control token.
pub(crate) const EOS: u32 = 256;

pub(crate) fn info() -> ExecutorInfo {
    ExecutorInfo { vocab: VOCAB, page_tokens: 4, pages: 256, max_rows: 64, max_logit_rows: 40, context: 128 }
}

type Before = Box<dyn FnMut(&Batch) -> Result<(), ExecError> + Send>;
type After = Box<dyn FnMut(&mut Vec<f32>) + Send>;

/// What the fake does besides hashing.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) info: Option<ExecutorInfo>,
    /// The greatest logit is always that of the last token's successor.
    pub(crate) counts_up: bool,
    /// Mostly the greatest logit is that of the last token's successor, of a few tokens that come round and round.
    pub(crate) repeats: bool,
    /// Called with each batch before it is computed.
    pub(crate) before: Option<Before>,
    /// Called with the logits.
    pub(crate) after: Option<After>,
    /// Called with the states.
    pub(crate) after_states: Option<After>,
    /// What is said of states; by default, that there are some.
    pub(crate) states: Option<StatesInfo>,
}

pub(crate) fn states() -> StatesInfo {
    StatesInfo { width: WIDTH, tokens: VOCAB, whole: false, only: false }
}

impl Fake {
    pub(crate) fn start(self, options: EngineOptions) -> Engine {
        self.start_with_log(options).0
    }

    pub(crate) fn start_with_log(self, options: EngineOptions) -> (Engine, Log) {
        let info = self.info.clone().unwrap_or_else(info);
        let log = Log::default();
        let executor = FakeExecutor {
            cells: vec![0; info.pages * info.page_tokens],
            info,
            fake: self,
            logits: Vec::new(),
            states: Vec::new(),
            log: log.clone(),
        };
        (Engine::start(Box::new(executor), Arc::new(Bytes), options).unwrap(), log)
    }
}

/// Every batch that was run.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Batch>>>);

impl Log {
    pub(crate) fn batches(&self) -> Vec<Batch> {
        self.0.lock().unwrap().clone()
    }

    /// Rows computed, all batches together.
    pub(crate) fn rows(&self) -> usize {
        self.batches().iter().map(|batch| batch.tokens.len()).sum()
    }
}

/// A hook for `before` that lets one step through per message.
pub(crate) fn gate() -> (Sender<()>, Before) {
    let (permits, gate): (Sender<()>, Receiver<()>) = channel();
    let hook = move |_: &Batch| {
        // Once the test lets go of its end, all steps may run.
        let _ = gate.recv();
        Ok(())
    };
    (permits, Box::new(hook))
}

/// Waits for something that the engine's thread does by itself.
pub(crate) fn wait_for(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct FakeExecutor {
    info: ExecutorInfo,
    fake: Fake,
    cells: Vec<u64>,
    logits: Vec<f32>,
    states: Vec<f32>,
    log: Log,
}

pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut x = (a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x632b_e59b_d9b4_e019);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The rules of a batch, as the seam states them.
fn check(batch: &Batch, info: &ExecutorInfo) {
    assert!(!batch.tokens.is_empty() && batch.tokens.len() <= info.max_rows);
    assert!(batch.logit_rows.len() <= info.max_logit_rows);
    assert!(batch.logit_rows.is_sorted_by(|a, b| a < b));
    assert!(batch.logit_rows.iter().all(|&row| row < batch.tokens.len()));
    assert!(batch.state_rows.is_sorted_by(|a, b| a < b));
    assert!(batch.state_rows.iter().all(|&row| row < batch.tokens.len() && !batch.logit_rows.contains(&row)));
    let (mut row, mut page) = (0, 0);
    let mut written = Vec::new();
    for span in &batch.spans {
        assert_eq!((span.rows.start, span.pages.start), (row, page));
        assert!(!span.rows.is_empty());
        (row, page) = (span.rows.end, span.pages.end);
        let end = span.start + span.rows.len();
        assert!(end <= info.context);
        let table = &batch.pages[span.pages.clone()];
        assert!(table.len() * info.page_tokens >= end);
        written.extend_from_slice(&table[span.start / info.page_tokens..end.div_ceil(info.page_tokens)]);
    }
    assert_eq!((row, page), (batch.tokens.len(), batch.pages.len()));
    // A page that is written to is in one table only.
    for page in written {
        assert_eq!(batch.pages.iter().filter(|&&other| other == page).count(), 1);
    }
}

impl Executor for FakeExecutor {
    fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    fn states(&self) -> Option<StatesInfo> {
        self.fake.states.or(Some(states())).filter(|states| states.width > 0)
    }

    fn run(&mut self, batch: &Batch) -> Result<Computed<'_>, ExecError> {
        check(batch, &self.info);
        let is_whole = self.fake.states.is_some_and(|states| states.whole);
        assert!(!is_whole || batch.spans.iter().all(|span| span.start == 0));
        self.log.0.lock().unwrap().push(batch.clone());
        if let Some(before) = &mut self.fake.before {
            before(batch)?;
        }
        self.logits.clear();
        self.states.clear();
        let size = self.info.page_tokens;
        for span in &batch.spans {
            let table = &batch.pages[span.pages.clone()];
            let cell = |position: usize| table[position / size] as usize * size + position % size;
            for row in span.rows.clone() {
                let position = span.start + row - span.rows.start;
                let before = (0..position).fold(1, |state, earlier| mix(state, self.cells[cell(earlier)]));
                let state = mix(before, u64::from(batch.tokens[row]) << 32 | position as u64);
                self.cells[cell(position)] = state;
                if batch.state_rows.contains(&row) {
                    let element = |i: usize| (mix(state, !(i as u64)) >> 40) as f32 / 1000.0;
                    self.states.extend((0..WIDTH).map(element));
                }
                if !batch.logit_rows.contains(&row) {
                    continue;
                }
                let next = match self.fake.repeats {
                    true if state.is_multiple_of(8) => None,
                    true => Some((batch.tokens[row] + 1) % 6),
                    false => self.fake.counts_up.then_some((batch.tokens[row] + 1) % 256),
                };
                self.logits.extend((0..self.info.vocab as u32).map(|id| {
                    let noise = (mix(state, u64::from(id)) >> 40) as f32 / (1 << 20) as f32;
                    if Some(id) == next { noise + 40.0 } else { noise }
                }));
            }
        }
        if let Some(after) = &mut self.fake.after {
            after(&mut self.logits);
        }
        if let Some(after) = &mut self.fake.after_states {
            after(&mut self.states);
        }
        Ok(Computed { logits: &self.logits, states: &self.states })
    }
}

struct Bytes;

static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut id = 0;
    while id < 256 {
        bytes[id] = id as u8;
        id += 1;
    }
    bytes
};

impl Vocabulary for Bytes {
    fn token_bytes(&self, id: u32) -> &[u8] {
        // Control tokens have a spelling too; it must not reach the text.
        BYTES.get(id as usize).map_or(b"<control>", std::slice::from_ref)
    }

    fn is_control(&self, id: u32) -> bool {
        id >= EOS
    }
}
