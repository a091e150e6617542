//! From what a person calls a video model to its networks.

use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};
use wushi_cpu::InstructionSet;
use wushi_engine::Team;
use wushi_engine::video::{NetworkOptions, VideoNetworks};
use wushi_formats::pipeline::{Layout, Named, Sources};
use wushi_hub::ModelRef;

use crate::args::VideoFiles;
use crate::knobs::Networks;
use crate::{App, model};

/// The parts that flags name.
fn named(files: &VideoFiles) -> Named {
    let VideoFiles { dit, dit_2, vae, text_encoder, tokenizer } = files.clone();
    Named { transformer: dit, transformer_2: dit_2, vae, text_encoder, tokenizer }
}

fn any(files: &VideoFiles) -> bool {
    let VideoFiles { dit, dit_2, vae, text_encoder, tokenizer } = files;
    [dit, dit_2, vae, text_encoder, tokenizer].into_iter().any(Option::is_some)
}

/// The files of a model, fetched if need be; those that flags name in the place of its own.
pub(crate) fn find(reference: Option<&str>, files: &VideoFiles, app: &App) -> Result<Sources> {
    match reference {
        Some(reference) => {
            // Before it is fetched.
            if let Ok(ModelRef::Catalogue(_)) = ModelRef::parse(reference) {
                bail!(
                    "{reference} is a language model (`wushi run`); a video model is a folder, or hf:org/repo"
                );
            }
            let path = model::locate(reference, app)?;
            if path.is_file() && !any(files) {
                bail!(
                    "{reference} is a single file, such as language models are (`wushi run`); a video model is a folder, or \
                     files that --dit, --vae and --text-encoder name"
                );
            }
            Ok(Sources::find_with(path, named(files))?)
        }
        None => Ok(Sources::named(named(files))),
    }
}

/// The files of a video model, if what is at `path` is one, or flags say that it is meant as one.
pub(crate) fn recognise(path: &Path, files: &VideoFiles) -> Result<Option<Sources>> {
    if any(files) {
        return Ok(Some(Sources::find_with(path, named(files))?));
    }
    // A folder of another kind may well be no pipeline; those who read it as what it is say what is wrong with it.
    let found = match Sources::find(path) {
        Ok(found) if path.is_dir() => found,
        Err(error) if path.join("model_index.json").exists() => return Err(error.into()),
        _ => return Ok(None),
    };
    let complete = found.transformer.is_some() && found.vae.is_some();
    Ok((found.layout == Layout::Diffusers || complete).then_some(found))
}

/// What the knobs say about loading.
pub(crate) fn options(knobs: &Networks) -> Result<NetworkOptions> {
    let threads = knobs.threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    Ok(NetworkOptions {
        team: Team::new(threads).context("cannot start threads")?,
        instruction_set: knobs.isa.unwrap_or_else(InstructionSet::best),
        quant: knobs.quant,
        decoder: knobs.vae_dtype,
        cache: knobs.cache_type,
        memory: knobs.memory,
    })
}

/// Opens the networks; reads no weight.
pub(crate) fn open(sources: Sources, knobs: &Networks) -> Result<VideoNetworks> {
    Ok(VideoNetworks::open(sources, options(knobs)?)?)
}
