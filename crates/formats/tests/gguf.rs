//! The GGUF reader and writer: round trips, and what damaged files are told.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use wushi_formats::checkpoint::Container;
use wushi_formats::gguf::{Array, GgmlType, StringArray, Value, Writer};
use wushi_formats::{Checkpoint, FormatError, Gguf};
use wushi_graph::{DType, TensorDesc, WeightSource};

fn read(writer: &Writer<'_>) -> Result<Checkpoint, FormatError> {
    Gguf::from_bytes(writer.to_bytes().unwrap()).map(Checkpoint::from_gguf)
}

fn refusal(bytes: &[u8]) -> String {
    Gguf::from_bytes(bytes.to_vec()).unwrap_err().to_string()
}

/// What the reader says to a file of the corpus.
fn refused(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus/gguf")
        .join(name)
        .with_extension("gguf");
    refusal(&fs::read(path).unwrap())
}

#[test]
fn shapes_are_outermost_first_and_bytes_are_where_they_belong() {
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama").set("llama.block_count", 2u16);
    writer.tensor("a", DType::F32, &[3], vec![1; 12]).unwrap();
    writer.tensor("b", DType::Q4_1, &[2, 64], vec![2; 80]).unwrap();
    let file = read(&writer).unwrap();
    assert_eq!(file.container(), Container::Gguf(3));
    assert_eq!(file.file_size() % 32, 0);
    assert_eq!(file.metadata().require_u32("llama.block_count").unwrap(), 2);
    assert_eq!(file.describe("b"), Some(TensorDesc { dtype: DType::Q4_1, shape: &[2, 64] }));
    assert_eq!(file.read("b").unwrap(), [2; 80].as_slice());
    assert_eq!(file.read("a").unwrap(), [1; 12].as_slice());
    assert!(file.describe("c").is_none() && file.read("c").is_err());
    assert_eq!(file.parameters(), 131);
    let totals = file.types();
    assert_eq!(
        (totals[0].ggml_type.to_string(), totals[0].elements, totals[0].bytes),
        ("Q4_1".into(), 128, 80)
    );
    file.check_supported().unwrap();
}

#[test]
fn unsupported_types_are_listed_but_not_run() {
    let mut writer = Writer::new();
    writer.tensor("fine", DType::F16, &[4], vec![0; 8]).unwrap();
    writer.tensor("blk.0.ffn_down.weight", GgmlType(16), &[2, 256], vec![0; 132]).unwrap();
    writer.tensor("odd", GgmlType(1234), &[7], vec![0; 32]).unwrap();
    let file = read(&writer).unwrap();
    let listed: Vec<_> = file.tensors().iter().map(|t| (t.ggml_type.to_string(), t.dtype)).collect();
    assert_eq!(listed[1], ("IQ2_XXS".into(), None));
    assert_eq!(listed[2], ("unknown ggml type 1234".into(), None));
    assert!(file.describe("blk.0.ffn_down.weight").is_none());
    let error = file.check_supported().unwrap_err().to_string();
    assert!(
        error.contains("`blk.0.ffn_down.weight` is stored as IQ2_XXS") && error.contains("Q8_0"),
        "{error}"
    );
}

#[test]
fn a_part_of_a_split_model_is_not_run() {
    let mut writer = Writer::new();
    writer.set("split.count", 3u16);
    let error = read(&writer).unwrap().check_supported().unwrap_err().to_string();
    assert!(error.contains("3 parts"), "{error}");
}

#[test]
fn files_that_are_something_else_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| Gguf::open(path).unwrap_err().to_string();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = open(&path);
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        error
    };
    assert!(put("empty", b"").contains("it is empty"));
    assert!(put("pointer", b"version https://git-lfs.github.com/spec/v1\n").contains("git-lfs pointer"));
    assert!(put("page", b"\n<!DOCTYPE html><html>").contains("web page"));
    assert!(put("zip", b"PK\x03\x04....").contains("PyTorch"));
    assert!(put("safetensors", b"\x40\0\0\0\0\0\0\0{\"a\":").contains("safetensors"));
    assert!(put("other", b"hello").contains("does not begin with `GGUF`"));
    assert!(open(folder.path()).contains("directory"));
    assert!(open(&folder.path().join("absent")).contains("absent"));
    assert!(open(Path::new("/dev/null")).contains("not a regular file"));
}

#[test]
fn damaged_headers_are_told_what_is_wrong() {
    assert!(refused("bad-big-endian").contains("big-endian"));
    assert!(refused("bad-version-1").contains("version 1 is not supported"));
    assert!(
        refused("bad-tensor-count")
            .starts_with("file ends inside tensor table: needs 18446744073709551615 more")
    );
    assert!(refused("bad-string-length").starts_with("file ends inside the value of metadata key `k`"));
    assert!(
        refused("bad-truncated-entries").contains("file ends inside the value of metadata key `tokenizer")
    );
    assert!(refused("bad-nested-arrays").contains("nested more than"));
    assert!(refused("bad-value-type").contains("unknown value type 13"));
    assert!(refused("bad-truth").contains("truth value of 2"));
    assert!(refused("bad-key-text").contains("not valid UTF-8"));
    assert!(refused("bad-key-control").contains("control characters"));
    assert!(
        refused("bad-array-text").contains("string 0 of the value of metadata key `k` is not valid UTF-8")
    );
    assert_eq!(refused("bad-duplicate-key"), "metadata key `general.architecture` appears twice");
    assert_eq!(refused("bad-duplicate-tensor"), "tensor `t` appears twice");
    assert!(refused("bad-alignment-odd").contains("general.alignment is 33"));
}

#[test]
fn damaged_tensor_tables_are_told_what_is_wrong() {
    assert!(refused("bad-dimensions").contains("9 dimensions"));
    assert!(refused("bad-shape-overflow").contains("impossible shape"));
    assert!(refused("bad-shape-zero").contains("impossible shape [0, 8]"));
    assert!(refused("bad-rows").contains("rows of 31 elements are no whole number of Q8_0 blocks of 32"));
    assert!(refused("bad-offset-unaligned").contains("offset 4 is not aligned to 32"));
    assert!(refused("bad-offset-overlap").contains("inside tensor"));
    assert!(refused("bad-offset-gap").contains("gap of 32 bytes"));
    assert!(refused("bad-offset-huge").contains("absurd"));
    assert!(
        refused("bad-tensor-beyond-end").contains("its 36 bytes at offset 0 reach past the end of the file")
    );
}

#[test]
fn released_tensors_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let big: Vec<u8> = (0..1 << 20).map(|i| (i * 7 % 251) as u8).collect();
    let mut writer = Writer::new();
    writer.tensor("small", DType::F32, &[8], vec![3; 32]).unwrap();
    writer.tensor("big", DType::F16, &[2, 1 << 18], big.as_slice()).unwrap();
    writer.tensor("last", DType::F32, &[8], vec![5; 32]).unwrap();
    fs::write(&path, writer.to_bytes().unwrap()).unwrap();
    let file = Checkpoint::open_gguf(&path).unwrap();
    let view = file.read("big").unwrap();
    assert!(matches!(view, Cow::Borrowed(_)), "nothing is copied");
    assert_eq!(view, big);
    for name in ["big", "small", "last", "absent"] {
        file.release(name);
    }
    assert_eq!(view, big);
    assert_eq!(file.read("small").unwrap(), [3; 32].as_slice());
    assert_eq!(file.read("last").unwrap(), [5; 32].as_slice());
}

#[test]
fn the_writer_refuses_bytes_that_do_not_fit() {
    let mut writer = Writer::new();
    assert!(writer.tensor("t", DType::Q8_0, &[32], vec![0; 33]).is_err());
    assert!(writer.tensor("t", DType::Q8_0, &[33], vec![0; 34]).is_err());
    assert!(writer.tensor("t", DType::F32, &[usize::MAX, 2], vec![]).is_err());
    writer.set("general.alignment", 24u32);
    assert!(writer.to_bytes().is_err());
}

fn arrays() -> impl Strategy<Value = Array> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..5).prop_map(Array::U8),
        prop::collection::vec(any::<i8>(), 0..5).prop_map(Array::I8),
        prop::collection::vec(any::<u16>(), 0..5).prop_map(Array::U16),
        prop::collection::vec(any::<i16>(), 0..5).prop_map(Array::I16),
        prop::collection::vec(any::<u32>(), 0..5).prop_map(Array::U32),
        prop::collection::vec(any::<i32>(), 0..5).prop_map(Array::I32),
        prop::collection::vec(any::<u64>(), 0..5).prop_map(Array::U64),
        prop::collection::vec(any::<i64>(), 0..5).prop_map(Array::I64),
        prop::collection::vec(-1e9f32..1e9, 0..5).prop_map(Array::F32),
        prop::collection::vec(-1e9f64..1e9, 0..5).prop_map(Array::F64),
        prop::collection::vec(any::<bool>(), 0..5).prop_map(Array::Bool),
        prop::collection::vec(any::<String>(), 0..5)
            .prop_map(|strings| Array::Strings(strings.into_iter().collect::<StringArray>())),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Array::Arrays))
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e9f32..1e9).prop_map(Value::F32),
        (-1e9f64..1e9).prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::String),
        arrays().prop_map(Value::Array),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read_back(
        entries in prop::collection::vec(("[a-z]{1,8}(\\.[a-z_]{1,8})?", values()), 0..12),
        tensors in prop::collection::vec(
            (prop::sample::select(DType::ALL), prop::collection::vec(1usize..4, 0..3), 1usize..4, any::<u8>()),
            0..6,
        ),
        alignment in prop::sample::select(&[8u32, 32, 64, 4096][..]),
    ) {
        let mut writer = Writer::new();
        writer.set("general.alignment", alignment);
        for (key, value) in &entries {
            writer.set(key.as_str(), value.clone());
        }
        let mut expected = Vec::new();
        for (index, (dtype, outer, inner, byte)) in tensors.into_iter().enumerate() {
            let shape = [outer, vec![inner * dtype.block_elements()]].concat();
            let length = dtype.bytes_of(shape.iter().product()).unwrap();
            let bytes: Vec<u8> = (0..length).map(|i| byte.wrapping_add(i as u8)).collect();
            writer.tensor(format!("t{index}"), dtype, &shape, bytes.clone()).unwrap();
            expected.push((format!("t{index}"), dtype, shape, bytes));
        }
        let file = read(&writer).unwrap();
        for (key, value) in &entries {
            let last = entries.iter().rfind(|(other, _)| other == key).map(|(_, value)| value);
            prop_assert_eq!(file.metadata().get(key), last, "{:?}", value);
        }
        prop_assert_eq!(file.tensors().len(), expected.len());
        for (name, dtype, shape, bytes) in &expected {
            prop_assert_eq!(file.describe(name), Some(TensorDesc { dtype: *dtype, shape }));
            prop_assert_eq!(file.read(name).unwrap(), &bytes[..]);
        }
    }
}
