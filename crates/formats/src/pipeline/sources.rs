//! Which files are the parts of a pipeline.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::part::{in_file, is_usual, object};
use super::{Object, Part};
use crate::error::excerpt;
use crate::huggingface::files::Files;
use crate::{FormatError, PipelineError};

/// What says which parts a folder of the library `diffusers` has.
const INDEX: &str = "model_index.json";
/// What a pipeline's files leave to whoever calls it: sizes, steps, guidance.
const SETTINGS: &str = "video.json";
/// Two networks, for much noise and for little, in folders of their own.
const NOISE: [&str; 2] = ["high_noise_model", "low_noise_model"];
const WEIGHTS: [&str; 5] = ["safetensors", "gguf", "pth", "pt", "bin"];

/// How a pipeline's files are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// Files that were named one by one.
    #[default]
    Named,
    /// A folder for each part and `model_index.json`, as `diffusers` writes it.
    Diffusers,
    /// Files beside each other, told by their names.
    Flat,
}

/// Where the parts of a pipeline are: found in a folder, or set one by one.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// How they are laid out.
    pub layout: Layout,
    /// The folder or file they were looked for in; empty if they are all named.
    pub root: PathBuf,
    /// The network that denoises, at first if there are two.
    pub transformer: Option<PathBuf>,
    /// The one that denoises when little noise is left.
    pub transformer_2: Option<PathBuf>,
    /// What makes text into states.
    pub text_encoder: Option<PathBuf>,
    /// What makes latents into frames.
    pub vae: Option<PathBuf>,
    /// `tokenizer.json` or another tokenizer's file, or the folder of one.
    pub tokenizer: Option<PathBuf>,
    /// `model_index.json`, if there is one.
    pub index: Option<Object>,
    /// `scheduler/scheduler_config.json`, if there is one.
    pub scheduler: Option<Object>,
    /// `video.json`, if there is one.
    pub settings: Option<Object>,
}

/// An open pipeline.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Where its parts are.
    pub sources: Sources,
    /// The network that denoises, at first if there are two.
    pub transformer: Part,
    /// The one that denoises when little noise is left.
    pub transformer_2: Option<Part>,
    /// What makes text into states.
    pub text_encoder: Part,
    /// What makes latents into frames.
    pub vae: Part,
}

impl Sources {
    /// What a folder holds; a file is taken for the network that denoises.
    ///
    /// Parts that are not there are left out; [`Sources::open`] refuses what is still missing then.
    ///
    /// # Errors
    /// Folders that cannot be read, and several files that could be one part.
    pub fn find(path: impl AsRef<Path>) -> Result<Sources, FormatError> {
        let path = path.as_ref();
        if !path.is_dir() {
            std::fs::metadata(path).map_err(|source| FormatError::Io { path: path.to_owned(), source })?;
            let transformer = Some(path.to_owned());
            return Ok(Sources { root: path.to_owned(), transformer, ..Sources::default() });
        }
        let files = Files::Disk(path.to_owned());
        let found = match object(&files, INDEX).map_err(|error| in_file(path, error))? {
            Some(index) => diffusers(path, index),
            None => flat(path, &files.names()?),
        };
        let mut found = found.map_err(|error| in_file(path, error))?;
        found.settings = object(&files, SETTINGS).map_err(|error| in_file(path, error))?;
        Ok(found)
    }

    /// Opens all parts.
    ///
    /// # Errors
    /// Parts that are missing, cannot be read or are damaged.
    pub fn open(self) -> Result<Pipeline, FormatError> {
        let transformer = Part::open(self.needed(TRANSFORMER, &self.transformer)?)?;
        let transformer_2 = self.transformer_2.as_ref().map(Part::open).transpose()?;
        let vae = Part::open(self.needed(VAE, &self.vae)?)?;
        let text_encoder = Part::open(self.needed(TEXT_ENCODER, &self.text_encoder)?)?;
        if self.tokenizer.is_none() && text_encoder.metadata().get("tokenizer.ggml.model").is_none() {
            return Err(self.missing(TOKENIZER));
        }
        Ok(Pipeline { sources: self, transformer, transformer_2, text_encoder, vae })
    }

    fn needed<'a>(&self, wanted: Wanted, path: &'a Option<PathBuf>) -> Result<&'a Path, FormatError> {
        path.as_deref().ok_or_else(|| self.missing(wanted))
    }

    fn missing(&self, wanted: Wanted) -> FormatError {
        let looked = match self.layout {
            Layout::Diffusers => wanted.folder,
            Layout::Flat => wanted.flat,
            Layout::Named => "a file that was named",
        };
        let place = match self.root.as_os_str().is_empty() {
            true => PathBuf::from("what was given"),
            false => self.root.clone(),
        };
        let advice = format!("name it with {}", wanted.flag);
        PipelineError::MissingPart { part: wanted.part, looked: looked.to_owned(), place, advice }.into()
    }
}

/// A part, and where it is looked for.
#[derive(Clone, Copy)]
struct Wanted {
    part: &'static str,
    folder: &'static str,
    flat: &'static str,
    flag: &'static str,
}

const TRANSFORMER: Wanted = Wanted {
    part: "network that denoises",
    folder: "the folder `transformer`",
    flat: "`diffusion_pytorch_model*.safetensors`, the folders `high_noise_model` and `low_noise_model`, or one file with weights that is neither text encoder nor VAE",
    flag: "--dit",
};
const VAE: Wanted = Wanted {
    part: "VAE",
    folder: "the folder `vae`",
    flat: "a file with weights that has `vae` in its name",
    flag: "--vae",
};
const TEXT_ENCODER: Wanted = Wanted {
    part: "text encoder",
    folder: "the folder `text_encoder`",
    flat: "a file with weights that has `t5` or `text_encoder` in its name",
    flag: "--text-encoder",
};
const TOKENIZER: Wanted = Wanted {
    part: "tokenizer",
    folder: "`tokenizer.json` or `spiece.model` in the folder `tokenizer`",
    flat: "`tokenizer.json` or `spiece.model`, also in the folders `tokenizer` and `google/*`",
    flag: "--tokenizer",
};

/// The parts that `model_index.json` names, each a folder.
fn diffusers(root: &Path, index: Object) -> Result<Sources, FormatError> {
    // `[library, class]`; both null for a part that this pipeline does without.
    let is_named = |name: &str| index.get(name).and_then(|part| part.get(1)).is_some_and(Value::is_string);
    let folder = |name: &str| {
        let folder = root.join(name);
        match (is_named(name), folder.is_dir()) {
            (true, true) => Ok(Some(folder)),
            (false, _) => Ok(None),
            (true, false) => Err(FormatError::from(PipelineError::MissingPart {
                part: "folder of a part that model_index.json names",
                looked: format!("`{name}`"),
                place: root.to_owned(),
                advice: "the download may not be complete".to_owned(),
            })),
        }
    };
    let scheduler = match folder("scheduler")? {
        Some(folder) => object(&Files::Disk(folder.clone()), "scheduler_config.json")
            .map_err(|error| in_file(&folder, error))?,
        None => None,
    };
    let tokenizer =
        folder("tokenizer")?.filter(|folder| TOKENIZERS.iter().any(|name| folder.join(name).is_file()));
    Ok(Sources {
        layout: Layout::Diffusers,
        root: root.to_owned(),
        transformer: folder("transformer")?,
        transformer_2: folder("transformer_2")?,
        text_encoder: folder("text_encoder")?,
        vae: folder("vae")?,
        tokenizer,
        scheduler,
        index: Some(index),
        settings: None,
    })
}

/// Files of tokenizers.
pub(super) const TOKENIZERS: [&str; 2] = ["tokenizer.json", "spiece.model"];

/// The parts among the files of one folder, told by their names.
fn flat(root: &Path, names: &[String]) -> Result<Sources, FormatError> {
    let is_weights = |name: &str| name.rsplit_once('.').is_some_and(|(_, kind)| WEIGHTS.contains(&kind));
    let lower = |name: &str| name.to_ascii_lowercase();
    let weights: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_weights(name)).collect();
    let named = |what: &[&str]| -> Vec<&str> {
        weights.iter().copied().filter(|name| what.iter().any(|what| lower(name).contains(what))).collect()
    };
    let vae = one(root, VAE, &named(&["vae"]))?;
    let text_encoder = one(root, TEXT_ENCODER, &named(&["t5", "text_encoder"]))?;
    let noise = NOISE.map(|name| Some(root.join(name)).filter(|folder| folder.is_dir()));
    let (transformer, transformer_2) = match noise {
        [None, None] => {
            let others = named(&["vae", "t5", "text_encoder", "clip"]);
            let rest: Vec<&str> = weights.iter().copied().filter(|name| !others.contains(name)).collect();
            match rest.iter().any(|name| is_usual(name)) {
                // As a folder, so that the index and the configuration beside them are read.
                true => (Some(root.to_owned()), None),
                false => denoisers(root, &rest)?,
            }
        }
        [Some(high), Some(low)] => (Some(high), Some(low)),
        [high, _] => {
            return Err(PipelineError::MissingPart {
                part: "other of the two networks that denoise",
                looked: format!("the folder `{}`", NOISE[usize::from(high.is_some())]),
                place: root.to_owned(),
                advice: "the download may not be complete".to_owned(),
            }
            .into());
        }
    };
    Ok(Sources {
        layout: Layout::Flat,
        root: root.to_owned(),
        transformer,
        transformer_2,
        text_encoder,
        vae,
        tokenizer: tokenizer(root)?,
        ..Sources::default()
    })
}

/// The one file that could be a part.
fn one(root: &Path, wanted: Wanted, found: &[&str]) -> Result<Option<PathBuf>, FormatError> {
    match found {
        [] => Ok(None),
        [name] => Ok(Some(root.join(name))),
        several => Err(PipelineError::ManyParts {
            part: wanted.part,
            found: excerpt(&several.join(", ")),
            place: root.to_owned(),
            advice: format!("name one with {}", wanted.flag),
        }
        .into()),
    }
}

/// The network that denoises, or the two of which one says `high` in its name, the other `low`.
fn denoisers(root: &Path, found: &[&str]) -> Result<(Option<PathBuf>, Option<PathBuf>), FormatError> {
    if let [one, other] = found {
        let says = |name: &str, what: &str| name.to_ascii_lowercase().contains(what);
        let is_pair = |high: &str, low: &str| {
            says(high, "high") && says(low, "low") && !says(high, "low") && !says(low, "high")
        };
        if is_pair(one, other) {
            return Ok((Some(root.join(one)), Some(root.join(other))));
        }
        if is_pair(other, one) {
            return Ok((Some(root.join(other)), Some(root.join(one))));
        }
    }
    Ok((one(root, TRANSFORMER, found)?, None))
}

/// The folder with a tokenizer: this one, `tokenizer`, or the one in `google` that has the tokenizer's name.
fn tokenizer(root: &Path) -> Result<Option<PathBuf>, FormatError> {
    let has = |folder: &Path| TOKENIZERS.iter().any(|name| folder.join(name).is_file());
    for folder in [root.to_owned(), root.join("tokenizer")] {
        if has(&folder) {
            return Ok(Some(folder));
        }
    }
    let google = root.join("google");
    if !google.is_dir() {
        return Ok(None);
    }
    let names = Files::Disk(google.clone()).names()?;
    let found: Vec<&str> = names.iter().map(String::as_str).filter(|name| has(&google.join(name))).collect();
    one(&google, TOKENIZER, &found)
}
