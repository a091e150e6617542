// All suites, one after another: `node suite.mjs`, started by clients.rs.

await import("./openai.mjs");
await import("./responses.mjs");
await import("./videos.mjs");
await import("./anthropic.mjs");
