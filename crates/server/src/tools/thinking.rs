//! What a model thinks before it answers.

use serde::{Deserialize, Serialize};

/// How thoughts are told from the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThinkFormat {
    /// In front of them.
    pub begin: String,
    /// Behind them.
    pub end: String,
}

/// The pairs in use.
const PAIRS: [(&str, &str); 4] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<reasoning>", "</reasoning>"),
];

impl ThinkFormat {
    /// How a model with this chat template marks its thoughts, if it thinks.
    pub fn of_template(source: &str) -> Option<ThinkFormat> {
        let (begin, end) =
            PAIRS.iter().find(|(begin, end)| source.contains(begin) || source.contains(end))?;
        Some(ThinkFormat { begin: (*begin).to_owned(), end: (*end).to_owned() })
    }

    /// Whether a prompt has opened thoughts and not closed them, so that the answer begins inside.
    pub fn is_open(&self, prompt: &str) -> bool {
        prompt.trim_end().ends_with(&self.begin)
    }

    /// Texts that must reach the parser even where they are control tokens.
    pub fn markers(&self) -> [&str; 2] {
        [&self.begin, &self.end]
    }
}
