// The server's API of videos.

import { request } from './api.js';

const PATH = '/v1/videos';

// What decides the frames of a video, and the file they come in, by the names of the API.
const SETTINGS = [
  'model', 'prompt', 'negative_prompt', 'width', 'height', 'num_frames', 'fps', 'num_inference_steps', 'guidance_scale',
  'guidance_scale_2', 'boundary_ratio', 'flow_shift', 'seed', 'output_format',
];

/** A seed may have more digits than a number of this language keeps: then it is a text, which the API takes as well. */
const parsed = async (response) => JSON.parse((await response.text()).replace(/("seed":\s*)(\d{16,})/g, '$1"$2"'));

const answer = async (...args) => parsed(await request(...args));
const path = (id) => `${PATH}/${encodeURIComponent(id)}`;

/** What would become of a request; nothing is made. */
export const planned = (body, signal) => answer(`${PATH}/plan`, { body, signal });

/** Puts a video into the queue. */
export const submit = (body) => answer(PATH, { body });

/** A page of videos, newest first, those after `after`. */
export function list({ after = null, limit }) {
  const query = new URLSearchParams({ limit, order: 'desc', ...(after && { after }) });
  return answer(`${PATH}?${query}`);
}

/** A video as it stands, and after how many milliseconds to ask again, if the server says. */
export async function look(id) {
  const response = await request(path(id));
  const pause = Number.parseInt(response.headers.get('openai-poll-after-ms') ?? '', 10);
  return { job: await parsed(response), pause: Number.isFinite(pause) ? pause : null };
}

/** Removes a video with its files; one that is being made is stopped. */
export const remove = (id) => request(path(id), { method: 'DELETE' });

/** A file of a video, whole: what has a key in its request cannot be an address in the page. */
export const content = async (id, variant = 'video') => (await request(`${path(id)}/content?variant=${variant}`)).blob();

/** The request that makes the same video again. */
export function sameAgain(job) {
  return Object.fromEntries(SETTINGS.map((name) => [name, job[name]]).filter(([, value]) => value !== null && value !== undefined));
}

/** Whether two videos were asked for with the same settings and seed, so that their frames must be the same. */
export function sameRequest(one, other) {
  const mark = (job) => JSON.stringify(SETTINGS.filter((name) => name !== 'output_format').map((name) => job[name] ?? null));
  return mark(one) === mark(other);
}

export const unfinished = (job) => job.status === 'queued' || job.status === 'in_progress';
