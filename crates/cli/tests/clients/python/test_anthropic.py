"""Anthropic's SDK: messages, streams, tools, counting."""

import unittest

import anthropic

from common import GREEDY, HELLO, KEY, KEYED_SERVER, MODEL, PATIENCE, SERVER, becomes_idle, text

client = anthropic.Anthropic(base_url=SERVER, api_key="none", max_retries=0, timeout=PATIENCE)

WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
ASK = [{"role": "user", "content": "What is the weather in Rome?"}]


def send(messages=HELLO, **settings):
    extra = {**GREEDY, **settings.pop("extra_body", {})}
    extra.update({name: settings.pop(name) for name in ["temperature", "top_k", "top_p"] if name in settings})
    return client.messages.create(
        messages=messages, extra_body=extra, **{"model": MODEL, "max_tokens": 6, **settings}
    )


class Messages(unittest.TestCase):
    def refused(self, words="", **settings):
        with self.assertRaises(anthropic.BadRequestError) as caught:
            send(**settings)
        error = caught.exception
        self.assertEqual((error.body["type"], error.body["error"]["type"]), ("error", "invalid_request_error"))
        self.assertIn(words, error.body["error"]["message"])

    def test_a_message(self):
        answer = send()
        self.assertEqual((answer.type, answer.role, answer.model), ("message", "assistant", MODEL))
        self.assertEqual([block.type for block in answer.content], ["text"])
        self.assertEqual(answer.content[0].text, text())
        self.assertEqual((answer.stop_reason, answer.stop_sequence), ("max_tokens", None))
        self.assertEqual(answer.usage.output_tokens, 6)
        stopped = send(max_tokens=9, stop_sequences=["nowhere to be found", " help"])
        self.assertEqual((stopped.stop_reason, stopped.stop_sequence), ("stop_sequence", " help"))
        self.assertEqual(stopped.content[0].text, text(max_tokens=9, stop=" help"))

    def test_blocks_system_and_the_beginning_of_an_answer(self):
        parts = [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]
        self.assertEqual(send(parts).content[0].text, send().content[0].text)
        told = send(system="Be brief.").usage
        blocks = send(system=[{"type": "text", "text": "Be brief."}]).usage
        self.assertEqual(told.input_tokens + (told.cache_read_input_tokens or 0),
                         blocks.input_tokens + (blocks.cache_read_input_tokens or 0))
        begun = [*HELLO, {"role": "assistant", "content": "The capital of France is"}]
        self.assertEqual(send(begun, max_tokens=1).content[0].text, " Paris")
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
        self.refused("image", messages=[{"role": "user", "content": [image]}])

    def test_settings(self):
        greedy = send().content[0].text
        self.assertEqual(send(temperature=1, top_k=1).content[0].text, greedy)
        self.assertEqual(send(temperature=1, top_p=0).content[0].text, greedy)
        hot = {send(temperature=2, extra_body={"seed": seed}).content[0].text for seed in range(3)}
        self.assertGreater(len(hot), 1)
        send(metadata={"user_id": "alice"}, max_tokens=1)
        self.refused("max_tokens", max_tokens=0)
        self.refused("temperature", temperature=-1)
        self.refused("bananas", extra_body={"bananas": 3})
        self.refused("4096", messages=[{"role": "user", "content": "word " * 5000}])

    def test_events_come_in_order(self):
        events = list(send(stream=True))
        kinds = [event.type for event in events]
        self.assertEqual(kinds[:2], ["message_start", "content_block_start"])
        self.assertEqual(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"])
        self.assertLessEqual(set(kinds[2:-3]), {"content_block_delta", "ping"})
        told = "".join(event.delta.text for event in events if event.type == "content_block_delta")
        self.assertEqual(told, text())
        self.assertEqual(events[-2].delta.stop_reason, "max_tokens")
        self.assertEqual(events[-2].usage.output_tokens, 6)

    def test_the_sdks_helper(self):
        with client.messages.stream(model=MODEL, messages=HELLO, max_tokens=6, extra_body=GREEDY) as stream:
            told = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual((told, final.content[0].text), (text(), text()))
        self.assertEqual(final.stop_reason, "max_tokens")

    def test_closing_a_stream_ends_the_answer(self):
        ask = [{"role": "user", "content": "Count to a thousand."}]
        with client.messages.stream(model=MODEL, messages=ask, max_tokens=3000, extra_body=GREEDY) as stream:
            for _, event in zip(range(4), stream):
                self.assertTrue(event.type)
        self.assertTrue(becomes_idle())

    def test_tools(self):
        for choice in [{"type": "any"}, {"type": "tool", "name": "get_weather"}]:
            choice["disable_parallel_tool_use"] = True
            answer = send(ASK, tools=[WEATHER], tool_choice=choice, max_tokens=60)
            self.assertEqual(answer.stop_reason, "tool_use")
            call = answer.content[-1]
            self.assertEqual((call.type, call.name), ("tool_use", "get_weather"))
            self.assertIn(call.input["city"], ["Paris", "Rome"])
        none = send(ASK, tools=[WEATHER], tool_choice={"type": "none"})
        self.assertEqual([block.type for block in none.content], ["text"])
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees"}
        conversation = [
            *ASK,
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [result]},
        ]
        self.assertTrue(send(conversation, tools=[WEATHER]).content)
        bad = {"name": "f", "input_schema": {"type": "banana"}}
        self.refused(tools=[bad], tool_choice={"type": "any"})
        self.refused("nobody", tools=[WEATHER], tool_choice={"type": "tool", "name": "nobody"})

    def test_calls_as_a_stream(self):
        choice = {"type": "any", "disable_parallel_tool_use": True}
        with client.messages.stream(
            model=MODEL, messages=ASK, tools=[WEATHER], tool_choice=choice, max_tokens=60, extra_body=GREEDY
        ) as stream:
            pieces = [event.partial_json for event in stream if event.type == "input_json"]
            final = stream.get_final_message()
        self.assertGreater(len(pieces), 1)
        self.assertEqual((final.stop_reason, final.content[-1].type), ("tool_use", "tool_use"))
        self.assertIn(final.content[-1].input["city"], ["Paris", "Rome"])

    def test_tokens_are_counted(self):
        usage = send(max_tokens=1).usage
        read = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        self.assertEqual(client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens, read)
        told = client.messages.count_tokens(model=MODEL, messages=HELLO, system="Be brief.", tools=[WEATHER])
        self.assertGreater(told.input_tokens, read)

    def test_thinking_reaches_the_template(self):
        length = lambda **settings: client.messages.count_tokens(
            model="thinker", messages=HELLO, **settings
        ).input_tokens
        self.assertGreater(length(output_config={"effort": "high"}), length())
        sunny = {"chat_template_kwargs": {"mood": "sunny"}}
        self.assertGreater(length(extra_body=sunny), length())

    def test_errors(self):
        with self.assertRaises(anthropic.NotFoundError) as caught:
            send(model="nobody")
        self.assertEqual(caught.exception.body["error"]["type"], "not_found_error")
        keyed = lambda **settings: anthropic.Anthropic(base_url=KEYED_SERVER, max_retries=0, **settings)
        ask = {"model": "tiny", "messages": HELLO, "max_tokens": 2, "extra_body": GREEDY}
        with self.assertRaises(anthropic.AuthenticationError) as caught:
            keyed(api_key="none").messages.create(**ask)
        self.assertEqual(caught.exception.body["error"]["type"], "authentication_error")
        for settings in [{"api_key": KEY}, {"auth_token": KEY}]:
            self.assertEqual(keyed(**settings).messages.create(**ask).usage.output_tokens, 2)


if __name__ == "__main__":
    unittest.main()
