//! The process among others: pipes that close, signals.

use std::process::Stdio;

use crate::support::{Outcome, Sandbox, tiny};

#[test]
fn a_reader_that_leaves_is_no_error() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = ["run", &model, "hello", "--seed", "1", "--logit-bias", "54=100", "-q"];
    let mut child = sandbox.command(&args).spawn().unwrap();
    drop(child.stdout.take());
    let outcome = Outcome::of(child);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}

#[cfg(unix)]
#[test]
fn ctrl_c_without_an_answer_ends_the_process() {
    use std::io::Read;
    let (sandbox, model) = (Sandbox::new(), tiny());
    // It waits for a prompt that never comes. With -vv it says so once it listens for signals.
    let mut child = sandbox.command(&["run", &model, "-vv"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 1];
    child.stderr.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    // Open until it has ended: the end of its input would end it too.
    let _stdin = child.stdin.take();
    assert_eq!(Outcome::of(child).code, Some(130));
}
