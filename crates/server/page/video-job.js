// One video in the list: how far it is, what is seen of it, what can be done with it.

import { announce, copyWith, el, icon, iconButton } from './dom.js';
import { bytes, duration, locale, number, t } from './i18n.js';
import { content, unfinished } from './video-api.js';
import { sizeText } from './video-form.js';
import { about, lengthText } from './video-plan.js';

const ENDINGS = { mp4: 'mp4', apng: 'png', gif: 'gif' };

const when = (seconds) => new Date(seconds * 1000).toLocaleString(locale(), { dateStyle: 'medium', timeStyle: 'short' });

/** What is being done, and how far it is. */
export function stageText(job) {
  const waits = { 'waiting for memory': 'memory', 'waiting for disk': 'disk', 'waiting for its model to be served': 'model' };
  if (job.status === 'queued' && waits[job.stage]) return t(`job.queued.${waits[job.stage]}`);
  if (job.status === 'queued') return job.queue_position > 0 ? t('job.queued.after', { n: job.queue_position }) : t('job.queued.next');
  if (job.stage === 'denoising') return t('job.denoising', { n: number(job.steps_done ?? 0), of: number(job.num_inference_steps) });
  if (job.stage === 'decoding') return t('job.decoding', { n: number(job.frames_done ?? 0), of: number(job.num_frames) });
  return t(job.stage === 'text' ? 'job.text' : 'job.loading');
}

export class JobCard {
  /** `actions`: again(job), fill(job), remove(job); `same` says whether an older video has the same frames. */
  constructor(job, actions) {
    Object.assign(this, { job, actions, url: null, shown: null, wanted: null, drawn: null });
    this.view = el('div', { class: 'job-view' }, icon('film'));
    this.title = el('h3', { id: `title-${job.id}` });
    this.state = el('p', { class: 'job-state' });
    this.progress = el('progress', { max: 100 });
    this.figures = el('p', { class: 'figures' });
    this.note = el('p', { class: 'note', hidden: true });
    this.trouble = el('p', { class: 'invalid', role: 'alert', hidden: true });
    this.tools = el('div', { class: 'job-tools' });
    this.details = el('details', { class: 'job-details' });
    const body = el('div', { class: 'job-body' }, this.title, this.state, this.progress, this.figures, this.note, this.trouble, this.tools, this.details);
    this.element = el('li', { class: 'card job', id: job.id, tabindex: '-1', 'data-job': job.id, 'aria-labelledby': `title-${job.id}` }, this.view, body);
    this.update(job);
  }

  /** Takes what the server says now. */
  update(job, same = null) {
    const before = this.drawn;
    this.job = job;
    const mark = JSON.stringify([job, same]);
    if (before?.mark === mark) return;
    this.drawn = { mark, status: job.status, same };
    this.element.dataset.state = job.status;
    this.title.textContent = job.prompt;
    this.drawState();
    this.drawNote(same);
    if (before?.status !== job.status) {
      this.drawTools();
      this.drawDetails();
    }
    this.picture();
  }

  /** Again in another language. */
  redraw() {
    const { same } = this.drawn;
    this.drawn = null;
    this.update(this.job, same);
    this.labelPlay();
  }

  // ---- words

  drawState() {
    const { job } = this;
    const running = job.status === 'in_progress';
    const words = [el('span', { class: `state state-${job.status}` }, t(`job.${job.status}`))];
    if (unfinished(job)) words.push(el('span', {}, stageText(job)));
    if (unfinished(job) && Number.isFinite(job.estimated_seconds_left)) words.push(el('span', {}, t('job.left', { time: about(job.estimated_seconds_left) })));
    if (!unfinished(job)) words.push(el('a', { href: `#${job.id}`, title: t('job.link') }, when(job.completed_at ?? job.created_at)));
    this.state.replaceChildren(...words);
    this.progress.hidden = !running;
    this.progress.value = job.progress ?? 0;
    this.progress.setAttribute('aria-label', t('job.progress', { prompt: job.prompt }));
    const parts = [sizeText(job.width, job.height), lengthText(job), t('plan.steps', { n: job.num_inference_steps }), t('figures.seed', { seed: job.seed })];
    if (job.bytes) parts.push(`${job.output_format.toUpperCase()} ${bytes(job.bytes)}`);
    this.figures.replaceChildren(...parts.map((text) => el('span', {}, text)));
    if (job.status === 'failed') this.say(job.error?.message ?? t('error.unknown'));
  }

  drawNote(same) {
    this.note.hidden = !same;
    this.note.classList.toggle('same', same?.equal === true);
    this.note.textContent = same ? t(same.equal ? 'job.same' : 'job.different', { time: when(same.job.completed_at) }) : '';
  }

  say(text) {
    this.trouble.hidden = text === null;
    if (this.trouble.textContent !== (text ?? '')) this.trouble.textContent = text ?? '';
  }

  drawTools() {
    const { job, actions } = this;
    const focused = this.tools.contains(document.activeElement);
    const button = (name, picture, act, extra = '') => el(
      'button', { type: 'button', class: `button ${extra}`, 'data-tool': name, 'aria-label': `${t(`job.${name}`)}: ${job.prompt}`, on: { click: act } },
      icon(picture), el('span', {}, t(`job.${name}`)),
    );
    const stop = job.status === 'in_progress' ? 'stop' : 'unqueue';
    const tools = unfinished(job)
      ? [button('fill', 'sliders', () => actions.fill(this.job)), button(stop, 'close', () => actions.remove(this.job), 'danger-plain')]
      : [
        job.status === 'completed' ? button('download', 'download', () => this.download()) : null,
        button('again', 'same', () => actions.again(this.job)),
        button('fill', 'sliders', () => actions.fill(this.job)),
        button('delete', 'trash', () => actions.remove(this.job), 'danger-plain'),
      ];
    this.tools.replaceChildren(...tools.filter(Boolean));
    if (focused) this.tools.querySelector('button')?.focus();
  }

  drawDetails() {
    const { job } = this;
    const value = (content) => (content === null || content === undefined || content === '' ? null : content);
    const copied = (text, label) => {
      const button = iconButton('copy', label, () => copyWith(button, text, t('copied'), t('copy.failed')), { class: 'icon-button small' });
      return el('span', { class: 'copied' }, el('code', {}, text), button);
    };
    const took = job.completed_at && job.created_at ? duration((job.completed_at - job.created_at) * 1000) : null;
    const entries = [
      ['negative', value(job.negative_prompt)],
      ['model', job.model],
      ['guidance', value(job.guidance_scale) && number(job.guidance_scale, 3)],
      ['guidance2', value(job.guidance_scale_2) && number(job.guidance_scale_2, 3)],
      ['boundary', value(job.boundary_ratio) && number(job.boundary_ratio, 3)],
      ['shift', value(job.flow_shift) && number(job.flow_shift, 3)],
      ['seed', copied(String(job.seed), t('job.copy.seed'))],
      ['digest', job.frames_digest && copied(job.frames_digest, t('job.copy.digest'))],
      ['created', when(job.created_at)],
      ['took', took],
      ['expires', job.expires_at && when(job.expires_at)],
      ['id', el('code', {}, job.id)],
    ].filter(([, content]) => content);
    const rows = entries.flatMap(([name, content]) => [el('dt', {}, t(`job.field.${name}`)), el('dd', { 'data-detail': name }, content)]);
    this.details.replaceChildren(el('summary', {}, icon('more'), t('job.details')), el('dl', {}, ...rows));
  }

  // ---- pictures

  /** Shows the latest frame while frames come, and how the video begins once it is there. */
  picture() {
    const { job } = this;
    if (job.status === 'in_progress' && job.stage === 'decoding' && job.frames_done > 0) this.still('latest', job.frames_done);
    else if (job.status === 'completed' && this.shown !== 'video') this.still('thumbnail', 0);
    else if (job.status === 'failed') this.view.replaceChildren(icon('warning'));
  }

  async still(variant, index) {
    const wanted = `${variant} ${index}`;
    if (this.wanted === wanted || (variant === 'latest' && this.busy)) return;
    this.wanted = wanted;
    this.busy = true;
    // The word for what is there is not worth a message: a picture is missing, that is all.
    const blob = await content(this.job.id, variant).catch(() => null);
    this.busy = false;
    if (this.wanted !== wanted) return;
    if (blob) this.keep(blob);
    const image = blob ? el('img', { src: this.url, alt: variant === 'latest' ? t('job.latest', { n: this.job.frames_done }) : '' }) : icon('film');
    if (variant === 'latest') {
      if (blob) this.view.replaceChildren(image);
      this.picture();
      return;
    }
    this.view.replaceChildren(el('button', { type: 'button', class: 'play', on: { click: () => this.play() } }, image, el('span', { class: 'play-mark' }, icon('play'))));
    this.labelPlay();
  }

  labelPlay() {
    const button = this.view.querySelector('.play');
    button?.setAttribute('aria-label', t('job.play', { prompt: this.job.prompt }));
  }

  /** The address of what is shown now; the one before is given back. */
  keep(blob) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = blob && URL.createObjectURL(blob);
  }

  async whole() {
    this.say(null);
    this.element.setAttribute('aria-busy', 'true');
    try {
      return await content(this.job.id);
    } catch (error) {
      this.say(error.message);
      return null;
    } finally {
      this.element.removeAttribute('aria-busy');
    }
  }

  async play() {
    const blob = await this.whole();
    if (!blob) return;
    this.shown = 'video';
    this.wanted = 'video';
    this.keep(blob);
    if (blob.type.startsWith('video/')) {
      const video = el('video', { src: this.url, controls: true, loop: true, playsinline: true, 'aria-label': this.job.prompt, tabindex: '0' });
      // There is no sound; said, so that browsers let it begin.
      video.muted = true;
      video.addEventListener('error', () => this.say(t('job.unplayable')));
      this.view.replaceChildren(video);
      video.focus();
      // Where that is not allowed there is the button.
      await video.play().catch(() => {});
      return;
    }
    const stop = iconButton('stop', t('job.play.stop'), () => {
      this.shown = null;
      this.wanted = null;
      this.still('thumbnail', 0).then(() => this.view.querySelector('button')?.focus());
    }, { class: 'icon-button stop' });
    this.view.replaceChildren(el('img', { src: this.url, alt: this.job.prompt }), stop);
    stop.focus();
  }

  async download() {
    const blob = await this.whole();
    if (!blob) return;
    const address = URL.createObjectURL(blob);
    const words = this.job.prompt.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '').slice(0, 40) || 'video';
    el('a', { href: address, download: `${words}-${this.job.seed}.${ENDINGS[this.job.output_format] ?? 'mp4'}` }).click();
    announce(t('job.downloaded'));
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }

  gone() {
    this.wanted = null;
    this.keep(null);
    this.element.remove();
  }
}
