// All videos of whoever asks: what waits and runs, what is done. Asks the server as often as it wants to be asked, and only
// while somebody looks.

import { ApiError } from './api.js';
import { announce, byId } from './dom.js';
import { onLanguage, t } from './i18n.js';
import { list, look, sameRequest, unfinished } from './video-api.js';
import { JobCard } from './video-job.js';

const PAGE = 20;
// Where nothing runs, others may still begin something.
const IDLE_MS = 10_000;
const USUAL_MS = 1000;
const LEAST_MS = 250;
const MOST_MS = 10_000;
const AFTER_ERROR_MS = 4000;

export class VideoList {
  /** `actions` as cards want them; `trouble(error or null)` says whether the server answers, `moved()` that the queue is another. */
  constructor(actions, trouble, moved) {
    Object.assign(this, { actions, trouble, moved, queue: '', jobs: new Map(), cards: new Map(), removed: new Set(), more: false, last: null, first: true });
    this.wake = () => {};
    byId('older').addEventListener('click', () => this.older());
    onLanguage(() => {
      for (const card of this.cards.values()) card.redraw();
    });
  }

  /** Follows what becomes of the videos, for as long as the page is there. */
  async follow() {
    for (;;) {
      await whenVisible();
      const pause = await this.ask().then(
        (wanted) => (this.trouble(null), wanted),
        (error) => {
          if (!(error instanceof ApiError)) throw error;
          this.trouble(error);
          return AFTER_ERROR_MS;
        },
      );
      await this.sleep(pause);
    }
  }

  sleep(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Asks once; gives how long to wait before the next time. */
  async ask() {
    const page = await list({ limit: PAGE });
    this.takePage(page);
    if (this.first) await this.restOfQueue(page);
    this.first = false;
    const waiting = [...this.jobs.values()].filter(unfinished);
    // Those on older pages are asked for one by one, and the one that is being made says when to ask again.
    const inPage = new Set(page.data.map(({ id }) => id));
    const running = waiting.find(({ status }) => status === 'in_progress') ?? waiting.at(-1);
    let pause = null;
    for (const job of waiting.filter(({ id }) => id === running?.id || !inPage.has(id))) {
      const found = await this.askOne(job.id);
      if (job.id === running.id) pause = found?.pause ?? null;
    }
    this.draw();
    return waiting.length === 0 ? IDLE_MS : Math.min(MOST_MS, Math.max(LEAST_MS, pause ?? USUAL_MS));
  }

  async askOne(id) {
    try {
      const found = await look(id);
      this.take(found.job);
      return found;
    } catch (error) {
      if (error.status !== 404) throw error;
      this.jobs.delete(id);
      return null;
    }
  }

  take(job) {
    if (this.removed.has(job.id)) return;
    const before = this.jobs.get(job.id);
    if (before && unfinished(before) && !unfinished(job)) {
      announce(t(job.status === 'completed' ? 'announce.video.done' : 'announce.video.failed', { prompt: job.prompt }));
    }
    this.jobs.set(job.id, job);
  }

  takePage({ data, has_more: more, last_id: last }) {
    const ids = new Set(data.map(({ id }) => id));
    // What should stand in this page and does not was removed, here or elsewhere.
    const oldest = more ? data.at(-1)?.created_at ?? Infinity : -Infinity;
    for (const [id, job] of this.jobs) if (job.created_at > oldest && !ids.has(id)) this.jobs.delete(id);
    for (const job of data) this.take(job);
    if (this.last === null || !this.jobs.has(this.last)) Object.assign(this, { more, last });
  }

  /** Videos wait in the order of asking, so a page that has a finished one is the last with any that waits. */
  async restOfQueue(page) {
    while (this.more && page.data.length > 0 && page.data.every(unfinished)) page = await this.next();
  }

  async next() {
    const page = await list({ limit: PAGE, after: this.last });
    for (const job of page.data) this.take(job);
    Object.assign(this, { more: page.has_more, last: page.last_id ?? this.last });
    return page;
  }

  async older() {
    const before = new Set(this.cards.keys());
    try {
      await this.next();
    } catch (error) {
      this.trouble(error);
      return;
    }
    this.draw();
    // The first of those that came.
    [...byId('finished').children].find(({ id }) => !before.has(id))?.focus();
  }

  /** Puts a video in that was just asked for. */
  add(job) {
    this.take(job);
    this.draw();
    this.wake();
  }

  /** Takes a video out that was just removed; what comes after it has the focus then. */
  drop(id) {
    const { element } = this.cards.get(id) ?? {};
    const next = element?.nextElementSibling ?? element?.previousElementSibling;
    const heading = byId(element?.parentElement.id === 'queue' && this.waiting().length > 1 ? 'queue-title' : 'finished-title');
    this.removed.add(id);
    this.jobs.delete(id);
    this.draw();
    (next ?? heading).focus();
    this.wake();
  }

  /** The one that is being made first, then in the order of their turns. */
  waiting() {
    const turn = (job) => (job.status === 'in_progress' ? -1 : job.queue_position ?? Infinity);
    return [...this.jobs.values()].filter(unfinished).sort((a, b) => turn(a) - turn(b) || a.created_at - b.created_at);
  }

  draw() {
    const waiting = this.waiting();
    const done = [...this.jobs.values()].filter((job) => !unfinished(job)).sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? 1 : -1));
    for (const [id, card] of this.cards) {
      if (this.jobs.has(id)) continue;
      card.gone();
      this.cards.delete(id);
    }
    this.fill(byId('queue'), waiting);
    this.fill(byId('finished'), done);
    byId('queue-section').hidden = waiting.length === 0;
    byId('nothing').hidden = done.length > 0;
    byId('older').hidden = !this.more;
    this.drawTitle(waiting[0]);
    const queue = waiting.map(({ id }) => id).join();
    if (queue !== this.queue) this.moved();
    this.queue = queue;
    document.body.toggleAttribute('data-listed', true);
  }

  drawTitle(first) {
    const share = first?.status === 'in_progress' ? `${first.progress} % · ` : '';
    document.title = `${share}${t('video.title')} · Wushi`;
  }

  fill(place, jobs) {
    jobs.forEach((job, index) => {
      let card = this.cards.get(job.id);
      if (!card) {
        card = new JobCard(job, this.actions);
        this.cards.set(job.id, card);
      }
      card.update(job, this.twin(job));
      const { element } = card;
      if (place.children[index] === element) return;
      const focused = element.contains(document.activeElement) ? document.activeElement : null;
      place.insertBefore(element, place.children[index] ?? null);
      if (focused && document.contains(focused)) focused.focus();
    });
  }

  /** The video that this one repeats, and whether its frames are the same. */
  twin(job) {
    if (job.status !== 'completed') return null;
    const older = (other) => other.created_at < job.created_at || (other.created_at === job.created_at && other.id < job.id);
    const same = [...this.jobs.values()].filter((other) => other.id !== job.id && other.status === 'completed' && older(other) && sameRequest(other, job));
    const first = same.sort((a, b) => a.created_at - b.created_at)[0];
    return first ? { job: first, equal: first.frames_digest === job.frames_digest } : null;
  }

  /** Brings the video into view that the address names. */
  async show(id) {
    if (!this.jobs.has(id)) await this.askOne(id).catch((error) => this.trouble(error));
    this.draw();
    const card = this.cards.get(id);
    if (!card) return;
    card.element.scrollIntoView({ block: 'nearest' });
    card.element.focus({ preventScroll: true });
  }
}

/** A page that nobody looks at asks nothing. */
function whenVisible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const seen = () => {
      if (document.hidden) return;
      document.removeEventListener('visibilitychange', seen);
      resolve();
    };
    document.addEventListener('visibilitychange', seen);
  });
}
