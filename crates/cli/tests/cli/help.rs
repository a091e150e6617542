//! `--help` and `--version`.

use crate::support::Sandbox;

const COMMANDS: [&str; 12] = [
    "run",
    "video",
    "pull",
    "list",
    "rm",
    "inspect",
    "convert",
    "tokenize",
    "perplexity",
    "bench",
    "key",
    "replay",
];

#[test]
fn every_command_explains_itself() {
    let sandbox = Sandbox::new();
    let all = sandbox.run(&["--help"]).ok().stdout;
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command} ")), "{all}");
        for flag in ["-h", "--help"] {
            let help = sandbox.run(&[command, flag]).ok().stdout;
            assert!(help.contains(&format!("Usage: wushi {command}")), "{help}");
        }
    }
    let help = sandbox.run(&["run", "--help"]).ok().stdout;
    for said in ["WUSHI_TOP_K", "wushi.toml", "Examples:", "hf:org/repo/file.gguf", "else 0.7"] {
        assert!(help.contains(said), "{said}: {help}");
    }
    let help = sandbox.run(&["video", "--help"]).ok().stdout;
    for said in
        ["WUSHI_FLOW_SHIFT", "--guidance-2", "Examples:", "is never replaced", "--text-encoder", "832x480"]
    {
        assert!(help.contains(said), "{said}: {help}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let version = Sandbox::new().run(&["--version"]).ok().stdout;
    assert_eq!(version, format!("wushi {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn nothing_and_nonsense_are_usage_errors() {
    let sandbox = Sandbox::new();
    let nothing = sandbox.run(&[]);
    assert_eq!(nothing.code, Some(2));
    assert!(nothing.stderr.contains("Usage: wushi"));
    assert!(sandbox.run(&["jog"]).error(2).contains("jog"));
    assert!(sandbox.run(&["run", "--tempo", "1"]).error(2).contains("--tempo"));
}
