//! `wushi embed`.

use crate::support::{Sandbox, fixture};

fn numbers(line: &str) -> Vec<f32> {
    line.split(' ').map(|number| number.parse().expect("a number")).collect()
}

#[test]
fn texts_become_vectors_of_length_one() {
    let sandbox = Sandbox::new();
    for model in ["models/bert-tiny", "models/bert-tiny.gguf"] {
        let args = ["embed", &fixture(model), "Hello, world!", "you", "Hello, world!", "-q"];
        let lines = sandbox.run(&args).ok().stdout;
        let vectors: Vec<Vec<f32>> = lines.lines().map(numbers).collect();
        assert_eq!((vectors.len(), vectors[0].len()), (3, 32));
        assert!(vectors[0] == vectors[2] && vectors[0] != vectors[1]);
        for vector in &vectors {
            let length: f32 = vector.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
        let report = sandbox.json(&[&args[..], &["--json", "--threads", "1"]].concat());
        assert_eq!(report["tokens"], serde_json::json!([6, 3, 6]));
        let same: Vec<f32> = serde_json::from_value(report["embeddings"][0].clone()).expect("numbers");
        assert_eq!(same, vectors[0]);
        let longer = sandbox.run(&[&args[..], &["--no-normalise"]].concat()).ok().stdout;
        assert_ne!(numbers(longer.lines().next().expect("a line")), vectors[0]);
    }
}

#[test]
fn what_cannot_be_embedded_is_said() {
    let sandbox = Sandbox::new();
    let bert = fixture("models/bert-tiny");
    let error = sandbox.run(&["embed", &bert, &"you ".repeat(100)]).error(1);
    assert!(error.contains("text 1") && error.contains("the context holds 64"), "{error}");
    let error = sandbox.run(&["embed", &fixture("models/qwen2-tiny"), "x"]).error(1);
    assert!(error.contains("no embedding model") && error.contains("wushi run"), "{error}");
    let error = sandbox.run(&["run", &bert, "x"]).error(1);
    assert!(error.contains("embedding model") && error.contains("wushi embed"), "{error}");
}
