// Small questions.

import { el } from './dom.js';
import { t } from './i18n.js';

/** A question with two answers; true for the one named `action`, false for `refusal`. */
export function confirmWith(title, text, action, refusal = t('dialog.cancel')) {
  const cancel = el('button', { type: 'button', class: 'button', autofocus: true }, refusal);
  const go = el('button', { type: 'button', class: 'button danger' }, action);
  const body = el(
    'div', { class: 'dialog-body' },
    el('h2', { id: 'confirm-title' }, title),
    el('p', { id: 'confirm-text' }, text),
    el('div', { class: 'dialog-buttons' }, cancel, go),
  );
  const dialog = el('dialog', { class: 'dialog', 'aria-labelledby': 'confirm-title', 'aria-describedby': 'confirm-text' }, body);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    cancel.addEventListener('click', () => dialog.close());
    go.addEventListener('click', () => dialog.close('go'));
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'go');
    });
  });
}
