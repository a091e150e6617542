//! How calls are written is told from templates in circulation.

use std::path::Path;

use serde_json::{Value, json};
use wushi_server::tools::{
    MAX_TOOLS, Shape, ThinkFormat, Tool, ToolChoice, ToolFormat, is_tool_name, tool_grammar,
};

use crate::tools;

/// The template of this name among those that `formats` is tested with.
fn template(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/family_renderings.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let found = all["templates"].as_array().unwrap().iter().find(|template| template["name"] == name);
    found.expect("a fixture")["source"].as_str().unwrap().to_owned()
}

#[test]
fn families() {
    let format = |name: &str| ToolFormat::of_template(&template(name));
    for name in ["Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "ibm-granite-granite-4.0"] {
        assert_eq!(format(name), Some(ToolFormat::tagged()), "{name}");
    }
    let nemo = format("mistralai-Mistral-Nemo-Instruct-2407").unwrap();
    assert_eq!((nemo.begin.as_str(), &nemo.shape), ("[TOOL_CALLS]", &Shape::List));
    let ministral = format("mistralai-Ministral-3-14B-Reasoning-2512").unwrap();
    assert_eq!(ministral.shape, Shape::Named("[ARGS]".to_owned()));
    assert_eq!(ministral.markers(), ["[TOOL_CALLS]", "[ARGS]"]);
    let bare = format("like Llama 3").unwrap();
    assert!(bare.bare && bare.arguments == "parameters");
    // Another form than is read here, or none.
    for name in ["Qwen3-Coder", "Qwen3.5-4B"] {
        assert_eq!(format(name).map(|format| format.shape), Some(Shape::Elements), "{name}");
    }
    for name in [
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        "HuggingFaceTB-SmolLM3-3B",
        "microsoft-Phi-3.5-mini-instruct",
        "like Gemma 3",
    ] {
        assert_eq!(format(name), None, "{name}");
    }
}

#[test]
fn thoughts() {
    let think = |name: &str| ThinkFormat::of_template(&template(name)).map(|format| format.begin);
    assert_eq!(think("Qwen-Qwen3-0.6B").as_deref(), Some("<think>"));
    assert_eq!(think("mistralai-Ministral-3-14B-Reasoning-2512").as_deref(), Some("[THINK]"));
    assert_eq!(think("Qwen-Qwen2.5-7B-Instruct"), None);
    let format = ThinkFormat::of_template("<think>").unwrap();
    assert!(format.is_open("<|im_start|>assistant\n<think>\n"));
    assert!(
        !format.is_open("<|im_start|>assistant\n<think>\n\n</think>\n\n") && !format.is_open("assistant\n")
    );
}

#[test]
fn names() {
    for name in ["a", "get_weather", "A-1_b", &"x".repeat(64)] {
        assert!(is_tool_name(name) && Tool::new(name, None).is_ok(), "{name}");
    }
    for name in ["", "a b", "é", "a.b", "a\"", "\n", &"x".repeat(65)] {
        assert!(!is_tool_name(name), "{name}");
        assert!(Tool::new(name, None).unwrap_err().to_string().contains("function's name"));
    }
}

#[test]
fn choices() {
    let grammar = |tools: &[Tool], choice| tool_grammar(&ToolFormat::tagged(), tools, &choice, true);
    assert_eq!(grammar(&tools(), ToolChoice::None), Ok(None));
    assert_eq!(grammar(&[], ToolChoice::Auto), Ok(None));
    let refused = |tools: &[Tool], choice| grammar(tools, choice).unwrap_err().to_string();
    assert!(refused(&[], ToolChoice::Required).contains("no tools"));
    assert!(refused(&tools(), ToolChoice::Named("nope".to_owned())).contains("`nope`"));
    let twice = [tools(), tools()].concat();
    assert!(refused(&twice, ToolChoice::Auto).contains("`get_weather`"));
    let many: Vec<Tool> =
        (0..=MAX_TOOLS).map(|n| Tool::new(&format!("t{n}"), Some(json!({}))).unwrap()).collect();
    assert!(refused(&many, ToolChoice::Auto).contains("128"));
}
