//! Answers as models write them, cut anywhere.

use proptest::prelude::*;
use wushi_server::tools::{AnswerParser, Piece, Shape, ThinkFormat, ToolFormat};

use crate::{joined, tools};

fn tagged() -> ToolFormat {
    ToolFormat::tagged()
}

fn list() -> ToolFormat {
    let (begin, end) = ("[TOOL_CALLS]".to_owned(), String::new());
    ToolFormat { begin, end, shape: Shape::List, bare: false, ..tagged() }
}

fn named() -> ToolFormat {
    ToolFormat { shape: Shape::Named("[ARGS]".to_owned()), ..list() }
}

fn bare() -> ToolFormat {
    ToolFormat::of_template("{{ tools }} <|python_tag|>").unwrap()
}

fn elements() -> ToolFormat {
    ToolFormat { shape: Shape::Elements, bare: false, ..tagged() }
}

fn think() -> ThinkFormat {
    ThinkFormat { begin: "<think>".to_owned(), end: "</think>".to_owned() }
}

fn thought(text: &str) -> Piece {
    Piece::Thought(text.to_owned())
}

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

fn call(index: usize, name: &str) -> Piece {
    Piece::Call { index, name: name.to_owned() }
}

fn arguments(index: usize, fragment: &str) -> Piece {
    Piece::Arguments { index, fragment: fragment.to_owned() }
}

/// What comes of an answer in these pieces.
fn read<'a>(format: &ToolFormat, open: bool, parts: impl IntoIterator<Item = &'a str>) -> Vec<Piece> {
    let tools = tools();
    let mut parser = AnswerParser::new(Some(&think()), open, Some((format, &tools)));
    let mut pieces = Vec::new();
    for part in parts {
        pieces.extend(parser.push(part));
    }
    pieces.extend(parser.finish());
    let calls = pieces.iter().filter(|piece| matches!(piece, Piece::Call { .. })).count();
    assert_eq!(parser.calls(), calls);
    joined(pieces)
}

/// The same, and the same again however it is cut.
fn check(format: &ToolFormat, open: bool, answer: &str, expected: &[Piece]) {
    assert_eq!(read(format, open, [answer]), expected, "{answer:?}");
    let places: Vec<usize> = answer.char_indices().map(|(at, _)| at).collect();
    for &at in &places {
        assert_eq!(read(format, open, [&answer[..at], &answer[at..]]), expected, "{answer:?} cut at {at}");
    }
    let single = places.iter().map(|&at| &answer[at..at + answer[at..].chars().next().unwrap().len_utf8()]);
    assert_eq!(read(format, open, single), expected, "{answer:?} character by character");
}

#[test]
fn calls_between_marks() {
    let paris = r#"{"city": "Paris"}"#;
    let weather = [call(0, "get_weather"), arguments(0, paris)];
    let whole = format!("<tool_call>\n{{\"name\": \"get_weather\", \"arguments\": {paris}}}\n</tool_call>");
    check(&tagged(), false, &whole, &weather);
    check(&tagged(), false, &format!("{whole}\n"), &weather);
    check(&tagged(), false, whole.trim_end_matches("\n</tool_call>"), &weather);
    let said = [text("I will look."), weather[0].clone(), weather[1].clone()];
    check(&tagged(), false, &format!("I will look.\n\n{whole}"), &said);
    let two = [weather[0].clone(), weather[1].clone(), call(1, "get_time"), arguments(1, "{}")];
    let second = "<tool_call>{\"arguments\": {}, \"name\": \"get_time\"}</tool_call>";
    check(&tagged(), false, &format!("{whole}\n{second}"), &two);
    // Two in one pair of marks, without arguments, with a key of its own.
    let inner = format!(
        "<tool_call>{{\"name\":\"get_weather\",\"arguments\":{paris}}}\n{{\"id\": [1, \"}}\"], \"name\":\"get_time\"}}</tool_call>"
    );
    check(&tagged(), false, &inner, &two);
    check(
        &tagged(),
        false,
        &format!("{whole} Done."),
        &[weather[0].clone(), weather[1].clone(), text("Done.")],
    );
}

#[test]
fn arguments_in_other_forms() {
    let tricky = r#"{"city": "a}\"]{<tool_call>", "days": [1, {"x": null}]}"#;
    let answer = format!("<tool_call>{{\"name\": \"get_weather\", \"arguments\": {tricky}}}</tool_call>");
    check(&tagged(), false, &answer, &[call(0, "get_weather"), arguments(0, tricky)]);
    let quoted = r#"<tool_call>{"name": "get_weather", "arguments": "{\"city\": \"Köln\"}"}</tool_call>"#;
    check(&tagged(), false, quoted, &[call(0, "get_weather"), arguments(0, r#"{"city": "Köln"}"#)]);
    let null = r#"<tool_call>{"name": "get_time", "arguments": null}</tool_call>"#;
    check(&tagged(), false, null, &[call(0, "get_time"), arguments(0, "{}")]);
}

#[test]
fn lists_and_names_behind_a_mark() {
    let both = [
        call(0, "get_weather"),
        arguments(0, r#"{"city": "Paris"}"#),
        call(1, "get_time"),
        arguments(1, "{}"),
    ];
    let answer = r#"[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abc123def"}, {"name": "get_time", "arguments": {}}]"#;
    check(&list(), false, answer, &both);
    let answer = r#"[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]get_time[CALL_ID]9a[ARGS]{}"#;
    check(&named(), false, answer, &both);
    check(
        &named(),
        false,
        "Well. [TOOL_CALLS]get_time[ARGS]{}",
        &[text("Well."), call(0, "get_time"), arguments(0, "{}")],
    );
}

#[test]
fn calls_without_marks() {
    let weather = [call(0, "get_weather"), arguments(0, r#"{"city": "Paris"}"#)];
    let answer = r#"{"name": "get_weather", "parameters": {"city": "Paris"}}"#;
    check(&bare(), false, answer, &weather);
    check(&bare(), false, &format!("\n{answer}"), &weather);
    check(&bare(), false, &format!("<|python_tag|>{answer}"), &weather);
    let two = [weather[0].clone(), weather[1].clone(), call(1, "get_time"), arguments(1, "{}")];
    check(&bare(), false, &format!("{answer}; {{\"name\": \"get_time\", \"parameters\": {{}}}}"), &two);
    let typed = r#"{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}"#;
    check(&bare(), false, typed, &weather);
    let marked = answer.replace("parameters", "arguments");
    for answer in [
        marked.clone(),
        format!("```json\n{marked}\n```"),
        format!("```\n{marked}```\n"),
        format!("{marked}</tool_call>"),
    ] {
        check(&tagged(), false, &answer, &weather);
    }
    for answer in
        ["```json\n{\"name\": \"Ann\"}\n```", "```json\n[1]", "```rust\n{}", "```", "{\"a\": {", "{"]
    {
        check(&tagged(), false, answer, &[text(answer)]);
    }
    let mut parser = AnswerParser::new(None, false, Some((&tagged(), &tools())));
    assert_eq!(parser.push("{\"a\""), [text("{\"a\"")], "not held back for longer");
    check(&bare(), false, r#"{"answer": 42}"#, &[text(r#"{"answer": 42}"#)]);
    check(&bare(), false, &format!("Like {answer}"), &[text(&format!("Like {answer}"))]);
}

#[test]
fn calls_as_elements() {
    let call_of = |city: &str, days: &str| {
        format!(
            "<tool_call>\n<function=get_weather>\n<parameter=city>\n{city}\n</parameter>\n<parameter=days>\n{days}\n</parameter>\n</function>\n</tool_call>"
        )
    };
    let weather = |json: &str| [call(0, "get_weather"), arguments(0, json)];
    check(&elements(), false, &call_of("Paris", "3"), &weather(r#"{"city": "Paris", "days": 3}"#));
    let quoted = r#"{"city": "a \"b\"\n</para\\🔵", "days": null}"#;
    check(&elements(), false, &call_of("a \"b\"\n</para\\🔵", "null"), &weather(quoted));
    check(&elements(), false, &call_of("\n", "two"), &weather(r#"{"city": "\n", "days": "two"}"#));
    let time = "<tool_call><function=get_time></function></tool_call>";
    let both = [call(0, "get_time"), arguments(0, "{}"), call(1, "get_time"), arguments(1, "{}")];
    check(&elements(), false, &format!("{time}\n{time}\n"), &both);
    check(
        &elements(),
        false,
        "<tool_call><function=get_time></function><function=get_time></function></tool_call>",
        &both,
    );
    let cut = "<tool_call><function=get_weather><parameter=city>Par";
    check(&elements(), false, cut, &weather(r#"{"city": "Par"#));
    for answer in
        ["<tool_call><function=nope></function></tool_call>", "<tool_call>\n<function=get", "<tool_call> {}"]
    {
        check(&elements(), false, answer, &[text(answer)]);
    }
}

#[test]
fn what_is_no_call_is_text() {
    for answer in [
        "plain",
        "a < b <tool",
        "<tool_call>",
        "<tool_call>\nnothing",
        "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": 3}</tool_call>",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"get_we",
        "<tool_call>[]</tool_call>",
        "x <tool_call> y </tool_call> z",
        "  \n",
        "naïve 🔵 <",
        "</tool_call>",
    ] {
        check(&tagged(), false, answer, &[text(answer)]);
    }
    check(&list(), false, "[TOOL_CALLS][]", &[text("[TOOL_CALLS][]")]);
    check(&named(), false, "[TOOL_CALLS]unknown[ARGS]{}", &[text("[TOOL_CALLS]unknown[ARGS]{}")]);
    let again = "<tool_call><tool_call>{\"name\": \"get_time\"}</tool_call>";
    check(&tagged(), false, again, &[text("<tool_call>"), call(0, "get_time"), arguments(0, "{}")]);
}

#[test]
fn a_call_cut_short_stays_what_it_was() {
    let cut = r#"<tool_call>{"name": "get_weather", "arguments": {"city": "Par"#;
    check(&tagged(), false, cut, &[call(0, "get_weather"), arguments(0, r#"{"city": "Par"#)]);
}

#[test]
fn thoughts() {
    let weather = r#"<tool_call>{"name": "get_time", "arguments": {}}</tool_call>"#;
    let time = [call(0, "get_time"), arguments(0, "{}")];
    check(&tagged(), false, "<think>\nHm <b> 1\n</think>\n\nYes.", &[thought("Hm <b> 1"), text("Yes.")]);
    check(&tagged(), true, "\nHm\n</think>\n\nYes.", &[thought("Hm"), text("Yes.")]);
    check(&tagged(), true, "Hm </thin", &[thought("Hm </thin")]);
    check(&tagged(), false, "<think>\n\n</think>\n\nYes.", &[text("Yes.")]);
    check(&tagged(), false, "Yes <think> no", &[text("Yes <think> no")]);
    let called = [thought("A <tool_call> is due."), time[0].clone(), time[1].clone()];
    check(&tagged(), false, &format!("<think>A <tool_call> is due.</think>\n{weather}"), &called);
    let bare_call = r#"<think>So</think> {"name": "get_time", "parameters": {}}"#;
    check(&bare(), false, bare_call, &[thought("So"), time[0].clone(), time[1].clone()]);
}

#[test]
fn endless_whitespace_is_not_held_back() {
    let (many, call) = (" \n".repeat(400), r#"<tool_call>{"name": "get_time", "arguments": {}}</tool_call>"#);
    check(&tagged(), false, &many, &[text(&many)]);
    check(
        &tagged(),
        true,
        &format!("a{many}</think>{many}{call}"),
        &[thought(&format!("a{}", &many[..800 - 256])), call_of_time()[0].clone(), call_of_time()[1].clone()],
    );
    let tools = tools();
    let mut parser = AnswerParser::new(None, false, Some((&tagged(), &tools)));
    assert!(parser.push("a").len() == 1 && parser.push(&many).len() == 1);
}

fn call_of_time() -> [Piece; 2] {
    [call(0, "get_time"), arguments(0, "{}")]
}

#[test]
fn text_is_held_back_only_while_it_may_be_a_mark() {
    let tools = tools();
    let mut parser = AnswerParser::new(None, false, Some((&tagged(), &tools)));
    assert_eq!(parser.push("Hello "), [text("Hello")]);
    assert_eq!(parser.push("world <b"), [text(" world <b")]);
    assert_eq!(parser.push("> <tool"), [text(">")]);
    assert_eq!(parser.push("s>"), [text(" <tools>")]);
    let mut parser = AnswerParser::new(None, false, None);
    assert_eq!(parser.push("a <tool_call> \n"), [text("a <tool_call> \n")]);
    // Arguments go out as they come.
    let mut parser = AnswerParser::new(None, false, Some((&tagged(), &tools)));
    assert_eq!(parser.push("<tool_call>{\"name\": \"get_weather\""), [call(0, "get_weather")]);
    assert_eq!(parser.push(", \"arguments\": {\"ci"), [arguments(0, "{\"ci")]);
    assert_eq!(parser.push("ty\": \"P"), [arguments(0, "ty\": \"P")]);
}

/// What answers are made of.
const PARTS: [&str; 34] = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<think>",
    "</think>",
    "<|python_tag|>",
    "{",
    "}",
    "[",
    "]",
    "\"name\"",
    "\"arguments\"",
    "\"parameters\"",
    ":",
    ",",
    ";",
    "\"get_time\"",
    "get_time",
    "\"",
    "\\",
    " ",
    "\n",
    "é🔵",
    "1",
    "<",
    "```",
    "```json\n",
    "<function=get_time>",
    "<function=get_weather>",
    "<parameter=city>",
    "<parameter=days>",
    "</parameter>",
    "</function>",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_is_read_alike_however_it_is_cut(
        parts in proptest::collection::vec(0..PARTS.len(), 0..24), format in 0..5_usize, open in any::<bool>(), step in 1..9_usize,
    ) {
        let answer: String = parts.iter().map(|&part| PARTS[part]).collect();
        let format = [tagged(), list(), named(), bare(), elements()][format].clone();
        let whole = read(&format, open, [answer.as_str()]);
        let characters: Vec<String> = answer.chars().map(String::from).collect();
        let chunks: Vec<String> = characters.chunks(step).map(|chunk| chunk.concat()).collect();
        prop_assert_eq!(&whole, &read(&format, open, chunks.iter().map(String::as_str)), "{:?}", answer);
        // Nothing is made up, and without calls nothing but marks and whitespace around them is lost.
        for piece in &whole {
            if let Piece::Text(text) | Piece::Thought(text) = piece {
                prop_assert!(answer.contains(text.as_str()) || whole.len() > 1, "{:?} of {:?}", text, answer);
            }
        }
        let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        if let [Piece::Text(text)] = &whole[..] && !open && !bare(&answer).starts_with("<think>") {
            prop_assert_eq!(bare(text), bare(&answer));
        }
    }
}
