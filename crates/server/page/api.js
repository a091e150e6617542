// The server's API: requests with a key, errors as the server words them, streams of events.

import { askKey, currentKey } from './key.js';
import { t } from './i18n.js';

/** What went wrong: `status` 0 where no answer came at all, `param` the field it was about. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfter = null } = {}) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfter = retryAfter;
  }
}

async function errorOf(response) {
  const retry = Number.parseInt(response.headers.get('retry-after') ?? '', 10);
  const text = await response.text().catch(() => '');
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // A proxy between may answer in another form.
  }
  const message = error.message ?? t('error.http', { status: response.status });
  return new ApiError(message, {
    status: response.status,
    code: error.code ?? error.type ?? null,
    param: error.param ?? null,
    retryAfter: Number.isFinite(retry) ? retry : null,
  });
}

/** The server's answer, asked for with the key there is or that the user then gives; any other than good is an error. */
export async function request(path, { body, signal, method = body ? 'POST' : 'GET' } = {}) {
  for (;;) {
    const key = currentKey();
    const headers = key ? { authorization: `Bearer ${key}` } : {};
    if (body) headers['content-type'] = 'application/json';
    let response;
    try {
      const options = { method, headers, signal, cache: 'no-store', credentials: 'omit' };
      response = await fetch(path, { ...options, body: body && JSON.stringify(body) });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(t('error.network'));
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    // Another tab or request may have got a key meanwhile.
    if (response.status === 401 && (currentKey() !== key || (await askKey(key !== null)))) continue;
    throw error;
  }
}

/** The models that can do this, as `/v1/models` lists them: `chat` or `video`. */
export async function models(purpose) {
  const { data = [] } = await (await request('/v1/models')).json();
  const chats = ({ kind }) => kind !== 'embedding' && kind !== 'video';
  return data.filter(purpose === 'video' ? ({ kind }) => kind === 'video' : chats);
}

export async function status(signal) {
  return (await request('/status', { signal })).json();
}

/** Lines of server-sent events: `{comment}` or `{data}`. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += value ?? '';
      // A carriage return that comes last may be half of a line's end, unless it is the very last.
      const lines = rest.split(done ? /\r\n|\n|\r/ : /\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === '') {
          if (data.length > 0) yield { data: data.join('\n') };
          data = [];
        } else if (line.startsWith(':')) {
          yield { comment: line.slice(1).trim() };
        } else if (line.startsWith('data:')) {
          data.push(line.slice(5).replace(/^ /, ''));
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * An answer as it comes: `{queue}`, `{loading}`, `{text}`, `{reasoning}`, `{finish}`, `{usage, wushi}`.
 * Ends with the stream's `[DONE]`; anything else is an error, as the answer may be cut off.
 */
export async function* chat(body, signal) {
  const options = { stream: true, stream_options: { include_usage: true } };
  const response = await request('/v1/chat/completions', { body: { ...body, ...options }, signal });
  try {
    for await (const event of events(response.body)) {
      if (event.comment !== undefined) {
        const [word, value] = event.comment.split(' ');
        if (word === 'queue' || word === 'loading') yield { [word]: Number(value) };
        continue;
      }
      if (event.data === '[DONE]') return;
      yield* parts(JSON.parse(event.data));
    }
  } catch (error) {
    if (signal.aborted || error instanceof ApiError) throw error;
    throw new ApiError(t('error.network'));
  }
  throw new ApiError(t('error.cut'));
}

function* parts(chunk) {
  if (chunk.error) throw new ApiError(chunk.error.message, { status: 500, code: chunk.error.code });
  const choice = chunk.choices?.[0];
  if (choice?.delta?.reasoning_content) yield { reasoning: choice.delta.reasoning_content };
  if (choice?.delta?.content) yield { text: choice.delta.content };
  if (choice?.finish_reason) yield { finish: choice.finish_reason };
  if (chunk.usage) yield { usage: chunk.usage, wushi: chunk.wushi ?? {} };
}
