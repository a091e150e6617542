//! Anthropic's API: wire types, and what they become.

pub(crate) mod error;
pub(crate) mod handlers;
pub(crate) mod request;
mod response;
mod stream;

pub(crate) use request::MessagesRequest;
