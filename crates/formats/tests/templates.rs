//! Chat templates against what Jinja2 makes of them (`tools/template_goldens.py`).

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use wushi_formats::{ChatTemplate, FormatError, Message, RenderOptions};

#[derive(Deserialize)]
struct Case {
    name: String,
    source: String,
    renderings: Vec<Rendering>,
}

#[derive(Deserialize)]
struct Rendering {
    messages: Vec<Message>,
    options: Options,
    prompt: Option<String>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Options {
    add_generation_prompt: bool,
    #[serde(default)]
    tools: Vec<serde_json::Value>,
    now: Option<u64>,
    #[serde(default)]
    variables: serde_json::Map<String, serde_json::Value>,
}

#[test]
fn prompts_equal_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/template_renderings.json");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(cases[0].name, "smollm2");
    for case in cases {
        let template = ChatTemplate::new(&case.source).unwrap();
        for rendering in case.renderings {
            let options = RenderOptions {
                add_generation_prompt: rendering.options.add_generation_prompt,
                bos_token: Some("<s>".into()),
                eos_token: Some("</s>".into()),
                tools: rendering.options.tools,
                now: rendering.options.now.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
                variables: rendering.options.variables,
            };
            let place = format!("{}: {:?}", case.name, rendering.messages);
            match (template.render(&rendering.messages, &options), rendering.prompt, rendering.refusal) {
                (Ok(prompt), Some(expected), None) => assert_eq!(prompt, expected, "{place}"),
                (Err(FormatError::TemplateRefused(words)), None, Some(expected)) => {
                    assert_eq!(words, expected, "{place}")
                }
                // Failures that are no refusal are worded by each engine for itself.
                (Err(FormatError::TemplateRender(_)), None, Some(_)) => {}
                (result, ..) => panic!("{place}: {result:?}"),
            }
        }
    }
}

#[test]
fn smollm2_introduces_itself_only_without_a_system_message() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trimmed.gguf");
    let file = wushi_formats::Gguf::open(path).unwrap();
    let template = ChatTemplate::from_gguf(file.metadata()).unwrap().unwrap();
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let user = Message::new("user", "Hi");
    assert_eq!(
        template.render(std::slice::from_ref(&user), &options).unwrap(),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        template.render(&[Message::new("system", "Be brief."), user], &options).unwrap(),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}
