//! The engine from outside, driven by an executor that notices every wrong page, position or token.
mod clients;
mod embeddings;
mod fake;
mod lifecycle;
mod refusals;
mod robust;
mod same_answer;
mod scheduling;
