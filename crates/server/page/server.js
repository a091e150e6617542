// The server's page: asks /status every two seconds while it is looked at.

import { status } from './api.js';
import { byId, el } from './dom.js';
import { bytes, duration, locale, number, onLanguage, rate, t } from './i18n.js';
import { startLook } from './look.js';
import { Plot } from './plot.js';

const EVERY_MS = 2000;

let latest = null;
let heardAt = null;

const history = () => latest?.history ?? {};
const percent = (values) => (values ?? []).map((value) => (value === null ? null : value * 100));

// What each plot shows of /status.
const PLOTS = [
  {
    id: 'throughput', name: 'plot.throughput', unit: 'plot.throughput.unit', least: 1,
    series: ['plot.throughput.answers', 'plot.throughput.prompts'],
    values: () => [history().tokens_per_s, history().prompt_tokens_per_s],
  },
  {
    id: 'requests', name: 'plot.requests', unit: 'plot.requests.unit', least: 2, counts: true,
    series: ['plot.requests.running', 'plot.requests.waiting'],
    values: () => [history().running, history().waiting],
  },
  {
    id: 'ttft', name: 'plot.ttft', unit: 'plot.latency.unit', series: ['plot.p50', 'plot.p99'],
    values: () => [history().ttft_p50_ms, history().ttft_p99_ms],
  },
  {
    id: 'itl', name: 'plot.itl', unit: 'plot.latency.unit', series: ['plot.p50', 'plot.p99'],
    values: () => [history().itl_p50_ms, history().itl_p99_ms],
  },
  {
    id: 'kv', name: 'plot.kv', unit: 'plot.kv.unit', series: ['plot.kv.used'], least: 100,
    values: () => [percent(history().kv_used)],
  },
];
const plots = PLOTS.map((description) => ({ plot: new Plot(description), values: description.values }));

function tile(id, label, value, note = '') {
  return el('div', { class: 'tile', 'data-tile': id }, el('dt', {}, label), el('dd', {}, value, note ? el('small', {}, note) : null));
}

function drawTiles() {
  const { models, memory } = latest;
  const sum = (name) => models.reduce((total, model) => total + (model[name] ?? 0), 0);
  const speed = history().tokens_per_s?.at(-1) ?? 0;
  const limit = memory.budget === null ? t('server.no.budget') : t('server.of', { limit: bytes(memory.budget) });
  const { videos } = latest;
  byId('tiles').replaceChildren(
    tile('running', t('server.running'), number(sum('running'))),
    tile('waiting', t('server.queued'), number(sum('waiting'))),
    tile('speed', t('server.speed'), rate(speed)),
    tile('memory', t('server.memory'), bytes(memory.used), limit),
    ...(videos?.models.length > 0 ? [tile('videos', t('server.videos'), number(videos.running), videoNote(videos))] : []),
  );
}

function videoNote({ queued, waiting_for_memory: waits, disk }) {
  const parts = [t('server.videos.queued', { n: number(queued) }), t('server.videos.disk', { used: bytes(disk.used), budget: bytes(disk.budget) })];
  if (waits) parts.push(t('server.videos.memory'));
  return parts.join(' · ');
}

function cell(label, ...content) {
  return el('td', { 'data-label': label }, ...content);
}

function meter(share, label) {
  return el('meter', { min: 0, max: 1, value: share, 'aria-label': label, title: label });
}

function parameters(count) {
  if (!Number.isFinite(count)) return '–';
  return count >= 1e9 ? `${number(count / 1e9, 1)} B` : `${number(count / 1e6, 0)} M`;
}

function modelRow(model) {
  const { memory, pages } = model;
  const loading = model.state === 'loading' && model.progress !== null ? ` ${Math.floor(model.progress * 100)} %` : '';
  const parts = memory && { weights: bytes(memory.weights), cache: bytes(memory.cache), buffers: bytes(memory.buffers) };
  const total = memory && bytes(memory.weights + memory.cache + memory.buffers);
  const kv = pages && t('column.kv.parts', { used: number(pages.used), cached: number(pages.cached), total: number(pages.total) });
  return el(
    'tr', { 'data-model': model.name },
    el('th', { scope: 'row' }, model.name),
    cell(t('column.state'), el('span', { class: `state state-${model.state}` }, t(`state.${model.state}`) + loading), model.failure ? el('small', { class: 'failure' }, model.failure) : null),
    cell(t('column.size'), `${parameters(model.parameters)} · ${model.dtype ?? '–'}`),
    cell(t('column.context'), Number.isFinite(model.context) ? number(model.context) : '–'),
    cell(t('column.memory'), ...(memory ? [total, el('small', {}, t('column.memory.parts', parts))] : ['–'])),
    cell(t('column.kv'), ...(pages ? [meter(pages.total ? pages.used / pages.total : 0, kv), el('small', {}, kv)] : ['–'])),
    cell(t('column.requests'), `${number(model.running)}, ${number(model.waiting)}`),
  );
}

function table(place, columns, rows, empty) {
  if (rows.length === 0) {
    place.replaceChildren(el('p', { class: 'muted' }, empty));
    return;
  }
  const head = columns.map((key) => el('th', { scope: 'col' }, t(key)));
  place.replaceChildren(el('table', { class: 'cards' }, el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows)));
}

function drawTables() {
  const columns = ['model', 'state', 'size', 'context', 'memory', 'kv', 'requests'].map((name) => `column.${name}`);
  table(byId('models'), columns, latest.models.map(modelRow), t('server.models.none'));
  const row = (name, usage) =>
    el(
      'tr', {}, el('th', { scope: 'row' }, name),
      cell(t('column.count'), number(usage.requests)),
      cell(t('column.prompt'), number(usage.prompt_tokens)),
      cell(t('column.completion'), number(usage.completion_tokens)),
    );
  const rows = latest.usage.map((usage) => row(usage.key ?? t('server.usage.keyless'), usage));
  if (rows.length > 1) {
    const total = (name) => latest.usage.reduce((sum, usage) => sum + usage[name], 0);
    const names = ['requests', 'prompt_tokens', 'completion_tokens'];
    rows.push(row(t('column.total'), Object.fromEntries(names.map((name) => [name, total(name)]))));
  }
  table(byId('usage'), ['key', 'count', 'prompt', 'completion'].map((name) => `column.${name}`), rows, t('server.usage.none'));
}

function draw() {
  document.title = `${t('server.title')} · Wushi`;
  if (!latest) {
    byId('about').textContent = t('server.waiting');
    return;
  }
  const { version, uptime_s: uptime } = latest;
  byId('about').textContent = t('server.about', { version, uptime: duration(uptime * 1000) });
  drawTiles();
  drawTables();
  for (const { plot, values } of plots) plot.update(history().time ?? [], values().map((list) => list ?? []));
}

function trouble(error) {
  const place = byId('notice');
  place.hidden = error === null;
  const time = heardAt?.toLocaleTimeString(locale(), { hour12: false });
  const words = error && (error.status === 0 && time ? t('server.stale', { time }) : error.message);
  if (place.textContent !== (words ?? '')) place.textContent = words ?? '';
}

async function ask() {
  try {
    latest = await status(AbortSignal.timeout(10_000));
    heardAt = new Date();
    trouble(null);
    byId('content').hidden = false;
    draw();
  } catch (error) {
    trouble(error);
  }
}

/** A page that nobody looks at asks nothing. */
function whenVisible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));
}

startLook();
byId('plots').append(...plots.map(({ plot }) => plot.element));
onLanguage(draw);
draw();
for (;;) {
  await whenVisible();
  await ask();
  await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
}
