// OpenAI's SDK for Node: what the Python suite checks in depth is seen here through this client's own types and helpers.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import OpenAI from "openai";

import {
  HELLO, KEYED_SERVER, MODEL, OPEN_SERVER, SERVER_KEY, all, becomesBusy, becomesIdle, chat, client, settings, text, tokens, tool,
} from "./support.mjs";

const WEATHER = tool("get_weather", "city", { enum: ["Paris", "Rome"] });
const CLOCK = tool("get_time", "utc", { type: "boolean" });
const ASK = [{ role: "user", content: "What is the weather in Rome?" }];
const SCHEMA = {
  type: "object",
  properties: { colour: { enum: ["red", "green"] }, certain: { type: "boolean" } },
  required: ["colour", "certain"],
  additionalProperties: false,
};

/** The request must be refused with 400, about this parameter. */
async function refused(param, request) {
  await assert.rejects(request, (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError, String(error));
    assert.equal(error.status, 400);
    assert.equal(error.type, "invalid_request_error");
    assert.equal(error.param, param, error.message);
    return true;
  });
}

const refusedChat = (param, others) => refused(param, () => chat(others));

describe("chat", { concurrency: 8 }, () => {
  it("samples as it is told", async () => {
    const greedy = await text();
    assert.equal(await text({ seed: 9 }), greedy);
    for (const cut of [{ top_p: 0 }, { top_k: 1 }, { min_p: 1 }]) {
      assert.equal(await text({ temperature: 2, ...cut }), greedy, JSON.stringify(cut));
    }
    const hot = await text({ temperature: 2, seed: 3 });
    assert.notEqual(hot, greedy);
    assert.equal(await text({ temperature: 2, seed: 3 }), hot);
    await refusedChat("temperature", { temperature: -1 });
    await refusedChat("top_p", { top_p: 2 });
    await refusedChat("top_k", { top_k: -2 });
    await refusedChat("min_p", { min_p: -1 });
    await refusedChat("seed", { seed: 0.5 });
  });

  it("gives several answers", async () => {
    const answer = await chat({ n: 3, temperature: 1.5 });
    const texts = answer.choices.map((choice) => choice.message.content);
    assert.equal(new Set(texts).size, 3);
    assert.equal(texts[0], await text({ temperature: 1.5 }));
    await refusedChat("n", { n: 0 });
  });

  it("penalises, forces and bans", async () => {
    const [[yes], [no]] = [await tokens(" yes"), await tokens(" no")];
    const bias = { logit_bias: { [yes]: 100, [no]: 98.3 }, max_tokens: 6 };
    const words = async (others) => new Set((await text({ ...bias, ...others })).trim().split(" "));
    assert.deepEqual(await words({}), new Set(["yes"]));
    for (const penalty of [{ frequency_penalty: 2 }, { presence_penalty: 2 }, { repetition_penalty: 1.5 }]) {
      assert.deepEqual(await words(penalty), new Set(["yes", "no"]), JSON.stringify(penalty));
    }
    assert.ok(!(await text({ logit_bias: { [(await tokens("Hello"))[0]]: -100 } })).startsWith("Hello"));
    await refusedChat("frequency_penalty", { frequency_penalty: 3 });
    await refusedChat("presence_penalty", { presence_penalty: 3 });
    await refusedChat("repetition_penalty", { repetition_penalty: -1 });
    await refusedChat("logit_bias", { logit_bias: { no: 1 } });
  });

  it("reports log-probabilities", async () => {
    const { logprobs, message } = (await chat({ logprobs: true, top_logprobs: 2 })).choices[0];
    assert.equal(logprobs.content.map((token) => token.token).join(""), message.content);
    for (const token of logprobs.content) {
      assert.equal(Buffer.from(token.bytes).toString(), token.token);
      assert.equal(token.top_logprobs.length, 2);
      assert.equal(token.top_logprobs[0].logprob, token.logprob);
    }
    await refusedChat("top_logprobs", { top_logprobs: 2 });
  });

  it("ends where it is told", async () => {
    for (const length of [{ max_tokens: 2 }, { max_completion_tokens: 2 }]) {
      const answer = await chat(length);
      assert.equal(answer.usage.completion_tokens, 2);
      assert.equal(answer.choices[0].finish_reason, "length");
    }
    for (const stop of [" here", ["nowhere to be found", " here"]]) {
      const answer = await chat({ stop, max_tokens: 8 });
      assert.equal(answer.choices[0].finish_reason, "stop");
      assert.equal(answer.choices[0].message.content, "Hello! I'm");
    }
    await refusedChat("max_tokens", { max_tokens: 0 });
    await refusedChat("max_completion_tokens", { max_completion_tokens: 0 });
  });

  it("streams chunks as OpenAI has them", async () => {
    const chunks = await all(chat({ stream: true, stream_options: { include_usage: true } }));
    const last = chunks.pop();
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.completion_tokens, 5);
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    assert.equal(chunks.at(-1).choices[0].finish_reason, "length");
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), await text());
    await refusedChat("stream_options", { stream_options: { include_usage: true } });
  });

  it("takes texts, parts and the beginning of an answer", async () => {
    const content = [{ type: "text", text: "Say hello." }];
    assert.equal(await text({ messages: [{ role: "user", content }] }), await text());
    const image = { type: "image_url", image_url: { url: "https://example.com/cat.png" } };
    const messages = [{ role: "user", content: [image] }];
    await refusedChat("messages[0].content[0]", { messages });
    const begun = [...HELLO, { role: "assistant", content: "The capital of France is" }];
    assert.equal(await text({ messages: begun, continue_final_message: true, max_tokens: 1 }), " Paris");
    await refusedChat("messages", { messages: [] });
  });

  it("hands variables to the template", async () => {
    const length = async (others) => (await chat({ model: "thinker", max_tokens: 1, ...others })).usage.prompt_tokens;
    const plain = await length();
    assert.ok((await length({ reasoning_effort: "high" })) > plain);
    assert.ok((await length({ chat_template_kwargs: { mood: "sunny" } })) > plain);
    await refusedChat("reasoning_effort", { reasoning_effort: "enormous" });
  });

  it("accepts what changes nothing, and nothing unknown", async () => {
    assert.equal(await text({ user: "alice", store: false, metadata: { a: "b" } }), await text());
    await assert.rejects(chat({ bananas: 3 }), /bananas/);
  });
});

describe("tools", { concurrency: 4 }, () => {
  const tools = [WEATHER, CLOCK];
  const ask = (others) => settings({ messages: ASK, tools, max_tokens: 100, ...others });

  it("are called as tool_choice says", async () => {
    const named = { type: "function", function: { name: "get_time" } };
    for (const [tool_choice, names] of [["required", ["get_weather", "get_time"]], [named, ["get_time"]]]) {
      const answer = (await chat(ask({ tool_choice, parallel_tool_calls: false }))).choices[0];
      assert.equal(answer.finish_reason, "tool_calls");
      assert.equal(answer.message.tool_calls.length, 1);
      const call = answer.message.tool_calls[0].function;
      assert.ok(names.includes(call.name));
      assert.equal(Object.keys(JSON.parse(call.arguments)).length, 1);
    }
    const silent = (await chat(ask({ tool_choice: "none", max_tokens: 5 }))).choices[0];
    assert.equal(silent.message.tool_calls, undefined);
    const free = (await chat(ask({ tool_choice: "auto", max_tokens: 20 }))).choices[0];
    assert.ok(free.message.content || free.message.tool_calls);
    await refusedChat("tool_choice", { tool_choice: "required" });
    await refusedChat("tools", { tools: [WEATHER, WEATHER] });
  });

  it("come as fragments by index", async () => {
    const chunks = await all(chat(ask({ tool_choice: "required", parallel_tool_calls: false, stream: true })));
    const fragments = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
    assert.equal(fragments[0].index, 0);
    assert.ok(fragments[0].id && fragments[0].function.name);
    assert.ok(fragments.length > 1 && fragments.slice(1).every(({ index, id }) => index === 0 && id === undefined));
    JSON.parse(fragments.map((fragment) => fragment.function.arguments).join(""));
    assert.equal(chunks.at(-1).choices[0].finish_reason, "tool_calls");
  });

  it("are run by the SDK, and their results read", async () => {
    let city;
    const runner = client.chat.completions.runTools({
      ...settings({ messages: ASK, max_tokens: 60 }),
      tool_choice: { type: "function", function: { name: "get_weather" } },
      tools: [{
        type: "function",
        function: {
          ...WEATHER.function,
          parse: JSON.parse,
          function: (found) => ((city = found.city), "18 degrees"),
        },
      }],
    });
    await runner.done();
    assert.ok(["Paris", "Rome"].includes(city));
    const result = runner.messages.find((message) => message.role === "tool");
    assert.equal(result.content, "18 degrees");
  });
});

describe("forms of answers", { concurrency: 4 }, () => {
  const json_schema = { name: "verdict", strict: true, schema: SCHEMA };

  it("follow a schema, whole and as a stream", async () => {
    const response_format = { type: "json_schema", json_schema };
    const wanted = settings({ response_format, max_tokens: 60, temperature: 1 });
    const whole = await client.chat.completions.parse(wanted);
    const parsed = JSON.parse(whole.choices[0].message.content);
    assert.deepEqual(Object.keys(parsed).sort(), ["certain", "colour"]);
    assert.equal(whole.choices[0].finish_reason, "stop");
    const stream = client.chat.completions.stream(wanted);
    assert.deepEqual(JSON.parse(await stream.finalContent()), parsed);
  });

  it("are objects, or match an expression", async () => {
    const object = await text({ response_format: { type: "json_object" }, max_tokens: 10 });
    assert.match(object, /^\s*\{/);
    const pattern = "(red|green) [0-9]{2}";
    const matched = await text({ response_format: { type: "regex", pattern }, max_tokens: 20 });
    assert.match(matched, /^(red|green) [0-9]{2}$/);
  });

  it("are refused where they cannot be", async () => {
    const bad = { name: "x", schema: { type: "banana" } };
    await refusedChat("response_format", { response_format: { type: "json_schema", json_schema: bad } });
    const remote = { name: "x", schema: { $ref: "https://example.com/schema" } };
    await refusedChat("response_format", { response_format: { type: "json_schema", json_schema: remote } });
  });
});

describe("completions", { concurrency: 4 }, () => {
  const complete = (prompt, others) =>
    client.completions.create({ model: MODEL, prompt, temperature: 0, seed: 1, max_tokens: 2, ...others });

  it("take texts and tokens, one or several", async () => {
    const france = "The capital of France is";
    const ids = await tokens(france);
    for (const prompt of [france, ids, [france], [ids]]) {
      assert.equal((await complete(prompt)).choices[0].text, " Paris.");
    }
    const echoed = (await complete(france, { echo: true, logprobs: 1 })).choices[0];
    assert.equal(echoed.text, `${france} Paris.`);
    assert.equal(echoed.logprobs.tokens.join(""), echoed.text);
    const chunks = await all(complete(france, { stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), " Paris.");
    await refused("suffix", () => complete(france, { suffix: "!" }));
    await refused("prompt", () => complete(new Array(5000).fill(100)));
  });
});

describe("embeddings", () => {
  it("are the same in base64, which the SDK asks for, and as numbers", async () => {
    const input = ["a cat", "a dog"];
    const packed = await client.embeddings.create({ model: MODEL, input });
    const plain = await client.embeddings.create({ model: MODEL, input, encoding_format: "float" });
    for (const index of [0, 1]) {
      assert.equal(plain.data[index].embedding.length, 576);
      assert.deepEqual([...packed.data[index].embedding], [...new Float32Array(plain.data[index].embedding)]);
    }
    const last = await client.embeddings.create({ model: MODEL, input, pooling: "last", encoding_format: "float" });
    assert.notDeepEqual(last.data[0].embedding, plain.data[0].embedding);
  });
});

describe("models, errors and keys", () => {
  it("are listed and found", async () => {
    const names = (await all(client.models.list())).map((model) => model.id);
    assert.deepEqual(names, [MODEL, "thinker", "bert", "wan"]);
    assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
    const unknown = (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found";
    await assert.rejects(client.models.retrieve("nobody"), unknown);
    await assert.rejects(chat({ model: "nobody" }), unknown);
  });

  it("say that a context is too short", async () => {
    const messages = [{ role: "user", content: "word ".repeat(5000) }];
    await assert.rejects(chat({ messages }), (error) => error.code === "context_length_exceeded");
  });

  it("say that a body is too large", async () => {
    const messages = [{ role: "user", content: "x".repeat(9 << 20) }];
    await assert.rejects(chat({ messages }), (error) => error.status === 413);
  });

  it("let in who has one", async () => {
    const keyed = (apiKey) => new OpenAI({ baseURL: `${KEYED_SERVER}/v1`, apiKey, maxRetries: 0 });
    await assert.rejects(keyed("none").models.list(), OpenAI.AuthenticationError);
    assert.equal((await all(keyed(SERVER_KEY).models.list())).length, 1);
  });
});

describe("leaving", () => {
  const [never, bias] = [{ max_tokens: 3000, temperature: 1 }, { logit_bias: { 2: -100 } }];

  it("a stream ends its answer", async () => {
    const stream = await chat({ ...never, ...bias, stream: true });
    for await (const chunk of stream) {
      assert.ok(chunk.choices);
      break;
    }
    stream.controller.abort();
    assert.ok(await becomesIdle());
  });

  it("a request ends its answer", async () => {
    const leaving = new AbortController();
    const answer = client.chat.completions.create(settings({ ...never, ...bias }), { signal: leaving.signal });
    const left = assert.rejects(answer, OpenAI.APIUserAbortError);
    assert.ok(await becomesBusy());
    leaving.abort();
    await left;
    assert.ok(await becomesIdle());
  });
});

