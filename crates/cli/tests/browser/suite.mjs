// All tests, one after another with one browser: `node suite.mjs`, started by browser.rs.

import { after } from 'node:test';
import { closeBrowser } from './support.mjs';

await import('./chat.mjs');
await import('./safety.mjs');
await import('./access.mjs');
await import('./server.mjs');
await import('./video.mjs');
await import('./video_access.mjs');

after(closeBrowser);
