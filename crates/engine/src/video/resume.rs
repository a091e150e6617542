//! Denoised latents on disk, so that a run that is lost while decoding need not be denoised again.
//!
//! A safetensors file of the tensor `latents`, `[1, C, T, H, W]`, whose metadata says everything that decided what is
//! in it, and the elements' BLAKE3.

use std::fs;
use std::path::{Path, PathBuf};

use wushi_formats::safetensors::Safetensors;

use super::latents::write_latents;
use super::tensor_file::{self, Read};
use super::{FramesDigest, Rounding, Settings, Spacing, VideoError};

/// Raised when the same settings come to give other latents.
const FORMAT: &str = "1";
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
            ("sampler", settings.sampler.name().to_owned()),
            ("spacing", spacing.to_owned()),
            ("rounding", rounding.to_owned()),
            // Last: a seed that was not given is another in every run, and only tells if all else is the same.
            ("start", start),
        ])
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
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(VideoError::io("create", folder))?;
    }
    let digest = digest(&settings.latents.channels_first(latents));
    let mut metadata: Vec<(&str, &str)> =
        identity.0.iter().map(|(key, value)| (*key, value.as_str())).collect();
    metadata.push(("digest", &digest));
    write_latents(path, &settings.latents, latents, &metadata)
}

/// Reads denoised latents as `[T, H, W, C]`; those of another video, or damaged ones, are an error.
pub fn load_latents(path: &Path, identity: &Identity, settings: &Settings) -> Result<Vec<f32>, VideoError> {
    let Read { shape, values, file } = tensor_file::read(path, "latents")?;
    let bad = |problem: &str| VideoError::BadTensor { path: path.to_owned(), problem: problem.to_owned() };
    for (key, expected) in &identity.0 {
        let Some(found) = file.metadata(key) else {
            return Err(bad("these are no latents that a run has saved: they do not say how they were made"));
        };
        if found != expected {
            let found: String = found.chars().take(80).collect();
            let (path, expected) = (path.to_owned(), expected.clone());
            return Err(VideoError::OtherVideo { path, what: key, found, expected });
        }
    }
    if shape != settings.latents.in_file() || file.metadata("digest") != Some(digest(&values).as_str()) {
        return Err(bad("the saved latents are damaged; remove the file and begin anew"));
    }
    Ok(settings.latents.channels_last(&values))
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

    #[test]
    fn latents_come_back_for_the_same_video_only() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(7);
        let latents: Vec<f32> = (0..settings.latents.elements()).map(|i| i as f32 / 3.0).collect();
        let identity = Identity::new("weights", "a cat", &settings, None);
        let path = identity.path(&folder.path().join("not/yet"));
        save_latents(&path, &identity, &settings, &latents).unwrap();
        assert_eq!(load_latents(&path, &identity, &settings).unwrap(), latents);

        let told = |other: Identity| {
            assert_ne!(other.path(path.parent().unwrap()), path);
            load_latents(&path, &other, &settings).unwrap_err().to_string()
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
        let told = || load_latents(&path, &identity, &settings).unwrap_err().to_string();
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
