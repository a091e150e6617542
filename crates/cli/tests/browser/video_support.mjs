// What the tests of the page of videos share.

import assert from 'node:assert/strict';
import { VIDEO } from './support.mjs';

/** A video that the tiny pipeline makes in a moment. */
export const SMALL = { width: 48, height: 32, frames: 13, steps: 4, seed: 7 };

/** An answer of the server, asked without the page. */
export async function api(path, [server, key] = [VIDEO, null], method = 'GET') {
  const response = await fetch(server + path, { method, headers: key ? { authorization: `Bearer ${key}` } : {} });
  assert.equal(response.status, 200, `${method} ${path}`);
  return response.json();
}

/** Removes all videos of a server. */
export async function cleared(...where) {
  const place = where.length > 0 ? where : undefined;
  for (const { id } of (await api('/v1/videos?limit=100', place)).data) await api(`/v1/videos/${id}`, place, 'DELETE');
}

/** The page's texts in its language, by their keys. */
export async function words(page) {
  await page.waitForFunction(() => document.body.hasAttribute('data-listed') && document.querySelector('.plan-figures'));
  const [texts, language] = await page.evaluate(async () => {
    const { LANGUAGES, language } = await import('/page/i18n.js');
    return [LANGUAGES, language()];
  });
  return (key, values = {}) => {
    assert.ok(texts[language][key] !== undefined, key);
    return texts[language][key]
      .replace(/\{(\w+)\?([^:}]*):([^}]*)\}/g, (_, name, one, many) => (Number(values[name]) === 1 ? one : many))
      .replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ''));
  };
}

/** Fills the fields of the form. */
export async function describe(page, t, { width, height, frames, steps, seed }) {
  await page.getByLabel(t('video.size'), { exact: true }).selectOption('other');
  await page.getByLabel(t('video.width')).fill(String(width));
  await page.getByLabel(t('video.height')).fill(String(height));
  await page.getByLabel(t('video.length'), { exact: true }).fill(String(frames));
  await page.getByLabel(t('video.steps'), { exact: true }).fill(String(steps));
  await page.getByLabel(t('video.seed'), { exact: true }).fill(String(seed));
}

/** Asks for a video and waits until the page shows `count` of them; gives all, the oldest first. */
export async function make(page, t, { prompt, ...fields }, count, place = undefined) {
  await page.fill('#prompt', prompt);
  await describe(page, t, fields);
  await page.click('#submit');
  await page.waitForFunction((n) => document.querySelectorAll('.job').length === n, count);
  return (await api('/v1/videos?order=asc', place)).data;
}

/** Waits until `count` videos are made, and gives them, the newest first. */
export async function ended(page, count, place = undefined) {
  await page.waitForFunction((n) => document.querySelectorAll('#finished > [data-state="completed"]').length === n, count);
  return (await api('/v1/videos', place)).data;
}
