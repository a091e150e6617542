// How answers are drawn: the fields, their ranges, what a request says of them.

import { keep, kept } from './i18n.js';

const DEFAULTS = 'wushi.defaults';

/** Ranges as the server checks them; an empty field leaves the choice to the server. */
export const FIELDS = [
  { name: 'temperature', min: 0, step: 0.05 },
  { name: 'top_p', above: 0, max: 1, step: 0.01 },
  { name: 'top_k', min: 0, step: 1, whole: true },
  { name: 'min_p', min: 0, max: 1, step: 0.01 },
  { name: 'repetition_penalty', above: 0, max: 100, step: 0.01 },
  { name: 'max_tokens', min: 1, step: 1, whole: true },
  { name: 'seed', min: 0, step: 1, whole: true },
];

/** The number in a field: null for none, undefined for one that will not do. */
export function parse(field, text) {
  const trimmed = text.trim();
  if (trimmed === '') return null;
  const value = Number(trimmed);
  const fits =
    Number.isFinite(value) &&
    (!field.whole || Number.isSafeInteger(value)) &&
    (field.min === undefined || value >= field.min) &&
    (field.above === undefined || value > field.above) &&
    (field.max === undefined || value <= field.max);
  return fits ? value : undefined;
}

/** Only what is known and fits, as kept or imported settings may be anything. */
export function checked(settings) {
  const found = {};
  for (const field of FIELDS) {
    const value = settings?.[field.name];
    if (typeof value === 'number' && parse(field, String(value)) !== undefined) found[field.name] = value;
  }
  return found;
}

/** Another seed than before, known even where an answer is stopped before the server tells. */
export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

/** What new conversations begin with. */
export function defaults() {
  try {
    const { model, system, settings } = JSON.parse(kept(DEFAULTS) ?? '{}');
    return {
      model: typeof model === 'string' ? model : null,
      system: typeof system === 'string' ? system : '',
      settings: checked(settings),
    };
  } catch {
    return { model: null, system: '', settings: {} };
  }
}

export function setDefaults(changed) {
  keep(DEFAULTS, JSON.stringify({ ...defaults(), ...changed }));
}
