// The page of videos, against a server with a tiny pipeline: from a description to a video that plays.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { KEYED_VIDEO, OPEN, VIDEO, VIDEO_KEY, profile } from './support.mjs';
import { SMALL, api, cleared, describe, ended, make, words } from './video_support.mjs';

/** The frame that a video shows now: its size, and its darkest and brightest value of green. */
function frame() {
  const video = document.querySelector('video');
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(video, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const greens = data.filter((_, index) => index % 4 === 1);
  return { width: canvas.width, height: canvas.height, duration: video.duration, darkest: Math.min(...greens), brightest: Math.max(...greens) };
}

for (const locale of ['en-GB', 'zh-CN']) {
  test(`a video from its description to its end, ${locale}`, async () => {
    await cleared();
    const { page: open, end } = await profile({ server: VIDEO, locale });
    const page = await open('/video');
    const t = await words(page);
    assert.equal(await page.title(), `${t('video.title')} · Wushi`);
    await page.getByText(t('video.nothing'), { exact: true }).waitFor();
    await page.getByLabel(t('video.prompt'), { exact: true }).fill('a red circle moving left');
    await describe(page, t, { ...SMALL, width: 50, height: 33, frames: 14 });

    // What it becomes and takes, before it is asked for.
    const plan = page.getByRole('region', { name: t('plan.title') });
    await plan.getByText(t('plan.changed.size', { wanted: '50 × 33', used: '48 × 32' })).waitFor();
    await plan.getByText(t('plan.changed.frames', { wanted: '14', used: '13' })).waitFor();
    const length = t('plan.length', { frames: '13', seconds: '0.81', fps: '16' });
    assert.equal(await plan.getByRole('status').innerText(), `48 × 32 · ${length} · ${t('plan.steps', { n: '4' })}`);
    assert.match(await plan.locator('[data-figure="memory"] dd').innerText(), /MiB/);
    assert.deepEqual(await plan.locator('tbody th').allInnerTexts(), [t('stage.text'), t('stage.denoising'), t('stage.decoding')]);
    assert.deepEqual((await api('/v1/videos')).data, []);

    await page.getByRole('button', { name: t('video.submit') }).click();
    const [first] = await ended(page, 1);
    assert.equal(new URL(page.url()).hash, `#${first.id}`);
    assert.deepEqual([first.size, first.num_frames, first.num_inference_steps, first.seed, first.prompt], ['48x32', 13, 4, 7, 'a red circle moving left']);
    const card = page.locator(`#${first.id}`);
    await card.getByText(t('job.completed'), { exact: true }).waitFor();
    await card.getByText(t('job.details'), { exact: true }).click();
    assert.equal(await card.locator('[data-detail="digest"] code').innerText(), first.frames_digest);
    assert.equal(await card.locator('[data-detail="seed"] code').innerText(), '7');

    await card.getByRole('button', { name: t('job.play', { prompt: first.prompt }) }).click();
    await page.waitForFunction(() => document.querySelector('video')?.currentTime > 0);
    const shown = await page.evaluate(frame);
    assert.deepEqual([shown.width, shown.height], [48, 32]);
    assert.ok(Math.abs(shown.duration - 13 / 16) < 1e-3, `${shown.duration} s`);
    assert.ok(shown.brightest > shown.darkest + 20, `from ${shown.darkest} to ${shown.brightest}: nothing is seen`);

    const downloading = page.waitForEvent('download');
    await card.getByRole('button', { name: t('job.download') }).click();
    const download = await downloading;
    assert.equal(download.suggestedFilename(), 'a-red-circle-moving-left-7.mp4');
    const served = await fetch(`${VIDEO}/v1/videos/${first.id}/content`);
    assert.ok(Buffer.from(await served.arrayBuffer()).equals(await readFile(await download.path())), 'not the server’s bytes');

    await card.getByRole('button', { name: t('job.again') }).click();
    const [second] = await ended(page, 2);
    assert.notEqual(second.id, first.id);
    assert.deepEqual([second.seed, second.frames_digest], [first.seed, first.frames_digest]);
    await page.locator(`#${second.id} .note.same`).waitFor();
    // What plays goes on.
    assert.equal(await card.locator('video').count(), 1);

    const other = page.locator(`#${second.id}`);
    await other.getByRole('button', { name: t('job.delete') }).click();
    const dialog = page.getByRole('dialog', { name: t('remove.delete.title') });
    await dialog.getByRole('button', { name: t('remove.not') }).click();
    assert.equal((await api('/v1/videos')).data.length, 2);
    await other.getByRole('button', { name: t('job.delete') }).click();
    await dialog.getByRole('button', { name: t('remove.delete'), exact: true }).click();
    await other.waitFor({ state: 'detached' });
    assert.deepEqual((await api('/v1/videos')).data.map(({ id }) => id), [first.id]);
    assert.equal((await fetch(`${VIDEO}/v1/videos/${second.id}`)).status, 404);
    await page.waitForFunction((id) => document.activeElement.id === id, first.id);
    await end();
  });
}

test('progress is seen, and a reload in the middle keeps the queue', async () => {
  await cleared();
  // A picture may be gone at the moment it is asked for.
  const { page: open, end } = await profile({ server: VIDEO, expects: ['404'] });
  const page = await open('/video');
  const t = await words(page);
  await page.fill('#prompt', 'a long way');
  await describe(page, t, { width: 256, height: 256, frames: 49, steps: 12, seed: 1 });
  await page.click('#submit');
  const [long] = await make(page, t, { ...SMALL, prompt: 'a short way' }, 2);
  const short = (await api('/v1/videos')).data.find(({ prompt }) => prompt === 'a short way');
  const [running, waiting] = [page.locator(`#${long.id}`), page.locator(`#${short.id}`)];
  await waiting.getByText(t('job.queued.after', { n: 1 })).waitFor();
  const step = new RegExp(t('job.denoising', { n: '([1-9]\\d*)', of: '12' }));
  await running.getByText(step).waitFor();
  await page.waitForFunction(() => document.querySelector('.job progress').value > 0 && /^\d+ % · /.test(document.title));
  const before = await running.locator('progress').evaluate(({ value }) => value);

  await page.reload();
  await running.waitFor();
  await page.locator('#queue > :nth-child(2)').waitFor();
  assert.deepEqual(await page.locator('#queue > .job').evaluateAll((cards) => cards.map(({ id }) => id)), [long.id, short.id]);
  assert.equal(await page.inputValue('#prompt'), 'a short way');
  await page.waitForFunction((value) => document.querySelector('.job progress').value > value, before);
  // The latest frame, and a newer one after it.
  const picture = running.locator('.job-view img');
  await picture.waitFor({ timeout: 400_000 });
  assert.equal(await picture.evaluate(async (image) => (await image.decode(), image.naturalWidth)), 256);
  const seen = await picture.getAttribute('src');
  assert.match(seen, /^blob:/);
  await page.waitForFunction((old) => document.querySelector('.job-view img')?.src !== old, seen);

  await waiting.getByRole('button', { name: t('job.unqueue') }).click();
  await page.getByRole('dialog').getByRole('button', { name: t('remove.unqueue') }).click();
  await waiting.waitFor({ state: 'detached' });
  await running.getByRole('button', { name: t('job.stop') }).click();
  await page.getByRole('dialog').getByRole('button', { name: t('remove.stop') }).click();
  await running.waitFor({ state: 'detached' });
  assert.ok(await page.locator('#queue-section').isHidden());
  assert.deepEqual((await api('/v1/videos')).data, []);
  await end();
});

test('a page that nobody looks at asks nothing', async () => {
  await cleared();
  const { page: open, end } = await profile({ server: VIDEO, expects: ['404'] });
  const page = await open('/video');
  const t = await words(page);
  await make(page, t, { width: 256, height: 256, frames: 129, steps: 40, seed: 1, prompt: 'unseen' }, 1);
  let asked = 0;
  page.on('request', () => (asked += 1));
  const hide = (hidden) => page.evaluate((value) => {
    Object.defineProperty(document, 'hidden', { get: () => value, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  await page.waitForRequest(/\/v1\/videos/);
  await hide(true);
  // Those under way, and the one that may have begun just then.
  await page.waitForTimeout(6000);
  asked = 0;
  await page.waitForTimeout(6000);
  assert.equal(asked, 0);
  const again = page.waitForRequest(/\/v1\/videos/);
  await hide(false);
  await again;
  await end();
  await cleared();
});

test('what is wrong is said at the field', async () => {
  await cleared();
  const { page: open, end } = await profile({ server: VIDEO, expects: ['400'] });
  const page = await open('/video');
  const t = await words(page);
  const wrong = (name) => page.locator(`#error-${name}`);
  const invalid = (selector) => page.locator(selector).getAttribute('aria-invalid');
  await page.click('#submit');
  assert.equal(await wrong('prompt').innerText(), t('video.error.prompt'));
  assert.equal(await page.evaluate(() => document.activeElement.id), 'prompt');
  await page.fill('#prompt', 'a circle');
  assert.ok(await wrong('prompt').isHidden());
  await describe(page, t, { ...SMALL, steps: 0 });
  await wrong('steps').getByText(t('video.error.number')).waitFor();
  assert.equal(await invalid('#video-steps'), 'true');
  assert.ok((await page.getAttribute('#video-steps', 'aria-describedby')).includes('error-steps'));
  await page.fill('#video-steps', '4');
  assert.equal(await invalid('#video-steps'), null);

  // The server's own words, while something is changed and when it is asked for.
  await page.fill('#video-guidance', '1000000');
  await wrong('guidance').getByText(/1000/).waitFor();
  await page.getByRole('region', { name: t('plan.title') }).getByText(t('plan.wrong')).waitFor();
  await page.fill('#video-guidance', '5');
  await page.locator('.plan-figures').waitFor();
  await page.fill('#prompt', 'circle '.repeat(2000));
  await page.click('#submit');
  await wrong('prompt').getByText(/tokens/).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), 'prompt');
  await page.fill('#prompt', 'a circle');
  assert.equal(await page.locator('#advanced').getAttribute('open'), null);
  await page.evaluate(() => (document.querySelector('#advanced').open = true));
  await page.fill('#video-fps', '100000');
  await wrong('fps').getByText(/1000/).waitFor();
  await page.evaluate(() => (document.querySelector('#advanced').open = false));
  await page.click('#submit');
  // What is folded away is opened where something in it is wrong.
  await page.waitForFunction(() => document.querySelector('#advanced').open && document.activeElement.id === 'video-fps');
  assert.deepEqual((await api('/v1/videos')).data, []);
  await end();
});

test('what does not fit is told, with what would', async () => {
  await cleared();
  const { page: open, end } = await profile({ server: VIDEO });
  const page = await open('/video');
  const t = await words(page);
  await page.fill('#prompt', 'a circle');
  // The usual sizes are tried while nothing is changed.
  await page.locator('#video-size option', { hasText: t('video.shape.square') }).first().waitFor({ state: 'attached' });
  await page.route('**/v1/videos/plan', async (route) => {
    const response = await route.fetch();
    const plan = await response.json();
    // A machine with less memory than this one.
    const limit = 1 << 20;
    await route.fulfill({ response, json: { ...plan, fits: plan.width <= 480, reason: 'decoding needs more', memory: { ...plan.memory, limit } } });
  });
  await page.fill('#video-length', '17');
  await page.getByText(t('plan.too.much')).waitFor();
  assert.equal(await page.locator('#plan [lang="en"]').innerText(), 'decoding needs more');
  const use = page.locator('#plan .error button');
  await use.first().waitFor();
  const name = await use.first().innerText();
  await use.first().click();
  await page.getByText(t('plan.too.much')).waitFor({ state: 'detached' });
  const [width, height] = name.match(/\d+/g);
  await page.locator('#plan').getByRole('status').getByText(`${width} × ${height}`).waitFor();
  await end();
});

test('a server without a video model says how to have one, and the ways between the pages', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  await page.getByRole('link', { name: 'Video' }).first().click();
  await page.getByRole('heading', { name: 'This server has no video model' }).waitFor();
  await page.getByText(/^wushi serve hf:/).waitFor();
  assert.ok(await page.locator('#form').isHidden());
  assert.equal(new URL(page.url()).origin, new URL(OPEN).origin);
  await page.getByRole('link', { name: 'Chat' }).click();
  await page.waitForFunction(() => document.querySelector('#model')?.value);
  await page.getByRole('link', { name: 'Server' }).click();
  await page.getByRole('link', { name: 'Video' }).click();
  await page.getByRole('heading', { name: 'This server has no video model' }).waitFor();
  await end();
});

test('with a key, and for a server that makes nothing but videos', async () => {
  await cleared(KEYED_VIDEO, VIDEO_KEY);
  const { page: open, end } = await profile({ server: KEYED_VIDEO, expects: ['401', 'ERR_FILE_NOT_FOUND'] });
  const page = await open('/');
  await page.getByRole('dialog').getByLabel('Key', { exact: true }).fill(VIDEO_KEY);
  await page.keyboard.press('Enter');
  await page.waitForURL('**/video');
  const t = await words(page);
  const asked = [];
  page.on('request', (request) => asked.push(request));
  await page.getByText(t('video.advanced')).click();
  await page.selectOption('#video-format', 'gif');
  await make(page, t, { ...SMALL, prompt: 'a circle' }, 1, [KEYED_VIDEO, VIDEO_KEY]);
  const [job] = await ended(page, 1, [KEYED_VIDEO, VIDEO_KEY]);
  const card = page.locator(`#${job.id}`);
  const address = () => card.locator('.job-view img').getAttribute('src');
  await card.locator('.play img').waitFor();
  const thumbnail = await address();
  await card.getByRole('button', { name: t('job.play', { prompt: job.prompt }) }).click();
  const stop = card.getByRole('button', { name: t('job.play.stop') });
  await stop.waitFor();
  assert.equal(await card.locator('.job-view img').evaluate(async (image) => (await image.decode(), image.naturalWidth)), 48);
  const film = await address();
  assert.ok(film.startsWith('blob:') && film !== thumbnail);
  // Addresses of what is shown no more are given back.
  const lost = await page.evaluate((address) => new Promise((resolve) => {
    const image = new Image();
    image.addEventListener('load', () => resolve(false));
    image.addEventListener('error', () => resolve(true));
    image.src = address;
  }), thumbnail);
  assert.ok(lost, `${thumbnail} is still there`);
  await stop.click();
  await card.getByRole('button', { name: t('job.play', { prompt: job.prompt }) }).waitFor();
  const contents = asked.filter((request) => request.url().includes('/content'));
  assert.ok(contents.length >= 2);
  for (const request of contents) assert.equal(request.headers().authorization, `Bearer ${VIDEO_KEY}`);
  // The way to the chat stays open.
  await page.getByRole('link', { name: t('nav.chat') }).click();
  await page.getByText(/no model to chat with/).waitFor();
  await end();
});
