// Text of strangers, and Markdown as it grows.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { conversationFile, importFile, profile } from './support.mjs';

const HOSTILE = `Text <script>window.hacked = 1</script> and <img src=x onerror="window.hacked = 2">

<svg onload="window.hacked = 3"><a xlink:href="javascript:window.hacked=4">x</a></svg>

<iframe srcdoc="<script>parent.hacked = 5</script>"></iframe>

[one](javascript:window.hacked=6) [two](JaVaScRiPt:window.hacked=7) [three](data:text/html,<script>window.hacked=8</script>)
[four](&#106;avascript:window.hacked=9) [five](vbscript:x) [good](https://example.org/ "title")

![remote](https://example.org/track.png) ![x](javascript:window.hacked=10) ![y](data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=)

<a href="javascript:window.hacked=11" onclick="window.hacked=12" style="position:fixed;inset:0">click</a>
<form action="https://example.org/"><input name="q" autofocus onfocus="window.hacked=13"></form>
<style>body { display: none }</style><meta http-equiv="refresh" content="0;url=https://example.org/"><base href="https://example.org/">
<details open ontoggle="window.hacked=14"><summary>s</summary></details>
<math><mtext><table><mglyph><style><img src=x onerror="window.hacked=15">

\`\`\`js" onmouseover="window.hacked=16
let x = "<img src=x onerror=window.hacked=17>";
\`\`\`

| <img src=x onerror=window.hacked=18> | b |
|---|---|
| <b onclick="window.hacked=19">bold</b> | ${'>'.repeat(40)} |

<div id="messages"><p class="question" name="cookie">clobbered</p></div>
`;

test('Markdown of strangers does nothing but show', async () => {
  // What the sanitiser looks at without showing it keeps to the policy too.
  const { chat, end } = await profile({ expects: ['Applying inline style violates'] });
  const page = await chat();
  let dialogs = 0;
  page.on('dialog', (dialog) => {
    dialogs += 1;
    dialog.dismiss();
  });
  const title = '<img src=x onerror="window.hacked = 20">';
  const file = JSON.parse(conversationFile(HOSTILE, { reasoning: HOSTILE, model: title, finish: title, error: { message: title } }));
  Object.assign(file.conversations[0], { title, model: title, settings: { temperature: 'x', seed: 1, __proto__: { x: 1 } } });
  assert.equal(await importFile(page, Buffer.from(JSON.stringify(file))), '1 conversation imported.');
  await page.locator('.assistant .answer h3, .assistant .answer p').first().waitFor();
  await page.locator('.thought summary').click();
  await page.locator('.code').first().hover();
  for (const link of await page.locator('.answer a').all()) {
    // Without an address it leads nowhere.
    assert.match((await link.getAttribute('href')) ?? 'https://example.org', /^https:\/\/example\.org/);
    assert.equal(await link.getAttribute('rel'), 'noopener noreferrer');
    assert.equal(await link.getAttribute('target'), '_blank');
  }
  const found = await page.evaluate(() => {
    const place = document.querySelector('#messages');
    const attributes = [...place.querySelectorAll('*')].flatMap((element) => [...element.attributes].map(({ name }) => name));
    return {
      hacked: window.hacked,
      tags: place.querySelectorAll('script, iframe, object, embed, style, form, input, base, meta, math, link, .answer svg:not(.icon)').length,
      images: [...place.querySelectorAll('img')].map((image) => image.src),
      handlers: attributes.filter((name) => name.startsWith('on') || name === 'style' || name === 'srcdoc'),
      visible: getComputedStyle(document.body).display,
      ids: document.querySelectorAll('#messages').length,
      polluted: {}.x,
      shown: place.innerText.includes('<script>window.hacked = 1</script>'),
    };
  });
  assert.deepEqual(found, { hacked: undefined, tags: 0, images: [], handlers: [], visible: 'grid', ids: 1, polluted: undefined, shown: true });
  assert.equal(dialogs, 0);
  await end();
});

test('code is coloured and copied', async () => {
  const { chat, context, end } = await profile();
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const page = await chat();
  const code = 'def f(x):\n    return "<b>" + x  # 中文';
  await importFile(page, conversationFile(`Here:\n\n\`\`\`python\n${code}\n\`\`\`\n\n- in a list:\n\n  \`\`\`\n  plain\n  \`\`\`\n`));
  await page.locator('.code .hljs-keyword').first().waitFor();
  assert.equal(await page.locator('.code code').first().innerText(), code);
  await page.getByRole('button', { name: 'Copy code' }).first().click();
  await page.locator('#announcer').getByText('Copied.').waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), code);
  await page.locator('.assistant').getByRole('button', { name: 'Copy message' }).click();
  await page.waitForFunction(() => navigator.clipboard.readText().then((text) => text.startsWith('Here:\n\n```python')));
  await end();
});

const GROWING = `# Title

A paragraph with **bold** and a [link][ref] over
two lines.

- one
- two

  \`\`\`js
  const inside = 1;
  \`\`\`

- three

1. a
   1. b

| a | b |
|---|--:|
| 1 | 2 |

~~~rust
fn main() { println!("\`\`\`"); }
~~~

> quoted
> more

Setext
======

    indented code

<b>raw</b> <unknown>tag</unknown>

[ref]: https://example.org/

\`\`\`python
print("open to the end")
`;

test('Markdown that grows ends as if it had come at once, and what is settled stays', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  const result = await page.evaluate(async (text) => {
    const { MarkdownView } = await import('/page/markdown.js');
    await import('/page/vendor/highlight.js');
    const [whole, grown] = [document.createElement('div'), document.createElement('div')];
    document.body.append(whole, grown);
    new MarkdownView(whole).update(text, true);
    const view = new MarkdownView(grown);
    let first = null;
    let made = 0;
    const plain = text.replace('[ref]: https://example.org/', '');
    for (let end = 1; end <= plain.length; end += 1) {
      view.update(plain.slice(0, end));
      if (end > 60) {
        first ??= grown.firstElementChild;
        if (grown.firstElementChild !== first) made += 1;
      }
    }
    view.update(plain, true);
    const again = document.createElement('div');
    document.body.append(again);
    new MarkdownView(again).update(plain, true);
    // Highlighting comes when its library has: all the same by then.
    const late = new MarkdownView(document.createElement('div'));
    for (let end = 1; end <= text.length; end += 7) late.update(text.slice(0, end));
    late.update(text, true);
    await new Promise((resolve) => setTimeout(resolve, 0));
    const html = (element) => element.innerHTML.replace(/<\/?span[^>]*>/g, '').replace(/>\s+</g, '><').trim();
    return { made, same: html(grown) === html(again), late: html(late.element), whole: html(whole), links: whole.querySelectorAll('a').length, text: html(grown), other: html(again) };
  }, GROWING);
  assert.equal(result.made, 0, 'the first block is made once');
  assert.equal(result.text, result.other);
  assert.equal(result.late, result.whole, 'a definition at the end is taken into account');
  assert.equal(result.links, 1);
  await end();
});

test('a long answer is drawn in little time', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  const times = await page.evaluate(async () => {
    const { MarkdownView } = await import('/page/markdown.js');
    const place = document.createElement('div');
    document.body.append(place);
    const view = new MarkdownView(place);
    const block = 'A paragraph with some **bold** words and `code` in it.\n\n```python\nfor i in range(10):\n    print(i)\n```\n\n- one\n- two\n\n';
    let text = '';
    const spent = [];
    for (let round = 0; round < 400; round += 1) {
      text += block;
      const start = performance.now();
      view.update(text);
      spent.push(performance.now() - start);
    }
    // Of the faster half, which nothing else on the machine has interrupted.
    const sum = (list) => list.sort((a, b) => a - b).slice(0, list.length / 2).reduce((total, value) => total + value, 0);
    return { length: text.length, early: sum(spent.slice(50, 150)), late: sum(spent.slice(300, 400)) };
  });
  // The cost of a piece does not grow with what is there already (a factor for noise).
  assert.ok(times.late < 4 * times.early + 20, JSON.stringify(times));
  await end();
});

test('events are read however they are cut', async () => {
  const { chat, end } = await profile();
  const page = await chat();
  const read = await page.evaluate(async () => {
    const { events } = await import('/page/api.js');
    const bytes = new TextEncoder().encode(': queue 3\r\n\r\ndata: {"a":\ndata: "水"}\n\n:loading 0.42\n\nevent: x\nid: 1\ndata:[DONE]\r\r');
    const all = [];
    for (const size of [1, 2, 3, 7, 1000]) {
      const stream = new ReadableStream({
        start(controller) {
          for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
          controller.close();
        },
      });
      const found = [];
      for await (const event of events(stream)) found.push(event);
      all.push(JSON.stringify(found));
    }
    return all;
  });
  const expected = [{ comment: 'queue 3' }, { data: '{"a":\n"水"}' }, { comment: 'loading 0.42' }, { data: '[DONE]' }];
  for (const found of read) assert.deepEqual(JSON.parse(found), expected);
  await end();
});
