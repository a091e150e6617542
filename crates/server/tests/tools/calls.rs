//! What the grammar of calls lets through is read as calls whose arguments follow their schemas.

use serde_json::{Value, json};
use wushi_server::constraint::{ConstraintError, Grammar};
use wushi_server::tools::{
    AnswerParser, Piece, Shape, ThinkFormat, Tool, ToolChoice, ToolFormat, ToolGrammar, tool_grammar,
};

use crate::validator::fault;
use crate::walk::{Model, VOCABULARIES};
use crate::{joined, tools};

fn formats() -> Vec<ToolFormat> {
    let list = ToolFormat { shape: Shape::List, ..ToolFormat::tagged() };
    let unmarked =
        ToolFormat { begin: "[TOOL_CALLS]".to_owned(), end: String::new(), ..ToolFormat::tagged() };
    let named = ToolFormat { shape: Shape::Named("[ARGS]".to_owned()), ..unmarked.clone() };
    let bare = ToolFormat::of_template("{{ tools }} <|python_tag|>").unwrap();
    let elements = ToolFormat { shape: Shape::Elements, bare: false, ..ToolFormat::tagged() };
    vec![ToolFormat::tagged(), list, ToolFormat { shape: Shape::List, ..unmarked }, named, bare, elements]
}

/// A mark that is a control token of SmolLM2's, so that it comes as one.
fn with_control_tokens() -> ToolFormat {
    let (begin, end) = ("<|im_start|>".to_owned(), "<repo_name>".to_owned());
    ToolFormat { begin, end, ..ToolFormat::tagged() }
}

fn grammar(format: &ToolFormat, choice: ToolChoice, parallel: bool) -> Grammar {
    tool_grammar(format, &tools(), &choice, parallel).unwrap().expect("a grammar")
}

/// Checks the calls of an answer; gives how many there are, and the text.
fn read(format: &ToolFormat, answer: &str) -> (usize, String) {
    let tools = tools();
    let mut parser = AnswerParser::new(None, false, Some((format, &tools)));
    let mut pieces = parser.push(answer);
    pieces.extend(parser.finish());
    let (mut text, mut name) = (String::new(), String::new());
    for piece in joined(pieces) {
        match piece {
            Piece::Text(more) => text.push_str(&more),
            Piece::Call { name: next, .. } => name = next,
            Piece::Arguments { fragment, .. } => {
                let value: Value = serde_json::from_str(&fragment).expect("JSON");
                let tool = tools.iter().find(|tool| tool.name == name).expect("a tool");
                assert_eq!(fault(&tool.parameters, &value), None, "{answer}");
            }
            Piece::Thought(thought) => panic!("{thought}"),
        }
    }
    (parser.calls(), text)
}

#[test]
fn a_required_call_is_made_whatever_the_tokens() {
    for name in VOCABULARIES {
        let model = Model::new(name);
        for format in formats() {
            let mark = if format.shape == Shape::Elements { "</parameter>" } else { "" };
            for seed in 0..4 {
                let answer = model.walk_closing(&grammar(&format, ToolChoice::Required, true), seed, mark);
                let (calls, text) = read(&format, &answer);
                assert!(calls >= 1 && text.is_empty(), "{name}: {format:?}: {answer}");
                let answer = model.walk_closing(&grammar(&format, ToolChoice::Required, false), seed, mark);
                assert_eq!(read(&format, &answer), (1, String::new()), "{name}: {format:?}: {answer}");
                let choice = ToolChoice::Named("get_time".to_owned());
                let answer = model.walk_closing(&grammar(&format, choice, true), seed, mark);
                assert!(answer.contains("get_time") && read(&format, &answer).0 == 1, "{answer}");
            }
        }
    }
}

#[test]
fn text_or_calls_as_the_model_likes() {
    let model = Model::smollm2();
    for format in formats() {
        let auto = grammar(&format, ToolChoice::Auto, true);
        for text in ["Hello, world.\n\nHow < are <you>?", "{\"answer\": 1}", "<b>[x]</b>"] {
            assert!(model.accepts(&auto, text), "{format:?}: {text}");
            assert_eq!(read(&format, text), (0, text.to_owned()));
        }
        for seed in 0..6 {
            // Random words hardly begin a call: what they make is text, or calls as they must be.
            read(&format, &model.walk(&auto, seed));
        }
    }
}

#[test]
fn a_call_that_has_begun_is_one() {
    let model = Model::smollm2();
    let auto = grammar(&ToolFormat::tagged(), ToolChoice::Auto, true);
    let call = r#"<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>"#;
    for right in [
        call.to_owned(),
        format!("So: {call}"),
        format!("{call}\n{call}"),
        call.replace("<tool_call>", "<tool_call>\n"),
    ] {
        assert!(model.accepts(&auto, &right), "{right}");
    }
    for wrong in [
        call.replace("get_weather", "get_news"),
        call.replace("\"Paris\"", "3"),
        call.replace("city", "town"),
        call.replace("</tool_call>", ""),
        "<tool_call>".to_owned(),
        "Is <tool_call> a word?".to_owned(),
        format!("{call} Done."),
    ] {
        assert!(!model.accepts(&auto, &wrong), "{wrong}");
    }
    let single = grammar(&ToolFormat::tagged(), ToolChoice::Auto, false);
    assert!(model.accepts(&single, call) && !model.accepts(&single, &format!("{call}\n{call}")));
    let bare = grammar(&formats()[4], ToolChoice::Auto, true);
    assert!(model.accepts(&bare, r#"{"name": "get_time", "parameters": {}}"#));
    assert!(model.accepts(&bare, r#"{"name": "Ann", "parameters": {}}"#), "no function, so text");
    assert!(!model.accepts(&bare, r#"{"name": "get_weather", "parameters": {}}"#));
}

#[test]
fn calls_as_elements() {
    let model = Model::smollm2();
    let schema = json!({
        "type": "object",
        "properties": {
            "query": {"type": "string"}, "unit": {"enum": ["c", "f"]}, "n": {"$ref": "#/$defs/n"},
            "code": {"type": "string", "pattern": "^[A-Z]+$"},
        },
        "required": ["query", "n"],
        "$defs": {"n": {"type": "integer", "minimum": 1}},
    });
    let format = formats()[5].clone();
    let tools = [Tool::new("f", Some(schema)).unwrap()];
    let grammar = tool_grammar(&format, &tools, &ToolChoice::Auto, true).unwrap().unwrap();
    let parameter = |key: &str, value: &str| format!("<parameter={key}>\n{value}\n</parameter>\n");
    let call =
        |inner: &[String]| format!("<tool_call>\n<function=f>\n{}</function>\n</tool_call>", inner.concat());
    let (query, n) = (parameter("query", "fn main() {\n  \"<a>\"\n}"), parameter("n", "3"));
    let right = [
        call(&[query.clone(), n.clone()]),
        call(&[query.clone(), parameter("unit", "f"), n.clone(), parameter("code", "\"ABC\"")]),
    ];
    for right in right {
        assert!(model.accepts(&grammar, &right), "{right}");
    }
    let wrong = [
        call(std::slice::from_ref(&query)),
        call(&[query.clone(), parameter("n", "0")]),
        call(&[query.clone(), parameter("unit", "k"), n.clone()]),
        call(&[query.clone(), n.clone(), parameter("code", "\"abc\"")]),
        call(&[query, n, parameter("more", "1")]),
    ];
    for wrong in wrong {
        assert!(!model.accepts(&grammar, &wrong), "{wrong}");
    }
    let composed = json!({"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["a"]}]});
    let tools = [Tool::new("f", Some(composed)).unwrap()];
    let grammar = tool_grammar(&format, &tools, &ToolChoice::Auto, true).unwrap().unwrap();
    assert!(model.refusal(&grammar).contains("`anyOf`"));
}

#[test]
fn calls_without_their_mark() {
    let model = Model::smollm2();
    let inner = r#"{"name": "get_weather", "arguments": {"city": "Paris"}}"#;
    let auto = grammar(&ToolFormat::tagged(), ToolChoice::Auto, true);
    let required = grammar(&ToolFormat::tagged(), ToolChoice::Required, true);
    for call in [inner.to_owned(), format!("```json\n{inner}\n```"), format!("{{\n  {}", &inner[1..])] {
        assert!(model.accepts(&auto, &call) && !model.accepts(&required, &call), "{call}");
        assert_eq!(read(&ToolFormat::tagged(), &call), (1, String::new()));
        assert!(!model.accepts(&auto, &call.replace("\"Paris\"", "3")), "{call}");
    }
    for text in
        [r#"{"name": "Ann", "age": 3}"#, "```json\n{\"name\": \"Ann\"}\n```", "```rust\nfn main() {}\n```"]
    {
        assert!(model.accepts(&auto, text), "{text}");
        assert_eq!(read(&ToolFormat::tagged(), text), (0, text.to_owned()));
    }
}

#[test]
fn marks_that_are_control_tokens() {
    let model = Model::smollm2();
    let format = with_control_tokens();
    let ids = model.compiler.control_tokens(format.markers());
    assert_eq!(ids.len(), 2);
    let call = r#"<|im_start|>{"name": "get_weather", "arguments": {"city": "Paris"}}<repo_name>"#;
    for choice in [ToolChoice::Auto, ToolChoice::Required] {
        let grammar = grammar(&format, choice, true);
        assert!(model.accepts(&grammar, call) && model.accepts(&grammar, &format!("{call}{call}")));
        assert!(!model.accepts(&grammar, &call.replace("Paris\"}", "Paris\"")));
        assert!(!model.accepts(&grammar, &format!("{call}<file_sep>")), "no other control token comes in");
    }
    let auto = grammar(&format, ToolChoice::Auto, true);
    assert!(model.accepts(&auto, "Just text.") && model.accepts(&auto, &format!("Text {call}")));
    assert_eq!(read(&format, call), (1, String::new()));
}

#[test]
fn thoughts_may_speak_of_calls() {
    let model = Model::smollm2();
    let think = ThinkFormat { begin: "<think>".to_owned(), end: "</think>".to_owned() };
    let call = r#"<tool_call>{"name": "get_time", "arguments": {}}</tool_call>"#;
    for choice in [ToolChoice::Auto, ToolChoice::Required] {
        let grammar =
            grammar(&ToolFormat::tagged(), choice.clone(), true).after_thinking(Some(&think), false);
        assert!(model.accepts(&grammar, &format!("<think>Is <tool_call> right?\n</think>\n\n{call}")));
        assert!(model.accepts(&grammar, call));
        assert_eq!(model.accepts(&grammar, "<think>No.</think>It is noon."), choice == ToolChoice::Auto);
    }
}

#[test]
fn another_form_in_the_place_of_a_call() {
    let model = Model::smollm2();
    let answer = Grammar::JsonSchema(
        json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
    );
    let Grammar::Tools(mut tools) = grammar(&ToolFormat::tagged(), ToolChoice::Auto, true) else { panic!() };
    tools.otherwise = Some(answer);
    let grammar = Grammar::Tools(tools);
    assert!(model.accepts(&grammar, r#"{"n": 1}"#) && !model.accepts(&grammar, "Hello"));
    assert!(model.accepts(&grammar, r#"<tool_call>{"name": "get_time", "arguments": {}}</tool_call>"#));
    assert_eq!(Grammar::from_text(&grammar.to_text()), Ok(grammar));
}

#[test]
fn schemas_of_arguments_are_refused_with_their_function() {
    let model = Model::smollm2();
    let refusal = |parameters: Value| {
        let tools = vec![Tool::new("f", Some(parameters)).unwrap()];
        let format = ToolFormat::tagged();
        let grammar = ToolGrammar { format, tools, required: true, parallel: true, otherwise: None };
        match model.compiler.compile(&Grammar::Tools(Box::new(grammar))) {
            Ok(_) => panic!("not refused"),
            Err(error) => error,
        }
    };
    let error = refusal(json!({"type": "object", "properties": {"a": {"not": {}}}}));
    assert!(
        matches!(&error, ConstraintError::Schema { at, .. } if at == "function `f`, at /properties/a/not"),
        "{error:?}"
    );
    assert!(refusal(json!({"type": "string"})).to_string().contains("an object"));
    assert!(refusal(json!([])).to_string().contains("function `f`"));
    // Names are parts of expressions: those that came past `Tool::new` are looked at again.
    let Grammar::Tools(mut stored) = grammar(&ToolFormat::tagged(), ToolChoice::Auto, true) else { panic!() };
    stored.tools[0].name = "a|/.*".to_owned();
    assert!(model.refusal(&Grammar::Tools(stored)).contains("no name"));
}

#[test]
fn recursive_arguments_of_several_functions() {
    let model = Model::smollm2();
    let tree = json!({
        "type": "object", "properties": {"root": {"$ref": "#/$defs/n"}}, "required": ["root"],
        "$defs": {"n": {"type": "object", "properties": {"v": {"type": "integer"}, "sub": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "required": ["v"]}},
    });
    let list = json!({"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "boolean"}}});
    let tools = [Tool::new("tree", Some(tree)).unwrap(), Tool::new("list", Some(list)).unwrap()];
    let grammar = tool_grammar(&ToolFormat::tagged(), &tools, &ToolChoice::Required, true).unwrap().unwrap();
    let call = |name: &str, arguments: &str| {
        format!("<tool_call>{{\"name\": \"{name}\", \"arguments\": {arguments}}}</tool_call>")
    };
    assert!(model.accepts(&grammar, &call("tree", r#"{"root": {"v": 1, "sub": [{"v": 2}]}}"#)));
    assert!(model.accepts(&grammar, &call("list", r#"{"n": true}"#)));
    assert!(!model.accepts(&grammar, &call("list", r#"{"n": {"v": 1}}"#)));
    assert!(!model.accepts(&grammar, &call("tree", r#"{"root": true}"#)));
}
