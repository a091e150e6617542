//! A grammar at work on one answer.

use std::sync::Arc;

use llguidance::Matcher;
use toktrie::TokenId;
use wushi_engine::Constraint;

use super::compiler::one_line;
use super::vocabulary::Vocabulary;

/// Follows one answer.
pub(super) struct Walk {
    pub(super) matcher: Matcher,
    pub(super) vocabulary: Arc<Vocabulary>,
    /// Control tokens that the grammar itself asks for.
    pub(super) signs: Vec<TokenId>,
}

impl Walk {
    /// Another one at the same place.
    pub(super) fn fork(&self) -> Walk {
        Walk {
            matcher: self.matcher.deep_clone(),
            vocabulary: Arc::clone(&self.vocabulary),
            signs: self.signs.clone(),
        }
    }
}

impl Constraint for Walk {
    fn allowed(&mut self, mask: &mut [u32]) -> Result<(), String> {
        let set = self.matcher.compute_mask_or_eos().map_err(|error| one_line(&error.to_string()))?;
        let words = set.as_slice().iter().zip(&self.vocabulary.text);
        for (to, (&allowed, &text)) in mask.iter_mut().zip(words) {
            *to = allowed & text;
        }
        for &id in self.signs.iter().chain(&self.vocabulary.ends) {
            if let Some(word) = mask.get_mut(id as usize / 32)
                && set.is_allowed(id)
            {
                *word |= 1 << (id % 32);
            }
        }
        if mask.iter().all(|&word| word == 0) {
            return Err("no token of this model continues the answer as it must go on".to_owned());
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            // The answer is complete; what follows is the token that ends it.
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(|error| one_line(&error.to_string()))
    }
}
