//! What a run has done on disk, so that one that is lost need not begin anew.
//!
//! A safetensors file whose metadata says everything that decided what is in it, and the elements' BLAKE3. Once denoised
//! it has the tensor `latents`, `[1, C, T, H, W]`; before that the tensor `between`, `[n, T, H, W, C]`: the latents after
//! so many steps, and what the sampler remembers of those.

use std::fs;
use std::path::{Path, PathBuf};

use wushi_formats::safetensors::Safetensors;

use super::latents::write_latents;
use super::tensor_file::{self, Read};
use super::{FramesDigest, Rounding, Sampler, Settings, Spacing, TensorFile, VideoError, VideoModel};

/// Raised when the same settings come to give other latents.
const FORMAT: &str = "2";
/// What is saved between two steps.
const BETWEEN: &str = "between";
/// What latents started from that started from noise.
const SEED: &str = "noise of seed ";

/// What decides a video's latents, as text by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(Vec<(&'static str, String)>);

impl Identity {
    /// Of a video. `model` is a digest of the weights of text encoder and denoisers; `initial` the latents it starts
    /// from, if not from its own noise.
    pub fn new(model: &str, prompt: &str, settings: &Settings, initial: Option<&[f32]>) -> Identity {
        let hash = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
        let start = match initial {
            Some(values) => digest(values),
            None => format!("{SEED}{}", settings.seed),
        };
        let spacing = match settings.spacing {
            Spacing::Training => "training",
            Spacing::Whole => "whole",
            Spacing::TwiceShifted => "twice shifted",
        };
        let rounding = match settings.rounding {
            Rounding::Floor => "floor",
            Rounding::Exact => "exact",
        };
        Identity(vec![
            ("format", FORMAT.to_owned()),
            ("model", model.to_owned()),
            ("prompt", hash(prompt)),
            ("negative prompt", hash(&settings.negative)),
            ("size", format!("{}x{}", settings.width, settings.height)),
            ("frames", settings.frames.to_string()),
            ("steps", settings.steps.to_string()),
            ("flow shift", settings.shift.to_string()),
            ("guidance", settings.guidance.to_string()),
            ("guidance of the second denoiser", settings.guidance_low.to_string()),
            ("boundary", settings.boundary.map_or("none".to_owned(), |share| share.to_string())),
            ("sampler", settings.sampler.name().to_owned()),
            ("spacing", spacing.to_owned()),
            ("rounding", rounding.to_owned()),
            // Last: a seed that was not given is another in every run, and only tells if all else is the same.
            ("start", start),
        ])
    }

    fn metadata(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(key, value)| (*key, value.as_str())).collect()
    }

    /// An error if a file was saved as another's.
    fn check(&self, path: &Path, file: &Safetensors) -> Result<(), VideoError> {
        for (key, expected) in &self.0 {
            let Some(found) = file.metadata(key) else {
                let problem = "these are no latents that a run has saved: they do not say how they were made";
                return Err(VideoError::BadTensor { path: path.to_owned(), problem: problem.to_owned() });
            };
            if found != expected {
                let found: String = found.chars().take(80).collect();
                let (path, expected) = (path.to_owned(), expected.clone());
                return Err(VideoError::OtherVideo { path, what: key, found, expected });
            }
        }
        Ok(())
    }

    /// Where the latents of this video are kept in `folder`: a name of their own, so that the same settings find them.
    pub fn path(&self, folder: &Path) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        for (key, value) in &self.0 {
            for text in [key, value.as_str()] {
                hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
        }
        folder.join(format!("latents-{}.safetensors", &hasher.finalize().to_hex()[..32]))
    }
}

/// Latents that runs have saved in `folder`, the latest first. None if there is no such folder.
pub fn saved_latents(folder: &Path) -> Vec<PathBuf> {
    let ours = |name: &str| name.starts_with("latents-") && name.ends_with(".safetensors");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(ours))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// The seeds for which `folder` has latents of a video, the latest first; `identity` is that of the video with a seed.
pub fn saved_seeds(folder: &Path, identity: impl Fn(u64) -> Identity) -> Vec<u64> {
    let seed = |path: &PathBuf| {
        let file = Safetensors::open(path).ok()?;
        let seed = file.metadata("start")?.strip_prefix(SEED)?.parse().ok()?;
        // Its name says the rest.
        (identity(seed).path(folder) == *path).then_some(seed)
    };
    saved_latents(folder).iter().filter_map(seed).collect()
}

pub(super) fn digest(values: &[f32]) -> String {
    let mut digest = FramesDigest::new();
    digest.update(values);
    digest.hex()
}

/// Saves denoised latents, `[T, H, W, C]`, creating the folder. The file appears whole or not at all.
pub fn save_latents(
    path: &Path,
    identity: &Identity,
    settings: &Settings,
    latents: &[f32],
) -> Result<(), VideoError> {
    create_folder(path)?;
    let digest = digest(&settings.latents.channels_first(latents));
    let mut metadata = identity.metadata();
    metadata.push(("digest", &digest));
    write_latents(path, &settings.latents, latents, &metadata)
}

/// A sampler and its latents between two steps, as a run has saved them.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedSteps {
    sampler: Sampler,
    latents: Vec<f32>,
}

impl SavedSteps {
    /// Steps that are done.
    pub fn steps(&self) -> usize {
        self.sampler.done()
    }

    /// Makes a sampler of the same settings what it was, and gives the latents, `[T, H, W, C]`.
    pub(super) fn resume(self, sampler: &mut Sampler) -> Vec<f32> {
        *sampler = self.sampler;
        self.latents
    }
}

/// What a run has saved.
#[derive(Clone, Debug, PartialEq)]
pub enum Saved {
    /// Some steps are done.
    Steps(Box<SavedSteps>),
    /// Denoised latents, `[T, H, W, C]`.
    Denoised(Vec<f32>),
}

/// Saves what there is between two steps, creating the folder. The file appears whole or not at all, in place of what was
/// saved before.
pub(super) fn save_steps(
    path: &Path,
    identity: &Identity,
    settings: &Settings,
    sampler: &Sampler,
    latents: &[f32],
) -> Result<(), VideoError> {
    create_folder(path)?;
    let (order, memory) = sampler.memory();
    let parts: Vec<&[f32]> =
        std::iter::once(latents).chain(memory).filter(|values| !values.is_empty()).collect();
    let mut hash = FramesDigest::new();
    parts.iter().for_each(|values| hash.update(values));
    let (digest, done, order) = (hash.hex(), sampler.done().to_string(), order.to_string());
    let mut metadata = identity.metadata();
    metadata.extend([("digest", digest.as_str()), ("done", &done), ("order", &order)]);
    let shape = settings.latents;
    let shape = [parts.len(), shape.frames, shape.height, shape.width, shape.channels];
    let mut file = TensorFile::create(path, BETWEEN, &shape, &metadata)?;
    parts.iter().try_for_each(|values| file.write(values))?;
    file.finish()
}

fn create_folder(path: &Path) -> Result<(), VideoError> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(VideoError::io("create", folder)),
        None => Ok(()),
    }
}

/// Reads what a run has saved; what belongs to another video, or is damaged, is an error.
pub fn load_saved(
    path: &Path,
    identity: &Identity,
    settings: &Settings,
    model: &VideoModel,
) -> Result<Saved, VideoError> {
    let between = Safetensors::open(path)?.tensors().iter().any(|tensor| tensor.name == BETWEEN);
    let read = tensor_file::read(path, if between { BETWEEN } else { "latents" })?;
    identity.check(path, &read.file)?;
    let damaged = || VideoError::BadTensor {
        path: path.to_owned(),
        problem: "what was saved is damaged; remove the file and begin anew".to_owned(),
    };
    let whole = read.file.metadata("digest") == Some(digest(&read.values).as_str());
    match between {
        true => {
            let sampler = Sampler::new(settings.sampler, &settings.schedule(model)?);
            let steps = steps_of(&read, settings, sampler).filter(|_| whole).ok_or_else(damaged)?;
            Ok(Saved::Steps(Box::new(steps)))
        }
        false if whole && read.shape == settings.latents.in_file() => {
            Ok(Saved::Denoised(settings.latents.channels_last(&read.values)))
        }
        false => Err(damaged()),
    }
}

fn steps_of(read: &Read, settings: &Settings, sampler: Sampler) -> Option<SavedSteps> {
    let shape = settings.latents;
    let number = |key| read.file.metadata(key)?.parse::<usize>().ok();
    let parts = *read.shape.first()?;
    if read.shape != [parts, shape.frames, shape.height, shape.width, shape.channels]
        || !(1..=4).contains(&parts)
    {
        return None;
    }
    let mut parts = read.values.chunks_exact(shape.elements()).map(<[f32]>::to_vec);
    let latents = parts.next()?;
    let memory = std::array::from_fn(|_| parts.next().unwrap_or_default());
    Some(SavedSteps { sampler: sampler.resume(number("done")?, number("order")?, memory)?, latents })
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::model;
    use super::super::{SamplerKind, Wanted};
    use super::*;

    fn settings(seed: u64) -> Settings {
        let wanted = Wanted { size: Some((32, 16)), frames: Some(5), seed, ..Wanted::default() };
        Settings::resolve(&wanted, &model()).unwrap().0
    }

    fn load(path: &Path, identity: &Identity, settings: &Settings) -> Vec<f32> {
        match load_saved(path, identity, settings, &model()).unwrap() {
            Saved::Denoised(latents) => latents,
            Saved::Steps(steps) => panic!("{} steps", steps.steps()),
        }
    }

    #[test]
    fn latents_come_back_for_the_same_video_only() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(7);
        let latents: Vec<f32> = (0..settings.latents.elements()).map(|i| i as f32 / 3.0).collect();
        let identity = Identity::new("weights", "a cat", &settings, None);
        let path = identity.path(&folder.path().join("not/yet"));
        save_latents(&path, &identity, &settings, &latents).unwrap();
        assert_eq!(load(&path, &identity, &settings), latents);

        let told = |other: Identity| {
            assert_ne!(other.path(path.parent().unwrap()), path);
            load_saved(&path, &other, &settings, &model()).unwrap_err().to_string()
        };
        let seed = told(Identity::new("weights", "a cat", &self::settings(8), None));
        assert!(
            seed.contains("start was noise of seed 7, now it is noise of seed 8; use the same"),
            "{seed}"
        );
        assert!(told(Identity::new("others", "a cat", &settings, None)).contains("model was weights, now"));
        assert!(told(Identity::new("weights", "a dog", &settings, None)).contains("video: prompt was"));
        assert!(told(Identity::new("weights", "a cat", &settings, Some(&latents))).contains("start was"));
        let other = Settings { sampler: SamplerKind::Euler, ..settings.clone() };
        assert!(
            told(Identity::new("weights", "a cat", &other, None))
                .contains("sampler was unipc, now it is euler")
        );
        let other = Settings { guidance: 5.5, ..settings.clone() };
        assert!(
            told(Identity::new("weights", "a cat", &other, None)).contains("guidance was 5, now it is 5.5")
        );
    }

    #[test]
    fn damaged_steps_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(7);
        let identity = Identity::new("weights", "a cat", &settings, None);
        let path = identity.path(folder.path());
        let schedule = settings.schedule(&model()).unwrap();
        let mut sampler = Sampler::new(settings.sampler, &schedule);
        let mut latents = vec![1.0; settings.latents.elements()];
        for _ in 0..2 {
            let velocity = latents.clone();
            sampler.step(&velocity, &mut latents);
        }
        save_steps(&path, &identity, &settings, &sampler, &latents).unwrap();
        let load = || load_saved(&path, &identity, &settings, &model());
        assert_eq!(load().unwrap(), Saved::Steps(Box::new(SavedSteps { sampler, latents })));
        let bytes = fs::read(&path).unwrap();
        for (was, is) in [(r#""done":"2""#, r#""done":"1""#), (r#""order":"2""#, r#""order":"9""#)] {
            let at = bytes.windows(was.len()).position(|window| window == was.as_bytes()).unwrap();
            let mut bytes = bytes.clone();
            bytes[at..at + is.len()].copy_from_slice(is.as_bytes());
            fs::write(&path, bytes).unwrap();
            assert!(load().unwrap_err().to_string().contains("damaged"), "{is}");
        }
        let mut bytes = bytes;
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(load().unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn a_forgotten_seed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let identity = |prompt: &str, seed| Identity::new("weights", prompt, &settings(seed), None);
        assert!(saved_latents(&folder.path().join("none")).is_empty());
        for (prompt, seed) in [("a cat", 7), ("a cat", 8), ("a dog", 9)] {
            let (identity, settings) = (identity(prompt, seed), settings(seed));
            let latents = vec![1.0; settings.latents.elements()];
            save_latents(&identity.path(folder.path()), &identity, &settings, &latents).unwrap();
        }
        fs::write(folder.path().join("latents-x.safetensors"), "no safetensors").unwrap();
        assert_eq!(saved_latents(folder.path()).len(), 4);
        let mut seeds = saved_seeds(folder.path(), |seed| identity("a cat", seed));
        seeds.sort();
        assert_eq!(seeds, [7, 8]);
        assert!(saved_seeds(folder.path(), |seed| identity("a bird", seed)).is_empty());
    }

    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(7);
        let latents = vec![1.0; settings.latents.elements()];
        let identity = Identity::new("weights", "a cat", &settings, None);
        let path = identity.path(folder.path());
        let told = || load_saved(&path, &identity, &settings, &model()).unwrap_err().to_string();
        assert!(told().contains("latents-"), "{}", told());
        write_latents(&path, &settings.latents, &latents, &[]).unwrap();
        assert!(told().contains("no latents that a run has saved"));
        save_latents(&path, &identity, &settings, &latents).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(told().contains("damaged"));
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(told().contains("latents-"));
    }
}
