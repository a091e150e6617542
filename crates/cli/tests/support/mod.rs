//! What the tests of the real binary over HTTP share: the default model, servers, and the programs of other languages.
#![allow(dead_code, reason = "each test takes a part of it")]

pub(crate) mod http;
pub(crate) mod programs;
pub(crate) mod server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where models are kept between runs: the user's choice, else the build folder.
fn home() -> PathBuf {
    match std::env::var_os("WUSHI_HOME") {
        Some(home) => home.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("store"),
    }
}

/// The default model's file; the first test that asks fetches it.
pub(crate) fn smollm2() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let mut pull = Command::new(env!("CARGO_BIN_EXE_wushi"));
        let output = pull.args(["pull", "smollm2"]).env("WUSHI_HOME", home()).output();
        let output = output.expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let store = wushi_hub::Store::open(home()).expect("the store opens");
        let name = wushi_hub::ModelRef::parse("smollm2").expect("in the catalogue");
        store.find(&name).expect("just pulled")
    })
}

/// A tiny model of the fixtures.
pub(crate) fn tiny(name: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
    fixtures.join(name).display().to_string()
}

/// A tiny model that makes videos.
pub(crate) fn tiny_video() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wan/wan21/pipe")
}
