use std::time::Duration;

use super::*;

fn render(source: &str, messages: &[Message], options: &RenderOptions) -> Result<String, FormatError> {
    ChatTemplate::new(source)?.render(messages, options)
}

fn plain(source: &str) -> String {
    render(source, &[], &RenderOptions::default()).unwrap()
}

#[test]
fn whitespace_is_that_of_trim_blocks_and_lstrip_blocks() {
    assert_eq!(plain("a\n    {% if true %}\nb\n    {% endif %}\nc\n"), "a\nb\nc");
}

#[test]
fn values_print_as_in_python() {
    assert_eq!(plain("{{ [true, none, 1.0, 'x'] }} {{ false }}"), "[True, None, 1.0, 'x'] False");
    assert_eq!(plain("{{ 'a' + '<&>' }}{{ tools }}{{ undefined_thing }}"), "a<&>None");
}

#[test]
fn loop_controls_methods_and_generation_tags_work() {
    let source = "{% for x in ['a ', 'b', 'c'] %}{% if x == 'b' %}{% continue %}{% endif %}{{ x.strip()|upper }}{% endfor %}";
    assert_eq!(plain(source), "AC");
    assert_eq!(plain("x {%- generation %} y {% endgeneration -%} z"), "x y z");
}

#[test]
fn messages_keep_their_extra_fields() {
    let message: Message =
        serde_json::from_str(r#"{"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}"#)
            .unwrap();
    let source =
        "{% for m in messages %}{{ m.role }} {{ m['tool_calls'][0].name }} {{ m|tojson }}{% endfor %}";
    assert_eq!(
        render(source, &[message], &RenderOptions::default()).unwrap(),
        r#"assistant f {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}"#
    );
}

#[test]
fn tokens_tools_and_variables_reach_the_template() {
    let options = RenderOptions {
        add_generation_prompt: true,
        bos_token: Some("<s>".into()),
        tools: vec![serde_json::json!({"type": "function", "a": 1})],
        variables: serde_json::Map::from_iter([("enable_thinking".to_owned(), false.into())]),
        ..RenderOptions::default()
    };
    let source = "{{ bos_token }}{{ eos_token is defined }}{{ tools[0]|tojson }}{{ enable_thinking }}{{ add_generation_prompt }}";
    assert_eq!(render(source, &[], &options).unwrap(), r#"<s>False{"type": "function", "a": 1}FalseTrue"#);
}

#[test]
fn the_time_is_the_one_given_or_unknown() {
    let source =
        "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y %H:%M') }}{% else %}no clock{% endif %}";
    assert_eq!(plain(source), "no clock");
    let options = RenderOptions {
        now: Some(UNIX_EPOCH + Duration::from_secs(1_709_210_096)),
        ..RenderOptions::default()
    };
    assert_eq!(render(source, &[], &options).unwrap(), "29 Feb 2024 12:34");
    let error = render("{{ strftime_now('%Q') }}", &[], &options).unwrap_err();
    assert!(error.to_string().contains("unknown format"), "{error}");
}

#[test]
fn a_refusal_is_told_in_the_templates_words() {
    let error =
        render("{{ raise_exception('Roles must alternate') }}", &[], &RenderOptions::default()).unwrap_err();
    assert!(
        matches!(&error, FormatError::TemplateRefused(text) if text == "Roles must alternate"),
        "{error:?}"
    );
    let nested = "{% macro f() %}{{ raise_exception('no') }}{% endmacro %}{{ f() }}";
    let error = render(nested, &[], &RenderOptions::default()).unwrap_err();
    assert!(matches!(&error, FormatError::TemplateRefused(text) if text == "no"), "{error:?}");
}

#[test]
fn syntax_errors_name_the_place() {
    let error = ChatTemplate::new("{% for x in %}").unwrap_err();
    assert!(matches!(error, FormatError::TemplateSyntax(_)));
    assert!(error.to_string().contains("line 1") || error.to_string().contains(":1"), "{error}");
}

#[test]
fn hostile_templates_are_stopped() {
    let endless = "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}{% endfor %}{% endfor %}";
    let bomb = "{% set ns = namespace(x='0123456789') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    let multiplied = "{{ 'x' * 10000000000 }}";
    let recursive = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    let nested = "[".repeat(100_000);
    let padded = "{{ 'x'|indent(1000000000, true) }}";
    let json = "{% set ns = namespace(x=[1]) %}{% for i in range(30) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}";
    for source in [endless, bomb, multiplied, recursive, &format!("{{{{ {nested} }}}}"), padded, json] {
        let error = render(source, &[], &RenderOptions::default()).unwrap_err();
        let is_ours = matches!(error, FormatError::TemplateRender(_) | FormatError::TemplateSyntax(_));
        assert!(is_ours, "{error:?}");
    }
}

#[test]
fn endlessly_nested_values_do_not_exhaust_the_stack() {
    let brackets = 60;
    for (open, close, rounds) in [("[", "]", 9_500), ("{'a': ", "}", 4_500)] {
        let nested = format!("{}ns.x{}", open.repeat(brackets), close.repeat(brackets));
        let body = format!("{{% set ns.x = {nested} %}}");
        let source =
            format!("{{% set ns = namespace(x=1) %}}{{% for i in range({rounds}) %}}{body}{{% endfor %}}");
        assert_eq!(plain(&source), "", "the fuel should suffice");
        // Printing, serialising and comparing walk the whole depth; whether the fuel lasts is not the point.
        for end in ["{{ ns.x }}", "{{ ns.x|tojson }}", "{{ ns.x == [ns.x] }}", "{{ {ns.x: 1} is mapping }}"] {
            let _ = render(&format!("{source}{end}"), &[], &RenderOptions::default());
        }
    }
}

#[test]
fn there_are_no_files_to_include() {
    for source in ["{% include '/etc/passwd' %}", "{% extends 'x' %}", "{% import 'x' as y %}"] {
        assert!(render(source, &[], &RenderOptions::default()).is_err(), "{source}");
    }
}
