// What a video shall be: the fields, what they say to the server, and what the server says of them.

import { byId, el } from './dom.js';
import { keep, kept, number, onLanguage, t, translate } from './i18n.js';
import { parse } from './settings.js';

const DRAFT = 'wushi.video.draft';

// `pair` is for models of two denoisers, `more` is folded away at first. Arrow keys move by `step`.
const NUMBERS = [
  { name: 'steps', param: 'num_inference_steps', min: 1, step: 1, whole: true },
  { name: 'guidance', param: 'guidance_scale', min: 1, step: 0.5 },
  { name: 'seed', param: 'seed', min: 0, step: 1, whole: true },
  { name: 'guidance2', param: 'guidance_scale_2', min: 1, step: 0.5, more: true, pair: true },
  { name: 'boundary', param: 'boundary_ratio', above: 0, max: 1, step: 0.05, more: true, pair: true },
  { name: 'shift', param: 'flow_shift', above: 0, step: 0.5, more: true },
  { name: 'fps', param: 'fps', min: 1, step: 1, whole: true, more: true },
];
const SIDE = { min: 1, whole: true };
const LENGTH = { above: 0 };

// Fields by the names under which the API speaks of them.
const FIELD_OF = {
  prompt: 'prompt', negative_prompt: 'negative', model: 'model', size: 'size', width: 'size', height: 'size',
  num_frames: 'length', seconds: 'length', output_format: 'format',
  ...Object.fromEntries(NUMBERS.map(({ name, param }) => [param, name])),
};
const FOLDED = new Set(['format', ...NUMBERS.filter(({ more }) => more).map(({ name }) => name)]);
const FORMATS = ['mp4', 'apng', 'gif'];

export const sizeText = (width, height) => `${width} × ${height}`;

const TEXTS = ['prompt', 'negative', 'width', 'height', 'length', ...NUMBERS.map(({ name }) => name)];
const CHOICES = ['model', 'size', 'unit', 'format'];

export class VideoForm {
  /** `changed` after every change that a plan depends on, `submit` when a video is asked for. */
  constructor({ changed, submit }) {
    this.changed = changed;
    this.plan = null;
    this.presets = [];
    this.inputs = Object.fromEntries([...TEXTS.map((name) => [name, this.text(name)]), ...CHOICES.map((name) => [name, this.choice(name)])]);
    this.build();
    this.restore();
    onLanguage(() => this.draw());
    byId('form').addEventListener('submit', (event) => {
      event.preventDefault();
      submit();
    });
    this.draw();
  }

  // ---- elements

  text(name) {
    const long = name === 'prompt' || name === 'negative';
    const input = el(long ? 'textarea' : 'input', {
      id: name === 'prompt' ? 'prompt' : `video-${name}`, rows: long ? (name === 'prompt' ? 4 : 2) : null, autocomplete: 'off',
      inputmode: long ? null : NUMBERS.find((field) => field.name === name)?.whole || name === 'width' || name === 'height' ? 'numeric' : 'decimal',
    });
    input.addEventListener('input', () => this.touched(name));
    const field = NUMBERS.find((entry) => entry.name === name);
    if (field) input.addEventListener('keydown', (event) => this.step(event, field));
    return input;
  }

  choice(name) {
    const select = el('select', { id: `video-${name}` });
    select.addEventListener('change', () => this.touched(name));
    return select;
  }

  /** Arrow keys move a number, from the model's own where the field is empty. */
  step(event, field) {
    const by = { ArrowUp: field.step, ArrowDown: -field.step }[event.key];
    if (!by) return;
    event.preventDefault();
    const from = parse(field, event.target.value) ?? this.plan?.[field.param] ?? 0;
    const next = String(Number((from + by).toFixed(4)));
    if (parse(field, next) === undefined) return;
    event.target.value = next;
    this.touched(field.name);
  }

  /** A field with its label, hint and room for what is wrong with it. */
  row(name, ...content) {
    const main = this.inputs[name];
    const hint = `hint-${name}`;
    const error = `error-${name}`;
    for (const input of content.length > 0 ? content.flatMap((part) => (part.matches('input, select') ? [part] : [...part.querySelectorAll('input, select')])) : [main]) {
      input.setAttribute('aria-describedby', `${hint} ${error}`);
    }
    return el(
      'div', { class: `field field-${name}`, id: `field-${name}` },
      el('label', { for: main.id, 'data-t': `video.${name}` }),
      ...(content.length > 0 ? content : [main]),
      el('p', { id: hint, class: 'muted', 'data-t': `video.${name}.hint` }),
      el('p', { id: error, class: 'invalid', hidden: true }),
    );
  }

  build() {
    const { width, height, size, unit, length } = this.inputs;
    width.setAttribute('data-t-label', 'video.width');
    height.setAttribute('data-t-label', 'video.height');
    unit.setAttribute('data-t-label', 'video.unit');
    this.free = el('span', { class: 'free' }, width, el('span', { 'aria-hidden': 'true' }, '×'), height);
    this.ideas = el('div', { class: 'ideas' });
    const numbers = (more) => NUMBERS.filter((field) => Boolean(field.more) === more).map(({ name }) => this.row(name));
    byId('fields').append(
      this.row('prompt'), this.ideas, this.row('negative'), this.row('model'),
      this.row('size', el('span', { class: 'sizes' }, size, this.free)),
      this.row('length', el('span', { class: 'lengths' }, length, unit)),
      ...numbers(false),
    );
    byId('more-fields').append(...numbers(true), this.row('format'));
    translate(byId('form'));
  }

  // ---- what is shown

  draw() {
    this.options('unit', ['frames', 'seconds'].map((name) => [name, t(`video.unit.${name}`)]));
    this.options('format', FORMATS.map((name) => [name, t(`video.format.${name}`)]));
    this.ideas.replaceChildren(...[1, 2, 3].map((index) => {
      const text = t(`video.idea.${index}`);
      return el('button', { type: 'button', class: 'idea', on: { click: () => this.take(text) } }, text);
    }));
    this.drawIdeas();
    this.drawSizes();
    this.drawPlan();
  }

  /** For those who do not know what to ask for, and in nobody's way afterwards. */
  drawIdeas() {
    this.ideas.hidden = this.inputs.prompt.value.trim() !== '';
  }

  /** Only what differs, and not what was chosen. */
  options(name, entries, attributes = () => ({})) {
    const select = this.inputs[name];
    const { value } = select;
    const wanted = entries.map(([key, text]) => el('option', { value: key, ...attributes(key) }, text));
    const mark = (list) => list.map((option) => `${option.value} ${option.text} ${option.disabled}`).join('\n');
    if (mark([...select.options]) === mark(wanted)) return;
    select.replaceChildren(...wanted);
    select.value = entries.some(([key]) => key === value) ? value : entries[0]?.[0] ?? '';
  }

  take(text) {
    this.inputs.prompt.value = text;
    this.touched('prompt');
    this.inputs.prompt.focus();
  }

  setModels(models) {
    this.options('model', models.map(({ id, state }) => [id, state && state !== 'ready' ? `${id} · ${t(`model.${state}`)}` : id]));
    byId('field-model').hidden = models.length < 2;
    // What was kept may have been another server's.
    if (this.wantedModel && models.some(({ id }) => id === this.wantedModel)) this.inputs.model.value = this.wantedModel;
    this.wantedModel = null;
  }

  /** Sizes to choose from: `{width, height, fits, bytes text}`. */
  setPresets(presets) {
    this.presets = presets;
    this.drawSizes();
  }

  drawSizes() {
    const { size } = this.inputs;
    const chosen = size.value;
    const own = this.presets.find((preset) => preset.own);
    const entries = [['', own ? t('video.size.own.known', { size: sizeText(own.width, own.height) }) : t('video.size.own')]];
    for (const preset of this.presets.filter((entry) => !entry.own)) {
      const text = `${sizeText(preset.width, preset.height)} · ${t(`video.shape.${shape(preset)}`)}`;
      entries.push([`${preset.width}x${preset.height}`, preset.fits ? text : `${text} · ${t('video.size.too.large')}`]);
    }
    if (/^\d+x\d+$/.test(chosen) && !entries.some(([key]) => key === chosen)) entries.push([chosen, chosen.replace('x', ' × ')]);
    entries.push(['other', t('video.size.other')]);
    const fits = (key) => this.presets.find((preset) => `${preset.width}x${preset.height}` === key)?.fits !== false;
    this.options('size', entries, (key) => ({ disabled: key !== chosen && !fits(key) }));
    this.free.hidden = size.value !== 'other';
  }

  setPlan(plan) {
    this.plan = plan;
    this.drawPlan();
  }

  /** Empty fields show what the model takes by itself. */
  drawPlan() {
    const { plan } = this;
    for (const { name, param, pair } of NUMBERS) {
      const value = plan?.[param];
      this.inputs[name].placeholder = name === 'seed' ? t('video.seed.drawn') : Number.isFinite(value) ? number(value, 3) : t('video.model.own');
      if (pair) byId(`field-${name}`).hidden = !Number.isFinite(value) && this.inputs[name].value === '';
    }
    const frames = this.inputs.unit.value !== 'seconds';
    const length = frames ? plan?.num_frames : Number(plan?.seconds);
    this.inputs.length.placeholder = Number.isFinite(length) ? number(length, 2) : t('video.model.own');
    this.inputs.negative.placeholder = plan?.negative_prompt ?? '';
  }

  // ---- what is said

  touched(name) {
    const { size, width, height, unit, length } = this.inputs;
    if (name === 'size' && size.value === 'other' && width.value === '' && this.plan) {
      [width.value, height.value] = [this.plan.width, this.plan.height].map(String);
    }
    if (name === 'unit' && length.value !== '' && this.plan) {
      length.value = unit.value === 'seconds' ? String(Number(Number(this.plan.seconds).toFixed(3))) : String(this.plan.num_frames);
    }
    this.free.hidden = size.value !== 'other';
    this.wrong({ width: 'size', height: 'size', unit: 'length' }[name] ?? name, null);
    if (name === 'unit') this.drawPlan();
    if (name === 'prompt') this.drawIdeas();
    this.save();
    this.changed(name);
  }

  /** The request, and what is wrong with a field by its name. */
  read() {
    const value = (name) => this.inputs[name].value.trim();
    const errors = new Map();
    const body = {};
    for (const [name, param] of [['prompt', 'prompt'], ['negative', 'negative_prompt'], ['model', 'model']]) {
      if (value(name)) body[param] = value(name);
    }
    this.readSize(body, errors, value);
    const length = parse({ ...LENGTH, whole: value('unit') !== 'seconds' }, value('length'));
    if (length === undefined) errors.set('length', t('video.error.number'));
    else if (length !== null) body[value('unit') === 'seconds' ? 'seconds' : 'num_frames'] = length;
    for (const field of NUMBERS) {
      const found = field.name === 'seed' ? seedOf(value('seed')) : parse(field, value(field.name));
      if (found === undefined) errors.set(field.name, t('video.error.number'));
      else if (found !== null) body[field.param] = found;
    }
    if (value('format') && value('format') !== FORMATS[0]) body.output_format = value('format');
    return { body, errors };
  }

  readSize(body, errors, value) {
    const size = value('size');
    if (size === '') return;
    if (size !== 'other') {
      body.size = size;
      return;
    }
    const [width, height] = ['width', 'height'].map((name) => parse(SIDE, value(name)));
    if (Number.isSafeInteger(width) && Number.isSafeInteger(height)) body.size = `${width}x${height}`;
    else errors.set('size', t('video.error.number'));
  }

  chooseSize(width, height) {
    const { inputs } = this;
    const known = this.presets.find((preset) => preset.width === width && preset.height === height);
    if (known && !known.own) inputs.size.value = `${width}x${height}`;
    else inputs.size.value = known ? '' : 'other';
    if (!known) [inputs.width.value, inputs.height.value] = [width, height].map(String);
    this.touched('size');
  }

  /** Shows what is wrong with a field; null takes it back. */
  wrong(name, text) {
    const place = byId(`error-${name}`);
    if (!place) return;
    place.textContent = text ?? '';
    place.hidden = text === null;
    for (const input of byId(`field-${name}`).querySelectorAll('input, select, textarea')) {
      if (text === null) input.removeAttribute('aria-invalid');
      else input.setAttribute('aria-invalid', 'true');
    }
    if (text !== null && FOLDED.has(name)) byId('advanced').open = true;
  }

  clearErrors() {
    for (const name of new Set(Object.values(FIELD_OF))) this.wrong(name, null);
    this.refused(null);
  }

  /** An error of the server at the field it names, else above the button. */
  showError(error) {
    const name = FIELD_OF[error.param];
    if (name && !byId(`field-${name}`).hidden) this.wrong(name, error.message);
    else this.refused(error.message);
    return name ?? null;
  }

  refused(text) {
    const place = byId('refused');
    place.textContent = text ?? '';
    place.hidden = text === null;
  }

  focusWrong() {
    const first = byId('form').querySelector('[aria-invalid="true"]');
    first?.focus();
  }

  // ---- keeping

  /** Fills all fields with the settings of a video. */
  fill(job) {
    const { inputs } = this;
    const text = (value) => (value === null || value === undefined ? '' : String(value));
    inputs.prompt.value = text(job.prompt);
    inputs.negative.value = text(job.negative_prompt);
    inputs.unit.value = 'frames';
    inputs.length.value = text(job.num_frames);
    for (const { name, param } of NUMBERS) inputs[name].value = text(job[param]);
    inputs.format.value = FORMATS.includes(job.output_format) ? job.output_format : FORMATS[0];
    if ([...inputs.model.options].some((option) => option.value === job.model)) inputs.model.value = job.model;
    this.clearErrors();
    this.chooseSize(job.width, job.height);
    this.drawIdeas();
    inputs.prompt.focus();
  }

  save() {
    keep(DRAFT, JSON.stringify(Object.fromEntries(Object.entries(this.inputs).map(([name, input]) => [name, input.value]))), 'sessionStorage');
  }

  restore() {
    let draft = {};
    try {
      draft = JSON.parse(kept(DRAFT, 'sessionStorage') ?? '{}');
    } catch {
      // Somebody else's; begin anew.
    }
    this.draw();
    for (const [name, input] of Object.entries(this.inputs)) {
      const value = draft?.[name];
      if (typeof value !== 'string') continue;
      if (name === 'model') this.wantedModel = value;
      if (name === 'size' && /^\d+x\d+$/.test(value)) input.append(el('option', { value }, value.replace('x', ' × ')));
      input.value = value;
    }
    this.free.hidden = this.inputs.size.value !== 'other';
    this.drawIdeas();
  }
}

/** Seeds have up to 64 bits, which a number here does not keep. */
function seedOf(text) {
  const seed = parse({ min: 0, whole: true }, text);
  return seed === undefined && /^\d{16,20}$/.test(text) ? text : seed;
}

function shape({ width, height }) {
  return width === height ? 'square' : width > height ? 'wide' : 'tall';
}
