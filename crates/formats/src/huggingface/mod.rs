//! A model's folder as published on Hugging Face: `config.json`, safetensors in one file or several with an index, and
//! files beside them.
//!
//! What the configuration's keys and the tensors' names mean is a family's affair; here they are read and checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::Value;
use wushi_graph::DType;

use crate::checkpoint::{Checkpoint, Recipe};
use crate::error::excerpt;
use crate::mapped::Mapped;
use crate::safetensors::{Safetensors, StoredTensor};
use crate::tokenizer::huggingface::{TokenizerFiles, import};
use crate::{FormatError, Metadata};

mod assemble;
pub(crate) mod files;

use files::Files;

/// The file that says what model a folder holds.
pub const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
const TEMPLATE: &str = "chat_template.jinja";
/// More files than any model is cut into.
const MAX_SHARDS: usize = 10_000;

/// An open folder: the configuration and the headers of all weights are read and checked.
#[derive(Debug)]
pub struct Folder {
    files: Files,
    config: Value,
    weights: Vec<Mapped>,
    tensors: Vec<InFile>,
    by_name: HashMap<String, usize>,
    /// Tensors that need no place in the model.
    ignored: HashSet<String>,
}

/// A tensor, and in which of the folder's weight files it is.
#[derive(Debug)]
struct InFile {
    file: usize,
    tensor: StoredTensor,
}

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    /// Files that are missing or damaged, tensors that are in two files or in none. They name the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Folder, FormatError> {
        let path = path.as_ref();
        Folder::read(Files::Disk(path.to_owned())).map_err(|error| match error {
            error @ (FormatError::Io { .. } | FormatError::InFile { .. }) => error,
            error => FormatError::InFile { path: path.to_owned(), error: Box::new(error) },
        })
    }

    /// A folder that is in memory: its files by name.
    pub fn from_files(files: BTreeMap<String, Vec<u8>>) -> Result<Folder, FormatError> {
        Folder::read(Files::Memory(files))
    }

    fn read(files: Files) -> Result<Folder, FormatError> {
        let config = json(&files, CONFIG)?.ok_or_else(|| absent(&files, CONFIG))?;
        if !config.is_object() {
            let problem = "it is no object".to_owned();
            return Err(FormatError::BadJson { file: CONFIG.to_owned(), problem });
        }
        let (names, index) = weight_files(&files)?;
        let mut folder = Folder {
            files,
            config,
            weights: Vec::new(),
            tensors: Vec::new(),
            by_name: HashMap::new(),
            ignored: HashSet::new(),
        };
        for name in &names {
            folder.add_weights(name)?;
        }
        for (tensor, file) in index {
            let found = folder.by_name.get(&tensor).map(|&place| folder.tensors[place].file);
            if found.is_none_or(|found| names[found] != file) {
                let problem = format!("tensor `{}` is not in {file}, where it should be", excerpt(&tensor));
                return Err(FormatError::BadJson { file: INDEX.to_owned(), problem });
            }
        }
        Ok(folder)
    }

    fn add_weights(&mut self, name: &str) -> Result<(), FormatError> {
        let mapped = self.files.map(name)?;
        let in_file = |error| FormatError::InFile {
            path: self.files.path().map_or_else(|| name.into(), |folder| folder.join(name)),
            error: Box::new(error),
        };
        let (mapped, tensors) = Safetensors::read(mapped).map_err(in_file)?.into_parts();
        let file = self.weights.len();
        for tensor in tensors {
            if self.by_name.insert(tensor.name.clone(), self.tensors.len()).is_some() {
                return Err(in_file(FormatError::DuplicateTensor(excerpt(&tensor.name))));
            }
            self.tensors.push(InFile { file, tensor });
        }
        self.weights.push(mapped);
        Ok(())
    }

    /// `config.json`, which is an object.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// What the folder is called: its own name, or in a cache of Hugging Face the repository's.
    pub fn name(&self) -> Option<String> {
        let path = self.files.path()?;
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let repository = path.iter().rev().filter_map(|part| part.to_str()?.strip_prefix("models--"));
        let repository = repository.filter_map(|part| part.rsplit("--").next()).next();
        repository.or_else(|| path.file_name()?.to_str()).map(str::to_owned)
    }

    /// The names of all tensors.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|held| held.tensor.name.as_str())
    }

    /// The supported storage type that most elements have.
    pub fn main_type(&self) -> Option<DType> {
        let bytes = |dtype: DType| -> usize {
            let held = self.tensors.iter().filter(|held| held.tensor.dtype == Some(dtype));
            held.map(|held| held.tensor.range.len() / dtype.block_bytes()).sum()
        };
        let types = [DType::F32, DType::F16, DType::BF16].into_iter();
        types.max_by_key(|&dtype| bytes(dtype)).filter(|&dtype| bytes(dtype) > 0)
    }

    /// A tensor's shape, outermost dimension first, if there is such a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors[*self.by_name.get(name)?].tensor.shape)
    }

    /// Says that a tensor, if it is there, needs no place in the model.
    pub fn ignore(&mut self, name: &str) {
        self.ignored.insert(name.to_owned());
    }

    /// The licence that the model card names.
    pub fn licence(&self) -> Result<Option<String>, FormatError> {
        let card = self.files.read("README.md")?.unwrap_or_default();
        // The card begins with a block of YAML; this one line is all that is wanted of it.
        let Some(rest) = card.strip_prefix(b"---\n") else { return Ok(None) };
        let lines = rest.split(|&byte| byte == b'\n').take_while(|line| line.trim_ascii() != b"---");
        let line = lines.filter_map(|line| line.strip_prefix(b"license:")).next();
        let name = line.and_then(|name| std::str::from_utf8(name.trim_ascii()).ok());
        Ok(name.map(|name| name.trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty()))
    }

    /// A file of JSON beside the weights, if it is there.
    pub fn json(&self, name: &str) -> Result<Option<Value>, FormatError> {
        json(&self.files, name)
    }

    /// Adds what the tokenizer's files and the chat template say to the metadata. `vocabulary` is the number of rows of
    /// the embedding.
    ///
    /// # Errors
    /// Without `tokenizer.json`, or where it cannot be read or used.
    pub fn import_tokenizer(&self, vocabulary: usize, metadata: &mut Metadata) -> Result<(), FormatError> {
        let tokenizer_json = self.files.read(TOKENIZER)?.ok_or_else(|| absent(&self.files, TOKENIZER))?;
        let template = match self.files.read(TEMPLATE)? {
            None => None,
            Some(bytes) => {
                Some(String::from_utf8(bytes).map_err(|_| FormatError::InvalidUtf8(TEMPLATE.to_owned()))?)
            }
        };
        let beside = |name: &str| json(&self.files, name);
        let (config, map) = (beside("tokenizer_config.json")?, beside("special_tokens_map.json")?);
        let generation = beside("generation_config.json")?;
        let files = TokenizerFiles {
            tokenizer_json: &tokenizer_json,
            tokenizer_config: config.as_ref(),
            special_tokens_map: map.as_ref(),
            generation_config: generation.as_ref(),
            chat_template: template.as_deref(),
            vocab_size: vocabulary,
        };
        import(&files, metadata)
    }

    /// The model that these recipes describe, by canonical names, in this order.
    ///
    /// # Errors
    /// Tensors that are missing, have other shapes or types than they should, or that no recipe uses.
    pub fn into_checkpoint(
        self,
        metadata: Metadata,
        recipes: Vec<(String, Recipe)>,
    ) -> Result<Checkpoint, FormatError> {
        assemble::assemble(self, metadata, recipes)
    }
}

/// A file of JSON, if it is there.
pub(crate) fn json(files: &Files, name: &str) -> Result<Option<Value>, FormatError> {
    let Some(bytes) = files.read(name)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| FormatError::BadJson { file: name.to_owned(), problem: excerpt(&error.to_string()) })
}

/// The files with weights, and what the index says is in which, if there is one.
pub(crate) type WeightFiles = (Vec<String>, Vec<(String, String)>);

fn weight_files(files: &Files) -> Result<WeightFiles, FormatError> {
    if files.has(WEIGHTS) {
        return Ok((vec![WEIGHTS.to_owned()], Vec::new()));
    }
    match indexed(files, INDEX)? {
        Some(found) => Ok(found),
        None => Err(absent(files, WEIGHTS)),
    }
}

/// What the index of this name says, if it is there: the files with weights, all of which are there.
pub(crate) fn indexed(files: &Files, name: &str) -> Result<Option<WeightFiles>, FormatError> {
    let Some(index) = json(files, name)? else { return Ok(None) };
    let bad = |problem: String| FormatError::BadJson { file: name.to_owned(), problem };
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| bad("it has no `weight_map`".to_owned()))?;
    let mut entries = Vec::new();
    for (tensor, file) in map {
        // A name only, or the index could lead out of the folder.
        let file = file.as_str().filter(|file| Path::new(file).file_name().is_some_and(|name| name == *file));
        let file = file.filter(|file| file.ends_with(".safetensors"));
        let file =
            file.ok_or_else(|| bad(format!("tensor `{}` is in no safetensors file", excerpt(tensor))))?;
        entries.push((tensor.clone(), file.to_owned()));
    }
    let mut names: Vec<String> = entries.iter().map(|(_, file)| file.clone()).collect();
    names.sort();
    names.dedup();
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(bad(format!("it names {} files", names.len())));
    }
    let missing: Vec<&str> = names.iter().map(String::as_str).filter(|name| !files.has(name)).collect();
    match missing.as_slice() {
        [] => Ok(Some((names, entries))),
        some => Err(FormatError::BadFolder(format!(
            "of the {} files that {name} names, {} missing: {}",
            names.len(),
            if some.len() == 1 { "one is".to_owned() } else { format!("{} are", some.len()) },
            excerpt(&some.join(", ")),
        ))),
    }
}

/// What to say of a folder without a file that it needs: what is there instead often tells why.
fn absent(files: &Files, name: &str) -> FormatError {
    let names = match files.names() {
        Ok(names) => names,
        Err(error) => return error,
    };
    let any = |ends: &[&str]| names.iter().find(|name| ends.iter().any(|end| name.ends_with(end)));
    let problem = if let Some(gguf) = any(&[".gguf"]).filter(|_| name != TOKENIZER) {
        format!("this folder has no {name}, but GGUF files; name one of them, as in {}", excerpt(gguf))
    } else if name == TOKENIZER {
        let hint = match any(&["tokenizer.model", "vocab.json", "tekken.json", "spiece.model"]) {
            Some(other) => format!(
                "{other} alone is not read; `AutoTokenizer.from_pretrained(…).save_pretrained(…)` of `transformers` makes the file"
            ),
            None => "without it text cannot become tokens".to_owned(),
        };
        format!("there is no {name}: {hint}")
    } else if let Some(pickle) = any(&[".bin", ".pth", ".pt"]).filter(|_| name == WEIGHTS) {
        format!(
            "there is no {name}, but {}, which is a Python pickle and can run code; such files are not read. Convert the \
             model to safetensors first (`save_pretrained` of `transformers` does)",
            excerpt(pickle)
        )
    } else {
        format!(
            "there is no {name}: a model's folder has config.json, tokenizer.json and model.safetensors (or several with \
             {INDEX})"
        )
    };
    FormatError::BadFolder(problem)
}
