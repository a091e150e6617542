// Where a question is typed: Enter sends, Shift+Enter breaks, the one button sends or stops.

import { announce, byId, icon } from './dom.js';
import { keep, kept, onLanguage, t } from './i18n.js';

const DRAFT = 'wushi.draft';
// A second press of the button that has just sent is not meant to stop.
const SETTLE_MS = 400;

export function startComposer({ ask, stop, busy }) {
  const [form, field, button] = ['composer', 'prompt', 'send'].map(byId);
  // Without a keyboard there is no Shift+Enter: there the button sends.
  const touch = matchMedia('(pointer: coarse) and (max-width: 760px)');
  let mode = null;
  let since = 0;

  const fit = () => {
    field.style.height = 'auto';
    field.style.height = `${field.scrollHeight}px`;
  };
  const drawButton = () => {
    const label = t(mode ? 'composer.stop' : 'composer.send');
    button.replaceChildren(icon(mode ? 'stop' : 'send'));
    button.title = label;
    button.setAttribute('aria-label', label);
    button.dataset.mode = mode ? 'stop' : 'send';
    button.disabled = !mode && field.value.trim() === '';
  };
  const show = (running) => {
    if (running !== mode) since = performance.now();
    mode = running;
    drawButton();
    byId('keys').textContent = touch.matches ? '' : t('composer.keys');
  };
  const set = (text) => {
    field.value = text;
    keep(DRAFT, text || null, 'sessionStorage');
    fit();
    drawButton();
    field.focus();
  };

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (mode) {
      if (event.submitter === button && performance.now() - since > SETTLE_MS) stop();
      else announce(t('announce.busy'));
      return;
    }
    const text = field.value.trim();
    if (text && ask(text)) set('');
  });
  field.addEventListener('input', () => {
    keep(DRAFT, field.value || null, 'sessionStorage');
    fit();
    drawButton();
  });
  field.addEventListener('keydown', (event) => {
    // An input method takes Enter to choose a word; Safari says so by the old code alone.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229 || touch.matches) return;
    event.preventDefault();
    if (busy()) announce(t('announce.busy'));
    else form.requestSubmit();
  });
  onLanguage(() => show(mode));
  window.addEventListener('resize', fit);
  field.value = kept(DRAFT, 'sessionStorage') ?? '';
  requestAnimationFrame(fit);

  return {
    show,
    set,
    // On a phone the keyboard would cover what was just opened.
    focus: () => (touch.matches ? null : field.focus()),
  };
}
