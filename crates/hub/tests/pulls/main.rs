//! Whole pulls: a server or a package client on the one side, a store on the other.

mod http;
// The stand-in for Python is a shell script.
#[cfg(unix)]
mod package;
mod repository;
mod store;
mod support;
