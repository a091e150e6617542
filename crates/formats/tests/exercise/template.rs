//! What can be done with a chat template that may be anything, shared by the tests and the fuzz target.

use std::time::{Duration, UNIX_EPOCH};

use wushi_formats::{ChatTemplate, Message, RenderOptions};

/// Reads `bytes` up to the last byte 0xff, which no text has, as a template, and what follows as messages in JSON, if
/// they are some.
///
/// Says whether there is a template. Whatever the bytes, nothing may panic, and rendering ends.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let cut = bytes.iter().rposition(|&byte| byte == 0xff);
    let (source, messages) = cut.map_or((bytes, &[][..]), |cut| (&bytes[..cut], &bytes[cut + 1..]));
    let Ok(template) = ChatTemplate::new(&String::from_utf8_lossy(source)) else { return false };
    let messages: Vec<Message> = serde_json::from_slice(messages).unwrap_or_else(|_| {
        vec![
            Message::new("system", "Be brief."),
            Message::new("user", "Why?"),
            Message::new("assistant", "So."),
        ]
    });
    let plain = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let full = RenderOptions {
        bos_token: Some("<s>".into()),
        eos_token: Some("</s>".into()),
        tools: vec![
            serde_json::json!({"type": "function", "function": {"name": "f", "parameters": {"a": 1e20}}}),
        ],
        now: Some(UNIX_EPOCH + Duration::from_secs(1_709_210_096)),
        variables: serde_json::Map::from_iter([("enable_thinking".to_owned(), false.into())]),
        ..RenderOptions::default()
    };
    for options in [plain, full] {
        let _ = template.render(&messages, &options);
    }
    true
}
