//! Answers made of random tokens among those allowed.

use std::path::Path;

use wushi_engine::Constraint;
use wushi_formats::{Gguf, Tokenizer};
use wushi_server::constraint::{Compiler, Grammar};

/// Parts of vocabularies in circulation: byte-level with one or several ends, SentencePiece with byte tokens.
pub(crate) const VOCABULARIES: [&str; 5] =
    ["trimmed", "vocabularies/qwen2", "vocabularies/llama-spm", "vocabularies/gemma-4", "vocabularies/gpt-2"];

pub(crate) struct Model {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) compiler: Compiler,
}

impl Model {
    pub(crate) fn new(name: &str) -> Model {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures");
        let gguf = Gguf::open(fixtures.join(format!("{name}.gguf"))).expect("a fixture");
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).expect("a known tokenizer");
        let compiler = Compiler::new(&tokenizer).expect("a tokenizer that can be constrained");
        Model { tokenizer, compiler }
    }

    pub(crate) fn smollm2() -> Model {
        Model::new("trimmed")
    }

    pub(crate) fn refusal(&self, grammar: &Grammar) -> String {
        match self.compiler.compile(grammar) {
            Ok(_) => panic!("not refused: {grammar:?}"),
            Err(error) => error.to_string(),
        }
    }

    /// The ids that may come next.
    pub(crate) fn allowed(&self, constraint: &mut dyn Constraint) -> Vec<u32> {
        // Models may have more logits than tokens.
        let vocab = self.tokenizer.vocab_size() + 77;
        let mut mask = vec![0u32; vocab.div_ceil(32)];
        constraint.allowed(&mut mask).expect("a way on");
        (0..vocab as u32).filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
    }

    /// Whether a text is let through, cut into the tokens that the tokenizer makes of it.
    pub(crate) fn accepts(&self, grammar: &Grammar, text: &str) -> bool {
        let mut constraint = self.compiler.compile(grammar).expect("compiles");
        let ids = self.tokenizer.encode(text, false, true).expect("encodes");
        let end = self.tokenizer.end_of_generation()[0];
        for id in ids.into_iter().chain([end]) {
            if !self.allowed(constraint.as_mut()).contains(&id) {
                return false;
            }
            constraint.accept(id).expect("allowed tokens are accepted");
        }
        true
    }

    /// Says a text in the longest tokens that are allowed.
    pub(crate) fn say(&self, constraint: &mut dyn Constraint, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let fits = |id: &u32| {
                let bytes = self.tokenizer.token_bytes(*id);
                rest.starts_with(bytes).then_some(bytes.len())
            };
            let allowed = self.allowed(constraint);
            let id = allowed.into_iter().filter(|id| fits(id).is_some()).max_by_key(fits).expect("a token");
            constraint.accept(id).expect("allowed tokens are accepted");
            rest = &rest[self.tokenizer.token_bytes(id).len()..];
        }
    }

    /// An answer of random tokens; after some, those that lead to the end.
    pub(crate) fn walk(&self, grammar: &Grammar, seed: u64) -> String {
        self.walk_closing(grammar, seed, "")
    }

    /// The same where text only ends with a mark.
    pub(crate) fn walk_closing(&self, grammar: &Grammar, seed: u64, mark: &str) -> String {
        let compiled = self.compiler.compile(grammar);
        let mut constraint = compiled.unwrap_or_else(|error| panic!("{grammar:?}: {error}"));
        let ends = self.tokenizer.end_of_generation();
        let mut random = Random(seed);
        let free = random.below(90);
        let mut bytes: Vec<u8> = Vec::new();
        for step in 0.. {
            assert!(step < 600, "no end of {:?}", String::from_utf8_lossy(&bytes));
            let mut allowed = self.allowed(constraint.as_mut());
            for &id in &allowed {
                assert!(!self.tokenizer.is_control(id) || ends.contains(&id), "control token {id}");
            }
            // `1e999` is JSON, but no number that its readers take.
            let after_digit = bytes.last().is_some_and(u8::is_ascii_digit);
            let has_exponent = |id: u32| matches!(self.tokenizer.token_bytes(id).first(), Some(b'e' | b'E'));
            allowed.retain(|&id| ends.contains(&id) || !(after_digit && has_exponent(id)));
            let id = if step < free {
                allowed[random.below(allowed.len())]
            } else {
                // Now and then any letter: a pattern may ask for what does not look like an end.
                let begun =
                    (0..mark.len()).rev().find(|&at| bytes.ends_with(&mark.as_bytes()[..at])).unwrap_or(0);
                let closes = |&id: &u32| {
                    let token = self.tokenizer.token_bytes(id);
                    !mark.is_empty() && mark.as_bytes()[begun..].starts_with(token)
                };
                if allowed.iter().any(closes) && !allowed.iter().any(|id| ends.contains(id)) {
                    allowed.retain(closes);
                }
                let any = random.below(3) == 0 && !allowed.iter().any(|id| ends.contains(id));
                let is_letter =
                    |id| matches!(self.tokenizer.token_bytes(id), [byte] if byte.is_ascii_alphanumeric());
                let rank = |id: u32| if any && is_letter(id) { 0 } else { self.rank(id) };
                let best = allowed.iter().map(|&id| rank(id)).min().expect("a token");
                let best: Vec<u32> = allowed.into_iter().filter(|&id| rank(id) == best).collect();
                best[random.below(best.len())]
            };
            constraint.accept(id).expect("allowed tokens are accepted");
            if ends.contains(&id) {
                break;
            }
            bytes.extend_from_slice(self.tokenizer.token_bytes(id));
        }
        String::from_utf8(bytes).expect("whole characters")
    }

    /// How far a token is from ending things.
    fn rank(&self, id: u32) -> usize {
        if self.tokenizer.end_of_generation().contains(&id) {
            return 0;
        }
        let bytes = self.tokenizer.token_bytes(id);
        let first = bytes.first().copied().unwrap_or_default();
        let kind = b"\"@.}],:-n".iter().position(|&byte| byte == first).map_or(11, |place| place + 1);
        kind * 100 + bytes.len().min(99)
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}
