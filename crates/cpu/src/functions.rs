//! The executor of graphs over given values: diffusion transformers, decoders of latents.

use wushi_graph::{Batch, CacheType, DType, Dim, ExecError, Functions, Graph, WeightSource};

use crate::batch::StepData;
use crate::compile::{Target, compile};
use crate::cost;
use crate::executor::{CpuError, MemoryPlan, tables};
use crate::given::AttendWork;
use crate::isa::InstructionSet;
use crate::kernels::Kernels;
use crate::memory::SharedBytes;
use crate::model::{self, Shelf, Weights};
use crate::program::{Carried, Program, StepCost};
use crate::rope_table::Turns;
use crate::run::{Pace, run};
use crate::score_table::ScoreTable;
use crate::scratch::{Scratch, ScratchSize};
use crate::step;
use crate::team::Team;

/// What functions are compiled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionOptions {
    /// Threads that compute, the calling one included.
    pub threads: usize,
    /// Which kernels; all give the same bits.
    pub instruction_set: InstructionSet,
    /// The type that keys and values of attention are rounded to.
    pub cache: CacheType,
}

/// Checks that every weight is there in its shape, and says what memory [`CpuFunctions::on`] will take: carried frames count
/// as cache.
pub fn plan_functions(
    graphs: &[&Graph],
    source: &dyn WeightSource,
    options: &FunctionOptions,
) -> Result<MemoryPlan, CpuError> {
    let compiled = compile_all(graphs, source, options)?;
    let weights: Vec<(&Graph, &[DType])> =
        graphs.iter().zip(&compiled).map(|(graph, (dtypes, _))| (*graph, dtypes.as_slice())).collect();
    let programs: Vec<&Program> = compiled.iter().map(|(_, program)| program).collect();
    let mut frames = Vec::new();
    programs.iter().try_for_each(|program| places(&mut frames, program).map(|_| ()))?;
    Ok(MemoryPlan {
        weights: model::planned_bytes(&weights),
        cache: frames.iter().map(carried_bytes).sum(),
        arena: working_bytes(&programs, options),
    })
}

/// The schedule of one graph, with its operations and bytes.
pub fn function_schedule(
    graph: &Graph,
    source: &dyn WeightSource,
    options: &FunctionOptions,
) -> Result<Vec<StepCost>, CpuError> {
    let (dtypes, program) = compile_all(&[graph], source, options)?.remove(0);
    Ok(cost::costs(graph, &dtypes, &program, &cost::first_rows(1), options.cache))
}

fn compile_all(
    graphs: &[&Graph],
    source: &dyn WeightSource,
    options: &FunctionOptions,
) -> Result<Vec<(Vec<DType>, Program)>, CpuError> {
    let compiled = graphs.iter().map(|graph| {
        let dtypes = model::dtypes(graph, source)?;
        let program = compile_function(graph, &dtypes, options)?;
        Ok((dtypes, program))
    });
    compiled.collect()
}

fn compile_function(graph: &Graph, dtypes: &[DType], options: &FunctionOptions) -> Result<Program, CpuError> {
    let FunctionOptions { threads, instruction_set, cache } = *options;
    if threads == 0 {
        return Err(CpuError::Options("threads must be at least 1"));
    }
    let open = |dim: &Dim| !matches!(dim, Dim::Fixed(_));
    if graph.nodes().iter().any(|node| node.shape.dims().iter().any(open)) {
        return Err(CpuError::Options("a graph over tokens is no function of given values"));
    }
    Ok(compile(
        graph,
        dtypes,
        Target { threads, rows: 1, picked: 1, context: 1, cache, pairs: instruction_set.kernels().pairs },
    ))
}

/// Where in `all` the frames are that a program's convolutions carry; those that are not there yet are added. Frames of one
/// name are the same.
fn places(all: &mut Vec<Carried>, program: &Program) -> Result<Vec<usize>, CpuError> {
    let place = |carried: &Carried| match all.iter().position(|other| other.name == carried.name) {
        Some(place) if all[place] == *carried => Ok(place),
        Some(_) => Err(CpuError::Options("a convolution carries frames of different sizes in two graphs")),
        None => {
            all.push(carried.clone());
            Ok(all.len() - 1)
        }
    };
    program.carried.iter().map(place).collect()
}

fn carried_bytes(carried: &Carried) -> usize {
    4 * carried.shape.iter().product::<usize>()
}

fn scratch_size(programs: &[&Program], options: &FunctionOptions) -> ScratchSize {
    let pairs = options.instruction_set.kernels().pairs;
    let sizes = programs.iter().map(|program| ScratchSize::of(program, 1, pairs));
    sizes.fold(ScratchSize::default(), ScratchSize::max)
}

/// Bytes of the arena that all programs use in turn, of the threads' working memory, and of tables.
fn working_bytes(programs: &[&Program], options: &FunctionOptions) -> usize {
    let arena = programs.iter().map(|program| program.arena).max().unwrap_or(0);
    let tables: usize = programs.iter().flat_map(|p| &p.biases).map(ScoreTable::bytes).sum();
    arena + tables + options.threads * scratch_size(programs, options).bytes()
}

/// One graph, compiled.
struct Function {
    graph: Graph,
    program: Program,
    weights: Weights,
    turns: Vec<Turns>,
    biases: Vec<ScoreTable>,
    attends: Vec<AttendWork>,
    pace: Pace,
    /// By place in the program's list: index into [`CpuFunctions::carried`].
    carried: Vec<usize>,
}

/// Runs graphs that share weights on this machine's processor. The bits of what they give depend on weights and inputs.
pub struct CpuFunctions {
    functions: Vec<Function>,
    shelf: Shelf,
    frames: Vec<Carried>,
    carried: Vec<SharedBytes>,
    kernels: &'static Kernels,
    team: Team,
    arena: SharedBytes,
    scratch: Vec<Scratch>,
    scratch_size: ScratchSize,
    /// Of no batch.
    data: StepData,
    options: FunctionOptions,
}

impl CpuFunctions {
    /// Loads the weights and allocates all memory that will be needed, on a team of its own.
    pub fn new(
        graphs: Vec<Graph>,
        source: &dyn WeightSource,
        options: FunctionOptions,
    ) -> Result<Self, CpuError> {
        let team = Team::new(options.threads)?;
        Self::on(team, graphs, source, options)
    }

    /// The same on a team that others may compute with too, in turn with this one. It must have as many threads as the
    /// options say. After a run that was stopped, what is carried is undefined.
    pub fn on(
        team: Team,
        graphs: Vec<Graph>,
        source: &dyn WeightSource,
        options: FunctionOptions,
    ) -> Result<Self, CpuError> {
        if team.threads() != options.threads {
            return Err(CpuError::Options("functions must be made for as many threads as their team has"));
        }
        let refs: Vec<&Graph> = graphs.iter().collect();
        compile_all(&refs, source, &options)?;
        let mut functions = CpuFunctions {
            functions: Vec::new(),
            shelf: Shelf::load(&refs, source, &team)?,
            frames: Vec::new(),
            carried: Vec::new(),
            kernels: options.instruction_set.kernels(),
            team,
            arena: SharedBytes::zeroed(0)?,
            scratch: Vec::new(),
            scratch_size: ScratchSize::default(),
            data: StepData::none(),
            options,
        };
        for graph in graphs {
            functions.add(graph)?;
        }
        Ok(functions)
    }

    /// Adds a graph whose weights are all there, and gives its number. What is carried stays.
    ///
    /// # Errors
    /// A graph over tokens, one with weights that no graph had before, and memory that the system refuses.
    pub fn add(&mut self, graph: Graph) -> Result<usize, CpuError> {
        let weights = self.shelf.bind(&graph)?;
        let program = compile_function(&graph, &weights.dtypes(), &self.options)?;
        // What can fail comes first, so that a refused graph leaves nothing.
        let mut frames = self.frames.clone();
        let own = places(&mut frames, &program)?;
        let new = frames[self.frames.len()..].iter().map(|frames| SharedBytes::zeroed(carried_bytes(frames)));
        let new: Vec<SharedBytes> = new.collect::<Result<_, _>>()?;
        if program.arena > self.arena.len() {
            self.arena = SharedBytes::zeroed_dense(program.arena)?;
        }
        let size = self.scratch_size.max(ScratchSize::of(&program, 1, self.kernels.pairs));
        if size != self.scratch_size {
            self.scratch = (0..self.options.threads).map(|_| Scratch::new(size)).collect();
            self.scratch_size = size;
        }
        self.frames = frames;
        self.carried.extend(new);
        let (turns, biases) = tables(&program, &weights);
        let attends = program.attends.iter().map(|a| AttendWork::new(a, self.options.threads)).collect();
        let one = cost::first_rows(1);
        let pace = Pace::new(&cost::costs(&graph, &weights.dtypes(), &program, &one, self.options.cache));
        self.functions.push(Function { graph, program, weights, turns, biases, attends, pace, carried: own });
        Ok(self.functions.len() - 1)
    }

    /// Memory it takes; carried frames count as cache.
    pub fn memory(&self) -> MemoryPlan {
        let programs: Vec<&Program> = self.functions.iter().map(|function| &function.program).collect();
        MemoryPlan {
            weights: self.shelf.bytes(),
            cache: self.carried.iter().map(SharedBytes::len).sum(),
            arena: working_bytes(&programs, &self.options),
        }
    }
}

/// Copies rows of `width` between memory whose rows lie `from_stride` and `to_stride` apart.
///
/// # Safety
/// Both are valid for so many rows.
unsafe fn copy_rows(
    from: *const f32,
    from_stride: usize,
    to: *mut f32,
    to_stride: usize,
    width: usize,
    rows: usize,
) {
    for row in 0..rows {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from.add(row * from_stride), to.add(row * to_stride), width) };
    }
}

impl Functions for CpuFunctions {
    fn run(&mut self, graph: usize, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, ExecError> {
        let fail = |what: String| Err(ExecError::InvalidInputs(what));
        let of = self.functions.len();
        let Some(function) = self.functions.get_mut(graph) else {
            return fail(format!("graph {graph} of {of}"));
        };
        let declared = function.graph.inputs();
        if declared.len() != inputs.len() {
            return fail(format!("{} values for {} inputs", inputs.len(), declared.len()));
        }
        for (input, values) in declared.iter().zip(inputs) {
            if input.shape.iter().product::<usize>() != values.len() {
                let (found, shape) = (values.len(), &input.shape);
                return fail(format!("`{}` has {found} elements, its shape is {shape:?}", input.name));
            }
        }
        let program = &function.program;
        let place = |id| {
            let buffer = program.buffer(id);
            // SAFETY: the buffer lies in the arena.
            let base = unsafe { self.arena.as_ptr().add(buffer.offset).cast::<f32>() };
            (base, buffer.stride(), buffer.width, buffer.capacity)
        };
        for (&id, values) in program.given.iter().zip(inputs) {
            let (base, stride, width, rows) = place(id);
            // SAFETY: no thread is running; the value has as many elements as its buffer has room for.
            unsafe { copy_rows(values.as_ptr(), width, base, stride, width, rows) };
        }
        let carried: Vec<&SharedBytes> = function.carried.iter().map(|&place| &self.carried[place]).collect();
        let batch = Batch::default();
        let context = step::Context {
            program,
            batch: &batch,
            data: &self.data,
            weights: &function.weights,
            kernels: self.kernels,
            turns: &function.turns,
            biases: &function.biases,
            carried: &carried,
            attends: &function.attends,
            arena: &self.arena,
            cache: &[],
            cache_type: self.options.cache,
            scratch: self.scratch.as_mut_ptr(),
            threads: self.options.threads,
        };
        run(&self.team, &context, &mut function.pace)?;
        let results = program.results.iter().map(|&id| {
            let (base, stride, width, rows) = place(id);
            let mut values = vec![0.0; rows * width];
            // SAFETY: all threads are done.
            unsafe { copy_rows(base, stride, values.as_mut_ptr(), width, width, rows) };
            values
        });
        Ok(results.collect())
    }

    fn reset(&mut self) {
        for carried in &self.carried {
            // SAFETY: no thread is running.
            unsafe { std::ptr::write_bytes(carried.as_ptr(), 0, carried.len()) };
        }
    }
}
