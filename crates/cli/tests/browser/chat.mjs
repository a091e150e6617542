// Asking, and what can be done with an answer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OPEN, answerText, answered, ask, endless, figure, occupy, profile, status, tool } from './support.mjs';

test('an answer comes piece by piece, with its figures', async () => {
  const { chat, end } = await profile({ settings: { max_tokens: 120 } });
  const page = await chat();
  await page.evaluate(() => {
    window.lengths = new Set();
    const place = document.querySelector('#messages');
    new MutationObserver(() => {
      window.lengths.add(place.querySelector('.answer')?.textContent.length ?? 0);
    }).observe(place, { childList: true, subtree: true, characterData: true });
  });
  await ask(page, 'Why is the sky blue?');
  await answered(page);
  const lengths = await page.evaluate(() => [...window.lengths]);
  assert.ok(lengths.length > 3, `seen to grow: ${lengths}`);
  assert.ok((await answerText(page)).length > 20);
  assert.match(await figure(page, 'tokens'), /^\d+ tokens$/);
  assert.match(await figure(page, 'prompt'), /^prompt \d+$/);
  assert.match(await figure(page, 'speed'), /tokens\/s$/);
  assert.match(await figure(page, 'ttft'), /^first after /);
  assert.match(await figure(page, 'seed'), /^seed \d+$/);
  assert.match(await page.locator('#context').innerText(), /of [\d,]+ tokens of context/);
  assert.match(await page.locator('#announcer').textContent(), /^Answer finished\./);
  await end();
});

test('stop ends the answer here and on the server, and it can be continued', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  await endless(page);
  await ask(page, 'Tell me a very long story about a mountain.');
  await page.waitForFunction(() => document.querySelector('.answer')?.textContent.length > 40);
  const { x, y, width, height } = await page.locator('#send').boundingBox();
  // Just after sending the button does not stop yet, lest a second press of it does.
  while ((await page.getAttribute('#send', 'data-mode')) === 'stop') await page.mouse.click(x + width / 2, y + height / 2);
  await answered(page);
  assert.match(await page.locator('.note').innerText(), /Stopped/);
  let running = 1;
  while (running > 0) running = (await status()).models[0].running;
  const text = await answerText(page);
  assert.match(await figure(page, 'tokens'), /^≈ /);
  await tool(page, 'Continue this answer');
  await page.waitForFunction((n) => document.querySelector('.answer').textContent.length > n + 40, text.length);
  await page.keyboard.press('Escape');
  await answered(page);
  assert.ok((await answerText(page)).replace(/\s+/g, ' ').startsWith(text.replace(/\s+/g, ' ').trim()));
  await end();
});

test('another answer has another seed; the same seed gives the same answer', async () => {
  const { chat, end } = await profile({ settings: { temperature: 1 } });
  const page = await chat();
  await ask(page, 'Invent a name for a boat.');
  await answered(page);
  const [text, seed] = [await answerText(page), await figure(page, 'seed')];
  await tool(page, 'Another answer, with a new seed');
  await page.locator('.assistant .versions').getByText('2/2').waitFor();
  await answered(page);
  assert.notEqual(await figure(page, 'seed'), seed);
  await tool(page, 'Previous version');
  assert.equal(await answerText(page), text);
  await tool(page, /The same again, with seed/);
  await page.locator('.note.same').waitFor();
  assert.equal(await answerText(page), text);
  assert.equal(await figure(page, 'seed'), seed);
  assert.equal(await page.locator('.assistant .versions').innerText(), '3/3');
  await end();
});

test('conversations stay: after a reload, by name, until they are deleted', async () => {
  const { chat, end } = await profile({ settings: { temperature: 0 } });
  const page = await chat();
  await ask(page, 'Name a colour.');
  await answered(page);
  const text = await answerText(page);
  await page.reload();
  await answered(page);
  assert.equal(await answerText(page), text);

  await page.getByRole('button', { name: 'Rename “Name a colour.”' }).click();
  await page.getByLabel('New title').fill('Colours');
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Rename “Colours”' }).waitFor();
  assert.equal(await page.title(), 'Colours · Wushi');

  await page.click('#new');
  await ask(page, 'Name a river.');
  await answered(page);
  assert.equal(await page.locator('.conversation').count(), 2);
  await page.fill('#search', 'river');
  await page.waitForFunction(() => document.querySelectorAll('.conversation').length === 1);
  await page.fill('#search', '');
  await page.getByRole('button', { name: 'Colours', exact: true }).click();
  await page.waitForFunction((t) => document.querySelector('.answer')?.innerText === t, text);
  await page.goBack();
  await page.getByText('Name a river.', { exact: true }).and(page.locator('.question')).waitFor();

  await page.getByRole('button', { name: 'Delete “Name a river.”' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await page.waitForFunction(() => document.querySelectorAll('.conversation').length === 1);
  await page.reload();
  await page.waitForFunction(() => document.querySelectorAll('.conversation').length === 1);
  await end();
});

test('an edited question gets another answer, and nothing is lost', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  await ask(page, 'Name a tree.');
  await answered(page);
  await page.getByRole('button', { name: 'Edit and send again' }).click();
  await page.getByLabel('Edit your message').fill('Name a flower.');
  await page.keyboard.press('Enter');
  await page.getByText('Name a flower.').waitFor();
  await answered(page);
  assert.equal(await page.locator('.question').count(), 1);
  await page.locator('.user').getByRole('button', { name: 'Previous version' }).click();
  await page.getByText('Name a tree.', { exact: true }).and(page.locator('.question')).waitFor();
  await answered(page);
  await end();
});

test('settings are sent, what will not do is not', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  await page.click('#open-panel');
  await page.fill('#system', 'Answer with one word.');
  await page.getByLabel('Temperature').fill('0.5');
  await page.getByLabel('Top-k').fill('40');
  await page.getByLabel('Seed', { exact: true }).fill('123');
  await page.getByLabel('Top-p').fill('7');
  assert.equal(await page.getByLabel('Top-p').getAttribute('aria-invalid'), 'true');
  await page.click('#close-panel');
  const sent = page.waitForRequest('**/v1/chat/completions');
  await ask(page, 'Hello');
  const body = (await sent).postDataJSON();
  await answered(page);
  assert.deepEqual(body.messages, [{ role: 'system', content: 'Answer with one word.' }, { role: 'user', content: 'Hello' }]);
  const { temperature, top_k, seed, max_tokens } = body;
  assert.deepEqual({ temperature, top_k, seed, max_tokens }, { temperature: 0.5, top_k: 40, seed: 123, max_tokens: 24 });
  assert.ok(!('top_p' in body));
  assert.equal(await figure(page, 'seed'), 'seed 123');
  await end();
});

test('a new chat takes a model that is there', async () => {
  const { chat, end } = await profile({ model: 'elsewhere' });
  const page = await chat();
  // The list comes a moment after the page.
  await page.waitForFunction((name) => document.querySelector('#model').value === name, 'smollm2');
  await ask(page, 'Hello');
  await answered(page);
  assert.equal(await page.locator('.answer-head').innerText(), 'smollm2');
  await end();
});

test('the place in the queue is shown while waiting', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  const first = await occupy();
  const second = await occupy();
  await ask(page, 'And me?');
  await page.getByText('In the queue: 1 request before this one').waitFor();
  await second();
  await page.getByText('Next in the queue').waitFor();
  await first();
  await answered(page);
  assert.ok((await answerText(page)).length > 0);
  await end();
});

test('an error is shown where the answer would be, and asking again helps', async () => {
  const { chat, end } = await profile({ expects: ['429', '400', 'ERR_FAILED'] });
  const page = await chat();
  const error = { error: { message: 'the queue is full', type: 'rate_limit_error', param: null, code: 'queue_full' } };
  await page.route('**/v1/chat/completions', (route) => route.fulfill({ status: 429, headers: { 'retry-after': '7' }, json: error }));
  await ask(page, 'Hello');
  await page.locator('.error').getByText('the queue is full').waitFor();
  await page.locator('.error').getByText('trying again in 7 s').waitFor();
  await page.unroute('**/v1/chat/completions');
  await page.route('**/v1/chat/completions', (route) => route.abort());
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.locator('.error').getByText('The server cannot be reached.').waitFor();
  await page.unroute('**/v1/chat/completions');
  await page.getByRole('button', { name: 'Try again' }).click();
  await answered(page);
  assert.equal(await page.locator('.error').count(), 0);
  assert.equal(await page.locator('.message').count(), 2);
  // A conversation that is longer than the context: the server's own words.
  await page.fill('#prompt', 'word '.repeat(9000));
  await page.press('#prompt', 'Enter');
  await page.locator('.error').waitFor();
  assert.match(await page.locator('.error').innerText(), /tokens/);
  await end();
});

test('what a model thinks is folded away', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  const chunk = (value) => `data: ${JSON.stringify(value)}\n\n`;
  const delta = (fields, finish = null) => chunk({ choices: [{ index: 0, delta: fields, finish_reason: finish }] });
  const body = [
    ': loading 0.42\n\n', ': queue 0\n\n', delta({ reasoning_content: 'Let me ' }), delta({ reasoning_content: 'see.' }),
    delta({ content: 'Four.' }), delta({}, 'stop'), chunk({ choices: [], usage: { prompt_tokens: 5, completion_tokens: 4 }, wushi: {} }), 'data: [DONE]\n\n',
  ].join('');
  await page.route('**/v1/chat/completions', (route) => route.fulfill({ contentType: 'text/event-stream', body }));
  await ask(page, 'Two and two?');
  await answered(page);
  assert.equal(await answerText(page), 'Four.');
  assert.ok(!(await page.getByText('Let me see.').isVisible()));
  await page.getByText('What the model thought').click();
  assert.ok(await page.getByText('Let me see.').isVisible());
  await end();
});

test('tabs tell each other', async () => {
  const { chat, end } = await profile();
  const [one, two] = [await chat(), await chat()];
  await ask(one, 'Name a bird.');
  await two.getByRole('button', { name: 'Name a bird.', exact: true }).waitFor();
  await answered(one);
  await two.getByRole('button', { name: 'Name a bird.', exact: true }).click();
  await answered(two);
  await ask(two, 'Another one.');
  await answered(two, 2);
  await one.waitForFunction((text) => [...document.querySelectorAll('.answer')].at(-1).innerText === text, await answerText(two));
  await answered(one, 2);
  await two.getByRole('button', { name: 'Delete “Name a bird.”' }).click();
  await two.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await one.locator('#welcome').waitFor();
  assert.equal(await one.locator('.conversation').count(), 0);
  await end();
});

test('an export is imported again as it was', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  await ask(page, 'Name a city.');
  await answered(page);
  const text = await answerText(page);
  const saved = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Export “Name a city.”' }).click();
  const path = await (await saved).path();
  await page.getByRole('button', { name: 'Delete “Name a city.”' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await page.locator('#welcome').waitFor();
  await page.click('#open-panel');
  await page.setInputFiles('#file', path);
  await page.getByText('1 conversation imported.').waitFor();
  await page.setInputFiles('#file', { name: 'other.json', mimeType: 'application/json', buffer: Buffer.from('{"format":1}') });
  await page.getByText('This file is no export of conversations.').waitFor();
  await page.click('#close-panel');
  await answered(page);
  assert.equal(await answerText(page), text);
  await end();
});

test('a browser that keeps nothing can chat all the same', async () => {
  const { chat, context, end } = await profile();
  await context.addInitScript(() => {
    IDBFactory.prototype.open = () => {
      throw new DOMException('no', 'SecurityError');
    };
  });
  const page = await chat();
  await page.locator('#notice').getByText('does not let the page keep conversations').waitFor();
  await ask(page, 'Hello');
  await answered(page);
  await ask(page, 'And again');
  await answered(page, 2);
  await end();
});

test('the reader who scrolls up is left in peace', async () => {
  const { chat, end } = await profile({ viewport: { width: 900, height: 420 } });
  const page = await chat();
  await endless(page);
  await ask(page, 'Tell me a long story about the sea, with many paragraphs.');
  const far = () => page.waitForFunction(() => document.querySelector('#scroller').scrollHeight > 900);
  await far();
  const place = () => page.evaluate(() => document.querySelector('#scroller').scrollTop);
  const atEnd = () => page.waitForFunction(() => {
    const { scrollTop, scrollHeight, clientHeight } = document.querySelector('#scroller');
    return scrollHeight - scrollTop - clientHeight < 60;
  });
  await atEnd();
  await page.mouse.move(500, 150);
  await page.mouse.wheel(0, -300);
  await page.locator('#to-end').waitFor();
  await page.evaluate(async () => {
    const scroller = document.querySelector('#scroller');
    // A wheel's way may take some frames.
    for (let [still, place] = [0, -1]; still < 10; still = scroller.scrollTop === place ? still + 1 : 0) {
      place = scroller.scrollTop;
      await new Promise(requestAnimationFrame);
    }
  });
  const [before, length] = [await place(), (await answerText(page)).length];
  await page.waitForFunction((n) => document.querySelector('.answer').innerText.length > n + 200, length);
  assert.equal(await place(), before);
  await page.click('#to-end');
  await atEnd();
  await page.keyboard.press('Escape');
  await answered(page);
  await end();
});

test('the page is served with strict headers', async () => {
  const response = await fetch(`${OPEN}/`);
  assert.match(response.headers.get('content-security-policy'), /default-src 'self'.*frame-ancestors 'none'/);
  assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
  const again = await fetch(`${OPEN}/page/chat.js`, { headers: { 'if-none-match': (await fetch(`${OPEN}/page/chat.js`)).headers.get('etag') } });
  assert.equal(again.status, 304);
  assert.equal((await fetch(`${OPEN}/page/..%2f..%2fCargo.toml`)).status, 404);
});
