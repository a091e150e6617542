// The key of an API that wants one: asked for when the server says so, kept as the user chooses.

import { byId, el } from './dom.js';
import { keep, kept, t } from './i18n.js';

const NAME = 'wushi.key';

// A key that is to be kept nowhere still serves this tab.
let inMemory = null;
let asking = null;

export const currentKey = () => kept(NAME) ?? kept(NAME, 'sessionStorage') ?? inMemory;

export function forgetKey() {
  inMemory = null;
  keep(NAME, null);
  keep(NAME, null, 'sessionStorage');
}

function setKey(key, remember) {
  forgetKey();
  inMemory = key;
  keep(NAME, key, remember ? 'localStorage' : 'sessionStorage');
}

/** Asks for a key; true once there is one, false when the user would rather not. One dialog for all who ask. */
export function askKey(refused) {
  asking ??= show(refused).finally(() => {
    asking = null;
  });
  return asking;
}

function show(refused) {
  const before = document.activeElement;
  const field = el('input', {
    id: 'key-field', type: 'password', autocomplete: 'off', spellcheck: 'false', required: true,
    'aria-describedby': refused ? 'key-refused' : null, 'aria-invalid': refused ? 'true' : null,
  });
  const remember = el('input', { type: 'checkbox', id: 'key-remember' });
  const cancel = el('button', { type: 'button', class: 'button' }, t('dialog.cancel'));
  const form = el(
    'form', { class: 'dialog-body' },
    el('h2', { id: 'key-title' }, t('key.title')),
    el('p', { class: 'muted' }, t('key.why')),
    el('label', { for: 'key-field' }, t('key.label')),
    field,
    refused ? el('p', { class: 'invalid', id: 'key-refused', role: 'alert' }, t('key.refused')) : null,
    el('label', { class: 'check', for: 'key-remember' }, remember, el('span', {}, t('key.remember'))),
    el('div', { class: 'dialog-buttons' }, cancel, el('button', { class: 'button primary', type: 'submit' }, t('key.use'))),
  );
  const dialog = el('dialog', { class: 'dialog', id: 'key-dialog', 'aria-labelledby': 'key-title' }, form);
  document.body.append(dialog);
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const key = field.value.trim();
      // Others cannot stand in a header.
      const fits = /^[\x21-\x7e]+$/.test(key);
      field.setCustomValidity(fits ? '' : t('key.refused'));
      if (!fits) {
        field.reportValidity();
        return;
      }
      setKey(key, remember.checked);
      dialog.close('given');
    });
    field.addEventListener('input', () => field.setCustomValidity(''));
    cancel.addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => {
      dialog.remove();
      const place = before && before !== document.body ? before : byId('prompt');
      place?.focus?.();
      resolve(dialog.returnValue === 'given');
    });
  });
}
