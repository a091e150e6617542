//! Chat templates of well-known families against what `transformers` makes of them (`tools/family_templates.py`).

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use wushi_formats::{ChatTemplate, FormatError, Message, RenderOptions};

#[derive(Deserialize)]
struct Fixture {
    conversations: Vec<Vec<Message>>,
    options: Vec<Options>,
    templates: Vec<Case>,
}

#[derive(Deserialize)]
struct Options {
    add_generation_prompt: bool,
    #[serde(default)]
    tools: Vec<serde_json::Value>,
    now: u64,
    #[serde(default)]
    variables: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    source: String,
    renderings: Vec<Rendering>,
}

#[derive(Deserialize)]
struct Rendering {
    messages: usize,
    options: usize,
    prompt: Option<String>,
    refusal: Option<String>,
}

impl Options {
    fn render(&self) -> RenderOptions {
        RenderOptions {
            add_generation_prompt: self.add_generation_prompt,
            bos_token: Some("<s>".into()),
            eos_token: Some("</s>".into()),
            tools: self.tools.clone(),
            now: Some(UNIX_EPOCH + Duration::from_secs(self.now)),
            variables: self.variables.clone(),
        }
    }
}

/// Every rendering of a file that differs, and how many there are in all.
fn differences(path: &Path) -> (Vec<String>, usize) {
    let fixture: Fixture = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut found, mut count) = (Vec::new(), 0);
    for case in &fixture.templates {
        let template = match ChatTemplate::new(&case.source) {
            Ok(template) => template,
            Err(error) => {
                found.push(format!("{}: {error}", case.name));
                continue;
            }
        };
        for rendering in &case.renderings {
            count += 1;
            let options = fixture.options[rendering.options].render();
            let result = template.render(&fixture.conversations[rendering.messages], &options);
            let place = format!("{}, {}/{}", case.name, rendering.messages, rendering.options);
            match (result, &rendering.prompt, &rendering.refusal) {
                (Ok(prompt), Some(expected), _) if prompt == *expected => {}
                (Err(FormatError::TemplateRefused(words)), _, Some(expected)) if words == *expected => {}
                // Failures that are no refusal are worded by each engine for itself.
                (Err(FormatError::TemplateRender(_)), None, Some(_)) => {}
                (result, expected, refusal) => {
                    let expected = expected.as_ref().or(refusal.as_ref());
                    found.push(format!("{place}:\n  {result:?}\n  {expected:?}"));
                }
            }
        }
    }
    (found, count)
}

#[test]
fn prompts_are_those_of_transformers() {
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/family_renderings.json");
    let (found, count) = differences(&fixture);
    assert!(found.is_empty(), "{} of {count}:\n{}", found.len(), found.join("\n"));
    assert!(count > 400, "{count}");
}

/// The same for the file that `WUSHI_RENDERINGS` names, with templates that cannot be here; none is no failure.
#[test]
fn prompts_of_other_templates_are_those_of_transformers() {
    let Some(path) = std::env::var_os("WUSHI_RENDERINGS") else { return };
    let (found, count) = differences(Path::new(&path));
    assert!(found.is_empty(), "{} of {count}:\n{}", found.len(), found.join("\n"));
}
