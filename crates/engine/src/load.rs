//! From a GGUF file to a running engine, in two steps: [`plan`] reads and checks everything and computes what will
//! be used, [`LoadPlan::load`] allocates it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wushi_cpu::{Costs, CpuError, CpuExecutor, InstructionSet, MemoryPlan, PAGE_TOKENS, StepCost, Team};
use wushi_formats::{ChatTemplate, Checkpoint, FormatError, Tokenizer};
use wushi_graph::{CacheType, DType, Executor, Graph, Lookup, Op, WeightSource};
use wushi_models::{Model, ModelError, Pooling, Positions, Stretch};

use crate::progress::Watched;
use crate::speculate::ROW_COST;
use crate::{Embedder, Engine, EngineError, EngineOptions, Vocabulary, Weights, memory};

pub use wushi_cpu::ARITHMETIC_VERSION;

/// The context of a model that is loaded without saying otherwise, if it was trained for as much.
pub const DEFAULT_CONTEXT: usize = 4096;

/// The most tokens computed in one step, unless an option says otherwise.
pub const DEFAULT_MAX_ROWS: usize = 512;

/// What a process takes besides weights, cache and buffers: tokenizer, schedules, stacks, the allocator's own.
const HEADROOM: u64 = 64 << 20;

/// What is loaded, and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The GGUF file, or the folder as published on Hugging Face.
    pub path: PathBuf,
    /// The type that weights are quantised to on their way. `None`: as they are stored.
    pub quant: Option<DType>,
    /// Threads that compute. `None`: as many as this process may run at once. A team has its own number.
    pub threads: Option<usize>,
    /// The threads that compute, shared with other models: their steps take turns. `None`: the model has its own.
    pub team: Option<Team>,
    /// Kernels. `None`: the best this machine has. The answer does not depend on it.
    pub instruction_set: Option<InstructionSet>,
    /// In what type keys and values are kept.
    pub cache: CacheType,
    /// The longest sequence, in tokens. `None`: what the model was trained for, at most [`DEFAULT_CONTEXT`].
    pub context: Option<usize>,
    /// How rope is scaled if the context is longer than what the model was trained for.
    pub stretch: Option<Stretch>,
    /// Bytes that weights, cache and buffers may take together. `None`: what is available.
    pub memory: Option<u64>,
    /// For how many sequences of full length the cache should have pages, if memory allows. One always must fit.
    pub sequences: usize,
    /// The most tokens computed in one step.
    pub max_rows: usize,
    /// The most rows of one step whose logits are wanted.
    pub max_logit_rows: usize,
    /// How the engine schedules.
    pub engine: EngineOptions,
}

impl LoadOptions {
    /// The defaults, for the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        LoadOptions {
            path: path.into(),
            quant: None,
            threads: None,
            team: None,
            instruction_set: None,
            cache: CacheType::F16,
            context: None,
            stretch: None,
            memory: None,
            sequences: 4,
            max_rows: DEFAULT_MAX_ROWS,
            max_logit_rows: 32,
            engine: EngineOptions::default(),
        }
    }

    /// What the executor is made for, for sequences of up to `context` tokens and with `pages` pages of cache.
    pub fn executor(&self, context: usize, pages: usize) -> wushi_cpu::Options {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.team.as_ref().map(Team::threads).or(self.threads);
        wushi_cpu::Options {
            threads: threads.unwrap_or_else(processors),
            instruction_set: self.instruction_set.unwrap_or_else(InstructionSet::best),
            cache: self.cache,
            context,
            pages,
            max_rows: self.max_rows,
            max_logit_rows: self.max_logit_rows.min(self.max_rows),
        }
    }
}

/// What a file says of its model.
#[derive(Debug)]
pub struct Description {
    /// What it computes.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, if the file has one.
    pub template: Option<ChatTemplate>,
}

/// Why a file does not describe a model that can run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// Its tensors, tokenizer or template cannot be used.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// No graph can be built from its metadata.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Text would become tokens that the model has no embedding for.
    #[error(
        "the tokenizer has {tokens} tokens, but the embedding table has {rows} rows: the file is damaged"
    )]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the smallest embedding table.
        rows: usize,
    },
}

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read. The error names it.
    #[error(transparent)]
    File(ModelError),
    /// The file was read, but does not describe a model that can run.
    #[error("{path}: {error}", path = path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong. Part of this error's own text, hence not its `source`.
        error: DescribeError,
    },
    /// The weights do not fit the graph, or the options the executor.
    #[error("{path}: {error}", path = path.display())]
    Cpu {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: CpuError,
    },
    /// An option that must not be zero.
    #[error("{0} is zero, expected at least 1")]
    Zero(&'static str),
    /// Longer sequences than the model has ever seen.
    #[error(
        "a context of {wanted} tokens was asked for, but this model was trained for {trained}: ask for at most that, \
         or say how to stretch it (rope-scaling yarn or linear)"
    )]
    ContextTooLong {
        /// Tokens asked for.
        wanted: usize,
        /// Tokens the model was trained for.
        trained: usize,
    },
    /// Weights, buffers and the cache of one sequence take more memory than there is.
    #[error(
        "not enough memory: a context of {context} tokens needs {} ({} of weights, {} of {cache} cache, {} of \
         buffers), but {} are {}; {}",
        Size(plan.total() as u64), Size(plan.weights as u64), Size(plan.cache as u64), Size(plan.arena as u64),
        Size(*available), if *budget { "allowed" } else { "available" }, Advice(*fits)
    )]
    TooLittleMemory {
        /// Tokens of the context.
        context: usize,
        /// Type of the cache.
        cache: CacheType,
        /// Bytes that are needed.
        plan: MemoryPlan,
        /// Bytes there are.
        available: u64,
        /// Whether that is the caller's limit rather than the machine's.
        budget: bool,
        /// The longest context that would fit, in tokens.
        fits: usize,
    },
    /// It gives embeddings, no text.
    #[error("{path}: this is an embedding model: it gives no text (see `wushi embed`)", path = path.display())]
    NoText {
        /// The file.
        path: PathBuf,
    },
    /// It gives text, no embeddings.
    #[error("{path}: this is no embedding model: it gives text (see `wushi run`)", path = path.display())]
    NoEmbeddings {
        /// The file.
        path: PathBuf,
    },
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

struct Advice(usize);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("free some, or take a smaller model"),
            tokens => write!(f, "a context of {tokens} tokens would fit"),
        }
    }
}

/// A number of bytes for people: `93.8 MB`, in powers of 1000 like disks and models are sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} B", self.0),
            1_000..1_000_000 => write!(f, "{:.1} kB", bytes / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} MB", bytes / 1e6),
            _ => write!(f, "{:.2} GB", bytes / 1e9),
        }
    }
}

/// What a model is, as far as people and scripts ask.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Architecture, as in the file.
    pub architecture: String,
    /// The name its makers gave it, if the file says.
    pub name: Option<String>,
    /// Number of parameters.
    pub parameters: u64,
    /// The storage type that most parameters have.
    pub dtype: String,
    /// The longest sequence it was trained for, in tokens.
    pub trained_context: usize,
    /// The settings its makers recommend.
    pub sampling: RecommendedSampling,
}

/// Sampling settings that a file recommends (`general.sampling.*`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecommendedSampling {
    /// See [`crate::Sampling::temperature`].
    pub temperature: Option<f32>,
    /// See [`crate::Sampling::top_k`].
    pub top_k: Option<u32>,
    /// See [`crate::Sampling::top_p`].
    pub top_p: Option<f32>,
    /// See [`crate::Sampling::min_p`].
    pub min_p: Option<f32>,
    /// See [`crate::Sampling::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
}

/// Everything that is known before anything is allocated.
#[derive(Debug)]
pub struct LoadPlan {
    path: PathBuf,
    weights: Weights,
    graph: Graph,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    info: ModelInfo,
    executor: wushi_cpu::Options,
    team: Option<Team>,
    memory: MemoryPlan,
    available: Option<u64>,
    engine: EngineOptions,
    pooling: Option<Pooling>,
    fingerprint: [u8; 32],
}

/// A model that answers.
pub struct LoadedModel {
    /// The engine that runs it.
    pub engine: Engine,
    /// How an embedding model pools states; such a model gives no text. Those of any other can be pooled, too.
    pub pooling: Option<Pooling>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its chat template, if the file has one.
    pub template: Option<ChatTemplate>,
    /// What it is.
    pub info: ModelInfo,
    /// See [`LoadPlan::fingerprint`].
    pub fingerprint: [u8; 32],
}

/// An embedding model that answers.
pub struct LoadedEmbedder {
    /// What runs it.
    pub embedder: Embedder,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// What it is.
    pub info: ModelInfo,
    /// See [`LoadPlan::fingerprint`].
    pub fingerprint: [u8; 32],
}

/// Reads what an open file says of its model: graph, tokenizer, template. Reads no weight, nor whether they fit the
/// graph.
///
/// # Errors
/// A type, architecture, tokenizer or template that cannot be used.
pub fn describe(checkpoint: &Checkpoint) -> Result<Description, DescribeError> {
    let context = wushi_models::trained_context(checkpoint)?.min(DEFAULT_CONTEXT);
    describe_for(checkpoint, &Positions { context, stretch: None })
}

/// [`describe`] for sequences of these positions.
fn describe_for(checkpoint: &Checkpoint, positions: &Positions) -> Result<Description, DescribeError> {
    checkpoint.check_supported()?;
    let model = wushi_models::build(checkpoint, positions)?;
    let tokenizer = Tokenizer::from_gguf(checkpoint.metadata())?;
    let tables = model.graph.nodes().iter().filter_map(|node| match node.op {
        Op::Embed { table, lookup: Lookup::Token } => Some(model.graph.weight(table)),
        _ => None,
    });
    let rows = tables.filter_map(|table| table.shape.first().copied()).min();
    match (tokenizer.vocab_size(), rows) {
        (tokens, Some(rows)) if tokens > rows => return Err(DescribeError::Vocabulary { tokens, rows }),
        _ => {}
    }
    let template = ChatTemplate::from_gguf(checkpoint.metadata())?;
    Ok(Description { model, tokenizer, template })
}

/// A team of its own for a model.
pub(crate) fn team_of(threads: usize, path: &Path) -> Result<Team, LoadError> {
    Team::new(threads).map_err(|error| LoadError::Cpu { path: path.to_owned(), error: error.into() })
}

/// Opens the file, builds its graph, checks every weight and computes what loading will take.
///
/// # Errors
/// A file, architecture, dtype, tokenizer or template that cannot be used; a context beyond what the model was
/// trained for, or more memory than there is, with the numbers. Nothing has been allocated then.
pub fn plan(options: &LoadOptions) -> Result<LoadPlan, LoadError> {
    let path = &options.path;
    let unusable = |error| LoadError::Description { path: path.clone(), error };
    let checkpoint = wushi_models::open(path).map_err(LoadError::File)?;
    let trained = wushi_models::trained_context(&checkpoint).map_err(|error| unusable(error.into()))?;
    let positions = positions(options, trained)?;
    let Description { model, tokenizer, template } =
        describe_for(&checkpoint, &positions).map_err(unusable)?;
    let weights = match options.quant {
        None => Weights::stored(checkpoint),
        Some(wanted) => {
            let team = match &options.team {
                Some(team) => team.clone(),
                None => team_of(options.executor(1, 1).threads, path)?,
            };
            Weights::quantised(checkpoint, &model.graph, wanted, Some(team))
        }
    };
    let info = info(&weights, &model).map_err(|error| unusable(error.into()))?;
    let context = positions.context;
    let (executor, memory, available) = match model.pooling {
        None => fit(options, &weights, &model.graph, context)?,
        // A text's tokens may all see each other and must then come in one step.
        Some(_) => {
            let max_rows = context.max(options.max_rows);
            let whole = LoadOptions { max_rows, ..options.clone() };
            fit(&whole, &weights, &model.graph, context)?
        }
    };
    let fingerprint = fingerprint(&weights, &model.graph, executor.cache, options.quant);
    let engine = options.engine.clone();
    Ok(LoadPlan {
        path: path.clone(),
        weights,
        graph: model.graph,
        tokenizer: Arc::new(tokenizer),
        template,
        info,
        executor,
        team: options.team.clone(),
        memory,
        available,
        engine,
        pooling: model.pooling,
        fingerprint,
    })
}

impl LoadPlan {
    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// What it computes.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Threads, instruction set, context, pages.
    pub fn executor(&self) -> &wushi_cpu::Options {
        &self.executor
    }

    /// Bytes that will be allocated.
    pub fn memory(&self) -> MemoryPlan {
        self.memory
    }

    /// Which matrices could not be quantised to the type that was wanted, in a sentence.
    pub fn instead(&self) -> Option<&str> {
        self.weights.instead()
    }

    /// Bytes that may be allocated, if the system says or the caller did; what the rest of the process needs is taken off.
    pub fn available(&self) -> Option<u64> {
        self.available
    }

    /// The steps of a batch of `rows` first tokens of one sequence, with their operations and bytes.
    ///
    /// # Errors
    /// None that [`plan`] has not ruled out, except for zero rows.
    pub fn schedule(&self, rows: usize) -> Result<Vec<StepCost>, LoadError> {
        wushi_cpu::schedule(&self.graph, &self.weights, &self.executor, rows)
            .map_err(|error| LoadError::Cpu { path: self.path.clone(), error })
    }

    /// What any batch will take.
    ///
    /// # Errors
    /// None that [`plan`] has not ruled out.
    pub fn costs(&self) -> Result<Costs, LoadError> {
        Costs::new(self.graph.clone(), &self.weights, &self.executor)
            .map_err(|error| LoadError::Cpu { path: self.path.clone(), error })
    }

    /// Bytes of keys and values that one token adds to the cache.
    pub fn cache_bytes_per_token(&self) -> f64 {
        wushi_cpu::page_bytes(&self.graph, self.executor.cache) as f64 / PAGE_TOKENS as f64
    }

    /// Identifies what determines logits: BLAKE3 over the arithmetic's version, the cache's type, the metadata, the
    /// tensors' names, types and shapes and the first 4 KiB of every tensor. It tells models and fine-tunes apart at the cost of
    /// reading a few pages; it is no proof that every byte is sound, which is what the store's SHA-256 is for.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// What one row more costs where a step has few, in hundredths of a step of one row: what it does of itself, and
    /// the weights that only it needs.
    fn row_cost(&self) -> Result<usize, LoadError> {
        let bytes = |rows| -> Result<u64, LoadError> {
            let steps = self.schedule(rows)?;
            Ok(steps.iter().map(|step| step.weight_bytes).sum())
        };
        let (one, two) = (bytes(1)?, bytes(2)?);
        Ok(ROW_COST + (100 * two.saturating_sub(one) / one.max(1)) as usize)
    }

    /// How an embedding model pools states; `None` if the model gives text.
    pub fn pooling(&self) -> Option<Pooling> {
        self.pooling
    }

    /// Allocates, packs the weights and starts the engine of a model that gives text.
    ///
    /// # Errors
    /// A weight that cannot be used (a scale that is not finite), or no thread to be had; an embedding model.
    pub fn load(self) -> Result<LoadedModel, LoadError> {
        match self.pooling {
            Some(_) => Err(LoadError::NoText { path: self.path }),
            None => self.load_any(&|_| {}),
        }
    }

    /// The same with something between engine and executor: `wrap` is given the executor and gives what the engine runs.
    ///
    /// # Errors
    /// As [`LoadPlan::load`].
    pub fn load_wrapped(
        self,
        wrap: impl FnOnce(CpuExecutor) -> Box<dyn Executor>,
    ) -> Result<LoadedModel, LoadError> {
        match self.pooling {
            Some(_) => Err(LoadError::NoText { path: self.path }),
            None => self.start(&|_| {}, wrap),
        }
    }

    /// Allocates, packs the weights and starts the engine, be it of an embedding model: both kinds give embeddings by
    /// [`Engine::embed_with`]. `report` is told what share of the weights has been taken over.
    ///
    /// # Errors
    /// As [`LoadPlan::load`].
    pub fn load_any(self, report: &(dyn Fn(f64) + Sync)) -> Result<LoadedModel, LoadError> {
        self.start(report, |executor| Box::new(executor))
    }

    fn start(
        self,
        report: &(dyn Fn(f64) + Sync),
        wrap: impl FnOnce(CpuExecutor) -> Box<dyn Executor>,
    ) -> Result<LoadedModel, LoadError> {
        let row_cost = Some(self.engine.row_cost.map_or_else(|| self.row_cost(), Ok)?);
        let options = EngineOptions { row_cost, ..self.engine };
        let source = Watched::new(&self.weights, &self.graph, report);
        let executor = executor(self.team, self.graph, &source, self.executor)
            .map_err(|error| LoadError::Cpu { path: self.path, error })?;
        let vocabulary: Arc<dyn Vocabulary> = Arc::new(TokenizerVocabulary(Arc::clone(&self.tokenizer)));
        let engine = Engine::start(wrap(executor), vocabulary, options)?;
        Ok(LoadedModel {
            engine,
            pooling: self.pooling,
            tokenizer: self.tokenizer,
            template: self.template,
            info: self.info,
            fingerprint: self.fingerprint,
        })
    }
}

impl LoadPlan {
    /// Allocates and packs the weights of an embedding model.
    ///
    /// # Errors
    /// As [`LoadPlan::load`]; a model that gives text.
    pub fn load_embedder(self) -> Result<LoadedEmbedder, LoadError> {
        let Some(pooling) = self.pooling else {
            return Err(LoadError::NoEmbeddings { path: self.path });
        };
        let executor = executor(self.team, self.graph, &self.weights, self.executor)
            .map_err(|error| LoadError::Cpu { path: self.path, error })?;
        let executor: Box<dyn Executor> = Box::new(executor);
        Ok(LoadedEmbedder {
            embedder: Embedder::new(executor, pooling),
            tokenizer: self.tokenizer,
            info: self.info,
            fingerprint: self.fingerprint,
        })
    }
}

/// The executor, on the team if there is one to share.
fn executor(
    team: Option<Team>,
    graph: Graph,
    weights: &dyn WeightSource,
    options: wushi_cpu::Options,
) -> Result<CpuExecutor, CpuError> {
    match team {
        Some(team) => CpuExecutor::on(team, graph, weights, options),
        None => CpuExecutor::new(graph, weights, options),
    }
}

/// What the engine needs of a tokenizer.
struct TokenizerVocabulary(Arc<Tokenizer>);

impl Vocabulary for TokenizerVocabulary {
    fn token_bytes(&self, id: u32) -> &[u8] {
        self.0.token_bytes(id)
    }

    fn is_control(&self, id: u32) -> bool {
        self.0.is_control(id)
    }
}

fn info(weights: &Weights, model: &Model) -> Result<ModelInfo, FormatError> {
    let metadata = weights.checkpoint().metadata();
    let number = |key: &str| metadata.f32(key);
    Ok(ModelInfo {
        architecture: model.architecture.clone(),
        name: metadata.str("general.name")?.map(str::to_owned),
        parameters: weights.checkpoint().parameters(),
        dtype: weights.main_type().map(|main| main.to_string()).unwrap_or_default(),
        trained_context: model.trained_context,
        sampling: RecommendedSampling {
            temperature: number("general.sampling.temp")?,
            top_k: metadata.u32("general.sampling.top_k")?,
            top_p: number("general.sampling.top_p")?,
            min_p: number("general.sampling.min_p")?,
            repetition_penalty: number("general.sampling.penalty_repeat")?,
        },
    })
}

/// How long sequences will be: as asked for, else what the model was trained for within reason.
fn positions(options: &LoadOptions, trained: usize) -> Result<Positions, LoadError> {
    let stretch = options.stretch;
    let context = match options.context {
        Some(0) => return Err(LoadError::Zero("the context")),
        Some(wanted) if wanted > trained && stretch.is_none() => {
            return Err(LoadError::ContextTooLong { wanted, trained });
        }
        Some(wanted) => wanted,
        None => trained.min(DEFAULT_CONTEXT),
    };
    Ok(Positions { context, stretch })
}

/// Chooses the number of pages: enough for the sequences that are wanted, fewer where memory is short, but never too few
/// for one.
fn fit(
    options: &LoadOptions,
    weights: &Weights,
    graph: &Graph,
    context: usize,
) -> Result<(wushi_cpu::Options, MemoryPlan, Option<u64>), LoadError> {
    let cpu = |error| LoadError::Cpu { path: options.path.clone(), error };
    let sizes = [
        ("the number of threads", options.threads.unwrap_or(1)),
        ("the number of sequences", options.sequences),
        ("the number of rows", options.max_rows),
        ("the number of logits rows", options.max_logit_rows),
    ];
    if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
        return Err(LoadError::Zero(name));
    }
    let pages_of_one = context.div_ceil(PAGE_TOKENS);
    let mut executor = options.executor(context, pages_of_one);
    let least = wushi_cpu::plan(graph, weights, &executor).map_err(cpu)?;
    let machine = memory::available().map(|bytes| bytes.saturating_sub(HEADROOM));
    let available = match (machine, options.memory) {
        (Some(machine), Some(budget)) => Some(machine.min(budget)),
        (machine, budget) => machine.or(budget),
    };
    let page = wushi_cpu::page_bytes(graph, options.cache).max(1) as u64;
    let wanted = pages_of_one.saturating_mul(options.sequences);
    executor.pages = match available {
        None => wanted,
        Some(available) => {
            let Some(spare) = available.checked_sub(least.total() as u64) else {
                let fixed = (least.total() - least.cache) as u64;
                let fits = (available.saturating_sub(fixed) / page) as usize * PAGE_TOKENS;
                let budget = options.memory == Some(available);
                let (cache, plan) = (options.cache, least);
                return Err(LoadError::TooLittleMemory { context, cache, plan, available, budget, fits });
            };
            // Others may want memory too: what one sequence does not need is shared with them.
            wanted.min(pages_of_one.saturating_add((spare / 2 / page) as usize))
        }
    };
    let plan = wushi_cpu::plan(graph, weights, &executor).map_err(cpu)?;
    Ok((executor, plan, available))
}

fn fingerprint(weights: &Weights, graph: &Graph, cache: CacheType, quant: Option<DType>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("wushi arithmetic {} cache {cache}\n", wushi_cpu::ARITHMETIC_VERSION).as_bytes());
    // What the context decided.
    let mut ropes: Vec<String> = Vec::new();
    for node in graph.nodes() {
        if let Op::Rope { rope, factors } = node.op {
            let factors = factors.map(|id| graph.weight(id).name.as_str());
            ropes.push(format!("{rope:?} {factors:?}\n"));
        }
    }
    ropes.dedup();
    ropes.iter().for_each(|rope| {
        hasher.update(rope.as_bytes());
    });
    if let Some(quant) = quant {
        hasher.update(format!("quantised to {quant}\n").as_bytes());
    }
    weights.checkpoint().identify(&mut |bytes| {
        hasher.update(bytes);
    });
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (1500, "1.5 kB"),
            (98_362_432, "98.4 MB"),
            (2_500_000_000, "2.50 GB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn contexts_are_bounded_by_training() {
        let asked = |context| LoadOptions { context, ..LoadOptions::new("model.gguf") };
        let context = |options, trained| positions(&options, trained).map(|positions| positions.context);
        assert_eq!(context(asked(None), 2048).ok(), Some(2048));
        assert_eq!(context(asked(None), 131_072).ok(), Some(DEFAULT_CONTEXT));
        assert_eq!(context(asked(Some(8192)), 131_072).ok(), Some(8192));
        let error = context(asked(Some(8192)), 2048).unwrap_err();
        assert!(matches!(error, LoadError::ContextTooLong { wanted: 8192, trained: 2048 }));
        assert!(matches!(context(asked(Some(0)), 2048), Err(LoadError::Zero(_))));
        let stretched = LoadOptions { stretch: Some(Stretch::Yarn), ..asked(Some(8192)) };
        assert_eq!(context(stretched, 2048).ok(), Some(8192));
    }
}
