"""What the suites share: clients of the two servers, short requests, and looks behind the API."""

import json
import os
import time
import urllib.request

import openai

SERVER = os.environ["OPEN_SERVER"]
KEYED_SERVER = os.environ["KEYED_SERVER"]
KEY = os.environ["SERVER_KEY"]
MODEL = "smollm2"
# Seconds, longer than anything takes on a machine that is busy.
PATIENCE = 600
# What takes chance from a request of its own.
GREEDY = {"temperature": 0, "seed": 1}

# No retries: an error is an error.
client = openai.OpenAI(base_url=f"{SERVER}/v1", api_key="none", max_retries=0, timeout=PATIENCE)

HELLO = [{"role": "user", "content": "Say hello."}]


def chat(prompt=HELLO, **settings):
    """A short answer, greedy unless said otherwise; a text is a user's message."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    # An answer of its own length is bounded by the other name.
    if "max_completion_tokens" not in settings:
        settings.setdefault("max_tokens", 6)
    return client.chat.completions.create(
        **{"model": MODEL, "messages": messages, **GREEDY, **settings}
    )


def text(prompt=HELLO, **settings):
    """The text of a short answer."""
    return chat(prompt, **settings).choices[0].message.content


def post(path, body, server=SERVER):
    """What a path without a method in the SDK answers."""
    request = urllib.request.Request(f"{server}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return json.load(response)


def tokens(words):
    """The ids of a text as it is."""
    return post("/tokenize", {"prompt": words, "add_special_tokens": False})["tokens"]


def prompt_text(messages, model=MODEL, **settings):
    """A conversation as the model reads it."""
    ids = post("/tokenize", {"model": model, "messages": messages, **settings})["tokens"]
    return post("/detokenize", {"model": model, "tokens": ids})["prompt"]


def status(model=MODEL):
    """How a model of the open server is."""
    with urllib.request.urlopen(f"{SERVER}/status", timeout=PATIENCE) as response:
        models = json.load(response)["models"]
    return next(entry for entry in models if entry["name"] == model)


def becomes(condition, seconds):
    """Whether the model is as wanted within this time."""
    end = time.monotonic() + seconds
    while not condition(status()):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def becomes_idle():
    """Whether nothing runs any more in a time that is too short for an answer that never ends by itself."""
    return becomes(lambda now: now["running"] == now["waiting"] == now["pages"]["used"] == 0, 10)


def becomes_busy():
    """Whether an answer begins."""
    return becomes(lambda now: now["running"] > 0, PATIENCE)


# Functions for a model to call, with arguments that are quickly written.
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"utc": {"type": "boolean"}},
            "required": ["utc"],
            "additionalProperties": False,
        },
    },
}
