//! A grammar of ours as grammars of `llguidance`, which refer to each other by name.

use std::fmt::Write as _;

use llguidance::api::{GrammarInit, GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::panic_utils;
use serde_json::{Map, Value, json};
use toktrie::TokenId;

use super::compiler::{MAX_TEXT, invalid};
use super::schema::{Schemas, is_annotation};
use super::vocabulary::Vocabulary;
use super::{ConstraintError, Grammar};
use crate::tools::{Shape, ThinkFormat, Tool, ToolFormat, ToolGrammar, is_plain_text, is_tool_name};

/// Between the parts of JSON: nothing, a space, or a new line with its indentation, so that whitespace has an end.
const WHITESPACE: &str = r"\x20|\x0D?\x0A[\x20\x09]{0,40}";
/// Escapes in strings. Without `\u`, every text is written in one way, and a key cannot be spelled past what forbids it.
const ESCAPES: &str = "nrbtf\\\"";
/// Between the marks of calls and thoughts and what they enclose.
const GAP: &str = r"GAP: /[ \n]{1,3}/";
/// Between the parts of a call.
const SPACE: &str = r"[ \n]{0,8}";

/// The grammars of one answer.
pub(super) struct Parts<'a> {
    vocabulary: &'a Vocabulary,
    grammars: Vec<GrammarWithLexer>,
    signs: Vec<TokenId>,
}

impl Parts<'_> {
    /// The grammars, the first of which is where an answer starts, and the control tokens in them.
    pub(super) fn of(
        grammar: &Grammar,
        vocabulary: &Vocabulary,
    ) -> Result<(Vec<GrammarWithLexer>, Vec<TokenId>), ConstraintError> {
        let mut parts = Parts { vocabulary, grammars: Vec::new(), signs: Vec::new() };
        let start = parts.add(grammar, None)?;
        parts.grammars.swap(0, start);
        Ok((parts.grammars, parts.signs))
    }

    /// Adds a grammar and all it consists of; gives its place. What may stand in front of it is no text of its own.
    fn add(&mut self, grammar: &Grammar, front: Option<&str>) -> Result<usize, ConstraintError> {
        match grammar {
            Grammar::JsonObject => self.schema(&json!({"type": "object"})),
            Grammar::JsonSchema(schema) => self.schema(schema),
            Grammar::Regex(pattern) => {
                check_length("a regular expression", pattern)?;
                Ok(self.push(GrammarWithLexer::from_regex(pattern)))
            }
            Grammar::Lark(text) => {
                check_length("a grammar", text)?;
                self.check_foreign(text)?;
                Ok(self.lark(text.clone()))
            }
            Grammar::Tools(tools) => self.tools(tools, front),
            Grammar::Thinking { format, open, answer } => {
                let answer = self.add(answer, Some(&format.begin).filter(|_| !open).map(String::as_str))?;
                Ok(self.thinking(format, *open, answer))
            }
        }
    }

    /// Adds one under a name of its own.
    fn push(&mut self, mut grammar: GrammarWithLexer) -> usize {
        let place = self.grammars.len();
        grammar.name = Some(format!("g{place}"));
        self.grammars.push(grammar);
        place
    }

    fn lark(&mut self, text: String) -> usize {
        self.push(GrammarWithLexer::from_lark(text))
    }

    fn schema(&mut self, schema: &Value) -> Result<usize, ConstraintError> {
        let mut schemas = Schemas::default();
        let read = schemas.add(schema)?;
        Ok(self.push(GrammarWithLexer::from_json_schema(schemas.finish(read, options()))))
    }

    /// Refuses a grammar of strangers that speaks of tokens, or that brings schemas or settings past those read here.
    fn check_foreign(&self, text: &str) -> Result<(), ConstraintError> {
        for word in ["%json", "%llguidance"] {
            if text.contains(word) {
                return Err(invalid("the grammar", &format!("`{word}` is not supported in it")));
            }
        }
        let alone = GrammarInit::Serialized(TopLevelGrammar::from_lark(text.to_owned()));
        let environment = self.vocabulary.environment.clone();
        let read = panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
            alone.to_internal(Some(environment), ParserLimits::default())
        }));
        let (_, lexemes) = read.map_err(|error| invalid("the grammar", &error))?;
        match lexemes.special_token_rx {
            Some(_) => Err(invalid("the grammar", &"tokens by name or number are not supported in it")),
            None => Ok(()),
        }
    }

    /// A mark in a grammar: the control token of this text if there is one, and the text otherwise.
    fn mark(&mut self, text: &str) -> String {
        match self.vocabulary.control(text) {
            Some(id) => {
                self.signs.push(id);
                format!("<[{id}]>")
            }
            None => quoted(text),
        }
    }

    /// What is thought, then the answer at a place.
    fn thinking(&mut self, format: &ThinkFormat, open: bool, answer: usize) -> usize {
        let (begin, end) = (self.mark(&format.begin), self.mark(&format.end));
        let mut text = match open {
            true => format!("start: thought GAP? @g{answer}\n"),
            false => format!("start: ({begin} thought GAP?)? @g{answer}\n"),
        };
        let _ = writeln!(text, "{GAP}");
        text.push_str(&match self.vocabulary.control(&format.end) {
            Some(_) => format!("thought: /(?s:.*)/ {end}\n"),
            None => format!("thought[suffix={end}]: /(?s:.*)/\n"),
        });
        self.lark(text)
    }

    fn tools(&mut self, grammar: &ToolGrammar, front: Option<&str>) -> Result<usize, ConstraintError> {
        let format = &grammar.format;
        // They become parts of expressions.
        let mut words = grammar.tools.iter().map(|tool| &tool.name).chain([&format.name, &format.arguments]);
        if let Some(word) = words.find(|word| !is_tool_name(word)) {
            return Err(invalid("`tools`", &format!("`{}` is no name of a function", word.escape_debug())));
        }
        let otherwise = grammar.otherwise.as_ref().map(|other| self.add(other, None)).transpose()?;
        let begin = self.mark(&format.begin);
        let end =
            if format.end.is_empty() { String::new() } else { format!(" GAP? {}", self.mark(&format.end)) };
        let mut text = format!("{GAP}\n");
        match &format.shape {
            Shape::Object => text.push_str(&self.objects(grammar, &end)?),
            Shape::Elements => text.push_str(&self.elements(grammar, &end)?),
            Shape::List => {
                let calls = self.list(grammar)?;
                let _ = writeln!(text, "call: @g{calls}{end}");
            }
            Shape::Named(between) => {
                let between = self.mark(between);
                let each = self.each(grammar, |_, tool, arguments| {
                    format!("{} {between} GAP? @g{arguments}{end}", quoted(&tool.name))
                })?;
                let _ = writeln!(text, "call: {each}");
            }
        }
        let more = match format.shape {
            Shape::Object | Shape::Named(_) | Shape::Elements if grammar.parallel => {
                format!(" (GAP? {begin} GAP? call)*")
            }
            _ => String::new(),
        };
        // Everything behind the first `begin`, to the end of the answer.
        let _ = writeln!(text, "rest: GAP? call{more} GAP?");
        text.push_str(&self.start(grammar, &begin, otherwise, front));
        Ok(self.lark(text))
    }

    /// Rules for calls that are objects: `call` behind a mark, and `unmarked`, which is told from other text by its first
    /// part as a whole.
    fn objects(&mut self, grammar: &ToolGrammar, end: &str) -> Result<String, ConstraintError> {
        let ToolFormat { name, arguments, .. } = &grammar.format;
        let mut heads = String::new();
        for (index, tool) in grammar.tools.iter().enumerate() {
            let head = format!("\\{{{SPACE}\"{name}\"{SPACE}:{SPACE}\"{}\"", tool.name);
            let _ = writeln!(heads, "HEAD{index}: /{head}/\nFIRST{index}: /(```(json)?{SPACE})?{head}/");
        }
        let each = self.each(grammar, |index, _, arguments| format!("HEAD{index} NEXT @g{arguments}"))?;
        let first = each.replace("HEAD", "FIRST");
        let more = if grammar.parallel { " (\";\" GAP? object)*" } else { "" };
        Ok(format!(
            "{heads}NEXT: /{SPACE},{SPACE}\"{arguments}\"{SPACE}:{SPACE}/\nCLOSE: /{SPACE}\\}}/\nFENCE: /{SPACE}```/\n\
             object: ({each}) CLOSE\ncall: object{end}\nunmarked: ({first}) CLOSE{more} FENCE? GAP?\n"
        ))
    }

    /// Rules for calls as elements.
    fn elements(&mut self, grammar: &ToolGrammar, end: &str) -> Result<String, ConstraintError> {
        let (mut rules, mut calls) = (String::new(), Vec::with_capacity(grammar.tools.len()));
        for (index, tool) in grammar.tools.iter().enumerate() {
            // The whole is read for what is wrong with it.
            read(&mut Schemas::default(), tool)?;
            let wrong = |problem: String| {
                Err(ConstraintError::Schema { at: format!("function `{}`", tool.name), problem })
            };
            let keys = ["type", "properties", "required", "additionalProperties"];
            let map = tool.parameters.as_object().into_iter().flatten();
            if let Some((key, _)) =
                map.clone().find(|(key, _)| !keys.contains(&key.as_str()) && !is_annotation(key))
            {
                return wrong(format!(
                    "`{key}` beside the properties cannot be honoured in this model's calls"
                ));
            }
            let nothing = Map::new();
            let properties = tool.parameters.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
            let required =
                tool.parameters.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            if let Some(name) =
                required.iter().filter_map(Value::as_str).find(|name| !properties.contains_key(*name))
            {
                return wrong(format!("`{}` is required and not among the properties", name.escape_debug()));
            }
            let mut call = quoted(&format!("<function={}>", tool.name));
            for (at, (key, schema)) in properties.iter().enumerate() {
                if key.len() > 200 || key.contains(['>', '\n']) {
                    return wrong(format!(
                        "the property `{}` cannot be named in this model's calls",
                        key.escape_debug()
                    ));
                }
                let must = if required.iter().any(|name| name == key) { "" } else { "?" };
                let _ = write!(call, " GAP? p{index}_{at}{must}");
                let opening = quoted(&format!("<parameter={key}>"));
                let value = self.element(tool, schema, &format!("v{index}_{at}"), &mut rules)?;
                let _ = writeln!(rules, "p{index}_{at}: {opening} {value}");
            }
            calls.push(format!("{call} GAP? \"</function>\""));
        }
        let _ = writeln!(rules, "call: ({}){end}", calls.join("\n    | "));
        Ok(rules)
    }

    /// An argument and the end of its element.
    fn element(
        &mut self,
        tool: &Tool,
        schema: &Value,
        name: &str,
        rules: &mut String,
    ) -> Result<String, ConstraintError> {
        const END: &str = "\"</parameter>\"";
        if !is_plain_text(schema) {
            let mut schemas = Schemas::default();
            let read = schemas.add_within(&tool.parameters, schema)?;
            let value = self.push(GrammarWithLexer::from_json_schema(schemas.finish(read, options())));
            return Ok(format!("GAP? @g{value} GAP? {END}"));
        }
        if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
            let choices: Vec<String> = choices.iter().filter_map(Value::as_str).map(quoted).collect();
            return Ok(format!("\"\\n\"? ({}) \"\\n\"? {END}", choices.join(" | ")));
        }
        let _ = writeln!(rules, "{name}[suffix={END}]: /(?s:.*)/");
        Ok(name.to_owned())
    }

    /// Alternatives, one for each function.
    fn each(
        &mut self,
        grammar: &ToolGrammar,
        write: impl Fn(usize, &Tool, usize) -> String,
    ) -> Result<String, ConstraintError> {
        let mut each = Vec::with_capacity(grammar.tools.len());
        for (index, tool) in grammar.tools.iter().enumerate() {
            let arguments = self.arguments(tool)?;
            each.push(write(index, tool, arguments));
        }
        Ok(each.join("\n    | "))
    }

    /// Where an answer starts: with a call, or with text up to one.
    fn start(
        &self,
        grammar: &ToolGrammar,
        begin: &str,
        otherwise: Option<usize>,
        front: Option<&str>,
    ) -> String {
        let format = &grammar.format;
        // A model that must call is led by the mark, and another form may begin like a call without it.
        let is_object = format.bare && format.shape == Shape::Object;
        let alone = is_object && (format.end.is_empty() || !grammar.required) && otherwise.is_none();
        let called = format!("{begin} rest{}", if alone { " | unmarked" } else { "" });
        if grammar.required {
            return format!("start: GAP? ({called})\n");
        }
        if let Some(other) = otherwise {
            return format!("start: {called} | @g{other}\n");
        }
        // What begins as thoughts or as a call, and what contains the mark of a call, is no other text.
        let is_text = |mark: &str| self.vocabulary.control(mark).is_none();
        let mut not_first = String::new();
        if let Some(mark) = front.filter(|mark| is_text(mark)) {
            let _ = write!(not_first, " & ~({} /(?s:.*)/)", quoted(mark));
        }
        if is_object {
            let names: Vec<&str> = grammar.tools.iter().map(|tool| tool.name.as_str()).collect();
            let (key, names) = (&format.name, names.join("|"));
            let _ = write!(
                not_first,
                " & ~(/\\s*(```(json)?\\s*)?\\{{\\s*\"{key}\"\\s*:\\s*\"({names})\"(?s:.*)/)"
            );
        }
        let mut except = not_first.clone();
        if is_text(&format.begin) {
            let _ = write!(except, " & ~(/(?s:.*)/ {begin} /(?s:.*)/)");
        }
        let lead = match is_text(&format.begin) {
            true => format!("lead[suffix={begin}]: /(?s:.*)/{not_first}\n"),
            false => format!("lead: TEXT {begin}\n"),
        };
        let alone = if alone { " | unmarked" } else { "" };
        format!("start: lead rest{alone} | TEXT\n{lead}TEXT: /(?s:.*)/{except}\n")
    }

    /// The list of calls.
    fn list(&mut self, grammar: &ToolGrammar) -> Result<usize, ConstraintError> {
        let format: &ToolFormat = &grammar.format;
        let mut schemas = Schemas::default();
        let mut options = Vec::with_capacity(grammar.tools.len());
        for tool in &grammar.tools {
            let arguments = read(&mut schemas, tool)?;
            options.push(json!({
                "type": "object",
                "properties": {&format.name: {"const": tool.name}, &format.arguments: arguments},
                "required": [format.name, format.arguments],
                "additionalProperties": false,
            }));
        }
        let mut list = json!({"type": "array", "items": {"anyOf": options}, "minItems": 1});
        if !grammar.parallel {
            list["maxItems"] = json!(1);
        }
        Ok(self.push(GrammarWithLexer::from_json_schema(schemas.finish(list, self::options()))))
    }

    /// The arguments of one function.
    fn arguments(&mut self, tool: &Tool) -> Result<usize, ConstraintError> {
        let mut schemas = Schemas::default();
        let arguments = read(&mut schemas, tool)?;
        Ok(self.push(GrammarWithLexer::from_json_schema(schemas.finish(arguments, options()))))
    }
}

/// A function's parameters; what is wrong with them names it.
fn read(schemas: &mut Schemas, tool: &Tool) -> Result<Value, ConstraintError> {
    let mut parameters = tool.parameters.clone();
    let kind = match &mut parameters {
        Value::Object(map) => map.entry("type").or_insert_with(|| "object".into()) == "object",
        _ => false,
    };
    if !kind {
        let at = format!("function `{}`", tool.name);
        let problem = "parameters are an object: `\"type\": \"object\"` is expected".to_owned();
        return Err(ConstraintError::Schema { at, problem });
    }
    schemas.add(&parameters).map_err(|error| match error {
        ConstraintError::Schema { at, problem } => {
            ConstraintError::Schema { at: format!("function `{}`, {at}", tool.name), problem }
        }
        other => other,
    })
}

/// How JSON is written.
fn options() -> Value {
    json!({"whitespace_pattern": WHITESPACE, "json_allowed_escapes": ESCAPES})
}

fn check_length(what: &'static str, text: &str) -> Result<(), ConstraintError> {
    if text.len() > MAX_TEXT {
        let problem = format!("{} bytes; at most {MAX_TEXT} are supported", text.len());
        return Err(ConstraintError::TooLarge { what, problem });
    }
    Ok(())
}

/// A text as a grammar's literal.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
