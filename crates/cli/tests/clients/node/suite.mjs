// All suites, one after another: `node suite.mjs`, started by clients.rs.

await import("./openai.mjs");
