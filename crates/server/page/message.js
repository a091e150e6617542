// One message of a conversation: its text, what it is still waiting for, what can be done with it.

import { siblings } from './conversation.js';
import { copyWith, el, icon, iconButton } from './dom.js';
import { duration, number, rate, t } from './i18n.js';
import { MarkdownView } from './markdown.js';

const button = (name, label, act, attributes = {}) =>
  iconButton(name, label, act, { ...attributes, class: 'icon-button small' });

/** `‹ 2/3 ›` where there are several versions. */
function versions(conversation, node, busy, actions) {
  const all = siblings(conversation, node);
  if (all.length < 2) return null;
  const index = all.indexOf(node);
  const go = (to) => () => actions.show(all[to]);
  const place = t('message.version', { n: index + 1, of: all.length });
  return el(
    'span', { class: 'versions', role: 'group', 'aria-label': place },
    button('left', t('message.previous'), go(index - 1), { disabled: index === 0 || busy }),
    el('span', { 'aria-hidden': 'true' }, `${index + 1}/${all.length}`),
    button('right', t('message.next'), go(index + 1), { disabled: index === all.length - 1 || busy }),
  );
}

/** A question: plain text as it was typed, which can be edited and sent again. */
export function userMessage(conversation, node, { busy, actions }) {
  const text = el('div', { class: 'question' }, node.content);
  const tools = el('div', { class: 'tools' });
  const element = el('article', { class: 'message user', 'aria-label': t('message.you'), 'data-node': node.id }, text, tools);
  tools.append(
    ...[
      versions(conversation, node, busy, actions),
      button('copy', t('message.copy'), (event) => copyWith(event.currentTarget, node.content, t('copied'), t('copy.failed'))),
      button('edit', t('message.edit'), () => edit(element, node, actions), { disabled: busy }),
    ].filter(Boolean),
  );
  return element;
}

function edit(element, node, actions) {
  const field = el('textarea', { class: 'edit-field', 'aria-label': t('message.edit.label'), rows: Math.min(12, node.content.split('\n').length + 1) });
  field.value = node.content;
  const form = el(
    'form', { class: 'edit' }, field,
    el('div', { class: 'dialog-buttons' },
      el('button', { type: 'button', class: 'button', on: { click: () => leave() } }, t('dialog.cancel')),
      el('button', { type: 'submit', class: 'button primary' }, t('message.edit.send'))),
  );
  const old = [...element.childNodes];
  const leave = () => {
    element.replaceChildren(...old);
    element.querySelector('.tools button:last-child')?.focus();
  };
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (field.value.trim()) actions.resend(node, field.value);
  });
  field.addEventListener('keydown', (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      form.requestSubmit();
    } else if (event.key === 'Escape') {
      event.stopPropagation();
      leave();
    }
  });
  element.replaceChildren(form);
  field.focus();
}

/** An answer, complete or on its way. */
export class AnswerView {
  constructor(conversation, node, { busy, generation, actions, changed }) {
    Object.assign(this, { conversation, node, actions, changed });
    this.text = el('div', { class: 'answer' });
    this.markdown = new MarkdownView(this.text);
    this.thought = null;
    this.waiting = null;
    this.below = el('div', { class: 'below' });
    this.head = el('div', { class: 'answer-head' }, node.model ?? '');
    this.element = el('article', { class: 'message assistant', 'aria-label': t('message.answer', { model: node.model ?? '' }), 'data-node': node.id }, this.head, this.text, this.below);
    this.next = 0;
    this.scheduled = false;
    this.busy = busy;
    this.generation = generation;
    this.draw();
  }

  /** Draws with the next frame; not so often that drawing takes more than a fifth of the time. */
  update(generation) {
    this.generation = generation;
    if (this.scheduled) return;
    this.scheduled = true;
    const draw = () =>
      requestAnimationFrame(() => {
        this.scheduled = false;
        const start = performance.now();
        this.draw();
        const end = performance.now();
        this.next = end + 4 * (end - start);
      });
    const wait = this.next - performance.now();
    // A hidden tab has no frames, and nobody who would see them.
    if (wait > 16) setTimeout(draw, wait);
    else draw();
  }

  draw() {
    const { node, generation } = this;
    const ended = !generation || generation.phase === 'ended';
    this.element.toggleAttribute('data-writing', !ended);
    this.element.setAttribute('aria-busy', String(!ended));
    this.drawThought(ended);
    this.markdown.update(node.content, ended);
    this.drawWaiting(ended);
    if (ended) this.drawEnd();
    else this.drawLive();
    this.changed();
  }

  /** After something around it changed. */
  refresh({ busy, node }) {
    Object.assign(this, { busy, node, generation: null });
    this.draw();
  }

  drawThought(ended) {
    const { node } = this;
    if (!node.reasoning) return;
    if (!this.thought) {
      const body = el('div', { class: 'thought-text' });
      const label = el('summary');
      const element = el('details', { class: 'thought' }, label, body);
      this.thought = { label, view: new MarkdownView(body) };
      this.text.before(element);
    }
    const thinking = !ended && !node.content;
    this.thought.label.replaceChildren(icon('more'), thinking ? t('message.thinking') : t('message.thought'));
    this.thought.view.update(node.reasoning, !thinking);
  }

  drawWaiting(ended) {
    const { generation } = this;
    const waits = !ended && generation.phase !== 'writing';
    if (!waits) {
      this.waiting?.element.remove();
      this.waiting = null;
      return;
    }
    if (!this.waiting) {
      const label = el('span', {});
      const bar = el('progress', { max: 1, 'aria-label': t('wait.loading.label') });
      this.waiting = { label, bar, element: el('div', { class: 'waiting', role: 'status' }, el('span', { class: 'pulse', 'aria-hidden': 'true' }), label) };
      this.text.before(this.waiting.element);
    }
    const { label, bar, element } = this.waiting;
    const words = waitingText(generation);
    if (label.textContent !== words) label.textContent = words;
    if (generation.phase === 'loading') {
      bar.value = generation.loading;
      if (!bar.isConnected) element.append(bar);
    } else {
      bar.remove();
    }
  }

  drawLive() {
    const speed = this.generation.speed;
    if (!this.live) {
      this.live = el('span', { class: 'figures' });
      this.below.replaceChildren(this.live);
    }
    const parts = [];
    if (this.generation.pieces > 0) parts.push(t('figures.tokens', { n: this.generation.pieces, shown: number(this.generation.pieces) }));
    if (speed !== null) parts.push(t('figures.speed', { n: rate(speed) }));
    this.live.textContent = parts.join(' · ');
  }

  drawEnd() {
    this.live = null;
    const { node } = this;
    const error = node.state === 'failed' ? this.error() : null;
    const notes = [
      node.state === 'stopped' ? el('p', { class: 'note' }, t('message.stopped')) : null,
      node.state === 'writing' ? el('p', { class: 'note' }, t('message.unfinished')) : null,
      node.state === 'done' && node.finish === 'length' ? el('p', { class: 'note' }, t('message.length')) : null,
      node.state === 'done' && !node.content && !node.reasoning ? el('p', { class: 'note' }, t('message.empty')) : null,
      typeof node.same === 'boolean' ? el('p', { class: node.same ? 'note same' : 'note' }, t(node.same ? 'message.same' : 'message.different')) : null,
    ];
    this.below.replaceChildren(...[error, ...notes, this.tools(), this.figures()].filter(Boolean));
  }

  error() {
    const { error } = this.node;
    const later = error?.retryAfter ? t('error.later', { n: error.retryAfter }) : '';
    return el(
      'div', { class: 'error', role: 'alert' }, icon('warning'),
      el('div', {}, el('p', {}, error?.message || t('error.unknown')), later ? el('p', { class: 'muted' }, later) : null),
      el('button', { type: 'button', class: 'button', disabled: this.busy, on: { click: () => this.actions.retry(this.node) } }, t('message.retry')),
    );
  }

  tools() {
    const { node, actions, busy, conversation } = this;
    // Nothing came: trying again is all there is to do.
    if (node.state === 'failed' && !node.content) return el('div', { class: 'tools' }, versions(conversation, node, busy, actions));
    const cutOff = node.content && (node.finish === 'length' || ['stopped', 'writing', 'failed'].includes(node.state));
    const tools = [
      versions(conversation, node, busy, actions),
      node.content
        ? button('copy', t('message.copy'), (event) => copyWith(event.currentTarget, node.content, t('copied'), t('copy.failed')))
        : null,
      button('again', t('message.regenerate'), () => actions.regenerate(node), { disabled: busy }),
      Number.isFinite(node.seed) && node.seed !== null
        ? button('same', t('message.again', { seed: node.seed }), () => actions.again(node), { disabled: busy })
        : null,
      cutOff ? button('forward', t('message.continue'), () => actions.continue(node), { disabled: busy }) : null,
    ];
    return el('div', { class: 'tools' }, ...tools);
  }

  figures() {
    const { stats = {}, seed, state, content } = this.node;
    if (state === 'failed' && !content) return null;
    const about = stats.estimated ? '≈ ' : '';
    const parts = [];
    if (stats.prompt_tokens !== undefined) {
      parts.push(['prompt', t('figures.prompt', { n: number(stats.prompt_tokens) }), t('figures.cached', { n: number(stats.cached_tokens ?? 0) })]);
    }
    if (stats.completion_tokens !== undefined) {
      const n = stats.completion_tokens;
      parts.push(['tokens', about + t('figures.tokens', { n, shown: number(n) }), null]);
    }
    if (stats.decode_tokens_per_s) parts.push(['speed', about + t('figures.speed', { n: rate(stats.decode_tokens_per_s) }), prefill(stats)]);
    if (stats.ttft_ms !== undefined) parts.push(['ttft', t('figures.ttft', { time: duration(stats.ttft_ms) }), stats.queue_ms ? t('figures.queue', { time: duration(stats.queue_ms) }) : null]);
    if (Number.isFinite(seed)) parts.push(['seed', t('figures.seed', { seed }), null]);
    return el('p', { class: 'figures' }, ...parts.map(([name, words, title]) => el('span', { 'data-figure': name, title }, words)));
  }
}

const prefill = (stats) => (stats.prefill_tokens_per_s ? t('figures.prefill', { n: rate(stats.prefill_tokens_per_s) }) : null);

function waitingText(generation) {
  if (generation.phase === 'queue') {
    return generation.queue > 0 ? t('wait.queue', { n: generation.queue }) : t('wait.next');
  }
  if (generation.phase === 'loading') return t('wait.loading', { percent: Math.floor(generation.loading * 100) });
  return t('wait.sent');
}
