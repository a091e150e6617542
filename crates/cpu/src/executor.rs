//! The CPU executor: batches through a compiled schedule.

use wushi_graph::{
    Batch, CacheType, Computed, Dim, ExecError, Executor, ExecutorInfo, Graph, Lookup, Op, StatesInfo,
    WeightSource,
};

use crate::batch::{BatchChecks, StepData};
use crate::compile::{Target, compile};
use crate::cost::{self, Costs};
use crate::isa::InstructionSet;
use crate::kernels::{Kernels, PAGE_TOKENS};
use crate::memory::SharedBytes;
use crate::model::{self, Weights};
use crate::program::{Program, RopeKind, StepCost};
use crate::rope_table::Turns;
use crate::run::{self, Pace, StepTime};
use crate::score_table::ScoreTable;
use crate::scratch::{Scratch, ScratchSize};
use crate::step;
use crate::team::Team;
use crate::weights::WeightError;

/// What an executor is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads that compute, the calling one included.
    pub threads: usize,
    /// Which kernels; all give the same bits.
    pub instruction_set: InstructionSet,
    /// In what type keys and values are kept.
    pub cache: CacheType,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// Pages of [`PAGE_TOKENS`] tokens.
    pub pages: usize,
    /// The most rows of one batch.
    pub max_rows: usize,
    /// The most rows of one batch that want logits.
    pub max_logit_rows: usize,
}

/// Memory an executor takes, in bytes, known before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Repacked weights.
    pub weights: usize,
    /// Pages of keys and values.
    pub cache: usize,
    /// Activations of the largest batch, and the threads' working memory.
    pub arena: usize,
}

impl MemoryPlan {
    /// All of it.
    pub fn total(&self) -> usize {
        self.weights.saturating_add(self.cache).saturating_add(self.arena)
    }
}

/// Why an executor cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// A weight cannot be used.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// Sizes that make no sense.
    #[error("{0}")]
    Options(&'static str),
    /// Positions are looked up in a table.
    #[error(
        "a context of {context} tokens was asked for, but the model has embeddings for {positions} positions"
    )]
    Positions {
        /// Rows of the table.
        positions: usize,
        /// Tokens asked for.
        context: usize,
    },
    /// Whoever follows the team has stopped the loading.
    #[error("stopped")]
    Stopped,
    /// The system refuses memory or threads.
    #[error("the system refuses memory or threads for the model: {0}")]
    System(#[from] std::io::Error),
}

/// Bytes of one page of keys and values, all layers.
pub fn page_bytes(graph: &Graph, cache: CacheType) -> usize {
    cost::layers(graph).map(|heads| heads.page_bytes(cache)).sum()
}

/// Checks that every weight is there in its shape, and says what memory [`CpuExecutor::new`] will take.
pub fn plan(graph: &Graph, source: &dyn WeightSource, options: &Options) -> Result<MemoryPlan, CpuError> {
    let dtypes = model::dtypes(graph, source)?;
    check(graph, options)?;
    let program = compile(graph, &dtypes, target(options));
    let scratch = options.threads
        * ScratchSize::of(&program, options.max_rows, options.instruction_set.kernels().pairs).bytes();
    let tables: usize = program.biases.iter().map(ScoreTable::bytes).sum();
    Ok(MemoryPlan {
        weights: model::planned_bytes(&[(graph, &dtypes)]),
        cache: page_bytes(graph, options.cache).saturating_mul(options.pages),
        arena: program.arena + scratch + tables,
    })
}

/// What kernels look up: angles of rope, biases of scores.
pub(crate) fn tables(program: &Program, weights: &Weights) -> (Vec<Turns>, Vec<ScoreTable>) {
    let factors = |kind: &RopeKind| match kind {
        RopeKind::Sequence { factors: Some(id), .. } => Some(weights.vector(*id).values()),
        _ => None,
    };
    let turns = program.ropes.iter().map(|kind| Turns::new(kind, factors(kind))).collect();
    (turns, program.biases.iter().map(|kind| ScoreTable::new(kind, weights)).collect())
}

/// The schedule, with its operations and bytes for a batch of the first `rows` tokens of one sequence, the last of which
/// wants logits.
pub fn schedule(
    graph: &Graph,
    source: &dyn WeightSource,
    options: &Options,
    rows: usize,
) -> Result<Vec<StepCost>, CpuError> {
    Ok(Costs::new(graph.clone(), source, options)?.of_first(rows))
}

pub(crate) fn check(graph: &Graph, options: &Options) -> Result<(), CpuError> {
    if graph.node(graph.output()).shape.dims().first() != Some(&Dim::Picked) {
        return Err(CpuError::Options(
            "the graph must compute the rows that want output, see `Builder::rows`",
        ));
    }
    if !graph.inputs().is_empty() || graph.outputs().len() > 1 {
        return Err(CpuError::Options("a graph over given values is no model of sequences"));
    }
    let Options { threads, context, pages, max_rows, max_logit_rows, .. } = *options;
    if [threads, context, pages, max_rows, max_logit_rows].contains(&0) {
        return Err(CpuError::Options("threads, context, pages and rows must be at least 1"));
    }
    if let Some(positions) = table_rows(graph, Lookup::Position).filter(|&rows| rows < context) {
        return Err(CpuError::Positions { positions, context });
    }
    Ok(())
}

pub(crate) fn target(options: &Options) -> Target {
    let Options { threads, instruction_set, cache, context, max_rows, max_logit_rows, .. } = *options;
    let pairs = instruction_set.kernels().pairs;
    Target { threads, rows: max_rows, picked: max_logit_rows.min(max_rows), context, cache, pairs }
}

/// Rows of the smallest table that is looked up in this way.
fn table_rows(graph: &Graph, wanted: Lookup) -> Option<usize> {
    let tables = graph.nodes().iter().filter_map(|node| match node.op {
        Op::Embed { table, lookup } if lookup == wanted => Some(graph.weight(table).shape[0]),
        _ => None,
    });
    tables.min()
}

/// Runs a model on this machine's processor. The bits of a row's logits depend on the weights and its own sequence.
pub struct CpuExecutor {
    info: ExecutorInfo,
    options: Options,
    weights: Weights,
    kernels: &'static Kernels,
    team: Team,
    program: Program,
    /// By rope kind.
    turns: Vec<Turns>,
    /// By kind of bias.
    biases: Vec<ScoreTable>,
    arena: SharedBytes,
    /// By layer.
    cache: Vec<SharedBytes>,
    data: StepData,
    scratch: Vec<Scratch>,
    scratch_size: ScratchSize,
    checks: BatchChecks,
    pace: Pace,
    /// Token ids must be below this: the rows of the smallest embedding table.
    table_rows: usize,
}

impl CpuExecutor {
    /// Loads the weights and allocates all memory that will be needed. The executor has a team of its own.
    pub fn new(graph: Graph, source: &dyn WeightSource, options: Options) -> Result<Self, CpuError> {
        check(&graph, &options)?;
        let team = Team::new(options.threads)?;
        Self::on(team, graph, source, options)
    }

    /// The same on a team that others may compute with too, in turn with this one, from loading on. It must have as many
    /// threads as the options say.
    pub fn on(
        team: Team,
        graph: Graph,
        source: &dyn WeightSource,
        options: Options,
    ) -> Result<Self, CpuError> {
        check(&graph, &options)?;
        if team.threads() != options.threads {
            return Err(CpuError::Options("an executor must be made for as many threads as its team has"));
        }
        let dtypes = model::dtypes(&graph, source)?;
        let weights = Weights::load(&graph, source, &team)?;
        let program = compile(&graph, &dtypes, target(&options));
        let (turns, biases) = tables(&program, &weights);
        let cache_layer = |heads: crate::kernels::Heads| {
            SharedBytes::zeroed(options.pages * heads.page_bytes(options.cache))
        };
        let vocab = program.buffer(program.output).width;
        let scratch_size =
            ScratchSize::of(&program, options.max_rows, options.instruction_set.kernels().pairs);
        Ok(CpuExecutor {
            info: ExecutorInfo {
                vocab,
                page_tokens: PAGE_TOKENS,
                pages: options.pages,
                max_rows: options.max_rows,
                max_logit_rows: options.max_logit_rows.min(options.max_rows),
                context: options.context,
            },
            arena: SharedBytes::zeroed(program.arena)?,
            cache: program.layers.iter().map(|layer| cache_layer(layer.heads)).collect::<Result<_, _>>()?,
            scratch: (0..options.threads).map(|_| Scratch::new(scratch_size)).collect(),
            data: StepData::new(&program, options.max_rows, options.threads),
            table_rows: table_rows(&graph, Lookup::Token).unwrap_or(0),
            scratch_size,
            checks: BatchChecks::new(options.pages, &program),
            // Of a batch as large as can be: a smaller one's pieces are smaller.
            pace: Pace::new(&cost::costs(
                &graph,
                &dtypes,
                &program,
                &cost::first_rows(options.max_rows),
                options.cache,
            )),
            kernels: options.instruction_set.kernels(),
            turns,
            biases,
            team,
            weights,
            program,
            options,
        })
    }

    /// [`Executor::run`], with the time of every step of the schedule on the calling thread, in the order of
    /// [`Costs::of`]. What others follow or give way to is not heeded.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn run_timed(&mut self, batch: &Batch, times: &mut Vec<StepTime>) -> Result<Computed<'_>, ExecError> {
        self.compute(batch, |team, context, _| {
            run::timed(team, context, times);
            Ok(())
        })
    }

    /// What it was made for.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Memory it takes.
    pub fn memory(&self) -> MemoryPlan {
        MemoryPlan {
            weights: self.weights.bytes(),
            cache: self.cache.iter().map(SharedBytes::len).sum(),
            arena: self.arena.len()
                + self.scratch.len() * self.scratch_size.bytes()
                + self.program.biases.iter().map(ScoreTable::bytes).sum::<usize>(),
        }
    }
}

impl Executor for CpuExecutor {
    fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    fn states(&self) -> Option<StatesInfo> {
        let id = self.program.states?;
        Some(StatesInfo {
            width: self.program.buffer(id).width,
            tokens: self.table_rows,
            whole: self.checks.whole(),
            only: id == self.program.output,
        })
    }

    fn run(&mut self, batch: &Batch) -> Result<Computed<'_>, ExecError> {
        self.compute(batch, run::run)
    }
}

impl CpuExecutor {
    /// Plans a batch, has its steps run, and gives what was wanted.
    fn compute(
        &mut self,
        batch: &Batch,
        steps: impl FnOnce(&Team, &step::Context<'_>, &mut Pace) -> Result<(), ExecError>,
    ) -> Result<Computed<'_>, ExecError> {
        self.checks.check(batch, &self.info, self.table_rows)?;
        let program = &self.program;
        self.data.plan(batch, program);
        let context = step::Context {
            program,
            batch,
            data: &self.data,
            weights: &self.weights,
            kernels: self.kernels,
            turns: &self.turns,
            biases: &self.biases,
            carried: &[],
            attends: &[],
            arena: &self.arena,
            cache: &self.cache,
            cache_type: self.options.cache,
            scratch: self.scratch.as_mut_ptr(),
            threads: self.options.threads,
        };
        steps(&self.team, &context, &mut self.pace)?;
        let (logits, states) = (batch.logit_rows.len(), batch.state_rows.len());
        // SAFETY: all threads are done; both buffers stay untouched until the next call.
        let rows = |id, rows| unsafe { step::packed_rows(program, &self.arena, id, rows) };
        Ok(match program.states {
            None => Computed { logits: rows(program.output, logits), states: &[] },
            Some(id) => {
                // Rows that want logits come first.
                let (before, states) = rows(id, logits + states).split_at(logits * program.buffer(id).width);
                let is_output = id == program.output;
                Computed { logits: if is_output { before } else { rows(program.output, logits) }, states }
            }
        })
    }
}
