//! Dequantisation equals the `gguf` Python package's on committed vectors, bit by bit.

use std::path::PathBuf;

use wushi_graph::DType;
use wushi_quant::dequantize;

#[test]
fn values_are_those_of_the_reference() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/dequant");
    for &dtype in DType::ALL.iter().filter(|&&dtype| dtype != DType::F32) {
        let read =
            |extension: &str| std::fs::read(folder.join(format!("{dtype}.{extension}"))).expect("a fixture");
        let got = dequantize(dtype, &read("bin"));
        let want = dequantize(DType::F32, &read("f32"));
        assert_eq!(got.len(), want.len(), "{dtype}");
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(same, "{dtype} element {i}: {got:e} is not {want:e}");
        }
    }
}
