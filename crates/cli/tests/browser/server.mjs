// The page about the server.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answered, ask, occupy, profile } from './support.mjs';

test('the server’s page shows models, plots and usage', async () => {
  const { chat, page: open, end } = await profile();
  const asking = await chat();
  await ask(asking, 'Hello');
  await answered(asking);
  const page = await open('/server');
  const model = page.locator('[data-model="smollm2"]');
  await model.waitFor();
  assert.match(await model.innerText(), /ready[\s\S]*13\d M · Q4_1[\s\S]*MiB[\s\S]*weights/);
  assert.match(await page.locator('#about').innerText(), /^Version \d+\.\d+\.\d+ · running for /);
  assert.match(await page.locator('[data-tile="memory"]').innerText(), /MiB/);
  const row = page.locator('#usage tr', { hasText: 'without a key' });
  assert.match(await row.locator('td').first().innerText(), /^[1-9]/);

  // Two samples make a line; one of them has the tokens of the answer above.
  await page.waitForFunction(() => [...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.line')));
  await page.waitForFunction(() => /M.*L/.test(document.querySelector('[data-plot="throughput"] .line-0')?.getAttribute('d') ?? ''));
  assert.equal(await page.locator('.plot').count(), 5);
  const frame = page.locator('[data-plot="throughput"] .plot-frame');
  assert.match(await frame.getAttribute('aria-label'), /^Throughput\. answers: now .* tokens\/s, highest .* tokens\/s; prompts/);
  const readout = page.locator('[data-plot="throughput"] .readout');
  assert.match(await readout.innerText(), /^\d\d:\d\d:\d\d · answers .* tokens\/s · prompts/);
  await frame.hover();
  await page.locator('[data-plot="throughput"] .cross').waitFor({ state: 'attached' });
  await page.mouse.move(5, 5);
  await frame.focus();
  await page.keyboard.press('Home');
  await page.locator('[data-plot="throughput"] .cross').waitFor({ state: 'attached' });
  assert.equal(await readout.getAttribute('aria-live'), 'polite');
  await page.locator('[data-plot="ttft"]').getByText('As a table').click();
  await page.locator('[data-plot="ttft"] tbody tr').first().waitFor();
  await end();
});

test('what runs and waits is seen as it changes', async () => {
  const { page: open, end } = await profile();
  const page = await open('/server');
  const [first, second] = [await occupy(), await occupy()];
  const tile = (name) => page.locator(`[data-tile="${name}"] dd`);
  await tile('running').getByText('1', { exact: true }).waitFor();
  await tile('waiting').getByText('1', { exact: true }).waitFor();
  await second();
  await first();
  await tile('running').getByText('0', { exact: true }).waitFor();
  await page.getByRole('button', { name: '中文' }).click();
  await page.getByRole('heading', { name: '模型' }).waitFor();
  assert.match(await page.locator('#about').innerText(), /^版本/);
  await end();
});

test('a server that is gone is said to be', async () => {
  const { page: open, end } = await profile({ expects: ['ERR_FAILED', 'ERR_CONNECTION'] });
  const page = await open('/server');
  await page.locator('[data-model]').waitFor();
  await page.route('**/status', (route) => route.abort());
  await page.locator('#notice').getByText('The server cannot be reached; trying again.').waitFor();
  assert.ok(await page.locator('[data-model]').isVisible());
  await page.unroute('**/status');
  await page.locator('#notice').waitFor({ state: 'hidden' });
  await end();
});
