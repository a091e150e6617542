// Words of the page, in the language chosen. Every string stands in lang-en.js and lang-zh.js under the same key.

import en from './lang-en.js';
import zh from './lang-zh.js';

export const LANGUAGES = { en, zh };

let current = document.documentElement.lang.startsWith('zh') ? 'zh' : 'en';
const listeners = new Set();

export const language = () => current;

/** BCP 47, for dates and numbers. */
export const locale = () => (current === 'zh' ? 'zh-CN' : 'en-GB');

/** The text of a key; `{n}` takes a value, `{n?one:many}` the word for one or for more. */
export function t(key, values = {}) {
  const text = LANGUAGES[current][key];
  if (text === undefined) throw new Error(`no text for ${key}`);
  return text
    .replace(/\{(\w+)\?([^:}]*):([^}]*)\}/g, (_, name, one, many) => (Number(values[name]) === 1 ? one : many))
    .replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ''));
}

/** Fills what HTML leaves open: data-t is the text, data-t-label name and tooltip, data-t-hint the placeholder. */
export function translate(root = document) {
  for (const element of root.querySelectorAll('[data-t]')) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll('[data-t-label]')) {
    const label = t(element.dataset.tLabel);
    element.setAttribute('aria-label', label);
    if (element.matches('button, a')) element.title = label;
  }
  for (const element of root.querySelectorAll('[data-t-hint]')) element.placeholder = t(element.dataset.tHint);
}

export function onLanguage(listener) {
  listeners.add(listener);
}

export function setLanguage(name) {
  if (!(name in LANGUAGES)) return;
  current = name;
  document.documentElement.lang = name === 'zh' ? 'zh-Hans' : 'en';
  keep('wushi.language', name);
  translate();
  for (const listener of listeners) listener();
}

/** A number with few digits, as the language writes it. */
export function number(value, digits = 0) {
  return value.toLocaleString(locale(), { minimumFractionDigits: 0, maximumFractionDigits: digits });
}

/** Three significant digits are enough for a rate. */
export function rate(value) {
  return number(value, value >= 100 ? 0 : value >= 10 ? 1 : 2);
}

/** Milliseconds for people. */
export function duration(ms) {
  if (ms < 1000) return `${number(ms, ms < 10 ? 1 : 0)} ms`;
  if (ms < 60_000) return `${number(ms / 1000, 1)} s`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 60) return `${minutes} min ${Math.floor((ms % 60_000) / 1000)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Bytes for people, in powers of 1024. */
export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let power = 0;
  while (value >= 1024 && power < units.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${number(value, power > 1 && value < 100 ? 1 : 0)} ${units[power]}`;
}

/** Keeps a setting of the page; null forgets it. A browser may forbid it, and the page works without. */
export function keep(name, value, where = 'localStorage') {
  try {
    if (value === null) window[where].removeItem(name);
    else window[where].setItem(name, value);
  } catch {
    // Lost with the tab.
  }
}

export function kept(name, where = 'localStorage') {
  try {
    return window[where].getItem(name);
  } catch {
    return null;
  }
}
