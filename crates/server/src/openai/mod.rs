//! OpenAI's API: wire types, and what they become.

pub(crate) mod chat;
pub(crate) mod chat_stream;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod message;
pub(crate) mod models;
pub(crate) mod responses;
pub(crate) mod shared;
pub(crate) mod tokenize;
pub(crate) mod tool;
