//! JSON schemas checked by their definition, independently of how they are turned into grammars.

use fancy_regex::Regex;
use serde_json::Value;

/// Why a value does not follow a schema; `None` if it does.
pub(crate) fn fault(schema: &Value, value: &Value) -> Option<String> {
    check(schema, value, schema)
}

fn check(schema: &Value, value: &Value, root: &Value) -> Option<String> {
    let map = match schema {
        Value::Bool(true) => return None,
        Value::Object(map) => map,
        _ => return Some(format!("nothing is allowed, not {value}")),
    };
    map.iter().find_map(|(key, wanted)| {
        let holds = match key.as_str() {
            "type" => has_type(wanted, value),
            "const" => equal(wanted, value),
            "enum" => list(wanted).iter().any(|one| equal(one, value)),
            "anyOf" => list(wanted).iter().any(|one| check(one, value, root).is_none()),
            "oneOf" => list(wanted).iter().filter(|one| check(one, value, root).is_none()).count() == 1,
            "allOf" => return list(wanted).iter().find_map(|one| check(one, value, root)),
            "$ref" => {
                let name = wanted.as_str().expect("a reference").trim_start_matches("#").replace("%20", " ");
                return check(root.pointer(&name).expect("in the schema"), value, root);
            }
            _ => match value {
                Value::Number(number) => of_number(key, wanted, number.as_f64().expect("a number")),
                Value::String(text) => of_string(key, wanted, text),
                Value::Array(items) => return of_array(key, wanted, items, schema, root),
                Value::Object(_) => return of_object(key, wanted, value, schema, root),
                _ => true,
            },
        };
        (!holds).then(|| format!("{key}: {wanted} does not hold for {value}"))
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// JSON schemas compare numbers by value.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

fn has_type(wanted: &Value, value: &Value) -> bool {
    match wanted {
        Value::Array(options) => options.iter().any(|one| has_type(one, value)),
        _ => match wanted.as_str().expect("a type") {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "number" => value.is_number(),
            "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("no type: {other}"),
        },
    }
}

fn of_number(key: &str, wanted: &Value, number: f64) -> bool {
    let Some(bound) = wanted.as_f64() else { return true };
    match key {
        "minimum" => number >= bound,
        "maximum" => number <= bound,
        "exclusiveMinimum" => number > bound,
        "exclusiveMaximum" => number < bound,
        "multipleOf" => ((number / bound).round() * bound - number).abs() < 1e-9 * number.abs().max(1.0),
        _ => true,
    }
}

fn of_string(key: &str, wanted: &Value, text: &str) -> bool {
    let length = text.chars().count() as u64;
    match key {
        "minLength" => length >= wanted.as_u64().expect("a length"),
        "maxLength" => length <= wanted.as_u64().expect("a length"),
        "pattern" => Regex::new(wanted.as_str().expect("a pattern")).expect("valid").is_match(text).unwrap(),
        "format" => match wanted.as_str().expect("a format") {
            "date" => matches(r"^\d{4}-\d\d-\d\d$", text),
            "date-time" => matches(r"^\d{4}-\d\d-\d\d[tT]\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d)$", text),
            "uuid" => matches(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", text),
            "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
            "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
            "email" => matches(r"^[^@\s]+@[^@\s]+$", text),
            _ => true,
        },
        _ => true,
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).expect("valid").is_match(text).unwrap()
}

fn of_array(key: &str, wanted: &Value, items: &[Value], schema: &Value, root: &Value) -> Option<String> {
    let first = schema.get("prefixItems").map_or(0, |first| list(first).len());
    let bad = |holds: bool| (!holds).then(|| format!("{key}: {wanted} does not hold for {items:?}"));
    match key {
        "minItems" => bad(items.len() as u64 >= wanted.as_u64().expect("a count")),
        "maxItems" => bad(items.len() as u64 <= wanted.as_u64().expect("a count")),
        "prefixItems" => list(wanted).iter().zip(items).find_map(|(one, item)| check(one, item, root)),
        "items" if wanted.is_array() => {
            list(wanted).iter().zip(items).find_map(|(one, item)| check(one, item, root))
        }
        "items" => items.iter().skip(first).find_map(|item| check(wanted, item, root)),
        _ => None,
    }
}

fn of_object(key: &str, wanted: &Value, value: &Value, schema: &Value, root: &Value) -> Option<String> {
    let object = value.as_object().expect("an object");
    let bad = |holds: bool| (!holds).then(|| format!("{key}: {wanted} does not hold for {value}"));
    match key {
        "required" => {
            bad(list(wanted).iter().all(|name| object.contains_key(name.as_str().expect("a name"))))
        }
        "minProperties" => bad(object.len() as u64 >= wanted.as_u64().expect("a count")),
        "maxProperties" => bad(object.len() as u64 <= wanted.as_u64().expect("a count")),
        "properties" => wanted
            .as_object()
            .expect("properties")
            .iter()
            .find_map(|(name, one)| object.get(name).and_then(|value| check(one, value, root))),
        "patternProperties" => object.iter().find_map(|(name, value)| {
            let all = wanted.as_object().expect("patterns");
            all.iter()
                .filter(|(pattern, _)| matches(pattern, name))
                .find_map(|(_, one)| check(one, value, root))
        }),
        "additionalProperties" => object.iter().find_map(|(name, value)| {
            let listed = schema.get("properties").is_some_and(|all| all.get(name).is_some());
            let patterns = schema.get("patternProperties").and_then(Value::as_object);
            let matched = patterns.is_some_and(|all| all.keys().any(|pattern| matches(pattern, name)));
            if listed || matched { None } else { check(wanted, value, root) }
        }),
        _ => None,
    }
}

#[test]
fn the_validator_itself_tells_right_from_wrong() {
    use serde_json::json;
    let schema = json!({
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/small"}, "b": {"enum": ["x", 1]}},
        "required": ["a"], "additionalProperties": false,
        "$defs": {"small": {"type": "integer", "minimum": 0, "exclusiveMaximum": 10, "multipleOf": 3}},
    });
    for right in [json!({"a": 9}), json!({"a": 0, "b": 1.0})] {
        assert_eq!(fault(&schema, &right), None);
    }
    for wrong in [
        json!({}),
        json!({"a": 10}),
        json!({"a": 4}),
        json!({"a": 3, "b": "y"}),
        json!({"a": 3, "c": 1}),
        json!([]),
    ] {
        assert!(fault(&schema, &wrong).is_some(), "{wrong}");
    }
    let strings = json!({"type": "string", "minLength": 2, "pattern": "^a|b$"});
    assert!(fault(&strings, &json!("xb")).is_none() && fault(&strings, &json!("xx")).is_some());
    assert!(fault(&json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}), &json!(1)).is_some());
    assert!(fault(&json!({"prefixItems": [{"type": "null"}], "items": false}), &json!([null, 1])).is_some());
}
