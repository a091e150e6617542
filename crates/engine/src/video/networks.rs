//! The networks of a model on this machine: what they take is known before anything is loaded, each is loaded when its turn
//! comes, and dropped after it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use wushi_cpu::{
    CpuError, CpuExecutor, CpuFunctions, Follow, FunctionOptions, InstructionSet, Options, PAGE_TOKENS,
    StepCost, Team, function_schedule, plan_functions,
};
use wushi_formats::pipeline::{Sources, prompt};
use wushi_formats::{FormatError, Tokenizer};
use wushi_graph::{
    Batch, CacheType, DType, ExecError, Executor, Functions, Graph, PageId, Role, WeightSource,
};
use wushi_models::ModelError;
use wushi_models::pipeline::{Decoder, Denoiser, Networks, TextEncoder, Weights};
use wushi_quant::storage;

use super::pipeline::{Decoder as Decode, Denoiser as Denoise, Parts, TextEncoder as Encode};
use super::rates::measure_rates;
use super::{
    Change, LatentShape, Limit, Memory, PartError, Plan, Rates, Settings, Stage, TextStates, VideoError,
    VideoModel, Work, kept_bytes,
};
use crate::memory;
use crate::retyped::Retyped;

/// How a model's networks are loaded.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// The threads that compute.
    pub team: Team,
    /// Which kernels; all give the same bits.
    pub instruction_set: InstructionSet,
    /// The type that matrices of text encoder and denoisers are quantised to on their way. `None`: as they are stored.
    pub quant: Option<DType>,
    /// The type of the decoder's convolutions: F32, F16 or BF16. `None`: as they are stored.
    pub decoder: Option<DType>,
    /// The type that keys and values of the denoiser's attention are rounded to. `None`: F32 where its matrices are F32,
    /// F16 otherwise.
    pub cache: Option<CacheType>,
    /// Bytes that may be taken. `None`: what is available.
    pub memory: Option<u64>,
}

/// What a run finds done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The prompts' states.
    pub states: bool,
    /// So many steps of denoising.
    pub steps: usize,
    /// The denoised latents.
    pub latents: bool,
}

/// A model that makes video, opened: nothing of it is loaded yet.
pub struct VideoNetworks {
    networks: Networks,
    tokenizer: Tokenizer,
    options: NetworkOptions,
    latents_digest: String,
    encoder_digest: String,
    decoder_digest: String,
}

impl VideoNetworks {
    /// Opens a model's files, and checks that every weight is there. Reads no weight.
    pub fn open(sources: Sources, options: NetworkOptions) -> Result<VideoNetworks, VideoError> {
        let pipeline = sources.open()?;
        let tokenizer_of = pipeline.clone();
        let networks = wushi_models::pipeline::open(pipeline)?;
        let tokenizer = tokenizer_of.tokenizer(networks.text_encoder.vocabulary)?;
        let encoder_digest = digest(&[&networks.text_encoder.weights], &options, &tokenizer);
        let denoisers = [Some(&networks.denoiser), networks.denoiser_low.as_ref()];
        let mut parts: Vec<&Weights> = denoisers.into_iter().flatten().map(|d| &d.weights).collect();
        parts.push(&networks.text_encoder.weights);
        let VideoModel { boundary, text_len, train_timesteps, .. } = networks.model;
        let sampled =
            format!("{boundary:?} {text_len} {train_timesteps} {}", digest(&parts, &options, &tokenizer));
        let latents_digest = blake3::hash(sampled.as_bytes()).to_hex().to_string();
        let mut hasher = blake3::Hasher::new();
        let how = format!("arithmetic {} as {:?}\n", wushi_cpu::ARITHMETIC_VERSION, options.decoder);
        hasher.update(how.as_bytes());
        networks.decoder.weights.part().identify(&mut |bytes| {
            hasher.update(bytes);
        });
        let decoder_digest = hasher.finalize().to_hex().to_string();
        Ok(VideoNetworks { networks, tokenizer, options, latents_digest, encoder_digest, decoder_digest })
    }

    /// The model in numbers.
    pub fn model(&self) -> &VideoModel {
        &self.networks.model
    }

    /// Tells what latents follow from, the settings aside: weights of text encoder and denoisers, and how they are computed.
    pub fn latents_digest(&self) -> &str {
        &self.latents_digest
    }

    /// Tells what a prompt's states follow from.
    pub fn encoder_digest(&self) -> &str {
        &self.encoder_digest
    }

    /// Tells what frames follow from, the latents aside.
    pub fn decoder_digest(&self) -> &str {
        &self.decoder_digest
    }

    /// The tokens of a prompt, its end included, however many the model reads of them.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, VideoError> {
        Ok(tokens_of(&self.tokenizer, text)?)
    }

    /// How the networks are loaded.
    pub fn options(&self) -> &NetworkOptions {
        &self.options
    }

    /// The memory that a run may take, if anything limits it.
    pub fn limit(&self) -> Option<Limit> {
        let budget = self.options.memory;
        let bytes = budget.or_else(memory::available)?;
        Some(Limit { bytes, budget: budget.is_some() })
    }

    /// The most matrices' type of the first denoiser.
    pub fn denoiser_type(&self) -> DType {
        let denoiser = &self.networks.denoiser;
        match self.denoiser_source(denoiser) {
            Ok((source, _)) => main_type(&denoiser.weights, &source),
            // Who makes the graphs tells why they cannot be.
            Err(_) => main_type(&denoiser.weights, &denoiser.weights),
        }
    }

    /// The type of the decoder's convolutions.
    pub fn decoder_type(&self) -> DType {
        let weights = &self.networks.decoder.weights;
        self.options.decoder.unwrap_or_else(|| main_type(weights, weights))
    }

    /// Which matrices of text encoder and denoisers could not be quantised to the type that was wanted, in a sentence.
    pub fn instead(&self) -> Result<Option<String>, VideoError> {
        let Some(wanted) = self.options.quant else { return Ok(None) };
        let encoder = &self.networks.text_encoder;
        let mut parts = vec![(&encoder.weights, vec![encoder.graph.clone()])];
        let denoisers = [Some(&self.networks.denoiser), self.networks.denoiser_low.as_ref()];
        for denoiser in denoisers.into_iter().flatten() {
            parts.push((&denoiser.weights, self.smallest_graphs(denoiser)?));
        }
        let mut given = BTreeMap::<DType, usize>::new();
        for (weights, graphs) in &parts {
            let source = quantised(weights, graphs, Some(wanted), &self.options);
            let matrices = graphs.iter().flat_map(Graph::weights).filter(|decl| is_matrix(decl.role));
            // Graphs of one network may share weights.
            let names: BTreeSet<&str> = matrices.map(|decl| decl.name.as_str()).collect();
            for name in names {
                if let Some(found) = source.describe(name) {
                    *given.entry(found.dtype).or_default() += 1;
                }
            }
        }
        Ok(crate::weights::instead(wanted, &given))
    }

    /// Memory and operations of a run with these settings, but for what is there already; refuses what cannot fit, and says
    /// what would.
    pub fn plan(&self, settings: &Settings, ready: Ready) -> Result<Plan, VideoError> {
        self.plan_within(settings, ready, self.limit())
    }

    /// [`VideoNetworks::plan`] for a run that may take other memory than there is at this moment. Without a limit nothing is
    /// refused.
    pub fn plan_within(
        &self,
        settings: &Settings,
        ready: Ready,
        limit: Option<Limit>,
    ) -> Result<Plan, VideoError> {
        Plan::new(settings, self.model(), limit, |settings| self.stages(settings, ready))
    }

    /// The schedules of a run with these settings: by part, what it does and with what cost. The text is taken to have
    /// `rows` tokens.
    pub fn schedules(&self, settings: &Settings) -> Result<Vec<(&'static str, Vec<StepCost>)>, VideoError> {
        let shape = settings.latents;
        let (source, options) = self.denoiser_source(&self.networks.denoiser)?;
        let graph = denoise_graph(&self.networks.denoiser, shape, self.model(), TYPICAL_TOKENS)?;
        let denoise = function_schedule(&graph, &source, &options)?;
        let source = self.decoder_source();
        let next = self.networks.decoder.next(1, shape.height, shape.width)?;
        Ok(vec![
            ("denoise", denoise),
            ("decode", function_schedule(&next, &source, &self.functions(CacheType::F32))?),
        ])
    }

    fn functions(&self, cache: CacheType) -> FunctionOptions {
        let NetworkOptions { team, instruction_set, .. } = &self.options;
        FunctionOptions { threads: team.threads(), instruction_set: *instruction_set, cache }
    }

    fn denoiser_source<'a>(
        &self,
        denoiser: &'a Denoiser,
    ) -> Result<(Retyped<&'a Weights>, FunctionOptions), ModelError> {
        let weights = &denoiser.weights;
        let graphs = self.smallest_graphs(denoiser)?;
        let source = quantised(weights, &graphs, self.options.quant, &self.options);
        let main = main_type(weights, &source);
        let default = if main == DType::F32 { CacheType::F32 } else { CacheType::F16 };
        Ok((source, self.functions(self.options.cache.unwrap_or(default))))
    }

    /// Graphs that declare every weight of a denoiser, of any size.
    fn smallest_graphs(&self, denoiser: &Denoiser) -> Result<Vec<Graph>, ModelError> {
        let [_, height, width] = self.model().patch;
        Ok(vec![denoiser.context(1)?, denoiser.denoise([1, height, width], 1, 0)?])
    }

    fn decoder_source(&self) -> Retyped<&Weights> {
        let weights = &self.networks.decoder.weights;
        let mut changed = HashMap::new();
        if let (Some(wanted), Ok(graph)) = (self.options.decoder, self.networks.decoder.next(1, 1, 1)) {
            for decl in graph.weights().iter().filter(|decl| decl.role == Role::Kernel) {
                if weights.describe(&decl.name).is_some_and(|found| found.dtype != wanted) {
                    changed.insert(decl.name.clone(), wanted);
                }
            }
        }
        Retyped::new(weights, changed, Some(self.options.team.clone()))
    }

    fn encoder_source(&self) -> Retyped<&Weights> {
        let encoder = &self.networks.text_encoder;
        quantised(&encoder.weights, std::slice::from_ref(&encoder.graph), self.options.quant, &self.options)
    }

    fn encoder_options(&self) -> Options {
        let text_len = self.model().text_len;
        Options {
            threads: self.options.team.threads(),
            instruction_set: self.options.instruction_set,
            cache: CacheType::F32,
            context: text_len,
            pages: text_len.div_ceil(PAGE_TOKENS),
            max_rows: text_len,
            max_logit_rows: 1,
        }
    }

    fn stages(&self, settings: &Settings, ready: Ready) -> Result<Vec<Stage>, VideoError> {
        if ready.latents {
            return Ok(vec![self.decode_stage(settings)?]);
        }
        let mut stages = Vec::new();
        if !ready.states {
            stages.push(self.text_stage()?);
        }
        let forwards = settings.forwards_after(ready.steps, self.model())?;
        let denoisers = [Some(&self.networks.denoiser), self.networks.denoiser_low.as_ref()];
        for (denoiser, runs) in denoisers.into_iter().zip(forwards) {
            if let Some(denoiser) = denoiser.filter(|_| runs > 0) {
                stages.push(self.denoise_stage(denoiser, settings, runs as u64)?);
            }
        }
        stages.push(self.decode_stage(settings)?);
        Ok(stages)
    }

    fn text_stage(&self) -> Result<Stage, VideoError> {
        let source = self.encoder_source();
        let (graph, options) = (&self.networks.text_encoder.graph, self.encoder_options());
        let plan = wushi_cpu::plan(graph, &source, &options)?;
        let memory = memory_of(plan, 0);
        let steps = wushi_cpu::schedule(graph, &source, &options, TYPICAL_TOKENS.min(self.model().text_len))?;
        Ok(Stage { name: "reading the prompt", memory, work: vec![(work_of(&steps), 2)] })
    }

    fn denoise_stage(
        &self,
        denoiser: &Denoiser,
        settings: &Settings,
        runs: u64,
    ) -> Result<Stage, VideoError> {
        let (source, options) = self.denoiser_source(denoiser)?;
        // Memory for the longest prompt, as none may take more than was planned; time for a usual one.
        let rows = self.model().text_len;
        let graphs =
            [denoiser.context(rows)?, denoise_graph(denoiser, settings.latents, self.model(), rows)?];
        let plan = plan_functions(&[&graphs[0], &graphs[1]], &source, &options)?;
        // Two prompts' keys and values, and those of the run.
        let context = 2 * 2 * denoiser.layers() * denoiser.width() * rows * size_of::<f32>();
        let memory = memory_of(plan, kept_bytes(settings) + context as u64);
        let usual = denoise_graph(denoiser, settings.latents, self.model(), TYPICAL_TOKENS)?;
        let steps = function_schedule(&usual, &source, &options)?;
        Ok(Stage { name: "denoising", memory, work: vec![(work_of(&steps), runs)] })
    }

    fn decode_stage(&self, settings: &Settings) -> Result<Stage, VideoError> {
        let (source, options) = (self.decoder_source(), self.functions(CacheType::F32));
        let LatentShape { frames, height, width, .. } = settings.latents;
        let decoder = &self.networks.decoder;
        let mut graphs = vec![decoder.first(height, width)?];
        if frames > 1 {
            graphs.push(decoder.next(1, height, width)?);
        }
        let refs: Vec<&Graph> = graphs.iter().collect();
        let plan = plan_functions(&refs, &source, &options)?;
        let mut work = Vec::new();
        for (graph, runs) in refs.into_iter().zip([1, frames as u64 - 1]) {
            work.push((work_of(&function_schedule(graph, &source, &options)?), runs));
        }
        // The latents, and the frames of one latent frame on their way out.
        let pixels = 2 * 3 * settings.width * settings.height * self.model().temporal_stride;
        let kept = size_of::<f32>() * (settings.latents.elements() + pixels);
        Ok(Stage { name: "decoding", memory: memory_of(plan, kept as u64), work })
    }

    /// What of the prompts is not read, because they are too long.
    pub fn cut(&self, prompt: &str, settings: &Settings) -> Result<Vec<Change>, VideoError> {
        let used = self.model().text_len;
        let guided = settings.forwards(self.model())?.iter().sum::<usize>() > settings.steps;
        let mut changes = Vec::new();
        for (negative, text) in [(false, prompt), (true, settings.negative.as_str())] {
            let wanted = if negative && !guided { 0 } else { tokens_of(&self.tokenizer, text)?.len() };
            if wanted > used {
                changes.push(Change::Prompt { negative, wanted, used });
            }
        }
        Ok(changes)
    }

    /// What this machine does in a second with this model's types.
    pub fn rates(&self) -> Result<Rates, VideoError> {
        let (_, how) = self.denoiser_source(&self.networks.denoiser)?;
        measure_rates(self.denoiser_type(), self.decoder_type(), &self.options, &how)
    }

    /// The networks for a run with these settings, which `follow` can stop at any time.
    pub fn parts<'a>(&'a self, settings: &'a Settings, follow: &Arc<Follow>) -> impl Parts + 'a {
        LoadedParts { networks: self, latents: settings.latents, follow: Arc::clone(follow) }
    }
}

/// Tokens of a prompt, where no prompt is known yet.
const TYPICAL_TOKENS: usize = 64;

/// The rows of text that a denoiser is given for so many tokens, and how many rows the last of them stands for (0 if only for
/// itself).
fn rows_of(tokens: usize, model: &VideoModel) -> (usize, usize) {
    let tokens = tokens.min(model.text_len);
    match model.text_len - tokens {
        0 => (tokens, 0),
        padding => (tokens + 1, padding),
    }
}

fn denoise_graph(
    denoiser: &Denoiser,
    shape: LatentShape,
    model: &VideoModel,
    tokens: usize,
) -> Result<Graph, VideoError> {
    let (rows, padding) = rows_of(tokens, model);
    Ok(denoiser.denoise([shape.frames, shape.height, shape.width], rows, padding)?)
}

fn memory_of(plan: wushi_cpu::MemoryPlan, kept: u64) -> Memory {
    let [weights, arena, carried] = [plan.weights, plan.arena, plan.cache].map(|bytes| bytes as u64);
    Memory { weights, arena, carried, kept }
}

fn work_of(steps: &[StepCost]) -> Work {
    let mut work = Work::default();
    for step in steps {
        match step.kernel {
            "attention" => work.attention += step.macs,
            "conv3d" => work.convolution += step.macs,
            _ => work.linear += step.macs,
        }
        work.bytes += step.weight_bytes;
    }
    work
}

/// The type that most elements of a network have, as `source` gives them.
fn main_type(weights: &Weights, source: &dyn WeightSource) -> DType {
    let mut totals = HashMap::<DType, usize>::new();
    for (name, _) in weights.names() {
        if let Some(found) = source.describe(name) {
            *totals.entry(found.dtype).or_default() += found.shape.iter().product::<usize>();
        }
    }
    let main = totals.into_iter().max_by_key(|&(dtype, elements)| (elements, dtype)).map(|(dtype, _)| dtype);
    main.unwrap_or(DType::F32)
}

fn is_matrix(role: Role) -> bool {
    matches!(role, Role::Matrix | Role::Embedding)
}

/// Matrices and tables as `wanted`, as far as their rows allow; everything else as it is stored.
fn quantised<'a>(
    weights: &'a Weights,
    graphs: &[Graph],
    wanted: Option<DType>,
    options: &NetworkOptions,
) -> Retyped<&'a Weights> {
    let mut changed = HashMap::new();
    for decl in graphs.iter().flat_map(Graph::weights) {
        let found = weights.describe(&decl.name);
        if let (Some(wanted), Some(found), true) = (wanted, found, is_matrix(decl.role)) {
            let becomes = storage(decl.role, false, wanted, found.shape.last().copied().unwrap_or(1));
            if becomes != found.dtype {
                changed.insert(decl.name.clone(), becomes);
            }
        }
    }
    Retyped::new(weights, changed, Some(options.team.clone()))
}

/// A digest of weights and of how they are computed.
fn digest(parts: &[&Weights], options: &NetworkOptions, tokenizer: &Tokenizer) -> String {
    let mut hasher = blake3::Hasher::new();
    let NetworkOptions { quant, cache, .. } = options;
    let how = format!("arithmetic {} quant {quant:?} cache {cache:?}\n", wushi_cpu::ARITHMETIC_VERSION);
    hasher.update(how.as_bytes());
    for id in 0..tokenizer.vocab_size() as u32 {
        hasher.update(tokenizer.token_bytes(id)).update(b"\n");
    }
    for part in parts {
        // What it says decides heads and epsilons, which no tensor shows.
        hasher.update(format!("{:?}\n", part.part().config()).as_bytes());
        part.part().identify(&mut |bytes| {
            hasher.update(bytes);
        });
    }
    hasher.finalize().to_hex().to_string()
}

/// Errors about a weight by the name that its file has, with the file: nobody knows ours.
fn located(weights: &Weights) -> impl Fn(CpuError) -> PartError {
    move |error| {
        if let CpuError::Stopped = error {
            return ExecError::Stopped.into();
        }
        let text = error.to_string();
        let quoted = |name: &str| format!("`{name}`");
        match weights.names().find(|(ours, _)| text.contains(&quoted(ours))) {
            Some((ours, theirs)) => {
                let path = weights.part().path().display();
                format!("{path}: {}", text.replace(&quoted(ours), &quoted(theirs))).into()
            }
            None => error.into(),
        }
    }
}

/// The networks of a run, loaded one by one.
struct LoadedParts<'a> {
    networks: &'a VideoNetworks,
    latents: LatentShape,
    follow: Arc<Follow>,
}

impl<'a> Parts for LoadedParts<'a> {
    type Text = LoadedEncoder<'a>;
    type Denoiser = LoadedDenoiser<'a>;
    type Decoder = LoadedDecoder;

    fn text_encoder(&mut self) -> Result<LoadedEncoder<'a>, PartError> {
        let VideoNetworks { networks, tokenizer, options, .. } = self.networks;
        let TextEncoder { graph, width, .. } = &networks.text_encoder;
        let (source, executor_options) = (self.networks.encoder_source(), self.networks.encoder_options());
        let pages = (0..executor_options.pages as PageId).collect();
        let team = options.team.followed(Arc::clone(&self.follow));
        let executor = CpuExecutor::on(team, graph.clone(), &source, executor_options)
            .map_err(located(&networks.text_encoder.weights))?;
        Ok(LoadedEncoder { executor, tokenizer, text_len: networks.model.text_len, width: *width, pages })
    }

    fn denoiser(&mut self, which: usize) -> Result<LoadedDenoiser<'a>, PartError> {
        let networks = &self.networks.networks;
        let denoiser = match which {
            0 => &networks.denoiser,
            _ => networks.denoiser_low.as_ref().ok_or("the model has one denoiser only")?,
        };
        let (source, options) = self.networks.denoiser_source(denoiser)?;
        // Of any size, for their weights; those of the run follow when the prompts' lengths are known.
        let graphs = self.networks.smallest_graphs(denoiser)?;
        let team = self.networks.options.team.followed(Arc::clone(&self.follow));
        let functions =
            CpuFunctions::on(team, graphs, &source, options).map_err(located(&denoiser.weights))?;
        let (model, latents) = (&networks.model, self.latents);
        Ok(LoadedDenoiser { denoiser, model, latents, functions, lengths: Vec::new() })
    }

    fn decoder(&mut self) -> Result<LoadedDecoder, PartError> {
        let decoder: &Decoder = &self.networks.networks.decoder;
        let LatentShape { frames, height, width, .. } = self.latents;
        let mut graphs = vec![decoder.first(height, width)?];
        if frames > 1 {
            graphs.push(decoder.next(1, height, width)?);
        }
        let (source, options) = (self.networks.decoder_source(), self.networks.functions(CacheType::F32));
        let team = self.networks.options.team.followed(Arc::clone(&self.follow));
        let functions =
            CpuFunctions::on(team, graphs, &source, options).map_err(located(&decoder.weights))?;
        Ok(LoadedDecoder { functions, begun: false })
    }
}

/// Tokens of a prompt, the end mark included.
fn tokens_of(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, FormatError> {
    tokenizer.encode(&prompt::clean(text)?, true, false)
}

struct LoadedEncoder<'a> {
    executor: CpuExecutor,
    tokenizer: &'a Tokenizer,
    text_len: usize,
    width: usize,
    /// The only sequence has all pages.
    pages: Vec<PageId>,
}

impl Encode for LoadedEncoder<'_> {
    fn encode(&mut self, text: &str) -> Result<TextStates, PartError> {
        let mut tokens = tokens_of(self.tokenizer, text)?;
        if tokens.len() > self.text_len {
            let last = tokens.pop();
            // The end is still said.
            tokens.truncate(self.text_len - 1);
            tokens.extend(last);
        }
        let mut batch = Batch::default();
        batch.push(&tokens, 0, &self.pages[..tokens.len().div_ceil(PAGE_TOKENS)]);
        batch.state_rows.extend(0..tokens.len());
        let values = self.executor.run(&batch)?.states.to_vec();
        debug_assert_eq!(values.len(), tokens.len() * self.width);
        Ok(TextStates { rows: tokens.len(), values })
    }
}

/// The graph of a step of denoising for prompts of one length.
struct ForLength {
    tokens: usize,
    context: usize,
    denoise: usize,
}

struct LoadedDenoiser<'a> {
    denoiser: &'a Denoiser,
    model: &'a VideoModel,
    latents: LatentShape,
    functions: CpuFunctions,
    lengths: Vec<ForLength>,
}

/// What a prompt becomes for one denoiser.
struct Context {
    /// Place among the denoiser's lengths.
    length: usize,
    /// Keys and values of all layers, in turn.
    values: Vec<Vec<f32>>,
}

impl Denoise for LoadedDenoiser<'_> {
    type Context = Context;

    fn prepare(&mut self, states: &TextStates) -> Result<Context, PartError> {
        let tokens = states.rows;
        let length = match self.lengths.iter().position(|length| length.tokens == tokens) {
            Some(length) => length,
            None => {
                let context = self.functions.add(self.denoiser.context(rows_of(tokens, self.model).0)?)?;
                let graph = denoise_graph(self.denoiser, self.latents, self.model, tokens)?;
                let denoise = self.functions.add(graph)?;
                self.lengths.push(ForLength { tokens, context, denoise });
                self.lengths.len() - 1
            }
        };
        // One row of zeros stands for all behind the prompt.
        let mut text = states.values.clone();
        text.resize(rows_of(tokens, self.model).0 * self.model.text_dim, 0.0);
        let values = self.functions.run(self.lengths[length].context, &[&text])?;
        Ok(Context { length, values })
    }

    fn velocity(
        &mut self,
        latents: &[f32],
        timestep: f32,
        context: &Context,
        velocity: &mut [f32],
    ) -> Result<(), PartError> {
        let timestep = [timestep];
        let mut inputs: Vec<&[f32]> = vec![latents, &timestep];
        inputs.extend(context.values.iter().map(Vec::as_slice));
        let found = self.functions.run(self.lengths[context.length].denoise, &inputs)?;
        velocity.copy_from_slice(&found[0]);
        Ok(())
    }
}

struct LoadedDecoder {
    functions: CpuFunctions,
    /// Whether the first latent frame was decoded.
    begun: bool,
}

impl Decode for LoadedDecoder {
    fn reset(&mut self) {
        self.functions.reset();
        self.begun = false;
    }

    fn decode(&mut self, latent: &[f32], frames: &mut Vec<f32>) -> Result<(), PartError> {
        let graph = usize::from(self.begun);
        frames.extend_from_slice(&self.functions.run(graph, &[latent])?[0]);
        self.begun = true;
        Ok(())
    }
}
