//! Tools for templates that know of none.

use serde_json::json;
use wushi_formats::{Content, Message};
use wushi_server::tools::{explain, plain_messages};

use crate::tools;

#[test]
fn tools_are_explained_in_the_system_message() {
    let told = explain(&tools());
    assert!(told.contains("\"get_weather\"") && told.contains("<tool_call>") && told.contains("\"city\""));
    let messages = [Message::new("user", "Hi")];
    let plain = plain_messages(&messages, &tools());
    assert_eq!((plain[0].role.as_str(), plain[0].content.as_text()), ("system", Some(told.as_str())));
    let messages = [Message::new("system", "Be brief."), Message::new("user", "Hi")];
    let plain = plain_messages(&messages, &tools());
    assert_eq!(plain[0].content.as_text(), Some(format!("Be brief.\n\n{told}").as_str()));
    assert_eq!(plain_messages(&messages, &[]), messages);
}

#[test]
fn earlier_calls_and_what_they_gave_are_written_out() {
    let mut asked = Message::new("assistant", "Let me see.");
    let function = |name: &str, arguments: serde_json::Value| json!({"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}});
    let calls =
        json!([function("get_weather", json!("{\"city\": \"Paris\"}")), function("get_time", json!({}))]);
    asked.extra.insert("tool_calls".to_owned(), calls);
    let mut first = Message::new("tool", "sunny");
    first.extra.insert("tool_call_id".to_owned(), json!("1"));
    let second = Message {
        content: Content::Parts(vec![json!({"type": "text", "text": "noon"})]),
        ..Message::new("tool", "")
    };
    let plain = plain_messages(&[Message::new("user", "?"), asked, first, second], &[]);
    let roles: Vec<&str> = plain.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    let calls = "Let me see.\n<tool_call>\n{\"name\":\"get_weather\",\"arguments\":{\"city\":\"Paris\"}}\n</tool_call>\n\
                 <tool_call>\n{\"name\":\"get_time\",\"arguments\":{}}\n</tool_call>";
    assert_eq!(plain[1].content.as_text(), Some(calls));
    let results = "<tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response>";
    assert_eq!(plain[2].content.as_text(), Some(results));
    assert!(plain.iter().all(|message| message.extra.is_empty()));
}
