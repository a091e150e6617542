// Elements and icons. Text is always set as text, never as HTML.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: attributes by name (null and false leave one out), `on: {event: listener}`, children or text. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

// Drawn on a grid of 24, strokes of 1.75.
const ICONS = {
  menu: ['M4 6.5h16M4 12h16M4 17.5h16'],
  plus: ['M12 5v14M5 12h14'],
  search: ['M10.5 4.5a6 6 0 1 0 0 12a6 6 0 1 0 0-12zM15 15l5 5'],
  sliders: ['M4 7h9M17 7h3M4 17h3M11 17h9', 'M15 4.8v4.4M9 14.8v4.4'],
  send: ['M12 19V5M5.5 11.5 12 5l6.5 6.5'],
  stop: ['M7 7h10v10H7z'],
  copy: ['M9 9h10v11H9z', 'M15 9V4H5v11h4'],
  check: ['M5 12.5 10 17.5 19.5 7'],
  again: ['M19.5 12a7.5 7.5 0 1 1-2.2-5.3M19.5 3.5v4h-4'],
  same: ['M19.5 12a7.5 7.5 0 1 1-2.2-5.3M19.5 3.5v4h-4', 'M9.2 10.8h5.6M9.2 14h5.6'],
  edit: ['M5 19h3.5L19 8.5 15.5 5 5 15.5z'],
  trash: ['M5 7h14M9.5 7V4.5h5V7M7 7l.8 12.5h8.4L17 7'],
  download: ['M12 4.5v10M7.5 10.5l4.5 4.5 4.5-4.5M5 19.5h14'],
  upload: ['M12 15V5M7.5 9 12 4.5 16.5 9M5 19.5h14'],
  left: ['M14.5 6 8.5 12l6 6'],
  right: ['M9.5 6l6 6-6 6'],
  down: ['M12 5v14M5.5 12.5 12 19l6.5-6.5'],
  close: ['M6 6l12 12M18 6 6 18'],
  chart: ['M4.5 19.5h15M7 16v-4M12 16V6M17 16V9'],
  chat: ['M5 5.5h14v10.5h-8L7 19.5V16H5z'],
  sun: ['M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8zM12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6 7 7M17 17l1.4 1.4M18.4 5.6 17 7M7 17l-1.4 1.4'],
  moon: ['M19 14.5A7.5 7.5 0 0 1 9.5 5a7.5 7.5 0 1 0 9.5 9.5z'],
  auto: ['M12 4.5a7.5 7.5 0 1 0 0 15a7.5 7.5 0 1 0 0-15z', 'M12 4.5v15M12 8h4.5M12 12h7M12 16h5'],
  globe: ['M12 4a8 8 0 1 0 0 16a8 8 0 1 0 0-16zM4 12h16', 'M12 4c-4.5 4.5-4.5 11.5 0 16M12 4c4.5 4.5 4.5 11.5 0 16'],
  more: ['M9 6.5 14.5 12 9 17.5'],
  warning: ['M12 4.5 20.5 19h-17zM12 10v4.5M12 16.6v.4'],
  film: ['M4.5 5.5h15v13h-15z', 'M8.5 5.5v13M15.5 5.5v13M4.5 12h15'],
  play: ['M8 5.5 18.5 12 8 18.5z'],
  forward: ['M5 12h13M12.5 6.5 18 12l-5.5 5.5'],
};

/** An icon; decoration, so that what it stands in needs a name. */
export function icon(name) {
  const paths = ICONS[name].map((d) => svg('path', { d }));
  return svg('svg', { class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': 'true', focusable: 'false' }, ...paths);
}

/** A button that is only an icon. */
export function iconButton(name, label, onClick, attributes = {}) {
  return el('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, on: { click: onClick }, ...attributes }, icon(name));
}

/** Copies text. Outside https and localhost browsers have no clipboard API, and a hidden field serves. */
export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed: the other way may be.
    }
  }
  const host = document.querySelector('dialog[open]') ?? document.body;
  const field = el('textarea', { class: 'visually-hidden', 'aria-hidden': 'true', tabindex: '-1' });
  const before = document.activeElement;
  field.value = text;
  host.append(field);
  field.select();
  const copied = document.execCommand('copy');
  field.remove();
  before?.focus?.();
  return copied;
}

/** Shows for a moment on the button that something was copied. */
export async function copyWith(button, text, done, failed) {
  const copied = await copyText(text);
  announce(copied ? done : failed);
  const old = button.querySelector('.icon');
  if (!old || button.dataset.busy) return;
  const mark = icon(copied ? 'check' : 'warning');
  button.dataset.busy = 'true';
  old.replaceWith(mark);
  setTimeout(() => {
    mark.replaceWith(old);
    delete button.dataset.busy;
  }, 1600);
}

/** Says something to screen readers, once. */
export function announce(text) {
  const place = byId('announcer');
  if (!place) return;
  // The same text twice is not news to a live region; another element is.
  place.replaceChildren(el('span', {}, text));
}
