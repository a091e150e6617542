//! The safetensors reader and folders of it: what is read, what damaged files are told, and files nobody should trust.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use wushi_formats::checkpoint::{Container, Recipe};
use wushi_formats::safetensors::Safetensors;
use wushi_formats::{Checkpoint, Folder, FormatError, Metadata};
use wushi_graph::{DType, TensorDesc, WeightSource};

#[path = "exercise/safetensors.rs"]
mod exercise;

use exercise::exercise;

/// A file of these tensors, one after the other.
fn file(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        let offsets = [start, data.len()];
        entries
            .push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":{offsets:?}}}"#));
    }
    with_header(&format!("{{{}}}", entries.join(",")), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn folder(files: &[(&str, Vec<u8>)]) -> Result<Folder, FormatError> {
    Folder::from_files(files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect())
}

fn one_file(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Folder {
    folder(&[("config.json", b"{}".to_vec()), ("model.safetensors", file(tensors))]).unwrap()
}

fn made(folder: Folder, recipes: &[(&str, Recipe)]) -> Result<Checkpoint, FormatError> {
    let recipes = recipes.iter().map(|(name, recipe)| ((*name).to_owned(), recipe.clone())).collect();
    folder.into_checkpoint(Metadata::new(), recipes)
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn recipes_make_tensors() {
    let held = one_file(&[
        ("norm", "BF16", &[2], vec![0x80, 0x3f, 0x00, 0x40]),
        ("q", "F16", &[8, 1], (0..16).collect()),
        ("e0", "F16", &[1, 2], vec![1; 4]),
        ("e1", "F16", &[1, 2], vec![2; 4]),
        ("gate", "BF16", &[1, 1], vec![0x80, 0x3f]),
        ("layers.0.rotary_emb.inv_freq", "F32", &[1], vec![0; 4]),
    ]);
    let checkpoint = made(
        held,
        &[
            ("a_norm.weight", Recipe::tensor("norm").plus_one()),
            ("q.weight", Recipe::tensor("q").pair_heads(2)),
            ("exps.weight", Recipe::stacked(["e0", "e1"])),
            ("blk.0.ffn_gate_inp.weight", Recipe::tensor("gate")),
            ("rope_freqs.weight", Recipe::computed(vec![1.0, 2.0], &[2])),
        ],
    )
    .unwrap();
    assert_eq!(checkpoint.container(), Container::Safetensors);
    let check = |name: &str, dtype, shape: &[usize], bytes: &[u8]| {
        assert_eq!(checkpoint.describe(name), Some(TensorDesc { dtype, shape }), "{name}");
        assert_eq!(checkpoint.read(name).unwrap(), bytes, "{name}");
    };
    check("a_norm.weight", DType::F32, &[2], &f32s(&[2.0, 3.0]));
    check("q.weight", DType::F16, &[8, 1], &[0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]);
    check("exps.weight", DType::F16, &[2, 1, 2], &[1, 1, 1, 1, 2, 2, 2, 2]);
    check("blk.0.ffn_gate_inp.weight", DType::F32, &[1, 1], &f32s(&[1.0]));
    check("rope_freqs.weight", DType::F32, &[2], &f32s(&[1.0, 2.0]));
}

#[test]
fn recipes_that_do_not_fit_are_refused_by_name() {
    let tensors: &[(&str, &str, &[usize], Vec<u8>)] = &[
        ("m", "F16", &[4, 2], vec![0; 16]),
        ("n", "BF16", &[4, 2], vec![0; 16]),
        ("wide", "F16", &[4, 3], vec![0; 24]),
        ("ids", "I64", &[1], vec![0; 8]),
        ("new", "F7_X", &[9], vec![0; 8]),
        ("none", "F32", &[0], vec![]),
        ("scalar", "F32", &[], vec![0; 4]),
    ];
    let refused = |recipe: Recipe| {
        let mut held = one_file(tensors);
        tensors.iter().for_each(|(name, ..)| held.ignore(name));
        made(held, &[("t.weight", recipe)]).unwrap_err().to_string()
    };
    assert!(refused(Recipe::tensor("absent")).contains("`absent` is missing"));
    assert!(refused(Recipe::tensor("ids")).contains("`ids` is stored as I64"));
    assert!(
        refused(Recipe::tensor("new")).contains("F7_X") && refused(Recipe::tensor("new")).contains("BF16")
    );
    assert!(refused(Recipe::stacked(["m", "n"])).contains("F16 and BF16"));
    assert!(refused(Recipe::stacked(["m", "wide"])).contains("do not fit together"));
    assert!(refused(Recipe::tensor("m").pair_heads(4)).contains("no 4 heads of even length"));
    assert!(refused(Recipe::tensor("m").pair_heads(0)).contains("no 0 heads"));
    assert!(refused(Recipe::tensor("none")).contains("must have some"));
    assert!(refused(Recipe::tensor("scalar")).contains("must have some"));
    let unused = made(one_file(&tensors[..2]), &[("t.weight", Recipe::tensor("m"))]).unwrap_err();
    assert!(unused.to_string().contains("`n` has no place"), "{unused}");
    let same = [("t.weight", Recipe::tensor("m")), ("t.weight", Recipe::tensor("n"))];
    assert!(made(one_file(&tensors[..2]), &same).unwrap_err().to_string().contains("twice"));
}

#[test]
fn files_that_are_something_else_are_told_apart() {
    let told = |bytes: &[u8]| Safetensors::from_bytes(bytes.to_vec()).unwrap_err().to_string();
    assert!(told(b"").contains("it is empty"));
    assert!(told(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    assert!(told(b"<!DOCTYPE html><html>").contains("web page"));
    assert!(told(b"GGUF\x03\0\0\0\0\0\0\0").contains("GGUF file"));
    assert!(told(b"PK\x03\x04\0\0\0\0\0\0").contains("PyTorch"));
    assert!(told(&file(&[("t", "F32", &[1], vec![0; 4])])[..20]).contains("truncated"));
    assert!(told(&with_header("[]", b"")).contains("header"));
    assert!(told(&with_header("{}", b"x")).contains("1 bytes behind the last tensor"));
    let twice = r#"{"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
    assert!(told(&with_header(twice, b"")).contains("twice"));
}

/// A folder on the disk with two weight files and an index.
fn sharded() -> (tempfile::TempDir, Vec<u8>) {
    let place = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(place.path().join(name), bytes).unwrap();
    let index =
        br#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    put("config.json", b"{}");
    put("model.safetensors.index.json", index);
    put("model-00001-of-00002.safetensors", &file(&[("a", "F32", &[1, 1], f32s(&[1.0]))]));
    put("model-00002-of-00002.safetensors", &file(&[("b", "F32", &[1, 1], f32s(&[2.0]))]));
    (place, index.to_vec())
}

#[test]
fn an_index_joins_files() {
    let (place, index) = sharded();
    let put = |name: &str, bytes: &[u8]| fs::write(place.path().join(name), bytes).unwrap();
    let open = || Folder::open(place.path()).map_err(|error| error.to_string());
    let checkpoint =
        made(open().unwrap(), &[("a.weight", Recipe::tensor("a")), ("b.weight", Recipe::tensor("b"))])
            .unwrap();
    assert_eq!(checkpoint.read("b.weight").unwrap(), f32s(&[2.0]));
    assert_eq!(checkpoint.files().count(), 2);
    let second = "model-00002-of-00002.safetensors";

    put(second, &file(&[("c", "F32", &[1, 1], f32s(&[2.0]))]));
    assert!(open().unwrap_err().contains("tensor `b` is not in model-00002"));
    put(second, &file(&[("a", "F32", &[1, 1], f32s(&[2.0])), ("b", "F32", &[1, 1], f32s(&[2.0]))]));
    assert!(open().unwrap_err().contains("`a` appears twice"));
    fs::remove_file(place.path().join(second)).unwrap();
    assert!(open().unwrap_err().contains(&format!("one is missing: {second}")));
    for (bad, said) in [
        (&b"{"[..], "model.safetensors.index.json"),
        (b"[]", "no `weight_map`"),
        (br#"{"weight_map":{}}"#, "names 0 files"),
        (br#"{"weight_map":{"a":"../x.safetensors"}}"#, "in no safetensors file"),
        (br#"{"weight_map":{"a":"x.bin"}}"#, "in no safetensors file"),
        (br#"{"weight_map":{"a":3}}"#, "in no safetensors file"),
    ] {
        put("model.safetensors.index.json", bad);
        let error = open().unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    put("model.safetensors.index.json", &index);
}

#[cfg(unix)]
#[test]
fn links_are_followed_as_caches_have_them() {
    let (place, _) = sharded();
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("models--org--tiny/snapshots/0123");
    fs::create_dir_all(&snapshot).unwrap();
    for entry in fs::read_dir(place.path()).unwrap() {
        let path = entry.unwrap().path();
        std::os::unix::fs::symlink(&path, snapshot.join(path.file_name().unwrap())).unwrap();
    }
    let folder = Folder::open(&snapshot).unwrap();
    assert_eq!(folder.tensor_names().count(), 2);
    assert_eq!(folder.name().as_deref(), Some("tiny"));
}

#[test]
fn folders_without_a_model_say_what_is_missing() {
    let told = |files: &[(&str, Vec<u8>)]| folder(files).unwrap_err().to_string();
    let config = ("config.json", b"{}".to_vec());
    assert!(told(&[]).contains("no config.json"));
    assert!(told(&[("m.gguf", Vec::new())]).contains("as in m.gguf"));
    assert!(told(&[config.clone(), ("pytorch_model.bin", Vec::new())]).contains("pickle"));
    assert!(told(std::slice::from_ref(&config)).contains("no model.safetensors"));
    assert!(told(&[("config.json", b"[]".to_vec()), ("model.safetensors", file(&[]))]).contains("no object"));
    assert!(told(&[("config.json", b"{".to_vec())]).contains("config.json"));
    let mut metadata = Metadata::new();
    let without = |more: &[(&str, Vec<u8>)]| {
        folder(&[&[config.clone(), ("model.safetensors", file(&[]))], more].concat()).unwrap()
    };
    let error = without(&[]).import_tokenizer(1, &mut metadata).unwrap_err().to_string();
    assert!(error.contains("no tokenizer.json"), "{error}");
    let error = without(&[("tokenizer.model", Vec::new())]).import_tokenizer(1, &mut metadata);
    assert!(error.unwrap_err().to_string().contains("tokenizer.model alone is not read"));
}

#[test]
fn the_licence_is_that_of_the_model_card() {
    let licence = |card: &str| {
        let files =
            [("config.json", b"{}".to_vec()), ("model.safetensors", file(&[])), ("README.md", card.into())];
        folder(&files).unwrap().licence().unwrap()
    };
    assert_eq!(licence("---\ntags:\n- x\nlicense: apache-2.0\n---\n# Model").as_deref(), Some("apache-2.0"));
    assert_eq!(licence("---\nlicense: \"mit\"\n---\n").as_deref(), Some("mit"));
    assert_eq!(licence("# Model\nlicense: mit\n"), None);
    assert_eq!(licence("---\n---\nlicense: mit\n"), None);
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/safetensors")
}

#[test]
fn every_file_of_the_corpus_is_read_or_refused_as_its_name_says() {
    let mut seen = [0, 0];
    for entry in fs::read_dir(corpus()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let read = exercise(&fs::read(&path).unwrap());
        if name.starts_with("valid-") {
            assert!(read, "{name} should be readable");
        } else if name.starts_with("bad-") {
            assert!(!read, "{name} should be refused");
        }
        seen[usize::from(read)] += 1;
    }
    assert!(seen[0] >= 20 && seen[1] >= 4, "the corpus shrank: {seen:?}");
}

fn sound_file() -> Vec<u8> {
    fs::read(corpus().join("valid-model.safetensors")).unwrap()
}

#[test]
fn every_truncation_is_refused() {
    let file = sound_file();
    for length in 0..file.len() {
        assert!(!exercise(&file[..length]), "{length} bytes of {}", file.len());
    }
}

#[test]
fn no_flipped_byte_of_the_header_panics() {
    let mut file = sound_file();
    let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    for place in 0..header {
        for pattern in [0x01, 0x10, 0x80, 0xff] {
            file[place] ^= pattern;
            exercise(&file);
            file[place] ^= pattern;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_is_read_back(
        tensors in prop::collection::btree_map(
            "[a-z]{1,6}",
            (prop::sample::select(&[("F32", 4usize), ("F16", 2), ("BF16", 2), ("I64", 8), ("BOOL", 1)][..]),
             prop::collection::vec(0usize..4, 0..4), any::<u8>()),
            0..6,
        ),
    ) {
        let tensors: BTreeMap<String, (&str, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, ((dtype, size), shape, byte))| {
                let length = shape.iter().product::<usize>() * size;
                (name, (dtype, shape, (0..length).map(|i| byte.wrapping_add(i as u8)).collect()))
            })
            .collect();
        let listed: Vec<(&str, &str, &[usize], Vec<u8>)> = tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| (name.as_str(), *dtype, shape.as_slice(), bytes.clone()))
            .collect();
        let bytes = file(&listed);
        let read = Safetensors::from_bytes(bytes.clone()).unwrap();
        prop_assert_eq!(read.tensors().len(), tensors.len());
        for tensor in read.tensors() {
            let (dtype, shape, content) = &tensors[&tensor.name];
            prop_assert_eq!((tensor.type_name.as_str(), &tensor.shape), (*dtype, shape));
            prop_assert_eq!(read.tensor_bytes(tensor), content.as_slice());
        }
        exercise(&bytes);
    }

    #[test]
    fn no_mutation_of_a_sound_file_panics(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        digits in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b"0123456789-[],{}\""[..])), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = sound_file();
        for (place, byte) in flips.into_iter().chain(digits) {
            let place = place.index(file.len());
            file[place] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        exercise(&file);
    }

    #[test]
    fn no_header_panics(header in "[ -~]{0,200}", data in prop::collection::vec(any::<u8>(), 0..32)) {
        exercise(&with_header(&header, &data));
    }
}
