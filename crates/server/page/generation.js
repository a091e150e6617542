// One answer on its way: the request, what arrives, and what becomes of it. Knows no element of the page.

import { ApiError, chat } from './api.js';
import { messages } from './conversation.js';
import { checked } from './settings.js';

const SAVE_EVERY_MS = 1000;

/** Runs until the answer ends, is stopped or fails; `changed` after every piece, `save` now and then. */
export class Generation {
  constructor(conversation, node, { changed, save }) {
    Object.assign(this, { conversation, node, changed, save });
    this.controller = new AbortController();
    this.phase = 'sent';
    this.queue = null;
    this.loading = null;
    this.pieces = 0;
    this.began = performance.now();
    this.first = null;
  }

  stop() {
    this.controller.abort();
  }

  /** Tokens a second so far; a piece is a token, nearly always. */
  get speed() {
    const seconds = (performance.now() - this.first) / 1000;
    return this.first !== null && this.pieces > 1 && seconds > 0.2 ? (this.pieces - 1) / seconds : null;
  }

  async run() {
    const { node } = this;
    let keptAt = performance.now();
    try {
      for await (const part of chat(this.body(), this.controller.signal)) {
        this.take(part);
        this.changed(this);
        if (performance.now() - keptAt > SAVE_EVERY_MS) {
          keptAt = performance.now();
          this.store();
        }
      }
      node.state = 'done';
    } catch (error) {
      this.fail(error);
    }
    if (node.stats.completion_tokens === undefined && this.pieces > 0) this.estimate();
    this.phase = 'ended';
    this.store();
    this.changed(this);
  }

  fail(error) {
    const { node } = this;
    if (this.controller.signal.aborted) {
      node.state = 'stopped';
      return;
    }
    node.state = 'failed';
    const { status = 0, code = null, retryAfter = null } = error instanceof ApiError ? error : {};
    node.error = { message: error.message, status, code, retryAfter };
  }

  store() {
    this.node.rev += 1;
    this.save(this.conversation);
  }

  /** What is asked: settings, system prompt and model as noted in the message, so that it can be asked again. */
  body() {
    const { node, conversation } = this;
    const asked = messages(conversation, node.parent, node.system);
    const body = { model: node.model, messages: asked, ...checked(node.settings), seed: node.seed };
    if (!node.content) return body;
    // An answer that was cut off goes on where it ended.
    return { ...body, messages: [...asked, { role: 'assistant', content: node.content }], continue_final_message: true };
  }

  take(part) {
    const { node } = this;
    if (part.queue !== undefined) {
      this.phase = 'queue';
      this.queue = part.queue;
    } else if (part.loading !== undefined) {
      this.phase = 'loading';
      this.loading = part.loading;
    } else if (part.text !== undefined || part.reasoning !== undefined) {
      this.phase = 'writing';
      this.first ??= performance.now();
      this.pieces += 1;
      node.content += part.text ?? '';
      node.reasoning += part.reasoning ?? '';
    } else if (part.finish !== undefined) {
      node.finish = part.finish;
    } else if (part.usage) {
      this.account(part);
    }
  }

  account({ usage, wushi }) {
    const { node } = this;
    if (Number.isSafeInteger(wushi.seed)) node.seed = wushi.seed;
    const known = {
      prompt_tokens: usage.prompt_tokens,
      cached_tokens: usage.prompt_tokens_details?.cached_tokens,
      completion_tokens: usage.completion_tokens,
      queue_ms: wushi.queue_ms,
      ttft_ms: wushi.ttft_ms,
      prefill_tokens_per_s: wushi.prefill_tokens_per_s,
      decode_tokens_per_s: wushi.decode_tokens_per_s,
    };
    node.stats = Object.fromEntries(Object.entries(known).filter(([, value]) => Number.isFinite(value)));
  }

  /** The server's figures come last; an answer that was stopped has those seen from here. */
  estimate() {
    this.node.stats = { completion_tokens: this.pieces, ttft_ms: this.first - this.began, estimated: 1 };
    const speed = this.speed;
    if (speed !== null) this.node.stats.decode_tokens_per_s = speed;
  }
}
