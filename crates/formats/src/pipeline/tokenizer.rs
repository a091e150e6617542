//! The tokenizer of a pipeline's text encoder.

use std::path::{Path, PathBuf};

use super::part::in_file;
use super::{Part, Pipeline};
use crate::huggingface::files::Files;
use crate::huggingface::json;
use crate::tokenizer::huggingface::{TokenizerFiles, import};
use crate::tokenizer::spiece;
use crate::{FormatError, Metadata, Tokenizer};

/// What the one file of SentencePiece's is called.
const SPIECE: &str = "spiece.model";
const TOKENIZER: &str = "tokenizer.json";

impl Pipeline {
    /// The tokenizer: the one that the sources name, or that the text encoder's GGUF file has. `vocabulary` is the
    /// number of rows of the embedding.
    ///
    /// # Errors
    /// Files that cannot be read, and tokenizers that are not supported.
    pub fn tokenizer(&self, vocabulary: usize) -> Result<Tokenizer, FormatError> {
        match &self.sources.tokenizer {
            Some(path) => open(path, vocabulary),
            None => of_part(&self.text_encoder),
        }
    }
}

/// A tokenizer in a folder (`tokenizer.json` with the files beside it, or `spiece.model`), or in a file.
///
/// # Errors
/// Files that cannot be read, and tokenizers that are not supported. They name the file.
pub fn open(path: &Path, vocabulary: usize) -> Result<Tokenizer, FormatError> {
    let (folder, name) = match path.is_dir() {
        true => {
            let found = [TOKENIZER, SPIECE].into_iter().find(|name| path.join(name).is_file());
            (path.to_owned(), found.unwrap_or(TOKENIZER).to_owned())
        }
        false => {
            let folder = path.parent().map(Path::to_owned).unwrap_or_default();
            (folder, path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        }
    };
    let file: PathBuf = folder.join(&name);
    let mut metadata = Metadata::new();
    read(&folder, &name, vocabulary, &mut metadata)
        .and_then(|()| Tokenizer::from_gguf(&metadata))
        .map_err(|error| in_file(&file, error))
}

fn read(folder: &Path, name: &str, vocabulary: usize, metadata: &mut Metadata) -> Result<(), FormatError> {
    let files = Files::Disk(folder.to_owned());
    let Some(bytes) = files.read(name)? else {
        let (path, source) = (folder.join(name), std::io::ErrorKind::NotFound.into());
        return Err(FormatError::Io { path, source });
    };
    if !name.ends_with(".json") {
        return spiece::import(&bytes, vocabulary, metadata);
    }
    let (config, map) = (json(&files, "tokenizer_config.json")?, json(&files, "special_tokens_map.json")?);
    let files = TokenizerFiles {
        tokenizer_json: &bytes,
        tokenizer_config: config.as_ref(),
        special_tokens_map: map.as_ref(),
        generation_config: None,
        chat_template: None,
        vocab_size: vocabulary,
    };
    import(&files, metadata)
}

/// The tokenizer in a GGUF file's metadata.
fn of_part(part: &Part) -> Result<Tokenizer, FormatError> {
    Tokenizer::from_gguf(part.metadata()).map_err(|error| part.error(error))
}
