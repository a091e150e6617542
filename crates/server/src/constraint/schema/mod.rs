//! JSON schemas, rewritten in the words that are honoured to the letter.
//!
//! `llguidance` leaves out keywords that it has never heard of, and reads options of its own in a schema. What it is given is
//! therefore made here, keyword by keyword: what says nothing about values is dropped, what cannot be kept to is refused
//! with its place, references become definitions of ours, and an object that lists its properties gets no others unless
//! the schema says so (as llama.cpp and vLLM have it; what comes out follows the schema as it was sent, too).

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::ConstraintError;

mod endless;
mod numbers;
mod references;

/// A schema within schemas deeper than this is refused.
const MAX_DEPTH: usize = 96;
/// More schemas in one request are refused.
const MAX_NODES: usize = 10_000;
/// Greater bounds of lengths and counts are refused: each is a state of its own.
const MAX_COUNT: u64 = 100_000;

/// More options side by side, and more properties of one object that may be left out, are refused: all of them are open at
/// once while an answer is written.
const MAX_OPEN: usize = 400;
/// More properties of one object are refused.
const MAX_PROPERTIES: usize = 2000;

/// Formats of strings that are kept to.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

/// Schemas on their way to one grammar, which share their definitions.
#[derive(Default)]
pub(super) struct Schemas {
    definitions: Map<String, Value>,
    /// Definitions begun.
    begun: usize,
    nodes: usize,
}

impl Schemas {
    /// Takes in a schema; what comes back stands for it beside others, before [`Schemas::finish`].
    pub(super) fn add(&mut self, schema: &Value) -> Result<Value, ConstraintError> {
        self.add_within(schema, schema)
    }

    /// Takes in a part of a schema, whose references lead into the whole.
    pub(super) fn add_within(&mut self, whole: &Value, schema: &Value) -> Result<Value, ConstraintError> {
        let mut reader = Reader { root: whole, schemas: self, names: HashMap::new() };
        let read = reader.node(schema, &At::root(), false)?;
        if endless::is_endless(&read, &self.definitions) {
            return Err(ConstraintError::schema(
                "",
                "nothing satisfies it: what it requires goes on without end",
            ));
        }
        Ok(read)
    }

    /// One schema with all definitions, as `llguidance` takes it.
    pub(super) fn finish(self, root: Value, options: Value) -> Value {
        let mut whole = match root {
            Value::Object(map) => map,
            Value::Bool(true) => Map::new(),
            other => Map::from_iter([("allOf".to_owned(), json!([other]))]),
        };
        whole.insert("$defs".to_owned(), Value::Object(self.definitions));
        whole.insert("x-guidance".to_owned(), options);
        Value::Object(whole)
    }
}

/// A place in what was sent.
#[derive(Clone)]
struct At {
    path: String,
    depth: usize,
}

impl At {
    fn root() -> At {
        At { path: String::new(), depth: 0 }
    }

    /// A place below, for a message.
    fn child(&self, key: &str) -> At {
        let key: String = key.chars().take(80).collect();
        At {
            path: format!("{}/{}", self.path, key.replace('~', "~0").replace('/', "~1")),
            depth: self.depth + 1,
        }
    }

    fn refuse<T>(&self, problem: impl Into<String>) -> Result<T, ConstraintError> {
        Err(ConstraintError::schema(&self.path, problem))
    }
}

/// Reads one schema.
struct Reader<'a, 'b> {
    root: &'a Value,
    schemas: &'b mut Schemas,
    /// Definitions by what they are of, and whether they share their value with other schemas.
    names: HashMap<(*const Value, bool), String>,
}

impl Reader<'_, '_> {
    /// Rewrites a schema. `shared` means that others say something about the same value, so that none may close an object
    /// to properties that it does not know.
    fn node(&mut self, schema: &Value, at: &At, shared: bool) -> Result<Value, ConstraintError> {
        self.schemas.nodes += 1;
        if self.schemas.nodes > MAX_NODES {
            let problem = format!("more than {MAX_NODES} schemas within it");
            return Err(ConstraintError::TooLarge { what: "a JSON schema", problem });
        }
        if at.depth > 2 * MAX_DEPTH {
            return at.refuse(format!("schemas are nested more than {MAX_DEPTH} deep"));
        }
        let map = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(map) => map,
            _ => {
                return at
                    .refuse(format!("a schema is an object, `true` or `false`, not {}", excerpt(schema)));
            }
        };
        let in_place = ["allOf", "anyOf", "oneOf", "$ref"];
        let asserting = map.iter().filter(|(key, _)| !is_annotation(key)).count();
        // What an option says is all there is to say if nothing stands beside it.
        let below = shared
            || asserting > 1
            || map.get("allOf").is_some_and(|all| all.as_array().map_or(0, Vec::len) > 1);
        // And so with what is within, which schemas in the same place may speak of, too.
        let composed = shared || in_place.iter().any(|key| map.contains_key(*key));
        let inner = composed || map.contains_key("patternProperties");
        let listed = map.get("items").is_some_and(Value::is_array);
        let mut out = Map::new();
        for (key, value) in map {
            let place = at.child(key);
            match key.as_str() {
                "type" => drop(out.insert(key.clone(), types(value, &place)?)),
                "const" => drop(out.insert(key.clone(), constant(value, &place)?)),
                "enum" => {
                    let values = array(value, &place)?;
                    let kept =
                        values.iter().map(|value| constant(value, &place)).collect::<Result<_, _>>()?;
                    out.insert(key.clone(), Value::Array(kept));
                }
                "allOf" | "anyOf" | "oneOf" => {
                    let kept = self.list(value, &place, below)?;
                    out.insert(key.clone(), kept);
                }
                "$ref" => {
                    let name = self.reference(value, &place, below)?;
                    out.insert(key.clone(), Value::String(format!("#/$defs/{name}")));
                }
                _ if self.of_arrays(key, value, &place, (inner, listed), &mut out)? => {}
                _ if self.of_objects(key, value, &place, inner, &mut out)? => {}
                _ if of_strings(key, value, &place, map, &mut out)? => {}
                _ if numbers::keyword(key, value, &place, &mut out)? => {}
                _ if is_annotation(key) => {}
                _ => return place.refuse(unknown(key)),
            }
        }
        numbers::check(&out, at, composed)?;
        check_arrays(&out, map, at)?;
        check_objects(&out, at)?;
        if !composed {
            close(&mut out);
        }
        if let Some(Value::Array(options)) = out.get_mut("oneOf") {
            self.spell_out(options);
        }
        Ok(Value::Object(out))
    }

    fn list(&mut self, value: &Value, at: &At, shared: bool) -> Result<Value, ConstraintError> {
        let schemas = array(value, at)?;
        if schemas.len() > MAX_OPEN {
            return at.refuse(format!("{} schemas side by side; at most {MAX_OPEN}", schemas.len()));
        }
        let mut kept = Vec::with_capacity(schemas.len());
        for (index, schema) in schemas.iter().enumerate() {
            kept.push(self.node(schema, &at.child(&index.to_string()), shared)?);
        }
        Ok(Value::Array(kept))
    }

    /// A map from names to schemas.
    fn map(&mut self, value: &Value, at: &At, shared: bool) -> Result<Value, ConstraintError> {
        let Value::Object(map) = value else {
            return at.refuse(format!("an object is expected, not {}", excerpt(value)));
        };
        let mut kept = Map::new();
        for (name, schema) in map {
            kept.insert(name.clone(), self.node(schema, &at.child(name), shared)?);
        }
        Ok(Value::Object(kept))
    }

    /// Keywords about arrays. Whether this is one.
    fn of_arrays(
        &mut self,
        key: &str,
        value: &Value,
        at: &At,
        (shared, listed): (bool, bool),
        out: &mut Map<String, Value>,
    ) -> Result<bool, ConstraintError> {
        let kept = match key {
            // Before 2020, a list of schemas goes by this name.
            "items" if value.is_array() => {
                out.insert("prefixItems".to_owned(), self.list(value, at, shared)?);
                return Ok(true);
            }
            "items" => self.node(value, at, shared)?,
            "prefixItems" => self.list(value, at, shared)?,
            "additionalItems" => {
                let kept = self.node(value, at, shared)?;
                // It speaks of what comes after such a list, and of nothing without one.
                if listed {
                    out.insert("items".to_owned(), kept);
                }
                return Ok(true);
            }
            "minItems" | "maxItems" => count(value, at)?,
            "uniqueItems" if *value == Value::Bool(false) => return Ok(true),
            _ => return Ok(false),
        };
        out.insert(key.to_owned(), kept);
        Ok(true)
    }

    /// Keywords about objects. Whether this is one.
    fn of_objects(
        &mut self,
        key: &str,
        value: &Value,
        at: &At,
        shared: bool,
        out: &mut Map<String, Value>,
    ) -> Result<bool, ConstraintError> {
        let kept = match key {
            "properties" => self.map(value, at, shared)?,
            "patternProperties" => {
                for name in value.as_object().into_iter().flatten().map(|(name, _)| name) {
                    pattern(name, &at.child(name))?;
                }
                self.map(value, at, shared)?
            }
            "additionalProperties" => self.node(value, at, shared)?,
            "minProperties" | "maxProperties" => count(value, at)?,
            "required" => {
                let Value::Array(names) = value else { return at.refuse("a list of names is expected") };
                if !names.iter().all(Value::is_string) {
                    return at.refuse("a list of names is expected");
                }
                value.clone()
            }
            _ => return Ok(false),
        };
        out.insert(key.to_owned(), kept);
        Ok(true)
    }

    /// Puts what they refer to in the place of options, so that it can be seen whether they exclude each other.
    fn spell_out(&self, options: &mut [Value]) {
        for option in options {
            let Some(map) = option.as_object().filter(|map| map.len() == 1) else { continue };
            let Some(name) = map.get("$ref").and_then(Value::as_str) else { continue };
            // One that is still being read is not there yet: it contains this very place.
            let target = self.schemas.definitions.get(name.trim_start_matches("#/$defs/"));
            if let Some(target) = target {
                *option = target.clone();
            }
        }
    }
}

/// What says nothing about values, or is said of them elsewhere.
pub(super) fn is_annotation(key: &str) -> bool {
    const ANNOTATIONS: [&str; 20] = [
        "$schema",
        "$id",
        "id",
        "$comment",
        "$anchor",
        "$defs",
        "definitions",
        "$vocabulary",
        "title",
        "description",
        "default",
        "example",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "contentMediaType",
        "contentEncoding",
        "discriminator",
        "externalDocs",
    ];
    ANNOTATIONS.contains(&key) || key.starts_with("x-")
}

/// Why a keyword is refused.
fn unknown(key: &str) -> String {
    match key {
        "nullable" => "write `\"type\": [\"string\", \"null\"]` (or whatever the type is) instead".to_owned(),
        "not" | "if" | "then" | "else" | "dependentRequired" | "dependentSchemas" | "dependencies" => {
            "this keyword cannot be honoured; state what is allowed with anyOf".to_owned()
        }
        "uniqueItems"
        | "contains"
        | "minContains"
        | "maxContains"
        | "propertyNames"
        | "unevaluatedItems"
        | "unevaluatedProperties"
        | "contentSchema"
        | "$dynamicRef"
        | "$recursiveRef"
        | "$dynamicAnchor"
        | "$recursiveAnchor" => "this keyword cannot be honoured; leave it out".to_owned(),
        _ => "this keyword is not known; leave it out".to_owned(),
    }
}

/// A value as a message shows it.
fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// A list that is not empty.
fn array<'a>(value: &'a Value, at: &At) -> Result<&'a [Value], ConstraintError> {
    match value {
        Value::Array(list) if list.is_empty() => at.refuse("the list is empty, so that nothing satisfies it"),
        Value::Array(list) => Ok(list),
        _ => at.refuse(format!("a list is expected, not {}", excerpt(value))),
    }
}

/// A length or number of things.
fn count(value: &Value, at: &At) -> Result<Value, ConstraintError> {
    // `3.0` is an integer in JSON schemas.
    let whole = value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0);
    match whole {
        Some(number) if number <= MAX_COUNT as f64 => Ok(Value::from(number as u64)),
        Some(_) => at.refuse(format!("{} is more than {MAX_COUNT}", excerpt(value))),
        None => at.refuse(format!("a whole number from 0 is expected, not {}", excerpt(value))),
    }
}

fn types(value: &Value, at: &At) -> Result<Value, ConstraintError> {
    let one = |value: &Value| match value.as_str() {
        Some(name) if TYPES.contains(&name) => Ok(()),
        _ => at.refuse(format!("{} is no type; there are {}", excerpt(value), TYPES.join(", "))),
    };
    match value {
        Value::Array(_) => array(value, at)?.iter().try_for_each(one)?,
        _ => one(value)?,
    }
    Ok(value.clone())
}

/// A value that is to be written as it is.
fn constant(value: &Value, at: &At) -> Result<Value, ConstraintError> {
    match value {
        Value::Number(number) => numbers::exact(number, at)?,
        Value::String(text) => {
            // What JSON cannot show without `\u`.
            let hidden = |c: char| c.is_control() && c.is_ascii() && !"\u{8}\u{c}\n\r\t".contains(c);
            if let Some(c) = text.chars().find(|&c| hidden(c)) {
                return at.refuse(format!("the text contains U+{:04X}, which is not written", u32::from(c)));
            }
        }
        Value::Array(list) => {
            for value in list {
                constant(value, at)?;
            }
        }
        Value::Object(map) => {
            for value in map.values() {
                constant(value, at)?;
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    Ok(value.clone())
}

/// Keywords about strings. Whether this is one.
fn of_strings(
    key: &str,
    value: &Value,
    at: &At,
    map: &Map<String, Value>,
    out: &mut Map<String, Value>,
) -> Result<bool, ConstraintError> {
    let kept = match key {
        "minLength" | "maxLength" => count(value, at)?,
        "pattern" => match value {
            Value::String(text) => {
                pattern(text, at)?;
                value.clone()
            }
            _ => return at.refuse(format!("a text is expected, not {}", excerpt(value))),
        },
        "format" => match value.as_str() {
            Some(name) if FORMATS.contains(&name) => value.clone(),
            Some(name) if numbers::format(name, map, out) => return Ok(true),
            Some(_) => {
                let known = FORMATS.join(", ");
                return at
                    .refuse(format!("the format {} cannot be honoured; there are {known}", excerpt(value)));
            }
            None => return at.refuse(format!("a text is expected, not {}", excerpt(value))),
        },
        _ => return Ok(false),
    };
    out.insert(key.to_owned(), kept);
    Ok(true)
}

/// Refuses a pattern that would be read otherwise here than by those who check it: sets within sets of characters, and
/// what takes one from another, are plain characters in the expressions of JSON schemas.
fn pattern(text: &str, at: &At) -> Result<(), ConstraintError> {
    if text.len() > super::compiler::MAX_TEXT {
        return at.refuse("the pattern is too long");
    }
    let (mut in_set, mut escaped, mut before) = (false, false, ' ');
    for c in text.chars() {
        match c {
            _ if escaped => {
                (escaped, before) = (false, ' ');
                continue;
            }
            '\\' => escaped = true,
            '[' if in_set => return at.refuse("write `\\[` for a `[` between `[` and `]`"),
            '&' | '-' | '~' if in_set && before == c => {
                return at.refuse(format!("write `\\{c}` for each `{c}` between `[` and `]`"));
            }
            '[' => in_set = true,
            ']' => in_set = false,
            _ => {}
        }
        before = c;
    }
    Ok(())
}

/// Counts of items against each other.
fn check_arrays(out: &Map<String, Value>, map: &Map<String, Value>, at: &At) -> Result<(), ConstraintError> {
    let number = |key: &str| out.get(key).and_then(Value::as_u64);
    if let (Some(least), Some(most)) = (number("minItems"), number("maxItems"))
        && least > most
    {
        return at.refuse(format!("minItems {least} is more than maxItems {most}"));
    }
    if map.get("items").is_some_and(Value::is_array) && map.contains_key("prefixItems") {
        return at.refuse("`items` is a list beside prefixItems; write one of both");
    }
    Ok(())
}

/// Counts of properties. Nothing keeps a key that is not listed from coming twice, so that only what is listed counts.
fn check_objects(out: &Map<String, Value>, at: &At) -> Result<(), ConstraintError> {
    let number = |key: &str| out.get(key).and_then(Value::as_u64).unwrap_or(0);
    let required = out.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let listed = out.get("properties").and_then(Value::as_object).map_or(0, Map::len);
    let optional = listed.saturating_sub(required as usize);
    if listed > MAX_PROPERTIES || optional > MAX_OPEN {
        return at.refuse(format!(
            "{listed} properties, {optional} of them not required; at most {MAX_PROPERTIES}, and {MAX_OPEN} not required"
        ));
    }
    let least = number("minProperties");
    if least > required.max(1) {
        return at.refuse(format!("minProperties {least} cannot be honoured; list the keys in `required`"));
    }
    Ok(())
}

/// Says that an object has no properties but those listed, where it lists some and says nothing of others.
fn close(out: &mut Map<String, Value>) {
    let speaks = ["additionalProperties", "patternProperties", "minProperties", "maxProperties"];
    let Some(properties) = out.get("properties").and_then(Value::as_object) else { return };
    let required = out.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let listed = required.iter().filter_map(Value::as_str).all(|name| properties.contains_key(name));
    if listed && !speaks.iter().any(|key| out.contains_key(*key)) {
        out.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}
