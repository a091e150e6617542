// Blocks of code: highlighted in the background of what is written, with a button to copy.

import { copyWith, el, icon } from './dom.js';
import { t } from './i18n.js';
import { sanitizedCode } from './sanitize.js';

// Fetched with the first block that needs it.
let library = null;
let loading = null;

function highlighter() {
  loading ??= import('./vendor/highlight.js').then((module) => {
    library = module.default;
  });
  return loading;
}

// Longer ones stay plain: colouring them would hold up the page.
const MOST_HIGHLIGHTED = 100_000;

/** One block. While it grows, it is coloured again only as often as costs a tenth of the time. */
export class CodeBlock {
  constructor(language) {
    this.language = language.toLowerCase();
    this.text = '';
    this.next = 0;
    this.code = el('code', { class: 'hljs' });
    const label = el('span', { class: 'code-language' }, this.language || t('code.plain'));
    const copy = el('button', { type: 'button', class: 'code-copy', 'aria-label': t('code.copy') }, icon('copy'), el('span', {}, t('code.copy.short')));
    copy.addEventListener('click', () => copyWith(copy, this.text, t('copied'), t('copy.failed')));
    const frame = el('pre', { tabindex: '0', role: 'group', 'aria-label': t('code.label', { language: label.textContent }) }, this.code);
    this.element = el('div', { class: 'code' }, el('div', { class: 'code-head' }, label, copy), frame);
  }

  update(text, complete) {
    const grown = text.startsWith(this.text) ? text.slice(this.text.length) : null;
    this.text = text;
    if (grown === null) this.code.replaceChildren(text);
    else if (grown) this.code.append(grown);
    if (this.language && text.length <= MOST_HIGHLIGHTED && (complete || performance.now() >= this.next)) this.highlight(complete);
  }

  highlight(complete) {
    if (!library) {
      this.next = Infinity;
      highlighter().then(
        () => {
          this.next = 0;
          this.highlight(complete);
        },
        () => {}, // plain text serves
      );
      return;
    }
    if (!library.getLanguage(this.language)) {
      this.next = Infinity;
      return;
    }
    const start = performance.now();
    const html = library.highlight(this.text, { language: this.language, ignoreIllegals: true }).value;
    this.code.replaceChildren(sanitizedCode(html));
    this.code.normalize();
    const end = performance.now();
    this.next = end + Math.max(50, 10 * (end - start));
  }
}
