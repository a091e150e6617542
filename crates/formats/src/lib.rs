//! GGUF, safetensors, tokenizers, chat templates: bytes on disk to named tensors and text.
//!
//! Everything here reads files that nobody vouches for. Every count and length is bounded against the file before
//! it is used, nothing panics on bad bytes, and an error says what was wrong, where, and what to do.

pub mod checkpoint;
pub mod gguf;
pub mod huggingface;
pub mod pipeline;
pub mod safetensors;
pub mod template;
pub mod tokenizer;

mod error;
mod mapped;
mod torch;

pub use checkpoint::{Checkpoint, TensorInfo};
pub use error::{FormatError, PipelineError};
pub use gguf::{Gguf, Metadata};
pub use huggingface::Folder;
pub use pipeline::{Pipeline, Sources};
pub use template::{ChatPrompt, ChatTemplate, Content, Message, RenderOptions};
pub use tokenizer::{Infill, Tokenizer};
