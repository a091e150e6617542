// What the suites share: clients of the servers, short requests, and looks behind the API.

import OpenAI from "openai";

export const { OPEN_SERVER, KEYED_SERVER, SERVER_KEY } = process.env;
export const MODEL = "smollm2";
export const HELLO = [{ role: "user", content: "Say hello." }];

// No retries: an error is an error.
export const client = new OpenAI({ baseURL: `${OPEN_SERVER}/v1`, apiKey: "none", maxRetries: 0 });

/** The settings of a short answer, greedy unless said otherwise. */
export function settings(others = {}) {
  const length = "max_completion_tokens" in others ? {} : { max_tokens: 5 };
  return { model: MODEL, messages: HELLO, temperature: 0, seed: 1, ...length, ...others };
}

/** A short answer. */
export const chat = (others) => client.chat.completions.create(settings(others));

/** The text of a short answer. */
export async function text(others) {
  return (await chat(others)).choices[0].message.content;
}

/** All that a stream has. */
export async function all(stream) {
  const found = [];
  for await (const chunk of await stream) found.push(chunk);
  return found;
}

/** The ids of a text as it is. */
export async function tokens(words) {
  const body = JSON.stringify({ prompt: words, add_special_tokens: false });
  const response = await fetch(`${OPEN_SERVER}/tokenize`, { method: "POST", body });
  return (await response.json()).tokens;
}

/** Whether the model is as wanted within so many seconds. */
async function becomes(condition, seconds) {
  for (const end = performance.now() + 1000 * seconds; performance.now() < end; ) {
    const { models } = await (await fetch(`${OPEN_SERVER}/status`)).json();
    if (condition(models.find((model) => model.name === MODEL))) return true;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}

/** Whether nothing runs any more in a time that is too short for an answer that never ends by itself. */
export const becomesIdle = () => becomes((now) => now.running + now.waiting + now.pages.used === 0, 10);

/** Whether an answer begins. */
export const becomesBusy = () => becomes((now) => now.running > 0, 600);

/** A function for the model to call, with arguments that are quickly written. */
export const tool = (name, property, schema) => ({
  type: "function",
  function: {
    name,
    parameters: {
      type: "object",
      properties: { [property]: schema },
      required: [property],
      additionalProperties: false,
    },
  },
});
