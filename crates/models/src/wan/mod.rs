//! Wan (2025): video from text. A prompt's states, made by umT5, steer a transformer that denoises a latent video, which a
//! causal autoencoder turns into frames. 2.1 and 2.2 differ in sizes, in the autoencoder's kind, and in that 2.2 may have
//! two denoisers, one for much noise and one for little.

pub(crate) mod config;
mod describe;
pub(crate) mod dit;
mod layouts;
pub(crate) mod names;
pub(crate) mod vae;

use std::path::Path;

use wushi_formats::pipeline::{Object, Part, Pipeline};
use wushi_graph::Graph;

use self::config::Settings;
use self::names::{Layout, Tensors, Weights};
use crate::config::ModelError;
use crate::pipeline::{Decoder, Denoiser, Networks, TextEncoder};
use crate::umt5;

/// Reads a pipeline of this family.
pub(crate) fn open(pipeline: Pipeline) -> Result<Networks, ModelError> {
    let Pipeline { sources, transformer, transformer_2, text_encoder, vae } = pipeline;
    Settings::new(sources.index.as_ref())
        .only("_class_name", "WanPipeline", "`WanPipeline` is")
        .map_err(|error| at(&sources.root, error))?;
    let text_len = Settings::new(transformer.config()).count("text_len");
    let text_len = text_len.map_err(|error| at(transformer.path(), error))?;
    let vae_config = vae.config().cloned();
    let denoiser = denoiser(transformer)?;
    let denoiser_low = transformer_2.map(self::denoiser).transpose()?;
    let text_encoder = self::text_encoder(text_encoder)?;
    let decoder = decoder(vae)?;
    agree(&denoiser, denoiser_low.as_ref(), &text_encoder, &decoder)?;
    let latents = describe::statistics(&Settings::new(vae_config.as_ref()), decoder.config.latent)
        .map_err(|error| at(decoder.weights.part().path(), error))?;
    let model = describe::model(&sources, &denoiser, denoiser_low.is_some(), &decoder, latents, text_len)
        .map_err(|error| at(&sources.root, error))?;
    Ok(Networks { model, text_encoder, denoiser, denoiser_low, decoder })
}

pub(crate) fn denoiser(part: Part) -> Result<Denoiser, ModelError> {
    let below = layouts::PREFIXES.iter().find_map(|prefix| part.below(prefix));
    let graphs = |config: &dit::Config| {
        Ok(vec![config.context(1)?, config.denoise([1, config.patch, config.patch], 1, 0)?])
    };
    let part = below.unwrap_or(part);
    let object = part.config().cloned();
    let (config, weights) = read(part, object, layouts::DENOISER, dit::Config::read, graphs)?;
    Ok(Denoiser { config, weights })
}

pub(crate) fn text_encoder(part: Part) -> Result<TextEncoder, ModelError> {
    let graphs = |config: &umt5::Config| Ok(vec![config.graph()?]);
    let object = match part.config() {
        Some(config) => config.clone(),
        None => umt5::settings(part.metadata()).map_err(|error| at(part.path(), error.into()))?,
    };
    let (config, weights) = read(part, Some(object), umt5::LAYOUTS, umt5::Config::read, graphs)?;
    Ok(TextEncoder { graph: config.graph()?, vocabulary: config.vocabulary, width: config.width, weights })
}

pub(crate) fn decoder(part: Part) -> Result<Decoder, ModelError> {
    let graphs = |config: &vae::Config| Ok(vec![config.next(1, 1, 1)?]);
    let object = part.config().cloned();
    let (config, weights) = read(part, object, layouts::DECODER, vae::Config::read, graphs)?;
    Ok(Decoder { config, weights })
}

/// Configuration and weights of a part, with errors that name it.
fn read<C>(
    part: Part,
    object: Option<Object>,
    layouts: &'static [Layout],
    config: impl FnOnce(&Tensors, &Settings<'_>) -> Result<C, ModelError>,
    graphs: impl FnOnce(&C) -> Result<Vec<Graph>, ModelError>,
) -> Result<(C, Weights), ModelError> {
    let path = part.path().to_owned();
    let fitted = || {
        let tensors = Tensors::new(part, layouts)?;
        let config = config(&tensors, &Settings::new(object.as_ref()))?;
        let graphs = graphs(&config)?;
        Ok((config, tensors.fit(&graphs)?))
    };
    fitted().map_err(|error| at(&path, error))
}

/// An error of what is at this path, unless it says so itself or there is none.
fn at(path: &Path, error: ModelError) -> ModelError {
    use wushi_formats::FormatError::{InFile, Io};
    match error {
        error @ (ModelError::InFolder { .. } | ModelError::Metadata(InFile { .. } | Io { .. })) => error,
        error if path.as_os_str().is_empty() => error,
        error => ModelError::InFolder { path: path.to_owned(), error: Box::new(error) },
    }
}

/// Refuses parts of different models.
fn agree(
    denoiser: &Denoiser,
    low: Option<&Denoiser>,
    text: &TextEncoder,
    decoder: &Decoder,
) -> Result<(), ModelError> {
    let (d, differ) = (&denoiser.config, |what, of, other, expected, found| match expected == found {
        true => Ok(()),
        false => Err(ModelError::PartsDiffer { what, of, other, expected, found }),
    });
    differ("a row of text", "denoiser", "text encoder", d.text_width, text.width)?;
    differ("the channels of a latent", "denoiser", "decoder", d.channels, decoder.config.latent)?;
    let Some(low) = low.map(|low| &low.config) else { return Ok(()) };
    let (of, other) = ("first denoiser", "second");
    differ("a row of text", of, other, d.text_width, low.text_width)?;
    differ("the channels of a latent", of, other, d.channels, low.channels)?;
    differ("a patch", of, other, d.patch, low.patch)
}
