//! What cannot be honoured is refused, with its place.

use serde_json::{Value, json};
use wushi_server::constraint::Grammar;

use crate::walk::Model;

#[test]
fn keywords_that_would_be_ignored_are_refused_where_they_stand() {
    let model = Model::smollm2();
    let within = |schema: Value| json!({"type": "object", "properties": {"p": {"items": schema}}});
    let cases = [
        (json!({"uniqueItems": true}), "uniqueItems"),
        (json!({"not": {"type": "string"}}), "not"),
        (json!({"if": {}, "then": false}), "if"),
        (json!({"contains": {"const": 1}}), "contains"),
        (json!({"propertyNames": {"pattern": "^a"}}), "propertyNames"),
        (json!({"dependentRequired": {"a": ["b"]}}), "dependentRequired"),
        (json!({"unevaluatedProperties": false}), "unevaluatedProperties"),
        (json!({"maxlength": 3}), "maxlength"),
        (json!({"type": "string", "nullable": true}), "nullable"),
        (json!({"type": "strnig"}), "type"),
        (json!({"type": []}), "type"),
        (json!({"type": "string", "format": "phone"}), "format"),
        (json!({"type": "string", "format": "unknown"}), "format"),
        (json!({"type": "string", "minLength": -1}), "minLength"),
        (json!({"type": "string", "maxLength": 1_000_000_000}), "maxLength"),
        (json!({"enum": []}), "enum"),
        (json!({"anyOf": []}), "anyOf"),
        (json!({"const": 9_007_199_254_740_993_i64}), "const"),
        (json!({"const": "bell\u{7}"}), "const"),
        (json!({"minimum": "3"}), "minimum"),
        (json!({"$ref": "https://example.com/schema.json"}), "$ref"),
        (json!({"$ref": "#/$defs/missing"}), "$ref"),
        (json!({"pattern": "^[[a]b]$"}), "pattern"),
        (json!({"pattern": "[+--]"}), "pattern"),
        (json!({"pattern": "[\\w&&\\d]"}), "pattern"),
        (json!({"patternProperties": {"[[]": true}}), "patternProperties"),
        (json!({"required": "a"}), "required"),
        (json!({"properties": {"a": 3}}), "properties/a"),
        (json!({"items": [true], "prefixItems": [true]}), ""),
        (json!({"type": "integer", "multipleOf": 10, "minimum": 11, "maximum": 19}), ""),
        (json!({"type": "number", "minimum": 3, "maximum": 2}), ""),
        (json!({"type": "array", "minItems": 3, "maxItems": 2}), ""),
        (json!({"type": "object", "minProperties": 3}), ""),
    ];
    for (schema, place) in cases {
        let message = model.refusal(&Grammar::JsonSchema(within(schema.clone())));
        let place = format!("at /properties/p/items/{place}");
        assert!(message.contains(place.trim_end_matches('/')), "{schema}: {message}");
        assert!(!message.contains('\n') && message.len() < 400, "{message}");
    }
    assert!(model.refusal(&Grammar::JsonSchema(json!([]))).contains("the root"));
}

#[test]
fn what_says_nothing_about_values_is_allowed() {
    let model = Model::smollm2();
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/s", "$comment": "c",
        "title": "T", "description": "d", "type": "string", "default": "x", "examples": ["y"], "deprecated": true,
        "readOnly": false, "x-anything": {"lenient": true}, "$defs": {"unused": {"not": {}}},
    });
    assert!(model.accepts(&Grammar::JsonSchema(schema), "\"ok\""));
    // Options of the library are no way in.
    let options = json!({"type": "string", "x-guidance": {"lenient": true, "whitespace_pattern": "x*"}, "format": "phone"});
    assert!(model.refusal(&Grammar::JsonSchema(options)).contains("phone"));
    // An old draft does not make newer words mean nothing.
    let old = json!({"$schema": "http://json-schema.org/draft-04/schema#", "const": 5});
    assert!(
        model.accepts(&Grammar::JsonSchema(old.clone()), "5")
            && !model.accepts(&Grammar::JsonSchema(old), "6")
    );
}

#[test]
fn schemas_that_nothing_satisfies() {
    let model = Model::smollm2();
    let never = [
        json!(false),
        json!({"$ref": "#"}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}),
        json!({"type": "array", "items": {"$ref": "#"}, "minItems": 1}),
        json!({"allOf": [{"type": "string"}, {"type": "integer"}]}),
        json!({"type": "string", "minLength": 5, "maxLength": 2}),
        json!({"type": "string", "pattern": "^a$", "minLength": 2}),
    ];
    for schema in never {
        let message = model.refusal(&Grammar::JsonSchema(schema.clone()));
        assert!(!message.contains("panic"), "{schema}: {message}");
    }
}

#[test]
fn options_that_do_not_exclude_each_other() {
    let model = Model::smollm2();
    let overlapping = json!({"oneOf": [{"type": "integer"}, {"type": "number"}]});
    let message = model.refusal(&Grammar::JsonSchema(overlapping));
    assert!(message.contains("oneOf") && message.contains("anyOf"), "{message}");
}

#[test]
fn expressions_and_grammars_that_are_none() {
    let model = Model::smollm2();
    for pattern in ["[a-", "(?=x)y", r"(a)\1", "(?<=a)b", r"\bword\b"] {
        let message = model.refusal(&Grammar::Regex(pattern.to_owned()));
        assert!(message.starts_with("the regular expression"), "{pattern}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
    for grammar in [
        "",
        "begin: \"x\"",
        "start: nothing",
        "start: <|im_end|>",
        "start: <[2]>",
        "start: \"a\" <[*]>",
        "start: %json {\"type\": \"object\"}",
        "%llguidance {\"allow_invalid_utf8\": true}\nstart: /./",
        "start: @other",
        "start: start",
    ] {
        let message = model.refusal(&Grammar::Lark(grammar.to_owned()));
        assert!(!message.contains('\n') && !message.contains("panic"), "{grammar}: {message}");
    }
}
