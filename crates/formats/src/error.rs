//! What can be wrong with a file.

use std::io;
use std::path::PathBuf;

/// Why a file, a vocabulary or a template could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The operating system refused to open or map a file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Any other error, with the file it concerns.
    #[error("{path}: {error}", path = path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Part of this error's own text, hence not its `source`.
        error: Box<FormatError>,
    },

    /// The bytes are something else, or nothing.
    #[error("not a GGUF file: {0}")]
    NotGguf(&'static str),
    /// The bytes are something else, or damaged.
    #[error("not a sound safetensors file: {0}")]
    BadSafetensors(String),
    /// The bytes are no PyTorch checkpoint, or one that is not read.
    #[error("not a PyTorch checkpoint that can be read: {0}")]
    BadTorch(String),
    /// Files that make no pipeline.
    #[error(transparent)]
    Pipeline(#[from] Box<PipelineError>),
    /// A folder without a model that can be read.
    #[error("{0}")]
    BadFolder(String),
    /// A file of JSON that is none, or says what it must not.
    #[error("{file}: {problem}")]
    BadJson {
        /// Its name.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A tensor that no part of the model uses.
    #[error(
        "tensor `{0}` has no place in the model that config.json describes; the files do not belong together, or use a \
         feature that is not supported"
    )]
    UnusedTensor(String),
    /// A tensor that a model needs.
    #[error("tensor `{0}` is missing")]
    MissingTensor(String),
    /// Written on a big-endian machine.
    #[error("big-endian GGUF files are not supported; convert the model again as little-endian")]
    BigEndian,
    /// A version this reader does not know.
    #[error("GGUF version {0} is not supported (versions 2 and 3 are); convert the model again")]
    UnsupportedVersion(u32),
    /// The file says it holds more than it does.
    #[error("file ends inside {what}: needs {needs} more bytes, has {has}; it is truncated or damaged")]
    Truncated {
        /// The item being read.
        what: String,
        /// Bytes the item takes, at least.
        needs: u64,
        /// Bytes left in the file.
        has: u64,
    },
    /// Text that is no text.
    #[error("{0} is not valid UTF-8")]
    InvalidUtf8(String),
    /// A key or tensor name that is none.
    #[error("{0}; the file is damaged")]
    BadName(String),
    /// A metadata value that no version of the format defines.
    #[error("metadata key `{key}` has {problem}")]
    InvalidValue {
        /// Metadata key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// Two metadata entries of one name.
    #[error("metadata key `{0}` appears twice")]
    DuplicateKey(String),
    /// Two tensors of one name.
    #[error("tensor `{0}` appears twice")]
    DuplicateTensor(String),
    /// `general.alignment` is no power of two.
    #[error("general.alignment is {0}; it must be a power of two, at most 2^30")]
    BadAlignment(u32),
    /// A tensor's shape makes no sense.
    #[error("tensor `{tensor}`: {problem}")]
    BadShape {
        /// Tensor name.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// A tensor's bytes are not where the format wants them.
    #[error("tensor `{tensor}`: {problem}; the file is damaged")]
    BadOffset {
        /// Tensor name.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// A storage type without kernels.
    #[error("tensor `{tensor}` is stored as {found}, which is not supported; supported: {supported}")]
    UnsupportedType {
        /// Tensor name.
        tensor: String,
        /// Name of its type.
        found: String,
        /// Names of the types that are.
        supported: String,
    },
    /// A model that was cut into several files, not all of which are there or belong together.
    #[error("this is one of {parts} parts of a model: {problem}")]
    Shards {
        /// How many there should be.
        parts: u32,
        /// What is wrong, and what to do.
        problem: String,
    },

    /// A metadata entry that is needed.
    #[error("metadata key `{0}` is missing")]
    MissingKey(String),
    /// A metadata entry that nobody here understands.
    #[error("metadata key `{0}` is not known; the file is damaged, or uses a feature that is not supported")]
    UnknownKey(String),
    /// A metadata entry of another type.
    #[error("metadata key `{key}` should be {expected}, but is {found}")]
    WrongType {
        /// Metadata key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// What there is.
        found: String,
    },

    /// A tokenizer of an unknown kind.
    #[error("{key} is `{found}`, which is not supported; supported: {supported}")]
    UnsupportedTokenizer {
        /// Metadata key that says so.
        key: &'static str,
        /// Its value.
        found: String,
        /// Values that are supported.
        supported: String,
    },
    /// A vocabulary that contradicts itself.
    #[error("invalid vocabulary: {0}")]
    InvalidVocabulary(String),
    /// A text that cannot be split into tokens.
    #[error("text cannot be tokenized: {0}")]
    Tokenize(String),

    /// A chat template that does not parse.
    #[error("invalid chat template: {0}")]
    TemplateSyntax(String),
    /// A chat template that says these messages are not for it.
    #[error("the model's chat template refuses these messages: {0}")]
    TemplateRefused(String),
    /// A chat template that fails, or exceeds its limits.
    #[error("chat template failed: {0}")]
    TemplateRender(String),
}

/// What is wrong with the files of a pipeline, or with one of them as a part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A part that a pipeline needs and that is not there.
    #[error("the {part} is missing: looked for {looked} in {place}; {advice}", place = place.display())]
    MissingPart {
        /// What it is, in words: `text encoder`.
        part: &'static str,
        /// Names of files and folders that it could have had.
        looked: String,
        /// Where it was looked for.
        place: PathBuf,
        /// What to do.
        advice: String,
    },
    /// Several files that could be a part.
    #[error("{place}: any of {found} could be the {part}; {advice}", place = place.display())]
    ManyParts {
        /// What it is, in words.
        part: &'static str,
        /// The files.
        found: String,
        /// The folder they are in.
        place: PathBuf,
        /// What to do.
        advice: String,
    },
    /// A scale of eight-bit floats that is none.
    #[error(
        "tensor `{scale}` should be the scale of `{tensor}`, {expected}, but {problem}; the file is damaged"
    )]
    BadScale {
        /// The scale.
        scale: String,
        /// What it scales.
        tensor: String,
        /// What it should be.
        expected: String,
        /// What it is.
        problem: String,
    },
    /// A tensor that is to be seen in another shape, and cannot.
    #[error("tensor `{tensor}` has shape {found:?}; expected {wanted:?}; {problem}")]
    OtherShape {
        /// Its name.
        tensor: String,
        /// The file's shape.
        found: Vec<usize>,
        /// The one asked for.
        wanted: Vec<usize>,
        /// Why not, and what to do.
        problem: &'static str,
    },
}

impl From<PipelineError> for FormatError {
    fn from(error: PipelineError) -> FormatError {
        FormatError::Pipeline(Box::new(error))
    }
}

/// A file's own words in a message: the beginning of them, with control characters made visible, so that a hostile
/// file can neither flood a terminal nor command it.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARS: usize = 300;
    let mut shown: String = text.chars().take(CHARS).flat_map(escape).collect();
    if text.chars().nth(CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// What a file is that is none of ours, where its beginning tells.
pub(crate) fn stranger(file: &[u8]) -> Option<&'static str> {
    let start = &file[..file.len().min(64)];
    let text = start.trim_ascii_start().to_ascii_lowercase();
    if file.is_empty() {
        Some("it is empty")
    } else if text.starts_with(b"version https://git-lfs") {
        Some("it is a git-lfs pointer; fetch the file itself (`git lfs pull`)")
    } else if text.starts_with(b"<!doctype") || text.starts_with(b"<html") {
        Some("it is a web page; the download went to the wrong address")
    } else if start.starts_with(b"PK\x03\x04") {
        Some("it is a zip archive or a PyTorch checkpoint")
    } else {
        None
    }
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let (escaped, plain) = if c.is_control() { (Some(c.escape_default()), None) } else { (None, Some(c)) };
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_short_and_harmless() {
        assert_eq!(excerpt("naïve 你好"), "naïve 你好");
        assert_eq!(excerpt("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert_eq!(excerpt(&"é".repeat(1000)), "é".repeat(300) + "…");
    }
}
