// The buttons of both pages for theme and language.

import { announce, byId, icon } from './dom.js';
import { keep, language, onLanguage, setLanguage, t, translate } from './i18n.js';

const THEMES = ['auto', 'light', 'dark'];
const ICON = { auto: 'auto', light: 'sun', dark: 'moon' };

const theme = () => document.documentElement.dataset.theme ?? 'auto';

function setTheme(name) {
  if (name === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  keep('wushi.theme', name === 'auto' ? null : name);
}

function show() {
  const button = byId('theme');
  button.replaceChildren(icon(ICON[theme()]));
  button.title = t('page.theme', { theme: t(`theme.${theme()}`) });
  button.setAttribute('aria-label', button.title);
  // Named in the language it leads to, for those who read only that one.
  const other = byId('language');
  other.textContent = language() === 'zh' ? 'EN' : '中';
  other.setAttribute('aria-label', language() === 'zh' ? 'English' : '中文');
  other.lang = language() === 'zh' ? 'en' : 'zh-Hans';
  other.title = other.getAttribute('aria-label');
}

/** Fills the page's texts and makes both buttons work. */
export function startLook() {
  byId('theme').addEventListener('click', () => {
    setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
    show();
    announce(byId('theme').title);
  });
  byId('language').addEventListener('click', () => setLanguage(language() === 'zh' ? 'en' : 'zh'));
  for (const element of document.querySelectorAll('[data-icon]')) element.prepend(icon(element.dataset.icon));
  onLanguage(show);
  translate();
  show();
}
