//! A conversation put together from parts, as the newer APIs have it: what an assistant thinks, says and calls, one after
//! the other, is one turn for a template.

use serde_json::{Value, json};
use wushi_formats::{Content, Message};

/// A conversation in the making.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    messages: Vec<Message>,
    /// Ids of the calls so far.
    calls: Vec<String>,
}

impl Turns {
    /// A new turn.
    pub(crate) fn say(&mut self, role: &str, text: String) {
        self.messages.push(Message::new(role, text));
    }

    /// A turn, or more of the last one if it has the same role; `between` comes in between.
    pub(crate) fn join(&mut self, role: &str, text: String, between: &str) {
        match self.messages.last_mut() {
            Some(Message { role: last, content, .. }) if last == role => append(content, &text, between),
            _ => self.say(role, text),
        }
    }

    /// The assistant said this.
    pub(crate) fn speak(&mut self, text: &str) {
        append(&mut self.assistant().content, text, "\n");
    }

    /// The assistant thought this.
    pub(crate) fn think(&mut self, text: &str) {
        let thought = self.assistant().extra.entry("reasoning_content").or_insert_with(|| "".into());
        let before = thought.as_str().unwrap_or_default();
        *thought = if before.is_empty() { text.into() } else { format!("{before}\n{text}").into() };
    }

    /// The assistant called a function. Templates take arguments as an object, wherever they are one.
    pub(crate) fn call(&mut self, id: String, name: &str, arguments: Value) {
        let call =
            json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
        let calls = self.assistant().extra.entry("tool_calls").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(calls) = calls {
            calls.push(call);
        }
        self.calls.push(id);
    }

    /// A call gave this. False if there was no such call.
    pub(crate) fn result(&mut self, id: &str, text: String) -> bool {
        if !self.calls.iter().any(|call| call == id) {
            return false;
        }
        let mut message = Message::new("tool", text);
        message.extra.insert("tool_call_id".into(), id.into());
        self.messages.push(message);
        true
    }

    /// The assistant's turn that is going on.
    fn assistant(&mut self) -> &mut Message {
        if self.messages.last().is_none_or(|last| last.role != "assistant") {
            // Templates add texts together, which nothing but a text survives.
            self.say("assistant", String::new());
        }
        let last = self.messages.len() - 1;
        &mut self.messages[last]
    }

    /// All of it.
    pub(crate) fn into_messages(self) -> Vec<Message> {
        self.messages
    }
}

fn append(content: &mut Content, text: &str, between: &str) {
    match content {
        _ if text.is_empty() => {}
        Content::Text(before) if !before.is_empty() => {
            before.push_str(between);
            before.push_str(text);
        }
        _ => *content = Content::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Turns;

    #[test]
    fn an_assistants_parts_are_one_turn() {
        let mut turns = Turns::default();
        turns.join("system", "Be brief.".into(), "\n\n");
        turns.join("system", "Be kind.".into(), "\n\n");
        turns.say("user", "Weather?".into());
        turns.think("They want");
        turns.think("the weather.");
        turns.speak("Let me see.");
        turns.call("call_1".into(), "weather", json!({"city": "Paris"}));
        turns.call("call_2".into(), "weather", json!({"city": "Rome"}));
        assert!(turns.result("call_1", "sunny".into()));
        assert!(!turns.result("call_3", "sunny".into()));
        turns.speak("Sunny.");
        let messages: Value = turns.into_messages().iter().map(|message| json!(message)).collect();
        let call = |id: &str, city: &str| {
            let function = json!({"name": "weather", "arguments": {"city": city}});
            json!({"id": id, "type": "function", "function": function})
        };
        let expected = json!([
            {"role": "system", "content": "Be brief.\n\nBe kind."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "Let me see.", "reasoning_content": "They want\nthe weather.",
             "tool_calls": [call("call_1", "Paris"), call("call_2", "Rome")]},
            {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
            {"role": "assistant", "content": "Sunny."},
        ]);
        assert_eq!(messages, expected);
    }
}
