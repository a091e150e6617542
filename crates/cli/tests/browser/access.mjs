// For everyone: keys, languages, themes, keyboards, narrow windows, screen readers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KEY, KEYED, answerText, answered, ask, conversationFile, endless, faults, importFile, overflowing, profile } from './support.mjs';

const WIDE = `# A title\n\nText, \`code\` and a [link](https://example.org/).\n\n\`\`\`python\nresult = function_with_a_long_name(argument_one, argument_two, argument_three, argument_four)\n\`\`\`\n
| river | country | length | discharge | mouth |\n|---|---|---|---|---|\n| Rhine | Germany | 1233 km | 2900 m³/s | North Sea |\n\n${'unbroken'.repeat(40)}\n\n> quoted\n\n- [x] done\n`;

test('both languages have the same texts', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  const { en, zh } = await page.evaluate(async () => (await import('/page/i18n.js')).LANGUAGES);
  assert.deepEqual(Object.keys(zh).sort(), Object.keys(en).sort());
  const places = (text) => [...new Set([...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]))].sort();
  for (const key of Object.keys(en)) {
    assert.notEqual(zh[key].trim(), '', key);
    assert.deepEqual(places(zh[key]), places(en[key]), key);
  }
  await end();
});

test('the language is the browser’s until another is chosen', async () => {
  const { chat, end } = await profile({ locale: 'zh-CN' });
  const page = await chat();
  assert.equal(await page.getAttribute('html', 'lang'), 'zh-Hans');
  await page.getByRole('button', { name: '新对话' }).waitFor();
  await ask(page, '你好');
  await answered(page);
  const text = await answerText(page);
  await page.getByRole('button', { name: 'English' }).click();
  await page.getByRole('button', { name: 'New chat' }).waitFor();
  await page.getByRole('button', { name: 'Another answer, with a new seed' }).waitFor();
  assert.equal(await answerText(page), text);
  await page.reload();
  await page.getByRole('button', { name: 'New chat' }).waitFor();
  assert.equal(await page.getAttribute('html', 'lang'), 'en');
  await page.getByRole('button', { name: '中文' }).click();
  await page.getByRole('button', { name: '新对话' }).waitFor();
  await end();
});

test('the theme is the system’s until another is chosen', async () => {
  const { chat, context, end } = await profile({ colorScheme: 'dark' });
  const page = await chat();
  const dark = () => page.evaluate(() => {
    const [red] = getComputedStyle(document.body).backgroundColor.match(/\d+/g);
    return Number(red) < 128;
  });
  assert.ok(await dark());
  await page.getByRole('button', { name: 'Theme: as the system' }).click();
  assert.ok(!(await dark()));
  await page.reload();
  await page.getByRole('button', { name: 'Theme: light' }).click();
  assert.ok(await dark());
  await page.getByRole('button', { name: 'Theme: dark' }).click();
  await page.emulateMedia({ colorScheme: 'light' });
  assert.ok(!(await dark()));
  assert.equal(context.pages().length, 1);
  await end();
});

test('a server with keys is asked with one', async () => {
  const { page: open, context, end } = await profile({ server: KEYED, expects: ['401'] });
  const page = await open('/');
  const dialog = page.getByRole('dialog');
  await dialog.getByText('This server wants a key').waitFor();
  await dialog.getByLabel('Key', { exact: true }).fill('wrong');
  await page.keyboard.press('Enter');
  await dialog.getByText('The server does not accept this key.').waitFor();
  await dialog.getByLabel('Key', { exact: true }).fill(KEY);
  await dialog.getByLabel(/Keep it in this browser/).check();
  await dialog.getByRole('button', { name: 'Use key' }).click();
  await page.waitForFunction(() => document.querySelector('#model').value);
  await ask(page, 'Hello');
  await answered(page);
  // Kept: another tab needs none, and the server's page shows whose tokens they were.
  const other = await context.newPage();
  await other.goto(`${KEYED}/server`);
  const row = other.locator('#usage tr', { hasText: 'browser' });
  await row.waitFor();
  assert.match(await row.locator('td').first().innerText(), /^[1-9]/);
  await other.close();
  await page.click('#open-panel');
  await page.getByRole('button', { name: 'Forget the key' }).click();
  await dialog.getByText('This server wants a key').waitFor();
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  await page.locator('#notice').getByText(/key/).waitFor();
  await end();
});

test('everything can be done by keyboard', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  await endless(page);
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.getAttribute('aria-label') || document.activeElement.textContent);
  assert.equal(await focused(), 'prompt');
  await page.keyboard.type('One');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('two: tell a long story');
  assert.equal(await page.inputValue('#prompt'), 'One\ntwo: tell a long story');
  // An input method's Enter chooses a word.
  await page.evaluate(() => {
    const event = { key: 'Enter', bubbles: true, cancelable: true };
    document.querySelector('#prompt').dispatchEvent(new KeyboardEvent('keydown', { ...event, isComposing: true }));
    document.querySelector('#prompt').dispatchEvent(new KeyboardEvent('keydown', { ...event, keyCode: 229 }));
  });
  assert.equal(await page.locator('.message').count(), 0);
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('.answer')?.textContent.length > 20);
  assert.equal(await focused(), 'prompt');
  await page.keyboard.press('Escape');
  await answered(page);

  // Backwards from the field: the tools of the answer come first, or all the way round if they were drawn anew meanwhile.
  for (let step = 0; step < 80 && !/Another answer/.test(await focused()); step += 1) await page.keyboard.press('Shift+Tab');
  assert.match(await focused(), /Another answer/);
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, 'solid');
  await page.keyboard.press('Enter');
  await page.locator('.assistant[data-writing]').waitFor();
  assert.equal(await focused(), 'prompt');
  await page.keyboard.press('Escape');
  await answered(page);
  await page.locator('.assistant .versions').getByText('2/2').waitFor();

  await page.locator('#open-panel').focus();
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await page.getByLabel('Temperature').focus();
  await page.keyboard.press('ArrowDown');
  assert.equal(await page.getByLabel('Temperature').inputValue(), '0.95');
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => document.activeElement.id === 'open-panel');

  await page.keyboard.press('Control+Shift+O');
  await page.locator('#welcome').waitFor();
  assert.equal(await focused(), 'prompt');
  await page.reload();
  await page.waitForFunction(() => document.activeElement.id === 'prompt');
  await page.locator('.skip').focus();
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.activeElement.id === 'prompt');
  await end();
});

test('a phone’s width is enough', async () => {
  const { chat, page: open, end } = await profile({ viewport: { width: 360, height: 700 }, hasTouch: true, isMobile: true });
  const page = await chat();
  assert.deepEqual(await overflowing(page), []);
  await page.fill('#prompt', 'Hello');
  // A phone's keyboard has no Shift+Enter: Enter breaks the line, the button sends.
  await page.press('#prompt', 'Enter');
  assert.equal(await page.locator('.message').count(), 0);
  await page.tap('#send');
  await answered(page);
  await importFile(page, conversationFile(WIDE, { stats: { prompt_tokens: 12345, completion_tokens: 12345, decode_tokens_per_s: 1234.5, ttft_ms: 12345 }, seed: 4294967295 }));
  await page.locator('.answer table').waitFor();
  assert.deepEqual(await overflowing(page), []);
  await page.tap('#open-panel');
  assert.deepEqual(await overflowing(page), []);
  await page.tap('#close-panel');
  await page.tap('#open-drawer');
  await page.locator('#close-drawer').waitFor();
  assert.ok(await page.evaluate(() => document.querySelector('#main').inert));
  // As it stands in the end, not on its way there.
  await page.evaluate(() => Promise.all(document.querySelector('#sidebar').getAnimations().map((way) => way.finished)));
  assert.deepEqual(await overflowing(page), []);
  await page.getByRole('button', { name: 'Hello', exact: true }).tap();
  await page.waitForFunction(() => document.querySelector('#sidebar').inert && !document.querySelector('#main').inert);
  await page.getByText('Hello', { exact: true }).and(page.locator('.question')).waitFor();
  const server = await open('/server');
  await server.locator('[data-model]').waitFor();
  assert.deepEqual(await overflowing(server), []);
  await end();
});

for (const colorScheme of ['light', 'dark']) {
  test(`no serious fault of accessibility, ${colorScheme}`, async () => {
    // axe is put in from outside, which the page's policy rightly forbids.
    const { chat, page: open, end } = await profile({ colorScheme, bypassCSP: true, reducedMotion: 'reduce' });
    const page = await chat();
    assert.deepEqual(await faults(page), [], 'welcome');
    await importFile(page, conversationFile(WIDE, { state: 'stopped', reasoning: 'Thought.', stats: { completion_tokens: 3 }, error: null }));
    await page.locator('.thought summary').click();
    await page.locator('.hljs-string, .code').first().waitFor();
    assert.deepEqual(await faults(page), [], 'conversation');
    await page.click('#open-panel');
    assert.deepEqual(await faults(page), [], 'settings');
    await page.click('#close-panel');
    await page.getByRole('button', { name: 'Delete “Imported”' }).click();
    assert.deepEqual(await faults(page), [], 'question');
    await page.getByRole('button', { name: 'Cancel' }).click();
    const server = await open('/server');
    await server.locator('[data-plot="kv"] .grid').first().waitFor({ state: 'attached' });
    await server.getByText('As a table').first().click();
    assert.deepEqual(await faults(server), [], 'server');
    await end();
  });
}
