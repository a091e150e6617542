//! Values as Python prints them: `str` at the outside, `repr` within lists and mappings.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, Output, State};

/// Deeper values are printed by the template engine, whose own recursion the stack is measured for.
const MAX_DEPTH: usize = 32;

/// Prints what stands between `{{` and `}}`.
pub(super) fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match text(state, value)? {
        Some(text) => out.write_str(&text).map_err(Error::from),
        None => minijinja::escape_formatter(out, state, value),
    }
}

/// `value|string`.
pub(super) fn string(state: &State, value: &Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::String {
        return Ok(value.clone());
    }
    Ok(Value::from(text(state, value)?.unwrap_or_else(|| value.to_string())))
}

/// The text of a value whose own is another than Python's: numbers with a fraction, and what may hold some.
fn text(state: &State, value: &Value) -> Result<Option<String>, Error> {
    match value.kind() {
        ValueKind::Number | ValueKind::Seq | ValueKind::Map => {
            let mut text = String::new();
            Ok(repr(state, value, 0, &mut text)?.then_some(text))
        }
        _ => Ok(None),
    }
}

/// Appends a value; says whether it could.
fn repr(state: &State, value: &Value, depth: usize, out: &mut String) -> Result<bool, Error> {
    // Paid for as it is made: a value that holds itself many times over may be small and its text endless.
    state.consume_fuel(1)?;
    if depth > MAX_DEPTH {
        return Ok(false);
    }
    match value.kind() {
        ValueKind::Number if !value.is_integer() => {
            let Ok(number) = f64::try_from(value.clone()) else { return Ok(false) };
            out.push_str(&float(number));
        }
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            state.consume_fuel(text.len() as u64 / 64)?;
            quote(text, out);
        }
        ValueKind::Seq => {
            out.push('[');
            for (place, item) in value.try_iter()?.enumerate() {
                out.push_str(if place > 0 { ", " } else { "" });
                if !repr(state, &item, depth + 1, out)? {
                    return Ok(false);
                }
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (place, key) in value.try_iter()?.enumerate() {
                out.push_str(if place > 0 { ", " } else { "" });
                if !repr(state, &key, depth + 1, out)? {
                    return Ok(false);
                }
                out.push_str(": ");
                if !repr(state, &value.get_item(&key)?, depth + 1, out)? {
                    return Ok(false);
                }
            }
            out.push('}');
        }
        ValueKind::Undefined | ValueKind::None | ValueKind::Bool | ValueKind::Number => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{value}");
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A text in quotes: single ones, unless it has such and no double ones.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == mark => out.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(mark);
}

/// The shortest digits that give the number back, laid out as Python's `repr` does: with an exponent of at least two
/// digits from 1e16 up and below 1e-4.
pub(super) fn float(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string().to_lowercase();
    }
    let scientific = format!("{value:e}");
    let exponent = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    match exponent {
        Some(exponent) if value != 0.0 && !(-4..16).contains(&exponent) => {
            let digits = scientific.split('e').next().unwrap_or_default();
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_laid_out_like_pythons() {
        let cases = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (value, expected) in cases {
            assert_eq!(float(value), expected);
        }
    }

    #[test]
    fn texts_are_quoted_like_pythons() {
        // Made with Python's repr.
        for (text, expected) in
            [("a", "'a'"), ("it's", "\"it's\""), ("'\"", "'\\'\"'"), ("a\n\\\u{1}é😀", "'a\\n\\\\\\x01é😀'")]
        {
            let mut out = String::new();
            quote(text, &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn values_print_as_python_prints_them() {
        let mut environment = minijinja::Environment::new();
        environment.set_formatter(format);
        environment.add_filter("string", string);
        let source = "{{ 1e20 }} {{ [1e20, 2, 'x', none, {'k': 1.5}] }} {{ 1e-7|string + 'x' }} {{ 'x'|string }}{{ nowhere }}";
        let printed = environment.render_str(source, ()).unwrap();
        assert_eq!(printed, "1e+20 [1e+20, 2, 'x', None, {'k': 1.5}] 1e-07x x");
    }
}
