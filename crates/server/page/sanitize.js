// Texts of strangers to elements: whatever a model or an imported file says passes here, with a short list of what may
// stay. Nothing is fetched from elsewhere, and a link needs a click.

import './vendor/purify.js';

// The one instance: its policy for trusted types can be made once.
const purify = globalThis.DOMPurify;

/** What Markdown may become; of raw HTML, these tags alone. */
export const TAGS = (
  'p br hr h3 h4 h5 h6 strong em b i u s del ins mark sub sup kbd code pre blockquote ul ol li a img ' +
  'table thead tbody tr th td details summary'
).split(' ');
const ATTRIBUTES = ['href', 'title', 'start', 'align', 'class', 'src', 'alt', 'open', 'colspan', 'rowspan'];
export const LINK = /^(https?:\/\/|mailto:)/i;
export const INLINE_IMAGE = /^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*$/;

// The classes that code has: its language, and what highlighting adds.
const CLASSES = { CODE: /^language-[\w+#.-]{1,40}$/, SPAN: /^hljs-[\w -]{1,60}$/ };

purify.addHook('uponSanitizeAttribute', (element, attribute) => {
  const { attrName: name, attrValue: value } = attribute;
  if (name === 'class') attribute.keepAttr = CLASSES[element.nodeName]?.test(value) ?? false;
  if (name === 'href') attribute.keepAttr = LINK.test(value.trim());
  if (name === 'src') attribute.keepAttr = INLINE_IMAGE.test(value);
});
purify.addHook('afterSanitizeAttributes', (element) => {
  if (element.nodeName !== 'A') return;
  element.setAttribute('target', '_blank');
  element.setAttribute('rel', 'noopener noreferrer');
});

const clean = (html, tags, attributes) =>
  purify.sanitize(html, { ALLOWED_TAGS: tags, ALLOWED_ATTR: attributes, ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false, RETURN_DOM_FRAGMENT: true });

/** The elements of rendered Markdown. */
export const sanitized = (html) => clean(html, TAGS, ATTRIBUTES);

/** The elements of highlighted code. */
export const sanitizedCode = (html) => clean(html, ['span'], ['class']);
