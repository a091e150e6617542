//! `wushi bench`: that it measures; how fast is for people to judge.

use crate::support::{Sandbox, tiny};

#[test]
fn json_has_every_field() {
    let (sandbox, model) = (Sandbox::new(), tiny());
    let args = ["bench", &model, "-p", "40", "-n", "8", "-b", "1,3", "--threads", "1", "-r", "1", "--json"];
    let report = sandbox.json(&args);
    assert_eq!(report["machine"]["threads"], 1);
    assert!(report["machine"]["cpu"].is_string() && report["machine"]["instruction_set"].is_string());
    for peak in ["bandwidth_gb_per_s", "int8_giga_macs_per_s"] {
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
