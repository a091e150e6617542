// Lines over time as SVG: values under the pointer or by arrow keys, a summary in words, all values as a table.

import { el, svg } from './dom.js';
import { locale, number, t } from './i18n.js';

const HEIGHT = 150;
const MARGIN = { top: 10, right: 8, bottom: 22, left: 44 };
const TABLE_ROWS = 60;

/** The least round number that is not below `value`, and the step that divides it well. */
export function scale(value) {
  if (!(value > 0)) return { top: 1, step: 0.5 };
  const power = 10 ** Math.floor(Math.log10(value / 2));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => value / size <= 3);
  return { top: Math.ceil(value / step - 1e-9) * step, step };
}

/** The path of a series; it is broken where there is no value. */
export function line(values, x, y) {
  let path = '';
  let down = false;
  values.forEach((value, index) => {
    if (Number.isFinite(value)) {
      const alone = !down && !Number.isFinite(values[index + 1]);
      path += `${down ? 'L' : 'M'}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      // A value without neighbours is a dot: a line of no length with round ends.
      if (alone) path += 'h0';
    }
    down = Number.isFinite(value);
  });
  return path;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString(locale(), { hour12: false });

export class Plot {
  /** `name`, `unit` and the series are keys of texts; `least` is the smallest top of the axis. */
  constructor({ id, name, unit, series, least = 0, counts = false }) {
    Object.assign(this, { id, name, unit, series, least, counts, time: [], values: series.map(() => []), at: null });
    this.readout = el('p', { class: 'readout' });
    this.title = el('h3', { id: `plot-${id}` });
    this.legend = el('p', { class: 'legend', 'aria-hidden': 'true' });
    this.frame = el('div', { class: 'plot-frame', tabindex: '0', role: 'img', 'aria-describedby': `about-${id}` });
    this.about = el('p', { class: 'visually-hidden', id: `about-${id}` });
    this.summary = el('summary');
    this.rows = el('div', { class: 'table-frame', tabindex: '0', role: 'group' });
    this.table = el('details', { class: 'as-table' }, this.summary, this.rows);
    this.table.addEventListener('toggle', () => this.drawTable());
    const head = el('div', { class: 'plot-head' }, this.title, this.legend);
    this.element = el('section', { class: 'plot', 'aria-labelledby': `plot-${id}`, 'data-plot': id }, head, this.frame, this.readout, this.about, this.table);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.frame);
  }

  listen() {
    const { frame } = this;
    frame.addEventListener('pointermove', (event) => {
      const box = frame.getBoundingClientRect();
      const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
      this.point(Math.round(share * (this.time.length - 1)));
    });
    frame.addEventListener('pointerleave', () => this.point(null));
    frame.addEventListener('blur', () => this.point(null));
    frame.addEventListener('keydown', (event) => {
      const last = this.time.length - 1;
      const at = this.at ?? last + 1;
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last, Escape: null }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.point(to);
    });
  }

  point(index) {
    const last = this.time.length - 1;
    this.at = index === null || last < 0 ? null : Math.max(0, Math.min(last, index));
    this.draw();
  }

  update(time, values) {
    // What is pointed at stays the same moment when the window of time moves on.
    const moment = this.at === null ? null : this.time[this.at];
    Object.assign(this, { time, values });
    if (moment !== null) this.at = time.includes(moment) ? time.indexOf(moment) : null;
    this.draw();
    this.drawTable();
  }

  format(value) {
    return Number.isFinite(value) ? `${number(value, value < 10 ? 2 : value < 100 ? 1 : 0)} ${t(this.unit)}` : t('plot.nothing');
  }

  draw() {
    const width = Math.max(200, this.frame.clientWidth);
    const highest = Math.max(this.least, ...this.values.flat().filter(Number.isFinite));
    const { top, step } = scale(highest);
    const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
    const x = (index) => MARGIN.left + (this.time.length > 1 ? index / (this.time.length - 1) : 1) * inner.width;
    const y = (value) => MARGIN.top + (1 - value / top) * inner.height;
    const lines = this.values.map((values, index) => svg('path', { class: `line line-${index}`, d: line(values, x, y) }));
    const picture = svg(
      'svg', { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, 'aria-hidden': 'true' },
      ...this.axes({ top, step, x, y, right: width - MARGIN.right }), ...lines, ...this.cross(x, y),
    );
    this.frame.replaceChildren(picture);
    this.words();
  }

  axes({ top, step, x, y, right }) {
    const parts = [];
    for (let value = 0; value <= top + step / 2; value += step) {
      parts.push(svg('path', { class: 'grid', d: `M${MARGIN.left} ${y(value).toFixed(1)}H${right}` }));
      parts.push(svg('text', { x: MARGIN.left - 6, y: y(value) + 4, 'text-anchor': 'end' }, number(value, step < 1 ? 2 : 0)));
    }
    const last = this.time.length - 1;
    if (last < 1) return parts;
    const label = (index, anchor) => svg('text', { x: x(index), y: HEIGHT - 6, 'text-anchor': anchor }, clock(this.time[index]));
    return [...parts, label(0, 'start'), label(last, 'end'), ...(right > 420 ? [label(Math.round(last / 2), 'middle')] : [])];
  }

  cross(x, y) {
    if (this.at === null) return [];
    const dots = this.values.map((values, index) => {
      const value = values[this.at];
      return Number.isFinite(value) ? svg('circle', { class: `dot line-${index}`, cx: x(this.at), cy: y(value), r: 3.5 }) : null;
    });
    return [svg('path', { class: 'cross', d: `M${x(this.at)} ${MARGIN.top}V${HEIGHT - MARGIN.bottom}` }), ...dots.filter(Boolean)];
  }

  words() {
    const name = t(this.name);
    // Counts need no unit beside their name.
    this.title.textContent = this.counts ? name : `${name} (${t(this.unit)})`;
    this.legend.replaceChildren(...this.series.map((key, index) => el('span', { class: `key key-${index}` }, t(key))));
    this.summary.textContent = t('plot.table');
    this.rows.setAttribute('aria-label', name);
    const sums = this.series.map((key, index) => {
      const values = this.values[index];
      return t('plot.summary', { name: t(key), now: this.format(values.at(-1)), most: this.format(Math.max(...values.filter(Number.isFinite))) });
    });
    this.frame.setAttribute('aria-label', `${name}. ${this.time.length > 0 ? sums.join('; ') : t('plot.none')}`);
    this.about.textContent = t('plot.keys');
    // Values that a reader chose are read out, those that come by themselves are not.
    this.readout.setAttribute('aria-live', this.at === null ? 'off' : 'polite');
    const at = this.at ?? this.time.length - 1;
    const parts = this.series.map((key, index) => `${t(key)} ${this.format(this.values[index][at])}`);
    const shown = at < 0 ? t('plot.none') : [clock(this.time[at]), ...parts].join(' · ');
    if (this.readout.textContent !== shown) this.readout.textContent = shown;
  }

  /** The latest values, newest first; made only while it is open. */
  drawTable() {
    if (!this.table.open) return;
    const indices = this.time.map((_, index) => index).reverse().slice(0, TABLE_ROWS);
    const head = [t('column.time'), ...this.series.map((key) => t(key))].map((text) => el('th', { scope: 'col' }, text));
    const rows = indices.map((index) =>
      el('tr', {}, el('td', {}, clock(this.time[index])), ...this.values.map((values) => el('td', { class: 'number' }, this.format(values[index])))));
    this.rows.replaceChildren(el('table', {}, el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows)));
  }
}
