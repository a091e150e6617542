#!/usr/bin/env python3
"""Makes family_renderings.json: chat templates of well-known families, rendered by `transformers`.

    pip install transformers jinja2
    python3 tools/family_templates.py LLAMA_CPP_SOURCES/models/templates crates/formats/tests/fixtures

The templates come with llama.cpp's sources, also with those that the Python package llama-cpp-python is distributed with
(vendor/llama.cpp/models/templates). Only those of models under Apache-2.0 or MIT are written to the fixture; Llama 3 and Gemma 3 are
stood in for by templates written here with the same features. `--all FILE` renders every template of the folder into another
file, which the tests compare too if WUSHI_RENDERINGS names it.
"""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

NOW = 1709210096  # 2024-02-29 12:34:56 UTC

# File: licence of the model it was published with.
PERMISSIVE = {
    "Qwen-Qwen2.5-7B-Instruct": "Apache-2.0",
    "Qwen-Qwen3-0.6B": "Apache-2.0",
    "Qwen3-Coder": "Apache-2.0",
    "Qwen3.5-4B": "Apache-2.0",
    "microsoft-Phi-3.5-mini-instruct": "MIT",
    "mistralai-Mistral-Nemo-Instruct-2407": "Apache-2.0",
    "mistralai-Ministral-3-14B-Reasoning-2512": "Apache-2.0",
    "HuggingFaceTB-SmolLM3-3B": "Apache-2.0",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "MIT",
    "ibm-granite-granite-4.0": "Apache-2.0",
}

LLAMA3_LIKE = """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{#- The system turn is always there; the conversation's own words follow the dates. #}
{%- if messages[0]['role'] == 'system' %}
    {%- if messages[0]['content'] is string %}
        {%- set words = messages[0]['content']|trim %}
    {%- else %}
        {%- set words = messages[0]['content'][0]['text']|trim %}
    {%- endif %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set words = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Knowledge ends: December 2023\\nDate: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "These functions can be called:\\n\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- words }}{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("There is no first user message to put the tools in") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {{- "Answer with a call of one of these functions, as JSON.\\n\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {%- if message['content'] is string %}
            {{- message['content'] | trim }}
        {%- else %}
            {%- for part in message['content'] %}
                {%- if part['type'] == 'image' %}{{- '<|image|>' }}
                {%- elif part['type'] == 'text' %}{{- part['text'] | trim }}{%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One function at a time!") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and call.name in builtin_tools %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
            {{- "<|python_tag|>" + call.name + ".call(" }}
            {%- for name, value in call.arguments | items %}
                {{- name + '="' + value|string + '"' }}{%- if not loop.last %}{{- ", " }}{%- endif %}
            {%- endfor %}
            {{- ")<|eom_id|>" }}
        {%- else %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
            {{- '{"name": "' + call.name + '", ' }}{{- '"parameters": ' }}{{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
        {%- endif %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
            {{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

GEMMA3_LIKE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set opening = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set opening = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set opening = "" -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("User and assistant must take turns: user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (turn['role'] == 'assistant') -%}{%- set speaker = "model" -%}{%- else -%}{%- set speaker = turn['role'] -%}{%- endif -%}
    {{ '<start_of_turn>' + speaker + '\\n' + (opening if loop.first else "") }}
    {%- if turn['content'] is string -%}
        {{ turn['content'] | trim }}
    {%- elif turn['content'] is iterable -%}
        {%- for part in turn['content'] -%}
            {%- if part['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif part['type'] == 'text' -%}
                {{ part['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Neither text nor parts") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""

USER = {"role": "user", "content": "Why is the sky blue? <b>&\"'  "}
SYSTEM = {"role": "system", "content": " Answer in 中文. "}
ANSWER = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nRayleigh scattering. "}
THOUGHT = {"role": "assistant", "content": "Because of the air.", "reasoning_content": "\nLet me think.\n"}
THANKS = {"role": "user", "content": "Thanks! 😀"}
ARGUMENTS = {"city": "Köln", "days": 2, "exact": True, "near": None, "range": [1.5, 2.0, 1e20], "nested": {"a": "<b>"}}


def call(name, id, content="", arguments=ARGUMENTS):
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"type": "function", "id": id, "function": {"name": name, "arguments": arguments}}],
    }


CALL = call("weather", "abcdef123")
SAID_CALL = call("weather", "abcdef123", "Let me see.", {})
NULL_CALL = dict(call("weather", "abcdef123"), content=None)
BARE_CALL = {key: value for key, value in CALL.items() if key != "content"}
TWO_CALLS = dict(CALL, tool_calls=CALL["tool_calls"] + call("time", "xyz789012")["tool_calls"])
RESULT = {"role": "tool", "content": "{\"sky\": \"blue\"}", "name": "weather", "tool_call_id": "abcdef123"}
OTHER_RESULT = {"role": "tool", "content": "12:30", "name": "time", "tool_call_id": "xyz789012"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "What is this? "}, {"type": "text", "text": "And that?"}]}
IMAGE = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe it."}]}
SYSTEM_PARTS = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the weather.\nFor \"any\" city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where", "enum": ["Köln", "Bonn"]},
                    "days": {"type": ["integer", "null"], "default": 1},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "time", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
CONVERSATIONS = [
    [USER],
    [SYSTEM, USER],
    [SYSTEM, USER, ANSWER, THANKS],
    [USER, THOUGHT, THANKS],
    [USER, THOUGHT],
    [USER, CALL, RESULT],
    [SYSTEM, USER, SAID_CALL, RESULT, THOUGHT, THANKS],
    [USER, NULL_CALL, RESULT, ANSWER],
    [USER, BARE_CALL, RESULT],
    [USER, TWO_CALLS, RESULT, OTHER_RESULT, ANSWER, THANKS],
    [PARTS],
    [SYSTEM_PARTS, IMAGE, ANSWER, PARTS],
    [USER, USER],
    [ANSWER],
    [],
]
OPTIONS = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False, "tools": TOOLS},
    {"add_generation_prompt": True, "tools": TOOLS, "variables": {"enable_thinking": False}},
    {"add_generation_prompt": True, "variables": {"enable_thinking": True}},
]


def render(template, messages, options):
    """("prompt", text), or ("refusal", why)."""
    now = datetime.fromtimestamp(NOW, timezone.utc)
    try:
        return "prompt", template.render(
            messages=messages,
            tools=options.get("tools"),
            documents=None,
            add_generation_prompt=options["add_generation_prompt"],
            bos_token="<s>",
            eos_token="</s>",
            strftime_now=now.strftime,
            **options.get("variables", {}),
        )
    except TemplateError as error:
        return "refusal", str(error)
    except Exception as error:  # Python's own: a template that adds a text and nothing, and so on.
        return "refusal", f"{type(error).__name__}: {error}"


def case(name, licence, source):
    template = _compile_jinja_template(source)
    renderings = []
    for messages in range(len(CONVERSATIONS)):
        # Of the later ones, every other option: the fixture is large enough.
        for options in range(len(OPTIONS)) if messages < 4 else range(messages % 2, len(OPTIONS), 2):
            kind, text = render(template, CONVERSATIONS[messages], OPTIONS[options])
            renderings.append({"messages": messages, "options": options, kind: text})
    return {"name": name, "licence": licence, "source": source, "renderings": renderings}


def write(path, cases):
    options = [dict(options, now=NOW) for options in OPTIONS]
    whole = {"conversations": CONVERSATIONS, "options": options, "templates": cases}
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).replace('{"messages":', '\n{"messages":')
    Path(path).write_text(text + "\n")


def main():
    folder = Path(sys.argv[1])
    if sys.argv[2] == "--all":
        paths = sorted(folder.glob("*.jinja"))
        write(sys.argv[3], [case(path.stem, "various", path.read_text()) for path in paths])
        return
    cases = [case(name, licence, (folder / f"{name}.jinja").read_text()) for name, licence in PERMISSIVE.items()]
    cases.append(case("like Llama 3", "own", LLAMA3_LIKE))
    cases.append(case("like Gemma 3", "own", GEMMA3_LIKE))
    write(Path(sys.argv[2]) / "family_renderings.json", cases)


if __name__ == "__main__":
    main()
