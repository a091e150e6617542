//! A model's tokens as `llguidance` wants them.

use std::collections::BTreeMap;
use std::sync::Arc;

use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie, TokenId};
use wushi_formats::Tokenizer;

use super::ConstraintError;

/// Longer tokens stay unused: the tree of tokens has room for no more levels.
const LONGEST: usize = 1000;
/// Nodes and ids the tree has room for.
const MOST_NODES: usize = (1 << 22) - 1;
const MOST_TOKENS: usize = (1 << 24) - 1;

/// The tokens of a model: which are text, which are signs, and the tree that masks are made from.
pub(super) struct Vocabulary {
    pub(super) environment: TokEnv,
    /// Tokens that text may consist of, one bit each.
    pub(super) text: Vec<u32>,
    /// Tokens that end an answer.
    pub(super) ends: Vec<TokenId>,
    /// Control tokens by name.
    control: BTreeMap<String, TokenId>,
}

impl Vocabulary {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Vocabulary, ConstraintError> {
        let count = tokenizer.vocab_size();
        if count == 0 || count > MOST_TOKENS {
            return Err(ConstraintError::Model(format!("its tokenizer has {count} tokens")));
        }
        let ends = tokenizer.end_of_generation().to_vec();
        let Some(&end) = ends.first() else {
            return Err(ConstraintError::Model("its tokenizer has no token that ends an answer".to_owned()));
        };
        let mut text = vec![0; count.div_ceil(32)];
        let mut control = BTreeMap::new();
        let mut words = Vec::with_capacity(count);
        for id in 0..count as u32 {
            let bytes = tokenizer.token_bytes(id);
            let is_sign = tokenizer.is_control(id) || ends.contains(&id);
            if is_sign && let Ok(name) = std::str::from_utf8(bytes) {
                control.entry(name.to_owned()).or_insert(id);
            }
            words.push(if is_sign && !bytes.is_empty() && bytes.len() < LONGEST {
                // 0xFF begins no character: it tells signs from text there.
                [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat()
            } else if is_sign || bytes.len() > LONGEST || bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER) {
                // No place in the tree, so that nothing matches it.
                Vec::new()
            } else {
                bytes.to_vec()
            });
            if !is_sign && words.last().is_some_and(|word| !word.is_empty()) {
                text[id as usize / 32] |= 1 << (id % 32);
            }
        }
        check_size(&words)?;
        let info = TokRxInfo::new(count as u32, end);
        let tree = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        // Not canonical: the model chooses how forced text is cut into tokens, as it does everywhere else.
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(tree));
        Ok(Vocabulary { environment, text, ends, control })
    }

    /// The control token of this name.
    pub(super) fn control(&self, name: &str) -> Option<TokenId> {
        self.control.get(name).copied()
    }
}

/// Whether the tree of these words stays within its limits.
fn check_size(words: &[Vec<u8>]) -> Result<(), ConstraintError> {
    let mut sorted: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    sorted.sort_unstable();
    let shared = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let mut nodes = 1;
    let mut before: &[u8] = &[];
    for word in sorted {
        // A word there already gets a leaf of its own.
        nodes += (word.len() - shared(before, word)).max(1);
        before = word;
    }
    if nodes > MOST_NODES {
        return Err(ConstraintError::Model(format!(
            "its tokens take {nodes} places in a tree of at most {MOST_NODES}"
        )));
    }
    Ok(())
}
