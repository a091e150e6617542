//! From a grammar to what the engine asks.

use std::fmt::Display;
use std::sync::Arc;
use std::thread;

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::{Matcher, ParserFactory};
use toktrie::InferenceCapabilities;
use wushi_engine::Constraint;
use wushi_formats::Tokenizer;

use super::matcher::Walk;
use super::parts::Parts;
use super::vocabulary::Vocabulary;
use super::{ConstraintError, Grammar};

/// Address space for the stack of a compilation, which follows a schema's references and nested groups; memory is only
/// used for what is reached.
const STACK: usize = 512 << 20;
/// A longer regular expression or grammar is refused unread.
pub(super) const MAX_TEXT: usize = 64 << 10;
/// Tokens that no mark of a call begins in, which free text takes all at once.
const PLAIN: &str = r"(?s:[^<\[]+)";

/// Makes constraints for one model.
pub struct Compiler {
    factory: ParserFactory,
    vocabulary: Arc<Vocabulary>,
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler").field("ends", &self.vocabulary.ends).finish_non_exhaustive()
    }
}

impl Compiler {
    /// Takes in a model's tokens; this takes a moment, and is done once for a model.
    ///
    /// # Errors
    /// A tokenizer without a token that ends an answer, or larger than any known.
    pub fn new(tokenizer: &Tokenizer) -> Result<Compiler, ConstraintError> {
        let vocabulary = Vocabulary::new(tokenizer)?;
        let mut slices = SlicedBiasComputer::general_slices();
        slices.push(PLAIN.to_owned());
        let environment = &vocabulary.environment;
        let mut factory = ParserFactory::new(environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| ConstraintError::Model(one_line(&error.to_string())))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Compiler { factory, vocabulary: Arc::new(vocabulary) })
    }

    /// The ids of those of these texts that are control tokens, as the engine wants them to spell them out
    /// ([`AnswerParser::marks`](crate::tools::AnswerParser::marks) says which must be).
    pub fn control_tokens<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Vec<u32> {
        texts.into_iter().filter_map(|text| self.vocabulary.control(text)).collect()
    }

    /// A constraint for one answer.
    ///
    /// # Errors
    /// A grammar that is not understood, that cannot be honoured in full, or that is too large.
    pub fn compile(&self, grammar: &Grammar) -> Result<Box<dyn Constraint>, ConstraintError> {
        Ok(Box::new(self.compile_walk(grammar)?))
    }

    /// [`Compiler::compile`] for so many answers, with the work of one.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn compile_all(
        &self,
        grammar: &Grammar,
        count: usize,
    ) -> Result<Vec<Box<dyn Constraint>>, ConstraintError> {
        let walk = self.compile_walk(grammar)?;
        Ok((0..count).map(|_| Box::new(walk.fork()) as Box<dyn Constraint>).collect())
    }

    fn compile_walk(&self, grammar: &Grammar) -> Result<Walk, ConstraintError> {
        let what = kind(grammar);
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("grammar".to_owned()).stack_size(STACK);
            let invalid = |problem: String| ConstraintError::Invalid { what, problem };
            let work = thread
                .spawn_scoped(scope, || self.compile_here(grammar))
                .map_err(|error| invalid(format!("no thread to read it: {error}")))?;
            work.join().unwrap_or_else(|_| Err(invalid("it could not be read".to_owned())))
        })
    }

    fn compile_here(&self, grammar: &Grammar) -> Result<Walk, ConstraintError> {
        let (grammars, signs) = Parts::of(grammar, &self.vocabulary)?;
        let what = kind(grammar);
        let init = GrammarInit::Serialized(TopLevelGrammar { grammars, max_tokens: None });
        let parser = self.factory.create_parser_from_init_default(init);
        let parser = parser.map_err(|error| invalid(what, &error))?;
        let mut walk =
            Walk { matcher: Matcher::new(Ok(parser)), vocabulary: Arc::clone(&self.vocabulary), signs };
        let mut mask = vec![0; self.vocabulary.text.len()];
        walk.allowed(&mut mask).map_err(|problem| ConstraintError::Invalid { what, problem })?;
        Ok(walk)
    }
}

/// What may be spent on one grammar: a second or so to prepare, some ten milliseconds for a mask, 100 MB.
fn limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// What a message calls a grammar.
fn kind(grammar: &Grammar) -> &'static str {
    match grammar {
        Grammar::JsonObject | Grammar::JsonSchema(_) => "the JSON schema",
        Grammar::Regex(_) => "the regular expression",
        Grammar::Lark(_) => "the grammar",
        Grammar::Tools(_) => "the schema of a function's parameters",
        Grammar::Thinking { answer, .. } => kind(answer),
    }
}

pub(super) fn invalid(what: &'static str, error: &impl Display) -> ConstraintError {
    ConstraintError::Invalid { what, problem: one_line(&error.to_string()) }
}

/// A message of `llguidance` without what it says of its own state.
pub(super) fn one_line(message: &str) -> String {
    let end = ["<state>", "<non-verbose/>", "<backtrace>"].iter().filter_map(|mark| message.find(mark)).min();
    let words: Vec<&str> = message[..end.unwrap_or(message.len())].split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
