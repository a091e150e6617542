//! `wushi inspect` of a model that makes videos: its networks, and the schedules of its denoiser and its decoder.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use wushi_cpu::StepCost;
use wushi_engine::load::Size;
use wushi_engine::video::{Change, Settings, VideoError, VideoModel, VideoNetworks, Wanted};
use wushi_formats::pipeline::{Layout, Part, Pipeline, Sources};

use super::{print_schedule, step_json};
use crate::args::InspectArgs;
use crate::commands::video::source;
use crate::knobs::{Compute, Networks};
use crate::output::{self, Table, one_line};

/// What the knobs of all models say about these.
pub(crate) fn networks(compute: &Compute) -> Networks {
    let Compute { quant, threads, isa, memory, .. } = *compute;
    Networks { quant, threads, isa, memory, ..Networks::default() }
}

/// A model's parts, by what people call them.
fn parts(pipeline: &Pipeline) -> Vec<(&'static str, &Part)> {
    let mut parts = vec![("text encoder", &pipeline.text_encoder), ("denoiser", &pipeline.transformer)];
    parts.extend(pipeline.transformer_2.as_ref().map(|second| ("second denoiser", second)));
    parts.push(("VAE", &pipeline.vae));
    parts
}

/// Tensors, elements and bytes of each storage type.
fn types(part: &Part) -> BTreeMap<&str, (u64, u64, u64)> {
    let mut types = BTreeMap::new();
    for tensor in part.tensors() {
        let (tensors, elements, bytes) = types.entry(tensor.stored.as_str()).or_insert((0, 0, 0));
        *tensors += 1;
        *elements += tensor.elements() as u64;
        *bytes += tensor.bytes() as u64;
    }
    types
}

fn layout(sources: &Sources) -> &'static str {
    match sources.layout {
        Layout::Diffusers => "diffusers' folder",
        Layout::Flat => "folder of the original release",
        _ => "files named one by one",
    }
}

/// What `--schedule` shows.
struct Schedules {
    settings: Settings,
    changes: Vec<Change>,
    parts: Vec<(&'static str, Vec<StepCost>)>,
}

impl Schedules {
    fn new(args: &InspectArgs, networks: &VideoNetworks) -> Result<Schedules> {
        let wanted = Wanted { size: args.size, frames: args.frames, ..Wanted::default() };
        let (settings, changes) = Settings::resolve(&wanted, networks.model())?;
        let parts = networks.schedules(&settings)?;
        Ok(Schedules { settings, changes, parts })
    }
}

pub(crate) fn run(args: &InspectArgs, sources: Sources, compute: &Compute) -> Result<ExitCode> {
    let pipeline = sources.clone().open()?;
    // What cannot run can still be looked at; only its schedules cannot.
    let opened = VideoNetworks::open(sources, source::options(&networks(compute))?);
    let schedules = match &opened {
        Ok(networks) if args.schedule => Some(Schedules::new(args, networks)?),
        _ => None,
    };
    if args.json {
        output::json(&report(args, &pipeline, &opened, schedules.as_ref()))?;
    } else {
        print(args, &pipeline, &opened, schedules.as_ref())?;
    }
    match opened {
        Err(error) if args.schedule => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn report(
    args: &InspectArgs,
    pipeline: &Pipeline,
    opened: &Result<VideoNetworks, VideoError>,
    schedules: Option<&Schedules>,
) -> Value {
    let part = |(name, part): &(&str, &Part)| {
        let files: Vec<Value> =
            part.files().map(|(path, bytes)| json!({ "path": path, "bytes": bytes })).collect();
        let tensors = part.tensors().iter().map(|tensor| {
            let bytes = tensor.bytes();
            json!({ "name": tensor.name, "type": tensor.stored, "shape": tensor.shape, "bytes": bytes })
        });
        let types = types(part);
        let types = types.iter().map(|(kind, (tensors, elements, bytes))| {
            json!({ "type": kind, "tensors": tensors, "elements": elements, "bytes": bytes })
        });
        json!({
            "part": name,
            "path": part.path(),
            "parameters": part.parameters(),
            "bytes": part.bytes(),
            "files": files,
            "types": types.collect::<Vec<_>>(),
            "tensors": tensors.collect::<Vec<_>>(),
        })
    };
    let parts = parts(pipeline);
    let mut report = json!({
        "model": args.model,
        "layout": layout(&pipeline.sources),
        "parameters": parts.iter().map(|(_, part)| part.parameters()).sum::<u64>(),
        "parts": parts.iter().map(part).collect::<Vec<_>>(),
        "tokenizer": pipeline.sources.tokenizer,
        "supported": opened.is_ok(),
        "unsupported_because": opened.as_ref().err().map(VideoError::to_string),
        "video": opened.as_ref().ok().map(|networks| video_json(networks.model())),
    });
    if let Some(Schedules { settings, parts, .. }) = schedules {
        let parts: Vec<Value> = parts
            .iter()
            .map(|(name, steps)| json!({ "part": name, "steps": steps.iter().map(step_json).collect::<Vec<_>>() }))
            .collect();
        let Settings { width, height, frames, .. } = settings;
        report["schedule"] = json!({ "width": width, "height": height, "frames": frames, "parts": parts });
    }
    report
}

fn video_json(model: &VideoModel) -> Value {
    let defaults = &model.defaults;
    json!({
        "channels": model.channels,
        "temporal_stride": model.temporal_stride,
        "spatial_stride": model.spatial_stride,
        "patch": model.patch,
        "text_tokens": model.text_len,
        "boundary": model.boundary,
        "distilled": model.distilled,
        "defaults": {
            "width": defaults.width,
            "height": defaults.height,
            "frames": defaults.frames,
            "fps": defaults.fps,
            "steps": defaults.steps,
            "flow_shift": defaults.shift,
            "guidance": defaults.guidance,
            "guidance_2": defaults.guidance_low,
            "negative": defaults.negative,
        },
    })
}

fn print(
    args: &InspectArgs,
    pipeline: &Pipeline,
    opened: &Result<VideoNetworks, VideoError>,
    schedules: Option<&Schedules>,
) -> Result<()> {
    let fact = |name: &str, value: String| output::line(format_args!("{name:<14}{}", one_line(&value)));
    let parts = parts(pipeline);
    fact("makes", "videos".to_owned())?;
    fact("layout", layout(&pipeline.sources).to_owned())?;
    let parameters: u64 = parts.iter().map(|(_, part)| part.parameters()).sum();
    fact("parameters", millions(parameters))?;
    match opened {
        Ok(networks) => {
            let model = networks.model();
            let defaults = &model.defaults;
            fact("supported", "yes".to_owned())?;
            let [_, high, wide] = model.patch.map(|extent| extent * model.spatial_stride);
            fact(
                "sizes",
                format!("multiples of {wide}x{high}, 1 + a multiple of {} frames", model.temporal_stride),
            )?;
            let guidance = match defaults.guidance_low {
                Some(low) => format!("{} and {low}", defaults.guidance),
                None => defaults.guidance.to_string(),
            };
            fact(
                "by default",
                format!(
                    "{}x{}, {} frames at {} a second, {} steps, guidance {guidance}, shift {}",
                    defaults.width,
                    defaults.height,
                    defaults.frames,
                    defaults.fps,
                    defaults.steps,
                    defaults.shift
                ),
            )?;
        }
        Err(error) => fact("supported", format!("no: {error}"))?,
    }
    let mut table = Table::new(2, ["PART", "TYPE", "TENSORS", "PARAMETERS", "SIZE"]);
    for (name, part) in &parts {
        for (kind, (tensors, elements, bytes)) in types(part) {
            let cells = [kind.to_owned(), tensors.to_string(), millions(elements), Size(bytes).to_string()];
            let [kind, tensors, elements, bytes] = cells;
            table.row([(*name).to_owned(), kind, tensors, elements, bytes]);
        }
    }
    output::line(format_args!("\n{table}"))?;
    let mut files = Table::new(2, ["PART", "FILE", "SIZE"]);
    for (name, part) in &parts {
        for (path, bytes) in part.files() {
            let path = one_line(&path.display().to_string());
            files.row([(*name).to_owned(), path, Size(bytes).to_string()]);
        }
    }
    output::line(format_args!("\n{files}"))?;
    if args.tensors {
        let mut table = Table::new(4, ["PART", "TENSOR", "TYPE", "SHAPE", "SIZE"]);
        for (name, part) in &parts {
            for tensor in part.tensors() {
                let size = Size(tensor.bytes() as u64).to_string();
                let (tensor_name, shape) = (one_line(&tensor.name), format!("{:?}", tensor.shape));
                table.row([(*name).to_owned(), tensor_name, tensor.stored.clone(), shape, size]);
            }
        }
        output::line(format_args!("\n{table}"))?;
    }
    if let Some(Schedules { settings, changes, parts }) = schedules {
        for change in changes {
            output::line(format_args!("\n{change}"))?;
        }
        let Settings { width, height, frames, .. } = settings;
        for (name, steps) in parts {
            let what = match *name {
                "decode" => format!("to {name} a later latent frame of {width}x{height}"),
                _ => format!("to {name} {width}x{height}, {frames} frames, once"),
            };
            print_schedule(steps, &what)?;
        }
    }
    Ok(())
}

fn millions(parameters: u64) -> String {
    match parameters {
        0..1_000_000 => format!("{:.1} k", parameters as f64 / 1e3),
        _ => format!("{:.1} M", parameters as f64 / 1e6),
    }
}
