// OpenAI's SDK for Node: the Responses API.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import OpenAI from "openai";

import { MODEL, all, client, text } from "./support.mjs";

const respond = (others) =>
  client.responses.create({
    model: MODEL, input: "Say hello.", temperature: 0, seed: 1, max_output_tokens: 5, ...others,
  });

describe("responses", { concurrency: 4 }, () => {
  it("say what a chat says", async () => {
    const answer = await respond();
    assert.equal(answer.output_text, await text());
    assert.equal(answer.status, "incomplete");
    assert.equal(answer.usage.output_tokens, 5);
    const items = [{ role: "user", content: [{ type: "input_text", text: "Say hello." }] }];
    assert.equal((await respond({ input: items })).output_text, answer.output_text);
    await assert.rejects(respond({ previous_response_id: "resp_1" }), OpenAI.BadRequestError);
    await assert.rejects(respond({ bananas: 3 }), /bananas/);
    await assert.rejects(respond({ model: "nobody" }), OpenAI.NotFoundError);
  });

  it("stream events", async () => {
    const events = await all(respond({ stream: true }));
    assert.equal(events[0].type, "response.created");
    assert.equal(events.at(-1).type, "response.incomplete");
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    assert.equal(deltas.map((event) => event.delta).join(""), await text());
    const stream = client.responses.stream({ model: MODEL, input: "Say hello.", temperature: 0, max_output_tokens: 5 });
    const final = await stream.finalResponse();
    assert.equal(final.output[0].content[0].text, await text());
  });

  it("call functions and follow schemas", async () => {
    const parameters = {
      type: "object", properties: { city: { enum: ["Paris", "Rome"] } }, required: ["city"], additionalProperties: false,
    };
    const tools = [{ type: "function", name: "get_weather", parameters, strict: true }];
    const called = await respond({ tools, tool_choice: "required", parallel_tool_calls: false, max_output_tokens: 60 });
    const call = called.output.find((item) => item.type === "function_call");
    assert.ok(["Paris", "Rome"].includes(JSON.parse(call.arguments).city));
    const format = { type: "json_schema", name: "place", strict: true, schema: parameters };
    const formed = await respond({ text: { format }, max_output_tokens: 40 });
    assert.ok(["Paris", "Rome"].includes(JSON.parse(formed.output_text).city));
  });
});
