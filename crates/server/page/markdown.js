// Markdown to elements, also while it is still being written.

import { CodeBlock } from './code.js';
import { el } from './dom.js';
import { t } from './i18n.js';
import { INLINE_IMAGE, LINK, TAGS, sanitized } from './sanitize.js';
import { Marked } from './vendor/marked.js';

const escape = (text) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

const tagsOf = (html) => [...html.matchAll(/<[/!?]?\s*([a-zA-Z][\w-]*|--)?/g)].map((match) => (match[1] ?? '').toLowerCase());

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    // Tags that would be taken out are shown as they were written: nothing of an answer disappears.
    html({ text }) {
      return tagsOf(text).every((tag) => tag !== 'img' && TAGS.includes(tag)) ? text : escape(text);
    },
    // Below the headings of the page.
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
    },
    checkbox({ checked }) {
      return checked ? '☑ ' : '☐ ';
    },
    image({ href, text }) {
      if (INLINE_IMAGE.test(href)) return `<img src="${escape(href)}" alt="${escape(text)}">`;
      const name = escape(text || href);
      return LINK.test(href) ? `<a href="${escape(href)}">${name}</a>` : name;
    },
  },
});

/** Code gets a head with a button to copy; tables get a frame that scrolls. */
function furnish(fragment) {
  for (const pre of fragment.querySelectorAll('pre')) {
    const code = pre.querySelector('code');
    const block = new CodeBlock(code?.className.replace('language-', '') ?? '');
    block.update((code ?? pre).textContent.replace(/\n$/, ''), true);
    pre.replaceWith(block.element);
  }
  for (const table of fragment.querySelectorAll('table')) {
    const frame = el('div', { class: 'table-frame', tabindex: '0', role: 'group', 'aria-label': t('markdown.table') });
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

function lex(text) {
  try {
    return marked.lexer(text);
  } catch {
    return null; // nested deeper than the stack: shown as it is
  }
}

function elementsOf(token, links) {
  try {
    const tokens = [token];
    tokens.links = links;
    return [...furnish(sanitized(marked.parser(tokens))).childNodes];
  } catch {
    return [el('p', { class: 'plain' }, token.raw)];
  }
}

const isFenced = (token) => token?.type === 'code' && /^ {0,3}(```|~~~)/.test(token.raw);
const languageOf = (token) => (token.lang ?? '').split(/\s/)[0].toLowerCase();

/**
 * A text that grows. Blocks that are complete are made once and left alone; only the last one, which may still
 * change its kind, is made again.
 */
export class MarkdownView {
  constructor(element) {
    this.element = element;
    this.reset();
  }

  reset() {
    this.settled = 0;
    this.tail = [];
    this.open = null;
    this.defines = false;
    this.element.replaceChildren();
  }

  /** Shows `text`, which begins as the text before did; `complete` once nothing will follow. */
  update(text, complete = false) {
    text = text.replaceAll('\r\n', '\n').replaceAll('\r', '\n');
    const tokens = lex(text.slice(this.settled));
    if (!tokens) {
      this.reset();
      this.element.append(el('p', { class: 'plain' }, text));
      return;
    }
    // A definition below may turn text above into links: then everything is made anew, once.
    this.defines ||= tokens.some(({ type }) => type === 'def');
    if (complete && this.defines && this.settled > 0) {
      this.reset();
      this.update(text, true);
      return;
    }
    if (complete) this.defines = false;
    // What comes last may still become something else, unless the text is complete.
    const last = complete ? tokens.length : tokens.findLastIndex((token) => token.type !== 'space');
    this.place(tokens, last, text);
  }

  place(tokens, last, text) {
    let settles = true;
    const settle = (token, index) => {
      settles = settles && index < last && text.startsWith(token.raw, this.settled);
      if (settles) this.settled += token.raw.length;
      return settles;
    };
    const goesOn = this.open !== null && isFenced(tokens[0]) && languageOf(tokens[0]) === this.open.language;
    if (!goesOn) this.clearTail();
    tokens.forEach((token, index) => {
      const settled = settle(token, index);
      if (index === 0 && goesOn) {
        this.open.update(token.text, settled);
        if (settled) this.forgetTail();
      } else if (token.type !== 'space') {
        const elements = index === last && isFenced(token) ? this.openCode(token) : elementsOf(token, tokens.links);
        this.element.append(...elements);
        if (!settled) this.tail.push(...elements);
      }
    });
  }

  openCode(token) {
    this.open = new CodeBlock(languageOf(token));
    this.open.update(token.text, false);
    return [this.open.element];
  }

  forgetTail() {
    this.tail = [];
    this.open = null;
  }

  clearTail() {
    for (const element of this.tail) element.remove();
    this.forgetTail();
  }
}
