// What a video would take, told before it is asked for: size and frames as the model can make them, memory by stage, time.

import { ApiError } from './api.js';
import { byId, el, icon } from './dom.js';
import { bytes, duration, number, onLanguage, t } from './i18n.js';
import { planned } from './video-api.js';
import { sizeText } from './video-form.js';

const PAUSE_MS = 350;
// Sizes are tried when nothing has changed for longer.
const SIZES_PAUSE_MS = 900;
// From here on it is said how a video is made sooner.
const LONG_S = 600;
// Below this, the larger sizes that models are known for are none of this model's.
const LARGE = 300_000;

const STAGES = { 'reading the prompt': 'stage.text', denoising: 'stage.denoising', decoding: 'stage.decoding' };

const stageName = (name) => (STAGES[name] ? t(STAGES[name]) : name);

/** Seconds for people who plan: no more exact than an estimate is. */
function estimate(seconds) {
  if (seconds < 90) return `${number(Math.max(1, Math.round(seconds)))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${number(minutes)} min` : duration(minutes * 60_000);
}

export const about = (seconds) => t('plan.about', { time: estimate(seconds) });

/** How long a video is: as many frames, as many seconds. */
export function lengthText({ num_frames: frames, seconds, fps }) {
  return t('plan.length', { frames: number(frames), seconds: number(Number(seconds), 2), fps: number(fps) });
}

const summary = (plan) => [sizeText(plan.width, plan.height), lengthText(plan), t('plan.steps', { n: plan.num_inference_steps })].join(' · ');

export class Planner {
  constructor(form) {
    Object.assign(this, { form, plan: null, error: null, timer: null, sizesTimer: null, controller: null, sizesFor: null });
    // Read out when it changes, as people who do not see it have changed something above.
    this.words = el('p', { role: 'status' });
    this.rest = el('div');
    byId('plan-body').append(this.words, this.rest);
    onLanguage(() => this.draw());
    this.draw();
  }

  /** To be called when a field has changed. */
  changed(name) {
    // Neither words nor the seed change what a video takes.
    if (['prompt', 'negative', 'seed'].includes(name)) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), PAUSE_MS);
  }

  stop() {
    clearTimeout(this.timer);
    clearTimeout(this.sizesTimer);
    this.controller?.abort();
  }

  async ask() {
    this.stop();
    const { body, errors } = this.form.read();
    for (const [name, text] of errors) this.form.wrong(name, text);
    if (errors.size > 0) return;
    this.controller = new AbortController();
    const { signal } = this.controller;
    byId('plan-body').setAttribute('aria-busy', 'true');
    try {
      // A plan needs no words yet, and the API wants some.
      this.show(await planned({ ...body, prompt: body.prompt ?? '…' }, signal), null);
    } catch (error) {
      if (signal.aborted) return;
      this.show(null, error);
      if (error.retryAfter !== null) this.timer = setTimeout(() => this.ask(), error.retryAfter * 1000);
      // What is wrong with the words is said when they are sent.
      if (error.param && error.param !== 'prompt') this.form.showError(error);
      return;
    }
    this.sizesTimer = setTimeout(() => this.trySizes(body, signal), SIZES_PAUSE_MS);
  }

  show(plan, error) {
    Object.assign(this, { plan, error });
    if (plan) this.form.setPlan(plan);
    byId('plan-body').removeAttribute('aria-busy');
    this.draw();
  }

  /** Which of the usual sizes fit, one after another, anew only where the memory would be another. */
  async trySizes(body, signal) {
    const rest = withoutSize(body);
    const mark = JSON.stringify(rest);
    if (this.sizesFor === mark) return;
    const found = [];
    const attempt = async (size) => {
      const plan = await planned({ ...rest, ...(size && { size: size.join('x') }) }, signal);
      if (found.some(({ width, height }) => width === plan.width && height === plan.height)) return plan;
      found.push({ width: plan.width, height: plan.height, fits: plan.fits, own: !size });
      return plan;
    };
    try {
      const own = await attempt(null);
      for (const size of sizesLike(own)) await attempt(size);
    } catch (error) {
      // The sizes that are known suffice.
      if (signal.aborted || !(error instanceof ApiError)) return;
    }
    this.sizesFor = mark;
    this.form.setPresets(found.sort((a, b) => a.width * a.height - b.width * b.height || b.width - a.width));
    this.draw();
  }

  // ---- drawing

  draw() {
    const { plan, error, rest } = this;
    const words = error ? (error.param ? t('plan.wrong') : error.message) : plan ? summary(plan) : t('plan.asking');
    if (this.words.textContent !== words) this.words.textContent = words;
    this.words.className = plan ? 'plan-summary' : 'muted';
    const parts = plan ? [...this.changes(), ...(plan.fits ? [] : [this.tooMuch(plan)]), this.figures(plan), ...this.advice(plan), this.stages(plan)] : [];
    rest.replaceChildren(...parts);
  }

  /** What is rounded to something that the model can make. */
  changes() {
    const { plan } = this;
    const { body } = this.form.read();
    const words = [];
    const size = body.size?.split('x').map(Number);
    if (size && (size[0] !== plan.width || size[1] !== plan.height)) {
      words.push(t('plan.changed.size', { wanted: sizeText(...size), used: sizeText(plan.width, plan.height) }));
    }
    const frames = body.num_frames ?? (body.seconds === undefined ? undefined : Math.round(body.seconds * plan.fps));
    if (frames !== undefined && frames !== plan.num_frames) {
      words.push(t('plan.changed.frames', { wanted: number(frames), used: number(plan.num_frames) }));
    }
    const items = words.map((text) => el('li', {}, text));
    // What else the server has to say, as it says it.
    const others = plan.changes.filter((text) => !/^(\d+x\d+|\d+ frames) instead of /.test(text));
    items.push(...others.map((text) => el('li', { lang: 'en' }, text)));
    return items.length > 0 ? [el('ul', { class: 'changes' }, ...items)] : [];
  }

  tooMuch(plan) {
    // Those that were tried with another number of frames tell nothing.
    const known = this.sizesFor === JSON.stringify(withoutSize(this.form.read().body)) ? this.form.presets : [];
    const fitting = known.filter((preset) => preset.fits && preset.width * preset.height < plan.width * plan.height).slice(-2);
    const use = (preset) => el(
      'button', { type: 'button', class: 'button', on: { click: () => this.form.chooseSize(preset.width, preset.height) } },
      t('plan.use', { size: sizeText(preset.width, preset.height) }),
    );
    return el(
      'div', { class: 'error', role: 'alert' }, icon('warning'),
      el('div', {}, el('p', {}, el('strong', {}, t('plan.too.much'))), plan.reason ? el('p', { lang: 'en' }, plan.reason) : null),
      fitting.length > 0 ? el('div', { class: 'row' }, ...fitting.reverse().map(use)) : null,
    );
  }

  figures(plan) {
    const { peak, limit } = plan.memory;
    const cell = (name, term, value, note) => el('div', { 'data-figure': name }, el('dt', {}, term), el('dd', {}, value, note ? el('small', {}, note) : null));
    const time = Number.isFinite(plan.estimated_seconds) ? about(plan.estimated_seconds) : t('plan.time.unknown');
    const before = plan.queue_position ?? 0;
    const starts = before === 0 ? t('plan.starts.now') : Number.isFinite(plan.starts_in_seconds)
      ? t('plan.starts.in', { n: before, time: about(plan.starts_in_seconds) }) : t('plan.starts.after', { n: before });
    return el(
      'dl', { class: 'plan-figures' },
      cell('time', t('plan.time'), time, starts),
      cell('memory', t('plan.memory'), bytes(peak), Number.isFinite(limit) ? t('plan.memory.of', { limit: bytes(limit) }) : null),
    );
  }

  advice({ fits, estimated_seconds: seconds }) {
    return fits && seconds > LONG_S ? [el('p', { class: 'muted' }, t('plan.sooner'))] : [];
  }

  stages(plan) {
    const { limit, peak, stages } = plan.memory;
    const top = Math.max(limit ?? peak, 1);
    const rows = stages.map((stage) => {
      const words = t('plan.stage.share', { bytes: bytes(stage.bytes) });
      const tight = Number.isFinite(limit) && stage.bytes > limit;
      const meter = el('meter', { min: 0, max: top, value: Math.min(stage.bytes, top), 'aria-label': words, class: tight ? 'tight' : null });
      return el(
        'tr', {},
        el('th', { scope: 'row' }, stageName(stage.name)),
        el('td', { class: 'meters' }, meter),
        el('td', { class: 'number' }, bytes(stage.bytes)),
        el('td', { class: 'number' }, Number.isFinite(stage.seconds) ? estimate(stage.seconds) : '–'),
      );
    });
    const head = ['stage', 'share', 'memory', 'time'].map((name) => el('th', { scope: 'col', class: name === 'stage' ? null : 'number' },
      name === 'share' ? el('span', { class: 'visually-hidden' }, t('plan.column.share')) : t(`plan.column.${name}`)));
    return el('div', { class: 'table-frame' }, el('table', { class: 'stages' }, el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows)));
  }
}

/** What memory depends on beside the size. */
function withoutSize({ model, num_frames: frames, seconds, fps, output_format: format }) {
  return { prompt: '…', model, num_frames: frames, seconds, fps, output_format: format };
}

/** The sizes people ask for, beside a model's own: upright, square, half as wide and high, and larger where it can. */
function sizesLike({ width, height }) {
  const area = width * height;
  const side = Math.floor(Math.sqrt(area) / 16) * 16;
  const half = [width, height].map((length) => Math.floor(length / 32) * 16);
  const sizes = [[height, width], [side, side], half, [half[1], half[0]]];
  if (area >= LARGE && area < 900_000) sizes.push([1280, 720], [720, 1280]);
  return sizes.filter((size) => size.every((length) => length >= 16));
}
