//! From a stream of tokens to what a model says: text, thoughts, calls of tools.
