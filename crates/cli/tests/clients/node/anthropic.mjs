// Anthropic's SDK for Node.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { HELLO, KEYED_SERVER, MODEL, OPEN_SERVER, SERVER_KEY, all, becomesIdle, text } from "./support.mjs";

const client = new Anthropic({ baseURL: OPEN_SERVER, apiKey: "none", maxRetries: 0 });
const settings = (others) => ({ model: MODEL, messages: HELLO, max_tokens: 5, temperature: 0, seed: 1, ...others });
const send = (others) => client.messages.create(settings(others));

const WEATHER = {
  name: "get_weather",
  input_schema: {
    type: "object", properties: { city: { enum: ["Paris", "Rome"] } }, required: ["city"], additionalProperties: false,
  },
};
const ASK = { messages: [{ role: "user", content: "What is the weather in Rome?" }], max_tokens: 60, tools: [WEATHER] };

describe("messages", { concurrency: 4 }, () => {
  it("say what a chat says", async () => {
    const answer = await send();
    assert.equal(answer.content[0].text, await text());
    assert.equal(answer.stop_reason, "max_tokens");
    assert.equal(answer.usage.output_tokens, 5);
    const stopped = await send({ stop_sequences: [" here"], max_tokens: 8 });
    assert.equal(stopped.stop_reason, "stop_sequence");
    assert.equal(stopped.stop_sequence, " here");
    assert.equal((await send({ temperature: 1, top_k: 1 })).content[0].text, await text());
    await assert.rejects(send({ bananas: 3 }), Anthropic.BadRequestError);
    await assert.rejects(send({ model: "nobody" }), Anthropic.NotFoundError);
  });

  it("stream events", async () => {
    const kinds = (await all(send({ stream: true }))).map((event) => event.type);
    assert.equal(kinds[0], "message_start");
    assert.equal(kinds.at(-1), "message_stop");
    const final = await client.messages.stream(settings()).finalMessage();
    assert.equal(final.content[0].text, await text());
  });

  it("use tools", async () => {
    const tool_choice = { type: "any", disable_parallel_tool_use: true };
    const answer = await send({ ...ASK, tool_choice });
    assert.equal(answer.stop_reason, "tool_use");
    assert.ok(["Paris", "Rome"].includes(answer.content.at(-1).input.city));
    const final = await client.messages.stream(settings({ ...ASK, tool_choice })).finalMessage();
    assert.deepEqual(final.content.at(-1).input, answer.content.at(-1).input);
    const tool_use_id = answer.content.at(-1).id;
    const result = { role: "user", content: [{ type: "tool_result", tool_use_id, content: "18 degrees" }] };
    const messages = [...ASK.messages, { role: "assistant", content: answer.content }, result];
    assert.ok((await send({ ...ASK, messages, max_tokens: 5 })).content.length > 0);
  });

  it("are counted", async () => {
    const { usage } = await send({ max_tokens: 1 });
    const counted = await client.messages.countTokens({ model: MODEL, messages: HELLO });
    assert.equal(counted.input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
  });

  it("need a key where there is one", async () => {
    const keyed = (apiKey) => new Anthropic({ baseURL: KEYED_SERVER, apiKey, maxRetries: 0 });
    const ask = settings({ model: "tiny", max_tokens: 1 });
    await assert.rejects(keyed("none").messages.create(ask), Anthropic.AuthenticationError);
    assert.equal((await keyed(SERVER_KEY).messages.create(ask)).usage.output_tokens, 1);
  });
});

describe("leaving", () => {
  it("ends the answer", async () => {
    const messages = [{ role: "user", content: "Count to a thousand." }];
    const stream = await send({ messages, max_tokens: 3000, stream: true });
    for await (const event of stream) {
      assert.ok(event.type);
      break;
    }
    stream.controller.abort();
    assert.ok(await becomesIdle());
  });
});
