// The page of videos: what it begins with, and what happens when something is asked for.

import { models } from './api.js';
import { confirmWith } from './dialogs.js';
import { announce, byId, el } from './dom.js';
import { onLanguage, t } from './i18n.js';
import { startLook } from './look.js';
import { remove, sameAgain, submit } from './video-api.js';
import { VideoForm } from './video-form.js';
import { VideoList } from './video-list.js';
import { Planner } from './video-plan.js';

/** What is wrong with the page as a whole, by kind. */
const notices = new Map();
let form, planner, list;
let sending = false;

function notice(kind, text, retry = null) {
  if ((notices.get(kind)?.text ?? null) === text) return;
  if (text) notices.set(kind, { text, retry });
  else notices.delete(kind);
  const place = byId('notice');
  place.hidden = notices.size === 0;
  const again = (act) => act && el('button', { type: 'button', class: 'button', on: { click: () => act() } }, t('message.retry'));
  place.replaceChildren(...[...notices.values()].map((entry) => el('p', {}, entry.text, again(entry.retry))));
}

async function loadModels() {
  let found;
  try {
    found = await models('video');
    notice('models', null);
  } catch (error) {
    notice('models', error.message, loadModels);
    return;
  }
  byId('make').hidden = found.length === 0;
  byId('no-model').hidden = found.length > 0;
  form.setModels(found);
  if (found.length > 0) planner.ask();
}

async function make() {
  if (sending) return;
  form.clearErrors();
  const { body, errors } = form.read();
  if (!body.prompt) errors.set('prompt', t('video.error.prompt'));
  for (const [name, text] of errors) form.wrong(name, text);
  if (errors.size > 0) {
    form.focusWrong();
    return;
  }
  try {
    await send(body);
  } catch (error) {
    form.showError(error);
    form.focusWrong();
  }
}

/** Puts a video into the queue and brings it into view. */
async function send(body) {
  sending = true;
  byId('submit').disabled = true;
  try {
    const job = await submit(body);
    list.add(job);
    history.replaceState(null, '', `#${job.id}`);
    announce(t('announce.video.queued'));
    byId(job.id)?.scrollIntoView({ block: 'nearest' });
  } finally {
    sending = false;
    byId('submit').disabled = false;
    if (document.activeElement === document.body) byId('submit').focus();
  }
}

const actions = {
  async again(job) {
    try {
      await send(sameAgain(job));
    } catch (error) {
      list.cards.get(job.id)?.say(error.message);
    }
  },
  fill(job) {
    form.fill(job);
    byId('make').scrollIntoView({ block: 'nearest' });
  },
  async remove(job) {
    const kind = { queued: 'unqueue', in_progress: 'stop' }[job.status] ?? 'delete';
    if (!(await confirmWith(t(`remove.${kind}.title`), t(`remove.${kind}.text`, { prompt: job.prompt }), t(`remove.${kind}`), t('remove.not')))) return;
    try {
      await remove(job.id);
    } catch (error) {
      // Gone already is gone.
      if (error.status !== 404) {
        list.cards.get(job.id)?.say(error.message);
        return;
      }
    }
    list.drop(job.id);
    announce(t(kind === 'delete' ? 'delete.done' : 'announce.video.stopped'));
  },
};

/** An address may name a video; other words in it are places of the page. */
async function fromAddress() {
  const id = location.hash.slice(1);
  if (id.startsWith('video_')) await list.show(id);
}

function startPage() {
  startLook();
  form = new VideoForm({ changed: (name) => planner.changed(name), submit: make });
  planner = new Planner(form);
  const trouble = (error) => notice('list', error && (error.status === 0 ? t('video.stale') : error.message));
  // When a video would begin depends on those before it.
  list = new VideoList(actions, trouble, () => byId('make').hidden || planner.ask());
  onLanguage(() => list.drawTitle(list.waiting()[0]));
  window.addEventListener('hashchange', fromAddress);
  list.drawTitle();
}

startPage();
await loadModels();
const following = list.follow();
await fromAddress();
await following;
