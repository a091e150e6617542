//! Tokens that are more than text: what kind each is, and which end an answer.

/// What a token is for (`tokenizer.ggml.token_type`; `enum llama_token_type` of llama.cpp).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, reached by merging; also unused and undefined tokens, which nothing reaches.
    Text,
    /// Stands for a role, a turn's end and so on; recognised in prompts only where that is asked for.
    Control,
    /// Text that is always one token.
    UserDefined,
}

impl Kind {
    /// From the file's number; `None` if there is no such kind.
    pub(super) fn from_number(number: i32) -> Option<Kind> {
        match number {
            // Undefined, normal, unused, byte.
            0 | 1 | 5 | 6 => Some(Kind::Text),
            // Unknown, control.
            2 | 3 => Some(Kind::Control),
            4 => Some(Kind::UserDefined),
            _ => None,
        }
    }
}

/// Metadata keys of tokens that end an answer.
pub(super) const ENDING_KEYS: &[&str] = &[
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

/// Texts of tokens that end an answer whatever the file says: many files declare one of several, or the wrong one.
/// The list is llama.cpp's, `</s>` and `<eos>` aside, which are also plain mark-up and must be declared.
const ENDING_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<reponame>",
    "<|file_sep|>",
];

/// Whether a token of this text ends an answer.
pub(super) fn is_ending(text: &str) -> bool {
    // Quick for the 50,000 that do not: all of the list are bracketed.
    matches!(text.as_bytes(), [b'<' | b'[' | b'_', .., b'>' | b']']) && ENDING_TEXTS.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_check_misses_none() {
        for text in ENDING_TEXTS {
            assert!(is_ending(text), "{text}");
        }
        assert!(!is_ending("</s>") && !is_ending("") && !is_ending("<"));
    }
}
