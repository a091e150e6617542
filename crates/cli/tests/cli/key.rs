//! `wushi key`: made, listed, removed.

use wushi_server::store::Store;

use crate::support::Sandbox;

#[test]
fn made_listed_removed() {
    let sandbox = Sandbox::new();
    let added =
        sandbox.run(&["key", "add", "bob", "--requests-per-minute", "5", "--tokens-per-day", "1000"]).ok();
    let secret = added.stdout.trim_end();
    assert_eq!(added.stdout, format!("{secret}\n"), "the secret, alone on its line");
    assert!(!added.stderr.contains(secret) && added.stderr.contains("bob"), "{}", added.stderr);

    let database = sandbox.path("home").join("server.sqlite");
    let store = Store::open_existing(&database).unwrap().unwrap();
    let key = store.authenticate(secret).unwrap().unwrap();
    assert_eq!((key.limits.requests_per_minute, key.limits.tokens_per_day), (Some(5), Some(1000)));

    let list = sandbox.json(&["key", "list", "--json"]);
    assert_eq!(list["database"], database.to_str().unwrap());
    let listed = &list["keys"][0];
    assert_eq!((&listed["name"], &listed["id"]), (&"bob".into(), &(&*key.id).into()));
    assert_eq!((listed["requests_per_minute"].as_u64(), &listed["removed"]), (Some(5), &().into()));
    assert_eq!(listed["today"]["requests"], 0);
    let table = sandbox.run(&["key", "list"]).ok().stdout;
    assert!(table.contains("bob") && table.contains("valid") && !table.contains(secret), "{table}");

    assert!(sandbox.run(&["key", "add", "bob"]).error(1).contains("there is a key `bob` already"));
    let removed = sandbox.run(&["key", "rm", "bob"]).ok();
    assert_eq!(removed.stdout, "");
    assert!(sandbox.run(&["key", "rm", "bob"]).error(1).contains("there is no key `bob`"));
    assert!(sandbox.run(&["key", "list"]).ok().stdout.contains("removed"));
    let start = std::time::Instant::now();
    loop {
        let asked = start.elapsed();
        if store.authenticate(secret).unwrap().is_none() {
            break;
        }
        assert!(asked.as_millis() < 1000, "a server beside it sees it within a second");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }

    let again = sandbox.json(&["key", "add", "bob", "--json"]);
    let key = store.authenticate(again["secret"].as_str().unwrap());
    assert_eq!(again["name"], "bob");
    assert!(again["tokens_per_day"].is_null() && key.is_ok());
    assert_eq!(sandbox.json(&["key", "rm", "bob", "--json"])["id"], again["id"]);
}

#[test]
fn looking_creates_nothing() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.json(&["key", "list", "--json"])["keys"].as_array().unwrap().len(), 0);
    let list = sandbox.run(&["key", "list"]).ok();
    assert!(list.stderr.contains("wushi key add"), "{}", list.stderr);
    assert!(sandbox.run(&["key", "rm", "bob"]).error(1).contains("there is no key `bob`"));
    assert!(!sandbox.path("home").exists());
}

#[test]
fn another_database() {
    let sandbox = Sandbox::new().with("WUSHI_DATABASE", "elsewhere/keys.sqlite");
    // A typing error must not look like a database without keys.
    assert!(sandbox.run(&["key", "add", "bob"]).error(1).contains("there is no folder elsewhere"));
    std::fs::create_dir(sandbox.path("elsewhere")).unwrap();
    sandbox.run(&["key", "add", "bob"]).ok();
    assert!(sandbox.path("elsewhere/keys.sqlite").exists() && !sandbox.path("home").exists());
    assert_eq!(
        sandbox.json(&["key", "list", "--json", "--database", "x"])["keys"].as_array().unwrap().len(),
        0
    );
    let text = sandbox
        .write("text", "a text that is long enough to be taken for the header of a file, or not?".repeat(3));
    let error = sandbox.run(&["key", "add", "bob", "--database", text.to_str().unwrap()]).error(1);
    assert!(error.contains("no database of Wushi") && error.contains("--database"), "{error}");
}

#[test]
fn bad_arguments() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(&["key", "add", "bob", "--requests-per-minute", "0"]).error(2).contains("from 1"));
    assert!(sandbox.run(&["key", "add", "bob", "--tokens-per-day", "-1"]).error(2).contains("from 1"));
    assert!(sandbox.run(&["key", "add", ""]).error(1).contains("it is empty"));
    assert!(sandbox.run(&["key", "add", "a\nb"]).error(1).contains("control characters"));
    assert!(!sandbox.path("home").exists(), "nothing was created for it");
    assert!(sandbox.run(&["key", "rm"]).error(2).contains("NAME"));
    let usage = sandbox.run(&["key"]);
    assert_eq!(usage.code, Some(2));
    assert!(usage.stderr.contains("add") && usage.stderr.contains("list"), "{}", usage.stderr);
}
