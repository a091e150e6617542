//! Schemas that no finite value satisfies: a tree whose every node requires another.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Whether a schema, or a definition it may lead into, has no finite values.
pub(super) fn is_endless(root: &Value, definitions: &Map<String, Value>) -> bool {
    // The definitions known to have finite values, until no more are found.
    let mut finite: BTreeSet<&str> = BTreeSet::new();
    loop {
        let before = finite.len();
        for (name, schema) in definitions {
            if !finite.contains(name.as_str()) && is_finite(schema, &finite) {
                finite.insert(name);
            }
        }
        if finite.len() == before {
            break;
        }
    }
    finite.len() < definitions.len() || !is_finite(root, &finite)
}

fn is_finite(schema: &Value, finite: &BTreeSet<&str>) -> bool {
    let map = match schema {
        Value::Object(map) => map,
        other => return *other != Value::Bool(false),
    };
    let options = |key: &str| map.get(key).and_then(Value::as_array);
    let is_one = |schema: &Value| is_finite(schema, finite);
    let in_place = options("allOf").is_none_or(|all| all.iter().all(is_one))
        && ["anyOf", "oneOf"].iter().all(|key| options(key).is_none_or(|any| any.iter().any(is_one)))
        && map
            .get("$ref")
            .and_then(Value::as_str)
            .is_none_or(|name| finite.contains(name.trim_start_matches("#/$defs/")));
    in_place && has_finite_type(map, &is_one)
}

/// Whether values of one of its types are finite.
fn has_finite_type(map: &Map<String, Value>, is_one: &impl Fn(&Value) -> bool) -> bool {
    let of_type = |name: &str| match name {
        "object" => {
            let required = map.get("required").and_then(Value::as_array);
            let property = |name: &str| {
                map.get("properties").and_then(|all| all.get(name)).or_else(|| {
                    map.get("additionalProperties").filter(|_| !map.contains_key("patternProperties"))
                })
            };
            required
                .is_none_or(|names| names.iter().filter_map(Value::as_str).filter_map(property).all(is_one))
        }
        "array" => {
            let least = map.get("minItems").and_then(Value::as_u64).unwrap_or(0) as usize;
            let first = map.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let rest = if first.is_empty() {
                map.get("items")
            } else {
                map.get("items").or(map.get("additionalItems"))
            };
            first.iter().take(least).all(is_one) && (least <= first.len() || rest.is_none_or(is_one))
        }
        _ => true,
    };
    match map.get("type") {
        Some(Value::String(name)) => of_type(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(of_type),
        _ => true,
    }
}
