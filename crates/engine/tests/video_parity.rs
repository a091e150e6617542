//! Every stage of models that make video against what diffusers computes (`tests/fixtures/wan`, two tiny models in the
//! ways they are published), in single precision.

use std::path::{Path, PathBuf};

use wushi_cpu::{CpuFunctions, FunctionOptions, InstructionSet, reference};
use wushi_engine::video::{Rounding, Sampler, SamplerKind, Settings, Spacing, Wanted, guide};
use wushi_formats::gguf::Writer;
use wushi_formats::pipeline::{Part, Pipeline, Sources};
use wushi_graph::{CacheType, DType, Functions, Graph};
use wushi_models::pipeline::{Networks, Weights};

/// The largest difference, beside the largest number.
const TOLERANCE: f32 = 1e-4;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wan").join(name)
}

fn networks(name: &str) -> Networks {
    let pipeline = Sources::find(fixture(name)).and_then(Sources::open).expect("a pipeline");
    wushi_models::pipeline::open(pipeline).expect("a model")
}

/// What diffusers computed.
struct Dump(Part);

impl Dump {
    fn open(variant: &str) -> Dump {
        Dump::named(variant, "dump")
    }

    fn named(variant: &str, dump: &str) -> Dump {
        Dump(Part::open(fixture(variant).join(format!("{dump}.safetensors"))).expect("a dump"))
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let bytes = self.0.read(name).expect(name);
        bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect()
    }

    /// A prompt's token ids, up to the end mark.
    fn ids(&self, prompt: &str) -> Vec<u32> {
        let bytes = self.0.read(&format!("text.{prompt}.input_ids")).expect("ids");
        let ids: Vec<u32> =
            bytes.as_chunks().0.iter().map(|&eight| i64::from_le_bytes(eight) as u32).collect();
        let end = ids.iter().position(|&id| id == 1).expect("an end mark");
        ids[..=end].to_vec()
    }

    /// `[1, C, T, H, W]` as `[T, H, W, C]`, and its size.
    fn map(&self, name: &str) -> ([usize; 4], Vec<f32>) {
        let &[1, channels, frames, height, width] = self.0.shape(name).expect(name) else {
            panic!("{name} is no feature map")
        };
        let (values, pixels) = (self.values(name), frames * height * width);
        let last = (0..values.len()).map(|i| values[i % channels * pixels + i / channels]).collect();
        ([frames, height, width, channels], last)
    }
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let difference = found.iter().zip(expected).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(found.iter().all(|x| x.is_finite()) && difference <= TOLERANCE * largest, "{what}: {difference}");
}

fn functions(graphs: Vec<Graph>, weights: &Weights) -> CpuFunctions {
    let options =
        FunctionOptions { threads: 2, instruction_set: InstructionSet::best(), cache: CacheType::F32 };
    CpuFunctions::new(graphs, weights, options).expect("functions")
}

/// The prompt's states, and a row of zeros behind them for all padding.
fn text(model: &Networks, dump: &Dump, prompt: &str) -> Vec<f32> {
    let encoder = &model.text_encoder;
    let states = reference::evaluate(&encoder.graph, &encoder.weights, &dump.ids(prompt), CacheType::F32)
        .expect("states");
    let expected = dump.values(&format!("text.{prompt}.embeds"));
    assert_close(&states, &expected[..states.len()], &format!("states of the {prompt}"));
    assert!(expected[states.len()..].iter().all(|&x| x == 0.0));
    [states, vec![0.0; model.model.text_dim]].concat()
}

fn denoiser(model: &Networks, dump: &Dump) {
    let ([frames, height, width, _], initial) = dump.map("latents.init");
    let denoiser = &model.denoiser;
    let timesteps: Vec<f32> = [999.0, 900.0, 750.0, 500.0].to_vec();
    for (prompt, which) in [("prompt", "cond"), ("negative", "uncond")] {
        let text = text(model, dump, prompt);
        let rows = text.len() / model.model.text_dim;
        let padding = model.model.text_len - (rows - 1);
        let graphs = vec![
            denoiser.context(rows).expect("a graph"),
            denoiser.denoise([frames, height, width], rows, padding).expect("a graph"),
        ];
        let mut run = functions(graphs, &denoiser.weights);
        let context = run.run(0, &[&text]).expect("a context");
        for (step, timestep) in timesteps.iter().enumerate() {
            let latent = match step {
                0 => initial.clone(),
                _ => dump.map(&format!("step{}.latents", step - 1)).1,
            };
            let mut inputs = vec![latent.as_slice(), std::slice::from_ref(timestep)];
            inputs.extend(context.iter().map(Vec::as_slice));
            let velocity = run.run(1, &inputs).expect("a velocity").remove(0);
            let name = format!("step{step}.{which}");
            assert_close(&velocity, &dump.map(&name).1, &name);
        }
    }
}

/// Every step from diffusers' own velocities.
fn steps(variant: &str, dump: &str, wanted: Wanted) {
    let (model, initial, dump) =
        (networks(&format!("{variant}/pipe")).model, Dump::open(variant), Dump::named(variant, dump));
    let mut latents = initial.map("latents.init").1;
    let (settings, _) = Settings::resolve(&wanted, &model).expect("settings");
    let schedule = settings.schedule(&model).expect("a schedule");
    assert_close(schedule.sigmas(), &dump.values("sched.sigmas"), "noise levels");
    let mut sampler = Sampler::new(settings.sampler, &schedule);
    for step in 0..settings.steps {
        let [mut velocity, conditional] =
            ["uncond", "cond"].map(|which| dump.map(&format!("step{step}.{which}")).1);
        guide(&mut velocity, &conditional, settings.guidance);
        sampler.step(&velocity, &mut latents);
        assert_close(&latents, &dump.map(&format!("step{step}.latents")).1, &format!("step {step}"));
    }
}

fn four_steps() -> Wanted {
    Wanted { steps: Some(4), guidance: Some(5.0), shift: Some(3.0), ..Wanted::default() }
}

#[test]
fn steps_of_unipc() {
    steps("wan21", "dump", four_steps());
    steps("ti2v5b", "dump", four_steps());
}

#[test]
fn steps_of_euler() {
    let (spacing, rounding) = (Some(Spacing::TwiceShifted), Some(Rounding::Exact));
    let wanted = Wanted { sampler: Some(SamplerKind::Euler), spacing, rounding, ..four_steps() };
    steps("wan21", "euler", wanted);
}

/// Frames `[T, H, W, 3]` in -1 to 1 as `[T, 3, H, W]` in 0 to 1.
fn pictures(frames: &[f32], pixels: usize) -> Vec<f32> {
    let element = |i: usize| {
        let (frame, channel, pixel) = (i / (3 * pixels), i / pixels % 3, i % pixels);
        (frames[(frame * pixels + pixel) * 3 + channel] / 2.0 + 0.5).clamp(0.0, 1.0)
    };
    (0..frames.len()).map(element).collect()
}

fn decoder(model: &Networks, dump: &Dump) {
    let ([frames, height, width, channels], latents) = dump.map("step3.latents");
    let (mean, std) = (&model.model.latent_mean, &model.model.latent_std);
    let scaled = |(i, x): (usize, &f32)| x * std[i % channels] + mean[i % channels];
    let latents: Vec<f32> = latents.iter().enumerate().map(scaled).collect();
    let decoder = &model.decoder;
    let graphs = vec![
        decoder.first(height, width).expect("a graph"),
        decoder.next(1, height, width).expect("a graph"),
        decoder.next(frames - 1, height, width).expect("a graph"),
    ];
    let mut run = functions(graphs, &decoder.weights);
    let expected = dump.values("video");
    let pixels = height * width * model.model.spatial_stride.pow(2);
    let (mut streamed, mut done) = (Vec::new(), 0);
    for (frame, latent) in latents.chunks(latents.len() / frames).enumerate() {
        let chunk = run.run(frame.min(1), &[latent]).expect("frames").remove(0);
        assert_eq!(chunk.len(), if frame == 0 { 1 } else { model.model.temporal_stride } * 3 * pixels);
        let shown = pictures(&chunk, pixels);
        assert_close(&shown, &expected[done..][..shown.len()], &format!("frames of latent frame {frame}"));
        done += shown.len();
        streamed.extend(chunk);
    }
    assert_eq!(done, expected.len());
    // The same bits, however the latents are cut.
    run.reset();
    let (first, others) = latents.split_at(latents.len() / frames);
    let mut whole = run.run(0, &[first]).expect("a frame").remove(0);
    whole.extend(run.run(2, &[others]).expect("frames").remove(0));
    assert!(streamed.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits()));
}

macro_rules! parity {
    ($($test:ident: $variant:literal, $layout:literal;)*) => {$(
        #[test]
        fn $test() {
            let (model, dump) = (networks(concat!($variant, "/", $layout)), Dump::open($variant));
            denoiser(&model, &dump);
            decoder(&model, &dump);
        }
    )*};
}

parity! {
    a_folder_of_diffusers: "wan21", "pipe";
    the_original_layout: "wan21", "original";
    larger_strides_and_shortcuts: "ti2v5b", "pipe";
}

/// The denoiser as a GGUF file with matrices in Q8_0, as far as their rows are whole blocks: what comes out is near.
#[test]
fn quantised_files() {
    let pipeline = Sources::find(fixture("wan21/original")).and_then(Sources::open).expect("a pipeline");
    let folder = tempfile::tempdir().expect("a folder");
    let mut file = Writer::new();
    let mut quantised = 0;
    for tensor in pipeline.transformer.tensors() {
        let bytes = pipeline.transformer.read(&tensor.name).expect("bytes").into_owned();
        let (dtype, bytes) = match tensor.shape[..] {
            [_, row] if row % 32 == 0 => {
                let values: Vec<f32> =
                    bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
                let mut blocks = vec![0; DType::Q8_0.bytes_of(values.len()).expect("whole blocks")];
                wushi_quant::quantize_into(DType::Q8_0, &values, &mut blocks).expect("numbers");
                quantised += 1;
                (DType::Q8_0, blocks)
            }
            _ => (DType::F32, bytes),
        };
        let mut shape = tensor.shape.clone();
        if shape.len() == 5 {
            let outputs = shape.remove(0);
            shape[0] *= outputs;
        }
        file.tensor(tensor.name.as_str(), dtype, &shape, bytes).expect("a tensor");
    }
    assert_eq!(quantised, 6 + 3 * 9);
    std::fs::write(folder.path().join("model.gguf"), file.to_bytes().expect("a file")).expect("written");
    std::fs::copy(fixture("wan21/original/config.json"), folder.path().join("config.json")).expect("copied");
    let transformer = Part::open(folder.path()).expect("a part");
    let model = wushi_models::pipeline::open(Pipeline { transformer, ..pipeline }).expect("a model");
    let dump = Dump::open("wan21");
    let ([frames, height, width, _], latent) = dump.map("latents.init");
    let text = text(&model, &dump, "prompt");
    let rows = text.len() / model.model.text_dim;
    let graphs = vec![
        model.denoiser.context(rows).expect("a graph"),
        model.denoiser.denoise([frames, height, width], rows, 512 - (rows - 1)).expect("a graph"),
    ];
    let mut run = functions(graphs, &model.denoiser.weights);
    let context = run.run(0, &[&text]).expect("a context");
    let mut inputs = vec![latent.as_slice(), &[999.0]];
    inputs.extend(context.iter().map(Vec::as_slice));
    let velocity = run.run(1, &inputs).expect("a velocity").remove(0);
    let (_, expected) = dump.map("step0.cond");
    let power = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let noise = power(&mut velocity.iter().zip(&expected).map(|(a, b)| a - b));
    let signal = power(&mut expected.iter().copied());
    assert!(noise < 1e-3 * signal, "{}", noise / signal);
}
