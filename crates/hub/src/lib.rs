//! A model's name to a verified file on this disk.
//!
//! [`ModelRef::parse`] reads what a person typed: a path, `hf:org/repo`, `hf:org/repo/file`, an `https://` address, or a
//! short name of the [`CATALOGUE`]. [`pull`] makes sure that its files are on this disk: already in the [`Store`], or
//! fetched from the first source that works, verified, and moved in by an atomic rename. [`Store::list`],
//! [`Store::find`] and [`Store::remove`] do what they say.
//!
//! # On disk
//!
//! ```text
//! <store>/models/<key>/<file>        the model, whole and verified; some have several files
//! <store>/models/<key>/.wushi.json   where it came from: name, source, SHA-256, bytes, licence, time
//! <store>/partial/<key>.part         bytes fetched so far, kept when interrupted: the next pull goes on from there
//!                                    (of several files one each, <key>-<digest of its name>.part)
//! <store>/partial/<key>.json         which address they came from, and its ETag
//! <store>/partial/<key>.lock         held (advisory lock) by the process that is fetching
//! ```
//!
//! A model becomes visible by one rename of its whole folder, so at no moment does `models/` hold half of anything.
//!
//! This crate stands apart: it knows no format and no engine. It reads no environment and prints nothing; the caller
//! passes [`Options`] and watches through [`Progress`].

mod catalogue;
mod error;
mod http;
mod options;
mod package;
mod partial;
mod progress;
mod pull;
mod reference;
mod repository;
mod store;

pub use catalogue::{CATALOGUE, Entry, Source};
pub use error::{Attempt, HubError, SourceFailure};
pub use options::{Options, default_location};
pub use progress::{Progress, Silent};
pub use pull::{Pulled, pull};
pub use reference::ModelRef;
pub use store::{State, Store, StoredFile, StoredModel, sha256};
