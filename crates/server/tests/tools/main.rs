//! Calls of tools: recognised, read as they come, and kept to their schemas.

mod calls;
mod formats;
mod plain;
mod transcripts;

#[path = "../constraint/validator.rs"]
mod validator;
// Both are made for the other test, which uses all of them.
#[path = "../constraint/walk.rs"]
#[allow(dead_code)]
mod walk;

use serde_json::json;
use wushi_server::tools::{Piece, Tool};

/// Two functions.
fn tools() -> Vec<Tool> {
    let city = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": ["integer", "null"]}},
        "required": ["city"],
    });
    vec![Tool::new("get_weather", Some(city)).unwrap(), Tool::new("get_time", None).unwrap()]
}

/// Pieces of one kind that follow each other, joined.
fn joined(pieces: impl IntoIterator<Item = Piece>) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (all.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(more)) => before.push_str(&more),
            (Some(Piece::Thought(before)), Piece::Thought(more)) => before.push_str(&more),
            (
                Some(Piece::Arguments { index, fragment }),
                Piece::Arguments { index: same, fragment: more },
            ) if *index == same => {
                fragment.push_str(&more);
            }
            (_, piece) => all.push(piece),
        }
    }
    all
}
