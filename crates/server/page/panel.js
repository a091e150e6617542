// The settings of a conversation, and what concerns the page as a whole.

import { byId, el } from './dom.js';
import { onLanguage, t } from './i18n.js';
import { forgetKey, currentKey } from './key.js';
import { FIELDS, parse } from './settings.js';

/**
 * `get()` gives the conversation; `changed()` after each change; the rest is done by the page: asDefault(),
 * exportAll(), importFile(file) → text, removeAll(), keyForgotten().
 */
export function startPanel(page) {
  const panel = byId('panel');
  const inputs = new Map(FIELDS.map((field) => [field.name, input(field, page)]));

  const draw = () => {
    byId('fields').replaceChildren(...FIELDS.map((field) => row(field, inputs.get(field.name))));
  };
  const show = () => {
    const { system, settings } = page.get();
    byId('system').value = system;
    for (const [name, element] of inputs) {
      element.value = settings[name] ?? '';
      validity(element, true);
    }
    byId('key-section').hidden = currentKey() === null;
    byId('import-result').textContent = '';
    panel.showModal();
  };

  draw();
  onLanguage(draw);
  byId('open-panel').addEventListener('click', show);
  byId('close-panel').addEventListener('click', () => panel.close());
  panel.addEventListener('click', (event) => {
    if (event.target === panel) panel.close(); // beside it
  });
  byId('system').addEventListener('input', (event) => {
    page.get().system = event.target.value;
    page.changed();
  });
  byId('reset').addEventListener('click', () => {
    Object.assign(page.get(), { system: '', settings: {} });
    page.changed();
    panel.close();
    show();
    byId('reset').focus();
  });
  const say = (text) => {
    byId('import-result').textContent = text;
  };
  byId('use-as-default').addEventListener('click', () => {
    page.asDefault();
    say('');
    flash(byId('use-as-default'), 'panel.default.done', 'panel.default');
  });
  byId('export').addEventListener('click', () => page.exportAll());
  byId('import').addEventListener('click', () => byId('file').click());
  byId('file').addEventListener('change', async (event) => {
    const [file] = event.target.files;
    if (file) say(await page.importFile(file));
    event.target.value = '';
  });
  byId('remove-all').addEventListener('click', () => page.removeAll());
  byId('forget-key').addEventListener('click', () => {
    forgetKey();
    byId('key-section').hidden = true;
    panel.close();
    page.keyForgotten();
  });
}

function flash(button, words, old) {
  button.textContent = t(words);
  setTimeout(() => {
    button.textContent = t(old);
  }, 1600);
}

function input(field, page) {
  // Text, not number: a browser's number field hides what it cannot read, and turns with the mouse wheel.
  const element = el('input', {
    id: `field-${field.name}`, inputmode: field.whole ? 'numeric' : 'decimal', autocomplete: 'off', 'aria-describedby': `hint-${field.name}`,
  });
  element.addEventListener('input', () => {
    const value = parse(field, element.value);
    validity(element, value !== undefined);
    if (value === undefined) return;
    const { settings } = page.get();
    if (value === null) delete settings[field.name];
    else settings[field.name] = value;
    page.changed();
  });
  element.addEventListener('keydown', (event) => {
    const step = { ArrowUp: field.step, ArrowDown: -field.step }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = Number(((parse(field, element.value) ?? startOf(field)) + step).toFixed(4));
    if (parse(field, String(next)) === undefined) return;
    element.value = String(next);
    element.dispatchEvent(new Event('input'));
  });
  return element;
}

// Where the arrow keys begin in an empty field.
const START = { temperature: 1, top_p: 1, top_k: 40, min_p: 0, repetition_penalty: 1, max_tokens: 256, seed: 0 };
const startOf = (field) => START[field.name];

function validity(element, valid) {
  if (valid) element.removeAttribute('aria-invalid');
  else element.setAttribute('aria-invalid', 'true');
}

function row(field, element) {
  element.placeholder = t('field.server');
  return el(
    'div', { class: 'field' },
    el('label', { for: element.id }, t(`field.${field.name}`)),
    element,
    el('p', { id: `hint-${field.name}`, class: 'muted' }, t(`field.${field.name}.hint`)),
  );
}
