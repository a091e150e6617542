//! Tokens that mark a gap in a text for the model to fill in.

use crate::gguf::StringArray;
use crate::{FormatError, Metadata};

/// Tokens that models trained to fill in the middle have: before what precedes the gap, before what follows it, and
/// before what belongs into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Infill {
    /// Stands before the text that precedes the gap.
    pub prefix: u32,
    /// Stands before the text that follows the gap.
    pub suffix: u32,
    /// Stands last; the model goes on with what belongs into the gap.
    pub middle: u32,
}

/// Each one's key in GGUF files, then the one it had before.
const KEYS: [[&str; 2]; 3] = [
    ["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
    ["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
    ["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
];

/// What the tokens are called where a file does not name them (the names are those llama.cpp knows, too).
const NAMES: [[&str; 3]; 8] = [
    // Qwen2.5-Coder, CodeGemma.
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    // StarCoder, Granite.
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    // SantaCoder.
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    // DeepSeek, whose names say where the gap is.
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    // CodeLlama.
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
    ["<PRE>", "<SUF>", "<MID>"],
    // GLM.
    ["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"],
    // Falcon.
    ["<|prefix|>", "<|suffix|>", "<|middle|>"],
];

impl Infill {
    /// What the file says, else the first of the well-known triples that the vocabulary has.
    pub(super) fn read(metadata: &Metadata, tokens: &StringArray) -> Result<Option<Infill>, FormatError> {
        let mut said = [None; 3];
        for (said, keys) in said.iter_mut().zip(KEYS) {
            for key in keys {
                let id = super::special::id_at(metadata, key, tokens.len())?;
                *said = said.or(id);
            }
        }
        let known = named(tokens);
        let id = |place: usize| said[place].or(known.map(|ids| ids[place]));
        Ok(match (id(0), id(1), id(2)) {
            (Some(prefix), Some(suffix), Some(middle)) => Some(Infill { prefix, suffix, middle }),
            _ => None,
        })
    }

    /// All three.
    pub(super) fn ids(&self) -> [u32; 3] {
        [self.prefix, self.suffix, self.middle]
    }
}

/// The ids of the first triple that is there as a whole.
fn named(tokens: &StringArray) -> Option<[u32; 3]> {
    let mut found = [[None; 3]; NAMES.len()];
    for (text, id) in tokens.iter().zip(0u32..) {
        // Quick for nearly all: names end with a bracket.
        if !text.ends_with('>') {
            continue;
        }
        for (found, names) in found.iter_mut().zip(NAMES) {
            if let Some(place) = names.iter().position(|&name| name == text) {
                found[place].get_or_insert(id);
            }
        }
    }
    found.into_iter().find_map(|ids| Some([ids[0]?, ids[1]?, ids[2]?]))
}
