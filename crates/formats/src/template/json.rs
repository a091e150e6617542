//! The `tojson` filter as `transformers` defines it: Python's `json.dumps` with non-ASCII characters kept and nothing
//! escaped for HTML. Models have seen exactly this text, down to the spaces.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind, State};
use serde::Serialize;
use serde_json::ser::Formatter;

use super::python;

/// `value|tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(super) fn tojson(state: &State, value: &Value, options: Kwargs) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "what is undefined cannot be serialized to JSON"));
    }
    let indent = match options.get::<Option<Value>>("indent")? {
        Some(indent) if !indent.is_none() => Some(usize::try_from(indent)?.min(64)),
        _ => None,
    };
    let (between, after_key) = match options.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => {
            (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string())
        }
        _ => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let style = PythonStyle {
        between,
        after_key,
        indent,
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        depth: 0,
        empty: true,
    };
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut text = write(state, &style, value)?;
    if sort_keys {
        let mut plain: serde_json::Value = serde_json::from_slice(&text).map_err(unserializable)?;
        plain.sort_all_objects();
        text = write(state, &style, &plain)?;
    }
    String::from_utf8(text).map(Value::from).map_err(|_| Error::new(ErrorKind::BadSerialization, "not UTF-8"))
}

fn write(state: &State, style: &PythonStyle, value: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut out = Charged { state, out: Vec::new() };
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, style.clone()));
    written.map_err(unserializable)?;
    Ok(out.out)
}

fn unserializable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::BadSerialization, "cannot serialize to JSON").with_source(error)
}

/// Pays fuel for text while it is written: a value that holds itself many times over may be small and its text
/// endless.
struct Charged<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    out: Vec<u8>,
}

impl Write for Charged<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.state.consume_fuel(1 + bytes.len() as u64 / 64).map_err(io::Error::other)?;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Separators, indentation and numbers as Python writes them.
#[derive(Clone)]
struct PythonStyle {
    between: String,
    after_key: String,
    indent: Option<usize>,
    ensure_ascii: bool,
    depth: usize,
    /// Whether the innermost list or object has no item yet.
    empty: bool,
}

impl PythonStyle {
    fn open<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &str) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        out.write_all(bracket.as_bytes())
    }

    fn item<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.between.as_bytes())?;
        }
        self.new_line(out)
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &str) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.new_line(out)?;
        }
        self.empty = false;
        out.write_all(bracket.as_bytes())
    }

    fn new_line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        match self.indent {
            Some(spaces) => write!(out, "\n{:1$}", "", spaces * self.depth),
            None => Ok(()),
        }
    }
}

impl Formatter for PythonStyle {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, "[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, "]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _out: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, "{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, "}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.after_key.as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _out: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        out.write_all(python::float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        if !self.ensure_ascii {
            return out.write_all(text.as_bytes());
        }
        for c in text.chars() {
            if c.is_ascii() {
                out.write_all(&[c as u8])?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(expression: &str, value: &serde_json::Value) -> String {
        let mut environment = minijinja::Environment::new();
        environment.add_filter("tojson", tojson);
        let context = minijinja::context! { x => Value::from(minijinja::value::Serde(value)) };
        environment.render_str(expression, context).unwrap()
    }

    #[test]
    fn output_is_that_of_python() {
        // Made with Python: json.dumps(x, ensure_ascii=False) and so on.
        let x = serde_json::json!({
            "b": [1, -2.5, true, null, [], {}, {"k": "v"}],
            "a": "é<>&'\"\\\n\u{1}\u{7f}😀",
        });
        assert_eq!(
            render("{{ x|tojson }}", &x),
            r#"{"b": [1, -2.5, true, null, [], {}, {"k": "v"}], "a": "é<>&'\"\\\n\u0001"#.to_owned()
                + "\u{7f}😀\"}"
        );
        assert_eq!(
            render("{{ x.b|tojson(indent=2) }}", &x),
            "[\n  1,\n  -2.5,\n  true,\n  null,\n  [],\n  {},\n  {\n    \"k\": \"v\"\n  }\n]"
        );
        assert_eq!(
            render("{{ x.a|tojson(ensure_ascii=true) }}", &serde_json::json!({"a": "é😀"})),
            r#""\u00e9\ud83d\ude00""#
        );
        assert_eq!(
            render(
                "{{ x|tojson(sort_keys=true, separators=(',', ':')) }}",
                &serde_json::json!({"b": [1, 2], "a": 0})
            ),
            r#"{"a":0,"b":[1,2]}"#
        );
    }
}
