//! What Jinja2 does and minijinja does differently, as far as chat templates depend on it.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, State};

/// Puts Jinja2's behaviour in place of minijinja's.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_test("iterable", is_iterable);
    environment.add_filter("indent", indent);
}

/// `x is iterable`; minijinja says so of `none`, whose length it then refuses to tell.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && (value.kind() == ValueKind::Undefined || value.try_iter().is_ok())
}

/// `text|indent(width=4, first=false, blank=false)`; minijinja drops a line feed at the end.
fn indent(
    state: &State,
    text: &str,
    width: Option<usize>,
    first: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let width = width.or(options.get("width")?).unwrap_or(4);
    let first = first.or(options.get("first")?).unwrap_or(false);
    let blank = options.get::<Option<bool>>("blank")?.unwrap_or(false);
    options.assert_all_used()?;
    let text = text.replace("\r\n", "\n");
    let lines = text.split('\n').count();
    let length = width.saturating_mul(lines).saturating_add(text.len());
    // Paid for before it is made.
    state.consume_fuel(length as u64 / 64)?;
    let spaces = " ".repeat(width);
    let mut out = String::with_capacity(length);
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        if if number == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&spaces);
        }
        out.push_str(line);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> String {
        let mut environment = Environment::new();
        install(&mut environment);
        environment.render_str(source, ()).unwrap()
    }

    #[test]
    fn indentation_is_jinjas() {
        // Made with Jinja2.
        assert_eq!(render(r"{{ '{\n'|indent(4, first=true) }}|"), "    {\n|");
        assert_eq!(
            render(r"{{ 'a\n\nb'|indent(2) }}|{{ 'a\n\nb'|indent(2, true) }}|"),
            "a\n\n  b|  a\n\n  b|"
        );
        assert_eq!(
            render(r"{{ 'a\n\n'|indent(width=2, blank=true) }}|{{ ''|indent(2, true) }}|"),
            "a\n  \n  |  |"
        );
    }

    #[test]
    fn none_and_numbers_are_not_iterable() {
        let source = "{% for x in [none, 1, true, 'a', [], {}, nowhere] %}{{ x is iterable }} {% endfor %}";
        assert_eq!(render(source), "False False False True True True True ");
    }
}
