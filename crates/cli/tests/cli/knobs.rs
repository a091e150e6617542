//! Flag, environment, `wushi.toml`, default: in this order.

use crate::support::{Sandbox, tiny};

fn tokens(sandbox: &Sandbox, flags: &[&str]) -> u64 {
    let model = tiny();
    let args = ["run", &model, "hello", "--temperature", "0", "--json"];
    sandbox.json(&[&args[..], flags].concat())["usage"]["completion_tokens"].as_u64().unwrap()
}

#[test]
fn layers_win_in_order() {
    let sandbox = Sandbox::new();
    sandbox.write("wushi.toml", "max-tokens = 2\nquiet = true\n");
    assert_eq!(tokens(&sandbox, &[]), 2);
    let sandbox = sandbox.with("WUSHI_MAX_TOKENS", "3");
    assert_eq!(tokens(&sandbox, &[]), 3);
    assert_eq!(tokens(&sandbox, &["--max-tokens", "4"]), 4);
}

#[cfg(target_os = "linux")]
#[test]
fn the_users_folder_counts_where_the_current_one_says_nothing() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path(".config/wushi");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("wushi.toml"), "max-tokens = 5").unwrap();
    assert_eq!(tokens(&sandbox, &[]), 5);
    sandbox.write("wushi.toml", "max-tokens = 2");
    assert_eq!(tokens(&sandbox, &[]), 2);
}

#[test]
fn bad_values_name_their_source() {
    let model = tiny();
    let sandbox = Sandbox::new().with("WUSHI_TOP_P", "1.5");
    let error = sandbox.run(&["run", &model, "hello"]).error(1);
    assert!(error.contains("WUSHI_TOP_P: invalid value `1.5`"), "{error}");
    let sandbox = Sandbox::new();
    sandbox.write("wushi.toml", "threads = \"few\"");
    let error = sandbox.run(&["run", &model, "hello"]).error(1);
    assert!(error.contains("wushi.toml: `threads`: invalid value `few`"), "{error}");
    sandbox.write("wushi.toml", "thread = 1");
    let error = sandbox.run(&["list"]).error(1);
    assert!(error.contains("wushi.toml: `thread` is no knob") && error.contains("threads"), "{error}");
    sandbox.write("wushi.toml", "threads = ");
    assert!(sandbox.run(&["list"]).error(1).contains("wushi.toml"));
    let sandbox = Sandbox::new().with("WUSHI_LOG", "=loud=");
    assert!(sandbox.run(&["list"]).error(1).contains("=loud="));
}

#[test]
fn unknown_variables_are_pointed_at() {
    let warned = Sandbox::new().with("WUSHI_THREAD", "1").run(&["list"]).ok();
    assert!(warned.stderr.contains("WUSHI_THREAD"), "{}", warned.stderr);
}

#[test]
fn logs_go_to_stderr_as_loud_as_asked() {
    let model = tiny();
    let args = ["run", &model, "hello", "-n", "1", "-q"];
    assert_eq!(Sandbox::new().run(&args).ok().stderr, "");
    let loud = Sandbox::new().run(&[&args[..], &["-vvv"]].concat()).ok();
    assert!(loud.stderr.contains("DEBUG") || loud.stderr.contains("TRACE"), "{}", loud.stderr);
    let chosen = Sandbox::new().with("WUSHI_LOG", "wushi_engine=debug").run(&args).ok();
    assert!(chosen.stderr.contains("DEBUG"), "{}", chosen.stderr);
}
