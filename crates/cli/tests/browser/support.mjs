// What all tests share: a browser, servers, and the rule that a page asks nobody but its server and logs no error.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

/** Where the servers are; started by browser.rs. */
export const OPEN = process.env.OPEN_SERVER;
export const KEYED = process.env.KEYED_SERVER;
export const KEY = process.env.SERVER_KEY;
/** One that makes videos too, and one that wants a key and makes nothing else. */
export const VIDEO = process.env.VIDEO_SERVER;
export const KEYED_VIDEO = process.env.KEYED_VIDEO_SERVER;
export const VIDEO_KEY = process.env.VIDEO_KEY;

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

let browser = null;

export async function closeBrowser() {
  await browser?.close();
}

/**
 * A new profile of a browser. `model` and `settings` are what new chats begin with; short answers, the same
 * every time, unless said otherwise.
 * `expects` names console errors that belong to the test.
 */
export async function profile({ server = OPEN, settings = {}, model = null, expects = [], ...options } = {}) {
  browser ??= await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', colorScheme: 'light', ...options });
  context.setDefaultTimeout(120_000);
  const trouble = [];
  const origin = new URL(server).origin;
  context.on('request', (request) => {
    const url = new URL(request.url());
    if (!['blob:', 'data:'].includes(url.protocol) && url.origin !== origin) trouble.push(`asked ${url.origin}`);
  });
  context.on('console', (message) => {
    const known = expects.some((text) => message.text().includes(text));
    if (message.type() === 'error' && !known) trouble.push(message.text());
  });
  context.on('weberror', (error) => trouble.push(String(error.error())));
  const defaults = JSON.stringify({ model, settings: { max_tokens: 24, seed: 1, ...settings } });
  await context.addInitScript(([text]) => {
    // Kept choices are the test's own once it has changed them.
    if (location.protocol === 'http:' && localStorage.getItem('wushi.defaults') === null) localStorage.setItem('wushi.defaults', text);
  }, [defaults]);
  return {
    context,
    async chat(path = '/') {
      const page = await context.newPage();
      await page.goto(server + path);
      await page.waitForFunction(() => document.querySelector('#model')?.value);
      return page;
    },
    async page(path) {
      const page = await context.newPage();
      await page.goto(server + path);
      return page;
    },
    async end() {
      await context.close();
      assert.deepEqual(trouble, []);
    },
  };
}

/** Types a question and sends it. */
export async function ask(page, text) {
  await page.fill('#prompt', text);
  await page.press('#prompt', 'Enter');
}

/** Waits until `count` answers are complete, and gives the last one. */
export async function answered(page, count = 1) {
  await page.waitForFunction((n) => {
    const answers = document.querySelectorAll('.message.assistant');
    return answers.length === n && !document.querySelector('[data-writing]') && document.querySelector('#send').dataset.mode === 'send';
  }, count);
  return page.locator('.message.assistant').last();
}

export const answerText = (page) => page.locator('.message.assistant').last().locator('.answer').innerText();

/** What a figure below the last answer says. */
export const figure = (page, name) => page.locator('.message.assistant').last().locator(`[data-figure="${name}"]`).innerText();

export async function tool(page, label) {
  await page.locator('.message.assistant').last().getByRole('button', { name: label }).click();
}

/** A conversation as a file, with `answer` as what a model said. */
export function conversationFile(answer, extra = {}) {
  const nodes = {
    a: { id: 'a', parent: null, role: 'user', created: 1, state: 'done', content: 'Show me.' },
    b: { id: 'b', parent: 'a', role: 'assistant', created: 2, state: 'done', content: answer, model: 'smollm2', seed: 7, stats: {}, ...extra },
  };
  const conversation = { id: 'x', title: 'Imported', created: Date.now(), updated: Date.now(), model: 'smollm2', system: '', settings: {}, nodes, head: 'b' };
  return Buffer.from(JSON.stringify({ format: 'wushi-conversations', version: 1, conversations: [conversation] }));
}

export async function importFile(page, buffer) {
  await page.click('#open-panel');
  await page.setInputFiles('#file', { name: 'conversations.json', mimeType: 'application/json', buffer });
  await page.waitForFunction(() => document.querySelector('#import-result').textContent !== '');
  const result = await page.locator('#import-result').innerText();
  await page.click('#close-panel');
  return result;
}

// Nothing but a word, " mountain", that is one token of the default model: no end, and nothing that Markdown would take for
// more than it is, wherever it stops.
const ENDLESS = { max_tokens: 3500, temperature: 0, seed: 1, logit_bias: { 6740: 100 } };

/** Answers that this page asks for go on until they are stopped. */
export async function endless(page) {
  await page.route('**/v1/chat/completions', (route) => {
    route.continue({ postData: JSON.stringify({ ...route.request().postDataJSON(), ...ENDLESS }) });
  });
}

/** Occupies a server with an answer that goes on until it is let go. */
export async function occupy(server = OPEN) {
  const controller = new AbortController();
  const body = { model: 'smollm2', stream: true, messages: [{ role: 'user', content: 'Tell a story.' }], ...ENDLESS };
  const response = await fetch(`${server}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal: controller.signal,
  });
  assert.equal(response.status, 200);
  // Read on, or the server would wait for its reader.
  const drained = (async () => {
    for await (const piece of response.body) void piece;
  })().catch(() => {});
  return async () => {
    controller.abort();
    await drained;
  };
}

export async function status(server = OPEN) {
  return (await fetch(`${server}/status`)).json();
}

/** Serious faults by axe's rules, WCAG 2.2 AA among them. */
export async function faults(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html.slice(0, 120)} ${node.failureSummary}`).join(' | ')}`);
}

/** What is wider than the window. */
export async function overflowing(page) {
  return page.evaluate(() => {
    const wide = document.documentElement.scrollWidth > innerWidth ? [`page ${document.documentElement.scrollWidth}`] : [];
    // The tools of a conversation are cut off to nothing until it is pointed at.
    const scrolls = (element) => element.closest('.conversation-tools, .code pre, .table-frame, .conversation-title, .visually-hidden, #sidebar[inert], svg');
    for (const element of document.querySelectorAll('body *')) {
      const { right, width } = element.getBoundingClientRect();
      if (width > 0 && right > innerWidth + 1 && !scrolls(element.parentElement)) wide.push(`${element.tagName}.${element.className} ${right}`);
    }
    return wide;
  });
}
