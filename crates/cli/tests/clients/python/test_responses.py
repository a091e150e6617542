"""OpenAI's SDK: the Responses API."""

import json
import typing
import unittest

import openai
import pydantic

from common import GREEDY, MODEL, client, text, tokens

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def respond(prompt="Say hello.", **settings):
    body = {"seed": 1, **settings.pop("extra_body", {})}
    settings = {"model": MODEL, "temperature": 0, "max_output_tokens": 6, "extra_body": body, **settings}
    return client.responses.create(input=prompt, **settings)


class Colour(pydantic.BaseModel):
    colour: typing.Literal["red", "green"]


class Responses(unittest.TestCase):
    def refused(self, param, **settings):
        with self.assertRaises(openai.BadRequestError) as caught:
            respond(**settings)
        self.assertEqual(caught.exception.param, param, caught.exception.message)

    def test_an_answer_is_that_of_a_chat(self):
        answer = respond()
        self.assertEqual(answer.output_text, text())
        self.assertEqual((answer.object, answer.model, answer.error), ("response", MODEL, None))
        self.assertEqual((answer.status, answer.incomplete_details.reason), ("incomplete", "max_output_tokens"))
        self.assertEqual(answer.usage.output_tokens, 6)
        self.assertEqual(answer.usage.total_tokens, answer.usage.input_tokens + 6)
        done = respond(extra_body={"logit_bias": {"2": 100}})
        self.assertEqual((done.status, done.output_text, done.incomplete_details), ("completed", "", None))

    def test_items_and_instructions(self):
        items = [
            {"role": "user", "content": [{"type": "input_text", "text": "Say hello."}]},
        ]
        self.assertEqual(respond(items).output_text, respond().output_text)
        told = [{"role": "system", "content": "Be brief."}, *items]
        self.assertEqual(respond(instructions="Be brief.").output_text, respond(told).output_text)
        answer = respond()
        # What it gave can be given back.
        more = [*items, *answer.output, {"role": "user", "content": "Again."}]
        self.assertGreater(respond(more).usage.input_tokens, answer.usage.input_tokens)
        image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}
        with self.assertRaises(openai.BadRequestError):
            respond([{"role": "user", "content": [image]}])

    def test_settings(self):
        self.assertEqual(respond(temperature=2, top_p=0).output_text, respond().output_text)
        hot = {respond(temperature=2, extra_body={"seed": seed}).output_text for seed in range(3)}
        self.assertGreater(len(hot), 1)
        stopped = respond(max_output_tokens=9, extra_body={"stop": " help"})
        self.assertEqual((stopped.status, stopped.output_text), ("completed", text(max_tokens=9, stop=" help")))
        scored = respond(top_logprobs=2, include=["message.output_text.logprobs"], max_output_tokens=2)
        logprobs = scored.output[0].content[0].logprobs
        self.assertEqual("".join(token.token for token in logprobs), scored.output_text)
        self.assertEqual([len(token.top_logprobs) for token in logprobs], [2, 2])
        told = respond(metadata={"a": "b"}, user="alice", store=False, reasoning={"effort": "low"})
        self.assertEqual((told.metadata, told.user, told.reasoning.effort), ({"a": "b"}, "alice", "low"))
        self.refused("temperature", temperature=-1)
        self.refused("max_output_tokens", max_output_tokens=0)
        self.refused("previous_response_id", previous_response_id="resp_1")
        self.refused("background", background=True)
        self.refused("truncation", truncation="auto")
        with self.assertRaises(openai.BadRequestError):
            respond(extra_body={"bananas": 3})
        with self.assertRaises(openai.NotFoundError):
            respond(model="nobody")
        with self.assertRaises(openai.BadRequestError) as caught:
            respond("word " * 5000)
        self.assertEqual(caught.exception.code, "context_length_exceeded")

    def test_events_come_in_order(self):
        events = list(respond(stream=True))
        kinds = [event.type for event in events]
        self.assertEqual(kinds[:2], ["response.created", "response.in_progress"])
        self.assertEqual(kinds[2:4], ["response.output_item.added", "response.content_part.added"])
        self.assertEqual(
            kinds[-4:],
            [
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.incomplete",
            ],
        )
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        told = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        self.assertEqual(told, respond().output_text)
        self.assertEqual(events[-1].response.output_text, told)

    def test_the_sdks_helper(self):
        with client.responses.stream(
            model=MODEL, input="Say hello.", temperature=0, max_output_tokens=9, extra_body={"stop": " help"}
        ) as stream:
            for _ in stream:
                pass
            final = stream.get_final_response()
        self.assertEqual(final.output_text, text(max_tokens=9, stop=" help"))

    def test_calls_and_their_results(self):
        settings = {"tools": [WEATHER], "parallel_tool_calls": False, "max_output_tokens": 60}
        for choice in ["required", {"type": "function", "name": "get_weather"}]:
            answer = respond("What is the weather in Rome?", tool_choice=choice, **settings)
            call = next(item for item in answer.output if item.type == "function_call")
            self.assertEqual(call.name, "get_weather")
            self.assertIn(json.loads(call.arguments)["city"], ["Paris", "Rome"])
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
        conversation = [{"role": "user", "content": "What is the weather in Rome?"}, call, result]
        after = respond(conversation, tools=[WEATHER], tool_choice="none")
        self.assertTrue(after.output_text)
        self.refused("tools[0].type", tools=[{"type": "web_search"}])
        self.refused("tool_choice", tool_choice="required")

    def test_calls_as_a_stream(self):
        settings = {"tools": [WEATHER], "parallel_tool_calls": False, "max_output_tokens": 60}
        events = list(respond("What is the weather in Rome?", tool_choice="required", stream=True, **settings))
        added = next(event for event in events if event.type == "response.output_item.added")
        self.assertEqual((added.item.type, added.item.name), ("function_call", "get_weather"))
        deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        done = next(event for event in events if event.type == "response.function_call_arguments.done")
        self.assertEqual("".join(deltas), done.arguments)
        self.assertIn(json.loads(done.arguments)["city"], ["Paris", "Rome"])
        self.assertEqual(events[-1].type, "response.completed")

    def test_schemas(self):
        parsed = client.responses.parse(
            model=MODEL, input="Which colour?", text_format=Colour, max_output_tokens=40, extra_body=GREEDY
        )
        self.assertIn(parsed.output_parsed.colour, ["red", "green"])
        bad = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "banana"}}}
        with self.assertRaises(openai.BadRequestError):
            respond(text=bad)
        plain = respond(text={"format": {"type": "json_object"}}, max_output_tokens=6)
        self.assertTrue(plain.output_text.lstrip().startswith("{"))

    def test_biases(self):
        word = tokens(" no")[0]
        self.assertEqual(respond(max_output_tokens=2, extra_body={"logit_bias": {str(word): 100}}).output_text, " no no")


if __name__ == "__main__":
    unittest.main()
