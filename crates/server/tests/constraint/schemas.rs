//! Schemas: what comes out follows them.

use serde_json::{Value, json};
use wushi_server::constraint::Grammar;

use crate::validator::fault;
use crate::walk::{Model, Random, VOCABULARIES};

/// What people ask for, and each keyword that is honoured.
fn schemas() -> Vec<Value> {
    let mut all = vec![
        json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 130}}, "required": ["name", "age"]}),
        json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}, "c": {"type": "null"}}}),
        json!({"type": "object", "properties": {"a": {"type": "number"}}, "additionalProperties": {"type": "integer"}}),
        json!({"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a", "z"], "additionalProperties": true}),
        json!({"type": "object"}),
        json!({}),
        json!({"enum": ["red", "green", 3, null, [1, {"a": 2}], "say \"hi\"\n"]}),
        json!({"const": {"kind": "fixed", "list": [1, 2.5]}}),
        json!({"type": ["string", "null"], "maxLength": 5}),
        json!({"type": "array", "items": {"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 40}, "minItems": 2, "maxItems": 4}),
        json!({"type": "array", "prefixItems": [{"type": "string", "maxLength": 3}, {"type": "boolean"}], "items": {"type": "null"}, "minItems": 1}),
        json!({"type": "array", "prefixItems": [{"type": "integer"}], "items": false}),
        json!({"type": "string", "minLength": 3, "maxLength": 6}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-\\d{3,5}$"}),
        json!({"type": "string", "pattern": "^a|b$", "maxLength": 12}),
        json!({"type": "number", "minimum": -1.5, "maximum": 2.25}),
        json!({"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 99}),
        json!({"type": "integer", "multipleOf": 4}),
        json!({"type": "integer", "format": "int32"}),
        json!({"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}]}),
        json!({"oneOf": [
            {"type": "object", "properties": {"kind": {"const": "a"}, "n": {"type": "integer"}}, "required": ["kind", "n"]},
            {"type": "object", "properties": {"kind": {"const": "b"}, "s": {"type": "string"}}, "required": ["kind", "s"]},
        ]}),
        json!({"allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "string", "maxLength": 4}, "a": {"minimum": 5}}, "required": ["b"]},
        ]}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
        json!({"type": "object", "patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": false}),
        json!({"type": "object", "patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "null"}, "required": ["a"], "minProperties": 1}),
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}, "additionalProperties": false, "minProperties": 1}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2}),
        json!({"type": "object", "properties": {"a/b": {"type": "integer"}, "quo\"te": {"type": "null"}, "é": {"type": "boolean"}}, "required": ["a/b", "quo\"te", "é"]}),
    ];
    for format in ["date", "date-time", "uuid", "ipv4", "ipv6", "email"] {
        all.push(json!({"type": "string", "format": format}));
    }
    all.extend(with_references());
    all
}

fn with_references() -> Vec<Value> {
    vec![
        json!({
            "$schema": "http://json-schema.org/draft-07/schema#", "title": "Tree",
            "type": "object",
            "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
            "required": ["value"],
        }),
        json!({
            "type": "object",
            "properties": {
                "steps": {"type": "array", "items": {"$ref": "#/$defs/Step"}, "maxItems": 3},
                "answer": {"$ref": "#/$defs/Answer", "description": "the last word"},
            },
            "required": ["steps", "answer"], "additionalProperties": false,
            "$defs": {
                "Step": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
                "Answer": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null},
            },
        }),
        json!({
            "oneOf": [{"$ref": "#/definitions/cat"}, {"$ref": "#/definitions/dog"}],
            "discriminator": {"propertyName": "kind"},
            "definitions": {
                "cat": {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]},
                "dog": {"type": "object", "properties": {"kind": {"const": "dog"}, "friend": {"$ref": "#/definitions/cat"}}, "required": ["kind"]},
            },
        }),
        json!({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "array", "items": {"$ref": "#/$defs/c%20d"}}, "c d": {"type": "boolean"}}}),
        // A linked list that ends.
        json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["next"]}}}),
        json!({"allOf": [{"$ref": "#/$defs/base"}], "properties": {"b": {"type": "integer"}}, "required": ["b"], "$defs": {"base": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}),
    ]
}

fn holds(model: &Model, schema: &Value, seed: u64) {
    let text = model.walk(&Grammar::JsonSchema(schema.clone()), seed);
    let value: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{schema}: {error}: {text}"));
    if let Some(fault) = fault(schema, &value) {
        panic!("{schema}\n{text}\n{fault}");
    }
}

#[test]
fn random_answers_follow_every_schema() {
    let model = Model::smollm2();
    for schema in schemas() {
        for seed in 0..12 {
            holds(&model, &schema, seed);
        }
    }
}

#[test]
fn random_answers_follow_schemas_whatever_the_vocabulary() {
    for name in VOCABULARIES {
        let model = Model::new(name);
        for (seed, schema) in schemas().iter().enumerate() {
            holds(&model, schema, seed as u64);
        }
    }
}

#[test]
fn objects_have_the_properties_that_are_listed_unless_others_are_spoken_of() {
    let model = Model::smollm2();
    let listed = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let accepts = |schema: &Value, text: &str| model.accepts(&Grammar::JsonSchema(schema.clone()), text);
    assert!(accepts(&listed, r#"{"a": 1}"#) && accepts(&listed, "{}") && !accepts(&listed, r#"{"b": 1}"#));
    let open =
        json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": true});
    assert!(accepts(&open, r#"{"a": 1, "b": [2]}"#) && !accepts(&open, r#"{"a": "1"}"#));
    // A key cannot be spelled past what its property says.
    assert!(!accepts(&open, r#"{"\u0061": "1"}"#));
    assert!(accepts(&json!({"type": "object"}), r#"{"b": {"c": null}}"#));
}

#[test]
fn patterns_of_everyday() {
    let model = Model::smollm2();
    let accepts = |pattern: &str, text: &str| {
        let schema = json!({"type": "string", "pattern": pattern});
        let right = model.accepts(&Grammar::JsonSchema(schema.clone()), &json!(text).to_string());
        assert_eq!(right, fault(&schema, &json!(text)).is_none(), "{pattern} {text}");
        right
    };
    assert!(
        accepts(r"^[\w.-]+@[\w-]+\.com$", "a-b.c@x-y.com") && !accepts(r"^[\w.-]+@[\w-]+\.com$", "a b@c.com")
    );
    assert!(accepts(r"^https?:\/\/[^\s/]+(/.*)?$", "http://a.b/c d") && !accepts(r"^[^\w\s]$", "a"));
    assert!(accepts("^(a|b)|c$", "bxx") && accepts("^(a|b)|c$", "xxc") && !accepts("^(a|b)|c$", "xx"));
    assert!(accepts("b+", "abba") && !accepts("^$", "a") && accepts("^$", "") && accepts("", "x"));
    assert!(accepts(r"^\d{3}$", "123"));
    // Digits are those of JavaScript.
    let digits = Grammar::JsonSchema(json!({"type": "string", "pattern": "^\\d{3}$"}));
    assert!(!model.accepts(&digits, "\"١٢٣\""));
}

#[test]
fn whitespace_is_what_people_write_and_has_an_end() {
    let model = Model::smollm2();
    let accepts = |text: &str| model.accepts(&Grammar::JsonObject, text);
    assert!(accepts(r#"{"a":1,"b":[1,2]}"#) && accepts(r#"{ "a": 1, "b": [1, 2] }"#));
    assert!(accepts("{\n  \"a\": {\n    \"b\": 1\n  }\n}") && accepts("{\n\t\"a\": 1\r\n}"));
    assert!(!accepts("{  \"a\": 1}") && !accepts("{\n\n\"a\": 1}") && !accepts(" {\"a\": 1}"));
    assert!(!accepts("[1]") && !accepts("1") && !accepts("{\"a\": 1} {") && !accepts("{\"a\": 01}"));
}

#[test]
fn grammars_are_stored_and_read_again() {
    let all = [
        Grammar::JsonObject,
        Grammar::JsonSchema(json!({"type": "object", "properties": {"z": {"const": 1.5}, "a": {}}})),
        Grammar::Regex("[a-z]+\n".to_owned()),
        Grammar::Lark("start: \"x\"".to_owned()),
    ];
    for grammar in all {
        let text = grammar.to_text();
        let again = Grammar::from_text(&text).unwrap();
        assert_eq!((again.to_text(), again), (text, grammar));
    }
    assert!(Grammar::from_text("{").unwrap_err().to_string().contains("stored grammar"));
}

/// A schema of random keywords.
fn random_schema(random: &mut Random, depth: usize) -> Value {
    let kinds = if depth == 0 { 6 } else { 13 };
    let inner = |random: &mut Random| random_schema(random, depth - 1);
    let names = ["a", "b", "name", "x_1"];
    match random.below(kinds) {
        0 => {
            let least = random.below(9) as i64 - 4;
            json!({"type": "integer", "minimum": least, "exclusiveMaximum": least + 1 + random.below(40) as i64})
        }
        1 => json!({"type": "number", "exclusiveMinimum": random.below(100) as f64 / 8.0 - 6.0}),
        2 => json!({"type": "string", "minLength": random.below(3), "maxLength": 3 + random.below(5)}),
        3 => json!({"enum": [random.below(3), "one", null, {"a": [true]}]}),
        4 => json!({"type": ["boolean", "null"]}),
        5 => {
            json!({"type": "string", "pattern": (["^[ab]+$", "x|y", "[ -~]?\\d\\w?$|n", "^.{2}$"][random.below(4)])})
        }
        6 => {
            json!({"type": "array", "items": inner(random), "minItems": random.below(2), "maxItems": 1 + random.below(3)})
        }
        7 => json!({"type": "array", "prefixItems": [inner(random), inner(random)], "items": inner(random)}),
        8 => json!({"anyOf": [inner(random), inner(random)]}),
        9 => json!({"allOf": [inner(random), inner(random)]}),
        10 => json!({"oneOf": [inner(random), inner(random)]}),
        _ => {
            let mut properties = serde_json::Map::new();
            for name in &names[..1 + random.below(4)] {
                properties.insert((*name).to_owned(), inner(random));
            }
            let mut object =
                json!({"type": "object", "properties": properties, "required": (names[..random.below(4)])});
            match random.below(5) {
                0 => object["additionalProperties"] = inner(random),
                1 => object["patternProperties"] = json!({"^x": inner(random)}),
                2 => object["anyOf"] = json!([{"required": ["a"]}, inner(random)]),
                3 => object["maxProperties"] = json!(random.below(5)),
                _ => {}
            }
            object
        }
    }
}

#[test]
fn random_answers_follow_random_schemas() {
    let model = Model::smollm2();
    let (mut followed, mut refused) = (0, 0);
    for seed in 0..500 {
        let schema = random_schema(&mut Random(seed), 2);
        match model.compiler.compile(&Grammar::JsonSchema(schema.clone())) {
            Err(_) => refused += 1,
            Ok(_) => {
                holds(&model, &schema, seed);
                followed += 1;
            }
        }
    }
    assert!(followed > refused, "{followed} followed, {refused} refused");
}
