//! OpenAI's API: wire types and handlers.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod models;
pub(crate) mod shared;
pub(crate) mod tokenize;
