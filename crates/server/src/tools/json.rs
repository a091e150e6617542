//! Calls read as they come, character by character.

use super::{Shape, Tool, ToolFormat};

/// What has become known of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A call of this function begins.
    Name(String),
    /// More of its arguments.
    Arguments(String),
}

/// How reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All was read; more must come.
    More,
    /// The calls have ended.
    Done,
    /// This is no call.
    Failed,
}

/// Names are shorter than this, with whatever stands around them.
const MAX_NAME: usize = 256;

/// Reads what follows the mark of a call.
#[derive(Clone, Debug)]
pub(super) struct CallReader {
    format: ToolFormat,
    names: Vec<String>,
    unmarked: bool,
    place: Place,
    in_list: bool,
    /// Whether a call was read whole.
    any: bool,
    /// All since the mark, until it is certain that this is a call.
    raw: String,
    object: Object,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// An object, a list or a name.
    Open,
    /// A name, up to the text between.
    Name,
    /// A key, or the end of the object.
    Key,
    /// The rest of a key.
    InKey,
    /// The colon behind it.
    Colon,
    /// The first character of a value.
    Value,
    /// The rest of a value.
    Within,
    /// A comma, or the end of the object.
    Behind,
    /// A comma, the end of the list, the mark of the end, or nothing.
    Between,
}

/// What is known of the call being read.
#[derive(Clone, Debug, Default)]
struct Object {
    /// The key whose value is read.
    key: String,
    /// The string or value being read, unless it goes out as it comes.
    text: String,
    name: Option<String>,
    /// Arguments that came before the name.
    early: Option<String>,
    has_arguments: bool,
    scan: Scan,
}

/// A JSON value up to its end.
#[derive(Clone, Debug, Default)]
struct Scan {
    is_object: bool,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Whether the value, which is a string, object or list, ends with this character.
    fn ends_with(&mut self, c: char) -> bool {
        if self.in_string {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_string = false,
                _ => {}
            }
        } else {
            match c {
                '"' => self.in_string = true,
                '{' | '[' => self.depth += 1,
                '}' | ']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        !self.in_string && self.depth == 0
    }
}

type Sink<'a> = &'a mut dyn FnMut(Event);

/// How many bytes were understood, and how it stands if it does not simply go on.
type Read = (usize, Option<Step>);

const FAILED: Read = (0, Some(Step::Failed));

impl CallReader {
    /// `mark` is what has been read of the call so far; without a proper mark, only what looks like a call from its first key
    /// on is one.
    pub(super) fn new(format: ToolFormat, tools: &[Tool], mark: String, unmarked: bool) -> CallReader {
        let place = if matches!(format.shape, Shape::Named(_)) { Place::Name } else { Place::Open };
        CallReader {
            format,
            names: tools.iter().map(|tool| tool.name.clone()).collect(),
            unmarked,
            place,
            in_list: false,
            any: false,
            raw: mark,
            object: Object::default(),
        }
    }

    /// What was read as a call and is none, once the answer ends.
    pub(super) fn into_text(self) -> Option<String> {
        (self.object.name.is_none() && self.place != Place::Between).then_some(self.raw)
    }

    /// Reads on; gives how many bytes were understood, and with [`Step::Failed`] leaves what was no call in `raw`.
    pub(super) fn read(&mut self, text: &str, sink: Sink<'_>) -> (usize, Step) {
        let mut fragment = String::new();
        let mut used = 0;
        let step = loop {
            let rest = &text[used..];
            let Some(c) = rest.chars().next() else { break Step::More };
            let (length, step) = match self.place {
                Place::Between => self.between(rest, c),
                Place::Name => self.name(rest, sink),
                _ => self.next(c, &mut fragment, sink),
            };
            used += length;
            if self.object.name.is_some()
                || self.place == Place::Between
                || (self.any && self.place == Place::Open)
            {
                self.raw.clear();
            } else {
                self.raw.push_str(&rest[..length]);
            }
            if let Some(step) = step {
                break step;
            }
        };
        if !fragment.is_empty() {
            sink(Event::Arguments(fragment));
        }
        (used, step)
    }

    /// What was read and is no call.
    pub(super) fn take_raw(&mut self) -> String {
        std::mem::take(&mut self.raw)
    }

    /// After a call.
    fn between(&mut self, rest: &str, c: char) -> Read {
        if c.is_whitespace() {
            return (c.len_utf8(), None);
        }
        if self.in_list {
            match c {
                ',' => self.place = Place::Open,
                ']' => self.in_list = false,
                _ => return FAILED,
            }
            return (1, None);
        }
        let end = &self.format.end;
        if !end.is_empty() && rest.starts_with(end.as_str()) {
            return (end.len(), Some(Step::Done));
        }
        if end.starts_with(rest) {
            return (0, Some(Step::More));
        }
        let is_object = self.format.shape == Shape::Object;
        match c {
            ';' if is_object => (1, None),
            '{' if is_object => {
                self.place = Place::Open;
                (0, None)
            }
            _ => (0, Some(Step::Done)),
        }
    }

    /// A name up to the text behind it.
    fn name(&mut self, rest: &str, sink: Sink<'_>) -> Read {
        let Shape::Named(between) = &self.format.shape else { return FAILED };
        let Some(at) = rest.find(between.as_str()) else {
            return if rest.len() > MAX_NAME { FAILED } else { (0, Some(Step::More)) };
        };
        // Some write an id of their own behind the name.
        let name = rest[..at].split("[CALL_ID]").next().unwrap_or_default().trim();
        let length = at + between.len();
        if !self.announce(name.to_owned(), sink) {
            return FAILED;
        }
        self.object.key = self.format.arguments.clone();
        self.place = Place::Value;
        (length, None)
    }

    /// A function's name has been read. Whether there is such a function.
    fn announce(&mut self, name: String, sink: Sink<'_>) -> bool {
        if self.object.name.is_some() || !self.names.contains(&name) {
            return false;
        }
        sink(Event::Name(name.clone()));
        self.object.name = Some(name);
        if let Some(arguments) = self.object.early.take() {
            sink(Event::Arguments(arguments));
        }
        true
    }

    /// The next character within a call.
    fn next(&mut self, c: char, fragment: &mut String, sink: Sink<'_>) -> Read {
        let one = (c.len_utf8(), None);
        let is_blank = c.is_whitespace();
        match self.place {
            Place::Key | Place::InKey | Place::Within => {}
            _ if is_blank => return one,
            _ => {}
        }
        match (self.place, c) {
            (Place::Open, '{') => {
                self.object = Object::default();
                self.place = Place::Key;
            }
            (Place::Open, '[') if self.format.shape == Shape::List && !self.in_list => self.in_list = true,
            (Place::Key, _) if is_blank => {}
            (Place::Key, '"') => {
                self.object.begin(c);
                self.place = Place::InKey;
            }
            (Place::InKey, _) => {
                if self.object.goes_on(c) {
                    let Ok(key) = serde_json::from_str::<String>(&self.object.text) else { return FAILED };
                    let own = [&self.format.name, &self.format.arguments, "type", "id"];
                    if self.unmarked && !own.contains(&key.as_str()) {
                        return FAILED;
                    }
                    self.object.key = key;
                    self.place = Place::Colon;
                }
            }
            (Place::Colon, ':') => self.place = Place::Value,
            (Place::Value, _) => return self.value(c, fragment),
            (Place::Within, _) => return self.within(c, fragment, sink),
            (Place::Behind, ',') => self.place = Place::Key,
            (Place::Key | Place::Behind, '}') => return self.end(sink),
            _ => return FAILED,
        }
        one
    }

    /// The object ends.
    fn end(&mut self, sink: Sink<'_>) -> Read {
        if self.object.name.is_none() {
            return FAILED;
        }
        if !self.object.has_arguments {
            sink(Event::Arguments("{}".to_owned()));
        }
        self.object = Object::default();
        self.any = true;
        self.place = Place::Between;
        (1, None)
    }

    /// Whether the value being read goes out as it comes.
    fn streams(&self) -> bool {
        self.object.scan.is_object && self.object.key == self.format.arguments && self.object.name.is_some()
    }

    /// The first character of a value.
    fn value(&mut self, c: char, fragment: &mut String) -> Read {
        if matches!(self.format.shape, Shape::Named(_)) && c != '{' {
            return FAILED;
        }
        if !(matches!(c, '"' | '{' | '[' | '-') || c.is_ascii_alphanumeric()) {
            return FAILED;
        }
        self.object.begin(c);
        if self.streams() {
            fragment.push(c);
        }
        self.place = Place::Within;
        (1, None)
    }

    /// More of a value.
    fn within(&mut self, c: char, fragment: &mut String, sink: Sink<'_>) -> Read {
        let scan = &self.object.scan;
        // A number or a word ends in front of what follows it.
        if !scan.in_string && scan.depth == 0 {
            if matches!(c, ',' | '}') || c.is_whitespace() {
                return self.value_ends(0, fragment, sink);
            }
            self.object.text.push(c);
            return (c.len_utf8(), None);
        }
        if self.streams() {
            fragment.push(c);
            if self.object.scan.ends_with(c) {
                return self.value_ends(1, fragment, sink);
            }
        } else if self.object.goes_on(c) {
            return self.value_ends(1, fragment, sink);
        }
        (c.len_utf8(), None)
    }

    /// A value has been read whole, `length` bytes of it just now.
    fn value_ends(&mut self, length: usize, fragment: &mut String, sink: Sink<'_>) -> Read {
        let streamed = self.streams();
        if streamed {
            sink(Event::Arguments(std::mem::take(fragment)));
            self.object.has_arguments = true;
        }
        let text = std::mem::take(&mut self.object.text);
        self.place = Place::Behind;
        if matches!(self.format.shape, Shape::Named(_)) {
            return self.end(sink);
        }
        if self.object.key == self.format.name {
            let Ok(name) = serde_json::from_str::<String>(&text) else { return FAILED };
            if !self.announce(name, sink) {
                return FAILED;
            }
        } else if self.object.key == self.format.arguments && !streamed {
            // Some write arguments as a string of JSON.
            let arguments = match serde_json::from_str::<serde_json::Value>(&text) {
                Ok(serde_json::Value::String(inner)) => inner,
                Ok(serde_json::Value::Null) => "{}".to_owned(),
                _ => text,
            };
            self.object.has_arguments = true;
            match self.object.name {
                Some(_) => sink(Event::Arguments(arguments)),
                None => self.object.early = Some(arguments),
            }
        }
        (length, None)
    }
}

impl Object {
    /// Begins to read a string or value.
    fn begin(&mut self, c: char) {
        self.text = c.to_string();
        self.scan = Scan { is_object: c == '{', ..Scan::default() };
        self.scan.ends_with(c);
    }

    /// Reads more of it. Whether it ends here.
    fn goes_on(&mut self, c: char) -> bool {
        self.text.push(c);
        self.scan.ends_with(c)
    }
}
