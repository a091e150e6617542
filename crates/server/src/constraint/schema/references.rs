//! References within a schema.

use serde_json::Value;

use super::{At, Reader, excerpt};
use crate::constraint::ConstraintError;

impl Reader<'_, '_> {
    /// The definition of ours that a reference leads to.
    pub(super) fn reference(
        &mut self,
        value: &Value,
        at: &At,
        shared: bool,
    ) -> Result<String, ConstraintError> {
        let Value::String(reference) = value else {
            return at.refuse(format!("a text is expected, not {}", excerpt(value)));
        };
        let root = self.root;
        let Some(target) = resolve(root, reference) else {
            let shown = excerpt(value);
            return at.refuse(format!(
                "{shown} is not in this schema; only references within it are followed (`#/$defs/…`)"
            ));
        };
        let key = (std::ptr::from_ref(target), shared);
        if let Some(name) = self.names.get(&key) {
            return Ok(name.clone());
        }
        let name = format!("d{}", self.schemas.begun);
        self.schemas.begun += 1;
        self.names.insert(key, name.clone());
        let read = self.node(target, &At { path: place(reference), depth: at.depth + 1 }, shared)?;
        self.schemas.definitions.insert(name.clone(), read);
        Ok(name)
    }
}

/// Where a reference leads, as a message says it.
fn place(reference: &str) -> String {
    let fragment = reference.split_once('#').map_or("", |(_, fragment)| fragment);
    fragment.chars().take(200).collect()
}

/// What a reference leads to, if it is within the schema.
fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
    let own = root.get("$id").and_then(Value::as_str).map(|id| id.trim_end_matches('#'));
    if !document.is_empty() && own != Some(document) {
        return None;
    }
    let fragment = percent_decoded(fragment)?;
    if fragment.is_empty() || fragment.starts_with('/') {
        // `#/` is written for the root, too.
        return root.pointer(if fragment == "/" { "" } else { &fragment });
    }
    anchor(root, &fragment, 0)
}

/// The schema that calls itself so.
fn anchor<'a>(value: &'a Value, name: &str, depth: usize) -> Option<&'a Value> {
    if depth > 2 * super::MAX_DEPTH {
        return None;
    }
    match value {
        Value::Object(map) if map.get("$anchor").and_then(Value::as_str) == Some(name) => Some(value),
        Value::Object(map) => map.values().find_map(|value| anchor(value, name, depth + 1)),
        Value::Array(list) => list.iter().find_map(|value| anchor(value, name, depth + 1)),
        _ => None,
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}
