//! The only place that prints: results to stdout, everything for people to stderr.

use std::fmt::{self, Display};
use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

/// Nobody reads stdout any more (`| head`): no failure, and nothing more to do.
#[derive(Debug)]
pub(crate) struct Closed;

impl Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl std::error::Error for Closed {}

/// Writes to stdout at once.
pub(crate) fn text(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        Err(error) => Err(error).context("cannot write to stdout"),
    }
}

/// Writes lines for people to stdout. Control characters in them are escaped, see [`one_line`].
pub(crate) fn line(lines: impl Display) -> Result<()> {
    text(&format!("{}\n", escaped(&lines.to_string(), "\n\t")))
}

/// Writes one JSON object to stdout, as one line.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    text(&format!("{}\n", serde_json::to_string(value).context("cannot write JSON")?))
}

/// Writes text for people to stderr. Control characters in it are escaped, see [`one_line`].
pub(crate) fn note(text: impl Display) {
    // If stderr is gone, there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{}", escaped(&text.to_string(), "\n\t"));
}

/// Draws on stderr: text of our own, which the terminal shall obey.
pub(crate) fn draw(text: &str) {
    // If stderr is gone, there is nobody to show it to.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A text from a file, such as a model's name, on one line: control characters are escaped, since a terminal would
/// obey them.
pub(crate) fn one_line(text: &str) -> String {
    escaped(text, "")
}

/// A text whose control characters, but for `kept`, are written as in Rust: `\u{1b}`.
fn escaped(text: &str, kept: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !kept.contains(c) {
            result.extend(c.escape_default());
        } else {
            result.push(c);
        }
    }
    result
}

/// Writes an error and its causes to stderr.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("error: {}", with_causes(error)));
}

/// An error with its causes, but for those that its own text tells already.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

/// Columns of text, the first `left` of them aligned left and the others right.
pub(crate) struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<const N: usize>(left: usize, headings: [&str; N]) -> Table {
        Table { left, rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Appends a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl Display for Table {
    /// Lines without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column < self.left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let end = if index + 1 < self.rows.len() { "\n" } else { "" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, escaped, one_line, with_causes};

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("it is full").context("cannot write: it is full").context("no answer");
        assert_eq!(with_causes(&error), "no answer: cannot write: it is full");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\n\r\u{9b}c 中文 é"), "a\\u{1b}[2Jb\\n\\r\\u{9b}c 中文 é");
        assert_eq!(escaped("a\tb\n\x07", "\n\t"), "a\tb\n\\u{7}");
    }

    #[test]
    fn tables_line_up() {
        let mut table = Table::new(1, ["name", "bytes"]);
        table.row(["a longer name".into(), "7".into()]);
        table.row(["ü".into(), "123456".into()]);
        let lines = ["name            bytes", "a longer name       7", "ü              123456"];
        assert_eq!(table.to_string(), lines.join("\n"));
    }
}
