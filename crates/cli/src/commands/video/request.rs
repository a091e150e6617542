//! What is asked for: model, prompt, settings, and where the video goes.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use wushi_engine::video::{Change, Settings, VideoModel, Wanted};
use wushi_media::{Encoder, Format, FrameRate};

use crate::args::VideoArgs;
use crate::knobs::Video;
use crate::model;

/// Which of a name's characters come from the prompt, at most.
const NAME_CHARS: usize = 40;

/// Model and prompt. The prompt may be missing where only the plan is wanted.
pub(super) struct Subject {
    pub(super) model: Option<String>,
    pub(super) prompt: Option<String>,
}

impl Subject {
    /// Of two arguments the second is the prompt. A single one is the model, unless all networks are named by flags and it
    /// is no file.
    pub(super) fn read(args: &VideoArgs) -> Result<Subject> {
        let files = &args.files;
        let named = files.dit.is_some() && files.vae.is_some() && files.text_encoder.is_some();
        let (model, prompt) = match (&args.model, &args.prompt) {
            (Some(only), None) if named && !Path::new(only).exists() => (None, Some(only.clone())),
            (model, prompt) => (model.clone(), prompt.clone()),
        };
        match &model {
            None if !named => {
                bail!(
                    "which model? name a folder, or --dit, --vae and --text-encoder; wushi video --help tells more"
                )
            }
            Some(model) if prompt.is_none() && model.contains(char::is_whitespace) && !exists(model) => {
                bail!("{model:?} is no model; the model comes before the prompt: wushi video MODEL {model:?}")
            }
            _ => {}
        }
        let prompt = match prompt {
            Some(prompt) => Some(prompt),
            None if args.plan => None,
            None if io::stdin().is_terminal() => bail!("a video of what? give a prompt after the model"),
            None => {
                tracing::info!("reading the prompt from stdin");
                Some(model::read_stdin()?)
            }
        };
        if prompt.as_ref().is_some_and(|prompt| prompt.trim().is_empty()) {
            bail!("nothing to show: the prompt is empty");
        }
        Ok(Subject { model, prompt })
    }
}

fn exists(model: &str) -> bool {
    Path::new(model).exists()
}

/// What the knobs ask for, with this seed.
pub(super) fn settings(knobs: &Video, seed: u64, model: &VideoModel) -> Result<(Settings, Vec<Change>)> {
    let wanted = Wanted {
        size: knobs.size,
        frames: knobs.frames,
        fps: knobs.fps,
        steps: knobs.steps,
        shift: knobs.flow_shift,
        guidance: knobs.guidance,
        guidance_low: knobs.guidance_2,
        boundary: knobs.boundary,
        negative: knobs.negative.clone(),
        sampler: knobs.sampler,
        spacing: knobs.spacing,
        rounding: knobs.timesteps,
        seed,
    };
    if knobs.guidance_2.is_some() && model.boundary.is_none() {
        bail!("--guidance-2 is for models with two denoisers, and this one has one");
    }
    Ok(Settings::resolve(&wanted, model)?)
}

/// What is written, and where.
pub(super) struct Target {
    pub(super) format: Format,
    /// `None` if it is to be made of prompt and seed.
    given: Option<PathBuf>,
    media: wushi_media::Settings,
}

impl Target {
    /// `knob` is the format with its knob's layers, `flag` that of the flag alone: what the ending says comes between the
    /// two.
    pub(super) fn new(
        output: Option<&Path>,
        flag: Option<Format>,
        knob: Option<Format>,
        settings: &Settings,
    ) -> Result<Target> {
        let format = match (flag, output) {
            (Some(format), _) => format,
            (None, Some(path)) => match (Format::from_path(path), knob) {
                (Ok(format), _) => format,
                (Err(_), Some(format)) => format,
                (Err(error), None) => return Err(error.into()),
            },
            (None, None) => knob.unwrap_or(Format::Mp4),
        };
        let side = |pixels: usize| u32::try_from(pixels).context("no such size");
        let (width, height) = (side(settings.width)?, side(settings.height)?);
        let rate = FrameRate::nearest(f64::from(settings.fps))?;
        let media = wushi_media::Settings { width, height, rate };
        media.check(format).with_context(|| instead(format))?;
        Ok(Target { format, given: output.map(Path::to_owned), media })
    }

    /// The file or folder. Whatever would keep it from being written is found now, not after hours.
    pub(super) fn place(&self, prompt: &str, seed: u64) -> Result<PathBuf> {
        let path = match &self.given {
            Some(path) => path.clone(),
            None => {
                let path = PathBuf::from(name(prompt, seed, self.format));
                if path.exists() {
                    bail!("{} is there already; name the video with --output", path.display());
                }
                path
            }
        };
        drop(self.encoder(&path)?);
        Ok(path)
    }

    /// Begins the video.
    pub(super) fn encoder(&self, path: &Path) -> Result<Encoder> {
        Ok(Encoder::create(path, self.format, self.media)?)
    }

    /// How long so many frames last.
    pub(super) fn duration(&self, frames: usize) -> f64 {
        self.media.rate.seconds(frames as u64)
    }
}

/// What a person may do where a format cannot have a size or a rate.
fn instead(format: Format) -> String {
    let others = Format::ALL.iter().filter(|other| **other != format).map(|other| other.name());
    format!("choose another --size or --fps, or --format {}", others.collect::<Vec<_>>().join(" or "))
}

/// A file's name: the first words of the prompt, and the seed.
fn name(prompt: &str, seed: u64, format: Format) -> String {
    let mut name = String::new();
    for word in prompt.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let word: String = word.to_lowercase().chars().take(NAME_CHARS).collect();
        if !name.is_empty() && name.chars().count() + 1 + word.chars().count() > NAME_CHARS {
            break;
        }
        name = if name.is_empty() { word } else { format!("{name}-{word}") };
    }
    if name.is_empty() {
        name.push_str("video");
    }
    let ending = match format {
        Format::Apng => ".apng",
        Format::Gif => ".gif",
        Format::PngDir => "",
        _ => ".mp4",
    };
    format!("{name}-{seed}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_words() {
        assert_eq!(name("A red fox, in the *snow*!", 7, Format::Mp4), "a-red-fox-in-the-snow-7.mp4");
        assert_eq!(name("../../etc/passwd", 1, Format::PngDir), "etc-passwd-1");
        assert_eq!(name("…", 1, Format::Gif), "video-1.gif");
        assert_eq!(name("一只红色的狐狸在雪中", 3, Format::Apng), "一只红色的狐狸在雪中-3.apng");
        let long = name(&"word ".repeat(50), 0, Format::Mp4);
        assert_eq!(long, format!("{}-0.mp4", ["word"; 8].join("-")));
        assert_eq!(name(&"x".repeat(500), 0, Format::Mp4).len(), NAME_CHARS + "-0.mp4".len());
    }
}
