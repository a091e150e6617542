// Conversations in the browser: IndexedDB, and a channel that tells other tabs. A tab merges rather than overwrites.

import { merge } from './conversation.js';

const CONVERSATIONS = 'conversations';
// What the list shows, so that listing need not read every text.
const SUMMARIES = 'summaries';

const summary = ({ id, title, created, updated }) => ({ id, title, created, updated });
const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
const finished = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });

let opening = null;
const listeners = new Set();
const channel = new BroadcastChannel('wushi');
channel.onmessage = (message) => listeners.forEach((listener) => listener(message.data));

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open('wushi', 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(CONVERSATIONS, { keyPath: 'id' });
      request.result.createObjectStore(SUMMARIES, { keyPath: 'id' });
    };
    request.onsuccess = () => {
      // A newer page in another tab wants another version: make way, and open again when asked.
      request.result.onversionchange = () => {
        request.result.close();
        opening = null;
      };
      resolve(request.result);
    };
    request.onerror = () => reject(request.error);
  });
  opening.catch(() => {
    opening = null;
  });
  return opening;
}

async function transaction(mode) {
  const db = await database();
  const opened = db.transaction([CONVERSATIONS, SUMMARIES], mode);
  return { opened, all: opened.objectStore(CONVERSATIONS), short: opened.objectStore(SUMMARIES) };
}

/** Called with `{id}` when another tab saved a conversation, `{id, removed: true}` when it removed one. */
export function onChange(listener) {
  listeners.add(listener);
}

/** Title and times of every conversation, the latest first. */
export async function list() {
  const { short } = await transaction('readonly');
  return (await done(short.getAll())).sort((a, b) => b.updated - a.updated);
}

export async function load(id) {
  const { all } = await transaction('readonly');
  return (await done(all.get(id))) ?? null;
}

export async function loadAll() {
  const { all } = await transaction('readonly');
  return done(all.getAll());
}

/**
 * Saves, after taking over what another tab has saved meanwhile. False, and nothing written, where the
 * conversation was saved before and another tab has removed it since.
 */
export async function save(conversation) {
  const { opened, all, short } = await transaction('readwrite');
  const stored = await done(all.get(conversation.id));
  if (!stored && saved.has(conversation.id)) return false;
  if (stored) merge(conversation, stored);
  all.put(conversation);
  short.put(summary(conversation));
  await finished(opened);
  saved.add(conversation.id);
  channel.postMessage({ id: conversation.id });
  return true;
}
const saved = new Set();

/** Notes that a conversation is one that was in the store. */
export const known = (id) => saved.add(id);

export async function remove(ids) {
  const { opened, all, short } = await transaction('readwrite');
  for (const id of ids) {
    saved.add(id);
    all.delete(id);
    short.delete(id);
  }
  await finished(opened);
  for (const id of ids) channel.postMessage({ id, removed: true });
}
