//! GGUF, tokenizers, chat templates: bytes on disk to named tensors and text.
//!
//! Everything here reads files that nobody vouches for. Every count and length is bounded against the file before
//! it is used, nothing panics on bad bytes, and an error says what was wrong, where, and what to do.

pub mod gguf;
pub mod template;
pub mod tokenizer;

mod error;

pub use error::FormatError;
pub use gguf::{Gguf, Metadata};
pub use template::{ChatTemplate, Content, Message, RenderOptions};
pub use tokenizer::Tokenizer;
