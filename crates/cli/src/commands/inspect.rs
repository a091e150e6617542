//! `wushi inspect`: what a model is, and the schedule it compiles to.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wushi_cpu::StepCost;
use wushi_engine::Weights;
use wushi_engine::load::{self, DescribeError, Description, LoadOptions, Size};
use wushi_formats::checkpoint::Container;
use wushi_formats::{Checkpoint, Metadata};

use crate::args::InspectArgs;
use crate::commands::video::source;
use crate::output::{Table, one_line};
use crate::{App, model, output};

pub(crate) mod video;

pub(crate) fn run(args: InspectArgs, app: &App) -> Result<ExitCode> {
    let compute = args.compute.clone().resolve(&app.layers)?;
    let path = model::locate(&args.model, app)?;
    let in_file = || path.display().to_string();
    if let Some(sources) = source::recognise(&path, &args.files)? {
        return video::run(&args, sources, &compute);
    }
    let checkpoint = wushi_models::open(&path)?;
    // A file that cannot run can still be looked at; only its schedule cannot.
    let described = load::describe(&checkpoint);
    let weights = match (compute.quant, &described) {
        (Some(wanted), Ok(description)) => {
            Weights::quantised(checkpoint, &description.model.graph, wanted, None)
        }
        _ => Weights::stored(checkpoint),
    };
    let steps = match (args.schedule, &described) {
        (false, _) => None,
        (true, Ok(description)) => {
            let options = model::load_options(path.clone(), &compute);
            Some(schedule(&weights, description, &options, args.rows).with_context(in_file)?)
        }
        (true, Err(_)) => None,
    };
    let checkpoint = weights.checkpoint();
    if args.json {
        output::json(&report(&args, checkpoint, &described, steps.as_deref()).with_context(in_file)?)?;
    } else {
        print(&args, checkpoint, &described, steps.as_deref()).with_context(in_file)?;
    }
    match (args.schedule, described) {
        (true, Err(error)) => Err(error).with_context(in_file),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn schedule(
    weights: &Weights,
    description: &Description,
    options: &LoadOptions,
    rows: usize,
) -> Result<Vec<StepCost>> {
    let model = &description.model;
    let executor = options.executor(model.trained_context, 1);
    Ok(wushi_cpu::schedule(&model.graph, weights, &executor, rows)?)
}

/// What the metadata says of the model, by what people call it.
struct Facts<'a> {
    architecture: &'a str,
    name: Option<&'a str>,
    licence: Option<&'a str>,
    context: Option<u64>,
    template: Option<&'a str>,
    tokenizer: Option<&'a str>,
    pre: Option<&'a str>,
    vocabulary: Option<usize>,
}

impl<'a> Facts<'a> {
    fn read(metadata: &'a Metadata) -> Result<Facts<'a>> {
        let architecture = metadata.require_str("general.architecture")?;
        Ok(Facts {
            architecture,
            name: metadata.str("general.name")?,
            licence: metadata.str("general.license")?,
            context: metadata.u64(&format!("{architecture}.context_length"))?,
            template: metadata.str("tokenizer.chat_template")?,
            tokenizer: metadata.str("tokenizer.ggml.model")?,
            pre: metadata.str("tokenizer.ggml.pre")?,
            vocabulary: metadata.str_array("tokenizer.ggml.tokens")?.map(|tokens| tokens.len()),
        })
    }
}

fn format_name(checkpoint: &Checkpoint) -> String {
    match checkpoint.container() {
        Container::Gguf(version) => format!("GGUF version {version}"),
        _ => "safetensors".to_owned(),
    }
}

fn report(
    args: &InspectArgs,
    checkpoint: &Checkpoint,
    described: &Result<Description, DescribeError>,
    steps: Option<&[StepCost]>,
) -> Result<Value> {
    let facts = Facts::read(checkpoint.metadata())?;
    let types: Vec<Value> = checkpoint
        .types()
        .iter()
        .map(|total| {
            json!({
                "type": total.ggml_type.to_string(),
                "tensors": total.tensors,
                "elements": total.elements,
                "bytes": total.bytes,
            })
        })
        .collect();
    let tensors: Vec<Value> = checkpoint
        .tensors()
        .iter()
        .map(|tensor| {
            let bytes = tensor.bytes;
            json!({ "name": tensor.name, "type": tensor.ggml_type.to_string(), "shape": tensor.shape, "bytes": bytes })
        })
        .collect();
    let mut report = json!({
        "model": args.model,
        "architecture": facts.architecture,
        "name": facts.name,
        "parameters": checkpoint.parameters(),
        "licence": facts.licence,
        "context": facts.context,
        "tokenizer": { "model": facts.tokenizer, "pre": facts.pre, "tokens": facts.vocabulary },
        "chat_template": facts.template,
        "format": format_name(checkpoint),
        "files": checkpoint.files().map(|(path, bytes)| json!({ "path": path, "bytes": bytes })).collect::<Vec<_>>(),
        "bytes": checkpoint.file_size(),
        "types": types,
        "tensors": tensors,
        "supported": described.is_ok(),
        "unsupported_because": described.as_ref().err().map(|error| error.to_string()),
    });
    if let Some(steps) = steps {
        let steps: Vec<Value> = steps.iter().map(step_json).collect();
        report["schedule"] = json!({ "rows": args.rows, "steps": steps });
    }
    Ok(report)
}

fn step_json(step: &StepCost) -> Value {
    json!({
        "block": step.block,
        "kernel": step.kernel,
        "what": step.what,
        "macs": step.macs,
        "weight_bytes": step.weight_bytes,
        "activation_bytes": step.activation_bytes,
        "barrier": step.barrier,
    })
}

fn print(
    args: &InspectArgs,
    checkpoint: &Checkpoint,
    described: &Result<Description, DescribeError>,
    steps: Option<&[StepCost]>,
) -> Result<()> {
    let facts = Facts::read(checkpoint.metadata())?;
    let unknown = || "not said".to_owned();
    let fact = |name: &str, value: String| output::line(format_args!("{name:<14}{}", one_line(&value)));
    fact("name", facts.name.map_or_else(unknown, str::to_owned))?;
    fact("architecture", facts.architecture.to_owned())?;
    fact("parameters", format!("{:.1} M", checkpoint.parameters() as f64 / 1e6))?;
    fact("context", facts.context.map_or_else(unknown, |tokens| format!("{tokens} tokens")))?;
    fact("licence", facts.licence.map_or_else(unknown, str::to_owned))?;
    let pre = facts.pre.map_or(String::new(), |pre| format!(" ({pre})"));
    let tokens = facts.vocabulary.map_or(String::new(), |tokens| format!(", {tokens} tokens"));
    fact("tokenizer", facts.tokenizer.map_or_else(unknown, |model| format!("{model}{pre}{tokens}")))?;
    let parts = match checkpoint.files().count() {
        0 | 1 => String::new(),
        parts => format!(" in {parts} files"),
    };
    fact("format", format!("{}, {}{parts}", format_name(checkpoint), Size(checkpoint.file_size())))?;
    match described {
        Ok(_) => fact("supported", "yes".to_owned())?,
        Err(error) => fact("supported", format!("no: {error}"))?,
    }
    let mut types = Table::new(1, ["TYPE", "TENSORS", "ELEMENTS", "SIZE"]);
    for total in checkpoint.types() {
        let size = Size(total.bytes).to_string();
        types.row([total.ggml_type.to_string(), total.tensors.to_string(), total.elements.to_string(), size]);
    }
    output::line(format_args!("\n{types}"))?;
    if args.tensors {
        let mut tensors = Table::new(3, ["TENSOR", "TYPE", "SHAPE", "SIZE"]);
        for tensor in checkpoint.tensors() {
            let (kind, size) = (tensor.ggml_type.to_string(), Size(tensor.bytes as u64).to_string());
            tensors.row([one_line(&tensor.name), kind, format!("{:?}", tensor.shape), size]);
        }
        output::line(format_args!("\n{tensors}"))?;
    }
    match facts.template {
        Some(template) => output::line(format_args!("\nCHAT TEMPLATE\n{}", template.trim_end()))?,
        None => output::line("\nNo chat template.")?,
    }
    match steps {
        Some(steps) => print_schedule(steps, &format!("for {} rows", args.rows)),
        None => Ok(()),
    }
}

/// The steps, and what they come to. A star marks a step that all threads wait before.
fn print_schedule(steps: &[StepCost], what: &str) -> Result<()> {
    let mut table = Table::new(4, ["", "BLOCK", "KERNEL", "ON", "MULTIPLY-ADDS", "WEIGHTS", "ACTIVATIONS"]);
    for step in steps {
        table.row([
            if step.barrier { "*" } else { "" }.to_owned(),
            step.block.clone(),
            step.kernel.to_owned(),
            step.what.clone(),
            step.macs.to_string(),
            Size(step.weight_bytes).to_string(),
            Size(step.activation_bytes).to_string(),
        ]);
    }
    output::line(format_args!("\nSCHEDULE {what}\n{table}"))?;
    let sum = |of: fn(&StepCost) -> u64| steps.iter().map(of).sum::<u64>();
    output::line(format_args!(
        "{} steps, {} barriers (*), {:.3} G multiply-adds, {} of weights, {} of activations",
        steps.len(),
        steps.iter().filter(|step| step.barrier).count(),
        sum(|step| step.macs) as f64 / 1e9,
        Size(sum(|step| step.weight_bytes)),
        Size(sum(|step| step.activation_bytes)),
    ))
}
