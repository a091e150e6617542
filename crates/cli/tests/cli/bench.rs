//! `wushi bench`: that it measures; how fast is for people to judge.

use crate::support::{Sandbox, tiny};

#[test]
fn json_has_every_field() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = ["bench", &model, "-p", "40", "-n", "8", "-b", "1,3", "--threads", "1", "-r", "1", "--json"];
    let report = sandbox.json(&args);
    assert_eq!(report["machine"]["threads"], 1);
    assert!(report["machine"]["cpu"].is_string() && report["machine"]["instruction_set"].is_string());
    for peak in ["bandwidth_gb_per_s", "int8_giga_macs_per_s", "f32_giga_macs_per_s"] {
        assert!(report["machine"][peak].as_f64().unwrap() > 0.0, "{peak}");
    }
    assert_eq!(report["model"]["architecture"], "llama");
    assert!(report["load_s"].as_f64().unwrap() > 0.0 && report["ttft_s"].as_f64().unwrap() > 0.0);
    #[cfg(target_os = "linux")]
    assert!(report["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    let results = report["results"].as_array().unwrap();
    let kinds: Vec<_> = results
        .iter()
        .map(|row| (row["kind"].as_str().unwrap(), row["sequences"].as_u64().unwrap()))
        .collect();
    assert_eq!(kinds, [("prefill", 1), ("decode", 1), ("prefill", 3), ("decode", 3)]);
    for row in results {
        for number in ["tokens_per_s", "gb_per_s", "giga_macs_per_s", "share_of_bandwidth", "share_of_peak"] {
            assert!(row[number].as_f64().unwrap() > 0.0, "{number}: {row}");
        }
        let decode = row["kind"] == "decode";
        assert_eq!(row["inter_token_ms"].is_object(), decode);
        let per_sequence = row["tokens"].as_u64().unwrap() / row["sequences"].as_u64().unwrap();
        assert!(if decode { per_sequence >= 4 } else { per_sequence == 40 }, "{row}");
    }
}

#[test]
fn steps_add_up() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = ["bench", &model, "-p", "40", "-n", "8", "-b", "3", "-t", "2", "-r", "2", "--json", "--steps"];
    let report = sandbox.json(&args);
    let schedule = sandbox.json(&["inspect", &model, "--schedule", "--rows", "40", "--json"]);
    let sum = |steps: &serde_json::Value, number: &str| -> u64 {
        steps.as_array().unwrap().iter().map(|step| step[number].as_u64().unwrap()).sum()
    };
    let macs = sum(&schedule["schedule"]["steps"], "macs");
    let tables = report["steps"].as_array().unwrap();
    let kinds: Vec<_> = tables.iter().map(|table| table["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["prefill", "decode"]);
    for table in tables {
        assert_eq!(table["sequences"], 3);
        assert!(table["units"].as_u64().unwrap() >= 1, "{table}");
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let steps = table["kinds"].as_array().unwrap();
        let seconds: Vec<f64> = steps.iter().map(|step| number(&step["seconds"])).collect();
        assert!(seconds.is_sorted_by(|a, b| a >= b), "{table}");
        let others: f64 =
            ["waiting_s", "around_s", "between_s"].iter().map(|name| number(&table[name])).sum();
        let all = seconds.iter().sum::<f64>() + others;
        assert!((all / number(&table["seconds"]) - 1.0).abs() < 1e-6, "{all}: {table}");
        let linear = steps.iter().find(|step| step["kernel"] == "linear").unwrap();
        assert!(number(&linear["share_of_peak"]) > 0.0 && number(&linear["share_of_bandwidth"]) > 0.0);
        assert!(linear["bytes"].as_u64().unwrap() > 0 && linear["what"].as_str().unwrap() != "");
        for kernel in ["attention", "embed", "rms_norm"] {
            assert!(steps.iter().any(|step| step["kernel"] == kernel), "{kernel}: {table}");
        }
    }
    // Three prompts are three times one, in however many batches.
    assert_eq!(sum(&tables[0]["kinds"], "multiply_adds"), 3 * macs, "{report}");
}

#[test]
fn one_kind_can_be_measured_alone() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    for (only, others) in [("prefill", "decode"), ("decode", "prefill")] {
        let args = ["bench", &model, "-p", "12", "-n", "4", "-b", "1,2", "-r", "1", "--only", only];
        let report = sandbox.json(&[&args[..], &["--json"]].concat());
        let results = report["results"].as_array().unwrap();
        assert!(results.len() == 2 && results.iter().all(|row| row["kind"] == only), "{report}");
        assert_eq!(report["ttft_s"].is_number(), only == "prefill");
        assert!(report.get("steps").is_none(), "{report}");
        let text = sandbox.run(&[&args[..], &["--steps"]].concat()).ok().stdout;
        assert!(text.contains(&format!("{only} of 2 sequences: ")) && !text.contains(others), "{text}");
        assert!(text.contains("attn_q") && text.contains("(waiting)"), "{text}");
    }
    assert!(sandbox.run(&["bench", &model, "--only", "all"]).error(2).contains("prefill, decode"));
    assert!(sandbox.run(&["bench", &model, "--steps", "4"]).error(1).contains("makes videos"));
}

#[test]
fn people_get_a_table() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let text = sandbox.run(&["bench", &model, "-p", "8", "-n", "4", "-b", "2", "-r", "1"]).ok().stdout;
    assert!(text.contains("prefill          2") && text.contains("P99 MS"), "{text}");
}

#[test]
fn what_does_not_fit_is_refused_with_numbers() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let error = sandbox.run(&["bench", &model, "-p", "4000", "-q"]).error(1);
    assert!(error.contains("2048"), "{error}");
    let error = sandbox.run(&["bench", &model, "-b", "64", "--memory", "3M", "-q"]).error(1);
    assert!(error.contains("not enough memory: 64 sequences"), "{error}");
    assert!(sandbox.run(&["bench", &model, "-b", "0"]).error(2).contains("--batch"));
}
