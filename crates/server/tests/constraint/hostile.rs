//! Schemas and expressions made to take long: refused, or done within bounds; never a panic.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use wushi_server::constraint::Grammar;

use crate::walk::{Model, Random};

/// Far above what any takes, and far below what a person waits for.
const LONGEST: Duration = Duration::from_secs(20);

/// Compiles it and goes some way; says how long both took if it was not refused.
fn goes_or_is_refused(model: &Model, what: &str, grammar: &Grammar) {
    let start = Instant::now();
    let compiled = model.compiler.compile(grammar);
    assert!(start.elapsed() < LONGEST, "{what}: {:?} to compile", start.elapsed());
    let mut constraint = match compiled {
        Ok(constraint) => constraint,
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() < 2000 && !message.contains('\n'), "{what}: {message}");
            return;
        }
    };
    let mut random = Random(7);
    let vocab = model.tokenizer.vocab_size();
    for _ in 0..40 {
        let start = Instant::now();
        let mut mask = vec![0u32; vocab.div_ceil(32)];
        // A grammar that is too much work ends its own answer with an error.
        if constraint.allowed(&mut mask).is_err() {
            return;
        }
        assert!(start.elapsed() < LONGEST, "{what}: {:?} for a mask", start.elapsed());
        let allowed: Vec<u32> =
            (0..vocab as u32).filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1).collect();
        if constraint.accept(allowed[random.below(allowed.len())]).is_err() {
            return;
        }
    }
}

fn nested(depth: usize, wrap: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(json!({"type": "integer"}), |schema, _| wrap(schema))
}

#[test]
fn expressions() {
    let model = Model::smollm2();
    let long = "a?".repeat(5000) + &"a".repeat(5000);
    let nested = "(".repeat(3000) + "a" + &")*".repeat(3000);
    let classes = r"[\w\s\d🔵-🟠]{1,200}".repeat(50);
    for pattern in [
        "(a*)*b",
        "(a|aa)+$",
        "(a+)+(b+)+(c+)+",
        "(.*a){20}",
        "(?:a?){500}a{500}",
        ".*a.{18}",
        "(x+x+)+y",
        "((a{1,100}){1,100}){1,100}",
        "[a-z]{1,60000}",
        "a{1000000000}",
        "(ab?){4000000000}",
        &long,
        &nested,
        &classes,
        r"(\w+\s?){1,5000}",
    ] {
        goes_or_is_refused(&model, &pattern[..pattern.len().min(30)], &Grammar::Regex(pattern.to_owned()));
        let schema = json!({"type": "string", "pattern": pattern, "minLength": 50, "maxLength": 5000});
        goes_or_is_refused(&model, &pattern[..pattern.len().min(30)], &Grammar::JsonSchema(schema));
    }
}

#[test]
fn deep_schemas() {
    let model = Model::smollm2();
    for depth in [30, 90, 500] {
        let shapes: [(&str, &dyn Fn(Value) -> Value); 4] = [
            ("arrays", &|inner| json!({"type": "array", "items": inner})),
            ("objects", &|inner| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]})),
            ("allOf", &|inner| json!({"allOf": [inner, {"minimum": 1}]})),
            ("anyOf", &|inner| json!({"anyOf": [inner, {"type": "null"}]})),
        ];
        for (what, wrap) in shapes {
            let schema = Grammar::JsonSchema(nested(depth, wrap));
            if depth > 128 {
                assert!(model.refusal(&schema).contains("deep"), "{what} {depth}");
            } else {
                goes_or_is_refused(&model, what, &schema);
            }
        }
    }
}

#[test]
fn large_schemas() {
    let model = Model::smollm2();
    let names = |count: usize, of: Value| -> Map<String, Value> {
        (0..count).map(|n| (format!("property_{n}"), of.clone())).collect()
    };
    let chain: Map<String, Value> = (0..5000)
        .map(|n| {
            (
                format!("d{n}"),
                json!({"type": "array", "items": {"$ref": format!("#/$defs/d{}", (n + 1) % 5000)}}),
            )
        })
        .collect();
    let product = json!({"anyOf": names(60, json!({"minimum": 1})).into_iter().map(|(name, _)| json!({"required": [name]})).collect::<Vec<_>>()});
    let cases = [
        ("properties", json!({"type": "object", "properties": names(5000, json!({"type": "string"}))})),
        ("too many", json!({"type": "object", "properties": names(20_000, json!({"type": "string"}))})),
        ("enum", json!({"enum": (0..20_000).map(|n| format!("value number {n}")).collect::<Vec<_>>()})),
        ("chain", json!({"$ref": "#/$defs/d0", "$defs": chain})),
        ("product", json!({"allOf": [product.clone(), product.clone(), product.clone(), product.clone()]})),
        (
            "items",
            json!({"type": "array", "items": {"type": "array", "items": {"type": "string", "maxLength": 9999}, "minItems": 9999, "maxItems": 99_999}, "minItems": 99_999}),
        ),
        (
            "patterns",
            json!({"type": "object", "patternProperties": (0..60).map(|n| (format!("a{{{n}}}b+.*c{{{n}}}"), json!(true))).collect::<Map<_, _>>()}),
        ),
        (
            "numbers",
            json!({"type": "number", "minimum": -9_007_199_254_740_991_i64, "exclusiveMaximum": 0.000_000_1, "multipleOf": 0.000_1}),
        ),
        ("primes", json!({"type": "integer", "multipleOf": 999_983})),
        ("fraction", json!({"type": "number", "multipleOf": 1e-300})),
        ("tiny bounds", json!({"type": "number", "minimum": 1e-300, "maximum": 2e-300})),
    ];
    for (what, schema) in cases {
        goes_or_is_refused(&model, what, &Grammar::JsonSchema(schema));
    }
}

#[test]
fn grammars() {
    let model = Model::smollm2();
    let parens = format!("start: {}\"a\"{}", "(".repeat(20_000), ")".repeat(20_000));
    let ambiguous = "start: s\ns: s s | s s s | \"a\"".to_owned();
    let many = (0..2000).map(|n| format!("r{n}: r{} r{} | \"x\"\n", (n + 1) % 2000, (n + 7) % 2000));
    let many = format!("start: r0\n{}", many.collect::<String>());
    let repeated = "start: (((\"a\"{1,1000}){1,1000}){1,1000}){1,1000}".to_owned();
    let terminals = (0..1500).map(|n| format!("T{n}: \"a\" T{}?\n", n + 1)).collect::<String>();
    let terminals = format!("start: T0\n{terminals}T1500: \"b\"\n");
    for (what, text) in [
        ("parens", parens),
        ("ambiguous", ambiguous),
        ("many", many),
        ("repeated", repeated),
        ("terminals", terminals),
    ] {
        goes_or_is_refused(&model, what, &Grammar::Lark(text));
    }
    let long = Grammar::Lark(format!("start: \"{}\"", "a".repeat(100_000)));
    assert!(model.refusal(&long).contains("too large"));
}

/// Keywords with values that need not be theirs.
fn random_json(random: &mut Random, depth: usize) -> Value {
    const KEYS: [&str; 30] = [
        "type",
        "properties",
        "items",
        "prefixItems",
        "additionalItems",
        "required",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "$defs",
        "$id",
        "$anchor",
        "additionalProperties",
        "patternProperties",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "multipleOf",
        "minProperties",
        "maxProperties",
        "title",
    ];
    const TEXTS: [&str; 16] = [
        "object",
        "array",
        "string",
        "integer",
        "number",
        "null",
        "#",
        "#/$defs/a",
        "#a",
        "#/%zz",
        "^a|b$",
        "[",
        "date",
        "int32",
        "a",
        "🔵\u{7f}\u{0}",
    ];
    match random.below(if depth == 0 { 5 } else { 9 }) {
        0 => json!(TEXTS[random.below(TEXTS.len())]),
        1 => json!(random.below(5)),
        2 => json!((random.below(9) as f64 - 4.0) * 1e9_f64.powi(random.below(5) as i32 - 2)),
        3 => json!(random.below(2) == 0),
        4 => Value::Null,
        5 => (0..random.below(4)).map(|_| random_json(random, depth - 1)).collect(),
        _ => {
            let entry = |random: &mut Random| {
                let key = if random.below(4) == 0 { "a" } else { KEYS[random.below(KEYS.len())] };
                (key.to_owned(), random_json(random, depth - 1))
            };
            (0..random.below(5)).map(|_| entry(random)).collect::<Map<_, _>>().into()
        }
    }
}

#[test]
fn anything_at_all() {
    let model = Model::smollm2();
    let mut compiled = 0;
    for seed in 0..6000 {
        let schema = random_json(&mut Random(seed), 4);
        match model.compiler.compile(&Grammar::JsonSchema(schema.clone())) {
            Ok(_) => compiled += 1,
            Err(error) => {
                let message = error.to_string();
                assert!(
                    !message.contains("panic") && !message.contains("could not be read"),
                    "{schema}: {message}"
                );
                assert!(!message.contains('\n') && message.len() < 1200, "{schema}: {message}");
            }
        }
    }
    assert!(compiled > 100, "{compiled}");
}
