// A conversation: a tree of messages, so that another answer or an edited question loses nothing. `head` is the
// leaf being read. Plain data and functions on it, no page.

const ROLES = ['user', 'assistant'];
const STATES = ['done', 'writing', 'stopped', 'failed'];
const FORMAT = 'wushi-conversations';
const MAX_TITLE = 200;

/** Random and unique; crypto.randomUUID is missing where a page came over plain http. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function newConversation({ model = null, system = '', settings = {} } = {}) {
  const now = Date.now();
  return { id: newId(), title: '', named: false, created: now, updated: now, rev: 0, model, system, settings, nodes: {}, head: null };
}

/** A message below another one, which becomes what is read. */
export function append(conversation, parent, fields) {
  const node = { id: newId(), parent, created: Date.now(), rev: 0, state: 'done', reasoning: '', content: '', ...fields };
  conversation.nodes[node.id] = node;
  conversation.head = node.id;
  conversation.updated = Date.now();
  if (!conversation.title && node.role === 'user') conversation.title = titleOf(node.content);
  return node;
}

/** The first words of a question. */
export function titleOf(text) {
  const line = text.trim().split('\n')[0].replace(/\s+/g, ' ');
  const characters = [...line];
  return characters.length > 60 ? `${characters.slice(0, 59).join('')}…` : line;
}

/** The messages from the first one to `leaf`. */
export function path(conversation, leaf = conversation.head) {
  const found = [];
  const seen = new Set();
  for (let id = leaf; id !== null && conversation.nodes[id] && !seen.has(id); id = conversation.nodes[id].parent) {
    seen.add(id);
    found.push(conversation.nodes[id]);
  }
  return found.reverse();
}

const childrenOf = (conversation, parent) =>
  Object.values(conversation.nodes)
    .filter((node) => node.parent === parent)
    .sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));

/** The other versions of a message, itself among them, oldest first. */
export const siblings = (conversation, node) => childrenOf(conversation, node.parent);

/** Reads on at a message: down to the newest leaf below it. */
export function select(conversation, node) {
  let leaf = node;
  for (let below = childrenOf(conversation, leaf.id); below.length > 0; below = childrenOf(conversation, leaf.id)) {
    leaf = below.at(-1);
  }
  conversation.head = leaf.id;
}

/** What a model is sent to write the message after `leaf`. */
export function messages(conversation, leaf, system = conversation.system) {
  const sent = system.trim() ? [{ role: 'system', content: system }] : [];
  for (const node of path(conversation, leaf)) {
    if (node.role === 'user' || node.content) sent.push({ role: node.role, content: node.content });
  }
  return sent;
}

/** Takes over what another tab knows and this one does not; the newer version of each message wins. */
export function merge(mine, theirs) {
  for (const node of Object.values(theirs.nodes)) {
    const own = mine.nodes[node.id];
    if (!own || own.rev < node.rev) mine.nodes[node.id] = node;
  }
  if (theirs.rev > mine.rev) {
    for (const name of ['title', 'named', 'rev', 'model', 'system', 'settings']) mine[name] = theirs[name];
  }
  mine.updated = Math.max(mine.updated, theirs.updated);
  mine.head ??= theirs.head;
}

export const exported = (conversations) => ({ format: FORMAT, version: 1, conversations });

const text = (value, most = Infinity) => (typeof value === 'string' ? value.slice(0, most) : '');
const finite = (value, otherwise) => (Number.isFinite(value) ? value : otherwise);

function numbers(value) {
  const entries = Object.entries(value && typeof value === 'object' ? value : {});
  return Object.fromEntries(entries.filter(([, entry]) => Number.isFinite(entry)));
}

function importedNode(raw, ids) {
  const state = STATES.includes(raw.state) && raw.state !== 'writing' ? raw.state : 'stopped';
  const node = {
    id: ids.get(raw.id),
    parent: ids.get(raw.parent) ?? null,
    role: raw.role,
    created: finite(raw.created, 0),
    rev: 0,
    state: raw.state === undefined ? 'done' : state,
    content: text(raw.content),
    reasoning: text(raw.reasoning),
  };
  if (raw.role === 'user') return node;
  const request = { model: text(raw.model, MAX_TITLE) || null, system: text(raw.system), settings: numbers(raw.settings) };
  const error = raw.error && typeof raw.error === 'object' ? { message: text(raw.error.message, 2000) } : null;
  return { ...node, ...request, seed: finite(raw.seed, null), finish: text(raw.finish, 40) || null, stats: numbers(raw.stats), error };
}

/** The conversations of an exported file, under new ids; throws where it is none. Takes nothing but known fields. */
export function imported(file) {
  if (file?.format !== FORMAT || file.version !== 1 || !Array.isArray(file.conversations)) throw new Error('not an export');
  return file.conversations.map((raw) => {
    const rawNodes = Object.values(raw?.nodes ?? {}).filter((node) => ROLES.includes(node?.role) && typeof node.id === 'string');
    const ids = new Map(rawNodes.map((node) => [node.id, newId()]));
    const settings = { model: text(raw.model, MAX_TITLE) || null, system: text(raw.system), settings: numbers(raw.settings) };
    const conversation = newConversation(settings);
    for (const node of rawNodes) conversation.nodes[ids.get(node.id)] = importedNode(node, ids);
    conversation.head = ids.get(raw.head) ?? Object.keys(conversation.nodes).at(-1) ?? null;
    conversation.title = text(raw.title, MAX_TITLE);
    conversation.named = raw.named === true;
    conversation.created = finite(raw.created, conversation.created);
    conversation.updated = finite(raw.updated, conversation.updated);
    return conversation;
  });
}
