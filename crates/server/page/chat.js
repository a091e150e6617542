// The chat page: what is shown, what is running, and what happens when something is asked.

import * as api from './api.js';
import { startComposer } from './composer.js';
import * as tree from './conversation.js';
import { confirmWith } from './dialogs.js';
import { announce, byId, el } from './dom.js';
import { Generation } from './generation.js';
import { locale, number, onLanguage, t } from './i18n.js';
import { startLook } from './look.js';
import { AnswerView, userMessage } from './message.js';
import { startPanel } from './panel.js';
import { Follower } from './scroll.js';
import { checked, defaults, randomSeed, setDefaults } from './settings.js';
import { Sidebar, startDrawer } from './sidebar.js';
import * as store from './store.js';

// An answer longer than this is announced as finished, not read out.
const READ_OUT = 1000;

const state = {
  models: [],
  summaries: [],
  conversation: tree.newConversation(defaults()),
  /** Answers on their way, by conversation: another one can be read meanwhile. */
  running: new Map(),
  /** What is wrong, by kind. */
  notices: new Map(),
  /** What is drawn, by message. */
  views: new Map(),
};
let sidebar, follower, composer, closeDrawer;

const busy = () => state.running.has(state.conversation.id);

// ---- models

async function loadModels() {
  try {
    state.models = await api.models('chat');
    if (state.models.length === 0 && (await onlyVideos())) return;
    notice('models', state.models.length === 0 ? t('model.none') : null, loadModels);
  } catch (error) {
    notice('models', error.message, loadModels);
  }
  drawModels();
}

// Who comes by an address of a conversation, or from another page, is to see this one.
let plainAddress = location.hash === '';

/** A server that has models for videos alone opens the page of videos. */
async function onlyVideos() {
  const leave = plainAddress && (await api.models('video')).length > 0;
  plainAddress = false;
  if (leave) location.replace('/video');
  return leave;
}

function chosenModel() {
  const { model, nodes } = state.conversation;
  // A new chat begins with the model chosen last, unless that is another server's.
  const here = state.models.length === 0 || state.models.some((entry) => entry.id === model);
  if (model && (here || Object.keys(nodes).length > 0)) return model;
  const usable = state.models.filter((entry) => entry.state !== 'failed');
  return (usable.find((entry) => entry.state === 'ready') ?? usable[0])?.id ?? null;
}

function drawModels() {
  const picker = byId('model');
  const chosen = chosenModel();
  const known = state.models.some((entry) => entry.id === chosen);
  const options = state.models.map((entry) => {
    const note = entry.state && entry.state !== 'ready' ? ` · ${t(`model.${entry.state}`)}` : '';
    return el('option', { value: entry.id }, entry.id + note);
  });
  if (chosen && !known) options.unshift(el('option', { value: chosen }, `${chosen} · ${t('model.missing')}`));
  if (!chosen) options.unshift(el('option', { value: '' }, t('model.choose')));
  // Not under the hand of somebody who is choosing.
  const old = [...picker.options].map((option) => option.text).join('\n');
  if (old !== options.map((option) => option.text).join('\n')) picker.replaceChildren(...options);
  picker.value = chosen ?? '';
  drawContext();
}

/** Says above the messages what is wrong with the page as a whole; null takes it back. One for each `kind`. */
function notice(kind, text, retry = null) {
  if ((state.notices.get(kind)?.text ?? null) === text) return;
  if (text) state.notices.set(kind, { text, retry });
  else state.notices.delete(kind);
  const place = byId('notice');
  place.hidden = state.notices.size === 0;
  const again = (act) => act && el('button', { type: 'button', class: 'button', on: { click: () => act() } }, t('message.retry'));
  place.replaceChildren(...[...state.notices.values()].map((entry) => el('p', {}, entry.text, again(entry.retry))));
}

const keptBadly = () => notice('store', t('store.failed'));

// ---- drawing

function draw() {
  const { conversation, views } = state;
  const shown = tree.path(conversation);
  const elements = shown.map((node) => (node.role === 'user' ? drawQuestion(node) : drawAnswer(node)));
  for (const id of views.keys()) if (!shown.some((node) => node.id === id)) views.delete(id);
  const place = byId('messages');
  elements.forEach((element, index) => {
    // Moving an element would lose its focus and the place it is scrolled to.
    if (place.children[index] !== element) place.insertBefore(element, place.children[index] ?? null);
  });
  while (place.children.length > elements.length) place.lastElementChild.remove();
  byId('welcome').hidden = elements.length > 0;
  const title = conversation.title || t('list.untitled');
  byId('title').textContent = title;
  document.title = conversation.title ? `${title} · Wushi` : 'Wushi';
  composer.show(busy());
  drawContext();
  follower.grown();
}

function drawQuestion(node) {
  const mark = JSON.stringify([node.rev, busy(), tree.siblings(state.conversation, node).map(({ id }) => id)]);
  const old = state.views.get(node.id);
  if (old?.mark === mark) return old.element;
  const element = userMessage(state.conversation, node, { busy: busy(), actions });
  state.views.set(node.id, { mark, element });
  return element;
}

function drawAnswer(node) {
  const running = state.running.get(state.conversation.id);
  const generation = running?.node.id === node.id ? running : null;
  const old = state.views.get(node.id);
  if (old && (generation || old.rev === node.rev)) {
    if (!generation) old.view.refresh({ busy: busy(), node });
    old.rev = node.rev;
    return old.view.element;
  }
  const view = new AnswerView(state.conversation, node, { busy: busy(), generation, actions, changed: () => follower.grown() });
  state.views.set(node.id, { rev: node.rev, view });
  return view.element;
}

function drawSidebar() {
  sidebar.show(state.summaries, state.conversation.id, new Set(state.running.keys()));
}

/** How much of the context the conversation has used, by the last answer's count. */
function drawContext() {
  const model = state.models.find((entry) => entry.id === chosenModel());
  const counted = tree.path(state.conversation).findLast((node) => node.stats?.prompt_tokens !== undefined);
  const used = counted ? counted.stats.prompt_tokens + (counted.stats.completion_tokens ?? 0) : 0;
  const place = byId('context');
  place.textContent = model?.context && used ? t('context.used', { used: number(used), of: number(model.context) }) : '';
}

// ---- keeping

async function listAgain() {
  try {
    state.summaries = await store.list();
  } catch {
    keptBadly();
  }
  drawSidebar();
}

async function save(conversation) {
  try {
    const written = await store.save(conversation);
    if (!written) state.running.get(conversation.id)?.stop();
  } catch {
    keptBadly();
    return;
  }
  await listAgain();
}

/** A change of title or settings; an empty conversation is not kept. */
function settingsChanged(conversation = state.conversation) {
  conversation.rev += 1;
  if (Object.keys(conversation.nodes).length > 0) save(conversation);
}

async function storeChanged({ id, removed }) {
  await listAgain();
  if (id !== state.conversation.id) return;
  if (removed) {
    state.running.get(id)?.stop();
    newChat();
    return;
  }
  const stored = await store.load(id);
  if (!stored || state.conversation.id !== id) return;
  const before = state.conversation.head;
  tree.merge(state.conversation, stored);
  // Go on where the other tab went on, unless something is being written here.
  if (!busy() && tree.path(stored).some((node) => node.id === before)) state.conversation.head = stored.head;
  drawModels();
  draw();
}

// ---- conversations

function show(conversation) {
  state.conversation = conversation;
  state.views.clear();
  byId('messages').replaceChildren();
  follower.follows = true;
  drawModels();
  draw();
  drawSidebar();
}

function newChat() {
  history.pushState(null, '', location.pathname);
  show(tree.newConversation(defaults()));
  closeDrawer();
  composer.focus();
}

async function open(id, { push = true } = {}) {
  const conversation = state.running.get(id)?.conversation ?? (await store.load(id).catch(() => null));
  if (!conversation) {
    // Removed meanwhile, or an address from another browser.
    if (!push) history.replaceState(null, '', location.pathname);
    return;
  }
  store.known(id);
  conversation.settings = checked(conversation.settings);
  if (push && location.hash !== `#${id}`) history.pushState(null, '', `#${id}`);
  show(conversation);
  closeDrawer();
  composer.focus();
}

function openFromAddress() {
  const id = location.hash.slice(1);
  if (id && id !== state.conversation.id) return open(id, { push: false });
  if (!id && Object.keys(state.conversation.nodes).length > 0) show(tree.newConversation(defaults()));
  return Promise.resolve();
}

async function withConversation(id, act) {
  if (id === state.conversation.id) return act(state.conversation);
  const conversation = state.running.get(id)?.conversation ?? (await store.load(id));
  if (!conversation) return undefined;
  store.known(id);
  return act(conversation);
}

const listActions = {
  open,
  rename: (id, title) =>
    withConversation(id, (conversation) => {
      Object.assign(conversation, { title, named: true });
      settingsChanged(conversation);
      if (id === state.conversation.id) draw();
    }),
  download: (id) => withConversation(id, (conversation) => download([conversation], conversation.title)),
  async remove(id, title) {
    if (!(await confirmWith(t('delete.title'), t('delete.text', { title }), t('delete.do')))) return;
    await removeAll([id]);
  },
};

async function removeAll(ids) {
  for (const id of ids) state.running.get(id)?.stop();
  await store.remove(ids).catch(keptBadly);
  await listAgain();
  if (ids.includes(state.conversation.id)) newChat();
  else byId('new').focus();
  announce(t('delete.done'));
}

function download(conversations, name) {
  const text = JSON.stringify(tree.exported(conversations), null, 2);
  const address = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  const safe = (name || 'conversations').replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 60);
  el('a', { href: address, download: `wushi-${safe}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

async function importFile(file) {
  let conversations;
  try {
    conversations = tree.imported(JSON.parse(await file.text()));
  } catch {
    return t('import.failed');
  }
  for (const conversation of conversations) {
    conversation.settings = checked(conversation.settings);
    await store.save(conversation).catch(keptBadly);
  }
  await listAgain();
  if (conversations.length > 0) await open(conversations[0].id);
  return t('import.done', { n: conversations.length });
}

// ---- answers

function start(node) {
  const { conversation } = state;
  const generation = new Generation(conversation, node, { changed, save });
  state.running.set(conversation.id, generation);
  follower.follows = true;
  draw();
  announce(t('announce.asked'));
  generation.run();
  if (location.hash !== `#${conversation.id}`) history.replaceState(null, '', `#${conversation.id}`);
  save(conversation);
}

function changed(generation) {
  const { conversation, node } = generation;
  const shown = state.conversation.id === conversation.id;
  const drawn = state.views.get(node.id);
  if (generation.phase !== 'ended') {
    if (shown) drawn?.view.update(generation);
    return;
  }
  state.running.delete(conversation.id);
  if (node.again) compare(conversation, node);
  if (drawn) drawn.rev = node.rev;
  if (shown) draw();
  drawSidebar();
  announceEnd(node);
  loadModels();
}

/** Whether an answer asked for again with its seed is the same to the last character. */
function compare(conversation, node) {
  const before = conversation.nodes[node.again];
  if (before?.state === 'done' && node.state === 'done') node.same = before.content === node.content && before.reasoning === node.reasoning;
}

function announceEnd(node) {
  if (node.state === 'failed') return; // the error itself is an alert
  const short = node.content.length <= READ_OUT ? ` ${node.content}` : '';
  announce(t(node.state === 'stopped' ? 'announce.stopped' : 'announce.done') + short);
}

/** A place for an answer below a question, asked for as the conversation is set now. */
function answerTo(parent, fields = {}) {
  const { conversation } = state;
  return tree.append(conversation, parent, {
    role: 'assistant', state: 'writing', finish: null, error: null, stats: {},
    model: chosenModel(), system: conversation.system, settings: { ...conversation.settings },
    seed: conversation.settings.seed ?? randomSeed(), ...fields,
  });
}

const ready = () => {
  if (busy()) return false;
  if (chosenModel()) return true;
  announce(t('model.none'));
  loadModels();
  return false;
};

const actions = {
  show(node) {
    tree.select(state.conversation, node);
    draw();
    save(state.conversation);
    byId('messages').querySelector(`[data-node="${node.id}"] .versions button:not([disabled])`)?.focus();
  },
  ask(text) {
    if (!ready()) return false;
    const { conversation } = state;
    conversation.model = chosenModel();
    start(answerTo(tree.append(conversation, conversation.head, { role: 'user', content: text }).id));
    return true;
  },
  resend(node, text) {
    if (!ready()) return;
    start(answerTo(tree.append(state.conversation, node.parent, { role: 'user', content: text }).id));
    composer.focus();
  },
  regenerate(node) {
    if (!ready()) return;
    start(answerTo(node.parent, { seed: randomSeed() }));
    composer.focus();
  },
  again(node) {
    if (!ready()) return;
    const { model, system, settings, seed } = node;
    start(answerTo(node.parent, { model, system: system ?? '', settings: { ...settings }, seed, again: node.id }));
    composer.focus();
  },
  retry(node) {
    if (!ready()) return;
    Object.assign(node, { content: '', reasoning: '', model: chosenModel() });
    actions.goOn(node);
  },
  continue(node) {
    if (ready()) actions.goOn(node);
  },
  goOn(node) {
    Object.assign(node, { state: 'writing', error: null, finish: null, same: null, again: null, stats: {} });
    state.views.delete(node.id);
    start(node);
    composer.focus();
  },
};

function stop() {
  state.running.get(state.conversation.id)?.stop();
}

// ---- beginning

function drawIdeas() {
  const ideas = ['idea.1', 'idea.2', 'idea.3'].map((key) => {
    return el('button', { type: 'button', class: 'idea', on: { click: () => composer.set(t(key)) } }, t(key));
  });
  byId('ideas').replaceChildren(...ideas);
}

function startPage() {
  startLook();
  closeDrawer = startDrawer();
  sidebar = new Sidebar(listActions);
  follower = new Follower(byId('scroller'), byId('to-end'));
  composer = startComposer({ ask: actions.ask, stop, busy });
  startPanel({
    get: () => state.conversation,
    changed: () => settingsChanged(),
    asDefault: () => setDefaults({ system: state.conversation.system, settings: { ...state.conversation.settings } }),
    exportAll: async () => download(await store.loadAll(), new Date().toLocaleDateString(locale())),
    importFile,
    removeAll: async () => {
      if (await confirmWith(t('delete.all.title'), t('delete.all.text'), t('delete.do'))) await removeAll(state.summaries.map(({ id }) => id));
    },
    keyForgotten: loadModels,
  });
  byId('new').addEventListener('click', newChat);
  for (const link of document.querySelectorAll('a[href="/video"], a[href="/server"]')) {
    // An answer that is being written would be cut off: then the other page opens beside this one.
    link.addEventListener('click', () => (link.target = state.running.size > 0 ? '_blank' : ''));
  }
  byId('model').addEventListener('change', (event) => {
    state.conversation.model = event.target.value;
    setDefaults({ model: event.target.value });
    settingsChanged();
    drawContext();
  });
  document.addEventListener('keydown', (event) => {
    if (event.isComposing || event.defaultPrevented) return;
    if (event.key === 'Escape' && !document.querySelector('dialog[open]') && !closeDrawer()) stop();
    if (event.key.toLowerCase() === 'o' && event.ctrlKey && event.shiftKey) {
      event.preventDefault();
      newChat();
    }
  });
  onLanguage(() => {
    state.views.clear();
    byId('messages').replaceChildren();
    drawIdeas();
    drawModels();
    drawSidebar();
    draw();
  });
  window.addEventListener('popstate', () => openFromAddress());
  window.addEventListener('focus', () => {
    if (!document.querySelector('dialog[open]')) loadModels();
  });
  store.onChange(storeChanged);
}

startPage();
drawIdeas();
drawModels();
draw();
await Promise.all([loadModels(), listAgain().then(openFromAddress)]);
composer.focus();
