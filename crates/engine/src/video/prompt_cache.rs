//! States of prompts on disk, so that the text encoder, the largest part to load, is not needed twice for one prompt.
//!
//! A safetensors file for each prompt, of the tensor `states`, `[rows, elements]`. Its metadata names the encoder and
//! the prompt by digests; whatever does not fit is computed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::resume::digest;
use super::tensor_file::{self, TensorFile};
use super::{VideoError, VideoModel};

/// Prompts that are kept, the most recent ones.
const KEPT: usize = 256;
/// Raised when the same prompt comes to give other states.
const FORMAT: &str = "1";

/// What the text encoder makes of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct TextStates {
    /// Tokens of the prompt; rows behind them are zero and not stored.
    pub rows: usize,
    /// `[rows, elements]`.
    pub values: Vec<f32>,
}

/// A folder of states, for one text encoder.
#[derive(Clone, Debug)]
pub struct PromptCache {
    folder: PathBuf,
    encoder: String,
}

impl PromptCache {
    /// In `folder`, which need not exist yet. `encoder` is a digest of the encoder's weights and tokenizer.
    pub fn new(folder: &Path, encoder: &str) -> PromptCache {
        PromptCache { folder: folder.to_owned(), encoder: encoder.to_owned() }
    }

    /// States of a prompt, if they are here and sound.
    pub fn get(&self, prompt: &str, model: &VideoModel) -> Option<TextStates> {
        let key = self.key(prompt, model);
        let path = self.path(&key);
        if !path.exists() {
            return None;
        }
        match self.read(&path, &key, model) {
            Ok(states) => Some(states),
            Err(problem) => {
                tracing::warn!("{}: {problem}; the prompt is encoded again", path.display());
                None
            }
        }
    }

    /// Keeps the states of a prompt, and lets go of those that have lain here longest.
    pub fn put(&self, prompt: &str, model: &VideoModel, states: &TextStates) -> Result<(), VideoError> {
        fs::create_dir_all(&self.folder).map_err(VideoError::io("create", &self.folder))?;
        let key = self.key(prompt, model);
        let digest = digest(&states.values);
        let metadata =
            [("format", FORMAT), ("encoder", &self.encoder), ("prompt", &key), ("digest", digest.as_str())];
        let shape = [states.rows, model.text_dim];
        let mut file = TensorFile::create(&self.path(&key), "states", &shape, &metadata)?;
        file.write(&states.values)?;
        file.finish()?;
        self.prune();
        Ok(())
    }

    /// A digest of everything the states follow from.
    fn key(&self, prompt: &str, model: &VideoModel) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in [FORMAT, &self.encoder, &model.text_len.to_string(), prompt] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("prompt-{}.safetensors", &key[..32]))
    }

    fn read(&self, path: &Path, key: &str, model: &VideoModel) -> Result<TextStates, String> {
        let read = tensor_file::read(path, "states").map_err(|error| error.to_string())?;
        let digest = digest(&read.values);
        let expected =
            [("format", FORMAT), ("encoder", &self.encoder), ("prompt", key), ("digest", digest.as_str())];
        if let Some((name, _)) = expected.iter().find(|(name, value)| read.file.metadata(name) != Some(value))
        {
            return Err(format!("its {name} does not fit"));
        }
        match read.shape[..] {
            [rows, elements] if (1..=model.text_len).contains(&rows) && elements == model.text_dim => {
                Ok(TextStates { rows, values: read.values })
            }
            _ => Err(format!("its shape is {:?}", read.shape)),
        }
    }

    /// What cannot be removed stays: it does no harm.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let ours = |name: &str| name.starts_with("prompt-") && name.ends_with(".safetensors");
        let files = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(ours));
        let mut files: Vec<(SystemTime, PathBuf)> =
            files.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
        files.sort();
        for (_, path) in files.iter().rev().skip(KEPT) {
            if let Err(error) = fs::remove_file(path) {
                tracing::debug!("{}: {error}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::model;
    use super::*;

    fn states() -> TextStates {
        TextStates { rows: 2, values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] }
    }

    #[test]
    fn states_come_back_for_their_prompt_encoder_and_length() {
        let folder = tempfile::tempdir().unwrap();
        let cache = PromptCache::new(&folder.path().join("prompts"), "encoder");
        let model = model();
        assert_eq!(cache.get("a cat", &model), None);
        cache.put("a cat", &model, &states()).unwrap();
        assert_eq!(cache.get("a cat", &model), Some(states()));
        assert_eq!(cache.get("a dog", &model), None);
        assert_eq!(PromptCache::new(&folder.path().join("prompts"), "other").get("a cat", &model), None);
        assert_eq!(cache.get("a cat", &VideoModel { text_len: 9, ..model.clone() }), None);
        // Same key, other width: a description that belongs to other weights.
        assert_eq!(cache.get("a cat", &VideoModel { text_dim: 6, ..model }), None);
    }

    #[test]
    fn what_is_damaged_is_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = PromptCache::new(folder.path(), "encoder");
        let model = model();
        cache.put("a cat", &model, &states()).unwrap();
        let path = cache.path(&cache.key("a cat", &model));
        let bytes = fs::read(&path).unwrap();
        for at in [0, 9, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(cache.get("a cat", &model), None, "byte {at}");
        }
        fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
        assert_eq!(cache.get("a cat", &model), None);
        cache.put("a cat", &model, &states()).unwrap();
        assert_eq!(cache.get("a cat", &model), Some(states()));
    }

    #[test]
    fn the_folder_does_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let cache = PromptCache::new(folder.path(), "encoder");
        fs::write(folder.path().join("something else"), "kept").unwrap();
        for index in 0..KEPT {
            fs::write(folder.path().join(format!("prompt-{index}.safetensors")), "old").unwrap();
        }
        cache.put("a cat", &model(), &states()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), KEPT + 1);
        assert!(folder.path().join("something else").exists());
        assert_eq!(cache.get("a cat", &model()), Some(states()));
    }
}
