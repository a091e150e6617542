// The page of videos for everyone: keyboards, languages, narrow windows, screen readers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIDEO, faults, overflowing, profile } from './support.mjs';
import { SMALL, api, cleared, ended, make, words } from './video_support.mjs';

test('a video is made, seen and deleted by keyboard', async () => {
  await cleared();
  const { page: open, end } = await profile({ server: VIDEO });
  const page = await open('/video');
  const t = await words(page);
  const focused = () => page.evaluate(() => {
    const { id, ariaLabel, textContent, tagName } = document.activeElement;
    return id || ariaLabel || textContent || tagName;
  });
  const tabTo = async (wanted) => {
    for (let step = 0; step < 60; step += 1) {
      if (wanted.test(await focused())) return;
      await page.keyboard.press('Tab');
    }
    assert.fail(`no way to ${wanted}, at last ${await focused()}`);
  };
  const type = async (id, text) => {
    await tabTo(new RegExp(`^${id}$`));
    await page.keyboard.press('Control+A');
    await page.keyboard.type(text);
  };
  await page.keyboard.press('Tab');
  assert.equal(await focused(), t('video.skip'));
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.activeElement.id === 'prompt');
  await page.keyboard.type('a red circle');
  await tabTo(/^video-size$/);
  await page.keyboard.press('End');
  await page.locator('#video-width').waitFor();
  await type('video-width', '48');
  await type('video-height', '32');
  await type('video-length', '13');
  await type('video-steps', '4');
  await page.keyboard.press('ArrowUp');
  assert.equal(await page.inputValue('#video-steps'), '5');
  await type('video-seed', '7');
  await page.keyboard.press('Enter');
  const [job] = await ended(page, 1);
  assert.deepEqual([job.size, job.num_frames, job.num_inference_steps, job.seed], ['48x32', 13, 5, 7]);
  assert.equal(await focused(), 'video-seed');
  await page.locator('#announcer', { hasText: t('announce.video.done', { prompt: job.prompt }) }).waitFor({ state: 'attached' });
  await page.locator('.play').waitFor();
  await tabTo(new RegExp(t('job.play', { prompt: job.prompt })));
  assert.equal(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'solid');
  await page.keyboard.press('Space');
  await page.waitForFunction(() => document.activeElement.matches('video') && document.activeElement.currentTime > 0);
  await page.keyboard.press('Space');
  await page.waitForFunction(() => document.activeElement.paused);
  await tabTo(new RegExp(`^${t('job.delete')}`));
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  assert.equal(await focused(), t('remove.not'));
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await tabTo(new RegExp(`^${t('job.delete')}`));
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.activeElement.id === 'finished-title');
  assert.deepEqual((await api('/v1/videos')).data, []);
  await end();
});

test('the language changes where one stands', async () => {
  await cleared();
  const { page: open, end } = await profile({ server: VIDEO });
  const page = await open('/video');
  await make(page, await words(page), { ...SMALL, prompt: '一个红色的圆' }, 1);
  await ended(page, 1);
  await page.getByRole('button', { name: 'Play “一个红色的圆”' }).click();
  await page.locator('video').waitFor();
  await page.getByRole('button', { name: '中文' }).click();
  await page.getByRole('heading', { name: '你的视频' }).waitFor();
  await page.locator('.job').getByText('已完成').waitFor();
  assert.equal(await page.locator('.job video').count(), 1);
  assert.equal(await page.inputValue('#prompt'), '一个红色的圆');
  await page.locator('#plan').getByText('13 帧，0.81 秒（每秒 16 帧）').waitFor();
  await page.reload();
  await page.getByRole('button', { name: '播放“一个红色的圆”' }).waitFor();
  await end();
});

test('a phone’s width is enough for videos', async () => {
  await cleared();
  const { page: open, end } = await profile({ server: VIDEO, viewport: { width: 360, height: 700 }, hasTouch: true, isMobile: true });
  const page = await open('/video');
  const t = await words(page);
  assert.deepEqual(await overflowing(page), []);
  await make(page, t, { ...SMALL, prompt: `a ${'very'.repeat(40)} long word` }, 1);
  await ended(page, 1);
  await page.getByText(t('video.advanced')).tap();
  await page.locator('.job').getByText(t('job.details'), { exact: true }).tap();
  assert.deepEqual(await overflowing(page), []);
  await page.tap('.play');
  await page.locator('video').waitFor();
  assert.deepEqual(await overflowing(page), []);
  const server = await open('/server');
  await server.locator('[data-tile="videos"]').getByText(/0 waiting · .* on disk/).waitFor();
  assert.deepEqual(await overflowing(server), []);
  const chat = await open('/');
  await chat.waitForFunction(() => document.querySelector('#model').value);
  await chat.tap('#to-video');
  await chat.waitForURL('**/video');
  await end();
});

for (const colorScheme of ['light', 'dark']) {
  test(`no serious fault of accessibility in the page of videos, ${colorScheme}`, async () => {
    await cleared();
    const { page: open, end } = await profile({ server: VIDEO, colorScheme, bypassCSP: true, reducedMotion: 'reduce', expects: ['400', '404'] });
    const page = await open('/video');
    const t = await words(page);
    assert.deepEqual(await faults(page), [], 'empty');
    await make(page, t, { ...SMALL, prompt: 'a circle' }, 1);
    await ended(page, 1);
    await make(page, t, { width: 256, height: 256, frames: 129, steps: 40, seed: 1, prompt: 'long' }, 2);
    await page.getByText(t('video.advanced')).click();
    await page.fill('#video-fps', '100000');
    await page.locator('#error-fps').getByText(/1000/).waitFor();
    await page.locator('#finished').getByText(t('job.details'), { exact: true }).click();
    await page.locator('#queue progress').waitFor();
    assert.deepEqual(await faults(page), [], 'videos');
    await page.click('.play');
    await page.locator('video').waitFor();
    assert.deepEqual(await faults(page), [], 'player');
    await page.locator('#queue').getByRole('button', { name: t('job.stop') }).click();
    assert.deepEqual(await faults(page), [], 'question');
    await page.getByRole('dialog').getByRole('button', { name: t('remove.stop') }).click();
    await page.locator('#queue .job').waitFor({ state: 'detached' });
    await end();
  });
}
