//! The little an engine needs to know of a tokenizer.

/// The text behind token ids.
pub trait Vocabulary: Send + Sync {
    /// The bytes of a token, not necessarily valid UTF-8 on their own; empty for an id without any.
    fn token_bytes(&self, id: u32) -> &[u8];

    /// Whether the token steers the model (begin of sequence, end of turn) and is no text.
    fn is_control(&self, id: u32) -> bool;
}
