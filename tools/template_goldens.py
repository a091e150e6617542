#!/usr/bin/env python3
"""Makes the chat template fixtures of crates/formats with Jinja2, set up as `transformers` sets it up.

    pip install jinja2 gguf
    python3 tools/template_goldens.py SmolLM2-135M-Instruct.Q4_1.gguf crates/formats/tests/fixtures

Writes template_renderings.json: templates, each with conversations, options and the prompt or the refusal.
"""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

import jinja2
import jinja2.ext
from gguf import GGUFReader
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1709210096  # 2024-02-29 12:34:56 UTC

# Written for this test, in the manners of the templates that well-known models ship.
LLAMA3_LIKE = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{#- A system message, if there is one, goes first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
<|start_header_id|>system<|end_header_id|>

Today: {{ date_string }}
{% if tools is not none %}
{%- for tool in tools %}
{{ tool | tojson(indent=4) }}

{% endfor %}
{%- endif %}
{{- system_message }}<|eot_id|>
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}{{ tool_call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- else %}
        {{- message.content | tojson }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL_LIKE = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("conversation roles must alternate user/assistant") }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""

QWEN3_LIKE = """{%- macro opening(role) -%}
<|im_start|>{{ role }}
{% endmacro -%}
{%- set ns = namespace(last_query=messages|length - 1, seen=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.seen and message.role == "user" and not message.content.startswith('<tool_response>') %}
        {%- set ns.last_query = index %}{%- set ns.seen = true %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if '</think>' in content %}
        {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- if loop.index0 > ns.last_query %}{%- set content = '<think>' ~ thought ~ '</think>' ~ content %}{%- endif %}
    {%- endif %}
    {{- opening(message.role) + content + '<|im_end|>\\n' }}
    {%- if loop.nextitem is defined and loop.nextitem.role == message.role %}{{- '(again)' }}{%- endif %}
    {%- for key, value in message.items() if key not in ['role', 'content'] %}{{- key ~ '=' ~ value }}{%- endfor %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""

CONTROLS = """{% for message in messages %}
    {% if message.role == 'system' %}{% continue %}{% endif %}
  {% if loop.index > 3 %}
    {% break %}
  {% endif %}
  {%- generation -%}
  {{ message.content | upper }} {{ message.role.title() }} {{ loop.index }}/{{ loop.length }}
  {%- endgeneration %}
{% endfor %}
{{ [1, 2.0, true, none, 'x', {'k': 'v'}] }} {{ messages | map(attribute='role') | join(', ') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ 'é<&>' | tojson }}
{{ 'a\\n\\nb\\n' | indent(2, true) }}{{ tools is iterable and tools | length > 0 }}
"""

USER = {"role": "user", "content": "Why is the sky blue? <b>&\"'"}
SYSTEM = {"role": "system", "content": " Answer in 中文. "}
ANSWER = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nRayleigh scattering. "}
THANKS = {"role": "user", "content": "Thanks! 😀"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2.0}}}],
}
RESULT = {"role": "tool", "content": "{\"sky\": \"blue\"}", "name": "weather"}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}, "required": ["city"]}},
}
CONVERSATIONS = [[USER], [SYSTEM, USER], [SYSTEM, USER, ANSWER, THANKS], [USER, CALL, RESULT], [USER, USER], [ANSWER]]
OPTIONS = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False, "tools": [TOOL], "variables": {"enable_thinking": False}},
    {"add_generation_prompt": True, "now": NOW, "variables": {"enable_thinking": False}},
]


class Generation(jinja2.ext.Extension):
    """Prints the body of `{% generation %}`, as `transformers` does where no mask is asked for."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def environment(now):
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    if now is not None:
        env.globals["strftime_now"] = datetime.fromtimestamp(now, timezone.utc).strftime
    return env


def render(source, messages, options):
    """What `apply_chat_template` gives: ("prompt", text), or ("refusal", text) if the template raises."""
    template = environment(options.get("now")).from_string(source)
    try:
        return "prompt", template.render(
            messages=messages,
            tools=options.get("tools"),
            documents=None,
            add_generation_prompt=options["add_generation_prompt"],
            bos_token="<s>",
            eos_token="</s>",
            **options.get("variables", {}),
        )
    except jinja2.exceptions.TemplateError as error:
        return "refusal", str(error)


def main():
    model, out = Path(sys.argv[1]), Path(sys.argv[2])
    smollm2 = GGUFReader(model).fields["tokenizer.chat_template"].contents()
    templates = {
        "smollm2": smollm2,
        "like llama 3": LLAMA3_LIKE,
        "like mistral": MISTRAL_LIKE,
        "like qwen 3": QWEN3_LIKE,
        "controls": CONTROLS,
    }
    cases = []
    for name, source in templates.items():
        renderings = []
        for messages in CONVERSATIONS:
            for options in OPTIONS:
                kind, text = render(source, messages, options)
                renderings.append({"messages": messages, "options": options, kind: text})
        cases.append({"name": name, "source": source, "renderings": renderings})
    (out / "template_renderings.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
