// OpenAI's SDK for Node: videos.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import OpenAI from "openai";

import { OPEN_SERVER, client } from "./support.mjs";

/** A video of a fraction of a second's work. */
const create = (others = {}) =>
  client.videos.create({
    model: "wan", prompt: "a blue square", size: "48x32", num_frames: 5, num_inference_steps: 2, seed: 7, ...others,
  });

/** The job when it is completed or has failed. */
async function finished(id) {
  for (;;) {
    const { data, response } = await client.videos.retrieve(id).withResponse();
    if (data.status === "completed" || data.status === "failed") return data;
    const after = Number(response.headers.get("openai-poll-after-ms"));
    assert.ok(after >= 500 && after <= 5000, `${after}`);
    await new Promise((resolve) => setTimeout(resolve, after));
  }
}

describe("videos", () => {
  it("are made, downloaded and deleted", async () => {
    const job = await create({ seconds: "0.3125" });
    assert.deepEqual([job.object, job.model, job.size, job.seconds], ["video", "wan", "48x32", "0.3125"]);
    const done = await finished(job.id);
    assert.deepEqual([done.status, done.progress, done.error], ["completed", 100, null]);
    const content = Buffer.from(await (await client.videos.downloadContent(job.id)).arrayBuffer());
    assert.deepEqual([content.subarray(4, 8).toString(), content.length], ["ftyp", done.bytes]);
    const part = await client.videos.downloadContent(job.id, {}, { headers: { Range: "bytes=4-7" } });
    assert.deepEqual([part.status, await part.text()], [206, "ftyp"]);
    const picture = await client.videos.downloadContent(job.id, { variant: "thumbnail" });
    assert.equal(picture.headers.get("content-type"), "image/webp");
    assert.deepEqual(await client.videos.delete(job.id), { id: job.id, object: "video.deleted", deleted: true });
    await assert.rejects(client.videos.retrieve(job.id), OpenAI.NotFoundError);
  });

  it("are listed page by page", async () => {
    const ids = [];
    for (let count = 0; count < 3; count++) ids.push((await create({ num_inference_steps: 1000, num_frames: 33 })).id);
    const found = [];
    for await (const video of client.videos.list({ limit: 2, order: "asc" })) found.push(video.id);
    assert.deepEqual(found, ids);
    for (const id of ids.reverse()) await client.videos.delete(id);
  });

  it("are refused by the field that cannot be", async () => {
    const refused = (others, param) =>
      assert.rejects(create(others), (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError, String(error));
        assert.equal(error.param, param, error.message);
        return true;
      });
    await refused({ size: "large" }, "size");
    await refused({ bananas: 3 }, "bananas");
    await refused({ input_reference: new File(["x"], "x.png", { type: "image/png" }) }, "input_reference");
    await refused({ input_reference: { file_id: "f" } }, "input_reference");
  });

  it("cannot be changed", async () => {
    const retrying = new OpenAI({ baseURL: `${OPEN_SERVER}/v1`, apiKey: "none" });
    for (const call of [
      () => retrying.videos.remix("video_0", { prompt: "x" }),
      () => retrying.videos.edit({ prompt: "x", video: { id: "video_0" } }),
      () => retrying.videos.extend({ prompt: "x", seconds: "4", video: { id: "video_0" } }),
      () => retrying.videos.createCharacter({ name: "x", video: new File(["x"], "x.mp4") }),
      () => retrying.videos.getCharacter("c"),
    ]) {
      await assert.rejects(call(), (error) => error.status === 501 && error.code === "not_implemented");
    }
  });
});
