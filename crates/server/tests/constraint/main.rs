//! What a constraint lets through follows the grammar, whatever the tokens and however they are chosen.

mod hostile;
mod refusals;
mod schemas;
mod texts;
mod validator;
mod walk;
