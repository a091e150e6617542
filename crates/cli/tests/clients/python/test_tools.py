"""OpenAI's SDK: tools and forms of answers."""

import json
import typing
import unittest

import openai
import pydantic

from common import CLOCK, GREEDY, HELLO, MODEL, WEATHER, chat, client, prompt_text
from test_chat import Refusals

ASK = [{"role": "user", "content": "What is the weather in Rome?"}]


def calls(**settings):
    """What is called, as names and arguments."""
    answer = chat(ASK, tools=[WEATHER, CLOCK], max_tokens=100, **settings).choices[0]
    found = answer.message.tool_calls or []
    if found:
        assert answer.finish_reason == "tool_calls", answer
        assert len({call.id for call in found}) == len(found)
        assert all(call.type == "function" for call in found)
    return [(call.function.name, json.loads(call.function.arguments)) for call in found]


class Tools(Refusals):
    def check(self, called):
        for name, arguments in called:
            if name == "get_weather":
                self.assertIn(arguments, [{"city": "Paris"}, {"city": "Rome"}])
            else:
                self.assertEqual(name, "get_time")
                self.assertIn(arguments, [{"utc": True}, {"utc": False}])

    def test_required_calls_follow_their_schemas(self):
        called = calls(tool_choice="required")
        self.assertTrue(called)
        self.check(called)

    def test_without_parallel_calls_there_is_one(self):
        called = calls(tool_choice="required", parallel_tool_calls=False, temperature=1.5)
        self.assertEqual(len(called), 1)
        self.check(called)

    def test_a_named_function_is_called(self):
        for tool in [WEATHER, CLOCK]:
            name = tool["function"]["name"]
            choice = {"type": "function", "function": {"name": name}}
            called = calls(tool_choice=choice)
            self.assertEqual({called for called, _ in called}, {name})
            self.check(called)

    def test_none_calls_nothing(self):
        answer = chat(ASK, tools=[WEATHER], tool_choice="none", max_tokens=8).choices[0]
        self.assertIsNone(answer.message.tool_calls)
        self.assertTrue(answer.message.content)

    def test_auto_leaves_it_to_the_model(self):
        answer = chat(ASK, tools=[WEATHER], tool_choice="auto", max_tokens=20).choices[0]
        self.assertTrue(answer.message.content or answer.message.tool_calls)

    def test_results_reach_the_model(self):
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
        }
        conversation = [
            *ASK,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees, windy"},
        ]
        read = prompt_text(conversation, tools=[WEATHER])
        self.assertIn("18 degrees, windy", read)
        self.assertIn("get_weather", read)
        answer = chat(conversation, tools=[WEATHER], max_tokens=8).choices[0]
        self.assertTrue(answer.message.content or answer.message.tool_calls)

    def test_fragments_come_by_index(self):
        settings = {"tools": [WEATHER, CLOCK], "tool_choice": "required", "max_tokens": 100}
        whole = chat(ASK, **settings).choices[0].message.tool_calls
        chunks = list(chat(ASK, stream=True, **settings))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual(chunks[-1].choices[0].finish_reason, "tool_calls")
        found = {}
        for fragment in [f for chunk in chunks for f in chunk.choices[0].delta.tool_calls or []]:
            if fragment.index not in found:
                self.assertEqual(fragment.index, len(found))
                self.assertTrue(fragment.id)
                self.assertEqual(fragment.type, "function")
                found[fragment.index] = [fragment.function.name, "", 0]
            else:
                self.assertIsNone(fragment.function.name)
                self.assertIsNone(fragment.id)
            found[fragment.index][1] += fragment.function.arguments or ""
            found[fragment.index][2] += 1
        told = [(name, json.loads(arguments)) for name, arguments, _ in found.values()]
        self.assertEqual(told, [(call.function.name, json.loads(call.function.arguments)) for call in whole])
        self.assertTrue(all(count > 1 for _, _, count in found.values()))

    def test_the_sdks_helper_collects_calls(self):
        class GetWeather(pydantic.BaseModel):
            city: typing.Literal["Paris", "Rome"]

        with client.chat.completions.stream(
            model=MODEL,
            messages=ASK,
            tools=[openai.pydantic_function_tool(GetWeather)],
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=60,
            **GREEDY,
        ) as stream:
            for _ in stream:
                pass
            call = stream.get_final_completion().choices[0].message.tool_calls[0]
        self.assertIn(call.function.parsed_arguments.city, ["Paris", "Rome"])

    def test_what_cannot_be_is_refused(self):
        bad_name = {"type": "function", "function": {"name": "not a name"}}
        bad_schema = {"type": "function", "function": {"name": "f", "parameters": {"type": "banana"}}}
        named = {"type": "function", "function": {"name": "nobody"}}
        self.refused("tools[0].function", tools=[bad_name])
        self.refused(tools=[bad_schema], tool_choice="required")
        self.refused("tools[0].type", tools=[{**WEATHER, "type": "retrieval"}])
        self.refused("tools", tools=[WEATHER, WEATHER])
        self.refused("tool_choice", tools=[WEATHER], tool_choice=named)
        self.refused("tool_choice", tool_choice="required")
        self.refused("tool_choice", tools=[WEATHER], tool_choice="perhaps")


class Verdict(pydantic.BaseModel):
    """Quickly written, and not by chance."""

    colour: typing.Literal["red", "green"]
    certain: bool
    points: list[typing.Literal[1, 2]] = pydantic.Field(min_length=2, max_length=2)


class Forms(Refusals):
    def test_a_json_object(self):
        prompt = "A person with a name, as short JSON."
        answer = chat(prompt, response_format={"type": "json_object"}, max_tokens=200, stop=None).choices[0]
        if answer.finish_reason == "stop":
            self.assertIsInstance(json.loads(answer.message.content), dict)
        self.assertTrue(answer.message.content.lstrip().startswith("{"))

    def test_a_schema_through_the_sdk(self):
        for settings in [{"temperature": 0}, {"temperature": 2, "seed": 4}]:
            answer = client.chat.completions.parse(
                model=MODEL, messages=HELLO, response_format=Verdict, max_tokens=80, **settings
            ).choices[0]
            self.assertEqual(answer.finish_reason, "stop")
            self.assertIsInstance(answer.message.parsed, Verdict)

    def test_a_schema_as_a_stream(self):
        with client.chat.completions.stream(
            model=MODEL, messages=HELLO, response_format=Verdict, max_tokens=80, **GREEDY
        ) as stream:
            events = list(stream)
        done = [event for event in events if event.type == "content.done"]
        self.assertIsInstance(done[0].parsed, Verdict)

    def test_a_regular_expression(self):
        form = {"response_format": {"type": "regex", "pattern": "(red|green) [0-9]{3}!"}}
        answer = chat(max_tokens=20, temperature=1.5, extra_body=form).choices[0]
        self.assertRegex(answer.message.content, "^(red|green) [0-9]{3}!$")
        self.assertEqual(answer.finish_reason, "stop")

    def test_text_is_anything(self):
        self.assertTrue(chat(response_format={"type": "text"}).choices[0].message.content)

    def test_schemas_that_cannot_be_honoured_are_refused(self):
        def schema(**schema):
            return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}

        for form in [
            schema(type="banana"),
            schema(type="object", properties={"a": {"$ref": "https://example.com/schema"}}),
            schema(type="string", pattern="(?<=a)b(?=c)("),
            schema(type="object", properties={"a": {"type": "array", "uniqueItems": True}}, required=["a"]),
            schema(type="integer", minimum=3, maximum=2),
        ]:
            error = self.refused(response_format=form)
            self.assertEqual(error.param, "response_format", error.message)
        self.refused(response_format={"type": "json_schema", "json_schema": {"name": "x"}})
        self.refused(response_format={"type": "haiku"})
        self.refused(extra_body={"response_format": {"type": "regex", "pattern": "("}})


if __name__ == "__main__":
    unittest.main()
