//! `wushi inspect`.

use crate::support::{Sandbox, expected, tiny};

#[test]
fn json_says_what_the_model_is() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let report = sandbox.json(&["inspect", &model, "--json"]);
    let config = &expected("llama-tiny-q4_1")["config"];
    assert_eq!(report["architecture"], "llama");
    assert_eq!(report["context"], config["context"]);
    assert_eq!(report["tokenizer"]["tokens"], config["vocab"]);
    assert_eq!(report["supported"], true);
    assert!(report["chat_template"].as_str().unwrap().contains("<|im_start|>"));
    assert!(report["licence"].is_string());
    let tensors = report["tensors"].as_array().unwrap();
    let sum = |of: &dyn Fn(&serde_json::Value) -> u64| tensors.iter().map(of).sum::<u64>();
    let elements = |t: &serde_json::Value| {
        t["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>()
    };
    assert_eq!(report["parameters"].as_u64(), Some(sum(&elements)));
    let types = report["types"].as_array().unwrap();
    assert!(types.iter().any(|kind| kind["type"] == "Q4_1"));
    let bytes: u64 = types.iter().map(|kind| kind["bytes"].as_u64().unwrap()).sum();
    assert_eq!(bytes, sum(&|tensor| tensor["bytes"].as_u64().unwrap()));
    assert!(report.get("schedule").is_none());
}

#[test]
fn the_schedule_knows_its_operations_and_bytes() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let schedule = |rows: &str| {
        sandbox.json(&["inspect", &model, "--schedule", "--rows", rows, "--json"])["schedule"].clone()
    };
    let (one, many) = (schedule("1"), schedule("8"));
    let steps = |schedule: &serde_json::Value| schedule["steps"].as_array().unwrap().clone();
    assert_eq!(one["rows"], 1);
    let config = &expected("llama-tiny-q4_1")["config"];
    let attention = steps(&one).iter().filter(|step| step["kernel"] == "attention").count();
    assert_eq!(attention as u64, config["layers"].as_u64().unwrap());
    let sum = |schedule: &serde_json::Value, of: &str| {
        steps(schedule).iter().map(|step| step[of].as_u64().unwrap()).sum::<u64>()
    };
    assert!(sum(&one, "macs") > 0 && sum(&many, "macs") > 4 * sum(&one, "macs"));
    assert!(sum(&one, "weight_bytes") > 0 && sum(&many, "weight_bytes") < 2 * sum(&one, "weight_bytes"));
}

#[test]
fn names_do_not_steer_the_terminal() {
    let sandbox = Sandbox::new();
    let mut bytes = std::fs::read(tiny()).unwrap();
    let name = b"llama-tiny-q4_1";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at..at + name.len()].copy_from_slice(b"a\x1b[2Jb\rc\nname x");
    let path = sandbox.write("name.gguf", bytes).display().to_string();
    let text = sandbox.run(&["inspect", &path]).ok().stdout;
    assert!(text.starts_with("name          a\\u{1b}[2Jb\\rc\\nname x\n"), "{text}");
    let notes = sandbox.run(&["run", &path, "hi", "-n", "1"]).ok().stderr;
    assert!(notes.starts_with("a\\u{1b}[2Jb\\rc\\nname x: llama, "), "{notes}");
    assert!(!text.contains('\x1b') && !notes.contains('\x1b'));
    assert_eq!(sandbox.json(&["inspect", &path, "--json"])["name"], "a\u{1b}[2Jb\rc\nname x");
}

#[test]
fn people_get_tables() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let text = sandbox.run(&["inspect", &model, "--tensors", "--schedule"]).ok().stdout;
    for said in [
        "architecture  llama",
        "Q4_1",
        "blk.1.ffn_down.weight",
        "CHAT TEMPLATE",
        "SCHEDULE for 1 rows",
        "barriers",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}
