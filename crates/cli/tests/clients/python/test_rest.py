"""OpenAI's SDK: completions, embeddings, models, errors, keys, many at once."""

import asyncio
import base64
import struct
import unittest
import urllib.request

import openai

from common import (
    GREEDY, HELLO, KEY, KEYED_SERVER, MODEL, PATIENCE, SERVER, becomes_busy, becomes_idle, client, tokens,
)
from test_chat import Refusals

FRANCE = "The capital of France is"


def complete(prompt=FRANCE, **settings):
    settings = {"model": MODEL, "max_tokens": 2, **GREEDY, **settings}
    return client.completions.create(prompt=prompt, **settings)


class Completions(Refusals):
    def refused(self, param=None, code=None, **settings):
        with self.assertRaises(openai.BadRequestError) as caught:
            complete(**settings)
        if param:
            self.assertEqual(caught.exception.param, param, caught.exception.message)
        if code:
            self.assertEqual(caught.exception.code, code)

    def test_prompts_in_all_forms(self):
        whole = complete()
        self.assertEqual(whole.object, "text_completion")
        self.assertEqual(whole.choices[0].text, " Paris.")
        ids = tokens(FRANCE)
        self.assertEqual(complete(ids).choices[0].text, " Paris.")
        both = complete([FRANCE, "One, two,"])
        self.assertEqual([choice.index for choice in both.choices], [0, 1])
        self.assertEqual(both.choices[0].text, " Paris.")
        self.assertEqual(both.choices[1].text, complete("One, two,").choices[0].text)
        self.assertEqual([c.text for c in complete([ids, tokens("One, two,")]).choices], [c.text for c in both.choices])
        self.refused("prompt", prompt=[])
        self.refused(prompt="")
        self.refused(prompt=[9999999])

    def test_several_answers_to_several_prompts(self):
        found = complete([FRANCE, "One, two,"], n=2, temperature=2, max_tokens=4).choices
        self.assertEqual([choice.index for choice in found], [0, 1, 2, 3])
        self.assertNotEqual(found[0].text, found[1].text)
        self.assertEqual(found[0].text, complete(temperature=2, max_tokens=4).choices[0].text)
        self.refused("best_of", n=1, best_of=2)

    def test_echo_and_logprobs(self):
        self.assertEqual(complete(echo=True).choices[0].text, FRANCE + " Paris.")
        scored = complete(echo=True, logprobs=2, max_tokens=1).choices[0]
        names = scored.logprobs.tokens
        self.assertEqual("".join(names), scored.text)
        self.assertEqual(len(names), len(scored.logprobs.token_logprobs))
        self.assertIsNone(scored.logprobs.token_logprobs[0])
        self.assertTrue(all(logprob <= 0 for logprob in scored.logprobs.token_logprobs[1:]))
        for offset, name in zip(scored.logprobs.text_offset, names):
            self.assertEqual(scored.text[offset : offset + len(name)], name)
        self.assertLessEqual(max(map(len, scored.logprobs.top_logprobs[1:])), 3)
        # Nothing is computed but the prompt's scores.
        only = complete(echo=True, logprobs=0, max_tokens=0).choices[0]
        self.assertEqual(only.text, FRANCE)
        self.assertEqual(only.logprobs.token_logprobs, scored.logprobs.token_logprobs[:-1])
        self.refused("logprobs", logprobs=21)

    def test_streams(self):
        whole = complete(echo=True, logprobs=1, max_tokens=4).choices[0]
        settings = {"echo": True, "logprobs": 1, "max_tokens": 4, "stream": True}
        *chunks, last = list(complete(stream_options={"include_usage": True}, **settings))
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), whole.text)
        told = [token for c in chunks if c.choices[0].logprobs for token in c.choices[0].logprobs.tokens]
        self.assertEqual(told, whole.logprobs.tokens)
        self.assertEqual(chunks[-1].choices[0].finish_reason, "length")
        self.assertEqual((last.choices, last.usage.completion_tokens), ([], 4))

    def test_settings_are_those_of_chats(self):
        self.assertEqual(complete(stop=".", max_tokens=9).choices[0].finish_reason, "stop")
        self.assertEqual(complete(logit_bias={str(tokens(" no")[0]): 100}).choices[0].text, " no no")
        self.assertEqual(complete(temperature=2, top_p=0).choices[0].text, " Paris.")
        self.assertEqual(complete(temperature=2, extra_body={"top_k": 1}).choices[0].text, " Paris.")
        self.assertEqual(complete(max_tokens=None).usage.completion_tokens, 16)
        self.assertEqual(complete(user="alice").choices[0].text, " Paris.")
        form = {"response_format": {"type": "regex", "pattern": " [0-9]{2}"}}
        self.assertRegex(complete(extra_body=form, max_tokens=9).choices[0].text, "^ [0-9]{2}$")
        self.refused("max_tokens", max_tokens=-1)

    def test_a_gap_cannot_be_filled_by_this_model(self):
        self.refused("suffix", suffix=" and so on.")

    def test_overflow_and_unknown_parameters(self):
        self.refused("prompt", "context_length_exceeded", prompt=[100] * 5000)
        self.refused(extra_body={"bananas": 3})


class Embeddings(unittest.TestCase):
    def embed(self, texts, **settings):
        return client.embeddings.create(**{"model": MODEL, "input": texts, **settings})

    def test_base64_and_floats_are_the_same_numbers(self):
        # The SDK itself asks for base64, and decodes it.
        default = self.embed(["a cat", "a dog"])
        floats = self.embed(["a cat", "a dog"], encoding_format="float")
        self.assertEqual([entry.index for entry in floats.data], [0, 1])
        for one, other in zip(default.data, floats.data):
            self.assertEqual(struct.pack("<576f", *one.embedding), struct.pack("<576f", *other.embedding))
            self.assertAlmostEqual(sum(x * x for x in one.embedding), 1, places=4)
        raw = self.embed("a cat", encoding_format="base64").data[0].embedding
        numbers = struct.unpack("<576f", base64.b64decode(raw))
        self.assertEqual(list(numbers), list(default.data[0].embedding))
        self.assertEqual(floats.usage.prompt_tokens, floats.usage.total_tokens)

    def test_mean_and_last_token(self):
        default = self.embed("a cat sleeps").data[0].embedding
        mean = self.embed("a cat sleeps", extra_body={"pooling": "mean"}).data[0].embedding
        last = self.embed("a cat sleeps", extra_body={"pooling": "last"}).data[0].embedding
        self.assertEqual(default, mean)
        self.assertNotEqual(mean, last)
        # Of one token they are the same.
        one = [tokens("cat")[:1]]
        self.assertEqual(
            self.embed(one, extra_body={"pooling": "mean"}).data[0].embedding,
            self.embed(one, extra_body={"pooling": "last"}).data[0].embedding,
        )

    def test_tokens_and_refusals(self):
        words = self.embed("a cat").data[0].embedding
        self.assertEqual(self.embed([tokens("a cat")]).data[0].embedding, words)
        self.assertEqual(self.embed("a cat", dimensions=576).data[0].embedding, words)
        for settings, param in [
            ({"texts": ""}, "input[0]"),
            ({"texts": []}, "input"),
            ({"texts": "a", "dimensions": 3}, "dimensions"),
            ({"texts": "a", "extra_body": {"pooling": "best"}}, "pooling"),
            ({"texts": "a", "encoding_format": "roman"}, "encoding_format"),
        ]:
            with self.assertRaises(openai.BadRequestError) as caught:
                self.embed(**settings)
            self.assertEqual(caught.exception.param, param)
        with self.assertRaises(openai.BadRequestError) as caught:
            self.embed([[100] * 5000])
        self.assertEqual(caught.exception.code, "context_length_exceeded")

    def test_an_embedding_model_does_nothing_else(self):
        found = self.embed(["Hello, world!", "hello"], model="bert")
        self.assertEqual([len(entry.embedding) for entry in found.data], [32, 32])
        with self.assertRaises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="bert", messages=HELLO)
        self.assertEqual(caught.exception.param, "model")


class Models(unittest.TestCase):
    def test_list_and_retrieve(self):
        found = list(client.models.list())
        self.assertEqual([model.id for model in found], [MODEL, "thinker", "bert", "wan"])
        self.assertTrue(all(model.object == "model" for model in found))
        one = client.models.retrieve(MODEL)
        self.assertEqual((one.id, one.state, one.context, one.kind), (MODEL, "ready", 4096, "text"))
        with self.assertRaises(openai.NotFoundError) as caught:
            client.models.retrieve("nobody")
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_unknown_models(self):
        for call in [
            lambda: client.chat.completions.create(model="nobody", messages=HELLO),
            lambda: client.completions.create(model="nobody", prompt="Hello"),
            lambda: client.embeddings.create(model="nobody", input="Hello"),
        ]:
            with self.assertRaises(openai.NotFoundError) as caught:
                call()
            error = caught.exception
            self.assertEqual((error.status_code, error.code, error.param), (404, "model_not_found", "model"))
            self.assertIn("smollm2", error.message)


class Errors(unittest.TestCase):
    def test_unknown_parameters(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"bananas": 3})
        error = caught.exception
        self.assertIn("bananas", error.message)
        self.assertEqual(error.type, "invalid_request_error")
        self.assertLessEqual({"message", "type", "param", "code"}, set(error.body))

    def test_wrong_types(self):
        for settings, param in [
            ({"temperature": "hot"}, "temperature"),
            ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
            ({"stop": [1]}, "stop"),
            ({"stream": "yes"}, "stream"),
        ]:
            with self.assertRaises(openai.BadRequestError) as caught:
                client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **settings})
            self.assertEqual(caught.exception.param, param, caught.exception.message)

    def test_bodies_that_are_too_large(self):
        with self.assertRaises(openai.APIStatusError) as caught:
            client.completions.create(model=MODEL, prompt="x" * (9 << 20))
        self.assertEqual(caught.exception.status_code, 413)

    def test_unknown_paths(self):
        with self.assertRaises(openai.NotFoundError):
            client.post("/fine_tuning/jobs", body={}, cast_to=object)

    def test_an_error_in_a_stream_request_is_an_error(self):
        with self.assertRaises(openai.BadRequestError):
            client.chat.completions.create(model=MODEL, messages=[], stream=True)


class Keys(unittest.TestCase):
    def keyed(self, key, **settings):
        return openai.OpenAI(base_url=f"{KEYED_SERVER}/v1", api_key=key, max_retries=0, **settings)

    def test_a_key_is_needed(self):
        for key in ["none", KEY + "x", KEY[:-1]]:
            with self.assertRaises(openai.AuthenticationError) as caught:
                self.keyed(key).models.list()
            error = caught.exception
            self.assertEqual((error.status_code, error.code), (401, "invalid_api_key"))
            self.assertEqual(error.type, "authentication_error")

    def test_a_key_lets_in(self):
        keyed = self.keyed(KEY)
        self.assertEqual([model.id for model in keyed.models.list()], ["tiny"])
        answer = keyed.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2, **GREEDY)
        self.assertEqual(answer.usage.completion_tokens, 2)
        # The other header, which Anthropic's clients send.
        request = urllib.request.Request(f"{KEYED_SERVER}/v1/models", headers={"x-api-key": KEY})
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            self.assertEqual(response.status, 200)


class ManyAtOnce(unittest.TestCase):
    def test_answers_are_those_given_alone(self):
        async def all_at_once():
            async with openai.AsyncOpenAI(base_url=f"{SERVER}/v1", api_key="none", max_retries=0) as many:
                asks = [
                    many.completions.create(
                        model=MODEL,
                        prompt=f"{number} and",
                        seed=number,
                        temperature=1,
                        max_tokens=4,
                        extra_body={"logits_digest": True},
                    )
                    for number in range(8)
                ]
                return await asyncio.gather(*asks)

        for number, together in enumerate(asyncio.run(all_at_once())):
            if number % 3:
                continue
            body = {"logits_digest": True}
            alone = complete(f"{number} and", seed=number, temperature=1, max_tokens=4, extra_body=body)
            self.assertEqual(alone.choices[0].text, together.choices[0].text)
            self.assertEqual(alone.wushi["logits_digests"], together.wushi["logits_digests"])

    def test_cancelling_a_request_ends_its_answer(self):
        async def cancelled():
            async with openai.AsyncOpenAI(base_url=f"{SERVER}/v1", api_key="none", max_retries=0) as many:
                endless = many.completions.create(
                    model=MODEL, prompt="On and", max_tokens=3000, logit_bias={"0": -100, "2": -100}, **GREEDY
                )
                task = asyncio.create_task(endless)
                self.assertTrue(await asyncio.to_thread(becomes_busy))
                self.assertFalse(task.done())
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(cancelled())
        self.assertTrue(becomes_idle())


if __name__ == "__main__":
    unittest.main()
