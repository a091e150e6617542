// The list of conversations: choose, search, rename, export, delete.

import { byId, el, icon, iconButton } from './dom.js';
import { language, t } from './i18n.js';
import * as store from './store.js';

const DAY = 86_400_000;

function groupOf(time) {
  const today = new Date().setHours(0, 0, 0, 0);
  if (time >= today) return 'list.today';
  if (time >= today - DAY) return 'list.yesterday';
  return time >= today - 6 * DAY ? 'list.week' : 'list.older';
}

export class Sidebar {
  /** `actions`: open(id), rename(id, title), download(id), remove(id, title). */
  constructor(actions) {
    this.actions = actions;
    this.items = [];
    this.current = null;
    this.running = new Set();
    this.found = null;
    this.renaming = null;
    byId('search').addEventListener('input', () => this.search());
  }

  show(items, current, running) {
    Object.assign(this, { items, current, running });
    this.draw();
  }

  /** Titles at once, then texts too. */
  async search() {
    const words = byId('search').value.trim().toLowerCase();
    this.words = words;
    this.found = words ? new Set(this.items.filter((item) => item.title.toLowerCase().includes(words)).map((item) => item.id)) : null;
    this.draw();
    if (!words) return;
    const all = await store.loadAll().catch(() => []);
    if (this.words !== words) return;
    for (const conversation of all) {
      const texts = Object.values(conversation.nodes).map((node) => node.content.toLowerCase());
      if (texts.some((text) => text.includes(words))) this.found.add(conversation.id);
    }
    this.draw();
  }

  draw() {
    // A name being typed is not to be thrown away, nor a row that somebody is about to press.
    if (this.renaming && document.contains(this.renaming)) return;
    const { items, current, running, found } = this;
    const mark = JSON.stringify([language(), new Date().getDate(), items, current, [...running], found && [...found]]);
    if (mark === this.mark) return;
    this.mark = mark;
    const list = byId('conversations');
    const focused = list.contains(document.activeElement) ? document.activeElement.closest('[data-id]')?.dataset.id : null;
    const shown = this.found ? this.items.filter((item) => this.found.has(item.id)) : this.items;
    const parts = [...grouped(shown)].map(([name, items]) => {
      const id = name.replace('.', '-');
      return el('section', { 'aria-labelledby': id }, el('h3', { id }, t(name)), el('ul', {}, ...items.map((item) => this.item(item))));
    });
    if (parts.length === 0) parts.push(el('p', { class: 'muted list-empty' }, t(this.found ? 'list.none' : 'list.empty')));
    list.replaceChildren(...parts);
    if (focused) list.querySelector(`[data-id="${focused}"] .conversation`)?.focus();
  }

  item(item) {
    const title = item.title || t('list.untitled');
    const open = el(
      'button',
      { type: 'button', class: 'conversation', 'aria-current': item.id === this.current ? 'true' : null, title, on: { click: () => this.actions.open(item.id) } },
      this.running.has(item.id) ? el('span', { class: 'pulse', role: 'img', 'aria-label': t('list.running') }) : null,
      el('span', { class: 'conversation-title' }, title),
    );
    const row = el('li', { 'data-id': item.id }, open);
    const small = { class: 'icon-button small' };
    row.append(el(
      'span', { class: 'conversation-tools' },
      iconButton('edit', t('list.rename', { title }), () => this.rename(row, item), small),
      iconButton('download', t('list.export', { title }), () => this.actions.download(item.id), small),
      iconButton('trash', t('list.delete', { title }), () => this.actions.remove(item.id, title), small),
    ));
    return row;
  }

  rename(row, item) {
    const field = el('input', { class: 'rename', 'aria-label': t('list.rename.label'), maxlength: '200' });
    field.value = item.title;
    this.renaming = field;
    let left = false;
    const leave = (keep) => {
      if (left) return;
      left = true;
      const title = field.value.trim();
      field.remove();
      this.renaming = null;
      if (keep && title && title !== item.title) this.actions.rename(item.id, title);
      this.draw();
      byId('conversations').querySelector(`[data-id="${item.id}"] .conversation`)?.focus();
    };
    field.addEventListener('keydown', (event) => {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === 'Enter') leave(true);
      if (event.key === 'Escape') {
        event.stopPropagation();
        leave(false);
      }
    });
    field.addEventListener('blur', () => leave(true));
    row.replaceChildren(field);
    this.mark = null;
    field.select();
  }
}

function grouped(items) {
  const groups = new Map();
  for (const item of items) {
    const name = groupOf(item.updated);
    groups.set(name, [...(groups.get(name) ?? []), item]);
  }
  return groups;
}

/** The drawer of narrow windows: modal while it is open. */
export function startDrawer() {
  const [sidebar, main, shade] = ['sidebar', 'main', 'shade'].map(byId);
  const narrow = matchMedia('(max-width: 760px)');
  const set = (open) => {
    const hidden = narrow.matches && !open;
    document.body.toggleAttribute('data-drawer', narrow.matches && open);
    sidebar.inert = hidden;
    main.inert = narrow.matches && open;
    shade.hidden = !(narrow.matches && open);
    byId('open-drawer').setAttribute('aria-expanded', String(narrow.matches && open));
  };
  const close = () => {
    const wasOpen = document.body.hasAttribute('data-drawer');
    set(false);
    if (wasOpen) byId('open-drawer').focus();
    return wasOpen;
  };
  byId('open-drawer').addEventListener('click', () => {
    set(true);
    byId('close-drawer').focus();
  });
  byId('close-drawer').addEventListener('click', close);
  shade.addEventListener('click', close);
  narrow.addEventListener('change', () => set(false));
  byId('close-drawer').append(icon('close'));
  set(false);
  return close;
}
